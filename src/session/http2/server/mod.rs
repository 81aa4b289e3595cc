//! One connection on which an HTTP/2 client asks us (RFC 9113), many requests at a time. Owns the
//! streams until each is answered or given up. Frames, header compression and flow control are those
//! of the h2 crate, driven over our byte queues as on the client's side. Knows neither what is asked
//! nor what an answer means.
//!
//! How it is driven. The node makes one when a connection stands (over TLS with ALPN `h2`, or when a
//! client begins with the preface), and then:
//! - bytes came: `received`, and reads no more while `wants_input` says so;
//! - the connection is gone: `ended`;
//! - for each `Asked`, now or later, in any order: `answer`, `reset`, or nothing at all;
//! - after each of these, and when an outbox that was full is empty again: `poll` until it has nothing
//!   more to tell. Only `poll` writes and tells.
//!
//! Invariants: a request is told once and whole, but for a body over its bound, which is cut. After
//! `Gone` nothing can be said to it any more. After `Over` the connection is to be closed once what is
//! queued was taken, and nothing else comes.

mod link;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;

use crate::base::bytes::{Inbox, Outbox};
use crate::wire::http2::{Http2Asked, Http2Reply};
use crate::wire::http2_frames::{GoAway, allow_streams};

use super::StreamKey;
use super::pipe::Pipe;
use super::wakes::Wakes;
use link::Link;
use stream::{Step, Stream};

/// The bodies of all requests that are not whole yet, or not answered.
const BODIES_BYTES: usize = 8 * 1024 * 1024;
/// What waits in the outbox because of this connection; nothing more is read then.
const OUTPUT_BYTES: usize = 256 * 1024;

/// What a connection is to be like.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Requests at a time; more are refused (REFUSED_STREAM).
    pub streams_max: u32,
    /// Says that one at a time is allowed, until `allow_all`. Told, not enforced: a client may have
    /// asked more before it knew.
    pub start_with_one: bool,
    /// Of a longer body no more is kept.
    pub body_bytes: usize,
}

/// What `poll` tells.
#[derive(Debug)]
pub enum Http2Call {
    Asked {
        key: StreamKey,
        request: Http2Asked,
    },
    /// The client reset the stream of a request that was told and not answered.
    Gone {
        key: StreamKey,
    },
    /// The connection ended or has to; `why` is for people.
    Over {
        why: String,
    },
}

/// See the file's head.
pub struct Http2Server {
    options: ServerOptions,
    link: Option<Link>,
    pipe: Pipe,
    wakes: Wakes,
    /// By slot; a slot is used again.
    streams: Vec<Option<Stream>>,
    free: Vec<usize>,
    slots: BTreeMap<StreamKey, usize>,
    /// Bytes of all bodies that are kept.
    bodies: usize,
    settings: Settings,
    /// To be written behind everything that was answered before.
    goaway: Option<GoAway>,
    /// No stream above it is served.
    last: u32,
    calls: VecDeque<Http2Call>,
    /// Slots to be polled; kept for its memory.
    due: Vec<usize>,
}

/// What we have told of how many streams are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settings {
    /// That one is, in the first SETTINGS, which are not written yet.
    OneUnsaid,
    One,
    /// All are to be allowed next.
    AllUnsaid,
    All,
}

impl Http2Server {
    pub fn new(options: ServerOptions) -> Http2Server {
        let pipe = Pipe::new();
        let wakes = Wakes::new();
        wakes.wake_connection();
        Http2Server {
            link: Some(Link::open(&pipe, options.streams_max)),
            pipe,
            wakes,
            streams: Vec::new(),
            free: Vec::new(),
            slots: BTreeMap::new(),
            bodies: 0,
            settings: match options.start_with_one {
                true => Settings::OneUnsaid,
                false => Settings::All,
            },
            goaway: None,
            last: u32::MAX,
            calls: VecDeque::new(),
            due: Vec::new(),
            options,
        }
    }

    /// Takes all that came.
    pub fn received(&mut self, inbox: &mut Inbox<'_>) {
        let count = inbox.rest().len();
        let bytes = inbox.take(count);
        if self.link.is_some() && !bytes.is_empty() {
            self.pipe.wires().feed(bytes);
            self.wakes.wake_connection();
        }
    }

    /// The client sends nothing more.
    pub fn ended(&mut self) {
        self.pipe.wires().ended = true;
        self.wakes.wake_connection();
    }

    /// Whether more may come. Without, what came waits until the outbox is emptier.
    pub fn wants_input(&self) -> bool {
        self.pipe.wires().is_read()
    }

    /// Requests that were told and not answered, or that have not come whole.
    pub fn under_way(&self) -> usize {
        self.slots.len()
    }

    /// Answers a request. Without effect when it is gone; written by the next `poll`.
    pub fn answer(&mut self, key: StreamKey, reply: &Http2Reply<'_>) {
        if let Some(mut stream) = self.release(key) {
            stream.answer(reply);
        }
    }

    /// Resets a request's stream with a code of RFC 9113 section 7.
    pub fn reset(&mut self, key: StreamKey, code: u32) {
        if let Some(mut stream) = self.release(key) {
            stream.reset(Reason::from(code));
        }
    }

    /// Takes no stream above `goaway.last`, and says so; those above are told nothing else. The
    /// connection is over when the others are done.
    pub fn go_away(&mut self, goaway: GoAway) {
        self.last = self.last.min(goaway.last);
        let above: Vec<StreamKey> = self
            .slots
            .keys()
            .copied()
            .filter(|key| key.0 > self.last)
            .collect();
        for key in above {
            self.reset(key, Reason::REFUSED_STREAM.into());
        }
        let last = self.last;
        let is_above = |key: &StreamKey| key.0 > last;
        self.calls
            .retain(|call| !matches!(call, Http2Call::Asked { key, .. } if is_above(key)));
        self.goaway = Some(goaway);
        self.wakes.wake_connection();
    }

    /// Where it started with one: all streams are allowed from now on.
    pub fn allow_all(&mut self) {
        if matches!(self.settings, Settings::One | Settings::OneUnsaid) {
            self.settings = Settings::AllUnsaid;
            self.wakes.wake_connection();
        }
    }

    /// Writes what there is to write, and tells one thing; to be called until there is none.
    pub fn poll(&mut self, out: &mut Outbox) -> Option<Http2Call> {
        loop {
            if let Some(call) = self.calls.pop_front() {
                return Some(call);
            }
            if self.link.is_none() || !self.turn(out) {
                return None;
            }
        }
    }

    /// Whether there is more to do.
    fn turn(&mut self, out: &mut Outbox) -> bool {
        let ended = self.run(out);
        self.poll_streams();
        self.say_goaway(out);
        let left = self.last != u32::MAX && self.goaway.is_none() && self.slots.is_empty();
        let why = ended.or_else(|| left.then(|| "we said so".to_string()));
        if let Some(why) = why {
            self.link = None;
            self.streams.clear();
            self.slots.clear();
            self.calls.push_back(Http2Call::Over { why });
        }
        !self.calls.is_empty() || self.wakes.is_due()
    }

    /// Lets h2 read and write, if there is a reason to. Why the connection is over, if it is.
    fn run(&mut self, out: &mut Outbox) -> Option<String> {
        let resumes = self.pipe.wires().resume(out, OUTPUT_BYTES);
        if !self.wakes.take_connection() && !resumes {
            return None;
        }
        let begins = self.tell_streams_allowed();
        let ended = loop {
            let link = self.link.as_mut()?;
            match link.poll(&mut Context::from_waker(self.wakes.connection())) {
                Poll::Pending => break None,
                Poll::Ready(Err(why)) => break Some(why),
                Poll::Ready(Ok(stream)) => self.enter(stream),
            }
        };
        let mut wires = self.pipe.wires();
        if let Some(begin) = begins {
            let count = match self.settings {
                Settings::OneUnsaid => 1,
                _ => self.options.streams_max,
            };
            if allow_streams(&mut wires.output[begin..], count) {
                self.settings = match self.settings {
                    Settings::OneUnsaid => Settings::One,
                    _ => Settings::All,
                };
            }
        }
        wires.hand_over(out);
        ended
    }

    /// Where h2's next SETTINGS, if they are to say something else about streams than h2 would, will
    /// begin among the output. h2 writes whole frames unless it is stopped by a full output, so there
    /// has to be room for all.
    fn tell_streams_allowed(&mut self) -> Option<usize> {
        let mut wires = self.pipe.wires();
        let is_due = match self.settings {
            Settings::OneUnsaid => true,
            Settings::AllUnsaid => !wires.blocked,
            Settings::One | Settings::All => false,
        };
        if !is_due {
            return None;
        }
        wires.output_max = usize::MAX;
        let begin = wires.output.len();
        drop(wires);
        if self.settings == Settings::AllUnsaid {
            // Fails while the client has not acknowledged the SETTINGS before: later, then.
            self.link.as_mut()?.repeat_settings().ok()?;
        }
        Some(begin)
    }

    fn enter(&mut self, mut stream: Stream) {
        if stream.key.0 > self.last {
            return stream.reset(Reason::REFUSED_STREAM);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        self.slots.insert(stream.key, slot);
        self.streams[slot] = Some(stream);
        self.wakes.slot(slot).wake_by_ref();
    }

    fn poll_streams(&mut self) {
        let mut due = self.wakes.take_slots(std::mem::take(&mut self.due));
        for slot in due.drain(..) {
            let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            let mut cx = Context::from_waker(self.wakes.slot(slot));
            let (key, before) = (stream.key, stream.kept);
            let step = stream.poll(&mut cx, self.options.body_bytes);
            self.bodies += stream.kept - before;
            match step {
                Step::Pending if self.bodies > BODIES_BYTES => {
                    self.reset(key, Reason::ENHANCE_YOUR_CALM.into());
                }
                Step::Pending => {}
                Step::Whole(request) => {
                    // Polled once more, it learns of the client's reset.
                    self.wakes.slot(slot).wake_by_ref();
                    self.calls.push_back(Http2Call::Asked { key, request });
                }
                Step::Reset { told } => {
                    self.release(key);
                    if told {
                        self.calls.push_back(Http2Call::Gone { key });
                    }
                }
            }
        }
        self.due = due;
    }

    /// The stream, which is not under way any more.
    fn release(&mut self, key: StreamKey) -> Option<Stream> {
        let slot = self.slots.remove(&key)?;
        let stream = self.streams[slot].take()?;
        self.free.push(slot);
        self.bodies -= stream.kept;
        self.wakes.wake_connection();
        if self.slots.is_empty() {
            self.pipe.wires().shrink();
        }
        Some(stream)
    }

    /// h2 says GOAWAY without words and with a last stream of its own choice, so ours is written past
    /// it, between two of its frames.
    fn say_goaway(&mut self, out: &mut Outbox) {
        let mut wires = self.pipe.wires();
        if self.wakes.is_due() || wires.blocked {
            return;
        }
        if let Some(goaway) = self.goaway.take() {
            wires.output.extend(goaway.encode());
            wires.hand_over(out);
        }
    }
}

impl Stream {
    /// A client that has left reads nothing: no fault of ours is told.
    fn answer(&mut self, reply: &Http2Reply<'_>) {
        let body: Bytes = reply.body.clone();
        if let Some(head) = reply.head()
            && let Ok(mut stream) = self.reply.send_response(head, body.is_empty())
            && !body.is_empty()
        {
            let _ = stream.send_data(body, true);
        }
    }

    fn reset(&mut self, reason: Reason) {
        self.reply.send_reset(reason);
    }
}

#[cfg(test)]
mod tests;
