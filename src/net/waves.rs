//! Fan-outs that take more turns than one: when each began, and when its last part was written.

use std::collections::VecDeque;

use crate::base::now::Moment;

struct Wave {
    began: Moment,
    deliveries: u64,
    /// Connections to be written to until it is over. The list is written in its order.
    ahead: usize,
}

/// The oldest first. There is one for each turn that made deliveries and left connections waiting;
/// a turn writes to at least one of those, so there are no more than connections.
#[derive(Default)]
pub struct Waves {
    waves: VecDeque<Wave>,
}

impl Waves {
    /// A turn that began at `began` made so many deliveries, and left so many connections waiting.
    pub fn rise(&mut self, began: Moment, deliveries: u64, left: usize) {
        if deliveries > 0 {
            self.waves.push_back(Wave {
                began,
                deliveries,
                ahead: left,
            });
        }
    }

    /// So many of those who waited were written to.
    pub fn roll(&mut self, written: usize) {
        for wave in &mut self.waves {
            wave.ahead = wave.ahead.saturating_sub(written);
        }
    }

    /// The next that is over, taken out: when it began, and its deliveries.
    pub fn next_over(&mut self) -> Option<(Moment, u64)> {
        if self.waves.front()?.ahead > 0 {
            return None;
        }
        let wave = self.waves.pop_front()?;
        Some((wave.began, wave.deliveries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_over_when_all_who_waited_at_its_end_were_written_to() {
        let mut waves = Waves::default();
        let (early, late) = (Moment::from_micros(1), Moment::from_micros(2));
        waves.rise(early, 1_000, 700);
        waves.rise(late, 0, 700);
        assert_eq!(waves.next_over(), None);
        // Of 700 some 500 are written to, and 300 more have come.
        waves.roll(500);
        waves.rise(late, 300, 500);
        assert_eq!(waves.next_over(), None);
        waves.roll(200);
        assert_eq!(waves.next_over(), Some((early, 1_000)));
        assert_eq!(waves.next_over(), None);
        waves.roll(300);
        assert_eq!(waves.next_over(), Some((late, 300)));
        assert_eq!(waves.next_over(), None);
    }

    #[test]
    fn what_was_written_in_its_turn_is_over_at_once() {
        let mut waves = Waves::default();
        waves.rise(Moment::from_micros(1), 20, 0);
        assert_eq!(waves.next_over(), Some((Moment::from_micros(1), 20)));
    }
}
