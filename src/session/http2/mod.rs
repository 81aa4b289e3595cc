//! One connection on which we ask an HTTP/2 server (RFC 9113), many requests at a time. Owns the
//! streams, their deadlines, and what is told about each: an answer, or how far it came without one.
//! Frames, header compression and flow control are those of the h2 crate, which is driven here over
//! our byte queues: no runtime, no socket. Knows neither what is asked nor what an answer means.
//!
//! How it is driven. The node makes one when a connection stands (over TLS with ALPN `h2`), and then:
//! - bytes came: `received`, and reads no more while `wants_input` says so;
//! - the connection is gone: `ended`;
//! - something is to be asked: `ask`, as long as there is `room`;
//! - after each of these, when `deadline` has come, and when an outbox that was full is empty again:
//!   `poll` until it has nothing more to tell. Only `poll` writes and tells.
//!
//! After `Drained` or `Broken` the connection is to be closed, and nothing else comes.
//!
//! Invariants: each request that `ask` took is told about once, by the first that is true:
//! - `Answered`: a status came, whatever happened later;
//! - `Refused`: the server never acted on it and never will, so to ask again is no repetition: it
//!   said so (REFUSED_STREAM, or a GOAWAY with a lower last stream), or not one byte of the request
//!   left our outbox before the connection broke;
//! - `Late`: its deadline came; the stream is reset, the connection goes on;
//! - `Lost`: whether it was acted on, nobody knows.
//!
//! The same calls lead to the same bytes: no clock and no chance decides anything here.

mod exchange;
mod link;
mod pipe;
mod pulse;
pub mod server;
mod turn;
mod wakes;

use std::collections::{BTreeSet, VecDeque};

use crate::base::bytes::Inbox;
use crate::base::now::{Moment, Now};
use crate::wire::http2::{Http2Answer, Http2Origin, Http2Request};
use crate::wire::http2_frames::GoAway;

use exchange::Exchange;
use link::Link;
use pipe::Pipe;
use pulse::Pulse;
pub use pulse::PulseOptions;
use wakes::Wakes;

/// The body of one request.
pub(super) const REQUEST_BYTES: usize = 1024 * 1024;
/// The bodies of all requests under way.
const REQUESTS_BYTES: usize = 8 * 1024 * 1024;
/// The last identifier that a client can give (RFC 9113 section 5.1.1).
const KEY_LAST: u32 = 0x7fff_ffff;

/// What a connection is to be like.
#[derive(Clone, Debug)]
pub struct Http2Options {
    pub origin: Http2Origin,
    /// Requests at a time, however many more the server would take.
    pub streams_max: usize,
    /// Whether the second request waits for the first answer, and not only for the server's
    /// SETTINGS. APNs asks for that where a token signs in.
    pub start_with_one: bool,
    pub pulse: PulseOptions,
}

/// A request on this connection: the number of its stream. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u32);

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// As many are under way as may be; another connection may have room.
    Full,
    /// The connection takes none any more.
    Leaving,
    /// There is no such request. Told in words that hold none of its values.
    Malformed(String),
}

/// What `poll` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Http2Event {
    Answered {
        key: StreamKey,
        answer: Http2Answer,
    },
    Refused {
        key: StreamKey,
    },
    Late {
        key: StreamKey,
    },
    Lost {
        key: StreamKey,
        why: String,
    },
    /// The server wants to end the connection: no request is taken any more, and those above `last`
    /// are refused next. It may come twice, with a lower `last`.
    GoAway(GoAway),
    /// It took no more requests, and the last was told about.
    Drained,
    /// The connection cannot go on. Every request that was under way was told about before.
    Broken {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is under way may end.
    Leaving,
    Over,
}

/// See the file's head.
pub struct Http2 {
    origin: Http2Origin,
    streams_max: usize,
    /// Until the first answer.
    one_only: bool,
    phase: Phase,
    /// `None` once it is over.
    link: Option<Link>,
    pipe: Pipe,
    wakes: Wakes,
    /// By slot; a slot is used again.
    exchanges: Vec<Option<Exchange>>,
    free: Vec<usize>,
    deadlines: BTreeSet<(Moment, usize)>,
    /// Bytes of all requests under way.
    bodies: usize,
    /// No greater key is given.
    key_last: u32,
    /// Of all GOAWAYs the lowest last stream.
    last: Option<u32>,
    pulse: Pulse,
    /// Where the first byte of this connection stands in the outbox.
    base: Option<u64>,
    events: VecDeque<Http2Event>,
    /// Slots to be polled; kept for its memory.
    due: Vec<usize>,
}

impl Http2 {
    pub fn new(options: Http2Options, now: Now) -> Http2 {
        let pipe = Pipe::new();
        let wakes = Wakes::new();
        wakes.wake_connection();
        Http2 {
            origin: options.origin,
            streams_max: options.streams_max,
            one_only: options.start_with_one,
            phase: Phase::Open,
            link: Some(Link::open(&pipe, wakes.connection())),
            pipe,
            wakes,
            exchanges: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeSet::new(),
            bodies: 0,
            key_last: KEY_LAST,
            last: None,
            pulse: Pulse::new(options.pulse, now.moment),
            base: None,
            events: VecDeque::new(),
            due: Vec::new(),
        }
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.exchanges.len() - self.free.len()
    }

    /// How many requests would be taken now. One until the server's SETTINGS have come, then what
    /// they allow, at any time; none on a connection that is leaving.
    pub fn room(&self) -> usize {
        let Some(link) = self.link.as_ref().filter(|_| self.phase == Phase::Open) else {
            return 0;
        };
        let max = if self.one_only { 1 } else { self.streams_max };
        let max = link.streams_allowed().min(max);
        max.saturating_sub(self.under_way())
    }

    /// Takes a request; its answer is due at `deadline`. Written by the next `poll`.
    pub fn ask(
        &mut self,
        request: &Http2Request<'_>,
        deadline: Moment,
        now: Now,
    ) -> Result<StreamKey, NotAsked> {
        let body_len = request.body.len();
        if self.phase != Phase::Open {
            return Err(NotAsked::Leaving);
        }
        if body_len > REQUEST_BYTES {
            let why = format!("the body is over {REQUEST_BYTES} bytes");
            return Err(NotAsked::Malformed(why));
        }
        if self.room() == 0 || self.bodies + body_len > REQUESTS_BYTES {
            return Err(NotAsked::Full);
        }
        let head = self.origin.head(request).map_err(NotAsked::Malformed)?;
        let behind = self.pipe.wires().written;
        let asked = self
            .link
            .as_mut()
            .map(|link| link.ask(head, request.body.clone()));
        let (key, answer) = match asked.flatten() {
            Some(Ok(asked)) => asked,
            Some(Err(error)) if error.reason().is_none() && !error.is_io() => {
                return Err(NotAsked::Malformed(error.to_string()));
            }
            _ => {
                self.retire();
                return Err(NotAsked::Leaving);
            }
        };
        self.bodies += body_len;
        self.enter(Exchange::new(key, deadline, body_len, behind, answer));
        self.pulse.set_busy(true, now.moment);
        if key > self.key_last - 2 {
            self.retire();
        }
        Ok(StreamKey(key))
    }

    fn enter(&mut self, exchange: Exchange) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.exchanges.push(None);
            self.exchanges.len() - 1
        });
        self.deadlines.insert((exchange.deadline, slot));
        self.exchanges[slot] = Some(exchange);
        // Polled once, it tells h2 whom to wake.
        self.wakes.slot(slot).wake_by_ref();
        self.wakes.wake_connection();
    }

    /// Takes no more requests; those under way go on.
    pub fn retire(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
        }
    }

    /// Takes all that came.
    pub fn received(&mut self, inbox: &mut Inbox<'_>, now: Now) {
        let count = inbox.rest().len();
        let bytes = inbox.take(count);
        if self.phase == Phase::Over || bytes.is_empty() {
            return;
        }
        self.pulse.heard(now.moment);
        self.pipe.wires().feed(bytes);
        self.wakes.wake_connection();
    }

    /// The server ended the connection, or it was lost: what came before still counts.
    pub fn ended(&mut self) {
        self.pipe.wires().ended = true;
        self.wakes.wake_connection();
    }

    /// Whether more may come. Without, what came waits until the outbox is emptier.
    pub fn wants_input(&self) -> bool {
        self.pipe.wires().is_read()
    }

    /// When `poll` has something to do even if nothing comes.
    pub fn deadline(&self) -> Option<Moment> {
        if self.phase == Phase::Over {
            return None;
        }
        let pulse = self.pulse.deadline();
        let answer = self.deadlines.first().map(|(at, _)| *at);
        Some(answer.map_or(pulse, |answer| answer.min(pulse)))
    }
}

#[cfg(test)]
mod frames_tests;
#[cfg(test)]
mod play;
#[cfg(test)]
mod tests;
