//! The clock of a reactor: read here once per turn and handed down.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            moment: Moment::from_micros(self.origin.elapsed().as_micros() as u64),
            unix_ms: unix.as_millis() as u64,
        }
    }
}
