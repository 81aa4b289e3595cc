//! The courier's memory where it stands twice: in its database, and in the cluster, which the
//! switchboard reaches. Over each link that comes to stand, the courier is given what stands in the cluster, and
//! that replaces what it has; or it is told that nothing does, and says all it has.
//!
//! Invariants. In a cluster nothing is sent that does not stand there, nor while no switchboard says
//! that this server tells. What was delivered meanwhile, by a request that was under way, is not sent
//! again when it is given back.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::courier::{Courier, Heard, Storing};
use crate::node::{Ending, Output};
use crate::push::facts::{Fact, Letter, Work};
use crate::push::jobs::{Job, JobTicket};
use crate::push::lanes::{LaneId, Lanes};
use crate::push::truth::{Subject, Truth};
use crate::wire::bus_codec::Garbled;
use crate::wire::courier_bus::{Entry, Receipt};

/// Entries of one frame, unless one alone is longer.
const PIECE_BYTES: usize = 256 * 1024;

/// What is specific to a cluster.
#[derive(Default)]
pub(super) struct Office {
    in_cluster: bool,
    /// Until when requests may be made.
    licence: Option<Moment>,
    /// All is to be kept there anew, with the next commit.
    anew: bool,
    /// Letters that are settled, which does not stand there yet. One for each lane at most while no
    /// switchboard is heard.
    settled: BTreeMap<u64, Arc<Letter>>,
    /// Stored here, and it is not known whether the cluster keeps it.
    unkept: Option<Batch>,
}

/// A switchboard that greeted and is not heard yet.
pub(super) struct Offer {
    pub(super) conn: ConnId,
    life: u64,
    /// What it gives as memory, and whether that is all.
    given: Option<(Given, bool)>,
}

#[derive(Default)]
struct Given {
    told: Vec<(String, Subject)>,
    /// By id, since Redis may name one twice while it is read.
    letters: BTreeMap<u64, Letter>,
    heard: Option<(u64, u64)>,
}

/// What is stored in one step.
pub(super) struct Batch {
    pub(super) facts: Arc<Vec<Fact>>,
    pub(super) jobs: Arc<Vec<(JobTicket, Job)>>,
    /// What webhooks are told with them, and is to be forgotten when the cluster keeps them.
    pub(super) news: Vec<u64>,
    /// Whether their letters wait for that; those that were given are in their lanes.
    pub(super) waits: bool,
    /// Frames that say what the cluster is to keep, one after the other.
    pub(super) pieces: VecDeque<Vec<u8>>,
}

impl Batch {
    /// Nothing that the cluster is to keep.
    pub(super) fn of_jobs(jobs: Arc<Vec<(JobTicket, Job)>>) -> Batch {
        Batch {
            facts: Arc::default(),
            jobs,
            news: Vec::new(),
            waits: false,
            pieces: VecDeque::new(),
        }
    }

    /// As the store is asked for it.
    pub(super) fn work(&self) -> Work {
        Work {
            facts: Arc::clone(&self.facts),
            jobs: Arc::clone(&self.jobs),
        }
    }
}

impl Office {
    pub(super) fn new(in_cluster: bool) -> Office {
        Office {
            in_cluster,
            ..Office::default()
        }
    }
}

impl Courier {
    pub(super) fn take_offer(&mut self, conn: ConnId, life: u64, given: bool) {
        self.leave_office();
        let given = given.then(|| (Given::default(), false));
        self.offer = Some(Offer { conn, life, given });
        self.take_up();
    }

    /// Nobody says any more that this server tells.
    pub(super) fn leave_office(&mut self) {
        self.switchboard = None;
        self.office.licence = None;
        match mem::replace(&mut self.storing, Storing::Idle) {
            Storing::Keeping(batch) => self.office.unkept = Some(batch),
            other => self.storing = other,
        }
    }

    /// A part of the memory that a switchboard gives.
    pub(super) fn take_given(&mut self, conn: ConnId, entries: Vec<Entry<'_>>) {
        let offer = self.offer.as_mut().filter(|offer| offer.conn == conn);
        let Some((given, _)) = offer.and_then(|offer| offer.given.as_mut()) else {
            return;
        };
        for entry in entries {
            match entry {
                Entry::Told { channel, user_id } => {
                    given.told.push((channel.to_string(), subject(user_id)));
                }
                Entry::Queued { id, letter } => match Letter::decode(letter) {
                    Ok(letter) => drop(given.letters.insert(id, letter)),
                    Err(Garbled) => log::error!("request {id} of a newer version is not made"),
                },
                Entry::Heard { life, sequence } => given.heard = Some((life, sequence)),
                Entry::Anew | Entry::Untold { .. } | Entry::Settled { .. } => {}
            }
        }
    }

    pub(super) fn take_given_all(&mut self, conn: ConnId) {
        if let Some(offer) = self.offer.as_mut().filter(|offer| offer.conn == conn)
            && let Some((_, is_all)) = &mut offer.given
        {
            *is_all = true;
        }
        self.take_up();
    }

    /// Requests may be made until then, in milliseconds since 1970.
    pub(super) fn take_licence(&mut self, until_ms: u64, now: Now) {
        let left = Duration::from_millis(until_ms.saturating_sub(now.unix_ms));
        self.office.licence = Some(now.moment + left);
    }

    pub(super) fn is_in_cluster(&self) -> bool {
        self.office.in_cluster
    }

    /// Whether somebody says what is so; on one machine, that can wait.
    pub(super) fn is_in_office(&self) -> bool {
        !self.office.in_cluster || self.switchboard.is_some()
    }

    /// Whether requests may be made at that time, as far as is known.
    pub(super) fn may_begin_at(&self, at: Moment) -> bool {
        let licensed = self.office.licence.is_some_and(|until| at < until);
        !self.office.in_cluster || (self.switchboard.is_some() && licensed)
    }

    pub(super) fn may_send(&mut self, now: Now) -> bool {
        // A licence that ran out is no reason to wake up.
        self.office.licence.take_if(|until| *until <= now.moment);
        self.may_begin_at(now.moment)
    }

    /// Hears the switchboard that greeted, as soon as memory can be replaced.
    pub(super) fn take_up(&mut self) {
        let in_cluster = self.office.in_cluster;
        let busy = matches!(self.storing, Storing::Busy(_)) && in_cluster;
        if busy || matches!(self.storing, Storing::Loading) {
            return;
        }
        let is_whole = |offer: &mut Offer| offer.given.as_ref().is_none_or(|(_, is_all)| *is_all);
        let Some(offer) = self.offer.take_if(is_whole) else {
            return;
        };
        match offer.given {
            Some((given, _)) if in_cluster => self.replace(given),
            None if in_cluster => self.begin_anew(),
            _ => {}
        }
        self.welcome(offer.conn, offer.life);
    }

    /// What stands in the cluster counts; what was stored here and does not stand there never did.
    fn replace(&mut self, given: Given) {
        let Given {
            told,
            letters,
            heard,
        } = given;
        let under_way = self.lanes.under_way();
        self.events.clear();
        // They come back when their lease ends.
        self.told_news();
        let told_facts = told.iter().map(|(key, who)| (key.clone(), who.clone()));
        let mut facts = vec![Fact::Anew];
        facts.extend(told_facts.map(|(key, who)| Fact::Told(key, who)));
        let letters: Vec<Arc<Letter>> = letters.into_values().map(Arc::new).collect();
        facts.extend(letters.iter().map(|it| Fact::Queued(Arc::clone(it))));
        facts.extend(heard.map(|(life, sequence)| Fact::Heard { life, sequence }));
        self.truth = Truth::new(told);
        self.take_heard(heard);
        self.lanes = Lanes::new(self.webhooks.len());
        self.office.anew = false;
        self.office.unkept = None;
        let settled = mem::take(&mut self.office.settled);
        self.facts.clear();
        for letter in letters {
            match settled.get(&letter.id).filter(|it| **it == letter) {
                Some(_) => {
                    self.facts.push(Fact::Settled(letter.id));
                    self.office.settled.insert(letter.id, letter);
                }
                None => self.place(letter),
            }
        }
        for (lane, letter) in under_way {
            if !self.lanes.resume(lane, &letter) {
                self.hang_up(lane);
            }
        }
        log::info!(waiting = self.lanes.waiting(); "tells the webhooks of the cluster");
        // What the store has not done yet for the gateway is done with this.
        let jobs = match mem::replace(&mut self.storing, Storing::Idle) {
            Storing::Failed(batch, _) => batch.jobs,
            _ => Arc::default(),
        };
        self.ask_store(Batch {
            facts: Arc::new(facts),
            ..Batch::of_jobs(jobs)
        });
    }

    /// Nothing stands in the cluster: what is known here is to.
    fn begin_anew(&mut self) {
        self.office.anew = true;
        if let Some(batch) = self.office.unkept.take() {
            self.release(&batch);
        }
    }

    /// How far which switchboard was heard.
    pub(super) fn take_heard(&mut self, heard: Option<(u64, u64)>) {
        let (life, sequence) = heard.unwrap_or_default();
        self.heard = Heard {
            life,
            taken: sequence,
            committing: sequence,
            receipted: sequence,
        };
    }

    /// A letter that stood in memory waits in its lane again, if its endpoint is still there.
    pub(super) fn place(&mut self, letter: Arc<Letter>) {
        self.last_letter = self.last_letter.max(letter.id);
        match self.hook_of(&letter) {
            Some(hook) => self.lanes.put(hook, letter),
            None => {
                self.counters.webhooks_given_up += 1;
                self.facts.push(Fact::Settled(letter.id));
            }
        }
    }

    pub(super) fn hook_of(&self, letter: &Letter) -> Option<usize> {
        let mut hooks = self.webhooks.iter();
        hooks.position(|it| it.app_id == letter.app_id && it.url == letter.url)
    }

    fn hang_up(&mut self, lane: LaneId) {
        self.dials.retain(|_, it| *it != lane);
        if let Some(conn) = self.calls.remove(&lane) {
            self.seats.remove(&conn);
            self.outputs.push_back(Output::Close(conn, Ending::Cut));
        }
    }

    /// Delivered or given up.
    pub(super) fn note_settled(&mut self, letter: Arc<Letter>) {
        self.facts.push(Fact::Settled(letter.id));
        if self.office.in_cluster {
            self.office.settled.insert(letter.id, letter);
        }
    }

    /// That stands in the cluster.
    pub(super) fn forget_settled(&mut self, id: u64) {
        self.office.settled.remove(&id);
    }

    pub(super) fn is_to_begin_anew(&self) -> bool {
        self.office.anew
    }

    /// What the cluster is to keep of these facts, or of all when it has nothing.
    pub(super) fn pieces(&mut self, facts: &[Fact]) -> VecDeque<Vec<u8>> {
        if !self.office.in_cluster {
            return VecDeque::new();
        }
        if !mem::take(&mut self.office.anew) {
            if facts.is_empty() {
                // Jobs of the gateway are nothing that the cluster keeps.
                return VecDeque::new();
            }
            return pieces(facts, false);
        }
        let mut all = vec![Fact::Anew];
        let letters = self.lanes.letters();
        all.extend(letters.map(|(_, letter)| Fact::Queued(Arc::clone(letter))));
        let told = self.truth.told();
        all.extend(told.map(|(key, who)| Fact::Told(key.clone(), who.clone())));
        let is_new = |fact: &&Fact| matches!(fact, Fact::Queued(_));
        all.extend(facts.iter().filter(is_new).cloned());
        let Heard { life, taken, .. } = self.heard;
        let sequence = taken;
        all.push(Fact::Heard { life, sequence });
        pieces(&all, true)
    }

    /// Asks the cluster to keep what comes next.
    pub(super) fn keep(&mut self) {
        if let Storing::Keeping(batch) = &self.storing
            && let Some(frame) = batch.pieces.front()
            && let Some(conn) = self.switchboard
            && self.lines.push(conn, |out| out.push(frame)).is_err()
        {
            log::error!("the switchboard does not take what is to be kept");
        }
    }

    /// It does.
    pub(super) fn kept(&mut self, now: Now) {
        let Storing::Keeping(batch) = &mut self.storing else {
            return;
        };
        batch.pieces.pop_front();
        if !batch.pieces.is_empty() {
            return self.keep();
        }
        if let Storing::Keeping(batch) = mem::replace(&mut self.storing, Storing::Idle) {
            self.committed(&batch);
            self.go_on(now);
        }
    }
}

/// Frames that ask to keep these. What is to be sent stands before what is told by it: if not all of
/// them arrive, it is told again rather than not.
fn pieces(facts: &[Fact], whole: bool) -> VecDeque<Vec<u8>> {
    let rank = |fact: &&Fact| match fact {
        Fact::Anew => 0,
        Fact::Queued(_) => 1,
        Fact::Settled(_) => 2,
        Fact::Told(..) | Fact::Untold(..) => 3,
        Fact::Heard { .. } => 4,
    };
    let mut facts: Vec<&Fact> = facts.iter().collect();
    facts.sort_by_key(rank);
    let letters = facts.iter().map(|fact| match fact {
        Fact::Queued(letter) => letter.encode(),
        _ => Vec::new(),
    });
    let letters: Vec<Vec<u8>> = letters.collect();
    let mut pieces = VecDeque::new();
    let (mut from, mut bytes) = (0, 0);
    let entries: Vec<Entry<'_>> = facts.iter().zip(&letters).map(entry).collect();
    for (index, it) in entries.iter().enumerate() {
        let length = length(it);
        if bytes + length > PIECE_BYTES && index > from {
            let entries = entries[from..index].to_vec();
            let whole = false;
            pieces.push_back(Receipt::Keep { entries, whole }.encode());
            (from, bytes) = (index, 0);
        }
        bytes += length;
    }
    let entries = entries[from..].to_vec();
    pieces.push_back(Receipt::Keep { entries, whole }.encode());
    pieces
}

fn entry<'a>((fact, letter): (&&'a Fact, &'a Vec<u8>)) -> Entry<'a> {
    match *fact {
        Fact::Anew => Entry::Anew,
        Fact::Told(channel, who) => Entry::Told {
            channel,
            user_id: user_id(who),
        },
        Fact::Untold(channel, who) => Entry::Untold {
            channel,
            user_id: user_id(who),
        },
        Fact::Queued(it) => Entry::Queued { id: it.id, letter },
        Fact::Settled(id) => Entry::Settled { id: *id },
        Fact::Heard { life, sequence } => Entry::Heard {
            life: *life,
            sequence: *sequence,
        },
    }
}

/// Roughly, in bytes.
fn length(entry: &Entry<'_>) -> usize {
    const OVERHEAD: usize = 32;
    OVERHEAD
        + match entry {
            Entry::Told { channel, user_id } | Entry::Untold { channel, user_id } => {
                channel.len() + user_id.map_or(0, str::len)
            }
            Entry::Queued { letter, .. } => letter.len(),
            _ => 0,
        }
}

pub(super) fn subject(user_id: Option<&str>) -> Subject {
    user_id.map_or(Subject::Channel, |id| Subject::Member(id.to_string()))
}

fn user_id(who: &Subject) -> Option<&str> {
    match who {
        Subject::Member(id) => Some(id),
        Subject::Channel => None,
    }
}
