//! What applications may cause, written down for the worker: bytes go straight into outboxes,
//! everything that changes a session waits as a wish until the application has returned.

use std::collections::VecDeque;

use crate::app::application::{Asked, Message, Outlet, Parcel, Unavailable};
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::lines::Lines;
use crate::node::worker::deflating::{Deflated, Deflating};
use crate::node::worker::uplink::Uplink;
use crate::wire::bus::{Item, Up};
use crate::wire::http::Response;
use crate::wire::websocket;

/// A change of a session that an application asked for.
pub enum Wish {
    Reply(ConnId, Response),
    Upgrade(ConnId),
    Close(ConnId, Close),
}

/// The worker's `Outlet`.
pub struct Outgoing {
    pub lines: Lines,
    pub uplink: Uplink,
    pub deflating: Deflating,
    pub wishes: VecDeque<Wish>,
    /// WebSocket messages queued since the start.
    pub messages: u64,
}

impl Outgoing {
    fn sent(&mut self, conn: ConnId, pushed: Result<(), crate::base::bytes::Full>) {
        match pushed {
            Ok(()) => self.messages += 1,
            Err(_) => self.wishes.push_back(Wish::Close(conn, Close::TooSlow)),
        }
    }
}

impl Outlet for Outgoing {
    fn send(&mut self, conn: ConnId, message: Message<'_>) {
        let (opcode, payload) = match message {
            Message::Text(text) => (websocket::TEXT, text.as_bytes()),
            Message::Binary(bytes) => (websocket::BINARY, bytes),
        };
        let deflating = &mut self.deflating;
        let pushed = self
            .lines
            .push(conn, |out| match deflating.message(conn, payload) {
                Some(deflated) => websocket::push_deflated(out, opcode, deflated),
                None => websocket::push_frame(out, opcode, payload),
            });
        self.sent(conn, pushed);
    }

    fn deliver(&mut self, conn: ConnId, parcel: &Parcel) {
        let deflating = &mut self.deflating;
        let pushed = self
            .lines
            .push(conn, |out| match deflating.parcel(conn, parcel) {
                Deflated::Shared(frame) => out.push_shared(frame),
                Deflated::Own(payload) => websocket::push_deflated(out, websocket::TEXT, payload),
                Deflated::Not => out.push_shared(parcel.websocket()),
            });
        self.sent(conn, pushed);
    }

    fn reply(&mut self, conn: ConnId, response: Response) {
        self.wishes.push_back(Wish::Reply(conn, response));
    }

    fn upgrade(&mut self, conn: ConnId) {
        self.wishes.push_back(Wish::Upgrade(conn));
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
}
