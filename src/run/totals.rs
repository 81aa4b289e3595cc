//! What the dead did: the numbers of processes that ended, kept for their places, so that what
//! counts up never falls. Does not know how the numbers of the living are got. Bound: one entry for
//! each place.

use std::collections::BTreeMap;

use crate::base::counters::Counters;
use crate::run::children::Role;

/// By role and number.
#[derive(Default)]
pub struct Totals(BTreeMap<(Role, u32), Counters>);

impl Totals {
    /// A process of this place ended; these are the last numbers it told.
    pub fn bury(&mut self, role: Role, number: u32, last: &Counters) {
        let entry = self.0.entry((role, number)).or_default();
        entry.add(&last.remains());
    }

    /// All that was done at this place by those who are no more.
    pub fn of(&self, role: Role, number: u32) -> Counters {
        self.0.get(&(role, number)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_did_adds_up_for_their_place() {
        let mut totals = Totals::default();
        let last = Counters {
            connections: 5,
            accepted: 9,
            ..Counters::default()
        };
        totals.bury(Role::Worker, 1, &last);
        totals.bury(Role::Worker, 1, &last);
        let remains = totals.of(Role::Worker, 1);
        assert_eq!((remains.connections, remains.accepted), (0, 18));
        assert_eq!(totals.of(Role::Worker, 0), Counters::default());
        assert_eq!(totals.of(Role::Switchboard, 1), Counters::default());
    }
}
