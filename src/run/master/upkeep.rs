//! What the master does while nothing happens, and when the configuration changes: reloading,
//! listening for signs of life, and the ceiling of memory. Decides little; the table of children
//! does. Invariant: a configuration that cannot be taken up changes nothing.

use std::time::Duration;

use crate::base::now::Moment;
use crate::config::Config;
use crate::config::diff;
use crate::config::locate::Source;
use crate::run::children::{Phase, Role, WELL_AFTER};
use crate::run::control::{Done, Failed};
use crate::run::exit::{Exit, Failure};
use crate::run::master::Master;
use crate::run::os;
use crate::run::pass_fd;
use crate::run::replacing::Outcome;
use crate::run::secrets;
use crate::run::site::Given;
use crate::run::stack;

/// Signs of life are asked for this often.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How long a process that is stuck has to write down where. It ends as soon as it has; this is for
/// one that cannot.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Over how long a reload in a hurry lets clients go.
pub(super) const FAST_WINDOW: Duration = Duration::from_secs(2);

/// Whoever waits for a reload, and what to go back to if it fails at the first worker.
pub(super) struct Renewal {
    callers: Vec<usize>,
    former: Option<Former>,
    /// What it was, once it is done.
    done: &'static str,
}

impl Renewal {
    /// There is no way back from an upgrade.
    pub fn upgrade(callers: Vec<usize>) -> Renewal {
        Renewal {
            callers,
            former: None,
            done: concat!("upgraded to ", env!("CARGO_PKG_VERSION")),
        }
    }
}

struct Former {
    given: Given,
    config: Config,
    source: Source,
}

/// When to listen for signs of life, and how many may be missed.
pub(super) struct Beats {
    pub due: Moment,
    /// `None`: nobody is ended for being silent.
    missed_max: Option<u32>,
}

/// How long a child may take until it serves: it has more to do than one that serves already.
pub(super) fn start_patience(watchdog: Option<Duration>) -> Option<Duration> {
    watchdog.map(|limit| limit * 2)
}

impl Beats {
    pub fn new(watchdog: Option<Duration>, now: Moment) -> Beats {
        // Rounded up: silence is shorter than it looks by up to one beat.
        let missed = |limit: Duration| limit.as_secs().div_ceil(BEAT_EVERY.as_secs()) as u32;
        Beats {
            due: now + BEAT_EVERY,
            missed_max: watchdog.map(missed),
        }
    }
}

impl Master {
    /// SIGHUP: a reload if the configuration has changed. Else the log file is opened again and
    /// certificates are read anew, and no connection notices.
    pub(super) fn hang_up(&mut self, now: Moment) {
        if self.is_config_unchanged() {
            // Why it could not be is in the log, here and at a reload.
            let _ = self.reopen_log();
            self.reload_certificates();
        } else {
            self.reload("SIGHUP", false, None, now);
        }
    }

    /// After a rotation everybody goes on in the file that has the log's name now. Returns whether
    /// that is another one, or why it stays the one it was.
    pub(super) fn reopen_log(&mut self) -> Result<bool, String> {
        let Some(log_file) = &mut self.about.log_file else {
            return Ok(false);
        };
        match log_file.reopen() {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => {
                let why = format!("the log goes on in the file it had: {error}");
                log::error!("{why}");
                return Err(why);
            }
        }
        for (row, process) in self.children.rows().iter().zip(&self.processes) {
            let sent = process.iter().flat_map(|it| &it.log);
            for error in sent.filter_map(|it| pass_fd::send(it, log_file.file()).err()) {
                log::warn!("{row} goes on in the log file it had: {error}");
            }
        }
        log::info!("the log goes on in a new file");
        Ok(true)
    }

    fn is_config_unchanged(&self) -> bool {
        let source = &self.about.source;
        let Some(path) = &source.path else {
            return true;
        };
        let found = Source::find(Some(path), &source.program).ok();
        let found = found.filter(|found| found.text == source.text);
        let config = found.and_then(|found| found.config(&secrets::fetch).ok());
        config.is_some_and(|config| config.kept == self.config.kept)
    }

    /// Reads the configuration again and begins to replace all workers.
    pub(super) fn reload(&mut self, why: &str, graceful: bool, caller: Option<usize>, now: Moment) {
        let _ = self.reopen_log();
        if let Err(failure) = self.renew(why, graceful, caller, now) {
            let message = failure.message.trim_end().to_string();
            log::error!("not reloaded, everything goes on as it was: {message}");
            if let Some(caller) = caller {
                let failed = Failed {
                    error: format!("not reloaded, the server goes on as it was:\n{message}"),
                    exit: failure.exit as u8,
                };
                self.control.answer(caller, &failed, now);
            }
        }
    }

    fn renew(
        &mut self,
        why: &str,
        graceful: bool,
        caller: Option<usize>,
        now: Moment,
    ) -> Result<(), Failure> {
        let (source, config) = self.read_again()?;
        let switchboard = diff::concerns_switchboard(&self.config, &config);
        let given = self.site.configure(&config, &source)?;
        let window = if graceful { config.drain } else { FAST_WINDOW };
        log::info!(reason = why, switchboard; "reloading");
        self.notify.reloading(os::monotonic_micros());
        let former = Some(Former {
            given,
            config: std::mem::replace(&mut self.config, config),
            source: std::mem::replace(&mut self.about.source, source),
        });
        match &mut self.renewal {
            // What was there before the first of several is what to go back to.
            Some(renewal) => renewal.callers.extend(caller),
            None => {
                let callers = caller.into_iter().collect();
                self.renewal = Some(Renewal {
                    callers,
                    former,
                    done: "reloaded",
                });
            }
        }
        for warning in self.config.warnings() {
            log::warn!("{warning}");
        }
        self.take_up_config(now);
        self.children.handle_replace_all(switchboard, window, now);
        Ok(())
    }

    /// The configuration as it is written now, if a running server can take it up.
    pub(super) fn read_again(&self) -> Result<(Source, Config), Failure> {
        if self.children.is_stopping() {
            return Err(Failure::new(Exit::Failed, "the server stops"));
        }
        let bad = |words: String| Failure::new(Exit::BadConfig, words);
        let path = self.about.source.path.as_deref();
        let source = match path {
            Some(path) => Source::find(Some(path), &self.about.source.program)
                .map_err(|error| bad(error.0))?,
            None => self.about.source.clone(),
        };
        let config = secrets::config(&source)?;
        let fixed = diff::fixed(&self.config, &config);
        if !fixed.is_empty() {
            let names = fixed.join(", ");
            let message = format!("{names}: cannot change while the server runs; use `restart`");
            return Err(bad(message));
        }
        Ok((source, config))
    }

    /// What the master itself does differently.
    fn take_up_config(&mut self, now: Moment) {
        log::set_max_level(self.config.log.level);
        self.about.banner.listen = self.site.listen_status(&self.config);
        self.beats.missed_max = Beats::new(self.config.watchdog, now).missed_max;
        let patience = start_patience(self.config.watchdog);
        self.children.set_start_patience(patience);
    }

    /// A plan has come to its end.
    fn conclude(&mut self, outcome: &Outcome, now: Moment) {
        let Outcome { replaced, failure } = outcome;
        let renewal = self.renewal.take();
        match failure {
            None => {
                let done = renewal.as_ref().map_or("reloaded", |it| it.done);
                log::info!(replaced; "{done}");
            }
            Some(why) => log::error!(replaced; "reload given up: {why}"),
        }
        let Some(mut renewal) = renewal else {
            return;
        };
        if !self.children.is_stopping() {
            self.tell_ready();
        }
        if failure.is_some()
            && *replaced == 0
            && let Some(former) = renewal.former.take()
        {
            // Nobody runs with the new one, so nobody is to start with it.
            self.site.give(former.given);
            self.config = former.config;
            self.about.source = former.source;
            self.take_up_config(now);
        }
        for caller in renewal.callers {
            match failure {
                None => {
                    let done = format!("{}: {replaced} processes replaced", renewal.done);
                    self.control.answer(caller, &Done { done }, now);
                }
                Some(why) => self.refuse(caller, why, now),
            }
        }
    }

    /// Everything that is due.
    pub(super) fn look_after(&mut self, now: Moment) {
        self.look_after_trial(now);
        while let Some(outcome) = self.children.poll_outcome() {
            self.conclude(&outcome, now);
        }
        if self.beats.due > now {
            return;
        }
        // Counted from now: when we were held up ourselves, nobody is to pay for it.
        self.beats.due = now + BEAT_EVERY;
        for index in 0..self.processes.len() {
            self.listen_for_life(index, now);
            self.weigh(index, now);
        }
    }

    fn listen_for_life(&mut self, index: usize, now: Moment) {
        let phase = self.children.rows()[index].phase;
        if !matches!(phase, Phase::Running | Phase::Draining) {
            return;
        }
        let missed = self.links(index).map(|link| link.beat()).max().unwrap_or(0);
        let Some(limit) = self.beats.missed_max.filter(|limit| missed >= *limit) else {
            return;
        };
        let seconds = u64::from(limit) * BEAT_EVERY.as_secs();
        if self.children.rows()[index].condemned.is_none() {
            self.tell_threads(index);
            if let Some(process) = &self.processes[index] {
                stack::ask(process.child.id());
            }
        }
        let why = format!("stuck: no sign of life for {seconds} s");
        self.children.condemn(index, why, now + LAST_WORDS);
    }

    /// What a child does that does not do what it should.
    pub(super) fn tell_threads(&self, index: usize) {
        let row = &self.children.rows()[index];
        let Some(process) = &self.processes[index] else {
            return;
        };
        let pid = process.child.id();
        for thread in os::threads_of(pid) {
            log::error!(pid; "{row} is stuck: {thread}");
        }
    }

    fn weigh(&mut self, index: usize, now: Moment) {
        let row = &self.children.rows()[index];
        let (Some(limit), Some(process)) =
            (self.config.worker_memory_bytes, &self.processes[index])
        else {
            return;
        };
        // One that is young would be too heavy again at once, and the next, and the next.
        let fit = row.role == Role::Worker && now.since(row.started_at) >= WELL_AFTER;
        let Some(bytes) = os::resident_bytes(process.child.id()).filter(|it| fit && it > &limit)
        else {
            return;
        };
        let why = format!("{} MB of memory, more than {}", bytes >> 20, limit >> 20);
        let words = format!("{row}: {why}; it is replaced");
        let window = self.config.drain;
        if self.children.handle_replace(index, &why, window, now) {
            log::warn!("{words}");
        }
    }
}
