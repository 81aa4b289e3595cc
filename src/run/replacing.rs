//! How living children are replaced without a gap: one place after the other, the successor serves
//! before its predecessor lets anybody go. A part of the table of children (`children.rs`), pure as
//! that. Invariant: at most one place is being handed over at a time, and a successor that does not
//! come up costs nothing but the attempt.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::now::Moment;
use crate::run::children::{Child, Children, Duty, End, Phase, Role};

/// How long a successor may take until it serves.
pub const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(20);

/// What came of it: how many were replaced, or why it was given up and how many were before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub replaced: u32,
    pub failure: Option<String>,
}

/// Replacements to come.
#[derive(Debug)]
pub(super) struct Plan {
    queue: VecDeque<(Role, u32)>,
    window: Duration,
    /// The row that is to run before the next one's turn.
    current: Option<usize>,
    replaced: u32,
}

impl Children {
    /// Replaces all workers, and the switchboard, and the courier if there is one, if that is wanted:
    /// these have no successor beside them, since there is one truth; each ends, and the next one
    /// asks for what it has to know. Replacements under way are done again, since they may not know what changed.
    pub fn handle_replace_all(&mut self, switchboard: bool, window: Duration, now: Moment) {
        if self.is_stopping() {
            return;
        }
        let serving = self.rows.iter().filter(|row| row.duty == Duty::Serves);
        let mut queue: VecDeque<(Role, u32)> = serving
            .filter(|row| switchboard || row.role == Role::Worker)
            .map(|row| (row.role, row.number))
            .collect();
        // The courier may find that it cannot serve with what is new, and then all goes on as it was.
        queue
            .make_contiguous()
            .sort_by_key(|(role, _)| *role != Role::Courier);
        match &mut self.plan {
            Some(plan) => {
                let before = plan.queue.iter().rev();
                for place in before.filter(|place| place.0 != Role::Worker && !switchboard) {
                    queue.push_front(*place);
                }
                plan.queue = queue;
                plan.window = window;
            }
            None => {
                self.plan = Some(Plan {
                    queue,
                    window,
                    current: None,
                    replaced: 0,
                });
            }
        }
        self.replace_next(now);
    }

    /// Replaces one worker, for this reason. Returns whether that begins now: there may be
    /// something else under way.
    pub fn handle_replace(
        &mut self,
        index: usize,
        why: &str,
        window: Duration,
        now: Moment,
    ) -> bool {
        let row = &mut self.rows[index];
        let fit = row.duty == Duty::Serves && row.phase == Phase::Running;
        if !fit || self.plan.is_some() || self.is_stopping() {
            return false;
        }
        let row = &mut self.rows[index];
        row.restarts += 1;
        row.last_end = Some(End::Condemned(why.to_string()));
        self.plan = Some(Plan {
            queue: VecDeque::from([(row.role, row.number)]),
            window,
            current: None,
            replaced: 0,
        });
        self.replace_next(now);
        true
    }

    /// Whether replacements are under way.
    pub fn is_replacing(&self) -> bool {
        self.plan.is_some()
    }

    /// What came of replacements, in the order they ended.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    pub(super) fn abandon(&mut self, why: &str) {
        if let Some(plan) = self.plan.take() {
            self.outcomes.push_back(Outcome {
                replaced: plan.replaced,
                failure: Some(why.to_string()),
            });
        }
    }

    /// A successor does not get for ever.
    pub(super) fn plan_started(&mut self, index: usize, now: Moment) {
        if self.rows[index].duty == Duty::Succeeds {
            let by = now + SUCCESSOR_PATIENCE;
            self.rows[index].ready_by = Some((by, SUCCESSOR_PATIENCE));
        }
    }

    /// The row serves: if it was waited for, it takes over and it is the next one's turn.
    pub(super) fn plan_running(&mut self, index: usize, now: Moment) {
        let Some(plan) = self.plan.as_mut().filter(|it| it.current == Some(index)) else {
            return;
        };
        plan.current = None;
        plan.replaced += 1;
        let window = plan.window;
        self.rows[index].kill_at = None;
        if self.rows[index].duty == Duty::Succeeds
            && let Some(former) = self.take_over(index)
        {
            self.drain_row(former, window, now);
        }
        self.replace_next(now);
    }

    /// Returns whether the end was a part of the plan.
    pub(super) fn plan_ended(&mut self, index: usize, end: &End, now: Moment) -> bool {
        let current = self.plan.as_ref().and_then(|plan| plan.current);
        match self.rows[index].duty {
            Duty::Leaves => {
                self.rows[index].phase = Phase::Gone;
                true
            }
            Duty::Succeeds => {
                let row = &mut self.rows[index];
                row.phase = Phase::Gone;
                let why = format!("{row} could not be replaced: {end}; the old one goes on");
                self.abandon(&why);
                true
            }
            // The switchboard was told to end.
            Duty::Serves if current == Some(index) && self.rows[index].phase == Phase::Stopping => {
                self.rows[index].phase = Phase::Waiting(now);
                true
            }
            Duty::Serves if current == Some(index) => {
                // It does not come up, and nobody is left to go on: that is for the back-off.
                self.abandon(&format!("{}: {end}", self.rows[index]));
                false
            }
            Duty::Serves => match current.filter(|heir| self.is_heir(*heir, index)) {
                Some(heir) => {
                    self.rows[index].restarts += 1;
                    self.rows[index].last_end = Some(end.clone());
                    self.take_over(heir);
                    self.rows[index].phase = Phase::Gone;
                    true
                }
                None => false,
            },
        }
    }

    fn is_heir(&self, heir: usize, of: usize) -> bool {
        let (heir, of) = (&self.rows[heir], &self.rows[of]);
        heir.duty == Duty::Succeeds && (heir.role, heir.number) == (of.role, of.number)
    }

    /// The place is the heir's from now on; returns whose it was.
    fn take_over(&mut self, heir: usize) -> Option<usize> {
        let place = (self.rows[heir].role, self.rows[heir].number);
        let former = self.serving(place)?;
        self.rows[former].duty = Duty::Leaves;
        let (restarts, last_end) = (
            self.rows[former].restarts,
            self.rows[former].last_end.clone(),
        );
        let row = &mut self.rows[heir];
        row.duty = Duty::Serves;
        row.restarts = restarts;
        row.last_end = last_end;
        Some(former)
    }

    fn serving(&self, place: (Role, u32)) -> Option<usize> {
        let serves = |row: &Child| row.duty == Duty::Serves && (row.role, row.number) == place;
        self.rows.iter().position(serves)
    }

    /// Goes on with the plan, unless somebody is waited for.
    fn replace_next(&mut self, now: Moment) {
        while let Some(plan) = self.plan.as_mut().filter(|it| it.current.is_none()) {
            let Some(place) = plan.queue.pop_front() else {
                let outcome = Outcome {
                    replaced: plan.replaced,
                    failure: None,
                };
                self.plan = None;
                self.outcomes.push_back(outcome);
                return;
            };
            let Some(index) = self.serving(place) else {
                continue;
            };
            let current = match self.rows[index].phase {
                // What is about to be started knows what changed.
                Phase::Waiting(_) => {
                    self.rows[index].phase = Phase::Waiting(now);
                    self.rows[index].backoff.reset();
                    None
                }
                Phase::Starting | Phase::Running if place.0 != Role::Worker => {
                    self.stop_row(index, now);
                    Some(index)
                }
                Phase::Starting | Phase::Running => Some(self.succeed(index, now)),
                _ => None,
            };
            if let Some(plan) = &mut self.plan {
                plan.current = current;
            }
        }
    }

    /// Starts a successor.
    fn succeed(&mut self, index: usize, now: Moment) -> usize {
        let row = &self.rows[index];
        let mut heir = Child::new(row.role, row.number, row.reactors, now);
        heir.duty = Duty::Succeeds;
        let free = self.rows.iter().position(|row| !row.is_listed());
        let place = match free {
            Some(place) => {
                self.rows[place] = heir;
                place
            }
            None => {
                self.rows.push(heir);
                self.rows.len() - 1
            }
        };
        self.launch(place);
        place
    }
}
