//! One reading of both clocks, taken once per reactor turn and handed down as an argument.
//! Pure code never asks for the time itself, so a simulation can run it in virtual time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in microseconds since an origin the process chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    pub const fn from_micros(micros: u64) -> Moment {
        Moment(micros)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(wait.as_micros() as u64))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_sub(wait.as_micros() as u64))
    }
}

/// Brings `due` forward to `at`; nothing changes if it is due before.
pub fn bring_forward(due: &mut Option<Moment>, at: Moment) {
    *due = Some(due.map_or(at, |before| before.min(at)));
}

/// Both clocks at the start of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: for deadlines and durations.
    pub moment: Moment,
    /// Wall clock, milliseconds since 1970-01-01 UTC: for signatures and log lines.
    pub unix_ms: u64,
}

impl Now {
    pub fn unix_seconds(self) -> i64 {
        (self.unix_ms / 1000) as i64
    }
}
