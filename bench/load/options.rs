//! The command line: one subcommand per scenario, and what all of them share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(
    name = "load",
    about = "Measures a connection server: one scenario per run"
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// Runs one scenario against several servers in turn and compares them
    Compare(CompareOptions),
    /// The raw event loop that others are compared with
    Floor(FloorOptions),
    /// Holds idle connections (started by the idle scenario)
    #[command(hide = true)]
    Hold(HoldOptions),
}

#[derive(Subcommand, Clone)]
pub enum Scenario {
    /// WebSocket echo: every message is sent back
    Echo(EchoOptions),
    /// One publish over HTTP to many Pusher subscribers
    Fanout(FanoutOptions),
    /// Events that Pusher clients send each other on private channels
    ClientEvents(ClientEventsOptions),
    /// Signed publishes to a channel without subscribers
    Publish(RequestOptions),
    /// Keep-alive GET of one path
    Http(RequestOptions),
    /// Memory per connection that does nothing
    Idle(IdleOptions),
    /// Connect, upgrade, close; as fast as it goes
    Handshake(HandshakeOptions),
    /// Client events while visitors come and go, events go to all, and workers are replaced
    Storm(StormOptions),
}

/// Which server is measured, and for how long.
#[derive(Args, Clone)]
pub struct TargetOptions {
    /// floor | lineman[=PATH][,workers=N][,threads=N] | nginx | a command line with {port} in
    /// it, and {certificate} and {key} with --tls
    #[arg(long, default_value = "lineman")]
    pub server: String,
    /// Measure a server that runs already, e.g. http://127.0.0.1:8080
    #[arg(long)]
    pub url: Option<String>,
    /// Processes of that server (descendants are found)
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Path of the WebSocket or of the GET, where the scenario's own does not fit
    #[arg(long)]
    pub path: Option<String>,
    #[arg(long, default_value = "bench")]
    pub app_id: String,
    #[arg(long, default_value = "bench-key")]
    pub app_key: String,
    #[arg(long, default_value = "bench-secret")]
    pub app_secret: String,
    /// A line for the top of Lineman's configuration; may be repeated
    #[arg(long)]
    pub set: Vec<String>,
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Processors for the server, as taskset reads them, or "any"
    #[arg(long, default_value = "0")]
    pub server_cpus: String,
    /// Processors for the generator, or "any"
    #[arg(long, default_value = "1")]
    pub client_cpus: String,
    /// Measured time
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Time before it
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Whether connections are TLS, and which.
#[derive(Args, Clone)]
pub struct TlsOptions {
    /// Over TLS 1.3, with a certificate made for the run
    #[arg(long)]
    pub tls: bool,
    /// Come back with tickets: every handshake after the first ones is a short one
    #[arg(long, requires = "tls")]
    pub resume: bool,
    /// The key exchange that is offered
    #[arg(long, value_enum, default_value = "hybrid")]
    pub group: Group,
    /// With --url: the server's certificate, or its authority's, as PEM; it has to be for "localhost"
    #[arg(long)]
    pub authority: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// X25519MLKEM768, with X25519 for servers that do not know it, as browsers do
    Hybrid,
    /// X25519 alone
    #[value(name = "x25519")]
    X25519,
}

#[derive(Args, Clone)]
pub struct EchoOptions {
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Payload of a message
    #[arg(long, default_value_t = 20)]
    pub bytes: usize,
    /// Messages sent in one write, all answered before the next ones
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,
    /// Binary messages instead of text
    #[arg(long)]
    pub binary: bool,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct FanoutOptions {
    #[arg(long, default_value_t = 1000)]
    pub subscribers: usize,
    /// HTTP connections that publish
    #[arg(long, default_value_t = 1)]
    pub publishers: usize,
    /// Publishes under way at once, all delivered before the next ones
    #[arg(long, default_value_t = 1)]
    pub in_flight: usize,
    /// Length of an event's data
    #[arg(long, default_value_t = 128)]
    pub bytes: usize,
    /// Channels the subscribers are spread over; a publish goes to one
    #[arg(long, default_value_t = 1)]
    pub channels: usize,
    /// "private-…" makes subscribers sign
    #[arg(long, default_value = "bench-")]
    pub channel_prefix: String,
    /// Deliveries per second at fixed times, instead of as fast as it goes
    #[arg(long)]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct ClientEventsOptions {
    /// Each has a sender of its own
    #[arg(long, default_value_t = 64)]
    pub channels: usize,
    /// Of each channel, on other workers than the sender if there are enough
    #[arg(long, default_value_t = 1)]
    pub receivers: usize,
    /// Events of a sender in one write, all heard before the next ones
    #[arg(long, default_value_t = 16)]
    pub in_flight: usize,
    /// Length of an event's data
    #[arg(long, default_value_t = 128)]
    pub bytes: usize,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct RequestOptions {
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests sent in one write, all answered before the next ones
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,
    /// Length of a publish's data (128); or get a file of that length instead
    /// of /healthz
    #[arg(long)]
    pub bytes: Option<usize>,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct IdleOptions {
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    /// Connect as Pusher clients and subscribe
    #[arg(long)]
    pub subscribe: bool,
    /// Channels the subscribers are spread over (0: greeted, not subscribed)
    #[arg(long, default_value_t = 1)]
    pub channels: usize,
    /// At the end, replace all workers under them; every client comes back at
    /// once when it is told to, and none may be refused
    #[arg(long)]
    pub reload: bool,
    /// Connections per holding process
    #[arg(long, default_value_t = 18_000)]
    pub per_process: usize,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct HandshakeOptions {
    /// Connections being opened at once
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// With the Pusher greeting and one subscription
    #[arg(long)]
    pub subscribe: bool,
    /// One GET of /healthz in place of the upgrade
    #[arg(long, conflicts_with = "subscribe")]
    pub get: bool,
    /// Channels the subscriptions are spread over
    #[arg(long, default_value_t = 1)]
    pub channels: usize,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct StormOptions {
    /// Pairs of clients that send each other events
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Client events per second, of all pairs together
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// Visitors per second
    #[arg(long, default_value_t = 1_000.0)]
    pub handshakes: f64,
    /// Of the channel that events for all go to
    #[arg(long, default_value_t = 10_000)]
    pub subscribers: usize,
    /// Events for all, per second
    #[arg(long, default_value_t = 1.0)]
    pub fanouts: f64,
    /// Replace all workers after a third of the time
    #[arg(long)]
    pub reload: bool,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Args, Clone)]
pub struct CompareOptions {
    /// The servers, the one to compare with first (see --server of a scenario)
    #[arg(long, required = true, num_args = 1)]
    pub server: Vec<String>,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Repeat a round in which others used more than this many cores, but no
    /// more than three times as many rounds as are asked for
    #[arg(long)]
    pub quiet: Option<f64>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    pub scenario: Scenario,
}

#[derive(Args, Clone)]
pub struct FloorOptions {
    #[arg(long)]
    pub port: u16,
    /// End when the standard input ends
    #[arg(long)]
    pub leashed: bool,
}

#[derive(Args, Clone)]
pub struct HoldOptions {
    #[arg(long)]
    pub address: std::net::SocketAddr,
    #[arg(long)]
    pub path: String,
    #[arg(long)]
    pub connections: usize,
    #[arg(long)]
    pub source: Option<std::net::Ipv4Addr>,
    #[arg(long)]
    pub offset: usize,
    #[arg(long)]
    pub pusher: bool,
    #[command(flatten)]
    pub tls: TlsOptions,
    #[arg(long)]
    pub channels: usize,
    #[arg(long)]
    pub app_id: String,
    #[arg(long)]
    pub app_key: String,
    #[arg(long)]
    pub app_secret: String,
}

/// Which handler a scenario talks to.
#[derive(Clone, Copy)]
pub enum Service {
    Echo,
    Channels,
    /// One file of that many bytes.
    File(usize),
}

impl Scenario {
    pub fn target(&self) -> &TargetOptions {
        match self {
            Scenario::Echo(options) => &options.target,
            Scenario::Fanout(options) => &options.target,
            Scenario::ClientEvents(options) => &options.target,
            Scenario::Publish(options) | Scenario::Http(options) => &options.target,
            Scenario::Idle(options) => &options.target,
            Scenario::Handshake(options) => &options.target,
            Scenario::Storm(options) => &options.target,
        }
    }

    /// What the server has to be able to do.
    pub fn service(&self) -> Service {
        match self {
            Scenario::Echo(_) => Service::Echo,
            Scenario::Idle(options) if !options.subscribe => Service::Echo,
            Scenario::Handshake(options) if !options.subscribe && !options.get => Service::Echo,
            Scenario::Http(options) => options.bytes.map_or(Service::Channels, Service::File),
            _ => Service::Channels,
        }
    }

    /// Descriptors this scenario needs in the generator and in the server.
    pub fn descriptors(&self) -> usize {
        match self {
            Scenario::Echo(options) => options.connections,
            Scenario::Fanout(options) => options.subscribers + options.publishers,
            Scenario::ClientEvents(options) => options.channels * (1 + options.receivers),
            Scenario::Publish(options) | Scenario::Http(options) => options.connections,
            Scenario::Idle(options) => options.connections.min(options.per_process),
            Scenario::Handshake(options) => options.connections,
            // Those of the server; ours are spread over processes.
            Scenario::Storm(options) => options.subscribers + 2 * options.pairs + 1_000,
        }
    }

    /// The scenario with its own settings, as one would type it.
    pub fn describe(&self) -> String {
        self.describe_itself() + &self.target().tls.describe()
    }

    fn describe_itself(&self) -> String {
        match self {
            Scenario::Echo(o) => {
                let kind = if o.binary { " --binary" } else { "" };
                let (connections, bytes, pipeline) = (o.connections, o.bytes, o.pipeline);
                format!(
                    "echo --connections {connections} --bytes {bytes} --pipeline {pipeline}{kind}"
                )
            }
            Scenario::Fanout(o) => {
                let rate = o
                    .rate
                    .map_or(String::new(), |rate| format!(" --rate {rate}"));
                format!(
                    "fanout --subscribers {} --publishers {} --in-flight {} --bytes {} --channels {}{rate}",
                    o.subscribers, o.publishers, o.in_flight, o.bytes, o.channels
                )
            }
            Scenario::ClientEvents(o) => format!(
                "client-events --channels {} --receivers {} --in-flight {} --bytes {}",
                o.channels, o.receivers, o.in_flight, o.bytes
            ),
            Scenario::Publish(o) => format!("publish{}", o.describe()),
            Scenario::Http(o) => format!("http{}", o.describe()),
            Scenario::Idle(o) => {
                let what = if o.subscribe {
                    format!(" --subscribe --channels {}", o.channels)
                } else {
                    String::new()
                };
                let reload = if o.reload { " --reload" } else { "" };
                format!("idle --connections {}{what}{reload}", o.connections)
            }
            Scenario::Handshake(o) => {
                let what = match (o.subscribe, o.get) {
                    (true, _) => " --subscribe",
                    (_, true) => " --get",
                    _ => "",
                };
                format!("handshake --connections {}{what}", o.connections)
            }
            Scenario::Storm(o) => format!(
                "storm --pairs {} --rate {} --handshakes {} --subscribers {} --fanouts {}{}",
                o.pairs,
                o.rate,
                o.handshakes,
                o.subscribers,
                o.fanouts,
                if o.reload { " --reload" } else { "" }
            ),
        }
    }
}

impl RequestOptions {
    fn describe(&self) -> String {
        let (connections, pipeline) = (self.connections, self.pipeline);
        let bytes = self.bytes.map(|bytes| format!(" --bytes {bytes}"));
        let bytes = bytes.unwrap_or_default();
        format!(" --connections {connections} --pipeline {pipeline}{bytes}")
    }
}

impl TlsOptions {
    /// The same for another process, which trusts `authority`.
    pub fn words(&self, authority: Option<&Path>) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(authority) = authority.filter(|_| self.tls) {
            words.extend(["--tls".into(), "--authority".into(), authority.into()]);
            let group = match self.group {
                Group::Hybrid => "hybrid",
                Group::X25519 => "x25519",
            };
            words.extend(["--group".into(), group.into()]);
        }
        words
    }

    fn describe(&self) -> String {
        let mut words = String::new();
        if self.tls {
            words += " --tls";
            words += if self.resume { " --resume" } else { "" };
            words += match self.group {
                Group::Hybrid => "",
                Group::X25519 => " --group x25519",
            };
        }
        words
    }
}
