//! What waits for each endpoint, in lanes: the letters of a lane go out one after the other, each
//! until it is delivered or given up, so that the events of a channel keep their order. Owns retries
//! and bounds; does not know how a letter travels.
//!
//! Invariants: a lane has at most one letter under way. No lane waits for another. A letter is
//! given up only after an attempt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::now::{Moment, Now};
use crate::push::facts::Letter;
use crate::push::webhook::Webhook;

/// Of each endpoint, and so the connections it gets at most.
pub const LANES: u8 = 4;
/// What waits for one endpoint; more is not taken.
const LETTERS_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Waits between attempts.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// A lane: the endpoint's place in the configuration, and which of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    pub hook: usize,
    pub lane: u8,
}

struct Lane {
    queue: VecDeque<Arc<Letter>>,
    phase: Phase,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    UnderWay,
    Waiting(Moment),
}

#[derive(Default)]
struct Endpoint {
    lanes: Vec<Lane>,
    letters: usize,
    bytes: usize,
}

/// See the file's head.
pub struct Lanes {
    endpoints: Vec<Endpoint>,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody waits for it any more.
    Settled,
    /// The same, since its time was up.
    GivenUp,
    Again,
}

impl Lanes {
    pub fn new(hooks: usize) -> Lanes {
        let lane = || Lane {
            queue: VecDeque::new(),
            phase: Phase::Idle,
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
        };
        let endpoint = || Endpoint {
            lanes: (0..LANES).map(|_| lane()).collect(),
            ..Endpoint::default()
        };
        Lanes {
            endpoints: (0..hooks).map(|_| endpoint()).collect(),
        }
    }

    /// Whether the endpoint may be sent so many bytes more.
    pub fn has_room(&self, hook: usize, bytes: usize) -> bool {
        let endpoint = &self.endpoints[hook];
        endpoint.letters < LETTERS_MAX && endpoint.bytes + bytes <= BYTES_MAX
    }

    /// Letters that were not settled yet.
    pub fn waiting(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.letters).sum()
    }

    pub fn put(&mut self, hook: usize, letter: Arc<Letter>) {
        let endpoint = &mut self.endpoints[hook];
        endpoint.letters += 1;
        endpoint.bytes += letter.body.len();
        let lane = usize::from(letter.lane % LANES);
        endpoint.lanes[lane].queue.push_back(letter);
    }

    /// What was not settled yet, each with the lane it is in.
    pub fn letters(&self) -> impl Iterator<Item = (LaneId, &Arc<Letter>)> {
        let endpoints = self.endpoints.iter().enumerate();
        let lanes = endpoints.flat_map(|(hook, it)| (0..).zip(&it.lanes).map(move |it| (hook, it)));
        lanes.flat_map(|(hook, (lane, it))| {
            let letters = it.queue.iter();
            letters.map(move |letter| (LaneId { hook, lane }, letter))
        })
    }

    /// The letters under way.
    pub fn under_way(&self) -> Vec<(LaneId, Arc<Letter>)> {
        let first = |(id, letter): &(LaneId, &Arc<Letter>)| {
            let lane = &self.endpoints[id.hook].lanes[usize::from(id.lane)];
            let is_first = lane.queue.front().is_some_and(|it| it.id == letter.id);
            is_first && lane.phase == Phase::UnderWay
        };
        let all = self.letters().filter(first);
        all.map(|(id, letter)| (id, Arc::clone(letter))).collect()
    }

    /// This letter is under way already; false if it is not the lane's first.
    pub fn resume(&mut self, id: LaneId, letter: &Letter) -> bool {
        let lane = &mut self.endpoints[id.hook].lanes[usize::from(id.lane)];
        let is_first = lane.queue.front().is_some_and(|it| **it == *letter);
        if is_first {
            lane.phase = Phase::UnderWay;
        }
        is_first
    }

    /// The letter under way was not sent after all.
    pub fn withdraw(&mut self, id: LaneId) {
        self.endpoints[id.hook].lanes[usize::from(id.lane)].phase = Phase::Idle;
    }

    /// A lane whose first letter may go; it is under way from now on.
    pub fn next_ready(&mut self, now: Moment) -> Option<LaneId> {
        for (hook, endpoint) in self.endpoints.iter_mut().enumerate() {
            for (lane, it) in endpoint.lanes.iter_mut().enumerate() {
                let due = match it.phase {
                    Phase::Idle => true,
                    Phase::Waiting(at) => at <= now,
                    Phase::UnderWay => false,
                };
                if due && !it.queue.is_empty() {
                    it.phase = Phase::UnderWay;
                    let lane = lane as u8;
                    return Some(LaneId { hook, lane });
                }
            }
        }
        None
    }

    /// What goes next.
    pub fn front(&self, id: LaneId) -> Option<&Arc<Letter>> {
        let endpoint = self.endpoints.get(id.hook)?;
        endpoint.lanes[usize::from(id.lane)].queue.front()
    }

    /// The letter under way has arrived, or has not.
    pub fn settle(
        &mut self,
        id: LaneId,
        hook: &Webhook,
        arrived: bool,
        dice: &mut Dice,
        now: Now,
    ) -> Option<Fate> {
        let endpoint = &mut self.endpoints[id.hook];
        let lane = &mut endpoint.lanes[usize::from(id.lane)];
        let letter = lane.queue.front()?;
        let age = Duration::from_millis(now.unix_ms.saturating_sub(letter.time_ms));
        let given_up = !arrived && age >= hook.retry;
        match arrived {
            true => lane.backoff.reset(),
            // The next letter is no better off: the server is the same.
            false => lane.phase = Phase::Waiting(now.moment + lane.backoff.next(dice)),
        }
        if !arrived && !given_up {
            return Some(Fate::Again);
        }
        if arrived {
            lane.phase = Phase::Idle;
        }
        let letter = lane.queue.pop_front()?;
        endpoint.letters -= 1;
        endpoint.bytes -= letter.body.len();
        Some(match arrived {
            true => Fate::Settled,
            false => Fate::GivenUp,
        })
    }

    /// When `next_ready` has something again.
    pub fn deadline(&self) -> Option<Moment> {
        let lanes = self.endpoints.iter().flat_map(|endpoint| &endpoint.lanes);
        let due = lanes.filter_map(|lane| match lane.phase {
            Phase::Waiting(at) if !lane.queue.is_empty() => Some(at),
            _ => None,
        });
        due.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::target::Target;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::from_micros(seconds * 1_000_000),
            unix_ms: seconds * 1000,
        }
    }

    fn hook() -> Webhook {
        Webhook {
            app_id: "a".into(),
            url: "http://b/".into(),
            target: Target::parse_web("http://b/").expect("a URL"),
            kinds: Vec::new(),
            channel_prefix: String::new(),
            channel_suffix: String::new(),
            batch_events: 1,
            timeout: Duration::from_secs(10),
            retry: Duration::from_secs(300),
        }
    }

    fn letter(id: u64, lane: u8) -> Arc<Letter> {
        Arc::new(Letter {
            id,
            app_id: "a".into(),
            url: "http://b/".into(),
            lane,
            time_ms: 0,
            body: "{}".into(),
        })
    }

    struct Play {
        lanes: Lanes,
        dice: Dice,
    }

    impl Play {
        fn new(hooks: usize) -> Play {
            let (lanes, dice) = (Lanes::new(hooks), Dice::new([1; 16]));
            Play { lanes, dice }
        }

        fn next(&mut self, seconds: u64) -> Option<(usize, u64)> {
            let id = self.lanes.next_ready(at(seconds).moment)?;
            Some((id.hook, self.lanes.front(id).expect("a letter").id))
        }

        fn settle(&mut self, hook_index: usize, arrived: bool, seconds: u64) -> Option<Fate> {
            let (hook, lane) = (hook_index, 0);
            let id = LaneId { hook, lane };
            let dice = &mut self.dice;
            self.lanes
                .settle(id, &self::hook(), arrived, dice, at(seconds))
        }
    }

    #[test]
    fn letters_of_a_lane_go_one_after_the_other() {
        let mut play = Play::new(1);
        play.lanes.put(0, letter(1, 0));
        play.lanes.put(0, letter(2, 0));
        assert_eq!(play.next(0), Some((0, 1)));
        assert_eq!(play.next(0), None);
        assert_eq!(play.settle(0, true, 0), Some(Fate::Settled));
        assert_eq!(play.next(0), Some((0, 2)));
        assert_eq!(play.lanes.waiting(), 1);
    }

    #[test]
    fn a_failing_endpoint_delays_nobody_else() {
        let mut play = Play::new(2);
        play.lanes.put(0, letter(1, 0));
        play.lanes.put(0, letter(2, 1));
        play.lanes.put(1, letter(3, 0));
        assert_eq!(play.next(0), Some((0, 1)));
        assert_eq!(play.settle(0, false, 0), Some(Fate::Again));
        assert_eq!(play.next(0), Some((0, 2)), "nor its own other lane");
        assert_eq!(play.next(0), Some((1, 3)));
        assert_eq!(play.next(0), None);
        assert_eq!(play.next(1), Some((0, 1)), "and again after a second");
    }

    #[test]
    fn a_letter_is_tried_for_five_minutes_and_at_least_once() {
        let mut play = Play::new(1);
        play.lanes.put(0, letter(1, 0));
        let (mut seconds, mut attempts) = (0, 0);
        loop {
            seconds += 1;
            if play.next(seconds).is_none() {
                continue;
            }
            attempts += 1;
            match play.settle(0, false, seconds) {
                Some(Fate::GivenUp) => break,
                fate => assert_eq!(fate, Some(Fate::Again)),
            }
        }
        assert!((300..=361).contains(&seconds), "{seconds}");
        assert!((8..=20).contains(&attempts), "{attempts}");
        play.lanes.put(0, letter(2, 0));
        let at = play.lanes.deadline().expect("a wait");
        assert_eq!(play.next(at.as_micros() / 1_000_000 + 1), Some((0, 2)));
        assert_eq!(play.settle(0, false, 9999), Some(Fate::GivenUp));
        assert_eq!((play.lanes.waiting(), play.lanes.deadline()), (0, None));
    }

    #[test]
    fn an_endpoint_has_room_for_so_much() {
        let mut lanes = Lanes::new(2);
        assert!(!lanes.has_room(0, BYTES_MAX + 1));
        for id in 0..LETTERS_MAX {
            assert!(lanes.has_room(0, 2));
            lanes.put(0, letter(id as u64, (id % 4) as u8));
        }
        assert!(!lanes.has_room(0, 0));
        assert!(lanes.has_room(1, 0));
    }
}
