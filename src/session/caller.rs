//! One connection on which we ask an HTTP/1.1 server: Resting → Asking → Reading → Resting, or
//! Spent. One request at a time. Knows neither what is asked nor what an answer means; the body of
//! an answer is read and dropped. A connection that speaks HTTP/2 would be another session with the
//! same steps.
//!
//! Invariants: an answer is told once; what comes unasked spends the connection; no byte of an
//! answer's head is scanned twice, however it is cut. What cannot be used yet stays in the inbox.

use std::time::Duration;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::now::{Moment, Now};
use crate::wire::http_answer::{self, AnswerBody};
use crate::wire::http_chunks::{ChunkLimits, Chunks};
use crate::wire::http_head::Lines;

/// The head of an answer is no longer.
const HEAD_BYTES: usize = 16 * 1024;
/// Of a longer body nothing is read: the connection is given up instead.
const BODY_BYTES: usize = 64 * 1024;
/// Interim answers (1xx) before the one that counts.
const INTERIM_MAX: u8 = 8;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Caller {
    state: State,
    until: Option<Moment>,
    /// Whether an answer was read on this connection before.
    proven: bool,
    /// Whether anything came since the request.
    heard: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Resting,
    Asking(Lines, u8),
    Reading(u16, Rest),
    Spent,
}

/// What is left of a body.
#[derive(Debug)]
enum Rest {
    Bytes(u64),
    Chunks(Chunks),
}

/// What came of the input so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerStep {
    Idle,
    /// The answer to the request. With `keeps` the next one may be asked; without, the connection
    /// has to be closed.
    Answered {
        status: u16,
        keeps: bool,
    },
    /// There will be no answer, and the connection has to be closed. `stale`: the server had closed
    /// a connection that rested, as it may at any time, so asking again on another is no retry.
    Broken {
        why: String,
        stale: bool,
    },
}

impl Caller {
    /// Whether a request may be asked.
    pub fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting)
    }

    /// Asks; `request` is whole. Only while resting. The answer has so long to arrive.
    pub fn ask(
        &mut self,
        request: &[u8],
        within: Duration,
        out: &mut Outbox,
        now: Now,
    ) -> Result<(), Full> {
        debug_assert!(self.is_resting(), "one request at a time");
        out.push(request)?;
        self.state = State::Asking(Lines::default(), 0);
        self.until = Some(now.moment + within);
        self.heard = false;
        Ok(())
    }

    /// Reads on. What it leaves in the inbox it wants to see again, with more behind it.
    pub fn next(&mut self, inbox: &mut Inbox<'_>) -> CallerStep {
        if inbox.is_empty() {
            return CallerStep::Idle;
        }
        self.heard = true;
        loop {
            match &mut self.state {
                State::Resting => return self.broken("the server spoke without being asked"),
                State::Spent => {
                    let count = inbox.rest().len();
                    inbox.take(count);
                    return CallerStep::Idle;
                }
                State::Asking(..) => match self.read_head(inbox) {
                    Ok(true) => {}
                    Ok(false) => return CallerStep::Idle,
                    Err(why) => return self.broken(&why),
                },
                State::Reading(status, rest) => {
                    let status = *status;
                    match rest.read(inbox) {
                        Ok(true) if inbox.is_empty() => return self.answered(status, true),
                        // What follows is no part of any answer.
                        Ok(true) | Err(()) => return self.answered(status, false),
                        Ok(false) => return CallerStep::Idle,
                    }
                }
            }
        }
    }

    /// Whether the head was whole.
    fn read_head(&mut self, inbox: &mut Inbox<'_>) -> Result<bool, String> {
        let State::Asking(lines, interim) = &mut self.state else {
            return Ok(false);
        };
        let bytes = inbox.rest();
        let window = &bytes[..bytes.len().min(HEAD_BYTES)];
        let end = loop {
            match lines.next(window) {
                Ok(Some(line)) if line.is_empty() => break line.end + 2,
                Ok(Some(_)) => {}
                Ok(None) if window.len() >= HEAD_BYTES => {
                    return Err(format!("the answer has a head over {HEAD_BYTES} bytes"));
                }
                Ok(None) => return Ok(false),
                Err(_) => return Err("the answer is not HTTP".to_string()),
            }
        };
        let interim = *interim;
        let head = http_answer::parse(inbox.take(end))?;
        self.state = match head.body {
            _ if head.status < 200 && interim == INTERIM_MAX => {
                return Err("the server answers without coming to an end".to_string());
            }
            _ if head.status < 200 => State::Asking(Lines::default(), interim + 1),
            AnswerBody::Length(length) if head.keeps && length <= BODY_BYTES as u64 => {
                State::Reading(head.status, Rest::Bytes(length))
            }
            AnswerBody::Chunked if head.keeps => {
                State::Reading(head.status, Rest::Chunks(Chunks::default()))
            }
            // Nothing of the body matters, and the connection is not used again.
            _ => State::Reading(head.status, Rest::Bytes(u64::MAX)),
        };
        Ok(true)
    }

    fn answered(&mut self, status: u16, keeps: bool) -> CallerStep {
        self.until = None;
        self.proven = true;
        self.state = if keeps { State::Resting } else { State::Spent };
        CallerStep::Answered { status, keeps }
    }

    fn broken(&mut self, why: &str) -> CallerStep {
        let stale = self.proven && !self.heard;
        self.until = None;
        self.state = State::Spent;
        let why = why.to_string();
        CallerStep::Broken { why, stale }
    }

    /// The server ended the connection, or it was lost.
    pub fn ended(&mut self) -> CallerStep {
        match self.state {
            State::Reading(status, _) => self.answered(status, false),
            State::Asking(..) => self.broken("the server closed the connection without an answer"),
            State::Resting | State::Spent => {
                self.state = State::Spent;
                CallerStep::Idle
            }
        }
    }

    /// When `elapsed` is due; `None` while nothing was asked.
    pub fn deadline(&self) -> Option<Moment> {
        self.until
    }

    /// The time for the answer is up.
    pub fn elapsed(&mut self, now: Now) -> CallerStep {
        if self.until.is_none_or(|until| until > now.moment) {
            return CallerStep::Idle;
        }
        self.heard = true;
        self.broken("no answer in time")
    }
}

impl Rest {
    /// Whether the body was read to its end; an error if it is not worth reading on.
    fn read(&mut self, inbox: &mut Inbox<'_>) -> Result<bool, ()> {
        match self {
            Rest::Bytes(u64::MAX) => Err(()),
            Rest::Bytes(left) => {
                let count = inbox.rest().len().min(*left as usize);
                inbox.take(count);
                *left -= count as u64;
                Ok(*left == 0)
            }
            Rest::Chunks(chunks) => {
                let limits = ChunkLimits {
                    body_bytes: BODY_BYTES,
                    trailer_bytes: HEAD_BYTES,
                };
                match chunks.measure(inbox.rest(), limits) {
                    Ok(None) => Ok(false),
                    Ok(Some(length)) => {
                        inbox.take(length);
                        Ok(true)
                    }
                    Err(_) => Err(()),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
