//! The verb `start`: everything between a checked configuration and the master's loop. Owns the
//! order of it: lock, limits, sockets, log. Does not know what the loop does. Invariant: whatever
//! fails here fails before a client was accepted, and is told to whoever typed the command.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::config::locate::Source;
use crate::net::clock::Clock;
use crate::run::banner::Banner;
use crate::run::daemon::{Detached, Readiness, detach};
use crate::run::exit::{Exit, Failure};
use crate::run::handover::Activated;
use crate::run::master::{About, Master};
use crate::run::rundir::{Lock, RunDir};
use crate::run::site::Site;
use crate::run::{log as log_writer, os};

/// Runs `start`; with `daemon` it returns as soon as the server is ready.
///
/// `asked` is the configuration file as typed. The program must have one thread.
pub fn start(source: &Source, asked: Option<&Path>, daemon: bool) -> Result<Exit, Failure> {
    let config = source
        .config()
        .map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
    if !daemon {
        return serve(source, asked, config, None);
    }
    match detach().map_err(|error| Failure::io("cannot detach", &error))? {
        Detached::Command { code, text } => match Exit::from_code(code) {
            Exit::Done => {
                print!("{text}");
                Ok(Exit::Done)
            }
            exit => Err(Failure::new(exit, text)),
        },
        Detached::Daemon(readiness) => serve(source, asked, config, Some(readiness)),
    }
}

fn serve(
    source: &Source,
    asked: Option<&Path>,
    config: Config,
    readiness: Option<Readiness>,
) -> Result<Exit, Failure> {
    os::restrict_new_files();
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
    let prepared =
        activated.and_then(|activated| prepare(source, asked, &config, (&dir, activated), daemon));
    let exit = match prepared {
        Ok(prepared) => master
            .insert(prepared)
            .run(readiness)
            .map_err(|error| Failure::io("the master's loop broke", &error)),
        Err(failure) => refuse(failure, readiness),
    };
    log_writer::flush();
    dir.clean();
    lock.release();
    // Its connections close with it, and by that `stop` knows that the next may start.
    drop(master);
    exit
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
    (dir, mut activated): (&RunDir, Activated),
    daemon: bool,
) -> Result<Master, Failure> {
    let descriptors = os::raise_descriptor_limit();
    let site = Site::open(config, source, dir, &mut activated)?;
    let own_log = daemon.then(|| dir.log_file());
    let log_file = config.log.file.clone().or(own_log);
    if let Some(path) = &log_file {
        write_log_to(path)?;
    }
    log_writer::start("master", &config.log);
    log_writer::report_panics();
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
        listen: site.listen_status(config),
        config: asked.map(|path| path.display().to_string()),
        config_name: source.name(),
        demo: config.has_demo_app(),
        log_file: log_file.map(|path| path.display().to_string()),
        daemon,
    };
    let run_dir = dir.path().display().to_string();
    let about = About {
        banner,
        run_dir,
        source: source.clone(),
    };
    Master::new(site, about, config, dir, Clock::start())
}

/// Puts the file in the place of standard error, for us and for all children, whatever writes
/// there: even the last words of a library end up in the log.
fn write_log_to(path: &PathBuf) -> Result<(), Failure> {
    let explain = |error| Failure::io(format!("cannot write the log {}", path.display()), &error);
    let mut options = File::options();
    let file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(explain)?;
    os::place_at(file.as_raw_fd(), 2).map_err(explain)
}
