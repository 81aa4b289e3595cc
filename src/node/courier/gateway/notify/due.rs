//! What is due: the store is asked when the earliest of its times has come, and does a page of it at
//! once. Once an hour what is old is removed. Does not know what is due, only when.

use std::time::Duration;

use crate::base::now::{Moment, Now, bring_forward};
use crate::node::courier::Courier;
use crate::node::courier::gateway::SHARED_LOOK;
use crate::node::courier::gateway::notify::Waiting;
use crate::push::notify::jobs::{Due, NotifyJob, OpenPlace};

/// After a start: acknowledgements that waited for this process come first.
const SETTLE: Duration = Duration::from_secs(1);
/// However far the next time is, so that a clock that was set matters no longer than this.
const LOOK_AFTER: Duration = Duration::from_secs(60);
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// Between two pages of what is removed.
const TIDY_PAUSE: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 24 * 3_600 * 1_000;

impl Courier {
    /// There are notifications from before this process, or of others who share the store.
    pub(in crate::node::courier::gateway) fn begin_notifying(&mut self, now: Now) {
        let notify = &mut self.gateway.notify;
        notify.look_at = Some(now.moment + SETTLE);
        notify.tidy_at = Some(now.moment + TIDY_PAUSE);
    }

    /// A notification was accepted, which will be old one day.
    pub(super) fn tidy_later(&mut self, now: Now) {
        let tidy_at = &mut self.gateway.notify.tidy_at;
        tidy_at.get_or_insert(now.moment + TIDY_EVERY);
    }

    /// The store is asked no later than this.
    pub(super) fn look_by(&mut self, at: Moment) {
        bring_forward(&mut self.gateway.notify.look_at, at);
    }

    pub(in crate::node::courier) fn notify_elapsed(&mut self, now: Now) {
        self.end_waits(now);
        let now_ms = now.unix_ms;
        let is_due = |at: Option<Moment>| at.is_some_and(|at| at <= now.moment);
        let notify = &mut self.gateway.notify;
        let looks = is_due(notify.look_at) && !notify.is_looking;
        if looks {
            notify.is_looking = true;
            notify.look_at = None;
        }
        let tidies = is_due(notify.tidy_at);
        let after = std::mem::take(&mut notify.tidy_after);
        if tidies {
            notify.tidy_at = None;
        }
        if looks {
            self.ask_notify(NotifyJob::Due { now_ms }, Waiting::Due);
        }
        if tidies {
            let kept_ms = u64::from(self.limits.notification_days) * DAY_MS;
            let job = NotifyJob::Tidy {
                settled_before_ms: now_ms.saturating_sub(kept_ms),
                after,
                now_ms,
            };
            self.ask_notify(job, Waiting::Tidied);
        } else {
            self.gateway.notify.tidy_after = after;
        }
    }

    pub(super) fn take_due(&mut self, due: Due, now: Now) {
        self.gateway.notify.is_looking = false;
        self.counters.notifications_queued += due.queued;
        for (order, ack_ms) in &due.orders {
            self.order(order, *ack_ms, None, now);
        }
        if let Some(next_ms) = due.next_ms {
            let wait = Duration::from_millis(next_ms.saturating_sub(now.unix_ms));
            self.look_by(now.moment + wait.min(LOOK_AFTER));
        }
        if self.gateway.is_shared {
            self.look_by(now.moment + SHARED_LOOK);
        }
    }

    /// The store could not: not at once again.
    pub(super) fn take_no_due(&mut self, now: Now) {
        self.gateway.notify.is_looking = false;
        self.look_by(now.moment + LOOK_AFTER);
    }

    pub(super) fn take_tidied(&mut self, after: Option<OpenPlace>, now: Now) {
        let notify = &mut self.gateway.notify;
        let wait = if after.is_some() {
            TIDY_PAUSE
        } else {
            TIDY_EVERY
        };
        notify.tidy_at = Some(now.moment + wait);
        notify.tidy_after = after.unwrap_or_default();
    }

    pub(in crate::node::courier) fn notify_deadline(&self) -> Option<Moment> {
        let notify = &self.gateway.notify;
        let look = notify.look_at.filter(|_| !notify.is_looking);
        let own = [look, notify.tidy_at, self.waits_deadline()];
        own.into_iter().flatten().min()
    }
}
