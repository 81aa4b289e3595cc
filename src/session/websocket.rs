//! One WebSocket connection, either end (RFC 6455): Open → Closing → Ended. Frames in, whole
//! messages out; control frames, silence and the closing handshake are dealt with here. Knows
//! nothing of what messages mean. Invariants: a message is handed out whole and, if it is text, is
//! UTF-8; payload leaves the inbox as it comes; memory is held only for a message that is not whole.

use std::borrow::Cow;
use std::time::Duration;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::close::{Close, Violation};
use crate::base::dice::Dice;
use crate::base::now::{Moment, Now};
use crate::session::websocket_message::{Message, deflated_bytes_max};
use crate::wire::deflate::{History, Inflaters};
use crate::wire::websocket::{self as wire, Control, Data, Header, OpCode, Role};

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketOptions {
    /// One message, all fragments together.
    pub message_bytes: usize,
    /// Silence after which a PING is sent.
    pub ping_after: Duration,
    /// Time to answer it with anything at all.
    pub pong_within: Duration,
    /// Time to answer our Close frame.
    pub close_within: Duration,
}

pub struct WebSocket {
    life: Life,
    /// When the peer last gave a sign of life.
    heard: Moment,
    /// A data frame whose payload is still coming.
    frame: Option<Unfinished>,
    /// A data message that is not whole. Empty again between messages, and while closing.
    message: Option<Box<Message>>,
    /// Of a connection that may compress its messages: what they may refer to.
    deflate: Option<Box<History>>,
    /// Where the keys of our frames come from, if we are the client.
    masks: Option<Box<Dice>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// Silent for long; a PING was sent.
    Doubted {
        since: Moment,
    },
    /// Our Close frame was sent, the peer's is awaited.
    Closing {
        since: Moment,
    },
    /// Both were sent, or the connection is given up; what still comes is dropped.
    Ended,
}

struct Unfinished {
    left: u64,
    mask: [u8; 4],
    /// How many bytes of the payload were taken, modulo the length of the mask.
    phase: u8,
    is_final: bool,
}

/// What came of the input so far.
#[derive(Debug)]
pub enum WebSocketStep<'a> {
    Idle,
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    /// Flush what is in the outbox, then end.
    Close(Close),
}

/// What to do after `shut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Go on until `next` or `elapsed` returns a `Close`.
    Wait,
    /// No Close frame can be sent: end at once.
    Cut,
}

impl WebSocket {
    /// We are the server.
    pub fn new(now: Now) -> WebSocket {
        WebSocket {
            life: Life::Open,
            heard: now.moment,
            frame: None,
            message: None,
            deflate: None,
            masks: None,
        }
    }

    /// We are the client. `masks` has to be unpredictable (RFC 6455 section 10.3).
    pub fn client(now: Now, masks: Dice) -> WebSocket {
        WebSocket {
            masks: Some(Box::new(masks)),
            ..WebSocket::new(now)
        }
    }

    /// The peer may compress its messages (RFC 7692). It refers to earlier ones within the window
    /// of that many bits, or not at all.
    pub fn with_deflate(mut self, context_bits: Option<u8>) -> WebSocket {
        self.deflate = Some(Box::new(History::new(context_bits)));
        self
    }

    /// Reads on. To be called until it returns `Idle` or `Close`; what it leaves in the inbox (a
    /// few bytes at most) it wants to see again, with more behind it.
    pub fn next<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        options: &WebSocketOptions,
        inflaters: &mut Inflaters,
    ) -> WebSocketStep<'a> {
        loop {
            if self.life == Life::Ended {
                inbox.take(inbox.rest().len());
                return WebSocketStep::Idle;
            }
            let step = match &self.frame {
                Some(_) => self.read_payload(inbox, now, options, inflaters),
                None => self.read_frame(inbox, out, now, options, inflaters),
            };
            match step {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(violation) => return self.violated(violation, out),
            }
        }
    }

    /// The application or the server wants to end. Messages that still come are dropped.
    pub fn shut(&mut self, close: &Close, out: &mut Outbox, now: Now) -> Shut {
        if self.is_closing() {
            return Shut::Wait;
        }
        if !self.say_close(close, out) {
            self.end();
            return Shut::Cut;
        }
        self.message = None;
        self.life = Life::Closing { since: now.moment };
        Shut::Wait
    }

    /// Asks a silent peer whether it lives, and gives up one that does not answer.
    pub fn elapsed(
        &mut self,
        out: &mut Outbox,
        now: Now,
        options: &WebSocketOptions,
    ) -> Option<Close> {
        if now.moment < self.deadline(options)? {
            return None;
        }
        let close = match self.life {
            Life::Open => match self.push(wire::PING, &[], out) {
                Ok(()) => {
                    self.life = Life::Doubted { since: now.moment };
                    return None;
                }
                Err(_) => Close::TooSlow,
            },
            Life::Doubted { .. } => {
                self.say_close(&Close::Unheard, out);
                Close::Unheard
            }
            Life::Closing { .. } | Life::Ended => Close::TooLate,
        };
        self.end();
        Some(close)
    }

    pub fn deadline(&self, options: &WebSocketOptions) -> Option<Moment> {
        match self.life {
            Life::Open => Some(self.heard + options.ping_after),
            Life::Doubted { since } => Some(since + options.pong_within),
            Life::Closing { since } => Some(since + options.close_within),
            Life::Ended => None,
        }
    }

    /// Whether a Close frame was sent: no more messages go either way.
    pub fn is_closing(&self) -> bool {
        matches!(self.life, Life::Closing { .. } | Life::Ended)
    }

    /// Whether the peer was silent for so long that it was asked for a sign of life.
    pub fn is_doubted(&self) -> bool {
        matches!(self.life, Life::Doubted { .. })
    }

    fn role(&self) -> Role {
        match self.masks {
            Some(_) => Role::Client,
            None => Role::Server,
        }
    }

    /// Queues a frame of the protocol's own.
    fn push(&mut self, opcode: OpCode, payload: &[u8], out: &mut Outbox) -> Result<(), Full> {
        match &mut self.masks {
            Some(masks) => wire::push_masked(out, opcode, masks.next_mask(), payload),
            None => wire::push_frame(out, opcode, payload),
        }
    }

    /// Queues the Close frame for this reason; false when there is none or no room for it.
    fn say_close(&mut self, close: &Close, out: &mut Outbox) -> bool {
        let Some((code, text)) = close.websocket() else {
            return false;
        };
        let payload = wire::close_payload(code, &text);
        self.push(wire::CLOSE, &payload, out).is_ok()
    }

    fn end(&mut self) {
        self.life = Life::Ended;
        self.frame = None;
        self.message = None;
    }

    /// Any frame and any part of one counts as life.
    fn heard(&mut self, now: Now) {
        self.heard = now.moment;
        if let Life::Doubted { .. } = self.life {
            self.life = Life::Open;
        }
    }

    fn violated<'a>(&mut self, violation: Violation, out: &mut Outbox) -> WebSocketStep<'a> {
        let close = Close::Violation(violation);
        if !self.is_closing() {
            self.say_close(&close, out);
        }
        self.end();
        WebSocketStep::Close(close)
    }

    /// A frame begins. `Ok(None)` when it led to nothing that must be told.
    fn read_frame<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        out: &mut Outbox,
        now: Now,
        options: &WebSocketOptions,
        inflaters: &mut Inflaters,
    ) -> Result<Option<WebSocketStep<'a>>, Violation> {
        let rest = inbox.rest();
        if rest.is_empty() {
            return Ok(Some(WebSocketStep::Idle));
        }
        let Some(header) = Header::parse(rest, self.deflate.is_some(), self.role())? else {
            return Ok(Some(WebSocketStep::Idle));
        };
        let whole = header.length <= (rest.len() - header.len) as u64;
        match header.opcode {
            // At most 125 bytes: it can wait in the inbox until it is whole.
            OpCode::Control(_) if !whole => Ok(Some(WebSocketStep::Idle)),
            OpCode::Control(control) => {
                self.heard(now);
                inbox.take(header.len);
                let payload = inbox.take(header.length as usize);
                wire::unmask(payload, header.mask, 0);
                self.control(control, payload, out)
            }
            OpCode::Data(data) => {
                self.heard(now);
                inbox.take(header.len);
                if self.is_closing() {
                    self.begin(header);
                    return Ok(None);
                }
                self.check_data(data, &header, options)?;
                let is_plain = self.message.is_none() && !header.is_deflated;
                if whole && header.is_final && is_plain {
                    let payload = inbox.take(header.length as usize);
                    wire::unmask(payload, header.mask, 0);
                    return whole_message(data, payload).map(Some);
                }
                if self.message.is_none() {
                    let message = self.new_message(data, header.is_deflated, inflaters)?;
                    self.message = Some(Box::new(message));
                }
                self.begin(header);
                Ok(None)
            }
        }
    }

    fn new_message(
        &self,
        data: Data,
        is_deflated: bool,
        inflaters: &mut Inflaters,
    ) -> Result<Message, Violation> {
        let is_text = data == Data::Text;
        match &self.deflate {
            Some(history) if is_deflated => {
                let inflater = inflaters.lend(history.as_slice())?;
                Ok(Message::deflated(is_text, inflater))
            }
            _ => Ok(Message::new(is_text)),
        }
    }

    fn begin(&mut self, header: Header) {
        self.frame = Some(Unfinished {
            left: header.length,
            mask: header.mask,
            phase: 0,
            is_final: header.is_final,
        });
    }

    /// RFC 6455 section 5.4: fragments of two messages are never mixed.
    fn check_data(
        &self,
        data: Data,
        header: &Header,
        options: &WebSocketOptions,
    ) -> Result<(), Violation> {
        let room = match (&self.message, data) {
            (Some(message), Data::Continue) => message.room(options.message_bytes),
            (None, Data::Continue) => {
                return Err(Violation::Protocol("Nothing to continue"));
            }
            (Some(_), _) => {
                return Err(Violation::Protocol("Message begins inside another"));
            }
            (None, _) if header.is_deflated => deflated_bytes_max(options.message_bytes),
            (None, _) => options.message_bytes,
        };
        match header.length > room as u64 {
            true => Err(Violation::TooBig),
            false => Ok(()),
        }
    }

    /// Takes what has come of the payload of a data frame.
    fn read_payload<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        now: Now,
        options: &WebSocketOptions,
        inflaters: &mut Inflaters,
    ) -> Result<Option<WebSocketStep<'a>>, Violation> {
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let count = frame.left.min(inbox.rest().len() as u64) as usize;
        if count == 0 && frame.left > 0 {
            return Ok(Some(WebSocketStep::Idle));
        }
        let piece = inbox.take(count);
        if let Some(message) = &mut self.message {
            wire::unmask(piece, frame.mask, usize::from(frame.phase));
            let history = self.deflate.as_ref().map_or(&[][..], |h| h.as_slice());
            message.push(piece, history, options.message_bytes)?;
        }
        frame.left -= count as u64;
        frame.phase = (usize::from(frame.phase) + count) as u8 % 4;
        let frame_ends = frame.left == 0;
        let message_ends = frame_ends && frame.is_final;
        if frame_ends {
            self.frame = None;
        }
        self.heard(now);
        match message_ends {
            true => match self.message.take() {
                Some(message) => {
                    let history = self.deflate.as_deref_mut();
                    let step = message.finish(history, inflaters, options.message_bytes);
                    step.map(Some)
                }
                None => Ok(None),
            },
            false => Ok(None),
        }
    }

    fn control<'a>(
        &mut self,
        control: Control,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<Option<WebSocketStep<'a>>, Violation> {
        match control {
            Control::Close => self.peer_closes(payload, out).map(Some),
            // Section 5.5.1: nothing is sent after our Close frame.
            Control::Ping if !self.is_closing() => {
                // Section 5.5.3: the PONG carries what the PING did.
                if self.push(wire::PONG, payload, out).is_err() {
                    self.end();
                    return Ok(Some(WebSocketStep::Close(Close::TooSlow)));
                }
                Ok(None)
            }
            // Section 5.5.3: a PONG nobody asked for is a one-way heartbeat.
            Control::Ping | Control::Pong | Control::Reserved(_) => Ok(None),
        }
    }

    /// Section 5.5.1: a Close frame is answered with one, usually of the same code.
    fn peer_closes<'a>(
        &mut self,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<WebSocketStep<'a>, Violation> {
        let code = wire::parse_close(payload)?;
        if !self.is_closing() {
            let answer = code.map(u16::to_be_bytes);
            let answer = answer.as_ref().map_or(&[][..], |code| &code[..]);
            if self.push(wire::CLOSE, answer, out).is_err() {
                self.end();
                return Ok(WebSocketStep::Close(Close::TooSlow));
            }
        }
        self.end();
        Ok(WebSocketStep::Close(Close::Done))
    }
}

/// The common case: one frame, all of it there.
fn whole_message<'a>(data: Data, payload: &'a [u8]) -> Result<WebSocketStep<'a>, Violation> {
    match data {
        Data::Text => match simdutf8::basic::from_utf8(payload) {
            Ok(text) => Ok(WebSocketStep::Text(Cow::Borrowed(text))),
            Err(_) => Err(Violation::NotUtf8),
        },
        _ => Ok(WebSocketStep::Binary(Cow::Borrowed(payload))),
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "websocket_deflate_tests.rs"]
mod deflate_tests;
