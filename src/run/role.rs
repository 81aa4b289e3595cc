//! A child process: takes what the master hands over and runs its reactors. Does not know who
//! replaces it. Invariant: if one reactor fails, the process ends with a code that says so; a
//! worker never lives on with half of its threads.

use std::net::TcpListener;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::app::apps::Apps;
use crate::app::cors::Cors;
use crate::app::service::Services;
use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::config::program::Program;
use crate::config::url::Place;
use crate::config::{self, Config};
use crate::net::admission::Admission;
use crate::net::clock::Clock;
use crate::net::reactor::Reactor;
use crate::net::sockets::{Listening, Sockets};
use crate::net::tarpit::Tarpit;
use crate::node::Node;
use crate::node::courier::{Courier, CourierOptions, DeviceOptions, SendingOptions};
use crate::node::switchboard::{ClusterOptions, Switchboard, SwitchboardOptions, Watched};
use crate::node::worker::{Forwarding, Listener, Worker, WorkerOptions};
use crate::push::lanes::LANES;
use crate::realtime::registry::LinkId;
use crate::run::exit::ChildExit;
use crate::run::handover::{COURIER_NAME, Handover, SWITCHBOARD_NAME, listener_name, master_name};
use crate::run::{
    certificates, handed_config, ledger, log as log_writer, log_file, os, roots, stack, store,
};
use crate::session::redis::Login;

/// A chat room to try the server with; it knows the demo app's secret.
const DEMO_PAGE: &str = include_str!("../../examples/chat.html");

/// How a reactor came to its end.
type Outcome = Result<(), ChildExit>;

/// What a reactor thread needs; built in the main thread, so that what is missing is told early.
type Start = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Runs `lineman worker`.
pub fn worker(
    (number, life): (u32, u32),
    switchboard: PathBuf,
    program: &Program,
    services: &Services,
) -> ChildExit {
    run(&format!("worker/{number}"), program, |config, handover| {
        let switchboard = reachable(switchboard, SWITCHBOARD_NAME, handover);
        let mut starts = Vec::new();
        let secured = config.listen.iter().any(|listen| listen.tls.is_some());
        let tls_file = match secured {
            true => Some(handover.take(certificates::DESCRIPTOR)?),
            false => None,
        };
        let shared = handover.take(ledger::DESCRIPTOR)?;
        for slot in handover.slots() {
            starts.push((
                format!("reactor-{slot}"),
                worker_reactor(
                    (slot, life),
                    &switchboard,
                    (config, services),
                    handover,
                    (&shared, tls_file.as_ref()),
                    // They share one log, so only the first tells of it.
                    if starts.is_empty() {
                        log_writer::dropped
                    } else {
                        || 0
                    },
                )?,
            ));
        }
        Ok(starts)
    })
}

/// What a courier is called in claims: a database on this machine has one.
const COURIER: &str = "courier";
/// Connections to push providers.
const PROVIDERS: usize = 1_024;

/// Runs `lineman courier`.
pub fn courier(path: Option<PathBuf>, program: &Program) -> ChildExit {
    run("courier", program, |config, handover| {
        let start = courier_reactor(path, config, handover)?;
        Ok(vec![("reactor".to_string(), start)])
    })
}

/// Runs `lineman switchboard`. `courier`: its socket, if there is one.
pub fn switchboard(
    (links, living): (u32, Vec<LinkId>),
    courier: Option<PathBuf>,
    program: &Program,
) -> ChildExit {
    run("switchboard", program, |config, handover| {
        let courier = courier.map(|path| reachable(path, COURIER_NAME, handover));
        let start = switchboard_reactor((links, living, courier), config, handover)?;
        Ok(vec![("reactor".to_string(), start)])
    })
}

/// Where a socket is reached. A descriptor with that name stands for its path when the path is not
/// for our eyes; it stays open for life.
fn reachable(path: PathBuf, name: &str, handover: &mut Handover) -> PathBuf {
    match handover.take(name) {
        Ok(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.into_raw_fd())),
        Err(_) => path,
    }
}

fn run(
    role: &str,
    program: &Program,
    build: impl FnOnce(&Config, &mut Handover) -> Result<Vec<(String, Start)>, String>,
) -> ChildExit {
    os::name_process(program.name.as_deref().unwrap_or("lineman"));
    os::restrict_new_files();
    let built = Handover::receive().and_then(|mut handover| {
        let config = handed_config::unpack(handover.take("config")?, program)?;
        log_writer::start(role, &config.log);
        log_writer::report_panics();
        if let Ok(socket) = handover.take(log_file::DESCRIPTOR) {
            log_file::follow(socket);
        }
        if let Err(error) = stack::tell_when_asked() {
            log::warn!("a stuck thread will not tell where it stands: {error}");
        }
        let starts = build(&config, &mut handover)?;
        if starts.is_empty() {
            return Err("no slot was handed over".to_string());
        }
        Ok(starts)
    });
    let exit = match built {
        Ok(starts) => run_threads(starts),
        Err(why) => {
            // The log may not stand yet, and a person who typed the command reads this.
            eprintln!("lineman {role} is started by the master, not by hand: {why}");
            ChildExit::NoHandover
        }
    };
    log_writer::flush();
    exit
}

fn worker_reactor(
    (slot, life): (u32, u32),
    switchboard: &std::path::Path,
    (config, services): (&Config, &Services),
    handover: &mut Handover,
    (shared, tls_file): (&OwnedFd, Option<&OwnedFd>),
    lines_dropped: fn() -> u64,
) -> Result<Start, String> {
    let sockets = Sockets {
        listening: client_sockets(slot, config, handover)?,
        master: Some(UnixStream::from(handover.take(&master_name(slot))?)),
        switchboard: Some(switchboard.to_path_buf()),
        courier: None,
        store: None,
        admit: os::admit,
        tls: certificates::reactor_tls(config, tls_file)?,
        admission: ledger::admission(config, shared.as_fd(), slot, handover)?,
        tarpit: Tarpit::new(Duration::from_secs(config.limits.tarpit_seconds), seed()?),
        write: Duration::from_secs(config.limits.write_seconds),
        lines_dropped,
        roots: roots::of(config),
    };
    let options = WorkerOptions {
        slot,
        life,
        listeners: listeners(config, services),
        apps: Apps::new(config.apps.clone()),
        demo_page: config.has_demo_app().then_some(DEMO_PAGE),
        services: services.clone(),
        limits: config.limits.clone(),
        deflate: config.deflate,
        cors: Cors::new(config.cors_origins.clone()),
        seed: seed()?,
    };
    let connections_max = config.limits.connections;
    Ok(start(
        move |now| Worker::new(options, now),
        sockets,
        connections_max,
    ))
}

/// The slot's sockets of all listeners.
fn client_sockets(
    slot: u32,
    config: &Config,
    handover: &mut Handover,
) -> Result<Vec<Listening>, String> {
    let mut listening = Vec::new();
    let tables = config.listen.iter().enumerate();
    for (index, listen) in tables.filter(|(_, it)| slot < config.slots(it)) {
        let socket = handover.take(&listener_name(index, slot))?;
        let proxies = &listen.proxies;
        let proxies = proxies.protocol.then(|| proxies.trusted.clone());
        listening.push(match listen.url.place {
            Place::Inet(_) => Listening::Clients {
                index,
                listener: TcpListener::from(socket),
                proxies,
            },
            Place::Unix(_) => Listening::LocalClients {
                index,
                listener: UnixListener::from(socket),
                proxies,
            },
        });
    }
    Ok(listening)
}

/// What the node has to know of each listener.
fn listeners(config: &Config, services: &Services) -> Vec<Listener> {
    let all = config.listen.iter();
    let known = all.map(|listen| Listener {
        protocol: services.protocol(listen.handler, listen.url.scheme.protocol()),
        handler: listen.handler,
        forwarding: listen.proxies.header.map(|header| Forwarding {
            header,
            trusted: listen.proxies.trusted.clone(),
        }),
    });
    known.collect()
}

/// The sockets of a role that no client sees: links come in, and the master is there.
fn inner_sockets(config: &Config, handover: &mut Handover) -> Result<Sockets, String> {
    let listener = UnixListener::from(handover.take("links")?);
    Ok(Sockets {
        listening: vec![Listening::Links { listener }],
        master: Some(UnixStream::from(handover.take("master")?)),
        switchboard: None,
        courier: None,
        store: None,
        admit: os::admit,
        tls: certificates::no_tls(&config.limits),
        admission: Admission::open(),
        tarpit: Tarpit::none(),
        write: Duration::from_secs(config.limits.write_seconds),
        lines_dropped: log_writer::dropped,
        roots: Vec::new(),
    })
}

fn switchboard_reactor(
    (links, living, courier): (u32, Vec<LinkId>, Option<PathBuf>),
    config: &Config,
    handover: &mut Handover,
) -> Result<Start, String> {
    let sockets = Sockets {
        courier,
        ..inner_sockets(config, handover)?
    };
    // Twice over, since a broken link and its successor may be here at once, and some for those
    // who have not said yet who they are; beside them the workers that leave.
    let connections_max = 2 * links as usize + living.len() + 16;
    let options = SwitchboardOptions {
        links_expected: links,
        living,
        limits: config.limits.clone(),
        watched: watched(config),
        gateway: config.push.is_some(),
        cluster: config.cluster.as_ref().map(cluster_options),
        history: config.history.clone(),
        seed: seed()?,
    };
    Ok(start(
        move |now| Switchboard::new(options, now),
        sockets,
        connections_max,
    ))
}

fn cluster_options(cluster: &config::cluster::Cluster) -> ClusterOptions {
    let password = cluster.password.as_ref();
    ClusterOptions {
        target: cluster.target.clone(),
        login: Login {
            user: cluster.user.clone(),
            password: password.map(|it| it.expose().to_string()),
            database: cluster.database,
        },
        prefix: cluster.prefix.clone(),
        lease: cluster.lease,
    }
}

/// What the switchboard has to report.
fn watched(config: &Config) -> Watched {
    let mut watched = Watched::new();
    for webhook in &config.webhooks {
        let kinds = watched.entry(webhook.app_id.clone()).or_default();
        kinds.extend(&webhook.kinds);
    }
    watched
}

fn courier_reactor(
    path: Option<PathBuf>,
    config: &Config,
    handover: &mut Handover,
) -> Result<Start, String> {
    let sockets = Sockets {
        store: Some(store::start(path, config)?),
        ..inner_sockets(config, handover)?
    };
    os::forbid_dumps();
    let mut dice = Dice::new(seed()?);
    let push = config.push.as_ref();
    let vault = push.and_then(|push| push.vault(&mut dice)).transpose();
    let vault = vault.map_err(|fault| fault.text())?;
    let options = CourierOptions {
        devices: vault.zip(push).map(|(vault, push)| DeviceOptions {
            vault,
            keep_ms: push.keep_inactive_days * 86_400_000,
        }),
        sending: sending(config)?,
        webhooks: config.webhooks.clone(),
        apps: Apps::new(config.apps.clone()),
        limits: config.limits.clone(),
        in_cluster: config.cluster.is_some(),
        seed: seed()?,
    };
    // One for each lane, a switchboard and its successor, and some that have not said who they are.
    let connections_max = config.webhooks.len() * usize::from(LANES) + 16 + PROVIDERS;
    Ok(start(
        move |_| Courier::new(options),
        sockets,
        connections_max,
    ))
}

fn sending(config: &Config) -> Result<SendingOptions, String> {
    let Some(push) = &config.push else {
        return Ok(SendingOptions::default());
    };
    let read = config.credentials.iter();
    let read = read.filter_map(|one| Some((one.app_id.clone(), one.read()?)));
    let credentials = read.map(|(app, read)| Ok((app, read?)));
    Ok(SendingOptions {
        credentials: credentials.collect::<Result<_, String>>()?,
        services: push.web_push_services.clone(),
        allow_private: push.allow_loopback,
        // Whoever shares a database with others has a name of his own there.
        courier: match &config.postgres {
            Some(postgres) => postgres.server.clone(),
            None => COURIER.to_string(),
        },
        wrong_tokens: push.wrong_tokens_percent,
    })
}

/// A reactor to be run in a thread of its own, around the node that `node` makes there.
fn start<N: Node>(
    node: impl FnOnce(Now) -> N + Send + 'static,
    sockets: Sockets,
    connections_max: usize,
) -> Start {
    Box::new(move || {
        let clock = Clock::start();
        Reactor::new(node(clock.now()), sockets, connections_max, clock)?.run()
    })
}

/// Sixteen bytes nobody can guess.
pub fn seed() -> Result<[u8; 16], String> {
    let mut seed = [0; 16];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| "the system has no entropy".to_string())?;
    Ok(seed)
}

/// Runs all reactors; returns when the last has ended well or the first has not.
fn run_threads(starts: Vec<(String, Start)>) -> ChildExit {
    let (report, outcomes) = mpsc::channel::<Outcome>();
    let count = starts.len();
    for (name, start) in starts {
        let report = report.clone();
        let thread_name = name.clone();
        let spawned = thread::Builder::new().name(name.clone()).spawn(move || {
            // The main thread is there until it has heard of everyone.
            let _ = report.send(run_guarded(&thread_name, start));
        });
        if let Err(error) = spawned {
            log::error!("{name} cannot have a thread: {error}");
            return ChildExit::ReactorFailed;
        }
    }
    for _ in 0..count {
        match outcomes.recv() {
            Ok(Ok(())) => {}
            Ok(Err(exit)) => return exit,
            Err(_) => return ChildExit::ReactorPanicked,
        }
    }
    ChildExit::Ordered
}

fn run_guarded(name: &str, start: Start) -> Outcome {
    // The panic itself is told by the hook, with its place.
    match catch_unwind(AssertUnwindSafe(start)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            log::error!("{name} gives up: {error}");
            Err(ChildExit::ReactorFailed)
        }
        Err(_) => Err(ChildExit::ReactorPanicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(run: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> (String, Start) {
        ("test".to_string(), Box::new(run))
    }

    #[test]
    fn one_reactor_that_fails_ends_the_process_though_others_run() {
        let (_hold, wait) = mpsc::channel::<()>();
        let forever = start(move || {
            let _ = wait.recv();
            Ok(())
        });
        let failing = start(|| Err(std::io::ErrorKind::Other.into()));
        assert_eq!(
            run_threads(vec![forever, failing]),
            ChildExit::ReactorFailed
        );
    }

    #[test]
    fn a_panic_has_a_code_of_its_own_and_a_good_end_is_zero() {
        let panicking = start(|| panic!("a bug"));
        assert_eq!(run_threads(vec![panicking]), ChildExit::ReactorPanicked);
        assert_eq!(
            run_threads(vec![start(|| Ok(())), start(|| Ok(()))]),
            ChildExit::Ordered
        );
    }
}
