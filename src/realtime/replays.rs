//! Requests that were taken and are good for one time, over all workers. Does not know what they
//! asked for.
//!
//! Invariant: a request is remembered for as long as its signature would be believed, whatever
//! else comes; when there is no room for one more, that one is refused.

use std::collections::BTreeSet;

use crate::wire::bus::{Once, RefusalReason};

/// Requests that are remembered at a time. One takes some 150 bytes.
const REQUESTS_MAX: usize = 500_000;

/// See the file's head. By when they may be forgotten, in seconds since 1970, and signature: the
/// same request has the same time.
#[derive(Default)]
pub struct Replays(BTreeSet<(i64, String)>);

impl Replays {
    /// Whether the request may be taken. `unix_seconds`: now.
    pub fn check(&mut self, once: &Once, unix_seconds: i64) -> Result<(), RefusalReason> {
        while self.0.first().is_some_and(|(end, _)| *end <= unix_seconds) {
            self.0.pop_first();
        }
        if self.0.contains(&(once.until, once.signature.clone())) {
            return Err(RefusalReason::Repeated);
        }
        match self.0.len() < REQUESTS_MAX {
            true => Ok(()),
            false => Err(RefusalReason::Congested),
        }
    }

    /// It was taken.
    pub fn remember(&mut self, once: &Once) {
        self.0.insert((once.until, once.signature.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(signature: &str, until: i64) -> Once {
        Once {
            signature: signature.into(),
            until,
        }
    }

    #[test]
    fn a_request_is_taken_once_while_its_signature_is_good() {
        let mut replays = Replays::default();
        let request = once("a", 600);
        assert_eq!(replays.check(&request, 0), Ok(()));
        assert_eq!(replays.check(&request, 0), Ok(()), "it was not taken");
        replays.remember(&request);
        assert_eq!(replays.check(&request, 599), Err(RefusalReason::Repeated));
        assert_eq!(replays.check(&once("b", 600), 599), Ok(()));
        // From here on its timestamp is too old.
        assert_eq!(replays.check(&request, 600), Ok(()));
        assert!(replays.0.is_empty());
    }

    #[test]
    fn when_full_nothing_is_forgotten_and_new_ones_are_refused() {
        let mut replays = Replays::default();
        for n in 0..REQUESTS_MAX {
            replays.remember(&once(&n.to_string(), 600));
        }
        let next = once("next", 900);
        assert_eq!(replays.check(&next, 0), Err(RefusalReason::Congested));
        assert_eq!(
            replays.check(&once("7", 600), 0),
            Err(RefusalReason::Repeated)
        );
        assert_eq!(replays.check(&next, 600), Ok(()));
    }
}
