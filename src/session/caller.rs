//! One connection on which we ask an HTTP/1.1 server: Resting → Asking → Reading → Resting, or
//! Spent. One request at a time. Knows neither what is asked nor what an answer means; the fields and
//! the body of an answer are dropped, unless somebody wants them (`keeping`).
//!
//! Invariants: an answer is told once; what comes unasked spends the connection; no byte of an
//! answer's head is scanned twice, however it is cut. What cannot be used yet stays in the inbox.

use std::time::Duration;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::now::{Moment, Now};
use crate::wire::http_answer::{self, AnswerBody};
use crate::wire::http_chunks::{self, ChunkLimits, Chunks};
use crate::wire::http_head::Lines;
use crate::wire::http2::Http2Answer;

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
    /// What came of the answer, for whoever wants it.
    kept: Option<Http2Answer>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Resting,
    Asking(Lines, u8),
    Reading {
        status: u16,
        keeps: bool,
        rest: Rest,
    },
    Spent,
}

/// What is left of a body.
#[derive(Debug)]
enum Rest {
    Bytes(u64),
    Chunks(Chunks),
    /// All that comes until the connection ends.
    All,
    /// Nothing of it is worth reading.
    Nothing,
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
    /// One that hands out the whole answers.
    pub fn keeping() -> Caller {
        Caller {
            kept: Some(Http2Answer::default()),
            ..Caller::default()
        }
    }

    /// What came of the last answer, if this one keeps it.
    pub fn take_answer(&mut self) -> Http2Answer {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

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
                State::Reading {
                    status,
                    keeps,
                    rest,
                } => {
                    let (status, keeps) = (*status, *keeps);
                    let kept = self.kept.as_mut();
                    let is_whole = match rest.read(inbox, kept.map(|it| &mut it.body)) {
                        Ok(false) => return CallerStep::Idle,
                        Ok(true) => true,
                        Err(()) => false,
                    };
                    // What follows is no part of any answer.
                    let keeps = keeps && is_whole && inbox.is_empty();
                    return self.answered(status, keeps, is_whole);
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
        let bytes = inbox.take(end);
        let head = http_answer::parse(bytes)?;
        if head.status < 200 {
            if interim == INTERIM_MAX {
                return Err("the server answers without coming to an end".to_string());
            }
            self.state = State::Asking(Lines::default(), interim + 1);
            return Ok(true);
        }
        if let Some(kept) = &mut self.kept {
            kept.fields = http_answer::fields(bytes);
        }
        let rest = match head.body {
            // Nothing of the body matters, and the connection is not used again.
            _ if !head.keeps && self.kept.is_none() => Rest::Nothing,
            AnswerBody::Length(length) if length <= BODY_BYTES as u64 => Rest::Bytes(length),
            AnswerBody::Length(_) => Rest::Nothing,
            AnswerBody::Chunked => Rest::Chunks(Chunks::default()),
            AnswerBody::UntilEnd => Rest::All,
        };
        self.state = State::Reading {
            status: head.status,
            keeps: head.keeps,
            rest,
        };
        Ok(true)
    }

    fn answered(&mut self, status: u16, keeps: bool, whole: bool) -> CallerStep {
        self.until = None;
        self.proven = true;
        if let Some(kept) = &mut self.kept {
            (kept.status, kept.whole) = (status, whole);
        }
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
            State::Reading {
                status, ref rest, ..
            } => {
                let whole = matches!(rest, Rest::All);
                self.answered(status, false, whole)
            }
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
        if let State::Reading { status, .. } = self.state {
            return self.answered(status, false, false);
        }
        self.heard = true;
        self.broken("no answer in time")
    }
}

impl Rest {
    /// Whether the body was read to its end; an error if it is not worth reading on.
    fn read(&mut self, inbox: &mut Inbox<'_>, mut kept: Option<&mut Vec<u8>>) -> Result<bool, ()> {
        let mut keep = |bytes: &[u8]| {
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(bytes);
            }
        };
        match self {
            Rest::Nothing => Err(()),
            Rest::Bytes(left) => {
                let count = inbox.rest().len().min(*left as usize);
                keep(inbox.take(count));
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
                        keep(http_chunks::decode(inbox.take(length)));
                        Ok(true)
                    }
                    Err(_) => Err(()),
                }
            }
            Rest::All => {
                let count = inbox.rest().len();
                keep(inbox.take(count));
                match kept.is_some_and(|kept| kept.len() > BODY_BYTES) {
                    true => Err(()),
                    false => Ok(false),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
