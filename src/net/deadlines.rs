//! When to cut connections that all get the same time for the same thing, so that a queue in order
//! is enough. It knows ids only; whether one still waits is asked when its turn comes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::now::Moment;

/// At most one entry for each time that a connection came to wait; an entry stays until its
/// deadline or until it is first in line and over.
pub struct Deadlines {
    time: Duration,
    queue: VecDeque<(Moment, ConnId)>,
}

impl Deadlines {
    /// For things that may take `time`.
    pub fn new(time: Duration) -> Deadlines {
        Deadlines {
            time,
            queue: VecDeque::new(),
        }
    }

    /// The time of `conn` begins now.
    pub fn begin(&mut self, conn: ConnId, now: Moment) {
        self.queue.push_back((now + self.time, conn));
    }

    /// No entry is due before this.
    pub fn earliest(&self) -> Option<Moment> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// The next one that is out of time; those that do not wait any more are forgotten.
    pub fn overdue(
        &mut self,
        now: Moment,
        mut waits: impl FnMut(ConnId) -> bool,
    ) -> Option<ConnId> {
        while let Some(&(deadline, conn)) = self.queue.front() {
            let waiting = waits(conn);
            if waiting && deadline > now {
                return None;
            }
            self.queue.pop_front();
            if waiting {
                return Some(conn);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_are_due_in_order_and_the_others_are_forgotten() {
        let start = Moment::default();
        let second = Duration::from_secs(1);
        let mut deadlines = Deadlines::new(second);
        let conns = [1, 2, 3].map(|slot| ConnId::new(slot, 7));
        for (conn, millis) in conns.into_iter().zip([0, 100, 200]) {
            deadlines.begin(conn, start + Duration::from_millis(millis));
        }
        assert_eq!(deadlines.earliest(), Some(start + second));
        assert_eq!(deadlines.overdue(start, |_| true), None);
        // The first is over before its time.
        assert_eq!(deadlines.overdue(start, |conn| conn != conns[0]), None);
        let late = start + Duration::from_millis(1100);
        assert_eq!(deadlines.earliest(), Some(late));
        assert_eq!(deadlines.overdue(late, |_| true), Some(conns[1]));
        assert_eq!(deadlines.overdue(late, |_| true), None);
        assert_eq!(deadlines.overdue(late + second, |_| false), None);
        assert_eq!(deadlines.earliest(), None);
    }
}
