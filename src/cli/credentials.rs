//! The verb `credentials`: what apps prove themselves with to push providers, given to a running
//! server. Owns how fields are written and what is printed. Invariant: a secret comes out of a file or
//! the standard input, never from the command line, which others on the machine can read.

use std::fs;
use std::io::{self, Read};
use std::path;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use crate::cli::operator::Desk;
use crate::config::locate::Source;
use crate::run::exit::{Exit, Failure};
use crate::run::log::timestamp;

/// What has to be in a file.
const SECRETS: [&str; 5] = [
    "key",
    "account",
    "connection_string",
    "client_secret",
    "identity_header",
];

#[derive(Debug, Args)]
pub(super) struct CredentialsArgs {
    #[command(subcommand)]
    verb: CredentialsVerb,
    /// The app, by its id; not needed when there is only one
    #[arg(long, global = true, value_name = "ID", default_value = "")]
    app: String,
}

#[derive(Debug, Subcommand)]
enum CredentialsVerb {
    /// List an app's credentials, those of the configuration too
    List,
    /// Show one, but for its secret
    Show { name: String },
    /// Put a credential into use, instead of the one that has this name
    Put {
        name: String,
        /// FIELD=VALUE, or FIELD=@FILE for what stands in a file; @- is the standard input
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
    },
    /// Take a credential out of use
    Remove { name: String },
}

pub(super) fn credentials(
    source: &Source,
    json: bool,
    args: &CredentialsArgs,
) -> Result<Exit, Failure> {
    let desk = Desk::new(source, json, &args.app);
    match &args.verb {
        CredentialsVerb::List => {
            let list = desk.call("GET", &["credentials"], Vec::new(), "")?;
            desk.show(&list, table)
        }
        CredentialsVerb::Show { name } => {
            let one = desk.call("GET", &["credentials", name], Vec::new(), "")?;
            desk.show(&one, |one| format!("{one:#}\n"))
        }
        CredentialsVerb::Put { name, fields } => {
            let body = read_fields(fields)?;
            let one = desk.call("PUT", &["credentials", name], Vec::new(), &body)?;
            desk.show(&one, |one| format!("in use for {}\n", uses(one)))
        }
        CredentialsVerb::Remove { name } => {
            let done = desk.call("DELETE", &["credentials", name], Vec::new(), "")?;
            desk.show(&done, |_| "removed\n".to_string())
        }
    }
}

/// The fields as the HTTP API takes them.
fn read_fields(fields: &[String]) -> Result<String, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, why);
    let mut read = Map::new();
    for field in fields {
        let (name, value) = field
            .split_once('=')
            .ok_or_else(|| wrong(format!("{field} is not FIELD=VALUE")))?;
        let value = match value.strip_prefix('@') {
            Some(file) => read_file(file)
                .map_err(|error| Failure::io(path::Path::new(file).display(), &error))?,
            None if SECRETS.contains(&name) => {
                let why = format!("{name} is secret, and others see command lines: {name}=@FILE");
                return Err(wrong(why));
            }
            None if name == "ca_file" => {
                let whole = path::absolute(value);
                let whole =
                    whole.map_err(|error| Failure::io(path::Path::new(value).display(), &error))?;
                whole.display().to_string()
            }
            None => value.to_string(),
        };
        read.insert(name.to_string(), value.into());
    }
    Ok(Value::from(read).to_string())
}

fn read_file(name: &str) -> io::Result<String> {
    if name != "-" {
        return fs::read_to_string(name);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn uses(one: &Value) -> String {
    let words = one["used_for"].as_array().into_iter().flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    match words.is_empty() {
        true => "nothing".to_string(),
        false => words.join(", "),
    }
}

fn table(list: &Value) -> String {
    let mut text = format!(
        "{:<20}  {:<16}  {:<13}  {:<24}  {:<16}  used for\n",
        "name", "kind", "source", "changed", "fingerprint"
    );
    for one in list["credentials"].as_array().into_iter().flatten() {
        let word = |name: &str| one[name].as_str().unwrap_or("-");
        let changed = one["updated_ms"].as_u64();
        let changed = changed.map_or("-".to_string(), timestamp);
        let used = match one["error"].as_str() {
            Some(why) => format!("nothing: {why}"),
            None => uses(one),
        };
        text.push_str(&format!(
            "{:<20}  {:<16}  {:<13}  {changed:<24}  {:<16}  {used}\n",
            word("name"),
            word("kind"),
            word("source"),
            word("fingerprint"),
        ));
    }
    text
}
