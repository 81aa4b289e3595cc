//! The next program's side of an upgrade: its trial, and taking over from the master that executed
//! it. Does not know what was before, beyond what it was left. Invariant: what can be found wrong
//! is found in the trial, which touches nothing.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::config::Config;
use crate::config::locate::Source;
use crate::config::program::Program;
use crate::net::tickets::TicketSecret;
use crate::run::certificates::Certificates;
use crate::run::exit::{Exit, Failure};
use crate::run::identity::Identity;
use crate::run::inheritance::{self, ACCEPTED, Inheritance, Listeners};
use crate::run::master::Master;
use crate::run::rundir::{Lock, RunDir};
use crate::run::site::Site;
use crate::run::start::{end, equip};
use crate::run::{exec, os, roots};

/// Whether this program could take over what is written on standard input.
pub fn trial(program: &Program) -> Result<Exit, Failure> {
    let left = Inheritance::read(io::stdin().lock()).map_err(broken)?;
    let (source, config) = examine(&left, program)?;
    Identity::of(&config)?;
    roots::check(&config)?;
    let tickets = left.tickets;
    let tickets = tickets.map(|(epoch, bytes)| TicketSecret { epoch, bytes });
    Certificates::open_again(tickets, &config, &source)?;
    print!("{ACCEPTED}");
    Ok(Exit::Done)
}

/// Goes on as the master that executed this program, with what the descriptor `left` holds. The
/// program must have one thread and must have opened nothing.
pub fn take_over(left: RawFd, program: &Program) -> Result<Exit, Failure> {
    let mut take = take;
    let left = Inheritance::read(File::from(take(left).map_err(broken)?)).map_err(broken)?;
    let (source, config) = examine(&left, program)?;
    os::restrict_new_files();
    os::refuse_huge_pages();
    let dir = RunDir::of(&source);
    let lock = Lock::adopt(take(left.lock).map_err(broken)?, &dir);
    let mut site = Site::resume(&config, &source, &dir, &left, &mut take)?;
    let about = equip(
        &mut site,
        (&source, &config),
        (left.asked.clone(), left.daemon),
        (&dir, &lock, exec::program()),
    )?;
    let mut master = Master::resume(site, about, &config, left, &mut take)?;
    let exit = master.go_on();
    end(&dir, lock, Some(master));
    exit.map_err(|error| Failure::io("the master's loop broke", &error))
}

fn take(fd: RawFd) -> Result<OwnedFd, String> {
    // SAFETY: the numbers are those that the program before left open in this very process, so that
    // nothing else was given them, and each is taken once.
    unsafe { inheritance::take(fd) }
}

fn broken(why: String) -> Failure {
    Failure::new(Exit::Failed, why)
}

/// What is left must be for the configuration that is left.
fn examine(left: &Inheritance, program: &Program) -> Result<(Source, Config), Failure> {
    let (source, config) = left
        .config
        .open(program)
        .map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
    let mut both = left.listeners.iter().zip(&config.listen);
    let fits = both.all(|(left, listen)| match left {
        Listeners::Own(fds) => fds.len() == config.slots(listen) as usize,
        Listeners::Shared(..) | Listeners::Activated(_) => true,
    });
    let fits = fits && left.courier.is_some() == config.has_courier();
    if !fits || left.listeners.len() != config.listen.len() {
        return Err(broken(
            "what is left open is not for this configuration".to_string(),
        ));
    }
    Ok((source, config))
}
