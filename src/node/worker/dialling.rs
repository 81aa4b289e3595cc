//! Outgoing connections of a worker: begun, handed over by the driver, upgraded, failed or given up.
//! What happens on one that stands is everybody's (`mod.rs`). Invariant: each dial ends with one
//! `reached` or one `unreached`, unless the process ends before.

use crate::base::bytes::Inbox;
use crate::base::close::Close;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::worker::seats::Facts;
use crate::node::{Ending, Output, Peer};
use crate::session::Session;
use crate::session::framed::Framed;
use crate::session::upgrade::{Upgrade, UpgradeStep};
use crate::session::websocket::WebSocket;
use crate::wire::target::{Target, TargetScheme};

/// An outgoing connection that has a seat.
pub(super) struct Dialled {
    pub(super) dial: DialId,
    pub(super) scheme: TargetScheme,
    /// Where it leads.
    pub(super) remote: String,
}

const LEAVING: &str = "this worker is about to end";

impl Worker {
    /// An application asked for a connection.
    pub(super) fn begin_dial(&mut self, dial: DialId, now: Now) {
        let limits = &self.shared.limits;
        let is_full = self.seats.count() >= limits.connections.saturating_add(limits.dials);
        if self.is_leaving() {
            return self.refuse_dial(dial, LEAVING);
        }
        if is_full {
            return self.refuse_dial(dial, "there are too many connections (limits.connections)");
        }
        if let Some(found) = self.shared.outgoing.dials.get_mut(dial) {
            found.until = now.moment + found.target.connect_within();
            self.outputs.push_back(Output::Dial(Peer::Outside(dial)));
        }
    }

    /// An application wants it no more.
    pub(super) fn hang_up_dial(&mut self, dial: DialId) {
        self.refuse_dial(dial, "it was given up");
    }

    /// A draining or stopping worker begins nothing any more. There may be no later turn.
    pub(super) fn give_up_dials(&mut self, now: Now) {
        for dial in self.shared.outgoing.dials.ids() {
            self.refuse_dial(dial, LEAVING);
        }
        self.tell_refusals(now);
    }

    /// Ends a dial for a reason of our own; the application is told in the next turn.
    fn refuse_dial(&mut self, dial: DialId, why: &'static str) {
        let Some(found) = self.shared.outgoing.dials.refuse(dial, why) else {
            return;
        };
        match found.conn {
            Some(conn) => {
                if let Some(seat) = self.seats.live(conn) {
                    seat.ended = true;
                    self.outputs.push_back(Output::Close(conn, Ending::Cut));
                }
            }
            None => self.outputs.push_back(Output::HangUp(dial)),
        }
    }

    /// Tells applications of dials that were refused.
    pub(super) fn tell_refusals(&mut self, now: Now) {
        for refusal in self.shared.outgoing.dials.take_refusals() {
            self.shared.counters.dial_failed += 1;
            let application = self.handlers.of(refusal.handler);
            application.unreached(refusal.dial, refusal.why, &mut self.shared.cx(now));
        }
    }

    /// The server was not reached, or did not agree to a WebSocket.
    pub(super) fn dial_failed(&mut self, dial: DialId, why: &str, now: Now) {
        if let Some(found) = self.shared.outgoing.dials.remove(dial) {
            self.shared.counters.dial_failed += 1;
            let application = self.handlers.of(found.handler);
            application.unreached(dial, why, &mut self.shared.cx(now));
        }
    }

    /// The driver has the connection.
    pub(super) fn take_over(&mut self, conn: ConnId, dial: DialId, now: Now) {
        let shared = &mut self.shared;
        let Some(found) = shared.outgoing.dials.get_mut(dial) else {
            // Given up while it came about.
            return self.outputs.push_back(Output::Close(conn, Ending::Cut));
        };
        let (handler, target) = (found.handler, found.target.clone());
        shared.outgoing.lines.open(conn, shared.limits.outbox_bytes);
        let session = match target.scheme().protocol().framing() {
            Some(framing) => Session::Framed(Framed::new(framing, now)),
            None => {
                let out = shared.outgoing.lines.outbox(conn).expect("just opened");
                let upgrade = Upgrade::begin(&target, &mut shared.dice, out);
                let upgrade = upgrade.expect("an empty outbox takes any one message");
                found.conn = Some(conn);
                Session::Upgrading(Box::new(upgrade))
            }
        };
        self.seats.open(conn, handler, session);
        if let Some(seat) = self.seats.get_mut(conn) {
            seat.facts = Facts::dialled(now);
        }
        self.note_dialled(conn, dial, &target);
        match target.scheme().is_websocket() {
            true => self.shared.outgoing.lines.touch(conn),
            false => {
                let protocol = target.scheme().protocol();
                self.shared.outgoing.lines.speak(conn, protocol);
                self.reached(conn, dial, now);
            }
        }
        self.carry_out(now);
        self.arm(conn);
    }

    fn note_dialled(&mut self, conn: ConnId, dial: DialId, target: &Target) {
        let noted = Dialled {
            dial,
            scheme: target.scheme(),
            remote: target.place(),
        };
        self.dialled.insert(conn, noted);
    }

    /// One look at the answer to a WebSocket handshake; whether there may be another.
    pub(super) fn step_upgrade(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) -> bool {
        let dial = self.dialled.get(&conn).map(|dialled| dialled.dial);
        let session = self.seats.live(conn).map(|seat| &mut seat.session);
        let (Some(dial), Some(Session::Upgrading(upgrade))) = (dial, session) else {
            return false;
        };
        match upgrade.next(inbox, self.shared.limits.http_head_bytes) {
            UpgradeStep::Idle => false,
            UpgradeStep::Refused(why) => {
                self.upgrade_failed(conn, &why, now);
                false
            }
            UpgradeStep::Agreed => {
                let masks = self.shared.dice.branch();
                if let Some(seat) = self.seats.get_mut(conn) {
                    seat.session = Session::WebSocket(WebSocket::client(now, masks));
                }
                let masks = self.shared.dice.branch();
                self.shared.outgoing.lines.mask(conn, masks);
                self.reached(conn, dial, now);
                true
            }
        }
    }

    /// The handshake came to nothing, and so does the connection.
    pub(super) fn upgrade_failed(&mut self, conn: ConnId, why: &str, now: Now) {
        if let Some(dial) = self.dialled.get(&conn).map(|dialled| dialled.dial) {
            self.dial_failed(dial, why, now);
        }
        self.end(conn, Close::Done, now);
    }

    /// The wheel fired during the handshake, which it may do early.
    pub(super) fn upgrade_elapsed(&mut self, conn: ConnId, now: Now) {
        let dial = self.dialled.get(&conn).map(|dialled| dialled.dial);
        let until = dial.and_then(|dial| self.shared.outgoing.dials.until(dial));
        if until.is_some_and(|until| until > now.moment) {
            return self.arm(conn);
        }
        let why = "the server did not answer the WebSocket handshake in time";
        self.upgrade_failed(conn, why, now);
    }

    fn reached(&mut self, conn: ConnId, dial: DialId, now: Now) {
        self.shared.outgoing.dials.remove(dial);
        self.shared.counters.dialled += 1;
        if let Some(seat) = self.seats.get_mut(conn) {
            seat.known = true;
            let application = self.handlers.of(seat.handler);
            application.reached(conn, dial, &mut self.shared.cx(now));
        }
    }
}

#[cfg(test)]
#[path = "dialling_tests.rs"]
mod tests;
