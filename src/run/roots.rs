//! The directories that `files` handlers serve: whether they are there, and how a file below one is
//! opened. Invariant: what is opened lies below the root, whatever links there are on the way; the
//! kernel decides that where it can, so that nobody who renames meanwhile gets past.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::net::files::Root;
use crate::run::exit::{Exit, Failure};

/// Waits for nobody (a pipe), becomes nobody's terminal, is inherited by nobody.
const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// Fails for the first root that is no directory.
pub fn check(config: &Config) -> Result<(), Failure> {
    for listen in &config.listen {
        let Some(root) = &listen.root else { continue };
        let refuse = |why: String| {
            let message = format!("{}: root {}: {why}", listen.url, root.dir.display());
            Failure::new(Exit::BadConfig, message)
        };
        match std::fs::metadata(&root.dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(refuse("is no directory".to_string())),
            Err(error) => return Err(refuse(error.to_string())),
        }
    }
    Ok(())
}

/// What each listener serves.
pub fn of(config: &Config) -> Vec<Option<Root>> {
    let listen = config.listen.iter();
    let root = listen.map(|listen| {
        let root = listen.root.clone()?;
        // The root itself is opened anew for each file: a link to it may be put elsewhere, which is
        // how sites are published.
        let dir: PathBuf = root.dir;
        Some(Root {
            open: Box::new(move |path| open_below(&dir, path)),
            index: root.index,
        })
    });
    root.collect()
}

fn open_below(root: &Path, path: &str) -> io::Result<File> {
    let root = open_at(None, root.as_os_str(), libc::O_DIRECTORY)?;
    match beneath(root.as_fd(), path) {
        // An old kernel, or a sandbox that does not know the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            step_by_step(root, path)
        }
        // A link where none is followed, which the standard library has no word for yet.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(io::ErrorKind::NotFound.into())
        }
        opened => opened,
    }
    .map(File::from)
}

/// Links that stay below the root are followed.
#[cfg(target_os = "linux")]
fn beneath(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: an all-zero open_how is a valid value: numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = FLAGS as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the descriptor is open, the path zero-ended, and the size is that of `how`; all live
    // through the call.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    own(opened as libc::c_int)
}

#[cfg(not(target_os = "linux"))]
fn beneath(_root: BorrowedFd<'_>, _path: &str) -> io::Result<OwnedFd> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Without help of the kernel no link is followed at all.
fn step_by_step(root: OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut at = root;
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(io::ErrorKind::NotFound.into());
        }
        at = open_at(Some(at.as_fd()), OsStr::new(part), libc::O_NOFOLLOW)?;
    }
    Ok(at)
}

fn open_at(dir: Option<BorrowedFd<'_>>, path: &OsStr, more: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_bytes())?;
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    // SAFETY: the descriptor is open or stands for the working directory; the path is zero-ended
    // and lives through the call.
    own(unsafe { libc::openat(dir, path.as_ptr(), FLAGS | more) })
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(opened: io::Result<impl Into<File>>) -> Option<String> {
        let mut text = String::new();
        let mut file: File = opened.ok()?.into();
        file.read_to_string(&mut text).ok()?;
        Some(text)
    }

    #[test]
    fn links_may_lead_about_below_the_root_and_never_out_of_it() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("dir")).unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("dir/a"), "a").unwrap();
        symlink("dir/a", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink(place.path(), root.join("dir/up")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        assert_eq!(read(open_below(&root, "dir/a")).as_deref(), Some("a"));
        for path in [
            "outside",
            "dir/up/secret",
            "../secret",
            "dir/../../secret",
            "magic/etc/passwd",
        ] {
            assert_eq!(read(open_below(&root, path)), None, "{path}");
            let dir = open_at(None, root.as_os_str(), libc::O_DIRECTORY).unwrap();
            assert_eq!(read(step_by_step(dir, path)), None, "{path}");
        }
        let dir = || open_at(None, root.as_os_str(), libc::O_DIRECTORY).unwrap();
        assert_eq!(read(step_by_step(dir(), "dir/a")).as_deref(), Some("a"));
        assert_eq!(read(step_by_step(dir(), "inside")), None);
        if beneath(dir().as_fd(), "dir/a").is_ok() {
            assert_eq!(read(open_below(&root, "inside")).as_deref(), Some("a"));
        }
    }
}
