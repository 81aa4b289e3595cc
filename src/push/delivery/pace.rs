//! How fast a credential's provider may be fed, where it has a quota: FCM's ramp from nothing to the
//! full rate (`fcm/quota`). Counts what is sent; waits by being asked again.

use std::time::Duration;

use crate::base::now::Moment;
use crate::push::providers::fcm::quota;

/// After so long without a message the ramp begins anew.
const IDLE: Duration = Duration::from_secs(60);
/// What is saved up at most, as time.
const BURST: Duration = Duration::from_secs(1);
/// The least that is saved up, so that few notifications are not spread over seconds.
const BURST_MIN: u64 = 100;

/// See the file's head.
#[derive(Debug)]
pub struct Pace {
    per_minute: u64,
    /// Since when there is something to send.
    since: Moment,
    filled: Moment,
    /// Thousandths of a message.
    left: u64,
}

impl Pace {
    pub fn new(per_minute: u64, now: Moment) -> Pace {
        Pace {
            per_minute,
            since: now,
            filled: now,
            left: BURST_MIN * 1000,
        }
    }

    /// Whether a message may be sent, or from when on.
    pub fn leave(&mut self, now: Moment) -> Result<(), Moment> {
        if now >= self.filled + IDLE {
            *self = Pace::new(self.per_minute, now);
        }
        let rate = quota::rate(now.since(self.since), self.per_minute).max(1);
        let passed = now.since(self.filled).min(BURST);
        let gained = rate * passed.as_millis() as u64;
        let most = (rate * BURST.as_millis() as u64).max(BURST_MIN * 1000);
        if gained > 0 {
            self.filled = now;
            self.left = (self.left + gained).min(most);
        }
        match self.left >= 1000 {
            true => Ok(()),
            false => {
                let missing = (1000 - self.left).div_ceil(rate);
                Err(now + Duration::from_millis(missing.max(1)))
            }
        }
    }

    pub fn sent(&mut self) {
        self.left = self.left.saturating_sub(1000);
    }

    /// The provider says that it was too much: the ramp begins anew.
    pub fn slow(&mut self, now: Moment) {
        self.since = now;
        self.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are sent in each of so many seconds by whoever has enough.
    fn sent(pace: &mut Pace, seconds: u64) -> Vec<u64> {
        let mut sent = vec![0; seconds as usize];
        for ms in 0..seconds * 1000 {
            let now = Moment::default() + Duration::from_millis(ms);
            while pace.leave(now).is_ok() {
                pace.sent();
                sent[(ms / 1000) as usize] += 1;
            }
        }
        sent
    }

    #[test]
    fn the_full_rate_is_reached_in_a_minute_and_not_exceeded() {
        let mut pace = Pace::new(quota::PROJECT_PER_MINUTE, Moment::default());
        let sent = sent(&mut pace, 120);
        assert!((100..300).contains(&sent[0]), "{}", sent[0]);
        assert!((4_500..5_500).contains(&sent[30]), "{}", sent[30]);
        assert!(sent[61..].iter().all(|it| (9_900..=10_100).contains(it)));
    }

    #[test]
    fn few_are_not_held_up_and_a_complaint_slows() {
        let mut pace = Pace::new(quota::PROJECT_PER_MINUTE, Moment::default());
        let now = Moment::default() + Duration::from_secs(1_000);
        for _ in 0..100 {
            assert_eq!(pace.leave(now), Ok(()));
            pace.sent();
        }
        assert!(pace.leave(now).is_err());
        pace.slow(now);
        let Err(at) = pace.leave(now) else {
            panic!("too fast");
        };
        assert!(at > now && at <= now + Duration::from_secs(1));
        assert_eq!(pace.leave(at), Ok(()));
    }
}
