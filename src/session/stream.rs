//! An HTTP answer without an end: its head was given, what follows is put into the outbox by others,
//! and it ends with the connection. Open → Ended. The peer has nothing more to say; what it sends is
//! dropped, and that it hangs up is the end. Invariant: a peer that takes nothing is found within
//! twice the interval of heartbeats.

use std::time::Duration;

use crate::base::bytes::{Inbox, Outbox};
use crate::base::close::Close;
use crate::base::now::{Moment, Now};

pub struct Stream {
    /// Sent when nothing else was; empty where others do that.
    heartbeat: &'static [u8],
    interval: Duration,
    /// When it was last looked at.
    since: Moment,
    /// How much of it the peer had taken then, and how much there was to take.
    written: u64,
    position: u64,
    /// From here on it is not needed any more.
    until: Option<Moment>,
}

impl Stream {
    /// `interval` is that of the heartbeats, or of the looks at a peer that gets none.
    pub fn new(heartbeat: &'static [u8], interval: Duration, now: Now) -> Stream {
        Stream {
            heartbeat,
            interval,
            since: now.moment,
            written: 0,
            position: 0,
            until: None,
        }
    }

    /// Nothing more will be said; the peer may take what was until then, and hang up.
    pub fn leave(&mut self, until: Moment) {
        self.until = Some(until);
    }

    pub fn next(&mut self, inbox: &mut Inbox<'_>) {
        inbox.take(inbox.rest().len());
    }

    pub fn elapsed(&mut self, out: &mut Outbox, now: Now) -> Option<Close> {
        if now.moment < self.deadline() {
            return None;
        }
        if self.until.is_some_and(|until| until <= now.moment) {
            return Some(Close::Done);
        }
        if !out.is_empty() && out.written() == self.written && self.position > self.written {
            return Some(Close::Unread);
        }
        let said = out.position() > self.position;
        // What is not taken yet says as much as a heartbeat would.
        if !said && out.is_empty() && out.push(self.heartbeat).is_err() {
            return Some(Close::TooSlow);
        }
        self.since = now.moment;
        self.written = out.written();
        self.position = out.position();
        None
    }

    pub fn deadline(&self) -> Moment {
        let due = self.since + self.interval;
        self.until.map_or(due, |until| until.min(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::from_micros(1_000_000 * seconds),
            unix_ms: 0,
        }
    }

    #[test]
    fn heartbeats_fill_the_silence() {
        let mut out = Outbox::new(100);
        let mut stream = Stream::new(b":", Duration::from_secs(10), at(0));
        assert_eq!(stream.elapsed(&mut out, at(9)), None);
        assert!(out.is_empty());
        assert_eq!(stream.elapsed(&mut out, at(10)), None);
        assert_eq!(out.len(), 1);
        out.advance(1);
        out.push(b"news").expect("room");
        out.advance(4);
        assert_eq!(stream.elapsed(&mut out, at(20)), None);
        assert!(out.is_empty(), "something was said meanwhile");
    }

    #[test]
    fn a_peer_that_takes_nothing_is_cut() {
        let mut out = Outbox::new(100);
        let mut stream = Stream::new(b":", Duration::from_secs(10), at(0));
        out.push(b"1234").expect("room");
        assert_eq!(stream.elapsed(&mut out, at(10)), None);
        out.advance(1);
        assert_eq!(stream.elapsed(&mut out, at(20)), None, "it took something");
        assert_eq!(stream.elapsed(&mut out, at(30)), Some(Close::Unread));
    }

    #[test]
    fn one_that_is_left_ends_in_time() {
        let mut stream = Stream::new(b"", Duration::from_secs(10), at(0));
        stream.leave(at(3).moment);
        let mut out = Outbox::new(100);
        assert_eq!(stream.elapsed(&mut out, at(2)), None);
        assert_eq!(stream.elapsed(&mut out, at(3)), Some(Close::Done));
    }
}
