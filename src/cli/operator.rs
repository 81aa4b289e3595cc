//! The verbs `devices` and `keys`: what an operator at the machine asks of the push gateway, through the
//! control socket, so that no secret is needed. Owns pages, progress and what is printed; what a
//! call means is the courier's. Invariant: a work that was interrupted can be begun again or gone on
//! with, and what it did before counts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde_json::Value;

use crate::config::locate::Source;
use crate::run::client;
use crate::run::control::{Called, Command};
use crate::run::exit::{Exit, Failure};
use crate::run::rundir::RunDir;

/// Lines of an import, or devices of an export, in one call.
const PAGE: usize = 500;
/// Of an import's call; a line has to fit.
const PAGE_BYTES: usize = 512 * 1024;
/// For how long a courier may be away in the middle of a work of many calls.
const AWAY_PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    #[command(subcommand)]
    verb: DevicesVerb,
    /// The app, by its id; not needed when there is only one
    #[arg(long, global = true, value_name = "ID", default_value = "")]
    app: String,
}

#[derive(Debug, Subcommand)]
enum DevicesVerb {
    /// List devices, in the order of their ids
    List {
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// ios, android or web
        #[arg(long, value_name = "PLATFORM")]
        platform: Option<String>,
        /// Only those that get notifications, or only those that do not
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on behind this id
        #[arg(long, value_name = "ID")]
        after: Option<String>,
    },
    /// Show all that is known of a device, but for its token
    Show { device: String },
    /// Remove a device, or all of a user
    Remove {
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        device: Option<String>,
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Show the topics of a device, having added and removed some
    Topics {
        device: String,
        #[arg(long, value_name = "TOPIC")]
        add: Vec<String>,
        #[arg(long, value_name = "TOPIC")]
        remove: Vec<String>,
    },
    /// Register a device for each line of a file, as the HTTP API takes it
    Import {
        /// - is the standard input
        file: PathBuf,
        /// Begin with this line; the first is 1
        #[arg(long, value_name = "LINE", default_value_t = 1)]
        from: usize,
    },
    /// Write one line for each device to a file: all but the tokens
    Export {
        /// - is the standard output
        file: PathBuf,
        /// Go on where an earlier export into this file was interrupted
        #[arg(long)]
        resume: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Print a new key
    Generate,
    /// Show which keys there are, and how many tokens need each
    Status,
    /// Have all tokens encrypted with the current key, and wait until they are
    Rotate,
}

/// Where to ask, and how to show what comes.
pub(super) struct Desk<'a> {
    dir: RunDir,
    source: &'a Source,
    app: String,
    json: bool,
}

pub(super) fn devices(source: &Source, json: bool, args: &DevicesArgs) -> Result<Exit, Failure> {
    let desk = Desk::new(source, json, &args.app);
    match &args.verb {
        DevicesVerb::List {
            user,
            topic,
            platform,
            active,
            limit,
            after,
        } => {
            let active = active.map(|active| active.to_string());
            let limit = limit.to_string();
            let query = [
                ("user_id", user.as_deref()),
                ("topic", topic.as_deref()),
                ("platform", platform.as_deref()),
                ("active", active.as_deref()),
                ("after", after.as_deref()),
                ("limit", Some(&limit)),
            ];
            let query = query
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            let page = desk.call("GET", &["devices"], query.collect(), "")?;
            desk.show(&page, list_table)
        }
        DevicesVerb::Show { device } => {
            let device = desk.call("GET", &["devices", device], Vec::new(), "")?;
            desk.show(&device, pretty)
        }
        DevicesVerb::Remove {
            device: Some(device),
            ..
        } => {
            let done = desk.call("DELETE", &["devices", device], Vec::new(), "")?;
            desk.show(&done, |_| "removed\n".to_string())
        }
        DevicesVerb::Remove { user, .. } => {
            let user = user.as_deref().unwrap_or_default();
            let done = desk.call("DELETE", &["devices"], vec![("user_id", user)], "")?;
            desk.show(&done, |done| format!("{} removed\n", done["removed"]))
        }
        DevicesVerb::Topics {
            device,
            add,
            remove,
        } => topics(&desk, device, add, remove),
        DevicesVerb::Import { file, from } => import(&desk, file, *from),
        DevicesVerb::Export { file, resume } => export(&desk, file, *resume),
    }
}

pub(super) fn keys(source: &Source, json: bool, verb: &KeysVerb) -> Result<Exit, Failure> {
    let desk = Desk {
        dir: RunDir::of(source),
        source,
        app: String::new(),
        json,
    };
    match verb {
        KeysVerb::Generate => generate(),
        KeysVerb::Status => {
            let status = desk.call("GET", &["keys"], Vec::new(), "")?;
            desk.show(&status, keys_table)
        }
        KeysVerb::Rotate => rotate(&desk),
    }
}

/// Needs no server.
fn generate() -> Result<Exit, Failure> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| Failure::new(Exit::Failed, "the system has no entropy"))?;
    println!("{}", BASE64.encode(&key));
    Ok(Exit::Done)
}

impl<'a> Desk<'a> {
    pub(super) fn new(source: &'a Source, json: bool, app: &str) -> Desk<'a> {
        Desk {
            dir: RunDir::of(source),
            source,
            app: app.to_string(),
            json,
        }
    }

    /// The answer to a call that is done; a failure for another.
    pub(super) fn call(
        &self,
        method: &str,
        segments: &[&str],
        query: Vec<(&str, &str)>,
        body: &str,
    ) -> Result<Value, Failure> {
        let owned = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
        let command = Command::Call {
            method: method.to_string(),
            app_id: self.app.clone(),
            segments: segments.iter().map(|it| it.to_string()).collect(),
            query: query.into_iter().map(owned).collect(),
            body: body.to_string(),
        };
        let Some(Called { status, body }) = client::call(&self.dir, &command)? else {
            let message = format!("not running ({})", self.source.name());
            return Err(Failure::new(Exit::NotRunning, message));
        };
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        match status {
            200..300 => Ok(body),
            _ => {
                let why = body["error"]
                    .as_str()
                    .unwrap_or("the courier gives no reason");
                Err(Failure::new(Exit::Failed, why))
            }
        }
    }

    /// The same, again and again while the courier is away: one call of many.
    fn call_patiently(
        &self,
        method: &str,
        segments: &[&str],
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<Value, Failure> {
        let began = Instant::now();
        loop {
            match self.call(method, segments, query.to_vec(), body) {
                Err(failure) if is_away(&failure) && began.elapsed() < AWAY_PATIENCE => {
                    thread::sleep(AGAIN);
                }
                done => return done,
            }
        }
    }

    pub(super) fn show(
        &self,
        value: &Value,
        words: impl FnOnce(&Value) -> String,
    ) -> Result<Exit, Failure> {
        match self.json {
            true => println!("{value}"),
            false => print!("{}", words(value)),
        }
        Ok(Exit::Done)
    }
}

fn is_away(failure: &Failure) -> bool {
    failure.exit == Exit::Failed && failure.message.starts_with(client::COURIER_AWAY)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn list_table(page: &Value) -> String {
    let mut text = format!(
        "{:<36}  {:<8}  {:<9}  {:<20}  {}\n",
        "id", "platform", "state", "user", "device"
    );
    for device in page["devices"].as_array().into_iter().flatten() {
        let word = |name: &str| device[name].as_str().unwrap_or("-");
        let state = match device["is_active"] == true {
            true => "active",
            false => word("inactive_reason"),
        };
        text.push_str(&format!(
            "{:<36}  {:<8}  {:<9}  {:<20}  {}\n",
            word("id"),
            word("platform"),
            state,
            word("user_id"),
            word("device_id")
        ));
    }
    if let Some(next) = page["next"].as_str() {
        text.push_str(&format!("more with --after {next}\n"));
    }
    text
}

fn keys_table(status: &Value) -> String {
    let mut text = format!(
        "{:<24}  {:>12}  {:>12}  {:>12}  use\n",
        "key", "tokens", "credentials", "ever sealed"
    );
    for key in status["keys"].as_array().into_iter().flatten() {
        let is_unneeded = key["tokens"] == 0 && key["credentials"] == 0;
        let used = match (key["current"] == true, is_unneeded) {
            (true, _) => "current",
            (false, true) => "not needed any more",
            (false, false) => "former",
        };
        text.push_str(&format!(
            "{:<24}  {:>12}  {:>12}  {:>12}  {used}\n",
            key["id"].as_str().unwrap_or("-"),
            key["tokens"].to_string(),
            key["credentials"].to_string(),
            key["sealed"].to_string()
        ));
    }
    if status["rotation"].is_object() {
        text.push_str(&format!("rotating; {} tokens left\n", left(status)));
    }
    text
}

fn topics(
    desk: &Desk<'_>,
    device: &str,
    add: &[String],
    remove: &[String],
) -> Result<Exit, Failure> {
    let changes = add.iter().map(|topic| ("PUT", topic));
    for (method, topic) in changes.chain(remove.iter().map(|topic| ("DELETE", topic))) {
        desk.call(
            method,
            &["devices", device, "topics", topic],
            Vec::new(),
            "",
        )?;
    }
    let device = desk.call("GET", &["devices", device], Vec::new(), "")?;
    desk.show(&device["topics"], |topics| {
        let topics = topics.as_array().into_iter().flatten();
        topics
            .map(|it| format!("{}\n", it.as_str().unwrap_or_default()))
            .collect()
    })
}

/// Says how far a work is, where somebody looks.
pub(super) fn progress(words: &str, is_end: bool) {
    if io::stderr().is_terminal() {
        eprint!("\r{words}{}", if is_end { "\n" } else { "" });
    } else if is_end {
        eprintln!("{words}");
    }
}

fn import(desk: &Desk<'_>, file: &Path, from: usize) -> Result<Exit, Failure> {
    let fail = |error: io::Error| Failure::io(file.display(), &error);
    let input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).map_err(fail)?),
    };
    let mut lines = BufReader::new(input)
        .lines()
        .enumerate()
        .skip(from.max(1) - 1)
        .peekable();
    let (mut registered, mut refused) = (0, 0);
    while let Some((first, _)) = lines.peek() {
        let first = *first;
        let mut page = String::new();
        let mut count = 0;
        while let Some((_, line)) = lines.next_if(|(_, line)| {
            let bytes = line.as_ref().map_or(0, String::len);
            count == 0 || count < PAGE && page.len() + bytes < PAGE_BYTES
        }) {
            page.push_str(&line.map_err(fail)?);
            page.push('\n');
            count += 1;
        }
        let done = desk.call_patiently("POST", &["devices", "import"], &[], &page);
        let done = done.map_err(|failure| {
            let again = format!("{}; go on with --from {}", failure.message, first + 1);
            Failure::new(failure.exit, again)
        })?;
        registered += done["registered"].as_u64().unwrap_or(0);
        for one in done["refused"].as_array().into_iter().flatten() {
            let line = first as u64 + one["line"].as_u64().unwrap_or(0);
            eprintln!("line {line}: {}", one["error"].as_str().unwrap_or_default());
            refused += 1;
        }
        progress(&format!("{} lines", first + count), false);
    }
    progress("", true);
    let done = serde_json::json!({ "registered": registered, "refused": refused });
    desk.show(&done, |_| {
        format!("{registered} registered, {refused} refused\n")
    })?;
    Ok(if refused > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn export(desk: &Desk<'_>, path: &Path, resume: bool) -> Result<Exit, Failure> {
    let fail = |error: io::Error| Failure::io(path.display(), &error);
    let (mut output, mut after) = open_export(path, resume).map_err(fail)?;
    let (count, mut done) = (PAGE.to_string(), 0);
    loop {
        let query = [("limit", count.as_str()), ("after", after.as_str())];
        let page = desk.call_patiently("GET", &["devices"], &query, "")?;
        for device in page["devices"].as_array().into_iter().flatten() {
            writeln!(output, "{device}").map_err(fail)?;
            done += 1;
        }
        output.flush().map_err(fail)?;
        progress(&format!("{done} devices"), false);
        match page["next"].as_str() {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    progress(&format!("{done} devices"), true);
    Ok(Exit::Done)
}

/// The file, and the last device that is in it already. Half a line at its end is cut off.
fn open_export(path: &Path, resume: bool) -> io::Result<(Box<dyn Write>, String)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdout()), String::new()));
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(!resume)
        .open(path)?;
    let (mut whole, mut last) = (0, String::new());
    let mut reader = BufReader::new(&mut file);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        whole += line.len() as u64;
        let device: Value = serde_json::from_str(&line).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "this is no export, and stays as it is",
            )
        })?;
        last = device["id"].as_str().unwrap_or_default().to_string();
        line.clear();
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    Ok((Box::new(BufWriter::new(file)), last))
}

/// How many tokens and credentials are not sealed with the current key, or not bound to their row.
fn left(status: &Value) -> u64 {
    let keys = status["keys"].as_array().into_iter().flatten();
    let of = |key: &Value, name: &str| key[name].as_u64().unwrap_or(0);
    keys.map(|key| match key["current"] == true {
        true => of(key, "unbound"),
        false => of(key, "tokens") + of(key, "credentials"),
    })
    .sum()
}

/// Begins a rotation and looks on. It goes on without us.
fn rotate(desk: &Desk<'_>) -> Result<Exit, Failure> {
    desk.call_patiently("POST", &["keys", "rotation"], &[], "")?;
    loop {
        let status = desk.call_patiently("GET", &["keys"], &[], "")?;
        let left = left(&status);
        let ended = status["rotation"].is_null();
        if !ended {
            progress(&format!("{left} tokens left   "), false);
            thread::sleep(AGAIN);
            continue;
        }
        progress("", true);
        desk.show(&status, keys_table)?;
        if left == 0 {
            return Ok(Exit::Done);
        }
        let message =
            format!("{left} tokens do not open with any key; the log names their devices");
        return Err(Failure::new(Exit::Failed, message));
    }
}
