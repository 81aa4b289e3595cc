//! The command line: its words, and which verb each one runs, for `lineman` itself and for programs
//! that embed it. Owns what is printed for the user; does not know how a verb is carried out.

mod credentials;
mod keeping;
mod operator;
mod push;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::json;

use credentials::CredentialsArgs;
use keeping::{BackupArgs, VerifyArgs};
use operator::{DevicesArgs, KeysVerb};
use push::PushArgs;

use crate::app::service::Services;
use crate::config::Config;
use crate::config::locate::Source;
use crate::config::problem::ConfigError;
use crate::config::program::Program;
use crate::net::clock::unix_seconds;
use crate::realtime::registry::LinkId;
use crate::run::certificate_files::Certificates;
use crate::run::connections::LIMIT_MAX;
use crate::run::control::{Command, Failed};
use crate::run::exit::{EXIT_CODES, Exit, Failure};
use crate::run::rundir::RunDir;
use crate::run::start::start;
use crate::run::watch::{self, Form};
use crate::run::{client, explain, mock, role, roots, secrets, spawn, take_over};
use crate::wire::control::COLUMNS;

/// A connection server that speaks the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "lineman", version, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration [default: config/lineman.toml, else /etc/lineman/lineman.toml, else
    /// built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object instead of words, also when it fails
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the server
    Start {
        /// Run in the background; returns when the server is ready
        #[arg(short, long)]
        daemon: bool,
        /// What a master left that executed this program in its place
        #[arg(long, hide = true)]
        take_over: Option<i32>,
    },
    /// Stop the server and wait until it has ended
    Stop {
        /// Let clients go one after the other, over drain_seconds
        #[arg(short, long)]
        graceful: bool,
    },
    /// Read the configuration again and replace all workers, one by one, without refusing anyone
    Reload {
        /// Let clients go one after the other, over drain_seconds
        #[arg(short, long)]
        graceful: bool,
    },
    /// Execute the program that is installed now in the server's place, and replace all processes
    Upgrade {
        /// Let clients go one after the other, over drain_seconds
        #[arg(short, long)]
        graceful: bool,
    },
    /// Open the log file again, after it was renamed; nothing else changes
    Reopen,
    /// Stop the server if it runs, then start it
    Restart {
        /// Run in the background; returns when the server is ready
        #[arg(short, long)]
        daemon: bool,
        /// Let clients go one after the other, over drain_seconds
        #[arg(short, long)]
        graceful: bool,
    },
    /// Show what the server is doing
    Status {
        /// Again and again, with rates, until Ctrl-C; one line each time with --json
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// List client connections, or close one
    Connections {
        #[command(subcommand)]
        action: Option<ConnectionsVerb>,
        /// Order by this column: numbers from the largest, words from the smallest
        #[arg(long, value_name = "COLUMN", default_value = "id", value_parser = COLUMNS.to_vec())]
        sort: String,
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX as i64))]
        limit: u32,
        /// Only those that have this text in user, remote address, protocol or status
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
    },
    /// Look after the devices that push notifications reach
    Devices(DevicesArgs),
    /// Send notifications, and see what became of them
    Push(PushArgs),
    /// Look after what apps prove themselves with to push providers
    Credentials(CredentialsArgs),
    /// Look after the keys that device tokens are encrypted with
    Keys {
        #[command(subcommand)]
        action: KeysVerb,
    },
    /// Copy the database to a file, while the server runs or not
    Backup(BackupArgs),
    /// Look whether the database, or a copy of it, is whole and its device tokens open
    Verify(VerifyArgs),
    /// Read the configuration and report every mistake in it
    Check,
    /// Say what an exit code, a WebSocket close code or a Pusher code means, and what to do about it
    Explain {
        /// Without it: all codes
        code: Option<u16>,
    },
    /// Be a push provider, for trials and tests: no account, no network, answers as you script them
    Mock {
        #[command(subcommand)]
        provider: Box<mock::Which>,
    },
    #[command(hide = true)]
    TakeOverTrial,
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        number: u32,
        #[arg(long, default_value_t = 0)]
        life: u32,
        #[arg(long)]
        switchboard: PathBuf,
    },
    #[command(hide = true)]
    Switchboard {
        #[arg(long)]
        links: u32,
        #[arg(long, value_name = "SLOT.LIFE", value_delimiter = ',')]
        living: Vec<LinkId>,
        #[arg(long)]
        courier: Option<PathBuf>,
    },
    #[command(hide = true)]
    Courier {
        #[arg(long)]
        store: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConnectionsVerb {
    /// Close one connection
    Close {
        /// As listed
        id: String,
    },
}

/// Reads the command line of this process and runs its verb; a child of a master runs its role. The
/// program must have one thread.
pub fn run(program: &Program, services: &Services) -> ExitCode {
    let cli = match spawn::role() {
        Some(role) => Cli::read(program, role),
        None => Cli::read(program, std::env::args_os().collect()),
    };
    cli.run(program, services)
}

impl Cli {
    /// Ends the program if the words make no sense, or ask for help.
    fn read(program: &Program, words: Vec<OsString>) -> Cli {
        let mut command = Cli::command();
        command = match &program.name {
            // Workerman's programs want a verb; a program that does one thing may do it unasked.
            Some(name) => command
                .name(name.clone())
                .about(None::<&str>)
                .version(None::<&str>)
                .mut_subcommand("start", |start| {
                    start.about("Start the server; the same as no verb")
                }),
            None => command
                .subcommand_required(true)
                .arg_required_else_help(true),
        };
        let matches = command.get_matches_from(words);
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    fn run(self, program: &Program, services: &Services) -> ExitCode {
        let verb = self.verb.unwrap_or(Verb::Start {
            daemon: false,
            take_over: None,
        });
        match verb {
            Verb::Worker {
                number,
                life,
                switchboard,
            } => role::worker((number, life), switchboard, program, services).into(),
            Verb::Switchboard {
                links,
                living,
                courier,
            } => role::switchboard((links, living), courier, program).into(),
            Verb::Courier { store } => role::courier(store, program).into(),
            ref verb => match run_verb(verb, self.config.as_deref(), self.json, program) {
                Ok(exit) => exit.into(),
                Err(failure) if self.json => {
                    let failed = Failed {
                        error: failure.message.trim_end().to_string(),
                        exit: failure.exit as u8,
                    };
                    println!("{}", json!(failed));
                    failure.exit.into()
                }
                Err(failure) => {
                    let name = program.name.as_deref().unwrap_or("lineman");
                    eprintln!("{name}: {}", failure.message.trim_end());
                    failure.exit.into()
                }
            },
        }
    }
}

const NO_JSON: &str = "this verb has no --json; `status --json` tells what runs";

fn run_verb(
    verb: &Verb,
    asked: Option<&Path>,
    json: bool,
    program: &Program,
) -> Result<Exit, Failure> {
    match verb {
        Verb::Start { .. } | Verb::Restart { .. } | Verb::Explain { .. } if json => {
            return Err(Failure::new(Exit::Usage, NO_JSON));
        }
        // Who asks what a code means may have no configuration that can be read.
        Verb::Explain { code } => return explain(*code),
        // What they need was handed over, whatever lies on the disk now.
        Verb::Start {
            take_over: Some(left),
            ..
        } => return take_over::take_over(*left, program),
        Verb::TakeOverTrial => return take_over::trial(program),
        Verb::Mock { provider } => return mock::run(provider),
        _ => {}
    }
    let source =
        Source::find(asked, program).map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
    let dir = RunDir::of(&source);
    match verb {
        Verb::Start { daemon, .. } => start(&source, asked, *daemon),
        Verb::Stop { graceful } => stop(&source, json, *graceful),
        Verb::Reload { graceful } => told(&source, json, client::reload(&dir, *graceful)),
        Verb::Upgrade { graceful } => told(&source, json, client::upgrade(&dir, *graceful)),
        Verb::Reopen => told(&source, json, client::reopen(&dir)),
        Verb::Restart { daemon, graceful } => {
            stop_to_restart(&source, json, *graceful)?;
            start(&source, asked, *daemon)
        }
        Verb::Status { watch } => status(&source, json, *watch),
        Verb::Connections {
            action: Some(ConnectionsVerb::Close { id }),
            ..
        } => told(&source, json, client::close(&dir, id)),
        Verb::Connections {
            sort,
            limit,
            filter,
            ..
        } => connections(&source, json, (sort, *limit, filter)),
        Verb::Devices(args) => operator::devices(&source, json, args),
        Verb::Push(args) => push::push(&source, json, args),
        Verb::Credentials(args) => credentials::credentials(&source, json, args),
        Verb::Keys { action } => operator::keys(&source, json, action),
        Verb::Backup(args) => keeping::backup(&source, json, args),
        Verb::Verify(args) => keeping::verify(&source, json, args),
        Verb::Check => check(&source, json),
        Verb::Explain { .. }
        | Verb::Mock { .. }
        | Verb::TakeOverTrial
        | Verb::Worker { .. }
        | Verb::Switchboard { .. }
        | Verb::Courier { .. } => Ok(Exit::Usage),
    }
}

/// Unless it could not be started again: a mistake in the file must not cost the server that runs.
fn stop_to_restart(source: &Source, json: bool, graceful: bool) -> Result<Exit, Failure> {
    read(source)?;
    stop(source, json, graceful)
}

fn stop(source: &Source, json: bool, graceful: bool) -> Result<Exit, Failure> {
    if client::stop(&RunDir::of(source), graceful)? {
        say(json, "stopped");
    } else {
        not_running(source, json);
    }
    Ok(Exit::Done)
}

/// Prints what was done, if a server was there to do it.
fn told(
    source: &Source,
    json: bool,
    done: Result<Option<String>, Failure>,
) -> Result<Exit, Failure> {
    match done? {
        Some(words) => {
            say(json, &words);
            Ok(Exit::Done)
        }
        None => Ok(not_running(source, json)),
    }
}

fn say(json: bool, done: &str) {
    match json {
        true => println!("{}", json!({ "done": done })),
        false => println!("{done}"),
    }
}

fn not_running(source: &Source, json: bool) -> Exit {
    match json {
        true => println!("{}", json!({ "state": "stopped" })),
        false => println!("not running ({})", source.name()),
    }
    Exit::NotRunning
}

fn connections(
    source: &Source,
    json: bool,
    (sort, limit, filter): (&str, u32, &str),
) -> Result<Exit, Failure> {
    let command = Command::Connections {
        limit,
        sort: sort.to_string(),
        filter: filter.to_string(),
    };
    match client::connections(&RunDir::of(source), command)? {
        Some(list) if json => println!("{}", to_json(&list)?),
        Some(list) => print!("{}", list.table()),
        None => return Ok(not_running(source, json)),
    }
    Ok(Exit::Done)
}

fn status(source: &Source, json: bool, every: Option<u64>) -> Result<Exit, Failure> {
    if let Some(seconds) = every {
        return watch(source, json, seconds);
    }
    match client::status(&RunDir::of(source))? {
        Some(status) if json => println!("{}", to_json(&status)?),
        Some(status) => print!("{}", status.table()),
        None => return Ok(not_running(source, json)),
    }
    Ok(Exit::Done)
}

fn watch(source: &Source, json: bool, seconds: u64) -> Result<Exit, Failure> {
    let form = if json { Form::Json } else { Form::Table };
    let every = Duration::from_secs(seconds);
    watch::watch(&RunDir::of(source), &source.name(), every, form)
}

fn to_json(status: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(status)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn explain(code: Option<u16>) -> Result<Exit, Failure> {
    let Some(code) = code else {
        print!("{}", explain::list());
        return Ok(Exit::Done);
    };
    let unknown = || format!("{code} is no code of ours; `explain` alone lists them all");
    let text = explain::explain(code).ok_or_else(|| Failure::new(Exit::Usage, unknown()))?;
    print!("{text}");
    Ok(Exit::Done)
}

fn check(source: &Source, json: bool) -> Result<Exit, Failure> {
    let (config, certificates) = read(source)?;
    let warnings = config.warnings().into_iter().map(|it| it.to_string());
    let expiring = certificates.all_warnings(unix_seconds());
    let warnings = warnings.chain(expiring.into_iter().map(|it| it.to_string()));
    if json {
        let warnings: Vec<String> = warnings.collect();
        println!("{}", json!({ "done": "ok", "warnings": warnings }));
        return Ok(Exit::Done);
    }
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    println!("ok ({})", source.name());
    Ok(Exit::Done)
}

/// Everything that `start` will read, checked.
fn read(source: &Source) -> Result<(Config, Certificates), Failure> {
    let bad = |error: ConfigError| Failure::new(Exit::BadConfig, error.0);
    let config = secrets::config(source)?;
    roots::check(&config)?;
    let certificates = Certificates::read(&config, source).map_err(bad)?;
    Ok((config, certificates))
}
