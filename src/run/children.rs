//! The table of children: what each one is doing, and what the master has to do when one changes.
//! Decides restarts, back-off and the order of stopping; `replacing.rs` decides how living ones are
//! replaced. Forks nothing, kills nothing, reads no clock. Invariants: each row has at most one
//! process; each place (the switchboard, the courier, or a worker's number) has exactly one row that serves it,
//! beside which there may be its successor and those that leave.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::now::{Moment, bring_forward};
pub use crate::run::end::End;
use crate::run::inheritance::Heir;
use crate::run::replacing::{Outcome, Plan};

/// A child that lived this long was well; its next death is a first one again.
pub const WELL_AFTER: Duration = Duration::from_secs(10);
/// The wait after a second death in a row; it doubles from there.
pub const RESTART_FIRST: Duration = Duration::from_millis(200);
pub const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// How long a child may take to end: when it was told to stop, or when it lost its master's pair.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that drains, beyond its window. Longer than the worker's own.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Switchboard,
    Worker,
    Courier,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Role::Switchboard => "switchboard",
            Role::Worker => "worker",
            Role::Courier => "courier",
        }
    }
}

/// What the master is to do. `usize` is the index of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with `handle_started` or `handle_ended`.
    Start(usize),
    /// Send `Order::Stop` to its reactors.
    Order(usize),
    /// Send `Order::Drain` to its reactors.
    Drain(usize, Duration),
    /// With SIGKILL.
    Kill(usize),
    /// Nobody is to be taken in any more: let go of what clients connect to.
    Unlisten,
    /// Everything has ended.
    Finish,
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No process; one is due at this moment.
    Waiting(Moment),
    /// A `Start` was given out and not answered yet.
    Launching,
    Starting,
    Running,
    /// It was told to let its clients go.
    Draining,
    Stopping,
    /// No process, and none to come.
    Gone,
}

/// What a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// The place is its own.
    Serves,
    /// Will take over once it runs.
    Succeeds,
    /// Was taken over from.
    Leaves,
}

/// One row of the table.
#[derive(Debug)]
pub struct Child {
    pub role: Role,
    /// Tells workers apart.
    pub number: u32,
    pub duty: Duty,
    /// Tells apart the processes of one place, even those that live at the same time.
    pub life: u32,
    pub phase: Phase,
    pub restarts: u64,
    pub last_end: Option<End>,
    pub started_at: Moment,
    /// Why we want it dead, if we do.
    pub condemned: Option<String>,
    pub(super) reactors: u32,
    pub(super) ready: u32,
    pub(super) kill_at: Option<Moment>,
    /// While it is starting: when it is to serve at the latest, and how long that is from its start.
    pub(super) ready_by: Option<(Moment, Duration)>,
    /// Whether its next death is the first after a good life: that one is made good at once.
    pub(super) first_death: bool,
    pub(super) backoff: Backoff,
}

impl Child {
    pub(super) fn new(role: Role, number: u32, reactors: u32, now: Moment) -> Child {
        Child {
            role,
            number,
            duty: Duty::Serves,
            life: 0,
            phase: Phase::Waiting(now),
            restarts: 0,
            last_end: None,
            started_at: now,
            condemned: None,
            reactors,
            ready: 0,
            kill_at: None,
            ready_by: None,
            first_death: true,
            backoff: Backoff::new(RESTART_FIRST, RESTART_LONGEST),
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Whether the row stands for something: those that have left are only kept to be used again.
    pub fn is_listed(&self) -> bool {
        self.duty == Duty::Serves || self.phase != Phase::Gone
    }

    pub(super) fn kill_by(&mut self, at: Moment) {
        bring_forward(&mut self.kill_at, at);
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Switchboard | Role::Courier => f.write_str(self.role.word()),
            Role::Worker => write!(f, "worker {}", self.number),
        }
    }
}

/// All children.
pub struct Children {
    pub(super) rows: Vec<Child>,
    pub(super) actions: VecDeque<Action>,
    pub(super) plan: Option<Plan>,
    pub(super) outcomes: VecDeque<Outcome>,
    dice: Dice,
    start_patience: Option<Duration>,
    lives: u32,
    stopping: bool,
    finished: bool,
}

impl Children {
    /// One switchboard first, then the workers; all due at once, in that order.
    pub fn new(workers: u32, threads: u32, seed: [u8; 16], now: Moment) -> Children {
        let switchboard = Child::new(Role::Switchboard, 0, 1, now);
        let workers = (0..workers).map(|number| Child::new(Role::Worker, number, threads, now));
        Children {
            rows: std::iter::once(switchboard).chain(workers).collect(),
            actions: VecDeque::new(),
            plan: None,
            outcomes: VecDeque::new(),
            dice: Dice::new(seed),
            start_patience: None,
            lives: 0,
            stopping: false,
            finished: false,
        }
    }

    /// The same with a courier, which ends last.
    pub fn with_courier(mut self, now: Moment) -> Children {
        self.rows.push(Child::new(Role::Courier, 0, 1, now));
        self
    }

    /// Takes up the living children of the program before, in the order in which they are told;
    /// `lives` were given out.
    pub fn restore(
        heirs: &[Heir],
        threads: u32,
        lives: u32,
        seed: [u8; 16],
        now: Moment,
    ) -> Children {
        let rows = heirs.iter().map(|heir| {
            let reactors = match heir.role {
                Role::Switchboard | Role::Courier => 1,
                Role::Worker => threads,
            };
            let mut row = Child::new(heir.role, heir.number, reactors, now);
            row.phase = Phase::Running;
            row.life = heir.life;
            row.restarts = heir.restarts;
            row.last_end = heir.last_end.clone().map(End::Condemned);
            if let Some(left) = heir.leaves_within_ms {
                row.duty = Duty::Leaves;
                row.phase = Phase::Draining;
                row.kill_at = Some(now + Duration::from_millis(left));
            }
            row
        });
        Children {
            rows: rows.collect(),
            lives,
            ..Children::new(0, threads, seed, now)
        }
    }

    /// The living children, for the program that takes over: the index, and how long it may still
    /// let its clients go. `None` while anything else is under way.
    pub fn leave(&self, now: Moment) -> Option<Vec<(usize, Option<u64>)>> {
        if self.stopping || self.plan.is_some() || !self.actions.is_empty() {
            return None;
        }
        let listed = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.is_listed());
        let heirs = listed.map(|(index, row)| match (row.duty, row.phase) {
            (Duty::Serves, Phase::Running) if row.condemned.is_none() => Some((index, None)),
            (Duty::Leaves, Phase::Draining) => {
                let left = row.kill_at.map_or(LEAVE_PATIENCE, |at| at.since(now));
                Some((index, Some(left.as_millis() as u64)))
            }
            _ => None,
        });
        heirs.collect()
    }

    /// How many lives were given out.
    pub fn lives(&self) -> u32 {
        self.lives
    }

    /// How long a child may take until it serves; `None` for ever. Successors have a limit of their
    /// own.
    pub fn set_start_patience(&mut self, patience: Option<Duration>) {
        self.start_patience = patience;
    }

    /// The process exists.
    pub fn handle_started(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.phase = Phase::Starting;
        row.started_at = now;
        row.ready = 0;
        row.kill_at = None;
        row.condemned = None;
        row.ready_by = self
            .start_patience
            .map(|patience| (now + patience, patience));
        self.plan_started(index, now);
    }

    /// One of its reactors serves.
    pub fn handle_ready(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.ready += 1;
        if row.phase == Phase::Starting && row.ready >= row.reactors {
            row.phase = Phase::Running;
            self.plan_running(index, now);
        }
    }

    /// The pair to one of its reactors closed or carried nonsense. The process ends itself then;
    /// if it does not, it is stuck.
    pub fn handle_link_lost(&mut self, index: usize, now: Moment) {
        self.rows[index].kill_by(now + STOP_PATIENCE);
    }

    /// It is to die at this moment, for this reason.
    pub fn condemn(&mut self, index: usize, why: String, at: Moment) {
        let row = &mut self.rows[index];
        if row.condemned.is_none() {
            row.condemned = Some(why);
            row.kill_by(at);
        }
    }

    /// The process is gone, or never came to be.
    pub fn handle_ended(&mut self, index: usize, end: End, now: Moment) {
        let row = &mut self.rows[index];
        row.kill_at = None;
        // However long it took: it was never well.
        let never_served = row.phase == Phase::Starting && row.condemned.is_some();
        let end = row.condemned.take().map_or(end, End::Condemned);
        if self.stopping {
            row.phase = Phase::Gone;
            self.stop_next(now);
            return;
        }
        if self.plan_ended(index, &end, now) {
            return;
        }
        let row = &mut self.rows[index];
        let never_ran = never_served || matches!(end, End::NotStarted(_));
        if !never_ran && now.since(row.started_at) >= WELL_AFTER {
            row.backoff.reset();
            row.first_death = true;
        }
        row.last_end = Some(end);
        row.restarts += 1;
        let wait = if row.first_death && !never_ran {
            Duration::ZERO
        } else {
            row.backoff.next(&mut self.dice)
        };
        row.first_death = false;
        row.phase = Phase::Waiting(now + wait);
    }

    /// Everything is to end: the workers first, so that they do not report the loss of a
    /// switchboard that ends as planned. `window`: the time over which the workers let their
    /// clients go; without it they end at once, even those that drain.
    pub fn handle_stop(&mut self, window: Option<Duration>, now: Moment) {
        if self.stopping && window.is_some() {
            return;
        }
        let begins = !self.stopping;
        self.stopping = true;
        if begins {
            self.abandon("the server stops");
            self.actions.clear();
            self.actions.push_back(Action::Unlisten);
        }
        for index in 0..self.rows.len() {
            let row = &mut self.rows[index];
            match (row.phase, window) {
                // A launch that was given out was forgotten with the other actions.
                (Phase::Waiting(_) | Phase::Launching | Phase::Gone, _) => row.phase = Phase::Gone,
                // One patience for all, however many come after each other.
                (_, None) => row.kill_by(now + STOP_PATIENCE),
                (Phase::Starting | Phase::Running, Some(window)) if row.role == Role::Worker => {
                    self.drain_row(index, window, now);
                }
                _ => {}
            }
            if self.rows[index].phase == Phase::Draining && window.is_none() {
                self.stop_row(index, now);
            }
        }
        self.stop_next(now);
    }

    /// Time has passed.
    pub fn handle_elapsed(&mut self, now: Moment) {
        for index in 0..self.rows.len() {
            let row = &mut self.rows[index];
            if row.phase == Phase::Starting
                && let Some((_, patience)) = row.ready_by.take_if(|(by, _)| *by <= now)
            {
                let why = format!("not ready after {} s, killed", patience.as_secs());
                self.condemn(index, why, now);
            }
            let row = &mut self.rows[index];
            if row.kill_at.is_some_and(|at| at <= now) {
                // Once more every so often: a process may be out of reach for a while.
                row.kill_at = Some(now + STOP_PATIENCE);
                self.actions.push_back(Action::Kill(index));
            }
            let row = &self.rows[index];
            if let Phase::Waiting(at) = row.phase
                && at <= now
            {
                self.launch(index);
            }
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `handle_elapsed` is due.
    pub fn deadline(&self) -> Option<Moment> {
        let due = |row: &Child| match row.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Starting => [row.kill_at, row.ready_by.map(|(by, _)| by)]
                .into_iter()
                .flatten()
                .min(),
            _ => row.kill_at,
        };
        self.rows.iter().filter_map(due).min()
    }

    pub fn rows(&self) -> &[Child] {
        &self.rows
    }

    /// The workers that have a process with clients, or may have.
    pub fn living_workers(&self) -> impl Iterator<Item = &Child> {
        let workers = self.rows.iter().filter(|row| row.role == Role::Worker);
        workers.filter(|row| row.is_alive() || row.phase == Phase::Draining)
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn all_running(&self) -> bool {
        let mut serving = self.rows.iter().filter(|row| row.duty == Duty::Serves);
        serving.all(|row| row.phase == Phase::Running)
    }

    pub(super) fn launch(&mut self, index: usize) {
        self.lives += 1;
        self.rows[index].life = self.lives;
        self.rows[index].phase = Phase::Launching;
        self.actions.push_back(Action::Start(index));
    }

    pub(super) fn drain_row(&mut self, index: usize, window: Duration, now: Moment) {
        let row = &mut self.rows[index];
        row.phase = Phase::Draining;
        row.kill_at = Some(now + window + LEAVE_PATIENCE);
        self.actions.push_back(Action::Drain(index, window));
    }

    fn stop_next(&mut self, now: Moment) {
        let ending = |row: &Child| matches!(row.phase, Phase::Stopping | Phase::Draining);
        for role in [Role::Worker, Role::Switchboard, Role::Courier] {
            let of_role = |row: &&Child| row.role == role;
            if self.rows.iter().filter(of_role).any(Child::is_alive) {
                for index in 0..self.rows.len() {
                    if self.rows[index].role == role && self.rows[index].is_alive() {
                        self.stop_row(index, now);
                    }
                }
                return;
            }
            if self.rows.iter().filter(of_role).any(ending) {
                return;
            }
        }
        if !self.finished {
            self.finished = true;
            self.actions.push_back(Action::Finish);
        }
    }

    pub(super) fn stop_row(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.phase = Phase::Stopping;
        row.kill_by(now + STOP_PATIENCE);
        self.actions.push_back(Action::Order(index));
    }
}

#[cfg(test)]
#[path = "children_tests.rs"]
mod tests;
