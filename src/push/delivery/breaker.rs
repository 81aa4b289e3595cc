//! When a credential is left alone: after many failures in a row, after its provider said that it is
//! broken or asked for rest, and how it is tried again, with one request. Opens nothing and counts by
//! being told. Invariant: while it is open nothing is sent; then one request at a time, until one
//! of them says that all is well.

use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::now::Moment;

/// So many failures in a row open it.
const FAILURES: u32 = 10;
/// How long it stays open then; doubled as long as probes fail.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);
/// The same where the credential is at fault: a person has to do something.
const FIRST_PAUSE: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// See the file's head.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    rests: Backoff,
    pauses: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// With so many failures in a row.
    Closed(u32),
    Open(Moment, Why),
    /// `true`: a request is under way.
    Probing(bool, Why),
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The provider asked for it.
    Asked,
    Failures,
    /// It refuses the credential.
    Credential,
}

impl Why {
    pub fn word(self) -> &'static str {
        match self {
            Why::Asked => "the provider asked to wait",
            Why::Failures => "the provider fails",
            Why::Credential => "the provider refuses the credential",
        }
    }
}

/// How many requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Any,
    One,
    /// Before this; `None`: before the answer to the probe.
    Not(Option<Moment>),
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            state: State::Closed(0),
            rests: Backoff::new(FIRST_REST, LONGEST_REST),
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }
}

impl Breaker {
    pub fn leave(&mut self, now: Moment) -> Leave {
        match self.state {
            State::Closed(_) => Leave::Any,
            State::Open(until, _) if until > now => Leave::Not(Some(until)),
            State::Open(_, Why::Asked) => {
                self.state = State::Closed(0);
                Leave::Any
            }
            State::Open(_, why) => {
                self.state = State::Probing(false, why);
                Leave::One
            }
            State::Probing(false, _) => Leave::One,
            State::Probing(true, _) => Leave::Not(None),
        }
    }

    /// A request was sent.
    pub fn sent(&mut self) {
        if let State::Probing(_, why) = self.state {
            self.state = State::Probing(true, why);
        }
    }

    /// The provider did its work, whatever it thinks of the notification. Whether that ends a rest.
    pub fn healthy(&mut self) -> bool {
        let ends = matches!(self.state, State::Probing(..));
        if ends || matches!(self.state, State::Closed(_)) {
            self.state = State::Closed(0);
            self.rests.reset();
            self.pauses.reset();
        }
        ends
    }

    /// Whether it opens by that.
    pub fn failed(&mut self, dice: &mut Dice, now: Moment) -> bool {
        match self.state {
            State::Closed(failures) if failures + 1 < FAILURES => {
                self.state = State::Closed(failures + 1);
                false
            }
            State::Open(..) => false,
            State::Closed(_) | State::Probing(..) => {
                let until = now + self.rests.next(dice);
                self.state = State::Open(until, Why::Failures);
                true
            }
        }
    }

    /// The credential is refused: whether it opens by that.
    pub fn broken(&mut self, dice: &mut Dice, now: Moment) -> bool {
        if let State::Open(_, Why::Credential) = self.state {
            return false;
        }
        let until = now + self.pauses.next(dice);
        self.state = State::Open(until, Why::Credential);
        true
    }

    /// The provider asks for rest.
    pub fn asked_to_wait(&mut self, wait: Duration, now: Moment) {
        let until = now + wait;
        match self.state {
            State::Open(before, why) => self.state = State::Open(before.max(until), why),
            _ => self.state = State::Open(until, Why::Asked),
        }
    }

    /// The probe came to nothing, neither good nor bad.
    pub fn probe_lost(&mut self) {
        if let State::Probing(true, why) = self.state {
            self.state = State::Probing(false, why);
        }
    }

    /// Why nothing or little is sent; `None` if all is well.
    pub fn trouble(&self) -> Option<Why> {
        match self.state {
            State::Closed(_) => None,
            State::Open(_, why) | State::Probing(_, why) => Some(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn many_failures_in_a_row_open_it_and_one_probe_closes_it() {
        let (mut breaker, mut dice) = (Breaker::default(), Dice::new([1; 16]));
        for _ in 0..2 {
            for _ in 1..FAILURES {
                assert!(!breaker.failed(&mut dice, at(0)));
            }
            breaker.healthy();
        }
        for _ in 1..FAILURES {
            breaker.failed(&mut dice, at(0));
        }
        assert!(breaker.failed(&mut dice, at(0)));
        assert!(!breaker.failed(&mut dice, at(0)), "it is open");
        assert!(matches!(breaker.leave(at(1)), Leave::Not(Some(_))));
        assert_eq!(breaker.leave(at(5)), Leave::One);
        breaker.sent();
        assert_eq!(breaker.leave(at(5)), Leave::Not(None));
        assert!(breaker.failed(&mut dice, at(6)), "the probe fails");
        assert!(matches!(breaker.leave(at(8)), Leave::Not(Some(_))));
        assert_eq!(breaker.leave(at(16)), Leave::One);
        breaker.sent();
        assert!(breaker.healthy());
        assert_eq!(breaker.leave(at(16)), Leave::Any);
    }

    #[test]
    fn a_refused_credential_is_probed_after_a_minute_or_more() {
        let (mut breaker, mut dice) = (Breaker::default(), Dice::new([1; 16]));
        assert!(breaker.broken(&mut dice, at(0)));
        assert!(!breaker.broken(&mut dice, at(0)), "told once");
        assert_eq!(breaker.trouble(), Some(Why::Credential));
        let Leave::Not(Some(until)) = breaker.leave(at(0)) else {
            panic!("it is open");
        };
        assert!(until >= at(60), "{until:?}");
        assert!(!breaker.healthy(), "a late answer of before says nothing");
        assert_eq!(breaker.leave(at(121)), Leave::One);
        breaker.sent();
        breaker.probe_lost();
        assert_eq!(breaker.leave(at(121)), Leave::One);
        assert!(breaker.healthy());
        assert_eq!(breaker.trouble(), None);
    }

    #[test]
    fn a_rest_that_was_asked_for_needs_no_probe() {
        let mut breaker = Breaker::default();
        breaker.asked_to_wait(Duration::from_secs(9), at(1));
        breaker.asked_to_wait(Duration::from_secs(3), at(1));
        assert_eq!(breaker.leave(at(9)), Leave::Not(Some(at(10))));
        assert_eq!(breaker.leave(at(10)), Leave::Any);
    }
}
