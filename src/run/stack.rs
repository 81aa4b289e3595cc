//! Where a thread stands when it gives no sign of life: the master sends it a signal, and what the
//! thread was called from ends up in the log. Both ends of that, and nothing of why anyone asks.
//! A process that was asked ends when it has told.
//! Invariant: the signal's handler only reads its own stack and writes it to a socket; names are
//! looked up by another thread, which has the time.

use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use signal_hook::low_level;

use crate::run::exit::ChildExit;
use crate::run::os;

/// Ignored by whoever does not listen to it, and sent by nobody unasked.
const ASKED: libc::c_int = libc::SIGURG;
/// A stack that is deeper shows its innermost part.
const FRAMES_MAX: usize = 100;
/// How long to wait for the stack of another thread of this process, all having been asked at once.
const NEXT_PATIENCE: Duration = Duration::from_millis(100);
/// Frames of the telling itself.
const TELLING: [&str; 3] = [
    "backtrace::",
    "lineman::run::stack::",
    "signal_hook_registry::",
];

/// Listens in this process from now on. To be called before threads that may be asked for start.
///
/// # Errors
/// When the system lends no socket, no thread or no signal; then nothing will be told.
pub fn tell_when_asked() -> io::Result<()> {
    let (reader, writer) = UnixDatagram::pair()?;
    // A thread that tells its stack twice before anybody reads tells it once.
    writer.set_nonblocking(true)?;
    let writer = writer.into_raw_fd();
    thread::Builder::new()
        .name("stack".into())
        .spawn(move || log_stacks(&reader))?;
    let action = move || {
        let mut frames = [0_usize; FRAMES_MAX];
        let mut count = 0;
        let note = |frame: &backtrace::Frame| {
            frames[count] = frame.ip().addr();
            count += 1;
            count < FRAMES_MAX
        };
        // SAFETY: the walk itself takes no lock and allocates nothing; what keeps it from being
        // shared between threads is a cache of symbols, which it does not touch.
        unsafe { backtrace::trace_unsynchronized(note) };
        // SAFETY: `write` is async-signal-safe; the frames are live and at least so long; the
        // descriptor was given up by its owner above and is never closed.
        unsafe {
            libc::write(
                writer,
                frames.as_ptr().cast(),
                size_of_val(&frames[..count]),
            )
        };
    };
    // SAFETY: the action is async-signal-safe as far as its two calls are, see there; it takes no
    // lock of ours and cannot panic: `count` stays below the length.
    unsafe { low_level::register(ASKED, action) }?;
    Ok(())
}

/// One datagram holds one stack, innermost frame first. The process ends when all are written: it
/// would be killed otherwise, and nobody is to wait longer than this takes.
fn log_stacks(reader: &UnixDatagram) {
    let mut buffer = [0; FRAMES_MAX * size_of::<usize>()];
    while let Ok(length) = reader.recv(&mut buffer) {
        let (frames, _) = buffer[..length].as_chunks();
        let names = frames.iter().map(|it| name(usize::from_ne_bytes(*it)));
        let telling = |name: &String| TELLING.iter().any(|it| name.starts_with(it));
        for (number, name) in names.filter(|it| !telling(it)).enumerate() {
            log::error!("stuck, frame {number}: {name}");
        }
        let _ = reader.set_read_timeout(Some(NEXT_PATIENCE));
    }
    log::logger().flush();
    os::exit_at_once(ChildExit::Stuck as u8);
}

/// The function and its place in the source, or the address alone when the program was stripped.
fn name(address: usize) -> String {
    let mut names = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        let function = symbol
            .name()
            .map_or("?".to_string(), |name| format!("{name:#}"));
        let place = symbol.filename().zip(symbol.lineno());
        names.push(place.map_or(function.clone(), |(file, line)| {
            format!("{function} at {}:{line}", file.display())
        }));
    });
    match names.is_empty() {
        true => format!("{address:#x}"),
        // More than one where functions were put into their callers.
        false => names.join(", in "),
    }
}

/// Asks the reactors of a child where they stand.
pub fn ask(pid: u32) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(thread) = thread.filter(|_| name.starts_with("reactor")) {
            os::signal_thread(pid, thread, ASKED);
        }
    }
}
