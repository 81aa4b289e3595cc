//! When the subscribers of a channel are told how many they are: with every change while they are
//! few, and from time to time when they are many (Pusher: above 100, every 5 seconds). It counts
//! nobody itself.
//!
//! Invariant: a channel is remembered only while it was told within the last interval.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::names::ChannelKey;
use crate::base::now::Moment;

/// With more subscribers a channel is told at most once in an interval.
const FEW: u64 = 100;
const INTERVAL: Duration = Duration::from_secs(5);

/// See the file's head.
pub struct Counting {
    /// Whether something has changed since it was told.
    told: HashMap<ChannelKey, bool, FixedState>,
    /// When each may be told again.
    due: VecDeque<(Moment, ChannelKey)>,
}

impl Counting {
    pub fn new(dice: &mut Dice) -> Counting {
        Counting {
            told: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            due: VecDeque::new(),
        }
    }

    /// The count has changed; whether to tell it now.
    pub fn changed(&mut self, key: &str, count: u64, now: Moment) -> bool {
        match (self.told.get_mut(key), ChannelKey::parse(key)) {
            (Some(changed), _) => {
                *changed = count > FEW;
                count <= FEW
            }
            (None, Some(key)) if count > FEW => {
                self.tell_later(key, now);
                true
            }
            _ => true,
        }
    }

    fn tell_later(&mut self, key: ChannelKey, now: Moment) {
        self.due.push_back((now + INTERVAL, key.clone()));
        self.told.insert(key, false);
    }

    /// The next channel whose interval is over and which has changed meanwhile.
    pub fn next_due(&mut self, now: Moment) -> Option<ChannelKey> {
        while self.deadline().is_some_and(|at| at <= now) {
            let (_, key) = self.due.pop_front()?;
            if self.told.remove(&key) == Some(true) {
                self.tell_later(key.clone(), now);
                return Some(key);
            }
        }
        None
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.due.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "demo/a";

    #[test]
    fn few_are_told_at_once_and_many_every_five_seconds() {
        let mut counting = Counting::new(&mut Dice::new([0; 16]));
        let start = Moment::from_micros(0);
        assert!(counting.changed(KEY, 100, start));
        assert!(counting.changed(KEY, 101, start));
        assert!(!counting.changed(KEY, 102, start));
        assert!(!counting.changed(KEY, 103, start));
        assert_eq!(counting.next_due(start + Duration::from_secs(4)), None);
        let later = start + INTERVAL;
        assert!(counting.next_due(later).is_some(), "once");
        assert_eq!(counting.next_due(later), None);
        assert!(!counting.changed(KEY, 104, later));
        assert!(counting.changed(KEY, 100, later), "few again");
        assert_eq!(counting.next_due(later + INTERVAL), None, "nothing is new");
        assert_eq!(counting.deadline(), None);
        assert!(counting.told.is_empty());
    }
}
