//! Clients that come by many requests (SockJS). Such a client is a connection without a socket, in
//! the worker that its first request reached: it has a seat and an outbox like others, so everything
//! that holds for a WebSocket holds for it. Its requests are carriers, which may reach any worker:
//! one that holds the session hands over what waits there (`holding`), one that does not sends an
//! errand to the one that does (`errands`). Here are the tables.
//!
//! Invariants: a session has at most one receiver; what was handed to a receiver elsewhere is kept
//! until it is known to have come; a message is taken up once, or the client is told to begin anew.

mod carrying;
mod errands;
mod holding;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::limits::Limits;
use crate::base::now::Moment;
use crate::wire::bus::Caller;

/// In one announcement.
const NAMES_AT_ONCE: usize = 256;

/// Who gets the lines of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Nobody,
    /// A request that reached this worker.
    Here(ConnId),
    /// One that reached another.
    There(Caller),
    /// The same, a stream that was handed lines and has not asked for more.
    Handed(Caller),
}

/// A session held here, beside what its seat and its line are.
struct Held {
    name: Box<str>,
    receiver: Receiver,
    /// How many characters it takes.
    room: usize,
    /// When the receiver last changed or was handed something.
    since: Moment,
    /// A heartbeat was sent that the client has not answered.
    echoes: bool,
    /// Its end was decided; the last lines wait to be fetched.
    ended: bool,
    /// Of the lines that were last handed to another worker.
    number: u32,
    /// Those lines and who was handed them, until it is known that they came.
    unproven: Option<(Caller, Vec<u8>)>,
    /// The last post that was taken up, by the reactor it came through.
    posts: BTreeMap<(u32, u32), u64>,
}

/// A request that waits for lines.
struct Carrier {
    poll: bool,
    /// The head of its answer was given.
    begun: bool,
    /// How many characters its client still takes.
    room: usize,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// A session held here.
    Session(ConnId),
    /// This errand.
    Errand(u64),
}

/// An errand whose outcome is awaited.
struct Sent {
    session: Box<str>,
    what: What,
}

enum What {
    /// `waits`: until the carrier has taken the last lines, no more are asked for.
    Receive {
        carrier: ConnId,
        have: Option<u32>,
        waits: bool,
    },
    Post {
        carrier: ConnId,
        messages: Vec<u8>,
    },
    Lost,
}

/// See the file's head.
pub(super) struct Sessions {
    by_name: BTreeMap<Box<str>, ConnId>,
    held: BTreeMap<ConnId, Held>,
    carriers: BTreeMap<ConnId, Carrier>,
    sent: BTreeMap<u64, Sent>,
    /// Until when posts among them are waited for, in order.
    deadlines: VecDeque<(Moment, u64)>,
    /// Bytes of these posts.
    sent_bytes: usize,
    next_ticket: u64,
    /// Slots that were used before.
    free: Vec<u32>,
    generation: u32,
    max: usize,
    gap: Duration,
    heartbeat: Duration,
    /// For posts.
    patience: Duration,
}

impl Sessions {
    pub(super) fn new(limits: &Limits) -> Sessions {
        Sessions {
            by_name: BTreeMap::new(),
            held: BTreeMap::new(),
            carriers: BTreeMap::new(),
            sent: BTreeMap::new(),
            deadlines: VecDeque::new(),
            sent_bytes: 0,
            next_ticket: 1,
            free: Vec::new(),
            generation: 0,
            max: limits.http_sessions,
            gap: Duration::from_secs(limits.http_session_seconds),
            heartbeat: Duration::from_secs(limits.http_heartbeat_seconds),
            patience: Duration::from_secs(limits.question_seconds),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.held.len()
    }

    /// When posts are to be given up.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.deadlines.front().map(|(until, _)| *until)
    }

    /// Whether the connection's request waits for lines.
    pub(super) fn carries(&self, conn: ConnId) -> bool {
        self.carriers.contains_key(&conn)
    }

    /// How much the client of this request still takes.
    fn room(&self, carrier: ConnId) -> u32 {
        let carrier = self.carriers.get(&carrier);
        carrier.map_or(0, |carrier| carrier.room as u32)
    }

    /// The names of all, in parts that fit an announcement each.
    pub(super) fn names(&self) -> Vec<Vec<&str>> {
        let names: Vec<&str> = self.by_name.keys().map(|name| &**name).collect();
        names.chunks(NAMES_AT_ONCE).map(<[&str]>::to_vec).collect()
    }

    fn has_room(&self) -> bool {
        self.held.len() < self.max
    }

    /// A new session under this name, with an id that was never used before.
    fn hold(&mut self, name: &str, since: Moment) -> ConnId {
        let slot = self.free.pop().unwrap_or(self.held.len() as u32);
        self.generation = self.generation.wrapping_add(1);
        let session = ConnId::socketless(slot, self.generation);
        self.by_name.insert(name.into(), session);
        let held = Held {
            name: name.into(),
            receiver: Receiver::Nobody,
            room: 0,
            since,
            echoes: false,
            ended: false,
            number: 0,
            unproven: None,
            posts: BTreeMap::new(),
        };
        self.held.insert(session, held);
        session
    }

    fn forget(&mut self, session: ConnId) -> Option<Held> {
        let held = self.held.remove(&session)?;
        self.by_name.remove(&held.name);
        self.free.push(session.slot & !ConnId::SOCKETLESS);
        Some(held)
    }

    /// When the session is to be looked at.
    pub(super) fn due(&self, session: ConnId) -> Option<Moment> {
        let held = self.held.get(&session)?;
        let patience = match held.receiver {
            _ if held.ended => self.gap,
            Receiver::Nobody => self.gap,
            // As long as a stream may be slow.
            Receiver::Handed(_) => self.gap.max(2 * self.heartbeat),
            Receiver::Here(_) | Receiver::There(_) => self.heartbeat,
        };
        Some(held.since + patience)
    }
}
