//! Who waits for the numbers of the whole server, which only the master has. All who ask while a
//! question is open share its answer. Bounds: so many may wait, and so long.

use std::time::Duration;

use crate::app::application::Unavailable;
use crate::app::exposition::Page;
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::worker::Worker;
use crate::wire::control::Report;
use crate::wire::numbers::Numbers;

/// Nobody has more who want to know; one more is told to come again.
const WAITING_MAX: usize = 64;

/// See the file's head.
#[derive(Default)]
pub struct Gathering {
    waiting: Vec<ConnId>,
    /// When to give up; set while somebody waits.
    pub deadline: Option<Moment>,
}

impl Worker {
    pub(super) fn gather(&mut self, conn: ConnId, now: Now) {
        let room = self.gathering.waiting.len() < WAITING_MAX;
        let Some(master) = self.master.filter(|_| room) else {
            return self.hand_out(conn, Err(Unavailable), now);
        };
        self.gathering.waiting.push(conn);
        if self.gathering.deadline.is_none() {
            let patience = Duration::from_secs(self.shared.limits.question_seconds);
            self.gathering.deadline = Some(now.moment + patience);
            self.report(master, &Report::Gather);
        }
    }

    pub(super) fn gathered(&mut self, numbers: &Numbers, now: Now) {
        let page = Page::new(numbers);
        for conn in self.end_gathering() {
            self.hand_out(conn, Ok(&page), now);
        }
    }

    /// Tells those who have waited long enough.
    pub(super) fn give_up_gathering(&mut self, now: Now) {
        if self.gathering.deadline.is_some_and(|due| due <= now.moment) {
            for conn in self.end_gathering() {
                self.hand_out(conn, Err(Unavailable), now);
            }
        }
    }

    fn end_gathering(&mut self) -> Vec<ConnId> {
        self.gathering.deadline = None;
        std::mem::take(&mut self.gathering.waiting)
    }

    fn hand_out(&mut self, conn: ConnId, page: Result<&Page<'_>, Unavailable>, now: Now) {
        if let Some(seat) = self.seats.get(conn).filter(|seat| seat.known) {
            let application = self.handlers.of(seat.handler);
            application.gathered(conn, page, &mut self.shared.cx(now));
        }
    }
}
