//! What endpoints were told about channels and members, against what is so. Whoever comes is told
//! at once; whoever goes is told when a while has passed in which it did not return, so that a
//! client that reconnects is no news. Owns the difference; does not know whom it is told to.
//!
//! Invariants: for one subject, coming and going are told in turns, beginning with coming. Reports
//! may be repeated, and a snapshot may replace any number of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::now::Moment;

/// How long to wait for a return (Pusher: up to three seconds).
pub const WINDOW: Duration = Duration::from_secs(3);

/// Who is there. Ordered so that of those who go together members go before the channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A user of a presence channel, by id.
    Member(String),
    /// The channel itself: it has subscribers.
    Channel,
}

/// A channel's key, and who in it.
pub type Whom = (String, Subject);

/// See the file's head. As large as what is there: one entry for each channel and each member.
#[derive(Debug, Default)]
pub struct Truth {
    told: BTreeSet<Whom>,
    /// Told to be there, and gone since; until when it may return.
    leaving: BTreeMap<Whom, Moment>,
    due: BTreeSet<(Moment, Whom)>,
    /// While a snapshot comes: who is told to be there and was not in it yet.
    missing: Option<BTreeSet<Whom>>,
}

impl Truth {
    pub fn new(told: Vec<Whom>) -> Truth {
        Truth {
            told: told.into_iter().collect(),
            ..Truth::default()
        }
    }

    /// Who is told to be there.
    pub fn told(&self) -> impl Iterator<Item = &Whom> {
        self.told.iter()
    }

    /// The subject is there; whether that is to be told.
    pub fn here(&mut self, key: &str, subject: Subject) -> bool {
        let whom = (key.to_string(), subject);
        if let Some(missing) = &mut self.missing {
            missing.remove(&whom);
        }
        if let Some(at) = self.leaving.remove(&whom) {
            self.due.remove(&(at, whom));
            return false;
        }
        self.told.insert(whom)
    }

    /// The subject is not there any more.
    pub fn gone(&mut self, key: &str, subject: Subject, now: Moment) {
        let whom = (key.to_string(), subject);
        if self.told.contains(&whom) && !self.leaving.contains_key(&whom) {
            let at = now + WINDOW;
            self.leaving.insert(whom.clone(), at);
            self.due.insert((at, whom));
        }
    }

    /// From here on everybody is named who is there.
    pub fn begin_snapshot(&mut self) {
        self.missing = Some(self.told.clone());
    }

    /// Everybody was named.
    pub fn end_snapshot(&mut self, now: Moment) {
        for (key, subject) in self.missing.take().unwrap_or_default() {
            self.gone(&key, subject, now);
        }
    }

    /// A subject that did not return; to be told.
    pub fn next_due(&mut self, now: Moment) -> Option<Whom> {
        let first = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.due.remove(&first);
        self.leaving.remove(&first.1);
        self.told.remove(&first.1);
        Some(first.1)
    }

    /// When `next_due` has something.
    pub fn deadline(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    fn member(id: &str) -> Subject {
        Subject::Member(id.to_string())
    }

    #[test]
    fn a_return_within_the_window_is_no_news_and_one_after_it_is() {
        let mut truth = Truth::default();
        assert!(truth.here("a/x", Subject::Channel));
        assert!(!truth.here("a/x", Subject::Channel), "told once");
        truth.gone("a/x", Subject::Channel, at(0));
        assert_eq!(truth.next_due(at(2999)), None);
        assert!(!truth.here("a/x", Subject::Channel));
        assert_eq!((truth.next_due(at(9000)), truth.deadline()), (None, None));
        truth.gone("a/x", Subject::Channel, at(10_000));
        // Said again, it is not gone again.
        truth.gone("a/x", Subject::Channel, at(12_000));
        let whom = ("a/x".to_string(), Subject::Channel);
        assert_eq!(truth.next_due(at(13_000)), Some(whom));
        assert!(truth.here("a/x", Subject::Channel));
    }

    #[test]
    fn members_go_before_their_channel() {
        let mut truth = Truth::default();
        for subject in [Subject::Channel, member("u")] {
            truth.here("a/presence-x", subject.clone());
            truth.gone("a/presence-x", subject, at(0));
        }
        let order = [truth.next_due(at(3000)), truth.next_due(at(3000))];
        let subjects = order.map(|whom| whom.expect("both are due").1);
        assert_eq!(subjects, [member("u"), Subject::Channel]);
    }

    #[test]
    fn a_snapshot_leaves_exactly_the_difference() {
        let told = ["stays", "went"].map(|id| ("a/presence-x".to_string(), member(id)));
        let mut truth = Truth::new(told.to_vec());
        truth.begin_snapshot();
        assert!(!truth.here("a/presence-x", member("stays")));
        assert!(truth.here("a/presence-x", member("came")));
        truth.end_snapshot(at(0));
        assert_eq!(truth.next_due(at(3000)), Some(told[1].clone()));
        assert_eq!(truth.next_due(at(99_000)), None);
    }

    #[test]
    fn what_was_never_told_cannot_go() {
        let mut truth = Truth::default();
        truth.gone("a/x", Subject::Channel, at(0));
        assert_eq!(truth.next_due(at(9000)), None);
    }
}
