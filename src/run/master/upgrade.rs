//! The master's upgrade: the program that lies at its path now is tried, and if it can take over,
//! executed in the master's place. Then it has all children replaced, as a reload does. Does not
//! know what the next program does differently. Invariant: until the trial is passed nothing was
//! given up, and a child that is being started or replaced is never left to the next program.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::base::now::Moment;
use crate::config::Config;
use crate::config::locate::Source;
use crate::net::clock::Clock;
use crate::run::child_process::ChildProcess;
use crate::run::children::Children;
use crate::run::control::Control;
use crate::run::exit::{Exit, Failure};
use crate::run::handed_config::Handed;
use crate::run::inheritance::{ACCEPTED, Heir, Inheritance, Keep, VERSION};
use crate::run::master::upkeep::{FAST_WINDOW, Renewal};
use crate::run::master::{About, CALLERS, CONTROL, Master};
use crate::run::role::seed;
use crate::run::site::{Process, Site};
use crate::run::{exec, log as log_writer, os};

/// How long the next program may take for its trial.
const TRIAL_PATIENCE: Duration = Duration::from_secs(10);
/// Of what it says when it cannot take over.
const WORDS_BYTES_MAX: u64 = 4096;

/// The next program is being tried.
pub(super) struct Trial {
    process: ChildProcess,
    words: File,
    pub due: Moment,
    program: PathBuf,
    source: Source,
    config: Config,
    caller: usize,
    graceful: bool,
}

impl Master {
    /// Tries the program that lies at our path now.
    pub(super) fn upgrade(&mut self, graceful: bool, caller: usize, now: Moment) {
        match self.begin_trial(graceful, caller, now) {
            Ok(trial) => self.trial = Some(trial),
            Err(failure) => self.refuse_upgrade(caller, &failure.message, now),
        }
    }

    fn begin_trial(&self, graceful: bool, caller: usize, now: Moment) -> Result<Trial, Failure> {
        let fail = |words: &str| Failure::new(Exit::Failed, words);
        if self.trial.is_some() {
            return Err(fail("an upgrade is under way"));
        }
        if self.about.source.program.is_embedding() {
            return Err(fail("only lineman itself can be upgraded; use `restart`"));
        }
        let program = self.about.program.clone();
        let program = program.ok_or_else(|| fail("it is not known where the program lies"))?;
        let (source, config) = self.read_again()?;
        let shown = program.display().to_string();
        let cannot = |error: io::Error| Failure::io(&shown, &error);
        let left = self.inheritance(
            (&source, &config),
            graceful,
            caller,
            &mut Keep::default(),
            now,
        );
        let left = left.ok_or_else(|| fail(BUSY))?;
        let words = os::memory_file(&[]).map_err(cannot)?;
        let child = Command::new(&program)
            .arg("take-over-trial")
            .stdin(left.write().map_err(cannot)?)
            .stdout(words.try_clone().map_err(cannot)?)
            .stderr(words.try_clone().map_err(cannot)?)
            .spawn()
            .map_err(cannot)?;
        log::info!(pid = child.id(); "trying {shown}");
        Ok(Trial {
            process: child.into(),
            words,
            due: now + TRIAL_PATIENCE,
            program,
            source,
            config,
            caller,
            graceful,
        })
    }

    /// Looks whether the trial has come to its end; goes no further if it was passed.
    pub(super) fn look_after_trial(&mut self, now: Moment) {
        let Some(trial) = &mut self.trial else {
            return;
        };
        let late = trial.due <= now;
        if late {
            // Its end is told by a signal, as that of any child.
            let _ = trial.process.kill();
        }
        let ended = trial.process.try_wait();
        let Some(mut trial) = self.trial.take_if(|_| !matches!(ended, Ok(None))) else {
            return;
        };
        let said = said(&mut trial.words);
        let why = match ended {
            Ok(Some(status)) if status.success() && said == ACCEPTED => self.execute(&trial, now),
            _ if late => "it has not finished its trial in time".to_string(),
            _ if said.is_empty() => "it failed its trial without a word".to_string(),
            _ => said,
        };
        let message = format!("{}: {why}", trial.program.display());
        self.refuse_upgrade(trial.caller, &message, now);
    }

    fn refuse_upgrade(&mut self, caller: usize, why: &str, now: Moment) {
        let why = why.trim_end();
        log::error!("not upgraded, everything goes on as it was: {why}");
        let words = format!("not upgraded, the server goes on as it was:\n{why}");
        self.refuse(caller, &words, now);
    }

    /// Returns only when it could not be done: why.
    fn execute(&mut self, trial: &Trial, now: Moment) -> String {
        let mut keep = Keep::default();
        let given = (&trial.source, &trial.config);
        let Some(left) = self.inheritance(given, trial.graceful, trial.caller, &mut keep, now)
        else {
            return BUSY.to_string();
        };
        let file = match left.write() {
            Ok(file) => file,
            Err(error) => return error.to_string(),
        };
        keep.note(&file);
        log::info!("going on as {}", trial.program.display());
        self.notify.reloading(os::monotonic_micros());
        log_writer::flush();
        let number = file.as_raw_fd().to_string();
        let mut arguments = vec![trial.program.as_os_str(), OsStr::new("start")];
        if let Some(path) = &trial.source.path {
            arguments.extend([OsStr::new("--config"), path.as_os_str()]);
        }
        arguments.extend([OsStr::new("--take-over"), OsStr::new(&number)]);
        exec::block_signals();
        // What was caught and not taken up yet is for the next program.
        self.signals.take().into_iter().for_each(exec::send_again);
        let error = exec::execute(&trial.program, &arguments, &keep.0);
        exec::unblock_signals();
        self.tell_ready();
        format!("cannot be executed: {error}")
    }

    /// What the next program needs; `None` while a child is being started, replaced or ended.
    fn inheritance(
        &self,
        (source, config): (&Source, &Config),
        graceful: bool,
        caller: usize,
        keep: &mut Keep,
        now: Moment,
    ) -> Option<Inheritance> {
        let (listeners, links, courier) = self.site.leave(keep)?;
        let mut children = Vec::new();
        for (index, leaves_within_ms) in self.children.leave(now)? {
            let row = &self.children.rows()[index];
            let process = self.processes[index].as_ref()?;
            children.push(Heir {
                pid: process.child.id(),
                role: row.role,
                number: row.number,
                life: row.life,
                restarts: row.restarts,
                last_end: row.last_end.as_ref().map(ToString::to_string),
                leaves_within_ms,
                links: process.links.iter().map(|it| it.leave(keep)).collect(),
                pages: process
                    .pages
                    .iter()
                    .map(|it| keep.note(&it.file()))
                    .collect(),
                log: process.log.as_ref().map(|it| keep.note(it)),
            });
        }
        let tickets = self.site.certificates.as_ref().map(|it| it.tickets());
        keep.0.push(self.about.lock);
        Some(Inheritance {
            version: VERSION,
            config: Handed::of(source, config),
            asked: self.about.banner.config.clone(),
            daemon: self.about.banner.daemon,
            graceful,
            lock: self.about.lock,
            control: self.control.leave(keep),
            caller: self.control.leave_caller(caller, keep),
            listeners,
            links,
            courier,
            ledger: keep.note(&self.site.ledger.file()),
            tickets: tickets.map(|it| (it.epoch, it.bytes)),
            children,
            lives: self.children.lives(),
        })
    }

    /// Takes up what the program before left. `fd` takes each descriptor; what `site` and `about`
    /// hold was taken already.
    pub fn resume(
        site: Site,
        about: About,
        config: &Config,
        left: Inheritance,
        fd: &mut dyn FnMut(RawFd) -> Result<OwnedFd, String>,
    ) -> Result<Master, Failure> {
        let fail = |why: String| Failure::new(Exit::Failed, why);
        let clock = Clock::start();
        let seed = seed().map_err(fail)?;
        let now = clock.now().moment;
        let children = Children::restore(&left.children, config.threads, left.lives, seed, now);
        let listener = UnixListener::from(fd(left.control).map_err(fail)?);
        let listener = mio::net::UnixListener::from_std(listener);
        let mut master = Master::assemble(site, about, config, (children, clock), |registry| {
            Control::adopt(listener, registry, CONTROL, CALLERS)
        })?;
        for (index, heir) in left.children.into_iter().enumerate() {
            let process = Process::resume(heir, &master.site.ledger, fd).map_err(fail)?;
            let process = master.watch(index, process);
            master.processes[index] =
                Some(process.map_err(|error| Failure::io("a child cannot be heard", &error))?);
        }
        let mut callers = Vec::new();
        if let Some(caller) = left.caller {
            let stream = UnixStream::from(fd(caller).map_err(fail)?);
            let stream = mio::net::UnixStream::from_std(stream);
            let adopted = master.control.adopt_caller(stream, master.poll.registry());
            // Who asked may have gone; the upgrade goes on.
            callers.extend(adopted.ok());
        }
        let window = if left.graceful {
            config.drain
        } else {
            FAST_WINDOW
        };
        master.told_ready = true;
        master.renewal = Some(Renewal::upgrade(callers));
        master.children.handle_replace_all(true, window, now);
        Ok(master)
    }

    /// Runs a master that was resumed until everything has ended.
    pub fn go_on(&mut self) -> io::Result<Exit> {
        let children = self.processes.len();
        log::info!(version = env!("CARGO_PKG_VERSION"), children; "took over");
        // A death that the program before was told of is told no more.
        let now = self.clock.now().moment;
        self.reap(now);
        self.turn()
    }
}

const BUSY: &str = "a process is being started or replaced; try again when all run";

fn said(words: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = words
        .seek(SeekFrom::Start(0))
        .and_then(|_| words.take(WORDS_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
