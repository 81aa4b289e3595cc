//! How the switchboard passes errands for sessions of many requests to the workers that hold them,
//! and outcomes back. Does not know what either says. Invariant: an errand that reached nobody is
//! answered, and who waits for lines is told when their holder is no more.

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::realtime::registry::LinkId;
use crate::wire::bus::{Caller, Down, Errand, Outcome};

impl Switchboard {
    pub(super) fn pass_errand(
        &mut self,
        (conn, id): (ConnId, LinkId),
        (ticket, session): (u64, &str),
        errand: Errand<'_>,
        now: Now,
    ) {
        let from = Caller {
            slot: id.slot,
            life: id.life,
            ticket,
        };
        let holder = self.sessions.holder(session);
        let holder = holder.and_then(|holder| self.by_id.get(&holder)).copied();
        let outcome = match (holder, errand) {
            (Some(holder), _) if !self.has_room(holder, errand) => Outcome::Busy,
            (Some(holder), _) => {
                match errand {
                    Errand::Receive { .. } => self.sessions.receives(session, from),
                    Errand::Release { .. } => self.sessions.released(session, from),
                    Errand::Post(_) | Errand::Lost => {}
                }
                let errand = Down::Errand {
                    from,
                    session,
                    errand,
                };
                return self.send(holder, &errand, now);
            }
            (None, Errand::Receive { opens: true, .. }) => {
                self.sessions.hold(session, id);
                Outcome::Yours
            }
            (None, Errand::Receive { have: None, .. }) => Outcome::Busy,
            (None, Errand::Release { .. }) => return,
            (None, _) => Outcome::Unknown,
        };
        self.send(conn, &Down::Outcome { ticket, outcome }, now);
    }

    /// What carries a client's words may be refused; the rest is as little as there are sessions.
    fn has_room(&self, holder: ConnId, errand: Errand<'_>) -> bool {
        match errand {
            Errand::Post(bytes) => {
                self.lines.waiting(holder) + bytes.len() <= self.limits.link_bytes
            }
            _ => true,
        }
    }

    pub(super) fn pass_outcome(
        &mut self,
        to: Caller,
        session: &str,
        outcome: Outcome<'_>,
        now: Now,
    ) {
        self.sessions.released(session, to);
        self.tell_caller(to, outcome, now);
    }

    pub(super) fn tell_caller(&mut self, to: Caller, outcome: Outcome<'_>, now: Now) {
        let id = LinkId::new(to.slot, to.life);
        if let Some(conn) = self.by_id.get(&id).copied() {
            let ticket = to.ticket;
            self.send(conn, &Down::Outcome { ticket, outcome }, now);
        }
    }
}
