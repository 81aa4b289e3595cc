//! The numbers of the whole server for a reactor that was asked for them: gathered as for `status`,
//! with what the dead did added. Invariant: what counts up never falls.

use std::time::Duration;

use crate::base::counters::Counters;
use crate::base::now::Moment;
use crate::run::children::{Duty, Phase, Role};
use crate::run::log as log_writer;
use crate::run::master::Master;
use crate::run::master::commands::owes_answer;
use crate::run::os;
use crate::run::site::Process;
use crate::wire::control::Order;
use crate::wire::numbers::{Numbers, ProcessNumbers, Whose};

/// Numbers are handed out again for so long: a crowd that asks costs the reactors no more than this.
const FRESH: Duration = Duration::from_millis(250);

/// Who asked, and what was answered last.
#[derive(Default)]
pub(super) struct Scrapes {
    /// Reactors, by the index of their process and their place in it. Each asks once at a time.
    askers: Vec<(usize, usize)>,
    latest: Option<(Moment, Order)>,
}

impl Master {
    pub(super) fn begin_scrape(&mut self, asker: (usize, usize), now: Moment) {
        self.scrapes.askers.push(asker);
        let latest = self.scrapes.latest.take();
        match latest.filter(|(at, _)| now.since(*at) < FRESH) {
            Some(latest) => self.hand_out(latest),
            None => self.begin_survey(None, now),
        }
    }

    /// The reactors have told their numbers, or had the time to.
    pub(super) fn answer_scrapes(&mut self, now: Moment) {
        if !self.scrapes.askers.is_empty() {
            let order = Order::Gathered(self.numbers(now));
            self.hand_out((now, order));
        }
    }

    fn hand_out(&mut self, latest: (Moment, Order)) {
        for (index, reactor) in std::mem::take(&mut self.scrapes.askers) {
            // Whoever took its place did not ask, and takes no harm.
            if let Some(link) = self.links(index).nth(reactor) {
                link.gathered(&latest.1);
            }
        }
        self.scrapes.latest = Some(latest);
    }

    /// A process has ended: what it did is kept. Its last words may wait in the pairs still.
    pub(super) fn settle_accounts(&mut self, index: usize) {
        let (role, number) = {
            let row = &self.children.rows()[index];
            (row.role, row.number)
        };
        if let Some(process) = &mut self.processes[index] {
            for link in &mut process.links {
                link.read();
                self.totals.bury(role, number, &link.counters);
            }
        }
    }

    fn numbers(&self, now: Moment) -> Numbers {
        let own = Counters {
            log_lines_dropped: log_writer::dropped(),
            ..Counters::default()
        };
        let pid = std::process::id();
        let master = ProcessNumbers {
            whose: Whose::Master,
            up: true,
            restarts: 0,
            memory_bytes: os::resident_bytes(pid),
            cpu_ms: os::cpu_ms(pid),
            counters: own.values(),
        };
        let switchboard = (Whose::Switchboard, Role::Switchboard, 0);
        let workers = 0..self.config.workers;
        let workers = workers.map(|number| (Whose::Worker(number), Role::Worker, number));
        let courier = self.config.has_courier();
        let courier = courier.then_some((Whose::Courier, Role::Courier, 0));
        let children = std::iter::once(switchboard).chain(courier).chain(workers);
        let children = children.map(|(whose, role, number)| self.numbers_of(whose, role, number));
        Numbers {
            started_unix_ms: self.started.unix_ms,
            uptime_ms: now.since(self.started.moment).as_millis() as u64,
            processes: std::iter::once(master).chain(children).collect(),
        }
    }

    /// All who are or were at one place: while it changes hands there are two.
    fn numbers_of(&self, whose: Whose, role: Role, number: u32) -> ProcessNumbers {
        let mut counters = self.totals.of(role, number);
        let mut numbers = ProcessNumbers {
            whose,
            up: false,
            restarts: 0,
            memory_bytes: None,
            cpu_ms: None,
            counters: Vec::new(),
        };
        let rows = self.children.rows().iter().zip(&self.processes);
        for (row, process) in rows.filter(|(row, _)| (row.role, row.number) == (role, number)) {
            let process: Option<&Process> = process.as_ref();
            for link in process.into_iter().flat_map(|process| &process.links) {
                counters.add(&link.counters);
            }
            if row.duty == Duty::Serves {
                let answers = process.is_some_and(|process| !owes_answer(process));
                numbers.up = row.phase == Phase::Running && answers;
                numbers.restarts = row.restarts;
            }
            if let Some(pid) = process.map(|process| process.child.id()) {
                numbers.memory_bytes = sum(numbers.memory_bytes, os::resident_bytes(pid));
                numbers.cpu_ms = sum(numbers.cpu_ms, os::cpu_ms(pid));
            }
        }
        numbers.counters = counters.values();
        numbers
    }
}

fn sum(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one + two),
        (one, two) => one.or(two),
    }
}
