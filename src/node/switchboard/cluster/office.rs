//! Which server tells the webhooks of a cluster, and what its courier remembers, which stands in
//! Redis for a successor. It does not know what a letter is.
//!
//! Invariants. The office is held as long as the lease of whoever holds it; every change of memory is
//! fenced by both. A courier is told what happens only by who holds the office, and begins with what
//! stands in Redis, unless nothing does.

use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::cluster::{Asked, Cluster};
use crate::wire::cluster::{Script, ServerId};
use crate::wire::courier_bus::{Entry, Report};
use crate::wire::resp::Value;

/// What is asked for at once of those who are told to be there, and of letters, which are long.
const TOLD_AT_ONCE: &str = "1000";
const LETTERS_AT_ONCE: &str = "10";

/// See the file's head.
#[derive(Default)]
pub(super) struct Office {
    /// This server tells.
    pub(super) held: bool,
    /// Whom Redis named last.
    seen: Option<ServerId>,
    /// Since when it has named nobody.
    vacant_since: Option<Moment>,
    /// What was told does not stand in Redis, or not all of it.
    blank: bool,
    /// When the lease ends if it is not renewed, in milliseconds since 1970.
    until_ms: u64,
}

/// The parts of the courier's memory, in the order in which they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Heard,
    Told,
    Letters,
}

impl Cluster {
    /// For the script: whether this server may become the teller. Where nobody is named Redis has
    /// lost its data, or is new. Then the former teller goes first: it knows what was told.
    pub(super) fn stance(&self, now: Now) -> &'static [u8] {
        let office = &self.office;
        let was_other = office.seen.is_some_and(|it| it.life != self.server.life);
        let since = office.vacant_since;
        let is_patient = since.is_none_or(|since| now.moment.since(since) < self.options.lease);
        match () {
            () if self.apps.is_empty() => b"0",
            () if was_other && is_patient => b"1",
            () => b"2",
        }
    }

    fn part_key(&self, part: Part) -> String {
        match part {
            Part::Heard => self.names.heard(),
            Part::Told => self.names.told(),
            Part::Letters => self.names.letters(),
        }
    }
}

impl Switchboard {
    /// The lease is renewed, and Redis named the teller.
    pub(super) fn see_teller(
        &mut self,
        (teller, before): (Option<ServerId>, Option<ServerId>),
        until_ms: u64,
        now: Now,
    ) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (office, server) = (&mut cluster.office, cluster.server);
        office.vacant_since = match teller {
            None => office.vacant_since.or(Some(now.moment)),
            Some(_) => None,
        };
        office.seen = teller.or(office.seen);
        if teller == Some(server) {
            office.until_ms = until_ms;
            office.blank |= before.is_none();
            match office.held {
                true => self.license_courier(until_ms),
                false => self.take_office(now),
            }
        } else if office.held {
            self.lose_redis("another server tells the webhooks", now);
        } else if teller.is_some() {
            office.blank = false;
            self.dismiss_courier();
        }
    }

    fn take_office(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.office.held = true;
        cluster.whole = false;
        self.counters.cluster_teller = 1;
        log::info!("tells the webhooks of the cluster");
        self.follow_apps(now);
        self.ask_news(now);
        self.engage_courier(now);
    }

    /// Redis is away, and so is the office.
    pub(super) fn leave_office(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.office.vacant_since = None;
        if std::mem::take(&mut cluster.office.held) {
            self.counters.cluster_teller = 0;
            self.suspend_courier(now);
        }
    }

    /// Whether what the courier remembers stands in Redis, and until when it may send. `None` on one
    /// machine.
    pub(in crate::node::switchboard) fn terms_of_office(&self) -> Option<(bool, u64)> {
        let office = self.cluster.as_ref().map(|it| &it.office)?;
        Some((!office.blank, office.until_ms))
    }

    /// Reads what the courier remembers, for the one at this link.
    pub(in crate::node::switchboard) fn read_memory(&mut self, courier: ConnId, now: Now) {
        self.read_part(courier, Part::Heard, "0", now);
    }

    fn read_part(&mut self, courier: ConnId, part: Part, cursor: &str, now: Now) {
        let Some(key) = self.cluster.as_ref().map(|it| it.part_key(part)) else {
            return;
        };
        let about = Asked::Memory { courier, part };
        let command: &[&str] = match part {
            Part::Heard => &["GET", &key],
            Part::Told => &["SSCAN", &key, cursor, "COUNT", TOLD_AT_ONCE],
            Part::Letters => &["HSCAN", &key, cursor, "COUNT", LETTERS_AT_ONCE],
        };
        self.ask_redis(command, about, now);
    }

    pub(super) fn take_memory(&mut self, courier: ConnId, part: Part, value: &Value<'_>, now: Now) {
        let (cursor, entries) = match (part, value.list()) {
            (Part::Heard, _) => ("0", heard(value).into_iter().collect()),
            (Part::Told, [cursor, page]) => {
                let told = page.list().iter().filter_map(Value::text).map(told);
                (cursor.text().unwrap_or("0"), told.collect())
            }
            (Part::Letters, [cursor, page]) => {
                let pairs = page.list().chunks_exact(2).filter_map(letter);
                // One by one, since each may be as long as a message can be.
                for entry in pairs {
                    let entries = vec![entry];
                    self.tell_courier(courier, &Report::Given { entries });
                }
                (cursor.text().unwrap_or("0"), Vec::new())
            }
            _ => ("0", Vec::new()),
        };
        if !entries.is_empty() {
            self.tell_courier(courier, &Report::Given { entries });
        }
        let next = match part {
            _ if cursor != "0" => Some(part),
            Part::Heard => Some(Part::Told),
            Part::Told => Some(Part::Letters),
            Part::Letters => None,
        };
        match next {
            Some(next) => self.read_part(courier, next, cursor, now),
            None => self.tell_courier(courier, &Report::GivenAll),
        }
    }

    /// The courier remembers this from now on.
    pub(in crate::node::switchboard) fn keep_memory(
        &mut self,
        courier: ConnId,
        entries: &[Entry<'_>],
        whole: bool,
        now: Now,
    ) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let server = cluster.server.to_string();
        let words = entries.iter().flat_map(words);
        let words: Vec<Vec<u8>> = words.collect();
        let mut parts = vec![server.as_bytes()];
        parts.extend(words.iter().map(Vec::as_slice));
        self.run_script(Script::Keep, &parts, Asked::Kept { courier, whole }, now);
    }

    pub(super) fn memory_kept(&mut self, courier: ConnId, whole: bool) {
        if let Some(cluster) = &mut self.cluster
            && whole
        {
            cluster.office.blank = false;
        }
        self.tell_courier(courier, &Report::Kept);
    }
}

/// A blank divides a channel's key, which has none, from a user of it.
fn told(text: &str) -> Entry<'_> {
    let (channel, user_id) = match text.split_once(' ') {
        Some((channel, user_id)) => (channel, Some(user_id)),
        None => (text, None),
    };
    Entry::Told { channel, user_id }
}

fn letter<'a>(pair: &[Value<'a>]) -> Option<Entry<'a>> {
    let (id, letter) = (pair[0].text()?.parse().ok()?, pair[1].bytes()?);
    Some(Entry::Queued { id, letter })
}

fn heard<'a>(value: &Value<'a>) -> Option<Entry<'a>> {
    let (life, sequence) = value.text()?.split_once(' ')?;
    let (life, sequence) = (life.parse().ok()?, sequence.parse().ok()?);
    Some(Entry::Heard { life, sequence })
}

/// What the script takes for one entry.
fn words(entry: &Entry<'_>) -> [Vec<u8>; 3] {
    let whom = |channel: &str, user_id: Option<&str>| match user_id {
        Some(user_id) => format!("{channel} {user_id}"),
        None => channel.to_string(),
    };
    let (word, about, letter) = match entry {
        Entry::Anew => ("A", String::new(), &[][..]),
        Entry::Told { channel, user_id } => ("T", whom(channel, *user_id), &[][..]),
        Entry::Untold { channel, user_id } => ("U", whom(channel, *user_id), &[][..]),
        Entry::Queued { id, letter } => ("Q", id.to_string(), *letter),
        Entry::Settled { id } => ("S", id.to_string(), &[][..]),
        Entry::Heard { life, sequence } => ("H", format!("{life} {sequence}"), &[][..]),
    };
    [word.into(), about.into_bytes(), letter.to_vec()]
}
