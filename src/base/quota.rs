//! A token bucket: how often something may happen, with room for a short burst.

use std::time::Duration;

use crate::base::now::Moment;

/// `per_second` tokens flow in, `per_second` is also the most it holds. Twelve bytes of state.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    per_second: u32,
    filled_at: Moment,
    /// Thousandths of a token.
    left: u32,
}

impl Quota {
    /// A full bucket. Zero `per_second` refuses everything.
    pub fn new(per_second: u32, now: Moment) -> Quota {
        let per_second = per_second.min(u32::MAX / 1000);
        Quota {
            per_second,
            filled_at: now,
            left: per_second * 1000,
        }
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let is_ready = self.is_ready(now);
        if is_ready {
            self.left -= 1000;
        }
        is_ready
    }

    /// Whether there is a token to take.
    pub fn is_ready(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.left >= 1000
    }

    /// Whether there are so many tokens, or all that it holds.
    pub fn has(&mut self, count: usize, now: Moment) -> bool {
        self.fill(now);
        self.left >= self.thousandths(count).max(1000)
    }

    /// Takes so many tokens, as far as there are any.
    pub fn take_many(&mut self, count: usize) {
        self.left = self.left.saturating_sub(self.thousandths(count));
    }

    pub fn is_full(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.left == self.per_second * 1000
    }

    /// Of so many tokens, at most those that it can hold.
    fn thousandths(&self, count: usize) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        count.min(self.per_second) * 1000
    }

    fn fill(&mut self, now: Moment) {
        let passed_ms = now.since(self.filled_at).as_millis() as u64;
        if passed_ms > 0 {
            let inflow = passed_ms.saturating_mul(u64::from(self.per_second));
            let full = u64::from(self.per_second) * 1000;
            self.left = (u64::from(self.left) + inflow).min(full) as u32;
            self.filled_at = now;
        }
    }

    /// When there will be a token, as of the last look.
    pub fn ready_at(&self) -> Moment {
        let missing = 1000u32.saturating_sub(self.left);
        let wait_ms = missing.div_ceil(self.per_second.max(1));
        self.filled_at + Duration::from_millis(wait_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_then_the_rate_holds() {
        let start = Moment::from_micros(5_000_000);
        let mut quota = Quota::new(10, start);
        assert_eq!((0..20).filter(|_| quota.take(start)).count(), 10);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..20).filter(|_| quota.take(later)).count(), 2);
        let much_later = later + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| quota.take(much_later)).count(), 10);
    }

    #[test]
    fn an_empty_bucket_tells_when_to_come_again() {
        let start = Moment::from_micros(5_000_000);
        let mut quota = Quota::new(4, start);
        while quota.take(start) {}
        let again = quota.ready_at();
        assert_eq!(again, start + Duration::from_millis(250));
        assert!(!quota.is_ready(again - Duration::from_millis(1)));
        assert!(quota.take(again) && !quota.take(again));
    }

    #[test]
    fn many_are_taken_together_and_more_than_it_holds_take_all() {
        let start = Moment::from_micros(5_000_000);
        let mut quota = Quota::new(4, start);
        assert!(quota.is_full(start) && quota.has(9, start));
        quota.take_many(3);
        assert!(quota.has(1, start) && !quota.has(2, start) && !quota.is_full(start));
        let later = start + Duration::from_millis(750);
        assert!(quota.is_full(later) && quota.has(9, later));
        quota.take_many(9);
        assert!(!quota.has(1, later));
    }

    #[test]
    fn zero_refuses_everything() {
        let mut quota = Quota::new(0, Moment::default());
        assert!(!quota.take(Moment::from_micros(u64::MAX / 2)));
    }
}
