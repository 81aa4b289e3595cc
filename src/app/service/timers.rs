//! The timers of one service: when each is due, and when again. Does not know what happens then.
//! Bound: none but memory, as for any collection that the embedding program fills itself.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use croner::Cron;

use crate::base::now::{Moment, Now};

/// Names one timer; never used again for another in the same reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer(u64);

/// When a timer is due again.
pub(super) enum Schedule {
    Once,
    Every(Duration),
    Cron(Box<Cron>),
}

#[derive(Default)]
pub(super) struct Timers {
    due: BTreeMap<(Moment, Timer), Schedule>,
    /// The way back.
    moments: BTreeMap<Timer, Moment>,
    last: u64,
}

impl Timers {
    pub fn add(&mut self, due: Moment, schedule: Schedule) -> Timer {
        self.last += 1;
        let timer = Timer(self.last);
        self.put(due, timer, schedule);
        timer
    }

    pub fn add_cron(&mut self, expression: &str, now: Now) -> Result<Timer, String> {
        let cron = Cron::from_str(expression).map_err(|error| format!("{expression}: {error}"))?;
        let due = next(&cron, now).ok_or_else(|| format!("{expression}: never comes"))?;
        Ok(self.add(due, Schedule::Cron(Box::new(cron))))
    }

    pub fn cancel(&mut self, timer: Timer) {
        if let Some(due) = self.moments.remove(&timer) {
            self.due.remove(&(due, timer));
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next timer that is due; it is set again if it is one that comes again.
    pub fn expire(&mut self, now: Now) -> Option<Timer> {
        let entry = self.due.first_entry()?;
        let (due, timer) = *entry.key();
        if due > now.moment {
            return None;
        }
        let schedule = entry.remove();
        self.moments.remove(&timer);
        let again = match &schedule {
            Schedule::Once => None,
            Schedule::Every(period) => Some(following(due, *period, now)),
            Schedule::Cron(cron) => next(cron, now),
        };
        if let Some(again) = again {
            self.put(again, timer, schedule);
        }
        Some(timer)
    }

    fn put(&mut self, due: Moment, timer: Timer, schedule: Schedule) {
        self.due.insert((due, timer), schedule);
        self.moments.insert(timer, due);
    }
}

/// The first time in step with `due` that lies in the future.
fn following(due: Moment, period: Duration, now: Now) -> Moment {
    let late = now.moment.since(due).as_micros();
    let missed = late / period.as_micros().max(1);
    due + period.saturating_mul(missed.min(u128::from(u32::MAX)) as u32) + period
}

/// When a cron expression comes next, on the clock that does not jump.
fn next(cron: &Cron, now: Now) -> Option<Moment> {
    let today = DateTime::from_timestamp_millis(i64::try_from(now.unix_ms).ok()?)?;
    let next = cron.find_next_occurrence(&today, false).ok()?;
    let wait = (next - today).to_std().ok()?;
    Some(now.moment + wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            moment: Moment::from_micros(ms * 1000),
            // 2001-09-09T01:46:40Z, a Sunday.
            unix_ms: 1_000_000_000_000 + ms,
        }
    }

    fn due(timers: &Timers) -> Option<u64> {
        timers.deadline().map(|due| due.as_micros() / 1000)
    }

    #[test]
    fn a_timer_fires_once_unless_it_repeats() {
        let mut timers = Timers::default();
        let once = timers.add(at(10).moment, Schedule::Once);
        let every = timers.add(at(10).moment, Schedule::Every(Duration::from_millis(50)));
        assert_eq!(timers.expire(at(9)), None);
        assert_eq!(timers.expire(at(10)), Some(once));
        assert_eq!(timers.expire(at(10)), Some(every));
        assert_eq!(timers.expire(at(10)), None);
        assert_eq!(due(&timers), Some(60));
    }

    #[test]
    fn times_that_passed_are_left_out_and_the_step_is_kept() {
        let mut timers = Timers::default();
        timers.add(at(50).moment, Schedule::Every(Duration::from_millis(50)));
        assert!(timers.expire(at(220)).is_some());
        assert_eq!(timers.expire(at(220)), None);
        assert_eq!(due(&timers), Some(250));
    }

    #[test]
    fn a_cancelled_timer_is_never_due() {
        let mut timers = Timers::default();
        let timer = timers.add(at(10).moment, Schedule::Every(Duration::from_secs(1)));
        assert!(timers.expire(at(10)).is_some());
        timers.cancel(timer);
        timers.cancel(timer);
        assert_eq!(due(&timers), None);
        assert!(timers.moments.is_empty());
    }

    #[test]
    fn cron_counts_in_utc_with_or_without_seconds() {
        let mut timers = Timers::default();
        // 01:46:40 it is.
        timers.add_cron("*/15 * * * * *", at(0)).expect("valid");
        assert_eq!(due(&timers), Some(5_000));
        timers.expire(at(5_000)).expect("due");
        assert_eq!(due(&timers), Some(20_000));
        let mut timers = Timers::default();
        timers.add_cron("50 1 * * SUN", at(0)).expect("valid");
        assert_eq!(due(&timers), Some(200_000));
        let mut timers = Timers::default();
        assert!(timers.add_cron("* * *", at(0)).is_err());
        assert!(timers.add_cron("61 * * * *", at(0)).is_err());
        assert!(timers.add_cron("0 0 31 2 *", at(0)).is_err());
        assert_eq!(due(&timers), None);
    }
}
