//! The audit log: who was not let in. At most a few lines a second, so that whoever guesses secrets
//! cannot drown the log; what is left out is counted in the next line.

use crate::app::application::Denial;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::base::quota::Quota;
use crate::node::worker::Worker;

const LINES_PER_SECOND: u32 = 10;
/// Of a text that the other side chose.
const CHARS_MAX: usize = 200;

/// A line to be written.
pub struct Entry {
    what: String,
    key: String,
    why: String,
    /// Denials since the line before that got none.
    more: u64,
}

/// Which denials get a line.
pub struct Auditing {
    quota: Quota,
    left_out: u64,
}

impl Auditing {
    pub fn new(now: Now) -> Auditing {
        Auditing {
            quota: Quota::new(LINES_PER_SECOND, now.moment),
            left_out: 0,
        }
    }

    pub fn entry(&mut self, denial: &Denial<'_>, now: Now) -> Option<Box<Entry>> {
        if !self.quota.take(now.moment) {
            self.left_out += 1;
            return None;
        }
        let cut = |text: &str| text.chars().take(CHARS_MAX).collect();
        Some(Box::new(Entry {
            what: cut(denial.what),
            key: cut(denial.key),
            why: cut(denial.why),
            more: std::mem::take(&mut self.left_out),
        }))
    }
}

impl Worker {
    pub(super) fn audit(&self, conn: ConnId, entry: &Entry) {
        let seat = self.seats.get(conn);
        let address = seat.and_then(|seat| seat.facts.address());
        let address = address.map_or("unix".to_string(), |address| address.to_string());
        let Entry {
            what,
            key,
            why,
            more,
        } = entry;
        log::warn!(address = address.as_str(), what = what.as_str(), key = key.as_str(),
            left_out = *more; "denied: {why}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::now::Moment;

    #[test]
    fn a_storm_gets_a_few_lines_and_is_counted() {
        let mut now = Now {
            moment: Moment::from_micros(5_000_000),
            unix_ms: 0,
        };
        let mut auditing = Auditing::new(now);
        let long = "é".repeat(1000);
        let denial = Denial {
            what: &long,
            key: "k",
            why: "because",
        };
        let lines = (0..1000).filter_map(|_| auditing.entry(&denial, now));
        assert_eq!(lines.count(), 10);
        now.moment = now.moment + Duration::from_secs(1);
        let next = auditing.entry(&denial, now).expect("a line again");
        assert_eq!((next.more, next.what.chars().count()), (990, CHARS_MAX));
    }
}
