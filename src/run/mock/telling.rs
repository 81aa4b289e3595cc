//! The lines of a mock on their way to stdout: a thread writes them, so that a reader who is slow
//! holds up no answer. Bound: what it has not written is dropped beyond `LINES`, and counted in a line
//! of its own. When nobody reads any more, the process ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use crossbeam_channel::{Receiver, TrySendError, bounded};

use crate::node::mock::Tell;

/// Lines that wait.
const LINES: usize = 10_000;

/// Begins to write.
pub fn start() -> io::Result<Tell> {
    let (sender, receiver) = bounded::<String>(LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let lost = dropped.clone();
    thread::Builder::new()
        .name("stdout".to_string())
        .spawn(move || {
            if write(&receiver, &lost).is_err() {
                std::process::exit(0);
            }
        })?;
    Ok(Box::new(move |line| match sender.try_send(line) {
        Err(TrySendError::Full(_)) => {
            dropped.fetch_add(1, Relaxed);
            false
        }
        _ => true,
    }))
}

fn write(lines: &Receiver<String>, lost: &AtomicU64) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Ok(line) = lines.recv() {
        writeln!(out, "{line}")?;
        for line in lines.try_iter() {
            writeln!(out, "{line}")?;
        }
        let count = lost.swap(0, Relaxed);
        if count > 0 {
            writeln!(out, "{{\"dropped\":{count}}}")?;
        }
        out.flush()?;
    }
    Ok(())
}
