//! What applications may cause, written down for the worker: bytes go straight into outboxes,
//! everything that changes a session waits as a wish until the application has returned.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::app::application::{Asked, Denial, Message, Outlet, Parcel, SessionCall, Unavailable};
use crate::app::handler::Handler;
use crate::base::bytes::Full;
use crate::base::close::Close;
use crate::base::ids::{ConnId, DialId};
use crate::base::limits::{Limits, OutboxPolicy};
use crate::base::now::Now;
use crate::node::lines::{Lines, Urgency};
use crate::node::worker::auditing::{Auditing, Entry};
use crate::node::worker::deflating::{Deflated, Deflating};
use crate::node::worker::dials::Dials;
use crate::node::worker::uplink::Uplink;
use crate::wire::bus::{Item, Question, Terms, Up};
use crate::wire::framing::{Framing, Unsendable};
use crate::wire::gateway::GatewayCall;
use crate::wire::http::Response;
use crate::wire::protocol::Protocol;
use crate::wire::target::Target;
use crate::wire::websocket::{self, OpCode};

/// A change of a session that an application asked for.
pub enum Wish {
    Reply(ConnId, Response),
    Upgrade(ConnId),
    AllowOrigin(ConnId, Cow<'static, str>),
    Stream(ConnId, Response, Protocol),
    Session(ConnId, Box<str>, SessionCall),
    Close(ConnId, Close),
    Gather(ConnId),
    OpenFile(ConnId, String),
    Dial(DialId),
    HangUp(DialId),
    ReadFrom(ConnId, bool),
    Audit(ConnId, Box<Entry>),
}

/// The worker's `Outlet`.
pub struct Outgoing {
    pub lines: Lines,
    pub uplink: Uplink,
    pub deflating: Deflating,
    pub dials: Dials,
    pub wishes: VecDeque<Wish>,
    pub auditing: Auditing,
    /// Messages queued since the start.
    pub messages: u64,
    /// What happens to an event for which there is no room.
    pub policy: OutboxPolicy,
    /// Events left out since the start.
    pub dropped: u64,
    /// Where a message is framed before it is queued; empty between two.
    pub scratch: Vec<u8>,
}

/// The scratch vector keeps no more than this between two messages.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What any protocol adds to a message, at most.
const HEAD_BYTES: usize = 16;

impl Outgoing {
    pub fn new(limits: &Limits, uplink: Uplink, deflating: Deflating, now: Now) -> Outgoing {
        Outgoing {
            lines: Lines::new(limits.outbox_bytes / 2),
            uplink,
            deflating,
            dials: Dials::new(limits.dials),
            wishes: VecDeque::new(),
            auditing: Auditing::new(now),
            messages: 0,
            policy: limits.outbox_policy,
            dropped: 0,
            scratch: Vec::new(),
        }
    }

    /// Queues an event of a channel, or leaves it out for a client that reads too slowly. That is
    /// decided before the event is compressed, which the peer's context would remember.
    pub fn broadcast(&mut self, conn: ConnId, parcel: &Parcel<'_>, urgency: Urgency) {
        let size = parcel.message().payload().len() + HEAD_BYTES;
        if self.policy == OutboxPolicy::Drop && !self.lines.keeps_up(conn, size) {
            self.dropped += 1;
        } else {
            self.queue(conn, parcel, urgency);
        }
    }

    /// Queues a message that others get too.
    pub fn queue(&mut self, conn: ConnId, parcel: &Parcel<'_>, urgency: Urgency) {
        let lines = &mut self.lines;
        let pushed = match self.deflating.parcel(conn, parcel) {
            Deflated::Shared(frame) => lines.push_as(urgency, conn, |out| out.push_shared(frame)),
            Deflated::Own(payload) => lines.push_as(urgency, conn, |out| {
                websocket::push_deflated(out, parcel.message().opcode(), payload)
            }),
            Deflated::Not => match parcel.encoded(lines.protocol(conn)) {
                Some(Ok(bytes)) => lines.push_as(urgency, conn, |out| out.push_shared(bytes)),
                Some(Err(Unsendable)) => return self.unsendable(conn),
                None => return self.send(conn, parcel.message()),
            },
        };
        self.sent(conn, pushed);
    }

    fn sent(&mut self, conn: ConnId, pushed: Result<(), Full>) {
        match pushed {
            Ok(()) => self.messages += 1,
            Err(_) => self.wishes.push_back(Wish::Close(conn, Close::TooSlow)),
        }
    }

    fn send_framed(&mut self, conn: ConnId, framing: &dyn Framing, payload: &[u8]) {
        self.scratch.clear();
        if framing.encode(payload, &mut self.scratch).is_err() {
            return self.unsendable(conn);
        }
        let pushed = self.lines.push(conn, |out| out.push(&self.scratch));
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES);
        self.sent(conn, pushed);
    }

    /// As the client of a WebSocket: a key for each frame, and no frame shared.
    fn send_masked(&mut self, conn: ConnId, mask: [u8; 4], opcode: OpCode, payload: &[u8]) {
        let pushed = self.lines.push(conn, |out| {
            websocket::push_masked(out, opcode, mask, payload)
        });
        self.sent(conn, pushed);
    }

    /// To leave the message out would be silent loss.
    fn unsendable(&mut self, conn: ConnId) {
        self.wishes.push_back(Wish::Close(conn, Close::Unsendable));
    }
}

impl Outlet for Outgoing {
    fn send(&mut self, conn: ConnId, message: Message<'_>) {
        let (opcode, payload) = (message.opcode(), message.payload());
        let protocol = self.lines.protocol(conn);
        if let Some(framing) = protocol.framing() {
            return self.send_framed(conn, framing, payload);
        }
        if protocol == Protocol::Masked
            && let Some(mask) = self.lines.next_mask(conn)
        {
            return self.send_masked(conn, mask, opcode, payload);
        }
        let deflating = &mut self.deflating;
        let pushed = self
            .lines
            .push(conn, |out| match deflating.message(conn, payload) {
                Some(deflated) => websocket::push_deflated(out, opcode, deflated),
                None => websocket::push_frame(out, opcode, payload),
            });
        self.sent(conn, pushed);
    }

    fn waiting(&self, conn: ConnId) -> usize {
        self.lines.waiting(conn)
    }

    fn read_from(&mut self, conn: ConnId, wanted: bool) {
        self.wishes.push_back(Wish::ReadFrom(conn, wanted));
    }

    fn deliver(&mut self, conn: ConnId, parcel: &Parcel<'_>) {
        self.queue(conn, parcel, Urgency::Prompt);
    }

    fn reply(&mut self, conn: ConnId, response: Response) {
        self.wishes.push_back(Wish::Reply(conn, response));
    }

    fn upgrade(&mut self, conn: ConnId) {
        self.wishes.push_back(Wish::Upgrade(conn));
    }

    fn allow_origin(&mut self, conn: ConnId, origin: Cow<'static, str>) {
        self.wishes.push_back(Wish::AllowOrigin(conn, origin));
    }

    fn stream(&mut self, conn: ConnId, head: Response, protocol: Protocol) {
        self.wishes.push_back(Wish::Stream(conn, head, protocol));
    }

    fn session(&mut self, conn: ConnId, name: &str, call: SessionCall) {
        self.wishes
            .push_back(Wish::Session(conn, name.into(), call));
    }

    fn close(&mut self, conn: ConnId, close: Close) {
        self.wishes.push_back(Wish::Close(conn, close));
    }

    fn tell(&mut self, message: &Up<'_>) {
        self.uplink.tell(message, &mut self.lines);
    }

    fn publish(&mut self, item: Item<'_>) -> Result<(), Unavailable> {
        let message = Up::Publish {
            ticket: 0,
            terms: Terms::default(),
            items: vec![item],
        };
        self.uplink.offer(&message, &mut self.lines)
    }

    fn ask(&mut self, conn: ConnId, question: Asked<'_>, now: Now) -> Result<(), Unavailable> {
        self.uplink.ask(
            conn,
            |ticket| question.into_message(ticket),
            &mut self.lines,
            now,
        )
    }

    fn call(&mut self, call: GatewayCall<'_>) -> Result<(), Unavailable> {
        let message = Up::Ask {
            ticket: 0,
            question: Question::Gateway(call),
        };
        self.uplink.offer(&message, &mut self.lines)
    }

    fn denied(&mut self, conn: ConnId, denial: &Denial<'_>, now: Now) {
        let entry = self.auditing.entry(denial, now);
        self.wishes
            .extend(entry.map(|entry| Wish::Audit(conn, entry)));
    }

    fn gather(&mut self, conn: ConnId) {
        self.wishes.push_back(Wish::Gather(conn));
    }

    fn open_file(&mut self, conn: ConnId, path: String) {
        self.wishes.push_back(Wish::OpenFile(conn, path));
    }

    fn dial(&mut self, handler: Handler, target: &Target) -> DialId {
        let (dial, begun) = self.dials.begin(handler, target);
        if begun {
            self.wishes.push_back(Wish::Dial(dial));
        }
        dial
    }

    fn hang_up(&mut self, dial: DialId) {
        self.wishes.push_back(Wish::HangUp(dial));
    }
}
