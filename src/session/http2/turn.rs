//! What a connection does when it is polled: it lets h2 read and write, takes what came of the
//! streams, and keeps the times. Owns the order of these; what is told stands in the module's head.

use std::mem;
use std::task::{Context, Poll};

use crate::base::bytes::Outbox;
use crate::base::now::Now;

use super::exchange::{Exchange, Step, is_refusal};
use super::link::{Link, explain};
use super::pulse::Beat;
use super::{Http2, Http2Event, Phase, StreamKey};

/// What waits in the outbox because of this connection: nothing more is read then, so that a server
/// that does not take our answers to its frames gets no more of them.
const OUTPUT_BYTES: usize = 128 * 1024;

impl Http2 {
    /// Writes what there is to write, and tells one thing; to be called until there is none.
    pub fn poll(&mut self, out: &mut Outbox, now: Now) -> Option<Http2Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.phase == Phase::Over || !self.turn(out, now) {
                return None;
            }
        }
    }

    /// Whether there is more to do.
    fn turn(&mut self, out: &mut Outbox, now: Now) -> bool {
        self.base.get_or_insert(out.position());
        let ran = self.run(out);
        if ran.is_some() {
            self.take_news();
        }
        let why = match &ran {
            Some(Poll::Ready(Ok(()))) => Some("the server closed the connection".to_string()),
            Some(Poll::Ready(Err(error))) => Some(explain(error)),
            _ => None,
        };
        let broken = self.poll_exchanges(why.is_some(), now);
        match why.or(broken) {
            Some(why) => self.end(&why, out, now),
            None => self.keep_time(out, now),
        }
        !self.events.is_empty() || self.wakes.is_due()
    }

    /// Lets h2 read and write, if there is a reason to.
    fn run(&mut self, out: &mut Outbox) -> Option<Poll<Result<(), h2::Error>>> {
        let resumes = self.pipe.wires().resume(out, OUTPUT_BYTES);
        if !self.wakes.take_connection() && !resumes {
            return None;
        }
        let link = self.link.as_mut()?;
        let mut cx = Context::from_waker(self.wakes.connection());
        let polled = link.poll(&mut cx);
        if self.pulse.is_pinged() && link.take_pong(&mut cx) {
            self.pulse.ponged();
        }
        self.pipe.wires().hand_over(out);
        Some(polled)
    }

    /// What the server said about the connection.
    fn take_news(&mut self) {
        let mut wires = self.pipe.wires();
        if wires.watch.is_settled() {
            self.pulse.settled();
        }
        if let Some(goaway) = wires.watch.take_goaway() {
            self.phase = Phase::Leaving;
            self.last = Some(goaway.last);
            self.events.push_back(Http2Event::GoAway(goaway));
        }
    }

    /// Why the connection is over, if the streams know it first: it cannot say so itself as long as
    /// it has no room to write.
    fn poll_exchanges(&mut self, is_over: bool, now: Now) -> Option<String> {
        let mut broken = None;
        let mut due = self.wakes.take_slots(mem::take(&mut self.due));
        for slot in due.drain(..) {
            let Some(exchange) = self.exchanges.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            let mut cx = Context::from_waker(self.wakes.slot(slot));
            let error = match exchange.poll(&mut cx) {
                Step::Pending => continue,
                Step::Done(answer) => {
                    let key = StreamKey(self.release(slot, now).key);
                    self.one_only = false;
                    self.events.push_back(Http2Event::Answered { key, answer });
                    continue;
                }
                Step::Failed(error) => error,
            };
            let key = StreamKey(exchange.key);
            let with_all = is_over || error.is_go_away() || error.is_io();
            let event = match is_refusal(&error) {
                true => Http2Event::Refused { key },
                false if with_all => {
                    broken.get_or_insert_with(|| explain(&error));
                    continue;
                }
                false => Http2Event::Lost {
                    key,
                    why: explain(&error),
                },
            };
            self.release(slot, now);
            self.events.push_back(event);
        }
        self.due = due;
        broken
    }

    /// The exchange, which is not under way any more.
    fn release(&mut self, slot: usize, now: Now) -> Exchange {
        let exchange = self.exchanges[slot].take();
        let exchange = exchange.expect("only what is there is released");
        self.free.push(slot);
        self.deadlines.remove(&(exchange.deadline, slot));
        self.bodies -= exchange.body_len;
        self.pulse.set_busy(self.under_way() > 0, now.moment);
        if self.under_way() == 0 {
            self.pipe.wires().shrink();
        }
        exchange
    }

    fn keep_time(&mut self, out: &mut Outbox, now: Now) {
        let mut beat = self.pulse.check(now.moment);
        while let Some((at, slot)) = self.deadlines.first().copied() {
            if at > now.moment {
                break;
            }
            let exchange = self.release(slot, now);
            let key = StreamKey(exchange.key);
            let event = match exchange.cut() {
                Some(answer) => Http2Event::Answered { key, answer },
                None => Http2Event::Late { key },
            };
            self.events.push_back(event);
            if beat == Beat::Fine {
                beat = self.pulse.doubt(now.moment);
            }
        }
        match beat {
            Beat::Fine => {}
            Beat::Ping => {
                self.link.iter_mut().for_each(|link| link.ping());
                self.wakes.wake_connection();
            }
            Beat::Dead(why) => self.end(why, out, now),
        }
        if self.phase == Phase::Leaving && self.under_way() == 0 {
            self.leave(out, now);
        }
    }

    /// Lets h2 take its leave of the server; if that cannot be written at once, it is left out.
    fn leave(&mut self, out: &mut Outbox, now: Now) {
        match self.link.as_mut().is_some_and(Link::close) {
            true => self.wakes.wake_connection(),
            false => self.end("", out, now),
        }
    }

    /// The connection is over: tells what becomes of the rest.
    fn end(&mut self, why: &str, out: &mut Outbox, now: Now) {
        let mut rest: Vec<(u32, usize)> = Vec::new();
        for (slot, exchange) in self.exchanges.iter().enumerate() {
            rest.extend(exchange.iter().map(|exchange| (exchange.key, slot)));
        }
        rest.sort_unstable();
        let drained = self.phase == Phase::Leaving && rest.is_empty();
        self.phase = Phase::Over;
        self.link = None;
        let gone = out.written().saturating_sub(self.base.unwrap_or(0));
        for (key, slot) in rest {
            let exchange = self.release(slot, now);
            let key = StreamKey(key);
            let unsent = exchange.behind >= gone;
            let refused = unsent || self.last.is_some_and(|last| key.0 > last);
            if unsent {
                // What was not acted on must not leave now.
                out.clear();
            }
            let event = match exchange.cut() {
                Some(answer) => Http2Event::Answered { key, answer },
                None if refused => Http2Event::Refused { key },
                None => Http2Event::Lost {
                    key,
                    why: why.to_string(),
                },
            };
            self.events.push_back(event);
        }
        self.events.push_back(match drained {
            true => Http2Event::Drained,
            false => Http2Event::Broken {
                why: why.to_string(),
            },
        });
    }
}
