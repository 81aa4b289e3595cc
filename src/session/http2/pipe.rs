//! The two byte queues as the stream that the h2 crate reads from and writes to. Owns the bytes
//! between our queues and h2; decides nothing. Invariant: a read or a write that cannot go on says
//! so and waits for nobody: who owns the connection tries again.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::bytes::Outbox;
use crate::wire::http2_frames::FrameWatch;

/// Both directions, as the session sees them.
pub(super) struct Wires {
    input: Vec<u8>,
    /// How much of the input h2 has read.
    read: usize,
    /// Nothing comes behind the input.
    pub ended: bool,
    /// What h2 wrote and the outbox has not taken yet.
    pub output: Vec<u8>,
    /// The output does not grow beyond it.
    pub output_max: usize,
    /// Whether a write has found no room.
    pub blocked: bool,
    /// All bytes that were ever written.
    pub written: u64,
    pub watch: FrameWatch,
}

impl Wires {
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.is_read() {
            self.input.clear();
            self.read = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    pub fn is_read(&self) -> bool {
        self.read == self.input.len()
    }

    /// Hands the output on, if the outbox takes it. What is written behind the end is for nobody.
    pub fn hand_over(&mut self, out: &mut Outbox) {
        if self.ended || out.push(&self.output).is_ok() {
            self.output.clear();
        }
        if self.blocked {
            out.tell_when_empty();
        }
    }

    /// Whether a write that found no room finds some now, where `max` bytes may wait altogether.
    pub fn resume(&mut self, out: &mut Outbox, max: usize) -> bool {
        self.hand_over(out);
        self.output_max = match self.ended {
            true => usize::MAX,
            false => max.saturating_sub(out.len()),
        };
        self.blocked && self.output.len() < self.output_max && std::mem::take(&mut self.blocked)
    }

    /// Gives the memory of a burst back.
    pub fn shrink(&mut self) {
        if self.is_read() {
            (self.input, self.read) = (Vec::new(), 0);
        }
    }
}

/// One end is h2's, the other the session's; they are never used at the same time.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Mutex<Wires>>);

impl Pipe {
    pub fn new() -> Pipe {
        Pipe(Arc::new(Mutex::new(Wires {
            input: Vec::new(),
            read: 0,
            ended: false,
            output: Vec::new(),
            output_max: usize::MAX,
            blocked: false,
            written: 0,
            watch: FrameWatch::default(),
        })))
    }

    pub fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wires = self.wires();
        let wires = &mut *wires;
        let rest = &wires.input[wires.read..];
        if rest.is_empty() && !wires.ended {
            return Poll::Pending;
        }
        let most = rest.len().min(into.remaining());
        let count = wires.watch.read(&rest[..most]);
        into.put_slice(&rest[..count]);
        wires.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wires = self.wires();
        let room = wires.output_max.saturating_sub(wires.output.len());
        let count = bytes.len().min(room);
        if count == 0 && !bytes.is_empty() {
            wires.blocked = true;
            return Poll::Pending;
        }
        wires.output.extend_from_slice(&bytes[..count]);
        wires.written += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
