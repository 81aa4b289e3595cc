//! The master's loop: turns signals, reports, deaths and commands into events for the table of
//! children, and carries out what the table decides. Never reads a byte a client sent. Invariant:
//! it never waits for a child or for a command; each gets its turn when it has something to say.

mod commands;
mod scrape;
mod upgrade;
mod upkeep;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Events, Interest, Poll, Registry, Token};

use crate::base::now::{Moment, Now};
use crate::config::Config;
use crate::config::locate::Source;
use crate::net::clock::Clock;
use crate::run::banner::Banner;
use crate::run::certificates::Certificates;
use crate::run::children::{
    Action, Child, Children, Duty, End, LEAVE_PATIENCE, Phase, Role, STOP_PATIENCE,
};
use crate::run::control::Control;
use crate::run::daemon::Readiness;
use crate::run::exec;
use crate::run::exit::{Exit, Failure};
use crate::run::link::Link;
use crate::run::log_file::LogFile;
use crate::run::master::commands::{Gathering, Survey};
use crate::run::master::scrape::Scrapes;
use crate::run::master::upgrade::Trial;
use crate::run::master::upkeep::{Beats, Renewal, start_patience};
use crate::run::notify::Notify;
use crate::run::role::seed;
use crate::run::rundir::RunDir;
use crate::run::signals::Signals;
use crate::run::site::{Process, Site};
use crate::run::status::ListenStatus;
use crate::run::totals::Totals;

const SIGNALS: Token = Token(0);
const CONTROL: Token = Token(1);
/// Pairs to reactors: children in the order of the table, `REACTORS_MAX` tokens each.
const LINKS: usize = 2;
const REACTORS_MAX: usize = 64;
/// Commands, counted up from here.
const CALLERS: usize = 1 << 20;

/// A banner that waits longer than this would look like a hang.
const BANNER_PATIENCE: Duration = Duration::from_secs(5);
/// `start -d` promises that the server is ready, so it waits longer and then gives up.
const DAEMON_PATIENCE: Duration = Duration::from_secs(20);

/// What the server is, for whoever asks.
pub struct About {
    pub banner: Banner,
    pub run_dir: String,
    /// Where the configuration came from, to be read again.
    pub source: Source,
    /// `None` when the log goes to standard error as it is.
    pub log_file: Option<LogFile>,
    /// Where the program lies, to be executed anew.
    pub program: Option<PathBuf>,
    /// The lock on the run directory, open for as long as we run.
    pub lock: RawFd,
}

/// Somebody waits to hear that the server is ready.
struct Announcement {
    readiness: Option<Readiness>,
    due: Moment,
}

pub struct Master {
    poll: Poll,
    clock: Clock,
    started: Now,
    site: Site,
    about: About,
    signals: Signals,
    control: Control,
    children: Children,
    /// By the index of the child.
    processes: Vec<Option<Process>>,
    announcement: Option<Announcement>,
    survey: Option<Survey>,
    gathering: Option<Gathering>,
    /// Callers that wait for the courier, and until when.
    calls: BTreeMap<usize, Moment>,
    scrapes: Scrapes,
    totals: Totals,
    renewal: Option<Renewal>,
    trial: Option<Trial>,
    beats: Beats,
    notify: Notify,
    told_ready: bool,
    config: Config,
    exit: Exit,
    /// What goes with it, and who else is to be told.
    failure: Option<(Failure, Option<Readiness>)>,
}

impl Master {
    pub fn new(
        site: Site,
        about: About,
        config: &Config,
        dir: &RunDir,
        clock: Clock,
    ) -> Result<Master, Failure> {
        let seed = seed().map_err(|why| Failure::new(Exit::Failed, why))?;
        let now = clock.now().moment;
        let mut children = Children::new(config.workers, config.threads, seed, now);
        if config.has_courier() {
            children = children.with_courier(now);
        }
        let path = dir.control_socket();
        Master::assemble(site, about, config, (children, clock), |registry| {
            Control::open(&path, registry, CONTROL, CALLERS)
        })
    }

    fn assemble(
        site: Site,
        about: About,
        config: &Config,
        (mut children, clock): (Children, Clock),
        open_control: impl FnOnce(&Registry) -> io::Result<Control>,
    ) -> Result<Master, Failure> {
        let fail = |error: io::Error| Failure::io("cannot set up the master", &error);
        let poll = Poll::new().map_err(fail)?;
        let mut signals = Signals::watch().map_err(fail)?;
        exec::unblock_signals();
        let registry = poll.registry();
        registry
            .register(&mut signals.stream, SIGNALS, Interest::READABLE)
            .map_err(fail)?;
        let control = open_control(registry)
            .map_err(|error| Failure::io("cannot open the control socket", &error))?;
        let started = clock.now();
        children.set_start_patience(start_patience(config.watchdog));
        let processes = children.rows().iter().map(|_| None).collect();
        Ok(Master {
            poll,
            clock,
            started,
            site,
            about,
            signals,
            control,
            children,
            processes,
            announcement: None,
            survey: None,
            gathering: None,
            calls: BTreeMap::new(),
            scrapes: Scrapes::default(),
            totals: Totals::default(),
            renewal: None,
            trial: None,
            beats: Beats::new(config.watchdog, started.moment),
            notify: Notify::new(started.moment),
            told_ready: false,
            config: config.clone(),
            exit: Exit::Done,
            failure: None,
        })
    }

    /// Runs until everything has ended. Ready is told to `readiness`, or printed.
    pub fn run(&mut self, readiness: Option<Readiness>) -> io::Result<Exit> {
        let patience = match readiness {
            Some(_) => DAEMON_PATIENCE,
            None => BANNER_PATIENCE,
        };
        let due = self.started.moment + patience;
        self.announcement = Some(Announcement { readiness, due });
        let config = self.about.banner.config_name.as_str();
        log::info!(version = env!("CARGO_PKG_VERSION"), config; "starting");
        self.turn()
    }

    /// Why it has ended, if it was not told to, and who waits to hear of it.
    pub fn take_failure(&mut self) -> Option<(Failure, Option<Readiness>)> {
        self.failure.take()
    }

    fn turn(&mut self) -> io::Result<Exit> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = self.clock.now().moment;
            self.children.handle_elapsed(now);
            self.control.handle_elapsed(now);
            if let Some(certificates) = &mut self.site.certificates {
                certificates.handle_elapsed(now);
            }
            self.announce(now);
            if !self.told_ready && self.children.all_running() {
                self.told_ready = true;
                self.tell_ready();
            }
            self.answer_survey(now);
            self.answer_gathering(now);
            self.refuse_late_calls(now);
            self.look_after(now);
            self.notify.handle_elapsed(now);
            if self.carry_out(now) {
                log::info!("stopped");
                return Ok(self.exit);
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = self.clock.now().moment;
            for event in &events {
                self.handle_event(event.token(), now);
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let deadlines = [
            self.children.deadline(),
            self.control.deadline(),
            self.announcement
                .as_ref()
                .map(|announcement| announcement.due),
            self.survey.as_ref().map(|survey| survey.due),
            self.trial.as_ref().map(|trial| trial.due),
            self.gathering.as_ref().map(|gathering| gathering.due),
            self.calls.values().min().copied(),
            Some(self.beats.due),
            self.notify.deadline(),
            self.site.certificates.as_ref().map(Certificates::deadline),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        let wait = next.since(self.clock.now().moment);
        // The kernel counts milliseconds; rounding down would spin through the last one.
        Some(wait + Duration::from_millis(1))
    }

    fn handle_event(&mut self, token: Token, now: Moment) {
        match token {
            SIGNALS => self.handle_signals(now),
            CONTROL => self.control.accept(self.poll.registry(), now),
            Token(id) if id >= CALLERS => {
                if let Some(command) = self.control.handle_ready(id, now) {
                    self.handle_command(id, command, now);
                }
            }
            Token(id) => {
                let id = id - LINKS;
                self.handle_report(id / REACTORS_MAX, id % REACTORS_MAX, now);
            }
        }
    }

    fn handle_signals(&mut self, now: Moment) {
        for signal in self.signals.take() {
            match signal {
                libc::SIGCHLD => self.reap(now),
                libc::SIGTERM => self.stop("SIGTERM", now),
                libc::SIGINT => self.stop("SIGINT", now),
                libc::SIGQUIT => self.stop_gracefully("SIGQUIT", now),
                libc::SIGHUP => self.hang_up(now),
                libc::SIGUSR1 => self.reload("SIGUSR1", false, None, now),
                libc::SIGUSR2 => self.reload("SIGUSR2", true, None, now),
                _ => {}
            }
        }
    }

    /// New connections get the certificates that are on the disk now; nobody is disturbed.
    fn reload_certificates(&mut self) {
        let Some(certificates) = &mut self.site.certificates else {
            return;
        };
        match certificates.reload() {
            Ok(()) => {
                log::info!("certificates read anew");
                for process in self.processes.iter_mut().flatten() {
                    process.links.iter_mut().for_each(Link::read_certificates);
                }
            }
            Err(why) => log::error!("the certificates in use stay: {why}"),
        }
    }

    fn stop(&mut self, why: &str, now: Moment) {
        if !self.children.is_stopping() {
            log::info!(reason = why; "stopping");
            self.notify.stopping(STOP_PATIENCE * 2);
        }
        self.children.handle_stop(None, now);
    }

    fn stop_gracefully(&mut self, why: &str, now: Moment) {
        if !self.children.is_stopping() {
            let seconds = self.config.drain.as_secs();
            log::info!(reason = why; "stopping; clients are let go within {seconds} s");
            self.notify
                .stopping(self.config.drain + LEAVE_PATIENCE + STOP_PATIENCE);
        }
        self.children.handle_stop(Some(self.config.drain), now);
    }

    /// Looks at our own children only: a master that is the first process of a container inherits
    /// others.
    fn reap(&mut self, now: Moment) {
        for index in 0..self.processes.len() {
            let Some(process) = &mut self.processes[index] else {
                continue;
            };
            let end = match process.child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => match status.signal() {
                    Some(signal) => End::Signal(signal),
                    None => End::Exit(status.code().unwrap_or(-1)),
                },
                Err(error) => End::NotStarted(error.to_string()),
            };
            self.bury(index, end, now);
        }
    }

    fn bury(&mut self, index: usize, end: End, now: Moment) {
        let pid = self.processes[index]
            .as_ref()
            .map(|process| process.child.id());
        self.settle_accounts(index);
        // The pairs close with it.
        self.processes[index] = None;
        let (was, mut told) = (self.children.rows()[index].phase, end.to_string());
        self.children.handle_ended(index, end, now);
        let row = &self.children.rows()[index];
        let pid = pid.unwrap_or(0);
        match row.phase {
            Phase::Waiting(at) if was != Phase::Stopping => {
                if let Some(end) = &row.last_end {
                    told = end.to_string();
                }
                let wait_ms = at.since(now).as_millis() as u64;
                log::warn!(pid, replaced_in_ms = wait_ms; "{row} ended: {told}");
                if at > now {
                    self.rest(index);
                }
            }
            _ if matches!(was, Phase::Starting | Phase::Running) => {
                log::warn!(pid; "{row} ended: {told}");
            }
            _ => log::info!(pid; "{row} ended: {told}"),
        }
    }

    /// A worker that will not be there for a while gets no connections meanwhile, if there are
    /// others to get them. What the kernel had queued for it is lost, which is why this waits
    /// until it died twice.
    fn rest(&mut self, index: usize) {
        let rows = self.children.rows();
        let others = rows.iter().enumerate();
        let mut others = others.filter(|(other, row)| *other != index && row.role == Role::Worker);
        if rows[index].role == Role::Worker && others.any(|(_, row)| row.is_alive()) {
            log::info!("{}: its listeners rest until it is back", rows[index]);
            self.site.rest(rows[index].number);
        }
    }

    fn handle_report(&mut self, index: usize, reactor: usize, now: Moment) {
        let process = self.processes.get_mut(index).and_then(Option::as_mut);
        let Some(link) = process.and_then(|process| process.links.get_mut(reactor)) else {
            return;
        };
        link.flush();
        let heard = link.read();
        if let Some(Err(why)) = &heard.certificates {
            let row = &self.children.rows()[index];
            log::error!("{row} keeps the certificates it had: {why}");
        }
        if heard.ready {
            let was = self.children.rows()[index].phase;
            self.children.handle_ready(index, now);
            let row = &self.children.rows()[index];
            if was != Phase::Running && row.phase == Phase::Running {
                log::info!(restarts = row.restarts; "{row} runs");
            }
        }
        for answer in heard.answers {
            self.answer_call(answer, now);
        }
        if let Some(why) = heard.unfit {
            self.take_unfit(index, why, now);
        }
        if heard.gather {
            self.begin_scrape((index, reactor), now);
        }
        if heard.lost {
            self.children.handle_link_lost(index, now);
        }
    }

    /// A child cannot serve as it is configured. A server that has not been ready yet never will be,
    /// and ends; another one goes on without that child, and tries again.
    fn take_unfit(&mut self, index: usize, why: String, now: Moment) {
        if self.told_ready {
            return self.children.condemn(index, why, now);
        }
        log::error!("{}: {why}", self.children.rows()[index]);
        let failure = Failure::new(Exit::BadConfig, why);
        self.exit = failure.exit;
        let announcement = self.announcement.take();
        self.failure = Some((failure, announcement.and_then(|it| it.readiness)));
        self.stop("it cannot serve as it is configured", now);
    }

    /// Tells whoever waits that the server is ready, or that it is not in time.
    fn announce(&mut self, now: Moment) {
        let ready = self.children.all_running();
        let Some(announcement) = self.announcement.take_if(|it| ready || it.due <= now) else {
            return;
        };
        let rows = self.children.rows().iter();
        let missing: Vec<String> = rows
            .filter(|row| row.duty == Duty::Serves && row.phase != Phase::Running)
            .map(Child::to_string)
            .collect();
        if self.children.is_stopping() {
            return;
        }
        match announcement.readiness {
            Some(readiness) if ready => readiness.ready(&self.about.banner.text(&[])),
            Some(readiness) => {
                let seconds = DAEMON_PATIENCE.as_secs();
                let missing = missing.join(", ");
                let mut message = format!("not ready after {seconds} s: {missing}");
                if let Some(file) = &self.about.banner.log_file {
                    message.push_str(&format!("; {file} tells more"));
                }
                readiness.failed(&Failure::new(Exit::Failed, message));
                self.exit = Exit::Failed;
                self.stop("not ready in time", now);
            }
            None => {
                // Nobody may be reading, which is no reason not to serve.
                let _ = io::stdout().write_all(self.about.banner.text(&missing).as_bytes());
                let _ = io::stdout().flush();
            }
        }
        if ready {
            log::info!(listen = self.urls().as_str(); "ready");
        }
    }

    /// Also after a reload, however it went: whoever waits for its end waits for this.
    fn tell_ready(&self) {
        let workers = self.config.workers;
        let status = format!("{workers} workers serve {}", self.urls());
        self.notify.ready(&status);
    }

    fn urls(&self) -> String {
        let urls = self
            .about
            .banner
            .listen
            .iter()
            .map(|listen| listen.url.as_str());
        urls.collect::<Vec<_>>().join(",")
    }

    /// Returns whether everything is over.
    fn carry_out(&mut self, now: Moment) -> bool {
        while let Some(action) = self.children.poll_action() {
            match action {
                Action::Start(index) => self.start(index, now),
                Action::Order(index) => self.links(index).for_each(Link::stop),
                Action::Drain(index, window) => {
                    log::info!("{} lets its clients go", self.children.rows()[index]);
                    self.links(index).for_each(|link| link.drain(window));
                }
                Action::Unlisten => self.site.unlisten(),
                Action::Kill(index) => self.kill(index),
                Action::Finish => return true,
            }
        }
        false
    }

    fn links(&mut self, index: usize) -> impl Iterator<Item = &mut Link> {
        let process = self.processes.get_mut(index).and_then(Option::as_mut);
        process.into_iter().flat_map(|process| &mut process.links)
    }

    fn start(&mut self, index: usize, now: Moment) {
        let started = self.site.start(&self.children, index);
        if self.processes.len() <= index {
            self.processes.resize_with(index + 1, || None);
        }
        match started.and_then(|process| self.watch(index, process)) {
            Ok(process) => {
                let row = &self.children.rows()[index];
                log::debug!(pid = process.child.id(); "{row} started");
                self.processes[index] = Some(process);
                self.children.handle_started(index, now);
            }
            Err(error) => self.bury(index, End::NotStarted(error.to_string()), now),
        }
    }

    fn watch(&self, index: usize, mut process: Process) -> io::Result<Process> {
        for (reactor, link) in process.links.iter_mut().enumerate() {
            let token = Token(LINKS + index * REACTORS_MAX + reactor);
            let both = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(link.stream(), token, both);
            if let Err(error) = registered {
                // A child nobody listens to must not live.
                let _ = process.child.kill();
                let _ = process.child.wait();
                return Err(error);
            }
        }
        Ok(process)
    }

    fn kill(&mut self, index: usize) {
        if self.children.rows()[index].phase == Phase::Starting {
            self.tell_threads(index);
        }
        if let Some(process) = &mut self.processes[index] {
            let row = &self.children.rows()[index];
            match &row.condemned {
                Some(why) => log::error!(pid = process.child.id(); "{row}: {why}"),
                None => log::warn!(pid = process.child.id(); "{row} does not end and is killed"),
            }
            // It may have ended a moment ago, which is as good.
            let _ = process.child.kill();
        }
    }

    fn listen_status(&self) -> Vec<ListenStatus> {
        let mut listen = self.about.banner.listen.clone();
        if let Some(certificates) = &self.site.certificates {
            for (index, row) in listen.iter_mut().enumerate() {
                row.certificates = certificates.status(index);
            }
        }
        listen
    }
}
