//! A connection on which we ask an HTTP/1.1 server (RFC 9112) as we would ask one of HTTP/2: driven in
//! the same way, and told about in the same words, but for one request at a time. Owns what becomes
//! of the request under way when the connection ends. Knows neither what is asked nor what an answer
//! means; how an answer is read is `caller`'s.
//!
//! Invariants: those of `http2`. A request is `Refused` only while not one of its bytes has left our
//! outbox, and then none will: a server may close a connection that rested at any time, and nobody
//! can tell whether it has acted before it did (RFC 9112 section 9.3.1), so that what was written and
//! not answered is `Lost`. Since that costs something, a connection that rests is given up soon.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::bytes::{Inbox, Outbox};
use crate::base::now::{Moment, Now};
use crate::session::caller::{Caller, CallerStep};
use crate::session::http2::{Http2Event, NotAsked, REQUEST_BYTES, StreamKey};
use crate::wire::http_answer;
use crate::wire::http2::{Http2Origin, Http2Request};

/// A connection that rested for so long is not used again: servers and what stands before them keep
/// one for a minute or more.
const REST: Duration = Duration::from_secs(30);

/// See the file's head.
pub struct Http1 {
    origin: Http2Origin,
    caller: Caller,
    phase: Phase,
    /// Asked, and not written yet.
    waiting: Option<Vec<u8>>,
    /// The request under way.
    asked: Option<Asked>,
    last_key: u32,
    /// When a connection that rests is given up.
    rests_until: Moment,
    /// The server will send nothing more.
    ended: bool,
    /// Why the connection is of no more use.
    fault: Option<String>,
    events: VecDeque<Http2Event>,
}

struct Asked {
    key: StreamKey,
    deadline: Moment,
    /// Where its first byte stands in the outbox.
    begins: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is under way may end.
    Leaving,
    Over,
}

impl Http1 {
    pub fn new(origin: Http2Origin, now: Now) -> Http1 {
        Http1 {
            origin,
            caller: Caller::keeping(),
            phase: Phase::Open,
            waiting: None,
            asked: None,
            last_key: 0,
            rests_until: now.moment + REST,
            ended: false,
            fault: None,
            events: VecDeque::new(),
        }
    }

    /// 1 or 0.
    pub fn room(&self) -> usize {
        usize::from(self.phase == Phase::Open && self.asked.is_none())
    }

    /// Takes a request; its answer is due at `deadline`. Written by the next `poll`.
    pub fn ask(
        &mut self,
        request: &Http2Request<'_>,
        deadline: Moment,
    ) -> Result<StreamKey, NotAsked> {
        if self.phase != Phase::Open {
            return Err(NotAsked::Leaving);
        }
        if self.asked.is_some() {
            return Err(NotAsked::Full);
        }
        if request.body.len() > REQUEST_BYTES {
            let why = format!("the body is over {REQUEST_BYTES} bytes");
            return Err(NotAsked::Malformed(why));
        }
        let head = self.origin.head(request).map_err(NotAsked::Malformed)?;
        self.waiting = Some(http_answer::request(&head, &request.body));
        self.last_key = self.last_key.wrapping_add(1);
        let key = StreamKey(self.last_key);
        self.asked = Some(Asked {
            key,
            deadline,
            begins: None,
        });
        Ok(key)
    }

    /// Takes no more requests; the one under way goes on.
    pub fn retire(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
        }
    }

    /// Reads on. What it leaves it wants to see again, with more behind it.
    pub fn received(&mut self, inbox: &mut Inbox<'_>, now: Now) {
        if self.phase == Phase::Over {
            inbox.take(inbox.rest().len());
            return;
        }
        let step = self.caller.next(inbox);
        self.take_step(step, now);
    }

    /// The server ended the connection, or it was lost: what came before still counts.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// When `poll` has something to do even if nothing comes.
    pub fn deadline(&self) -> Option<Moment> {
        match &self.asked {
            _ if self.phase == Phase::Over => None,
            Some(asked) => Some(asked.deadline),
            None => Some(self.rests_until),
        }
    }

    /// Writes what there is to write, and tells one thing; to be called until there is none.
    pub fn poll(&mut self, out: &mut Outbox, now: Now) -> Option<Http2Event> {
        if self.phase != Phase::Over {
            self.write(out, now);
            let step = match self.ended {
                true => self.caller.ended(),
                false => self.caller.elapsed(now),
            };
            self.take_step(step, now);
            self.check(out, now);
        }
        self.events.pop_front()
    }

    fn write(&mut self, out: &mut Outbox, now: Now) {
        let Some(asked) = &mut self.asked else {
            return;
        };
        if self.ended {
            return;
        }
        if let Some(request) = self.waiting.take() {
            let within = asked.deadline.since(now.moment);
            asked.begins = Some(out.position());
            let written = self.caller.ask(&request, within, out, now);
            debug_assert!(written.is_ok(), "a request is shorter than its outbox");
        }
    }

    fn take_step(&mut self, step: CallerStep, now: Now) {
        match step {
            CallerStep::Idle => {}
            CallerStep::Answered { keeps, .. } => {
                let answer = self.caller.take_answer();
                if let Some(Asked { key, .. }) = self.asked.take() {
                    self.events.push_back(Http2Event::Answered { key, answer });
                }
                self.rests_until = now.moment + REST;
                if !keeps {
                    self.retire();
                }
            }
            CallerStep::Broken { why, .. } => {
                let late = self.asked.take_if(|it| it.deadline <= now.moment);
                if let Some(Asked { key, .. }) = late {
                    self.events.push_back(Http2Event::Late { key });
                }
                self.fault.get_or_insert(why);
            }
        }
    }

    /// Ends what is at its end.
    fn check(&mut self, out: &mut Outbox, now: Now) {
        let rests = self.asked.is_none();
        let is_used = self.last_key > 0;
        match self.fault.take() {
            Some(why) => self.end(&why, out),
            None if self.ended && !(rests && is_used) => {
                self.end("the server closed the connection", out);
            }
            None if rests
                && (self.ended
                    || self.phase == Phase::Leaving
                    || self.rests_until <= now.moment) =>
            {
                self.phase = Phase::Over;
                self.events.push_back(Http2Event::Drained);
            }
            None => {}
        }
    }

    /// The connection is over: tells what becomes of the request.
    fn end(&mut self, why: &str, out: &mut Outbox) {
        self.phase = Phase::Over;
        let why = why.to_string();
        if let Some(Asked { key, begins, .. }) = self.asked.take() {
            let unsent = begins.is_none_or(|begins| out.written() <= begins);
            if unsent {
                // What was not acted on must not leave now.
                out.clear();
            }
            let why = why.clone();
            self.events.push_back(match unsent {
                true => Http2Event::Refused { key },
                false => Http2Event::Lost { key, why },
            });
        }
        self.events.push_back(Http2Event::Broken { why });
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
