//! The measured part of a run: warm-up, then a window in which operations and
//! latencies are counted and processor time is taken at both ends.
//!
//! A scenario only calls `tick` with a clock reading it has anyway and stops
//! when told to.

use std::time::{Duration, Instant};

use crate::Fallible;
use crate::histogram::Histogram;
use crate::options::TargetOptions;
use crate::process::{self, Cpu};
use crate::report::Report;
use crate::target::Target;

/// Name of the metric that tells how many operations a second were done.
pub const RATE: &str = "rate";

/// Name of the metric that tells how busy the rest of the machine was.
pub const OTHERS: &str = "load of others";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Warming,
    Measuring,
    Done,
}

pub struct Meter {
    roots: Vec<u32>,
    warmup: Duration,
    window: Duration,
    started: Instant,
    phase: Phase,
    before: Sample,
    after: Sample,
    operations: u64,
    latency: Histogram,
}

#[derive(Clone)]
struct Sample {
    at: Instant,
    pids: Vec<u32>,
    server: Cpu,
    client: Cpu,
    machine: u64,
}

impl Sample {
    fn take(roots: &[u32]) -> Sample {
        let pids: Vec<u32> = roots
            .iter()
            .flat_map(|root| process::family_of(*root))
            .collect();
        Sample {
            server: process::cpu_of(&pids),
            client: process::cpu_of(&[std::process::id()]),
            machine: process::machine_busy_nanos(),
            at: Instant::now(),
            pids,
        }
    }
}

impl Meter {
    /// The warm-up starts now.
    pub fn new(target: &Target, options: &TargetOptions) -> Meter {
        let roots = target.roots();
        let now = Sample::take(&roots);
        Meter {
            roots,
            warmup: Duration::from_secs_f64(options.warmup),
            window: Duration::from_secs_f64(options.seconds),
            started: now.at,
            phase: Phase::Warming,
            before: now.clone(),
            after: now,
            operations: 0,
            latency: Histogram::new(),
        }
    }

    /// Moves to the phase that `now` belongs to.
    #[inline]
    pub fn tick(&mut self, now: Instant) -> Phase {
        match self.phase {
            Phase::Warming if now.duration_since(self.started) >= self.warmup => {
                self.before = Sample::take(&self.roots);
                self.operations = 0;
                self.latency.clear();
                self.phase = Phase::Measuring;
            }
            Phase::Measuring if now.duration_since(self.before.at) >= self.window => {
                self.after = Sample::take(&self.roots);
                self.phase = Phase::Done;
            }
            _ => {}
        }
        self.phase
    }

    /// Counts one operation. What ends after the window is not counted: the
    /// scenarios go on until nothing is outstanding, to find what got lost.
    #[inline]
    pub fn count(&mut self) {
        self.operations += u64::from(self.phase != Phase::Done);
    }

    #[inline]
    pub fn record(&mut self, waited: Duration) {
        if self.phase != Phase::Done {
            self.latency.record(waited.as_nanos() as u64);
        }
    }

    /// Writes everything measured into `report`; `operation` names what was
    /// counted, in the plural.
    pub fn conclude(&self, report: &mut Report, operation: &'static str) -> Fallible<()> {
        if self.operations == 0 {
            return Err("nothing was completed within the measured time".into());
        }
        let seconds = self.after.at.duration_since(self.before.at).as_secs_f64();
        let operations = self.operations as f64;
        report.add(RATE, operation, operations / seconds);
        if !self.latency.is_empty() {
            let micros = |nanos: u64| nanos as f64 / 1e3;
            report.add("latency p50", "µs", micros(self.latency.quantile(0.5)));
            report.add("latency p99", "µs", micros(self.latency.quantile(0.99)));
            report.add("latency p99.9", "µs", micros(self.latency.quantile(0.999)));
            report.add("latency max", "µs", micros(self.latency.highest()));
        }
        let server = self.after.server.since(self.before.server);
        if !self.before.pids.is_empty() {
            if self.before.pids != self.after.pids {
                return Err("the server's processes changed during the run".into());
            }
            report.add(
                "server CPU per operation",
                "µs",
                server.nanos as f64 / 1e3 / operations,
            );
            let ticks = (server.user_nanos + server.system_nanos).max(1) as f64;
            report.add(
                "server CPU in user mode",
                "%",
                server.user_nanos as f64 / ticks * 100.0,
            );
        }
        self.add_load(report, server, seconds);
        Ok(())
    }

    /// How busy everyone was: says whether client or server was the limit, and
    /// whether the machine was quiet enough to believe the rest.
    fn add_load(&self, report: &mut Report, server: Cpu, seconds: f64) {
        let client = self.after.client.since(self.before.client).nanos;
        let machine = self.after.machine.saturating_sub(self.before.machine);
        let others = machine.saturating_sub(client + server.nanos);
        let cores = |nanos: u64| nanos as f64 / 1e9 / seconds;
        report.add("server load", "cores", cores(server.nanos));
        report.add("client load", "cores", cores(client));
        report.add(OTHERS, "cores", cores(others));
        report.add("operations", "in the measured time", self.operations as f64);
    }
}
