//! The requests that carry a session's lines to its client: one answer for each, or one without an
//! end. Does not know where the session is held.

use crate::app::application::SessionCall;
use crate::app::cors;
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::worker::sessions::{Carrier, Of, Receiver};
use crate::session::Session;
use crate::session::stream::Stream;
use crate::wire::event_stream;
use crate::wire::http::Response;
use crate::wire::protocol::Protocol;
use crate::wire::sockjs;

/// Pusher: come back after a second.
const OVER_CAPACITY: u16 = 4100;
/// More is handed to a stream that has not taken what it was given only while it is less than this.
const UNTAKEN_BYTES: usize = 64 * 1024;

impl Worker {
    /// A request of a session.
    pub(in crate::node::worker) fn call_session(
        &mut self,
        conn: ConnId,
        name: &str,
        call: SessionCall,
        now: Now,
    ) {
        let session = self.sessions.by_name.get(name).copied();
        let poll = call == SessionCall::Poll;
        match (call, session) {
            (SessionCall::Post(messages), Some(session)) => {
                let answer = match self.post(session, messages, now) {
                    true => Response::empty(204),
                    false => unavailable(),
                };
                self.reply(conn, answer, now);
            }
            (SessionCall::Post(messages), None) => self.send_post(conn, name, messages, now),
            (SessionCall::Stream | SessionCall::Poll, Some(session)) => {
                let carrier = Carrier::new(poll, Of::Session(session));
                self.sessions.carriers.insert(conn, carrier);
                self.schedule_leave(conn, now);
                self.carry(session, conn, now);
            }
            (SessionCall::Stream | SessionCall::Poll, None) => {
                self.send_receive(conn, name, poll, now);
            }
        }
    }

    /// Begins an answer without an end, as a client's own connection.
    pub(in crate::node::worker) fn open_stream(
        &mut self,
        conn: ConnId,
        head: Response,
        protocol: Protocol,
        now: Now,
    ) {
        if !self.stream(conn, head, event_stream::HEARTBEAT, now) {
            return;
        }
        self.shared.outgoing.lines.speak(conn, protocol);
        if let Some(seat) = self.seats.live(conn) {
            let application = self.handlers.of(seat.handler);
            application.opened(conn, &mut self.shared.cx(now));
        }
        self.schedule_leave(conn, now);
    }

    /// The connection is a stream from here on; false when it ended instead.
    fn stream(
        &mut self,
        conn: ConnId,
        mut head: Response,
        heartbeat: &'static [u8],
        now: Now,
    ) -> bool {
        let interval = self.sessions.heartbeat;
        let Some((http, out)) = self.http(conn) else {
            return false;
        };
        if let Some(origin) = http.allowed_origin() {
            cors::allow(&mut head, origin);
        }
        if http.stream(&head, out, now).is_err() {
            self.end(conn, Close::TooSlow, now);
            return false;
        }
        let stream = Stream::new(heartbeat, interval, now);
        if let Some(seat) = self.seats.live(conn) {
            seat.session = Session::Stream(Box::new(stream));
        }
        self.shared.outgoing.lines.touch(conn);
        self.arm(conn);
        true
    }

    /// What waits for the session goes to this request from now on.
    pub(super) fn carry(&mut self, session: ConnId, conn: ConnId, now: Now) {
        self.begin_carrier(conn, now);
        if let Some(carrier) = self.sessions.carriers.get(&conn) {
            let room = carrier.room;
            self.attach(session, Receiver::Here(conn), room, now);
        }
    }

    /// Gives the head of a stream, if the carrier is one and has none yet. False: it is no more.
    pub(super) fn begin_carrier(&mut self, conn: ConnId, now: Now) -> bool {
        let prelude = sockjs::prelude();
        let Some(carrier) = self.sessions.carriers.get_mut(&conn) else {
            return false;
        };
        if carrier.poll || carrier.begun {
            return true;
        }
        carrier.begun = true;
        carrier.room -= prelude.len();
        self.stream(conn, answer(prelude), b"", now)
    }

    /// Whether so much more may be given to the carrier; if not, it is heard of when it has room.
    pub(super) fn carrier_has_room(&mut self, conn: ConnId, more: usize) -> bool {
        let Some(out) = self.shared.outgoing.lines.outbox(conn) else {
            return false;
        };
        let little = out.len() + more <= UNTAKEN_BYTES && out.has_room(more);
        let has_room = out.is_empty() || little;
        if !has_room {
            out.tell_when_empty();
        }
        has_room
    }

    /// Gives lines to the carrier's client; whether it can be given more. Of a stream, the client
    /// takes so much; then it is given nothing until it has come with another, so that it leaves this
    /// one without missing anything.
    pub(super) fn give_lines(&mut self, conn: ConnId, lines: &[u8], last: bool, now: Now) -> bool {
        if !self.begin_carrier(conn, now) {
            return false;
        }
        let Some(carrier) = self.sessions.carriers.get_mut(&conn) else {
            return false;
        };
        if carrier.poll || last {
            self.end_carrier(conn, lines, now);
            return false;
        }
        let room = carrier.room.checked_sub(sockjs::characters(lines));
        carrier.room = room.unwrap_or(0);
        let outgoing = &mut self.shared.outgoing.lines;
        if outgoing.push(conn, |out| out.push(lines)).is_err() {
            self.end(conn, Close::TooSlow, now);
            return false;
        }
        if room.is_none() {
            self.sessions.carriers.remove(&conn);
            let until = now.moment + self.sessions.gap;
            if let Some(seat) = self.seats.live(conn)
                && let Session::Stream(stream) = &mut seat.session
            {
                stream.leave(until);
                self.arm(conn);
            }
            return false;
        }
        if let Some(out) = self.shared.outgoing.lines.outbox(conn) {
            out.tell_when_empty();
        }
        true
    }

    /// These are the last lines of this carrier.
    pub(super) fn end_carrier(&mut self, conn: ConnId, lines: &[u8], now: Now) {
        let Some(carrier) = self.sessions.carriers.remove(&conn) else {
            return;
        };
        if !carrier.begun {
            return self.reply(conn, answer(lines.to_vec()), now);
        }
        let outgoing = &mut self.shared.outgoing.lines;
        let close = match outgoing.push(conn, |out| out.push(lines)) {
            Ok(()) => Close::Done,
            Err(_) => Close::TooSlow,
        };
        self.end(conn, close, now);
    }

    /// The carrier's client has taken what it was given.
    pub(in crate::node::worker) fn carrier_drained(&mut self, conn: ConnId, now: Now) {
        match self.sessions.carriers.get(&conn).map(|carrier| carrier.of) {
            Some(Of::Session(session)) => self.pump(session, now),
            Some(Of::Errand(ticket)) => self.ask_on(ticket),
            None => {}
        }
    }

    /// The connection ended while it carried: nobody leaves a request that waits but a client that
    /// is gone, or has given up its session.
    pub(in crate::node::worker) fn lose_carrier(&mut self, conn: ConnId, now: Now) {
        let session = match self.sessions.carriers.remove(&conn).map(|it| it.of) {
            Some(Of::Session(session)) => session,
            Some(Of::Errand(ticket)) => return self.release(ticket, false),
            None => return,
        };
        let held = self.sessions.held.get(&session);
        match held.filter(|held| held.receiver == Receiver::Here(conn)) {
            // Its last words may still be fetched.
            Some(held) if held.ended => self.detach(session, now),
            Some(_) => self.end(session, Close::PeerGone, now),
            None => {}
        }
    }

    /// The worker leaves, and who waits here is to come back elsewhere.
    pub(in crate::node::worker) fn send_carrier_away(&mut self, conn: ConnId, now: Now) {
        let Some(carrier) = self.sessions.carriers.get(&conn) else {
            return;
        };
        // A session that is held here has a turn of its own.
        if let Of::Errand(ticket) = carrier.of {
            let lines = match carrier.begun {
                true => leaving(),
                false => sockjs::HEARTBEAT.to_vec(),
            };
            self.release(ticket, true);
            self.end_carrier(conn, &lines, now);
        }
    }
}

impl Carrier {
    pub(super) fn new(poll: bool, of: Of) -> Carrier {
        Carrier {
            poll,
            begun: false,
            room: sockjs::STREAM_CHARACTERS,
            of,
        }
    }
}

/// What tells a client to come back at once.
pub(super) fn leaving() -> Vec<u8> {
    let told = Close::Replaced.websocket();
    told.map_or(Vec::new(), |(code, text)| sockjs::closing(code, &text))
}

/// What a client gets for whom there is no room: a session that ends as it begins.
pub(super) fn over_capacity() -> Vec<u8> {
    let mut lines = sockjs::OPEN.to_vec();
    lines.extend(sockjs::closing(OVER_CAPACITY, "Over capacity"));
    lines
}

pub(super) fn unavailable() -> Response {
    Response::error(503, "The session cannot be reached now; try again")
        .with_header("Retry-After", "1")
}

/// Lines as no cache and no proxy is to keep or change them.
pub(super) fn answer(lines: Vec<u8>) -> Response {
    Response::text(200, lines)
        .with_header("Cache-Control", "no-store, no-transform")
        .with_header("X-Accel-Buffering", "no")
        .with_header("X-Content-Type-Options", "nosniff")
}
