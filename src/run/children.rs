//! The table of children: what each one is doing, and what the master has to do when one changes.
//! Decides restarts, back-off and the order of stopping; forks nothing, kills nothing, reads no
//! clock. Invariant: each child has at most one process, and a child in `Gone` gets no more.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::now::Moment;

/// A child that lived this long was well; its next death is a first one again.
pub const WELL_AFTER: Duration = Duration::from_secs(10);
/// The wait after a second death in a row; it doubles from there.
pub const RESTART_FIRST: Duration = Duration::from_millis(200);
pub const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// How long a child may take to end: when it was told to stop, or when it lost its master's pair.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Switchboard,
    Worker,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Role::Switchboard => "switchboard",
            Role::Worker => "worker",
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// It never began.
    NotStarted(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exit(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => {
                write!(f, "killed by signal {signal} ({})", signal_name(*signal))
            }
            End::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGXCPU => "SIGXCPU",
        _ => "no name",
    }
}

/// What the master is to do. `usize` is the index of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with `handle_started` or `handle_ended`.
    Start(usize),
    /// Send `Order::Stop` to its reactors.
    Order(usize),
    /// With SIGKILL.
    Kill(usize),
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
    Stopping,
    /// No process, and none to come.
    Gone,
}

/// One row of the table.
#[derive(Debug)]
pub struct Child {
    pub role: Role,
    /// Tells workers apart.
    pub number: u32,
    pub phase: Phase,
    pub restarts: u64,
    pub last_end: Option<End>,
    reactors: u32,
    ready: u32,
    started_at: Moment,
    kill_at: Option<Moment>,
    /// Whether its next death is the first after a good life: that one is made good at once.
    first_death: bool,
    backoff: Backoff,
}

impl Child {
    fn new(role: Role, number: u32, reactors: u32, now: Moment) -> Child {
        Child {
            role,
            number,
            phase: Phase::Waiting(now),
            restarts: 0,
            last_end: None,
            reactors,
            ready: 0,
            started_at: now,
            kill_at: None,
            first_death: true,
            backoff: Backoff::new(RESTART_FIRST, RESTART_LONGEST),
        }
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Switchboard => f.write_str("switchboard"),
            Role::Worker => write!(f, "worker {}", self.number),
        }
    }
}

/// All children.
pub struct Children {
    rows: Vec<Child>,
    actions: VecDeque<Action>,
    dice: Dice,
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
            dice: Dice::new(seed),
            stopping: false,
            finished: false,
        }
    }

    /// The process exists.
    pub fn handle_started(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.phase = Phase::Starting;
        row.started_at = now;
        row.ready = 0;
        row.kill_at = None;
    }

    /// One of its reactors serves.
    pub fn handle_ready(&mut self, index: usize) {
        let row = &mut self.rows[index];
        row.ready += 1;
        if row.phase == Phase::Starting && row.ready >= row.reactors {
            row.phase = Phase::Running;
        }
    }

    /// The pair to one of its reactors closed or carried nonsense. The process ends itself then;
    /// if it does not, it is stuck.
    pub fn handle_link_lost(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.kill_at.get_or_insert(now + STOP_PATIENCE);
    }

    /// The process is gone, or never came to be.
    pub fn handle_ended(&mut self, index: usize, end: End, now: Moment) {
        let row = &mut self.rows[index];
        row.kill_at = None;
        if self.stopping {
            row.phase = Phase::Gone;
            self.stop_next(now);
            return;
        }
        let never_ran = matches!(end, End::NotStarted(_));
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
    /// switchboard that ends as planned.
    pub fn handle_stop(&mut self, now: Moment) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.actions.clear();
        for row in &mut self.rows {
            match row.phase {
                // A launch that was given out was forgotten with the other actions.
                Phase::Waiting(_) | Phase::Launching => row.phase = Phase::Gone,
                // One patience for all, however many come after each other.
                _ => row.kill_at = Some(now + STOP_PATIENCE),
            }
        }
        self.stop_next(now);
    }

    /// Time has passed.
    pub fn handle_elapsed(&mut self, now: Moment) {
        for (index, row) in self.rows.iter_mut().enumerate() {
            if row.kill_at.is_some_and(|at| at <= now) {
                // Once more every so often: a process may be out of reach for a while.
                row.kill_at = Some(now + STOP_PATIENCE);
                self.actions.push_back(Action::Kill(index));
            }
            if let Phase::Waiting(at) = row.phase
                && at <= now
            {
                row.phase = Phase::Launching;
                self.actions.push_back(Action::Start(index));
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
            _ => row.kill_at,
        };
        self.rows.iter().filter_map(due).min()
    }

    pub fn rows(&self) -> &[Child] {
        &self.rows
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn all_running(&self) -> bool {
        self.rows.iter().all(|row| row.phase == Phase::Running)
    }

    fn stop_next(&mut self, now: Moment) {
        let alive = |row: &Child| matches!(row.phase, Phase::Starting | Phase::Running);
        let ending = |row: &Child| row.phase == Phase::Stopping;
        for role in [Role::Worker, Role::Switchboard] {
            let of_role = |row: &&Child| row.role == role;
            if self.rows.iter().filter(of_role).any(alive) {
                for index in 0..self.rows.len() {
                    if self.rows[index].role == role && alive(&self.rows[index]) {
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

    fn stop_row(&mut self, index: usize, now: Moment) {
        let row = &mut self.rows[index];
        row.phase = Phase::Stopping;
        row.kill_at.get_or_insert(now + STOP_PATIENCE);
        self.actions.push_back(Action::Order(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCHBOARD: usize = 0;
    const WORKER: usize = 1;

    fn at(ms: u64) -> Moment {
        Moment::from_micros(1_000_000 + ms * 1000)
    }

    fn actions(children: &mut Children) -> Vec<Action> {
        std::iter::from_fn(|| children.poll_action()).collect()
    }

    /// One switchboard and two workers, all running since `at(0)`.
    fn running() -> Children {
        let mut children = Children::new(2, 1, [0; 16], at(0));
        children.handle_elapsed(at(0));
        let started = actions(&mut children);
        assert_eq!(
            started,
            [Action::Start(0), Action::Start(1), Action::Start(2)]
        );
        for index in 0..3 {
            children.handle_started(index, at(0));
            children.handle_ready(index);
        }
        assert!(children.all_running());
        children
    }

    fn die(children: &mut Children, index: usize, ms: u64) {
        children.handle_ended(index, End::Signal(libc::SIGKILL), at(ms));
        children.handle_elapsed(at(ms));
    }

    fn wait_ms(children: &Children, index: usize, now_ms: u64) -> u64 {
        match children.rows()[index].phase {
            Phase::Waiting(due) => due.since(at(now_ms)).as_millis() as u64,
            other => panic!("it is {other:?}"),
        }
    }

    #[test]
    fn the_switchboard_is_started_first_and_a_child_runs_when_all_its_reactors_do() {
        let mut children = Children::new(1, 2, [0; 16], at(0));
        assert_eq!(children.deadline(), Some(at(0)));
        children.handle_elapsed(at(0));
        assert_eq!(
            actions(&mut children),
            [Action::Start(SWITCHBOARD), Action::Start(WORKER)]
        );
        children.handle_started(WORKER, at(1));
        children.handle_ready(WORKER);
        assert_eq!(children.rows()[WORKER].phase, Phase::Starting);
        children.handle_ready(WORKER);
        assert_eq!(children.rows()[WORKER].phase, Phase::Running);
    }

    #[test]
    fn the_first_death_is_made_good_at_once_and_the_next_ones_ever_later() {
        let mut children = running();
        die(&mut children, WORKER, 3000);
        assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
        let mut now = 3000;
        for longest in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            children.handle_started(WORKER, at(now));
            die(&mut children, WORKER, now);
            let wait = wait_ms(&children, WORKER, now);
            assert!(
                (longest / 2..=longest).contains(&wait),
                "{wait} of {longest}"
            );
            assert!(actions(&mut children).is_empty());
            now += wait + 1;
            children.handle_elapsed(at(now));
            assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
        }
        assert_eq!(children.rows()[WORKER].restarts, 9);
        assert_eq!(children.rows()[SWITCHBOARD].restarts, 0);
    }

    #[test]
    fn a_good_life_wipes_the_slate() {
        let mut children = running();
        for _ in 0..4 {
            die(&mut children, WORKER, 20_000);
            children.handle_started(WORKER, at(20_000));
        }
        actions(&mut children);
        die(&mut children, WORKER, 30_000);
        assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
    }

    #[test]
    fn a_child_that_cannot_be_started_is_not_tried_in_a_circle() {
        let mut children = Children::new(1, 1, [0; 16], at(0));
        children.handle_elapsed(at(0));
        actions(&mut children);
        children.handle_ended(WORKER, End::NotStarted("no memory".into()), at(0));
        assert!(wait_ms(&children, WORKER, 0) >= 100);
    }

    #[test]
    fn workers_stop_before_the_switchboard_and_then_it_is_over() {
        let mut children = running();
        children.handle_stop(at(0));
        children.handle_stop(at(1));
        assert_eq!(actions(&mut children), [Action::Order(1), Action::Order(2)]);
        children.handle_ended(1, End::Exit(0), at(5));
        assert!(actions(&mut children).is_empty());
        children.handle_ended(2, End::Exit(0), at(6));
        assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
        children.handle_ended(SWITCHBOARD, End::Exit(0), at(7));
        assert_eq!(actions(&mut children), [Action::Finish]);
        assert_eq!(children.deadline(), None);
    }

    #[test]
    fn who_does_not_stop_in_time_is_killed_the_switchboard_with_them() {
        let mut children = running();
        children.handle_stop(at(0));
        actions(&mut children);
        children.handle_ended(1, End::Exit(0), at(5));
        assert_eq!(children.deadline(), Some(at(2000)));
        children.handle_elapsed(at(2000));
        assert_eq!(actions(&mut children), [Action::Kill(0), Action::Kill(2)]);
        children.handle_ended(0, End::Signal(9), at(2001));
        children.handle_ended(2, End::Signal(9), at(2002));
        assert_eq!(actions(&mut children), [Action::Finish]);
    }

    #[test]
    fn nothing_is_started_any_more_once_stopping() {
        let mut children = running();
        die(&mut children, WORKER, 100);
        children.handle_stop(at(100));
        assert_eq!(actions(&mut children), [Action::Order(2)]);
        children.handle_elapsed(at(1000));
        assert!(actions(&mut children).is_empty());
        children.handle_ended(2, End::Exit(1), at(1001));
        assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
    }

    #[test]
    fn a_server_whose_children_all_wait_stops_at_once() {
        let mut children = Children::new(1, 1, [0; 16], at(0));
        children.handle_stop(at(0));
        assert_eq!(actions(&mut children), [Action::Finish]);
    }

    #[test]
    fn a_child_that_lost_its_pair_and_lives_on_is_killed() {
        let mut children = running();
        children.handle_link_lost(WORKER, at(100));
        children.handle_link_lost(WORKER, at(200));
        children.handle_elapsed(at(2099));
        assert!(actions(&mut children).is_empty());
        children.handle_elapsed(at(2100));
        assert_eq!(actions(&mut children), [Action::Kill(WORKER)]);
        die(&mut children, WORKER, 2101);
        assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
    }

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(End::Signal(9).to_string(), "killed by signal 9 (SIGKILL)");
        assert_eq!(End::Exit(1).to_string(), "exit code 1");
    }
}
