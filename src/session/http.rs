//! One HTTP/1.1 connection, server side: Quiet → Head → Body → Answering → Quiet again, by way of
//! Sending when the answer's body comes in pieces; or over to a WebSocket. Knows nothing of what is
//! asked for or answered. Invariants: a request is handed out whole or not at all; the next one is
//! not looked at before the last was answered; after a fault of the peer nothing more is read.

use std::borrow::Cow;
use std::time::Duration;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::close::{Close, Violation};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::wire::deflate_offer::Agreement;
use crate::wire::http::{self, Connection, Manner, Refusal, Request, Response};
use crate::wire::http_chunks::{ChunkLimits, Chunks};
use crate::wire::http_head::{Body, Head, HeadScan};
use crate::wire::websocket::accept_key;

/// Bytes of an unfinished request stay in the inbox; this remembers how far they were read.
pub struct Http {
    phase: Phase,
    /// Since when the present phase lasts.
    since: Moment,
    /// The peer will send nothing more.
    hung_up: bool,
    /// The next answer is the last.
    leaving: bool,
    /// The peer may not have taken all of the last answer.
    untaken: bool,
}

enum Phase {
    /// Nothing of a request has come.
    Quiet { first: bool },
    /// Part of a head has come.
    Head(HeadScan),
    /// A head has come whole, its body has not.
    Body(Box<Unfinished>),
    /// A request was handed out.
    Answering(Owed),
    /// The head of an answer was given, and of its body so many bytes were not.
    Sending { left: u64, persists: bool },
    /// The last byte was queued; what still comes is dropped.
    Ended,
}

struct Unfinished {
    head: Head,
    chunks: Chunks,
}

/// What the request decided about its answer.
struct Owed {
    persists: bool,
    old: bool,
    without_body: bool,
    websocket_key: Option<[u8; 24]>,
    deflate: Option<Agreement>,
    /// The origin whose pages may read the answer.
    allow_origin: Option<Box<Cow<'static, str>>>,
    /// More input was seen behind the request.
    pipelined: bool,
}

/// What came of the input so far.
#[derive(Debug)]
pub enum HttpStep<'a> {
    /// More input or an answer is needed.
    Idle,
    /// To be answered with `respond` or, if it asks for it, `upgrade`.
    Request(Request<'a>),
    /// Everything to say is in the outbox: flush it, then end.
    Close(Close),
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAnswer {
    /// The next request may come, or wait in the inbox already.
    KeepAlive,
    /// Flush, then end.
    Close,
    /// The body follows, by `send`.
    Body,
}

impl Http {
    pub fn new(now: Now) -> Http {
        Http {
            phase: Phase::Quiet { first: true },
            since: now.moment,
            hung_up: false,
            leaving: false,
            untaken: false,
        }
    }

    /// Reads on. To be called until it returns `Idle` or `Close`; what it leaves in the inbox it
    /// wants to see again, with more behind it.
    pub fn next<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        limits: &Limits,
    ) -> HttpStep<'a> {
        let step = match &mut self.phase {
            Phase::Quiet { .. } if inbox.is_empty() => HttpStep::Idle,
            Phase::Quiet { .. } => {
                self.enter(Phase::Head(HeadScan::default()), now);
                self.read_head(inbox, out, now, limits)
            }
            Phase::Head(_) => self.read_head(inbox, out, now, limits),
            Phase::Body(_) => self.read_body(inbox, out, now, limits),
            Phase::Answering(owed) => {
                owed.pipelined = !inbox.is_empty();
                return HttpStep::Idle;
            }
            Phase::Sending { .. } => return HttpStep::Idle,
            Phase::Ended => {
                inbox.take(inbox.rest().len());
                return HttpStep::Idle;
            }
        };
        match step {
            // What is missing will never come.
            HttpStep::Idle if self.hung_up => {
                self.phase = Phase::Ended;
                HttpStep::Close(Close::PeerGone)
            }
            step => step,
        }
    }

    /// Answers the request that was handed out.
    pub fn respond(
        &mut self,
        response: &Response,
        out: &mut Outbox,
        now: Now,
    ) -> Result<AfterAnswer, Full> {
        let Phase::Answering(owed) = &self.phase else {
            debug_assert!(false, "an answer belongs to a request");
            return Ok(AfterAnswer::Close);
        };
        let last = self.hung_up && !owed.pipelined;
        let persists = owed.persists && !last && !self.leaving && !response.says_close();
        let manner = Manner {
            connection: match (persists, owed.old) {
                (false, _) => Connection::Close,
                (true, false) => Connection::Persists,
                (true, true) => Connection::KeepAlive,
            },
            without_body: owed.without_body,
            endless: false,
            unix_seconds: now.unix_ms / 1000,
        };
        let streamed = response.streamed(owed.without_body);
        response.write(manner, out)?;
        if let Some(part) = streamed {
            let left = part.length;
            self.enter(Phase::Sending { left, persists }, now);
            return Ok(AfterAnswer::Body);
        }
        Ok(self.answered(persists, now))
    }

    /// The next bytes of a body that comes in pieces; no more than are owed.
    pub fn send(&mut self, piece: &[u8], out: &mut Outbox, now: Now) -> Result<AfterAnswer, Full> {
        let Phase::Sending { left, persists } = self.phase else {
            debug_assert!(false, "a piece belongs to an answer");
            return Ok(AfterAnswer::Close);
        };
        out.push(piece)?;
        let left = left.saturating_sub(piece.len() as u64);
        if left > 0 {
            self.enter(Phase::Sending { left, persists }, now);
            return Ok(AfterAnswer::Body);
        }
        Ok(self.answered(persists && !self.leaving, now))
    }

    /// How much of a body is to come in pieces still.
    pub fn owes(&self) -> u64 {
        match self.phase {
            Phase::Sending { left, .. } => left,
            _ => 0,
        }
    }

    fn answered(&mut self, persists: bool, now: Now) -> AfterAnswer {
        if !persists {
            self.phase = Phase::Ended;
            return AfterAnswer::Close;
        }
        self.untaken = true;
        self.enter(Phase::Quiet { first: false }, now);
        AfterAnswer::KeepAlive
    }

    /// Accepts the WebSocket that the request asked for. What is in the inbox from here on are its
    /// frames. Returns how they may be compressed. Panics when the request did not ask.
    pub fn upgrade(&mut self, out: &mut Outbox) -> Result<Option<Agreement>, Full> {
        let (key, deflate) = match &self.phase {
            Phase::Answering(owed) => (owed.websocket_key, owed.deflate),
            _ => (None, None),
        };
        let key = key.expect("only a request that wants a WebSocket is upgraded");
        let extension = deflate.map(|agreed| agreed.field());
        http::write_upgrade(&accept_key(&key), extension.as_deref(), out)?;
        self.phase = Phase::Ended;
        Ok(deflate)
    }

    /// Begins an answer without an end to the request that was handed out: its head, and the body
    /// as far as it is known. The connection is a stream from here on.
    pub fn stream(&mut self, response: &Response, out: &mut Outbox, now: Now) -> Result<(), Full> {
        self.phase = Phase::Ended;
        let manner = Manner {
            endless: true,
            ..last_words(now)
        };
        response.write(manner, out)
    }

    /// The pages that may read the answer to the request that was handed out.
    pub fn allow_origin(&mut self, origin: Option<Cow<'static, str>>) {
        if let Phase::Answering(owed) = &mut self.phase {
            owed.allow_origin = origin.map(Box::new);
        }
    }

    pub fn allowed_origin(&self) -> Option<Cow<'static, str>> {
        match &self.phase {
            Phase::Answering(owed) => owed.allow_origin.as_deref().cloned(),
            _ => None,
        }
    }

    /// What its offers came to; said with the upgrade of the request that was handed out.
    pub fn agree(&mut self, agreed: Option<Agreement>) {
        if let Phase::Answering(owed) = &mut self.phase {
            owed.deflate = agreed;
        }
    }

    /// Makes the next answer the last one, and says so in it.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether at least one request was answered and nothing of another has come.
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Quiet { first: false })
    }

    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answering(_) | Phase::Sending { .. })
    }

    /// The peer will send nothing more. True: the connection ends once the outbox is flushed.
    /// False: answers are owed to requests that came before; `respond`, or `next` after it, tells
    /// when the last was given (or has told already).
    pub fn hung_up(&mut self) -> bool {
        self.hung_up = true;
        !matches!(
            self.phase,
            Phase::Answering(_) | Phase::Sending { .. } | Phase::Ended
        )
    }

    /// Ends what has lasted too long.
    pub fn elapsed(&mut self, out: &mut Outbox, now: Now, limits: &Limits) -> Option<Close> {
        if now.moment < self.deadline(limits)? {
            return None;
        }
        let close = match self.phase {
            Phase::Quiet { first: false } => {
                let write = Duration::from_secs(limits.write_seconds);
                if !out.is_empty() && now.moment >= self.since + write {
                    Close::Unread
                } else {
                    self.untaken = false;
                    if now.moment < self.deadline(limits)? {
                        return None;
                    }
                    // Nobody waits for an answer: RFC 9112 section 9.5 allows to close silently.
                    Close::Done
                }
            }
            Phase::Quiet { first: true } => Close::TooLate,
            // What is missing of the answer cannot be said any more.
            Phase::Sending { .. } => Close::TooSlow,
            _ => {
                let late = Refusal::new(408, "Request took too long").response();
                match late.write(last_words(now), out) {
                    Ok(()) => Close::TooLate,
                    Err(Full) => Close::TooSlow,
                }
            }
        };
        self.phase = Phase::Ended;
        Some(close)
    }

    pub fn deadline(&self, limits: &Limits) -> Option<Moment> {
        let seconds = match self.phase {
            Phase::Quiet { first: false } if self.untaken => {
                limits.write_seconds.min(limits.http_idle_seconds)
            }
            Phase::Quiet { first: false } => limits.http_idle_seconds,
            Phase::Quiet { first: true } | Phase::Head(_) => limits.http_head_seconds,
            Phase::Body(_) | Phase::Sending { .. } => limits.http_body_seconds,
            Phase::Answering(_) | Phase::Ended => return None,
        };
        Some(self.since + Duration::from_secs(seconds))
    }

    fn enter(&mut self, phase: Phase, now: Now) {
        self.phase = phase;
        self.since = now.moment;
    }

    fn read_head<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        limits: &Limits,
    ) -> HttpStep<'a> {
        let Phase::Head(scan) = &mut self.phase else {
            return HttpStep::Idle;
        };
        let bytes = inbox.rest();
        let head = match scan.find(bytes, limits.http_head_bytes) {
            Ok(None) => return HttpStep::Idle,
            Ok(Some(span)) => Head::parse(bytes, span, limits.http_body_bytes),
            Err(refusal) => Err(refusal),
        };
        match head {
            Ok(head) => {
                let chunks = Chunks::default();
                self.advance(Unfinished { head, chunks }, inbox, out, now, limits)
            }
            Err(refusal) => self.refuse(refusal, inbox, out, now),
        }
    }

    fn read_body<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        limits: &Limits,
    ) -> HttpStep<'a> {
        let Phase::Body(unfinished) = &mut self.phase else {
            return HttpStep::Idle;
        };
        match unfinished.measure(inbox.rest(), limits) {
            Ok(None) => HttpStep::Idle,
            Ok(Some(len)) => {
                let bytes = inbox.take(len);
                let request = unfinished.head.request(bytes);
                let owed = Owed::new(&unfinished.head, inbox);
                self.enter(Phase::Answering(owed), now);
                HttpStep::Request(request)
            }
            Err(refusal) => self.refuse(refusal, inbox, out, now),
        }
    }

    /// The head is whole. Mostly the body is too, and nothing needs to be remembered.
    fn advance<'a>(
        &mut self,
        mut unfinished: Unfinished,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        limits: &Limits,
    ) -> HttpStep<'a> {
        match unfinished.measure(inbox.rest(), limits) {
            Ok(Some(len)) => {
                let bytes = inbox.take(len);
                let request = unfinished.head.request(bytes);
                let owed = Owed::new(&unfinished.head, inbox);
                self.enter(Phase::Answering(owed), now);
                HttpStep::Request(request)
            }
            Ok(None) => {
                let expects_continue = unfinished.head.expects_continue;
                self.enter(Phase::Body(Box::new(unfinished)), now);
                if expects_continue && http::write_continue(out).is_err() {
                    self.phase = Phase::Ended;
                    return HttpStep::Close(Close::TooSlow);
                }
                HttpStep::Idle
            }
            Err(refusal) => self.refuse(refusal, inbox, out, now),
        }
    }

    fn refuse<'a>(
        &mut self,
        refusal: Refusal,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
    ) -> HttpStep<'a> {
        let bytes = inbox.take(inbox.rest().len());
        let manner = Manner {
            without_body: bytes.trim_ascii_start().starts_with(b"HEAD "),
            ..last_words(now)
        };
        self.phase = Phase::Ended;
        if refusal.response().write(manner, out).is_err() {
            return HttpStep::Close(Close::TooSlow);
        }
        HttpStep::Close(Close::Violation(match refusal.status {
            413 | 414 | 431 => Violation::TooBig,
            417 | 426 | 501 | 505 => Violation::Unsupported(refusal.message),
            _ => Violation::Protocol(refusal.message),
        }))
    }
}

fn last_words(now: Now) -> Manner {
    Manner {
        connection: Connection::Close,
        without_body: false,
        endless: false,
        unix_seconds: now.unix_ms / 1000,
    }
}

impl Unfinished {
    /// The length of head and body once both are whole.
    fn measure(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let head = self.head.len;
        match self.head.body {
            Body::Length(length) => {
                Ok(Some(head.saturating_add(length)).filter(|len| *len <= bytes.len()))
            }
            Body::Chunked => {
                let limits = ChunkLimits {
                    body_bytes: limits.http_body_bytes,
                    trailer_bytes: limits.http_head_bytes,
                };
                let body = self.chunks.measure(&bytes[head..], limits)?;
                Ok(body.map(|body| head + body))
            }
        }
    }
}

impl Owed {
    fn new(head: &Head, inbox: &Inbox) -> Owed {
        Owed {
            persists: head.persists,
            old: head.old,
            without_body: head.without_body,
            websocket_key: head.websocket_key,
            deflate: None,
            allow_origin: None,
            pipelined: !inbox.is_empty(),
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "http_strict_tests.rs"]
mod strict_tests;
