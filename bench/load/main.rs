//! The load generator. `cargo bench --bench load -- SCENARIO [options]` starts
//! a server, loads it, checks every answer, and prints what it cost.
//!
//! It speaks the protocols with its own code, so that it can catch the
//! server's mistakes; it is one thread around one poll, because on a small
//! machine the generator must not be what is measured. A run that sees one
//! wrong byte ends with an error and no figures.

mod client_events;
mod compare;
mod echo;
mod fanout;
mod floor;
mod handshake;
mod histogram;
mod hold;
mod holders;
mod idle;
mod ledger;
mod meter;
mod nginx;
mod opening;
mod options;
mod placing;
mod process;
mod pusher;
mod report;
mod requests;
mod secure;
mod storm;
mod target;
mod visiting;
mod websocket;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, Options, Scenario};
use report::Report;
use target::Target;

/// What can go wrong here is told to a person and ends the run: a text is
/// enough.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // Cargo adds `--bench` to what it is asked to pass on.
    let words = std::env::args().filter(|word| word != "--bench");
    match perform(Options::parse_from(words).command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Fallible<()> {
    match command {
        Command::Scenario(scenario) => {
            prepare(&scenario)?;
            run(&scenario, None)?.print(scenario.target().json);
            Ok(())
        }
        Command::Compare(options) => {
            prepare(&options.scenario)?;
            compare::run(&options)
        }
        Command::Floor(options) => floor::run(&options),
        Command::Hold(options) => hold::run(&options),
    }
}

fn prepare(scenario: &Scenario) -> Fallible<()> {
    pusher::check_vectors()?;
    let (needed, limit) = (
        scenario.descriptors() as u64 + 50,
        process::descriptor_limit(),
    );
    if needed > limit {
        let hint = "raise it with ulimit -n, or ask for fewer connections";
        return Err(format!("{needed} descriptors are needed, {limit} allowed: {hint}").into());
    }
    target::pin_generator(&scenario.target().client_cpus);
    Ok(())
}

/// Runs `scenario` once, against `server` in place of its own if one is given.
pub fn run(scenario: &Scenario, server: Option<&str>) -> Fallible<Report> {
    let mut options = scenario.target().clone();
    if let Some(server) = server {
        options.server = server.to_owned();
    }
    let target = Target::open(&options, scenario.service())?;
    let mut report = Report::new(scenario.describe());
    report.server = target.label.clone();
    match scenario {
        Scenario::Echo(echo) => echo::run(echo, &target, &mut report),
        Scenario::Fanout(fanout) => fanout::run(fanout, &target, &mut report),
        Scenario::ClientEvents(events) => client_events::run(events, &target, &mut report),
        Scenario::Publish(publish) => requests::publish(publish, &target, &mut report),
        Scenario::Http(http) => requests::get(http, &target, &mut report),
        Scenario::Idle(idle) => idle::run(idle, &target, &mut report),
        Scenario::Handshake(handshake) => handshake::run(handshake, &target, &mut report),
        Scenario::Storm(storm) => storm::run(storm, &target, &mut report),
    }
    .map_err(|error| format!("{}: {error}\n{}", target.label, target.complaints()))?;
    Ok(report)
}
