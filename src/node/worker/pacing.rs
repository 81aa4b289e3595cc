//! Clients that send faster than they may: their input waits, first in the worker and then in the
//! kernel, until their time has come; the same for those whom the application paused. Does not know what a message is; whoever takes one up says
//! so to the seat. Invariant: what was sent before the end is taken up before the end is told.

use crate::base::bytes::Inbox;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::base::quota::Quota;
use crate::node::worker::Worker;

impl Worker {
    /// Sets the pace of a client that has just connected.
    pub(super) fn pace(&mut self, conn: ConnId, now: Now) {
        let rate = self.shared.limits.messages_per_second;
        if let Some(seat) = self.seats.get_mut(conn).filter(|_| rate > 0) {
            seat.pace = Some(Box::new(Quota::new(rate, now.moment)));
        }
    }

    /// Whether what is in the inbox has to wait. The wheel then fires when that is over.
    pub(super) fn holds_back(&mut self, conn: ConnId, inbox: &Inbox<'_>, now: Now) -> bool {
        if self.shared.limits.messages_per_second == 0 || inbox.is_empty() {
            return false;
        }
        let seat = self.seats.live(conn);
        let held_back = seat.is_some_and(|seat| seat.hold_back(now));
        self.shared.counters.throttled += u64::from(held_back);
        held_back
    }

    /// Takes up what waits in the connection's leftover, now that nothing keeps it from it.
    pub(super) fn resume(&mut self, conn: ConnId, now: Now) {
        self.take_up(conn, &mut [], now);
        let seat = self.seats.live(conn);
        if seat.is_some_and(|seat| seat.hung_up && !seat.waits()) {
            self.hang_up(conn, now);
        }
    }
}
