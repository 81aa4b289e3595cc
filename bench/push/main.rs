//! What a push notification costs whoever sends it: Lineman and other libraries against one sink that
//! speaks HTTP/2 over TLS. `cargo bench --bench push -- --help` says what can be measured.

mod cpu;
mod peers;
mod place;
mod report;
mod scenarios;
mod server;
mod sink;

#[path = "../../src/run/mock/authority.rs"]
mod authority;

use std::path::PathBuf;
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
cargo bench --bench push -- WHAT [options]

  send        from claimed to verdict, beside the peers that were set up
  pace        what part of streams / answer time each connection reaches
  all         from accepted to settled, while it is accepted
  accept      how fast notifications are accepted that nobody sends
  setup       installs the peers into --peers: cargo, pip and npm

  --rounds N          each after the other in every round [5]
  --count N           notifications of one round [20000]
  --streams N,N       requests at a time on a connection [100,1000]
  --answer-ms N       what the sink takes for an answer [0; pace: 40]
  --users N,N         users of one call [1000,1]
  --callers N         who call at the same time [16]
  --server PATH       Lineman [that built with this]
  --store URL         a PostgreSQL; without, SQLite in a temporary directory
  --peers DIR         where peers are installed; without, Lineman is alone
";

/// What was asked for.
pub struct Options {
    pub rounds: usize,
    pub count: usize,
    pub streams: Vec<u32>,
    pub answer: Option<Duration>,
    pub users: Vec<usize>,
    pub callers: usize,
    pub server: String,
    pub store: Option<String>,
    pub peers: Option<PathBuf>,
}

fn main() {
    // Cargo adds a word of its own.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    if let Err(why) = run(&words) {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn run(words: &[String]) -> Fallible<()> {
    let Some((what, rest)) = words.split_first().filter(|(it, _)| *it != "--help") else {
        print!("{HELP}");
        return Ok(());
    };
    let options = read(rest)?;
    match what.as_str() {
        "send" => scenarios::send(&options),
        "pace" => scenarios::pace(&options),
        "all" => scenarios::all(&options),
        "accept" => scenarios::accept(&options),
        "setup" => peers::set_up(options.peers.as_ref().ok_or("--peers is missing")?),
        _ => Err(format!("{what}: unknown; see --help").into()),
    }
}

fn read(words: &[String]) -> Fallible<Options> {
    let mut options = Options {
        rounds: 5,
        count: 20_000,
        streams: vec![100, 1000],
        answer: None,
        users: vec![1000, 1],
        callers: 16,
        server: env!("CARGO_BIN_EXE_lineman").to_string(),
        store: None,
        peers: None,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{} has no value", pair[0]).into());
        };
        match name.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--count" => options.count = value.parse()?,
            "--streams" => options.streams = numbers(value)?,
            "--answer-ms" => options.answer = Some(Duration::from_millis(value.parse()?)),
            "--users" => options.users = numbers(value)?,
            "--callers" => options.callers = value.parse()?,
            "--server" => options.server = value.clone(),
            "--store" => options.store = Some(value.clone()),
            "--peers" => options.peers = Some(PathBuf::from(value)),
            _ => return Err(format!("{name}: unknown; see --help").into()),
        }
    }
    Ok(options)
}

fn numbers<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::parse).collect()
}
