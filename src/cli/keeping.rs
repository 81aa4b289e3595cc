//! The verbs `backup` and `verify`: what an operator does with the database itself, whether or not a
//! server runs on it. Owns where it is found and what is printed. Invariant: neither verb changes the
//! database, or any file that was there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::base::dice::Dice;
use crate::cli::operator::progress;
use crate::config::Config;
use crate::config::locate::Source;
use crate::push::devices::vault::TokenVault;
use crate::run::exit::{Exit, Failure};
use crate::run::rundir::RunDir;
use crate::run::{client, role, secrets};
use crate::store::verify::{Keys, Report, Tokens};
use crate::store::{backup, verify};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The copy; must not be there yet
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A copy; without it, the server's own database
    file: Option<PathBuf>,
    /// Leave the tokens alone: their keys are not on this machine
    #[arg(long)]
    without_keys: bool,
}

pub(super) fn backup(source: &Source, json: bool, args: &BackupArgs) -> Result<Exit, Failure> {
    let from = store_file(source)?;
    let to = &args.file;
    let told = |done, of| progress(&format!("{done} of {of} pages"), done == of);
    let bytes = backup::copy(&from, to, told).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let message = format!(
                "{}: it is there already, and stays as it is",
                place(to, &error)
            );
            Failure::new(Exit::Failed, message)
        }
        _ => Failure::io(to.display(), &error),
    })?;
    match json {
        true => println!(
            "{}",
            json!({ "done": "copied", "from": from, "to": to, "bytes": bytes })
        ),
        false => println!(
            "{} copied to {}, {bytes} bytes",
            from.display(),
            to.display()
        ),
    }
    Ok(Exit::Done)
}

/// What is there: the copy, or what an interrupted one has left.
fn place(to: &Path, error: &std::io::Error) -> String {
    match error.get_ref() {
        Some(told) => told.to_string(),
        None => to.display().to_string(),
    }
}

pub(super) fn verify(source: &Source, json: bool, args: &VerifyArgs) -> Result<Exit, Failure> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => store_file(source)?,
    };
    let vault = match args.without_keys {
        true => None,
        false => vault(&secrets::config(source)?)?,
    };
    let keys = match args.without_keys {
        true => Keys::Elsewhere,
        false => Keys::Here(vault.as_ref()),
    };
    let told = |done| progress(&format!("{done} tokens"), false);
    let report = verify::verify(&file, keys, told);
    let report = report.map_err(|why| Failure::new(Exit::Failed, why))?;
    progress("", true);
    match json {
        true => {
            let good = report.is_good();
            println!(
                "{}",
                json!({ "file": file, "good": good, "report": report })
            );
        }
        false => print!("{}", words(&file, &report)),
    }
    Ok(match report.is_good() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

/// The database of the server that runs, or of the one that would be started here.
fn store_file(source: &Source) -> Result<PathBuf, Failure> {
    let dir = RunDir::of(source);
    // Only the server knows what its service manager has told it.
    if let Some(store) = client::status(&dir)?.and_then(|status| status.store) {
        return Ok(PathBuf::from(store));
    }
    let config = source.config(&secrets::fetch);
    let config = config.map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
    if config.postgres.is_some() {
        let message = "the database is a PostgreSQL: `pg_dump --schema=lineman` copies it";
        return Err(Failure::new(Exit::Failed, message));
    }
    let store = dir.store_dir(config.store_dir.as_deref(), config.run_dir.is_some());
    let file = store.join("lineman.db");
    match file.exists() {
        true => Ok(file),
        false => {
            let message = format!("{}: there is no database", file.display());
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

fn vault(config: &Config) -> Result<Option<TokenVault>, Failure> {
    let fail = |why: String| Failure::new(Exit::Failed, why);
    let mut dice = Dice::new(role::seed().map_err(fail)?);
    let vault = config.push.as_ref().and_then(|push| push.vault(&mut dice));
    vault.transpose().map_err(|fault| fail(fault.text()))
}

fn words(file: &Path, report: &Report) -> String {
    let mut lines = vec![format!("{:<15} {}", "file", file.display())];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<15} {value}"));
    let (schema, newest) = (report.schema, report.newest_schema);
    line(
        "schema",
        match schema {
            0 => "none: nothing of ours".to_string(),
            _ if schema > newest => format!("{schema}: a newer version of lineman wrote it"),
            _ if schema < newest => format!("{schema}, brought to {newest} at the next start"),
            _ => format!("{schema}, the newest"),
        },
    );
    match report.damage.first() {
        Some(damage) => line("integrity", format!("DAMAGED: {damage}")),
        None => line("integrity", "ok".to_string()),
    }
    line("lost rows", bad_count(report.orphans));
    line("wrong counts", bad_count(report.miscounted_apps));
    line("devices", report.devices.to_string());
    match &report.tokens {
        Some(tokens) => token_lines(tokens, &mut line),
        None => line("tokens", "not tried".to_string()),
    }
    let credentials = match report.unreadable_credentials {
        0 => report.credentials.to_string(),
        closed => format!("{}, {closed} do not open !", report.credentials),
    };
    line("credentials", credentials);
    line(
        "notifications",
        format!(
            "{}, {} deliveries wait",
            report.notifications, report.deliveries
        ),
    );
    line("webhooks", format!("{} wait", report.webhooks));
    line(
        "result",
        if report.is_good() { "good" } else { "NOT GOOD" }.to_string(),
    );
    lines.join("\n") + "\n"
}

fn token_lines(tokens: &Tokens, line: &mut impl FnMut(&str, String)) {
    if let Some(why) = &tokens.keys {
        line("keys", format!("WRONG: {why}"));
    }
    line("tokens open", tokens.readable.to_string());
    line("do not open", bad_count(tokens.unreadable));
    line("wrong index", bad_count(tokens.misindexed));
    if !tokens.wrong.is_empty() {
        line("among them", tokens.wrong.join(", "));
    }
}

fn bad_count(count: u64) -> String {
    match count {
        0 => "none".to_string(),
        some => format!("{some} !"),
    }
}
