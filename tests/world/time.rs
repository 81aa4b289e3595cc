//! How time passes in a world, and bytes with it.

use std::time::Duration;

use super::{Process, World};

impl World {
    /// Carries until nothing is on its way.
    pub fn carry_all(&mut self) {
        for _ in 0..1_000_000 {
            if !self.carry() {
                return;
            }
        }
        panic!("the bytes never come to rest");
    }

    /// Lets time pass; deadlines on the way are kept.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now.moment + duration;
        loop {
            let next = self
                .processes
                .iter()
                .flatten()
                .filter_map(|p| p.node.deadline())
                .min();
            let step = next
                .map_or(until, |next| next.min(until))
                .max(self.now.moment);
            self.now.unix_ms += step.since(self.now.moment).as_micros() as u64 / 1000;
            self.now.moment = step;
            self.elapse();
            self.carry_all();
            if step >= until {
                return;
            }
        }
    }

    /// Tells every process whose deadline has come.
    fn elapse(&mut self) {
        for index in 0..self.processes.len() {
            let now = self.now;
            let due = |p: &Process| p.node.deadline().is_some_and(|at| at <= now.moment);
            if let Some(process) = self.processes[index].as_mut().filter(|p| due(p)) {
                process.node.elapsed(now);
                self.drain(index);
            }
        }
    }
}
