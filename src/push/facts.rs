//! What must survive a crash, and the contract with whoever keeps it: `StoreRequest` → `StoreReply`.
//! Does not know how it is kept. Invariant: all facts of one commit are kept, or none.

use std::sync::Arc;

use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::jobs::{Job, JobTicket, Outcome};
use crate::push::truth::Subject;
use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// The kind of an encoded letter; another for every change of it.
const LETTER: u8 = 1;

/// One request to an endpoint, as it will be sent however often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Unique and rising.
    pub id: u64,
    pub app_id: String,
    /// As configured; names the endpoint within its app.
    pub url: String,
    /// Which of the endpoint's lanes; letters of one lane go out one after the other.
    pub lane: u8,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    pub body: String,
}

impl Letter {
    /// As it stands in Redis, where servers of several versions may read it.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(LETTER);
        to.u64(self.id).text(&self.app_id).text(&self.url);
        to.u8(self.lane).u64(self.time_ms).text(&self.body);
        to.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Letter, Garbled> {
        let (LETTER, mut from) = Reader::new(bytes)? else {
            return Err(Garbled);
        };
        let letter = Letter {
            id: from.u64()?,
            app_id: from.text()?.to_string(),
            url: from.text()?.to_string(),
            lane: from.u8()?,
            time_ms: from.u64()?,
            body: from.text()?.to_string(),
        };
        from.end()?;
        Ok(letter)
    }
}

/// One thing to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Nothing that was kept before counts.
    Anew,
    /// Endpoints were, or are about to be, told that the subject of this channel key is there.
    Told(String, Subject),
    /// The same that it is gone.
    Untold(String, Subject),
    /// To be delivered.
    Queued(Arc<Letter>),
    /// Delivered or given up.
    Settled(u64),
    /// What this life of the switchboard has reported up to this number is kept.
    Heard { life: u64, sequence: u64 },
}

#[derive(Clone, Debug, PartialEq)]
pub enum StoreRequest {
    /// Everything that was kept. Always first, and once.
    Load,
    Commit(Work),
}

/// What is to be done in one transaction: facts are kept, then jobs are done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    pub facts: Arc<Vec<Fact>>,
    pub jobs: Arc<Vec<(JobTicket, Job)>>,
}

/// Everything that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub told: Vec<(String, Subject)>,
    /// By rising id.
    pub letters: Vec<Letter>,
    /// Life of the switchboard and number of its last report.
    pub heard: Option<(u64, u64)>,
    /// The keys without which some device's token does not open.
    pub token_keys: Vec<(KeyId, Fingerprint)>,
    /// Whether there are notifications, of which something may be due.
    pub has_notifications: bool,
    /// Whether other couriers put devices and notifications there, too.
    pub is_shared: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StoreReply {
    Loaded(Memory),
    /// On the disk, as far as the system knows; with the outcome of each job.
    Committed(Vec<(JobTicket, Outcome)>),
    /// Nothing of the request was done; why, for people.
    Failed(String),
}

/// Whoever keeps it. One request is under way at a time.
pub trait Store {
    fn ask(&mut self, request: StoreRequest);

    /// The next reply, if there is one.
    fn next(&mut self) -> Option<StoreReply>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_survives_the_trip_and_no_part_of_one_is_a_letter() {
        let letter = Letter {
            id: 7,
            app_id: "a".into(),
            url: "https://b/".into(),
            lane: 3,
            time_ms: 9,
            body: "{}".into(),
        };
        let bytes = letter.encode();
        assert_eq!(Letter::decode(&bytes), Ok(letter));
        for cut in 0..bytes.len() {
            assert!(Letter::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes;
        newer[4] += 1;
        assert!(Letter::decode(&newer).is_err());
    }
}
