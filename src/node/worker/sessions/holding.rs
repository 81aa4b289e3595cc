//! The sessions held by this worker: they begin and end here, their messages are taken up here, and
//! their lines handed to whoever receives.

use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::worker::sessions::Receiver;
use crate::node::{Ending, Node};
use crate::session::Session;
use crate::session::framed::Framed;
use crate::wire::bus::{Outcome, Up};
use crate::wire::protocol::Protocol;
use crate::wire::sockjs::{self, SockJs};

/// Lines are handed over in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// What an errand or its outcome adds to what it carries, at most.
pub(super) const ENVELOPE_BYTES: usize = 512;
/// Messages that wait because a session sends faster than it may.
const UNREAD_BYTES: usize = 64 * 1024;

impl Worker {
    /// Nobody else holds it: it begins here, with a request of its client.
    pub(super) fn open_session(&mut self, name: &str, by: ConnId, now: Now) -> Option<ConnId> {
        let seat = self.seats.get(by)?;
        let (handler, mut facts) = (seat.handler, seat.facts.clone());
        facts.since = now.moment;
        facts.bytes_in = 0;
        let (listener, address) = facts.place();
        let session = self.sessions.hold(name, now.moment);
        let lines = &mut self.shared.outgoing.lines;
        lines.open(session, self.shared.limits.outbox_bytes);
        lines.speak(session, Protocol::SockJs);
        let begun = lines.push(session, |out| out.push(sockjs::OPEN));
        debug_assert!(begun.is_ok(), "an empty outbox takes it");
        let framed = Session::Framed(Framed::opened(&SockJs, now));
        self.seats.open(session, handler, framed);
        if let Some(seat) = self.seats.get_mut(session) {
            seat.known = true;
            seat.facts = facts;
        }
        self.shared.counters.accepted += 1;
        self.pace(session, now);
        let application = self.handlers.of(handler);
        application.located(session, listener, address, &mut self.shared.cx(now));
        application.session_opened(session, by, &mut self.shared.cx(now));
        self.carry_out(now);
        self.schedule_leave(session, now);
        Some(session)
    }

    /// Somebody receives from now on, in the place of whoever did, and takes so many characters.
    pub(super) fn attach(&mut self, session: ConnId, receiver: Receiver, room: usize, now: Now) {
        self.hear_session(session, now);
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        let former = std::mem::replace(&mut held.receiver, receiver);
        held.since = now.moment;
        held.room = room;
        // Only who has what came before asks for more.
        held.unproven = None;
        match former {
            Receiver::Here(conn) if former != receiver => {
                self.end_carrier(conn, &sockjs::superseded(), now);
            }
            Receiver::There(to) if former != receiver => {
                let name = held.name.clone();
                self.tell_outcome(to, &name, Outcome::Superseded);
            }
            _ => {}
        }
        self.pump(session, now);
        self.arm(session);
    }

    /// It does not receive any more, and will be back if its client wants more.
    pub(super) fn detach(&mut self, session: ConnId, now: Now) {
        if let Some(held) = self.sessions.held.get_mut(&session) {
            held.receiver = Receiver::Nobody;
            held.since = now.moment;
            self.arm(session);
        }
    }

    /// Hands what waits for the session to whoever receives, if there is room.
    pub(in crate::node::worker) fn pump(&mut self, session: ConnId, now: Now) {
        let waiting = self.shared.outgoing.lines.waiting(session);
        let Some(held) = self.sessions.held.get(&session) else {
            return;
        };
        let (ended, room, receiver) = (held.ended, held.room, held.receiver);
        let has_room = match receiver {
            Receiver::Nobody | Receiver::Handed(_) => false,
            Receiver::There(_) => self.shared.outgoing.uplink.is_open(),
            Receiver::Here(conn) => self.carrier_has_room(conn, waiting),
        };
        if waiting == 0 || !has_room {
            return;
        }
        let Some(out) = self.shared.outgoing.lines.outbox(session) else {
            return;
        };
        let mut lines = out.take(PIECE_BYTES);
        out.put_back(lines.split_off(sockjs::fitting(&lines, room)));
        let last = ended && waiting == lines.len();
        let elsewhere = !matches!(receiver, Receiver::Here(_));
        if elsewhere && lines.len() + ENVELOPE_BYTES > self.shared.limits.bus_message_bytes {
            return self.end(session, Close::Unsendable, now);
        }
        self.hand_over(session, lines, last, now);
        if last {
            return self.finish(session, &Close::Done, now);
        }
        self.drained(session, now);
        self.arm(session);
    }

    fn hand_over(&mut self, session: ConnId, lines: Vec<u8>, last: bool, now: Now) {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        held.since = now.moment;
        held.room = held.room.saturating_sub(sockjs::characters(&lines));
        match held.receiver {
            Receiver::Nobody | Receiver::Handed(_) => {}
            Receiver::Here(conn) => {
                if !self.give_lines(conn, &lines, last, now) {
                    self.detach(session, now);
                }
            }
            Receiver::There(to) => {
                held.number = held.number.wrapping_add(1);
                held.receiver = Receiver::Handed(to);
                let message = Up::Outcome {
                    to,
                    session: &held.name,
                    outcome: Outcome::Lines {
                        number: held.number,
                        lines: &lines,
                        last,
                    },
                };
                let outgoing = &mut self.shared.outgoing;
                outgoing.uplink.tell(&message, &mut outgoing.lines);
                held.unproven = Some((to, lines));
            }
        }
    }

    /// Takes up messages of the session's client; false when they are lost, and the session ends.
    pub(super) fn post(&mut self, session: ConnId, mut messages: Vec<u8>, now: Now) -> bool {
        self.hear_session(session, now);
        if messages.is_empty() {
            self.echo(session, now);
            return true;
        }
        let Some(seat) = self.seats.live(session) else {
            return false;
        };
        if seat.leftover.len() > UNREAD_BYTES {
            self.shut(session, Close::Replaced, now);
            return false;
        }
        seat.facts.bytes_in += messages.len() as u64;
        self.take_up(session, &mut messages, now);
        true
    }

    /// The client said nothing: it answers a heartbeat, or wants one.
    fn echo(&mut self, session: ConnId, now: Now) {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        if !std::mem::take(&mut held.echoes) {
            self.beat(session, now);
        }
    }

    fn beat(&mut self, session: ConnId, now: Now) {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        held.since = now.moment;
        // What waits says as much.
        if self.shared.outgoing.lines.waiting(session) == 0 {
            held.echoes = true;
            let lines = &mut self.shared.outgoing.lines;
            let pushed = lines.push(session, |out| out.push(sockjs::HEARTBEAT));
            debug_assert!(pushed.is_ok(), "an empty outbox takes it");
            self.pump(session, now);
        }
    }

    /// Any request of its client is a sign of life.
    fn hear_session(&mut self, session: ConnId, now: Now) {
        if let Some(seat) = self.seats.live(session)
            && let Session::Framed(framed) = &mut seat.session
        {
            framed.hear(now);
        }
    }

    /// What a passed deadline of the session asks for; whether it is over.
    pub(in crate::node::worker) fn session_elapsed(&mut self, session: ConnId, now: Now) -> bool {
        let Some(due) = self.sessions.due(session) else {
            return false;
        };
        let Some(held) = self.sessions.held.get(&session) else {
            return false;
        };
        let (ended, receiver) = (held.ended, held.receiver);
        match (ended, receiver) {
            (true, _) if due > now.moment => self.wheel.arm(session, due),
            (true, _) => self.finish(session, &Close::PeerGone, now),
            (false, _) if due > now.moment => {}
            (false, Receiver::Nobody | Receiver::Handed(_)) => {
                self.end(session, Close::PeerGone, now);
            }
            (false, Receiver::Here(_) | Receiver::There(_)) => self.beat(session, now),
        }
        ended || self.seats.live(session).is_none()
    }

    /// The session's end was decided. Its last words, if any, are in its outbox; they are handed to
    /// whoever receives now, or asks within the time that a client may be away.
    pub(in crate::node::worker) fn end_session(
        &mut self,
        session: ConnId,
        close: &Close,
        ending: Ending,
        now: Now,
    ) {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        held.ended = true;
        held.since = now.moment;
        if ending == Ending::Cut || *close == Close::PeerGone {
            return self.finish(session, close, now);
        }
        self.pump(session, now);
        if let Some(due) = self.sessions.due(session) {
            self.wheel.arm(session, due);
        }
    }

    /// Nothing is left of the session; who still receives for it is told.
    fn finish(&mut self, session: ConnId, close: &Close, now: Now) {
        let Some(held) = self.sessions.forget(session) else {
            return;
        };
        self.seats.close(session);
        self.shared.outgoing.lines.close(session);
        self.shared.counters.closed += 1;
        match held.receiver {
            Receiver::Here(conn) if self.sessions.carriers.remove(&conn).is_some() => {
                self.end(conn, close.clone(), now);
            }
            Receiver::There(to) => self.tell_outcome(to, &held.name, Outcome::Gone),
            _ => {}
        }
        let outgoing = &mut self.shared.outgoing;
        let message = Up::SessionEnded { name: &held.name };
        outgoing.uplink.tell(&message, &mut outgoing.lines);
        self.quit_if_empty();
    }
}
