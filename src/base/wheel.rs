//! A timer wheel: one entry per connection, cheap to arm, never cancelled. An entry that fires is
//! only a hint to look; the owner compares with the deadline it really has and arms again.

use crate::base::ids::ConnId;
use crate::base::now::Moment;

const TICK_MICROS: u64 = 50_000;
const SLOTS: usize = 2048;
const WORDS: usize = SLOTS / 64;

/// 2048 slots of 50 ms, so 102 s ahead; a later deadline waits in the farthest slot and is armed
/// again from there.
pub struct Wheel {
    slots: Vec<Vec<ConnId>>,
    occupied: [u64; WORDS],
    /// The next tick to be looked at; all earlier ones are empty.
    tick: u64,
    entries: usize,
}

impl Wheel {
    pub fn new(now: Moment) -> Wheel {
        Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; WORDS],
            tick: now.as_micros() / TICK_MICROS,
            entries: 0,
        }
    }

    /// When an entry for `deadline` would fire: at the first tick from then on, or earlier when
    /// that is too far ahead.
    pub fn fires_at(&self, deadline: Moment) -> Moment {
        Moment::from_micros(self.tick_of(deadline) * TICK_MICROS)
    }

    fn tick_of(&self, deadline: Moment) -> u64 {
        let due = deadline.as_micros().div_ceil(TICK_MICROS);
        due.clamp(self.tick, self.tick + SLOTS as u64 - 1)
    }

    /// Fires for `conn` at `fires_at(deadline)`.
    pub fn arm(&mut self, conn: ConnId, deadline: Moment) {
        let tick = self.tick_of(deadline);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(conn);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.entries += 1;
    }

    /// Moves everything due at `now` into `fired`.
    pub fn expire(&mut self, now: Moment, fired: &mut Vec<ConnId>) {
        let last = now.as_micros() / TICK_MICROS;
        while self.tick <= last {
            match self.next_occupied() {
                Some(tick) if tick <= last => {
                    let slot = tick as usize % SLOTS;
                    self.entries -= self.slots[slot].len();
                    fired.append(&mut self.slots[slot]);
                    self.occupied[slot / 64] &= !(1 << (slot % 64));
                    self.tick = tick + 1;
                }
                _ => self.tick = last + 1,
            }
        }
    }

    /// When `expire` next has something to do.
    pub fn deadline(&self) -> Option<Moment> {
        self.next_occupied()
            .map(|tick| Moment::from_micros(tick * TICK_MICROS))
    }

    fn next_occupied(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let start = self.tick as usize % SLOTS;
        let mut distance = 0;
        while distance < SLOTS {
            let slot = (start + distance) % SLOTS;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                let found = distance + word.trailing_zeros() as usize;
                return (found < SLOTS).then_some(self.tick + found as u64);
            }
            distance += 64 - slot % 64;
        }
        // The last partial word was entered from its middle; its low bits are the farthest slots.
        let word = self.occupied[start / 64] & ((1 << (start % 64)) - 1);
        (word != 0).then(|| {
            let slot = start / 64 * 64 + word.trailing_zeros() as usize;
            self.tick + ((slot + SLOTS - start) % SLOTS) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::dice::Dice;

    #[test]
    fn every_entry_fires_once_at_its_tick_and_the_deadline_announces_it() {
        let mut dice = Dice::new([9; 16]);
        let start = Moment::from_micros(123_456_789);
        let mut wheel = Wheel::new(start);
        let mut expected: Vec<(u64, u32)> = Vec::new();
        for slot in 0..2000 {
            let deadline = start + Duration::from_micros(dice.below(100_000_000));
            wheel.arm(ConnId::new(slot, 0), deadline);
            assert_eq!(wheel.fires_at(deadline).as_micros() % TICK_MICROS, 0);
            expected.push((deadline.as_micros().div_ceil(TICK_MICROS), slot));
        }
        expected.sort_unstable();
        let mut seen = Vec::new();
        while let Some(deadline) = wheel.deadline() {
            let mut fired = Vec::new();
            wheel.expire(deadline, &mut fired);
            assert!(
                !fired.is_empty(),
                "an announced deadline has something to fire"
            );
            let tick = deadline.as_micros() / TICK_MICROS;
            seen.extend(fired.iter().map(|conn| (tick, conn.slot)));
        }
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_fires_early_and_can_be_armed_again() {
        let start = Moment::from_micros(0);
        let mut wheel = Wheel::new(start);
        let far = start + Duration::from_secs(300);
        wheel.arm(ConnId::new(1, 1), far);
        let hint = wheel.deadline().expect("armed");
        assert!(hint < far);
        let mut fired = Vec::new();
        wheel.expire(hint, &mut fired);
        assert_eq!(fired, [ConnId::new(1, 1)]);
        wheel.arm(fired[0], far);
        assert!(wheel.deadline().expect("armed") > hint);
    }

    #[test]
    fn a_past_deadline_fires_at_the_next_look() {
        let start = Moment::from_micros(10_000_000);
        let mut wheel = Wheel::new(start);
        wheel.arm(ConnId::new(1, 1), Moment::from_micros(1));
        let mut fired = Vec::new();
        wheel.expire(start, &mut fired);
        assert_eq!(fired.len(), 1);
        assert_eq!(wheel.deadline(), None);
    }
}
