//! The operating system calls that the standard library lacks. Owns what differs between Linux
//! and other systems; does not know why anyone calls. Invariant: each `unsafe` block is one call
//! whose arguments are valid for its whole duration.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use libc::c_int;

/// The longest path a Unix socket may have: `sun_path` less its closing zero byte.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

pub fn effective_uid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// The name of a user, or the number when it has none.
pub fn user_name(uid: u32) -> String {
    let mut buffer = [0 as libc::c_char; 4096];
    // SAFETY: an all-zero passwd is a valid value: null pointers and zeros.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: all pointers are to live locals, and the length is that of the buffer.
    let result = unsafe {
        libc::getpwuid_r(
            uid,
            &mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    if result != 0 || found.is_null() || entry.pw_name.is_null() {
        return uid.to_string();
    }
    // SAFETY: on success `pw_name` is a zero-ended string inside `buffer`, which still lives.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    name.to_string_lossy().into_owned()
}

/// What we create is for our user alone.
pub fn restrict_new_files() {
    // SAFETY: takes a number, cannot fail, touches no memory.
    unsafe { libc::umask(0o077) };
}

/// Whether the directory could take a new entry from us.
pub fn is_writable(dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the path is a zero-ended string that lives through the call.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// Rows and columns of a terminal.
pub fn terminal_size(terminal: &impl AsRawFd) -> io::Result<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is a live local of the type the call fills.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) })?;
    if size.ws_row == 0 || size.ws_col == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((size.ws_row.into(), size.ws_col.into()))
}

/// Raises the number of descriptors we may hold to what the system allows; returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live local of the type the call fills.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live local.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Keeps what this process has in memory out of core dumps, and other processes of its user out of its
/// memory. What does not work is left as it is: nobody else's rights depend on it.
pub fn forbid_dumps() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` is a live local.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong);
    }
}

/// Has the kernel give this process, and those it starts, memory in small pages only. In huge ones
/// whatever is touched takes 2 MiB, which a process that holds many small connections scattered
/// over its heap never fills. A kernel that does not know the wish goes on as it did.
pub fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers.
    unsafe {
        let (one, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, one, zero, zero, zero);
    }
}

/// Sets these signals to be ignored, by this process and by what it will exec. Safe to call
/// between fork and exec.
pub fn ignore_signals(signals: &[c_int]) {
    for &signal in signals {
        // SAFETY: installs no handler of ours, so there is no code that could run at a bad time.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Asks the kernel to kill this process when its parent dies, and checks that the parent is still
/// the one meant: it may have died before the kernel was asked. Safe to call between fork and exec.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: plain numbers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) })?;
    }
    // SAFETY: takes no arguments and cannot fail.
    let actual = unsafe { libc::getppid() };
    if u32::try_from(actual) != Ok(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// The name shown by `ps` for a program that was started through `/proc`.
pub fn name_process(name: &str) {
    let name = CString::new(name).unwrap_or_default();
    #[cfg(target_os = "linux")]
    // SAFETY: the name is a zero-ended string; the kernel copies at most 16 bytes of it.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// A copy of `fd` with number `least` or above, closed on exec.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fd` is open for as long as it is borrowed; the other arguments are numbers.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts `fd` at number `target`, open across exec, closing what was there. Safe to call between
/// fork and exec. The two numbers must differ.
pub fn place_at(fd: RawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: plain numbers. A wrong one gives an error, not a memory fault; that nobody owns
    // `target` is the caller's business, as with any descriptor number.
    check(unsafe { libc::dup2(fd, target) }).map(drop)
}

/// Keeps every descriptor from `first` on from what will be exec'd. Safe to call between fork and
/// exec. Where the system cannot do it in one call, what we opened ourselves is closed anyway.
pub fn close_on_exec_from(first: RawFd) {
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers, and nothing is closed before exec.
    unsafe {
        let first = libc::c_long::from(first);
        let last = libc::c_long::from(libc::c_uint::MAX);
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
    #[cfg(not(target_os = "linux"))]
    let _ = first;
}

/// Takes ownership of a descriptor that was open when the program began.
///
/// # Safety
/// Nothing else in this process owns `fd`.
pub unsafe fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; an invalid descriptor gives an error.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as the call above has shown, and the caller vouches for the rest.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file without a name that holds `bytes`.
pub fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = unnamed_file()?;
    file.write_all(bytes)?;
    Ok(file)
}

/// The same with `bytes` zeros, for which no memory is taken until they are touched.
pub fn empty_memory_file(bytes: usize) -> io::Result<File> {
    let file = unnamed_file()?;
    file.set_len(bytes as u64)?;
    Ok(file)
}

/// The first `count` numbers of a file as memory that every process with the file shares. It stays
/// mapped for as long as this process lives. Nobody may shorten the file.
pub fn share(file: &impl AsFd, count: usize) -> io::Result<&'static [AtomicU64]> {
    let fd = file.as_fd();
    let bytes = count * size_of::<AtomicU64>();
    // Memory beyond the end of the file could be mapped, but not touched.
    if File::from(fd.try_clone_to_owned()?).metadata()?.len() < bytes as u64 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel chooses a place where nothing is mapped, so no memory of ours changes; a
    // wrong argument gives an error.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping begins at a page, so it is aligned; it is `bytes` long, never unmapped,
    // and whatever bits it holds are numbers. Whoever else has it uses atomics as well.
    Ok(unsafe { std::slice::from_raw_parts(address.cast(), count) })
}

#[cfg(target_os = "linux")]
fn unnamed_file() -> io::Result<File> {
    // SAFETY: the name is a zero-ended constant.
    let fd = check(unsafe { libc::memfd_create(c"config".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
fn unnamed_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("lineman-config-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The user at the other end of a Unix socket, as it was when the connection was made.
#[cfg(target_os = "linux")]
pub fn peer_uid(stream: &impl AsRawFd) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to live locals, and the length is that of the first.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &mut length,
        )
    })?;
    Ok(peer.uid)
}

#[cfg(not(target_os = "linux"))]
pub fn peer_uid(stream: &impl AsRawFd) -> io::Result<u32> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the pointers are to live locals.
    check(unsafe { libc::getpeereid(stream.as_raw_fd(), &mut uid, &mut gid) })?;
    Ok(uid)
}

/// Whether the peer is our own user or root.
pub fn is_friend(stream: &impl AsRawFd) -> bool {
    peer_uid(stream).is_ok_and(|uid| uid == effective_uid() || uid == 0)
}

/// `is_friend` in the shape in which a reactor takes it.
pub fn admit(stream: &UnixStream) -> bool {
    is_friend(stream)
}

/// The memory a process holds in RAM; `None` when it is gone or the system does not tell.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// The CPU time a process has used, user and system; `None` as above.
pub fn cpu_ms(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // SAFETY: takes a number, touches no memory.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).ok().filter(|it| *it > 0)?;
    Some(ticks * 1000 / per_second)
}

/// The monotonic clock as the service manager reads it.
pub fn monotonic_micros() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live local; this clock exists everywhere we run.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// What each thread of a process is doing, in words, as far as the system tells us: names and
/// states always; where in the kernel it waits only to root or, where the system allows it, to the
/// same user.
pub fn threads_of(pid: u32) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let tasks = tasks.flatten().take(THREADS_TOLD_MAX);
    tasks.map(|task| thread_words(&task.path())).collect()
}

/// Threads whose state is told; a process of ours has fewer unless it is configured oddly.
const THREADS_TOLD_MAX: usize = 80;

fn thread_words(task: &Path) -> String {
    let read = |name: &str| {
        let text = std::fs::read_to_string(task.join(name)).unwrap_or_default();
        let text = text.trim().replace('\n', " < ");
        if text.is_empty() {
            "?".to_string()
        } else {
            text
        }
    };
    let status = read("stat");
    let state = status.rsplit_once(')').map_or("?", |(_, rest)| rest.trim());
    let state = state.split(' ').next().unwrap_or("?").to_string();
    format!(
        "thread {} state {state}, waits in {}, system call {}, kernel stack {}",
        read("comm"),
        read("wchan"),
        read("syscall"),
        read("stack")
    )
}

/// Sends a signal to one thread of a child of ours. It may be gone, which is as good.
pub fn signal_thread(pid: u32, thread: u32, signal: c_int) {
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers. The child was not waited for, so nobody else has its number.
    unsafe {
        libc::syscall(libc::SYS_tgkill, pid, thread, signal);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (pid, thread, signal);
}

/// What is left of the calling process after `fork`.
pub enum Forked {
    Parent(c_int),
    Child,
}

/// Splits the process in two.
///
/// # Safety
/// The process has one thread.
pub unsafe fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread, no lock can be held by a thread that does not exist in the child.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Waits for a child made by `fork` to end. Returns its exit code; `None` when a signal ended it.
pub fn wait_for(pid: c_int) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: `status` is a live local.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// Leaves the terminal and the process group behind.
pub fn new_session() -> io::Result<()> {
    // SAFETY: takes no arguments.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Ends the process without running anything that the other half of a fork will run.
pub fn exit_at_once(code: u8) -> ! {
    // SAFETY: does not return, so nothing can rely on what it skipped.
    unsafe { libc::_exit(c_int::from(code)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_other_end_of_our_own_pair_is_ourselves() {
        let (one, _two) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&one).unwrap(), effective_uid());
        assert!(admit(&one));
    }

    #[test]
    fn a_memory_file_holds_what_was_written() {
        let file = memory_file(b"workers = 1").unwrap();
        let mut bytes = [0; 11];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"workers = 1");
    }

    #[test]
    fn a_duplicate_lies_above_the_number_asked_for() {
        let file = File::open("/dev/null").unwrap();
        assert!(duplicate_above(file.as_fd(), 200).unwrap().as_raw_fd() >= 200);
    }

    #[test]
    fn our_own_memory_is_known_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
            assert!(cpu_ms(std::process::id()).is_some());
        }
        assert_eq!(resident_bytes(u32::MAX), None);
        assert_eq!(cpu_ms(u32::MAX), None);
    }
}
