//! A token bucket: how often something may happen, with room for a short burst.

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
        let passed_ms = now.since(self.filled_at).as_millis() as u64;
        if passed_ms > 0 {
            let inflow = passed_ms.saturating_mul(u64::from(self.per_second));
            let full = u64::from(self.per_second) * 1000;
            self.left = (u64::from(self.left) + inflow).min(full) as u32;
            self.filled_at = now;
        }
        if self.left < 1000 {
            return false;
        }
        self.left -= 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
    fn zero_refuses_everything() {
        let mut quota = Quota::new(0, Moment::default());
        assert!(!quota.take(Moment::from_micros(u64::MAX / 2)));
    }
}
