//! The servers that a service connects to: which of them stand, and when one that is to be kept is
//! dialled again. Decides when; dials nothing itself. Bound: what the embedding program asks for,
//! and `limits.dials` of them under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::{Moment, Now};
use crate::wire::target::Target;

/// Names one server that was asked for, through all connections to it; never used again for
/// another in the same reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote(u64);

/// The first pause before dialling again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A connection that stood so long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(10);

enum State {
    Dialling(DialId),
    Open(ConnId, Moment),
    /// To be dialled at this time.
    Resting(Moment),
}

struct Kept {
    target: Target,
    state: State,
    /// Of a server that is to be dialled whenever there is no connection.
    again: Option<Backoff>,
}

/// What giving one up leaves to do.
pub(super) enum Left {
    HangUp(DialId),
    Close(ConnId),
}

#[derive(Default)]
pub(super) struct Remotes {
    all: BTreeMap<Remote, Kept>,
    dials: BTreeMap<DialId, Remote>,
    due: BTreeSet<(Moment, Remote)>,
    last: u64,
}

impl Remotes {
    /// Notes a server that is being dialled; `keep`: for ever.
    pub fn add(&mut self, target: &Target, dial: DialId, keep: bool) -> Remote {
        self.last += 1;
        let remote = Remote(self.last);
        let kept = Kept {
            target: target.clone(),
            state: State::Dialling(dial),
            again: keep.then(|| Backoff::new(PAUSES.0, PAUSES.1)),
        };
        self.all.insert(remote, kept);
        self.dials.insert(dial, remote);
        remote
    }

    /// The connection to a server, if it stands.
    pub fn conn(&self, remote: Remote) -> Option<ConnId> {
        match self.all.get(&remote)?.state {
            State::Open(conn, _) => Some(conn),
            _ => None,
        }
    }

    /// The dial succeeded. `None` when nobody wants the connection any more.
    pub fn reached(&mut self, dial: DialId, conn: ConnId, now: Now) -> Option<Remote> {
        let remote = self.dials.remove(&dial)?;
        let kept = self.all.get_mut(&remote)?;
        kept.state = State::Open(conn, now.moment);
        Some(remote)
    }

    /// The dial failed; the server that was meant, unless nobody asks for it any more.
    pub fn unreached(&mut self, dial: DialId, dice: &mut Dice, now: Now) -> Option<Remote> {
        let remote = self.dials.remove(&dial)?;
        self.all.get(&remote)?;
        self.rest(remote, dice, now);
        Some(remote)
    }

    /// The connection ended.
    pub fn ended(&mut self, remote: Remote, dice: &mut Dice, now: Now) {
        let Some(kept) = self.all.get_mut(&remote) else {
            return;
        };
        if let (State::Open(_, since), Some(again)) = (&kept.state, &mut kept.again)
            && now.moment.since(*since) >= GOOD
        {
            again.reset();
        }
        self.rest(remote, dice, now);
    }

    /// Waits for the next time, or forgets a server that is not to be kept.
    fn rest(&mut self, remote: Remote, dice: &mut Dice, now: Now) {
        let Some(kept) = self.all.get_mut(&remote) else {
            return;
        };
        match &mut kept.again {
            Some(again) => {
                let at = now.moment + again.next(dice);
                kept.state = State::Resting(at);
                self.due.insert((at, remote));
            }
            None => {
                self.all.remove(&remote);
            }
        }
    }

    /// Nobody wants the server any more.
    pub fn forget(&mut self, remote: Remote) -> Option<Left> {
        match self.all.remove(&remote)?.state {
            State::Dialling(dial) => Some(Left::HangUp(dial)),
            State::Open(conn, _) => Some(Left::Close(conn)),
            State::Resting(at) => {
                self.due.remove(&(at, remote));
                None
            }
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next server to be dialled again by `dial`; whether there was one.
    pub fn redial(&mut self, now: Now, dial: impl FnOnce(&Target) -> DialId) -> bool {
        let Some(&(at, remote)) = self.due.first().filter(|(at, _)| *at <= now.moment) else {
            return false;
        };
        self.due.remove(&(at, remote));
        if let Some(kept) = self.all.get_mut(&remote) {
            let dial = dial(&kept.target);
            kept.state = State::Dialling(dial);
            self.dials.insert(dial, remote);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            moment: Moment::from_micros(ms * 1000),
            unix_ms: 0,
        }
    }

    fn target() -> Target {
        Target::parse("tcp://127.0.0.1:9").expect("valid")
    }

    const CONN: ConnId = ConnId {
        slot: 1,
        generation: 1,
    };

    #[test]
    fn a_server_that_is_kept_is_dialled_again_with_growing_pauses() {
        let (mut remotes, mut dice) = (Remotes::default(), Dice::new([1; 16]));
        let remote = remotes.add(&target(), DialId(1), true);
        let mut pauses = Vec::new();
        let mut time = 0;
        for dial in 1..=6 {
            let told = remotes.unreached(DialId(dial), &mut dice, at(time));
            assert_eq!(told, Some(remote));
            let due = remotes.deadline().expect("it rests").as_micros() / 1000 + 1;
            pauses.push(due - time);
            time = due;
            assert!(remotes.redial(at(time), |_| DialId(dial + 1)));
            assert!(!remotes.redial(at(time), |_| panic!("once")));
        }
        assert!(pauses[5] > 4 * pauses[0], "{pauses:?}");
        assert_eq!(remotes.reached(DialId(7), CONN, at(time)), Some(remote));
        assert_eq!(remotes.conn(remote), Some(CONN));
        // It stood long enough to be called good.
        time += 20_000;
        remotes.ended(remote, &mut dice, at(time));
        let due = remotes.deadline().expect("it rests").as_micros() / 1000;
        assert!(due - time <= 2 * pauses[0].max(100), "{due} {time}");
    }

    #[test]
    fn one_that_is_not_kept_is_forgotten_with_its_connection() {
        let (mut remotes, mut dice) = (Remotes::default(), Dice::new([1; 16]));
        let remote = remotes.add(&target(), DialId(1), false);
        assert_eq!(remotes.reached(DialId(1), CONN, at(0)), Some(remote));
        remotes.ended(remote, &mut dice, at(1));
        assert_eq!(remotes.deadline(), None);
        assert!(remotes.all.is_empty() && remotes.dials.is_empty());
    }

    #[test]
    fn nobody_hears_of_a_server_that_was_given_up() {
        let (mut remotes, mut dice) = (Remotes::default(), Dice::new([1; 16]));
        let remote = remotes.add(&target(), DialId(1), true);
        assert!(matches!(
            remotes.forget(remote),
            Some(Left::HangUp(DialId(1)))
        ));
        assert_eq!(remotes.unreached(DialId(1), &mut dice, at(0)), None);
        let remote = remotes.add(&target(), DialId(2), true);
        remotes.unreached(DialId(2), &mut dice, at(0));
        assert!(remotes.forget(remote).is_none());
        assert_eq!(remotes.deadline(), None);
        assert!(remotes.dials.is_empty() && remotes.due.is_empty());
    }
}
