//! The clock of a reactor: read here once per turn and handed down.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::now::{Moment, Now};

/// Both clocks, the monotonic one counted from `start`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            moment: Moment::from_micros(self.origin.elapsed().as_micros() as u64),
            unix_ms: unix().as_millis() as u64,
        }
    }
}

fn unix() -> Duration {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    unix.unwrap_or_default()
}

/// For who is called by a library and has no turn to take the time of.
pub fn unix_seconds() -> u64 {
    unix().as_secs()
}
