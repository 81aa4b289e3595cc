//! How much happens each second: the difference between two statuses of the same server. Asks
//! nobody and reads no clock. Invariant: a process that took another's place is not compared with
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run::status::Status;

/// Per second, under the names of the counters they are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub accepted: f64,
    pub messages_in: f64,
    pub messages_out: f64,
}

/// Fills in the rates of `status`, which was told `since` after `earlier`.
pub fn note(status: &mut Status, earlier: &Status, since: Duration) {
    let mut total = Rates::default();
    for process in &mut status.processes {
        let mut before = earlier.processes.iter();
        let before = before.find(|it| it.pid.is_some() && it.pid == process.pid);
        let grown = |name: &str| {
            let count = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
            // A process that is new began at zero.
            let former = before.map_or(0, |it| count(&it.counters));
            count(&process.counters).saturating_sub(former) as f64
        };
        let rates = Rates {
            accepted: per_second(grown("accepted"), since),
            messages_in: per_second(grown("messages_in"), since),
            messages_out: per_second(grown("messages_out"), since),
        };
        total.accepted += rates.accepted;
        total.messages_in += rates.messages_in;
        total.messages_out += rates.messages_out;
        process.rates = Some(rates);
    }
    status.rates = Some(total);
}

/// To a tenth: more would only be noise.
fn per_second(count: f64, since: Duration) -> f64 {
    let seconds = since.as_secs_f64().max(0.001);
    (count / seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::Counters;
    use crate::run::status::{named, tests::status};

    fn with(pid: u32, accepted: u64, messages_in: u64) -> Status {
        let mut status = status();
        status.processes[0].pid = Some(pid);
        status.processes[0].counters = named(&Counters {
            accepted,
            messages_in,
            ..Counters::default()
        });
        status
    }

    fn check(earlier: &Status, later: &Status, accepted: f64, messages_in: f64) {
        let mut later = later.clone();
        note(&mut later, earlier, Duration::from_secs(2));
        let expected = Rates {
            accepted,
            messages_in,
            messages_out: 0.0,
        };
        assert_eq!(later.processes[0].rates, Some(expected));
        assert_eq!(later.rates, Some(expected));
    }

    #[test]
    fn a_rate_is_what_was_added_in_a_second() {
        check(&with(7, 10, 100), &with(7, 15, 1100), 2.5, 500.0);
    }

    #[test]
    fn a_process_that_replaced_another_is_counted_from_zero() {
        check(&with(7, 10, 100), &with(8, 4, 6), 2.0, 3.0);
    }

    #[test]
    fn numbers_that_fell_count_as_none() {
        check(&with(7, 10, 100), &with(7, 4, 6), 0.0, 0.0);
    }
}
