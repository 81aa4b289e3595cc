//! Executing another program in the place of this one: the process, its children and the
//! descriptors named stay, everything else begins anew. Does not know what is handed over.
//! Invariant: if it does not come to that, nothing has changed.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::run::signals::WATCHED;

/// The path by which this program was started: whatever lies there later is its next version.
/// `/proc/self/exe` would name the file that was there, even after it is gone. To be asked before
/// the working directory changes.
pub fn program() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    if called.components().count() > 1 {
        return Some(std::env::current_dir().ok()?.join(called));
    }
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(&called));
    places.find(|place| place.is_file())
}

/// Runs `program` in the place of this one, with the descriptors in `keep` open. Signals should be
/// blocked: one that comes before the next program has its handlers would end it. Returns only if
/// that failed.
pub fn execute(program: &Path, arguments: &[&OsStr], keep: &[RawFd]) -> io::Error {
    let words = |word: &OsStr| CString::new(word.as_bytes());
    let program = words(program.as_os_str());
    let arguments: Result<Vec<CString>, _> = arguments.iter().map(|it| words(it)).collect();
    let (Ok(program), Ok(arguments)) = (program, arguments) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|it| it.as_ptr()).collect();
    pointers.push(std::ptr::null());
    set_close_on_exec(keep, false);
    // SAFETY: the program and all arguments are zero-ended strings that live through the call, and
    // the list of them ends with a null pointer.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    let error = io::Error::last_os_error();
    set_close_on_exec(keep, true);
    error
}

/// Has signals wait, for this thread, for those that it starts from now on, and across exec.
pub fn block_signals() {
    mask_signals(libc::SIG_BLOCK);
}

/// Sends this process a signal, as if it came from outside.
pub fn send_again(signal: libc::c_int) {
    // SAFETY: plain numbers, and our own pid.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Lets in what came meanwhile, once the handlers stand.
pub fn unblock_signals() {
    mask_signals(libc::SIG_UNBLOCK);
}

fn mask_signals(how: libc::c_int) {
    // SAFETY: an all-zero set is a valid value, and is emptied before use.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live local; the numbers are those of signals; no old set is asked for.
    unsafe {
        libc::sigemptyset(&mut set);
        for &signal in WATCHED {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

fn set_close_on_exec(fds: &[RawFd], close: bool) {
    let flags = if close { libc::FD_CLOEXEC } else { 0 };
    for &fd in fds {
        // SAFETY: plain numbers; one that is not open gives an error, which the next program tells.
        unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_program_that_is_not_there_leaves_everything_as_it_was() {
        let file = File::open("/dev/null").unwrap();
        let keep = [file.as_raw_fd()];
        for (program, kind) in [
            ("/no/such/program", io::ErrorKind::NotFound),
            ("/dev/null", io::ErrorKind::PermissionDenied),
            ("with\0zero", io::ErrorKind::InvalidInput),
        ] {
            let error = execute(Path::new(program), &[OsStr::new("lineman")], &keep);
            assert_eq!(error.kind(), kind, "{program}");
            // SAFETY: plain numbers.
            let flags = unsafe { libc::fcntl(keep[0], libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
    }
}
