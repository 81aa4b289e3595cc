//! The verb `start`: everything between a checked configuration and the master's loop. Owns the
//! order of it: lock, limits, sockets, log. Does not know what the loop does. Invariant: whatever
//! fails here fails before a client was accepted, and is told to whoever typed the command.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::config::locate::Source;
use crate::net::clock::Clock;
use crate::run::banner::Banner;
use crate::run::daemon::{Detached, Readiness, detach};
use crate::run::exit::{Exit, Failure};
use crate::run::handover::Activated;
use crate::run::log_file::LogFile;
use crate::run::master::{About, Master};
use crate::run::rundir::{Lock, RunDir};
use crate::run::site::Site;
use crate::run::{exec, log as log_writer, os, secrets};

/// Runs `start`; with `daemon` it returns as soon as the server is ready.
///
/// `asked` is the configuration file as typed. The program must have one thread.
pub fn start(source: &Source, asked: Option<&Path>, daemon: bool) -> Result<Exit, Failure> {
    // Before the working directory changes.
    let program = exec::program();
    let config = secrets::config(source)?;
    if !daemon {
        return serve(source, asked, config, program, None);
    }
    match detach().map_err(|error| Failure::io("cannot detach", &error))? {
        Detached::Command { code, text } => match Exit::from_code(code) {
            Exit::Done => {
                print!("{text}");
                Ok(Exit::Done)
            }
            exit => Err(Failure::new(exit, text)),
        },
        Detached::Daemon(readiness) => serve(source, asked, config, program, Some(readiness)),
    }
}

fn serve(
    source: &Source,
    asked: Option<&Path>,
    config: Config,
    program: Option<PathBuf>,
    readiness: Option<Readiness>,
) -> Result<Exit, Failure> {
    os::restrict_new_files();
    os::refuse_huge_pages();
    // Before anything opens a descriptor.
    let activated = Activated::receive();
    let dir = RunDir::of(source);
    let lock = match Lock::take(&dir) {
        Ok(lock) => lock,
        Err(failure) => return refuse(failure, readiness),
    };
    let mut master = None;
    let activated = activated.map_err(|why| Failure::new(Exit::Failed, why));
    let daemon = readiness.is_some();
    let prepared = activated.and_then(|activated| {
        prepare(
            source,
            asked,
            &config,
            (&dir, &lock, program),
            activated,
            daemon,
        )
    });
    let mut failed = None;
    let exit = match prepared {
        Ok(prepared) => {
            let master = master.insert(prepared);
            let exit = master.run(readiness);
            failed = master.take_failure();
            exit.map_err(|error| Failure::io("the master's loop broke", &error))
        }
        Err(failure) => refuse(failure, readiness),
    };
    end(&dir, lock, master);
    // Whoever hears of it may start the next one at once.
    match failed {
        Some((failure, readiness)) => refuse(failure, readiness),
        None => exit,
    }
}

/// Lets go of everything, in the order in which the next server asks for it.
pub(super) fn end(dir: &RunDir, lock: Lock, master: Option<Master>) {
    log_writer::flush();
    dir.clean();
    lock.release();
    // Its connections close with it, and by that `stop` knows that the next may start.
    drop(master);
}

/// Tells the failure to whoever waits for it, which is one of two.
fn refuse(failure: Failure, readiness: Option<Readiness>) -> Result<Exit, Failure> {
    if let Some(readiness) = readiness {
        readiness.failed(&failure);
    }
    Err(failure)
}

fn prepare(
    source: &Source,
    asked: Option<&Path>,
    config: &Config,
    (dir, lock, program): (&RunDir, &Lock, Option<PathBuf>),
    mut activated: Activated,
    daemon: bool,
) -> Result<Master, Failure> {
    let descriptors = os::raise_descriptor_limit();
    let mut site = Site::open(config, source, dir, &mut activated)?;
    let asked = asked.map(|path| path.display().to_string());
    let about = equip(
        &mut site,
        (source, config),
        (asked, daemon),
        (dir, lock, program),
    )?;
    if let Err(error) = descriptors {
        log::warn!("the number of descriptors stays as it is: {error}");
    }
    for warning in config.warnings() {
        log::warn!("{warning}");
    }
    for address in activated.left() {
        log::warn!(
            "{address} was handed over, but no [[listen]] names it, so nobody listens there"
        );
    }
    Master::new(site, about, config, dir, Clock::start())
}

/// Starts the log and puts together what is told of the server. `asked` is the configuration file
/// as typed.
pub(super) fn equip(
    site: &mut Site,
    (source, config): (&Source, &Config),
    (asked, daemon): (Option<String>, bool),
    (dir, lock, program): (&RunDir, &Lock, Option<PathBuf>),
) -> Result<About, Failure> {
    let own_log = daemon.then(|| dir.log_file());
    let log_path = config.log.file.clone().or(own_log);
    let log_file = log_path.clone().map(LogFile::open).transpose()?;
    site.log_is_file = log_file.is_some();
    // Until the master listens to them. The log's thread is never to take one: it would be lost when
    // another program is executed.
    exec::block_signals();
    log_writer::start("master", &config.log);
    log_writer::report_panics();
    let banner = Banner {
        program: std::env::args()
            .next()
            .unwrap_or_else(|| "lineman".to_string()),
        user: config
            .user
            .clone()
            .unwrap_or_else(|| os::user_name(os::effective_uid())),
        workers: config.workers,
        threads: config.threads,
        courier: config.has_courier(),
        listen: site.listen_status(config),
        config: asked,
        config_name: source.name(),
        demo: config.has_demo_app(),
        log_file: log_path.map(|path| path.display().to_string()),
        daemon,
    };
    Ok(About {
        banner,
        run_dir: dir.path().display().to_string(),
        source: source.clone(),
        log_file,
        program,
        lock: lock.as_fd().as_raw_fd(),
    })
}
