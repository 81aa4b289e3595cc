//! One node driven by hand: the test says what arrives, byte for byte, and looks at everything the
//! node wants done. A connection can be stalled: its kernel takes nothing.

#![allow(dead_code)] // each test program uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::time::Duration;

use lineman::base::bytes::Inbox;
use lineman::base::ids::ConnId;
use lineman::base::now::{Moment, Now};
use lineman::node::{Ending, Node, Origin, Output};
use lineman::session::link::next_frame;

/// See the file's head.
pub struct Hand<N: Node> {
    pub node: N,
    pub now: Now,
    /// All but flushes, in order.
    pub outputs: Vec<Output>,
    pub stalled: BTreeSet<ConnId>,
    /// How many parts of fan-outs to many are asked for after each event.
    pub fan_outs: usize,
    written: BTreeMap<ConnId, Vec<u8>>,
    opened: u32,
}

/// The time at which every test begins.
pub fn start() -> Now {
    Now {
        moment: Moment::from_micros(1_000_000),
        unix_ms: 1_767_225_600_000,
    }
}

impl<N: Node> Hand<N> {
    pub fn new(node: N) -> Hand<N> {
        let mut hand = Hand {
            node,
            now: start(),
            outputs: Vec::new(),
            stalled: BTreeSet::new(),
            fan_outs: usize::MAX,
            written: BTreeMap::new(),
            opened: 0,
        };
        hand.drain();
        hand
    }

    /// Every connection gets a slot of its own.
    pub fn open(&mut self, origin: Origin) -> ConnId {
        let conn = ConnId::new(self.opened, 1);
        self.open_as(conn, origin);
        conn
    }

    pub fn open_as(&mut self, conn: ConnId, origin: Origin) {
        self.opened += 1;
        self.node.opened(conn, origin, self.now);
        self.drain();
    }

    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.node.received(conn, &mut bytes.to_vec(), self.now);
        self.drain();
    }

    /// Another process or a client is gone without a word.
    pub fn lose(&mut self, conn: ConnId) {
        self.node.closed(conn, self.now);
        self.drain();
    }

    pub fn hang_up(&mut self, conn: ConnId) {
        self.node.hung_up(conn, self.now);
        self.drain();
    }

    /// The kernel takes bytes of this connection again.
    pub fn release(&mut self, conn: ConnId) {
        self.stalled.remove(&conn);
        self.flush(conn);
        self.drain();
    }

    /// The kernel takes all bytes of this connection but the last ones.
    pub fn release_all_but(&mut self, conn: ConnId, left: usize) {
        self.flush_down_to(conn, left);
        self.drain();
    }

    /// Lets time pass; deadlines on the way are kept.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now.moment + duration;
        loop {
            let next = self.node.deadline().map_or(until, |next| next.min(until));
            let next = next.max(self.now.moment);
            self.now.unix_ms += next.since(self.now.moment).as_millis() as u64;
            self.now.moment = next;
            self.node.elapsed(self.now);
            self.drain();
            if next >= until {
                return;
            }
        }
    }

    /// What was written to a connection since the last call.
    pub fn take(&mut self, conn: ConnId) -> Vec<u8> {
        self.written.remove(&conn).unwrap_or_default()
    }

    /// Likewise, as frames of a link.
    pub fn take_frames(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        let mut bytes = self.take(conn);
        let mut inbox = Inbox::new(&mut bytes);
        let mut frames = Vec::new();
        while let Some(frame) = next_frame(&mut inbox, usize::MAX).expect("whole frames") {
            frames.push(frame.to_vec());
        }
        assert!(inbox.is_empty(), "a link carries whole frames");
        frames
    }

    /// Outputs since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn drain(&mut self) {
        let mut parts = self.fan_outs;
        while let Some(output) = self.next_output(&mut parts) {
            match output {
                Output::Flush(conn) => self.flush(conn),
                Output::Close(conn, ending) => {
                    self.outputs.push(output);
                    if ending == Ending::Flushed {
                        self.flush(conn);
                    }
                    self.node.closed(conn, self.now);
                }
                other => self.outputs.push(other),
            }
        }
    }

    fn next_output(&mut self, parts: &mut usize) -> Option<Output> {
        let output = self.node.poll_output(self.now);
        output.or_else(|| {
            *parts = parts.checked_sub(1)?;
            self.node.poll_fan_out(self.now)
        })
    }

    fn flush(&mut self, conn: ConnId) {
        if !self.stalled.contains(&conn) {
            self.flush_down_to(conn, 0);
        }
    }

    fn flush_down_to(&mut self, conn: ConnId, left: usize) {
        let Some(outbox) = self.node.outbox(conn) else {
            return;
        };
        let written = self.written.entry(conn).or_default();
        while outbox.len() > left {
            let mut slices = [IoSlice::new(&[])];
            let most = outbox.len() - left;
            outbox.slices(&mut slices);
            let count = slices[0].len().min(most);
            written.extend_from_slice(&slices[0][..count]);
            outbox.advance(count);
        }
        if outbox.take_awaited() {
            self.node.drained(conn, self.now);
        }
    }
}
