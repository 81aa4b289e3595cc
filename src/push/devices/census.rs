//! How many devices there are, of which kinds an operator wants to know. Counted in pages, so that
//! a large database is not kept from other work.

use std::time::Duration;

use crate::base::now::Now;
use crate::push::devices::geo::Point;
use crate::push::devices::region::Region;

/// Tokens that end within this are told of.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The devices of some pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub active: u64,
    pub inactive: u64,
    /// Active ones whose token ends within a week.
    pub expiring: u64,
    /// Active ones whose token has ended, so that upkeep is going to retire them.
    pub overdue: u64,
    /// Active ones whose place is known, by `Region`.
    pub located: [u64; Region::ALL.len()],
}

impl Census {
    /// One more device.
    pub fn count(
        &mut self,
        is_active: bool,
        expires_ms: Option<u64>,
        place: Option<&Point>,
        now: Now,
    ) {
        if !is_active {
            self.inactive += 1;
            return;
        }
        self.active += 1;
        match expires_ms {
            Some(at) if at <= now.unix_ms => self.overdue += 1,
            Some(at) if at - now.unix_ms <= SOON.as_millis() as u64 => self.expiring += 1,
            _ => {}
        }
        if let Some(place) = place {
            self.located[Region::of(place) as usize] += 1;
        }
    }

    pub fn add(&mut self, other: &Census) {
        self.active += other.active;
        self.inactive += other.inactive;
        self.expiring += other.expiring;
        self.overdue += other.overdue;
        for (own, more) in self.located.iter_mut().zip(other.located) {
            *own += more;
        }
    }
}
