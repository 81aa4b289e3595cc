//! Signals as bytes on a socket pair, so that the master's loop learns of them like of anything
//! else. Does not know what a signal means to the server. Invariant: a handler does nothing but
//! one write that cannot block.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd};

use libc::c_int;
use mio::net::UnixStream;
use signal_hook::low_level;

/// The signals the master listens to. SIGPIPE is ignored by the Rust runtime already.
pub const WATCHED: &[c_int] = &[
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// What the children ignore: a terminal sends Ctrl-C to the whole group, a service manager may
/// send SIGTERM to it, and it is the master that tells its children what to do.
pub const IGNORED_BY_CHILDREN: &[c_int] = &[
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// The reading end. The writing end lives as long as the process, as its handlers do.
pub struct Signals {
    pub stream: UnixStream,
}

impl Signals {
    pub fn watch() -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        let writer = writer.into_raw_fd();
        for &signal in WATCHED {
            let byte = signal as u8;
            let action = move || {
                // SAFETY: `write` is async-signal-safe; the byte is a live local; the descriptor
                // was given up by its owner above and is never closed. It does not block: when it
                // is full, enough is waiting to be read.
                unsafe { libc::write(writer, (&raw const byte).cast(), 1) };
            };
            // SAFETY: the action above is async-signal-safe: it allocates nothing, takes no lock
            // and cannot panic. `errno` is saved by the caller.
            unsafe { low_level::register(signal, action) }?;
        }
        Ok(Signals { stream: reader })
    }

    /// The signals that arrived, each once.
    pub fn take(&mut self) -> Vec<c_int> {
        let mut taken: Vec<c_int> = Vec::new();
        let mut buffer = [0; 128];
        while let Ok(count @ 1..) = self.stream.read(&mut buffer) {
            for &byte in &buffer[..count] {
                if !taken.contains(&c_int::from(byte)) {
                    taken.push(c_int::from(byte));
                }
            }
        }
        taken
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signals({})", self.stream.as_raw_fd())
    }
}
