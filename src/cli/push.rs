//! The verb `push`: what an operator at the machine asks about notifications, by the same calls as a
//! backend. Owns how they are written and what is printed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::operator::Desk;
use crate::config::locate::Source;
use crate::run::exit::{Exit, Failure};
use crate::run::log::timestamp;

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    #[command(subcommand)]
    verb: PushVerb,
    /// The app, by its id; not needed when there is only one
    #[arg(long, global = true, value_name = "ID", default_value = "")]
    app: String,
}

#[derive(Debug, Subcommand)]
enum PushVerb {
    /// Send a notification: from a file, or to users with a title
    Send {
        /// As the HTTP API takes it; - is the standard input
        #[arg(required_unless_present = "user", conflicts_with_all = ["user", "title", "body"])]
        file: Option<PathBuf>,
        #[arg(long, value_name = "USER")]
        user: Vec<String>,
        #[arg(long, value_name = "TEXT", default_value = "Hello")]
        title: String,
        #[arg(long, value_name = "TEXT")]
        body: Option<String>,
    },
    /// Show what became of a notification, or the newest ones
    Status {
        id: Option<String>,
        /// Only those in this state: scheduled, expanding, open, done, cancelled or expired
        #[arg(long, value_name = "STATE", conflicts_with = "id")]
        state: Option<String>,
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on behind this delivery or, in the list, this notification
        #[arg(long, value_name = "ID")]
        after: Option<String>,
    },
    /// Take back what is not sent yet
    Cancel { id: String },
    /// Queue again what has failed
    Retry { id: String },
}

pub(super) fn push(source: &Source, json: bool, args: &PushArgs) -> Result<Exit, Failure> {
    let desk = Desk::new(source, json, &args.app);
    match &args.verb {
        PushVerb::Send {
            file,
            user,
            title,
            body,
        } => {
            let request = match file {
                Some(file) => read(file).map_err(|error| Failure::io(file.display(), &error))?,
                None => {
                    let note = json!({"title": title, "body": body});
                    json!({"to": {"users": user}, "note": note}).to_string()
                }
            };
            let sent = desk.call("POST", &["notify"], Vec::new(), &request)?;
            desk.show(&sent, |sent| {
                let id = sent["id"].as_str().unwrap_or_default();
                format!("{id}\n{}", standings(sent))
            })
        }
        PushVerb::Status {
            id,
            state,
            limit,
            after,
        } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(state.as_deref().map(|state| ("state", state)));
            let behind = if id.is_some() { "after" } else { "before" };
            query.extend(after.as_deref().map(|after| (behind, after)));
            let (segments, words): (Vec<&str>, fn(&Value) -> String) = match id {
                Some(id) => (vec!["notifications", id], story),
                None => (vec!["notifications"], list),
            };
            let told = desk.call("GET", &segments, query, "")?;
            desk.show(&told, words)
        }
        PushVerb::Cancel { id } => {
            let done = desk.call("DELETE", &["notifications", id], Vec::new(), "")?;
            desk.show(&done, |done| format!("{} cancelled\n", done["cancelled"]))
        }
        PushVerb::Retry { id } => {
            let path = ["notifications", id, "retry"];
            let done = desk.call("POST", &path, Vec::new(), "")?;
            desk.show(&done, |done| format!("{} queued\n", done["queued"]))
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn standings(sent: &Value) -> String {
    let users = sent["users"].as_array().into_iter().flatten();
    let line = |user: &Value| {
        let id = user["user_id"].as_str().unwrap_or_default();
        let live = user["live"].as_u64().unwrap_or(0);
        let (push, held) = (&user["push"], &user["held"]);
        format!("{id}: {live} connections, {push} devices queued, {held} waiting\n")
    };
    users.map(line).collect()
}

fn list(told: &Value) -> String {
    let mut text = format!("{:<36}  {:<9}  {}\n", "id", "state", "accepted");
    for row in told["notifications"].as_array().into_iter().flatten() {
        let word = |name: &str| row[name].as_str().unwrap_or("-");
        let at = time(&row["created_at_ms"]);
        text.push_str(&format!("{:<36}  {:<9}  {at}\n", word("id"), word("state")));
    }
    text
}

/// What happened, in its order, and what is under way.
fn story(told: &Value) -> String {
    let mut text = format!("{}\n", told["state"].as_str().unwrap_or_default());
    for entry in told["timeline"].as_array().into_iter().flatten() {
        let event = entry["event"].as_str().unwrap_or_default();
        text.push_str(&format!("{}  {event}", time(&entry["at_ms"])));
        for name in [
            "user_id",
            "channel",
            "device_id",
            "connections",
            "reason",
            "provider_id",
        ] {
            match &entry[name] {
                Value::Null => {}
                Value::String(value) => text.push_str(&format!("  {name}={value}")),
                value => text.push_str(&format!("  {name}={value}")),
            }
        }
        text.push('\n');
    }
    for (state, count) in told["counts"].as_object().into_iter().flatten() {
        text.push_str(&format!("{count} {state}\n"));
    }
    if let Some(next) = told["next"].as_u64() {
        text.push_str(&format!("more with --after {next}\n"));
    }
    text
}

fn time(ms: &Value) -> String {
    timestamp(ms.as_u64().unwrap_or(0))
}
