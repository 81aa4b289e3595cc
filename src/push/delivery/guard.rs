//! Whether so many tokens of a credential are called wrong that it is rather ours that is: the wrong
//! environment, the wrong project, a provider in trouble. Then no device is retired because of it.
//! Counts over the last ten minutes, in two halves; knows no device.

use std::time::Duration;

use crate::base::now::Moment;

const HALF: Duration = Duration::from_secs(300);
/// Fewer answers say nothing.
const ANSWERS_MIN: u64 = 200;

/// See the file's head.
#[derive(Debug)]
pub struct Guard {
    /// Of so many answers in a hundred it stops; 100: never.
    percent: u64,
    began: Moment,
    now: Half,
    before: Half,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    answers: u64,
    wrong: u64,
}

/// What changed by an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardNews {
    Nothing,
    Stops,
    GoesOn,
}

impl Guard {
    pub fn new(percent: u32) -> Guard {
        Guard {
            percent: u64::from(percent),
            began: Moment::default(),
            now: Half::default(),
            before: Half::default(),
            stopped: false,
        }
    }

    /// An answer about a token came.
    pub fn answered(&mut self, is_wrong: bool, now: Moment) -> GuardNews {
        if now >= self.began + HALF {
            let is_next = now < self.began + HALF + HALF;
            self.before = if is_next { self.now } else { Half::default() };
            self.now = Half::default();
            self.began = now;
        }
        self.now.answers += 1;
        self.now.wrong += u64::from(is_wrong);
        let answers = self.now.answers + self.before.answers;
        let wrong = self.now.wrong + self.before.wrong;
        let stops = answers >= ANSWERS_MIN && wrong * 100 > answers * self.percent;
        match (std::mem::replace(&mut self.stopped, stops), stops) {
            (false, true) => GuardNews::Stops,
            (true, false) => GuardNews::GoesOn,
            _ => GuardNews::Nothing,
        }
    }

    /// Whether devices may be retired.
    pub fn retires(&self) -> bool {
        !self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_when_too_many_of_enough_are_wrong_and_goes_on_later() {
        let mut guard = Guard::new(20);
        let at = |seconds| Moment::default() + Duration::from_secs(seconds);
        for nth in 0..199 {
            assert_eq!(guard.answered(nth % 2 == 0, at(1)), GuardNews::Nothing);
        }
        assert!(guard.retires(), "200 are the least");
        assert_eq!(guard.answered(true, at(1)), GuardNews::Stops);
        assert!(!guard.retires());
        assert_eq!(guard.answered(false, at(2)), GuardNews::Nothing);
        assert_eq!(guard.answered(false, at(303)), GuardNews::Nothing);
        assert!(!guard.retires(), "the half before counts");
        assert_eq!(guard.answered(false, at(903)), GuardNews::GoesOn);
    }

    #[test]
    fn a_share_that_is_allowed_is_no_alarm() {
        let mut guard = Guard::new(20);
        for nth in 0..10_000 {
            guard.answered(nth % 5 == 4, Moment::default());
            assert!(guard.retires() || nth < 250, "{nth}");
        }
        assert!(guard.retires());
        let mut off = Guard::new(100);
        for _ in 0..1000 {
            assert_eq!(off.answered(true, Moment::default()), GuardNews::Nothing);
        }
    }
}
