//! The command line: its words, and which verb each one runs. Owns what is printed for the user;
//! does not know how a verb is carried out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use lineman::config::certificates::Certificates;
use lineman::config::locate::Source;
use lineman::net::clock::unix_seconds;
use lineman::run::exit::{EXIT_CODES, Exit, Failure};
use lineman::run::rundir::RunDir;
use lineman::run::start::start;
use lineman::run::{client, role};

/// A connection server that speaks the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "lineman", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// The configuration [default: config/lineman.toml, else /etc/lineman/lineman.toml, else
    /// built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the server
    Start {
        /// Run in the background; returns when the server is ready
        #[arg(short, long)]
        daemon: bool,
    },
    /// Stop the server and wait until it has ended
    Stop,
    /// Stop the server if it runs, then start it
    Restart {
        /// Run in the background; returns when the server is ready
        #[arg(short, long)]
        daemon: bool,
    },
    /// Show what the server is doing
    Status {
        /// One JSON object with everything
        #[arg(long)]
        json: bool,
    },
    /// Read the configuration and report every mistake in it
    Check,
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        number: u32,
        #[arg(long)]
        switchboard: PathBuf,
    },
    #[command(hide = true)]
    Switchboard {
        #[arg(long)]
        links: u32,
    },
}

impl Cli {
    /// Runs the verb. The program must have one thread.
    pub fn run(self) -> ExitCode {
        match self.verb {
            Verb::Worker {
                number,
                switchboard,
            } => role::worker(number, switchboard).into(),
            Verb::Switchboard { links } => role::switchboard(links).into(),
            ref verb => match self.run_verb(verb) {
                Ok(exit) => exit.into(),
                Err(failure) => {
                    eprintln!("lineman: {}", failure.message.trim_end());
                    failure.exit.into()
                }
            },
        }
    }

    fn run_verb(&self, verb: &Verb) -> Result<Exit, Failure> {
        let source = Source::find(self.config.as_deref())
            .map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
        match verb {
            Verb::Start { daemon } => start(&source, self.config.as_deref(), *daemon),
            Verb::Stop => stop(&source),
            Verb::Restart { daemon } => {
                // A mistake in the file must not cost the server that runs.
                read(&source)?;
                stop(&source)?;
                start(&source, self.config.as_deref(), *daemon)
            }
            Verb::Status { json } => status(&source, *json),
            Verb::Check => check(&source),
            Verb::Worker { .. } | Verb::Switchboard { .. } => Ok(Exit::Usage),
        }
    }
}

fn stop(source: &Source) -> Result<Exit, Failure> {
    match client::stop(&RunDir::of(source))? {
        true => println!("stopped"),
        false => println!("not running ({})", source.name()),
    }
    Ok(Exit::Done)
}

fn status(source: &Source, json: bool) -> Result<Exit, Failure> {
    let status = client::status(&RunDir::of(source))?;
    match (&status, json) {
        (Some(status), true) => println!("{}", to_json(status)?),
        (Some(status), false) => print!("{}", status.table()),
        (None, true) => println!("{{\"state\":\"stopped\"}}"),
        (None, false) => println!("not running ({})", source.name()),
    }
    Ok(if status.is_some() {
        Exit::Done
    } else {
        Exit::NotRunning
    })
}

fn to_json(status: &lineman::run::status::Status) -> Result<String, Failure> {
    serde_json::to_string_pretty(status)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn check(source: &Source) -> Result<Exit, Failure> {
    let certificates = read(source)?;
    for warning in certificates.all_warnings(unix_seconds()) {
        eprintln!("warning: {warning}");
    }
    println!("ok ({})", source.name());
    Ok(Exit::Done)
}

/// Everything that `start` will read, checked.
fn read(source: &Source) -> Result<Certificates, Failure> {
    source
        .config()
        .and_then(|config| Certificates::read(&config, source))
        .map_err(|error| Failure::new(Exit::BadConfig, error.0))
}
