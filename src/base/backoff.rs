//! Retry times that grow, with jitter, so that many who failed together do not return together.

use std::time::Duration;

use crate::base::dice::Dice;

/// Doubles from `first` to `longest`; each wait is drawn from the upper half of its step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            failures: 0,
        }
    }

    /// How long to wait after one more failure.
    pub fn next(&mut self, dice: &mut Dice) -> Duration {
        let step = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        half + Duration::from_micros(dice.below(half.as_micros() as u64 + 1))
    }

    /// It worked: the next failure starts from `first` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_success() {
        let mut dice = Dice::new([0; 16]);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step_ms in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next(&mut dice).as_millis();
            assert!(
                (step_ms / 2..=step_ms).contains(&wait),
                "{wait} of {step_ms}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&mut dice) <= Duration::from_millis(100));
    }
}
