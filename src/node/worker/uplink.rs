//! A worker's side of its link to the switchboard: whether it stands, and which questions wait for
//! an answer. The bytes go through `Lines` like everybody's.
//!
//! Bounds: publishing and asking are refused once `limits.link_bytes` wait; what tells the
//! switchboard the state of our own connections is always taken, because its amount is bounded by
//! that state, and clients are not read from while the link is congested.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::app::application::Unavailable;
use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::ids::{ConnId, Ticket};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::node::lines::Lines;
use crate::wire::bus::{Up, VERSION};

/// From here on clients are not read from until the switchboard has caught up.
const CONGESTED_BYTES: usize = 4 * 1024 * 1024;

enum State {
    /// To be dialled at this time.
    Down(Moment),
    Dialling,
    /// Stands; answers come only after Welcome.
    Open {
        conn: ConnId,
        welcomed: bool,
    },
}

/// See the file's head.
pub struct Uplink {
    state: State,
    slot: u32,
    life: u32,
    backoff: Backoff,
    tickets: HashMap<u64, ConnId, FixedState>,
    /// In the order they were asked, so in the order they run out.
    deadlines: VecDeque<(Moment, u64)>,
    next_ticket: u64,
    tickets_max: usize,
    patience: Duration,
    bytes_max: usize,
    /// Apps whose clients are told how many they are.
    counted: Vec<String>,
}

impl Uplink {
    pub fn new(
        (slot, life): (u32, u32),
        limits: &Limits,
        counted: Vec<String>,
        now: Now,
    ) -> Uplink {
        Uplink {
            state: State::Down(now.moment),
            slot,
            life,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
            tickets: HashMap::with_hasher(FixedState::default()),
            deadlines: VecDeque::new(),
            next_ticket: 1,
            tickets_max: limits.questions,
            patience: Duration::from_secs(limits.question_seconds),
            bytes_max: limits.link_bytes,
            counted,
        }
    }

    /// Whether it is time to dial; if so, it counts as done.
    pub fn dial(&mut self, now: Now) -> bool {
        match self.state {
            State::Down(at) if at <= now.moment => {
                self.state = State::Dialling;
                true
            }
            _ => false,
        }
    }

    /// Dialling failed or the link broke.
    pub fn down(&mut self, dice: &mut Dice, now: Now) {
        self.state = State::Down(now.moment + self.backoff.next(dice));
    }

    /// The link stands: introduces us. The caller announces what we hold.
    pub fn open(&mut self, conn: ConnId, lines: &mut Lines) {
        self.state = State::Open {
            conn,
            welcomed: false,
        };
        let hello = Up::Hello {
            version: VERSION,
            slot: self.slot,
            life: self.life,
            shard: 0,
            shards: 1,
            counted: self.counted.iter().map(String::as_str).collect(),
        };
        let frame = hello.encode();
        self.push(&frame, lines);
    }

    pub fn welcomed(&mut self) {
        if let State::Open { welcomed, .. } = &mut self.state {
            *welcomed = true;
            self.backoff.reset();
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { welcomed: true, .. })
    }

    pub fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Open { conn, .. } => Some(conn),
            _ => None,
        }
    }

    pub fn is_congested(&self, lines: &Lines) -> bool {
        self.conn()
            .is_some_and(|conn| lines.waiting(conn) > CONGESTED_BYTES)
    }

    /// Tells our state; nothing while the link is down, as the next one starts with all of it.
    pub fn tell(&mut self, message: &Up<'_>, lines: &mut Lines) {
        self.push(&message.encode(), lines);
    }

    fn push(&self, frame: &[u8], lines: &mut Lines) {
        if let Some(conn) = self.conn() {
            let pushed = lines.push(conn, |out| out.push(frame));
            debug_assert!(pushed.is_ok(), "the link's outbox has no limit of its own");
        }
    }

    /// Sends what may be refused.
    pub fn offer(&mut self, message: &Up<'_>, lines: &mut Lines) -> Result<(), Unavailable> {
        let conn = self.conn().ok_or(Unavailable)?;
        let frame = message.encode();
        if lines.waiting(conn) + frame.len() > self.bytes_max {
            return Err(Unavailable);
        }
        lines
            .push(conn, |out| out.push(&frame))
            .map_err(|_| Unavailable)
    }

    /// Sends a question of `conn`; `message` makes it from its ticket.
    pub fn ask<'a>(
        &mut self,
        conn: ConnId,
        message: impl FnOnce(Ticket) -> Up<'a>,
        lines: &mut Lines,
        now: Now,
    ) -> Result<(), Unavailable> {
        if self.tickets.len() >= self.tickets_max {
            return Err(Unavailable);
        }
        let ticket = self.next_ticket;
        self.offer(&message(Ticket(ticket)), lines)?;
        self.next_ticket += 1;
        self.tickets.insert(ticket, conn);
        self.deadlines
            .push_back((now.moment + self.patience, ticket));
        Ok(())
    }

    /// How many wait for an answer.
    pub fn questions(&self) -> usize {
        self.tickets.len()
    }

    /// Who asked; `None` when that was given up.
    pub fn answered(&mut self, ticket: u64) -> Option<ConnId> {
        self.tickets.remove(&ticket)
    }

    /// The askers whose time is up.
    pub fn overdue(&mut self, now: Now) -> Vec<ConnId> {
        let mut overdue = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.front() {
            let waits = self.tickets.contains_key(&ticket);
            if waits && deadline > now.moment {
                break;
            }
            self.deadlines.pop_front();
            overdue.extend(self.tickets.remove(&ticket));
        }
        overdue
    }

    /// All askers, when the link broke.
    pub fn give_up(&mut self) -> Vec<ConnId> {
        self.deadlines.clear();
        let mut askers: Vec<(u64, ConnId)> = self.tickets.drain().collect();
        askers.sort_unstable();
        askers.into_iter().map(|(_, conn)| conn).collect()
    }

    pub fn deadline(&self) -> Option<Moment> {
        let dial = match self.state {
            State::Down(at) => Some(at),
            _ => None,
        };
        let question = self.deadlines.front().map(|(deadline, _)| *deadline);
        [dial, question].into_iter().flatten().min()
    }
}
