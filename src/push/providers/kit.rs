//! What the tests of all providers share: tables as text, so that they read like the provider's own,
//! and requests and rulings as lines of such a table.

use crate::base::now::{Moment, Now};
use crate::push::providers::note::Note;
use crate::push::providers::provider::{Answer, Pass, Request};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict};

pub const ID: &str = "8f14e45f-ceea-467f-9538-1f0a6f0b1c2d";
/// 2023-11-14 22:13:20 UTC.
pub const NOW: i64 = 1_700_000_000;

pub fn now() -> Now {
    Now {
        moment: Moment::default(),
        unix_ms: NOW as u64 * 1000,
    }
}

pub fn pass() -> Pass {
    Pass {
        authorization: "bearer PASS".to_string(),
        renew_at: NOW + 60,
        ends_at: NOW + 120,
    }
}

/// A note of that JSON, with `ID`.
pub fn note(json: &str) -> Note {
    let read: Result<Note, _> = serde_json::from_str(json);
    let mut note = read.unwrap_or_else(|error| panic!("{json}: {error}"));
    note.id = ID.to_string();
    assert_eq!(note.check(), Ok(()), "{json}");
    note
}

/// The cells of each line `| a | b |`.
pub fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let rows: Vec<Vec<&str>> = lines
        .map(|line| {
            let inner = line.strip_prefix('|').and_then(|it| it.strip_suffix('|'));
            let inner = inner.unwrap_or_else(|| panic!("not a row: {line}"));
            inner.split(" | ").map(str::trim).collect()
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

pub fn answer<'a>(status: &str, fields: &'a [(&'a str, &'a str)], body: &'a str) -> Answer<'a> {
    Answer {
        status: status.parse().expect("a status"),
        fields,
        body: body.as_bytes(),
    }
}

/// The head of a request, one line each, the values of secret fields included.
pub fn head(request: &Request) -> Vec<String> {
    let first = format!(
        "{} {}{}",
        request.method.word(),
        request.origin,
        request.path
    );
    let fields = request.fields.iter().map(|field| {
        let dots = if field.secret { "*" } else { "" };
        format!("{}{dots}: {}", field.name, field.value)
    });
    [first].into_iter().chain(fields).collect()
}

pub fn body(request: &Request) -> serde_json::Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

/// A ruling as a cell of a table; a wait in seconds.
pub fn shown(ruling: &Ruling) -> String {
    let verdict = match &ruling.verdict {
        Verdict::Accepted { id: Some(id) } => format!("Accepted({id})"),
        Verdict::Accepted { id: None } => "Accepted".to_string(),
        Verdict::TokenDead {
            since_unix_ms: Some(at),
        } => format!("TokenDead({at})"),
        Verdict::TokenDead { .. } => "TokenDead".to_string(),
        Verdict::TokenSuspect => "TokenSuspect".to_string(),
        Verdict::BadRequest => "BadRequest".to_string(),
        Verdict::AuthBroken { scope: Scope::App } => "AuthBroken".to_string(),
        Verdict::AuthBroken { scope } => format!("AuthBroken for the {}", scope_word(*scope)),
        Verdict::RetryAfter { wait, scope } => {
            let word = scope_word(*scope);
            format!("RetryAfter({}) for the {word}", wait.as_secs())
        }
        Verdict::Retry => "Retry".to_string(),
        Verdict::NeverSent => "NeverSent".to_string(),
        Verdict::Unknown => "Unknown".to_string(),
    };
    let remedy = match ruling.remedy {
        Remedy::Nothing => "",
        Remedy::Reconnect => ", reconnect",
        Remedy::RenewPass => ", renew",
        Remedy::RenewPassAndReconnect => ", renew and reconnect",
        Remedy::KeepPass => ", keep the pass",
        Remedy::Alert => ", alert",
    };
    format!("{verdict}{remedy}")
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Token => "token",
        Scope::Topic => "topic",
        Scope::Leg => "leg",
        Scope::App => "app",
    }
}
