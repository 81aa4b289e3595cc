//! What a code means and what to do about it: exit codes, WebSocket close codes, Pusher's codes. Owns
//! one table, from which `lineman explain` and docs/codes.md are made. Knows nothing of who used a
//! code. Invariant: every code this program can give is in the table.

use std::fmt::Write;

/// Where a code is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Exit,
    Child,
    Close,
    Event,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Exit, Kind::Child, Kind::Close, Kind::Event];

    fn title(self) -> &'static str {
        match self {
            Kind::Exit => "Exit code of a command",
            Kind::Child => "Exit code of a worker or the switchboard",
            Kind::Close => "WebSocket close code",
            Kind::Event => "Code in a pusher:error event",
        }
    }
}

/// One code.
pub struct Row {
    pub kind: Kind,
    pub code: u16,
    /// When it is given.
    pub when: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

const fn row(kind: Kind, code: u16, when: &'static str, advice: &'static str) -> Row {
    Row {
        kind,
        code,
        when,
        advice,
    }
}

/// By kind, then by code.
pub const ROWS: &[Row] = &[
    row(
        Kind::Exit,
        0,
        "Done. `stop`: also when nothing was running. `status`: the server runs.",
        "",
    ),
    row(
        Kind::Exit,
        1,
        "It did not work: the port is taken, the server died, it did not answer in time, or a worker could not be replaced.",
        "The message says which. For a port, `ss -ltnp` shows who has it; for a worker, the log has its last words.",
    ),
    row(
        Kind::Exit,
        2,
        "The command line is wrong.",
        "`lineman --help` lists the verbs, `lineman VERB --help` their options.",
    ),
    row(
        Kind::Exit,
        3,
        "No server runs with this configuration.",
        "Name the configuration it was started with: `--config FILE`. Each file has a server of its own.",
    ),
    row(
        Kind::Exit,
        4,
        "Not permitted: a port below 1024, or a file, directory or socket of another user.",
        "Run the verb as the user who started the server, or as root.",
    ),
    row(
        Kind::Exit,
        6,
        "The configuration is wrong, or changes what cannot change while the server runs.",
        "`lineman check` lists every mistake with its line; `restart` takes up what `reload` cannot.",
    ),
    row(
        Kind::Exit,
        8,
        "A server runs with this configuration already.",
        "`reload` takes up changes; `restart` begins anew; another file makes another server.",
    ),
    row(
        Kind::Child,
        0,
        "It was told to end, or the master is gone.",
        "",
    ),
    row(
        Kind::Child,
        10,
        "What the master hands over was not there: the role was started by hand.",
        "Start the server with `lineman start`.",
    ),
    row(
        Kind::Child,
        11,
        "A reactor could not start or had to give up, for want of descriptors or memory mostly.",
        "The ERROR line before it names the cause. It is started again, with growing pauses.",
    ),
    row(
        Kind::Child,
        12,
        "A reactor met a bug: in the server, or in a service of the embedding program.",
        "The ERROR line before it has the place in the source; please report it. The others go on.",
    ),
    row(
        Kind::Child,
        13,
        "A reactor gave no sign of life for watchdog_seconds, and has told where it stood.",
        "The `stuck, frame` lines before it name the functions: a call that blocks, or a loop without end. The others go on.",
    ),
    row(
        Kind::Close,
        1000,
        "The work is done: the client closed, or the program did without a code of its own.",
        "",
    ),
    row(
        Kind::Close,
        1001,
        "The server stops, or the worker is replaced and the client does not speak Pusher.",
        "Connect again; another worker is listening.",
    ),
    row(
        Kind::Close,
        1002,
        "The client broke RFC 6455, or was too slow to finish what it began.",
        "The text says what it was. Suspect a proxy that changes frames, or a home-made client.",
    ),
    row(
        Kind::Close,
        1003,
        "A binary message, where only text has a meaning.",
        "Send events as JSON text.",
    ),
    row(
        Kind::Close,
        1006,
        "Never sent: what a client shows when the connection ended without a Close frame.",
        "The network broke, a proxy gave up (raise its read timeout above activity_seconds), the worker died, or the client read too slowly (limits.outbox_bytes).",
    ),
    row(
        Kind::Close,
        1007,
        "Text that is not UTF-8.",
        "Mend the client's encoding.",
    ),
    row(
        Kind::Close,
        1008,
        "The operator closed the connection with `lineman connections close`.",
        "",
    ),
    row(
        Kind::Close,
        1009,
        "A message over limits.message_bytes.",
        "Send less, or raise the limit.",
    ),
    row(
        Kind::Close,
        1011,
        "The server had a message that this connection cannot carry.",
        "A bug in the handler; please report it.",
    ),
    row(
        Kind::Close,
        4001,
        "No app has this key. Clients stay away.",
        "Compare the key in the client with `[[apps]]`; after a change, `lineman reload`.",
    ),
    row(
        Kind::Close,
        4005,
        "The path does not end in /app/KEY. Clients stay away.",
        "Set wsPath in the client if a proxy adds a prefix; leave it out otherwise.",
    ),
    row(
        Kind::Close,
        4006,
        "The protocol version in the URL is no number. Clients stay away.",
        "Use an official client, or `?protocol=7`.",
    ),
    row(
        Kind::Close,
        4007,
        "The protocol version in the URL is not spoken here. Clients stay away.",
        "Use a client that speaks version 5 to 7.",
    ),
    row(
        Kind::Close,
        4009,
        "The connection may not be here: its Origin is not listed, it sent too many malformed messages, it did not sign in rightly or in time, or the backend terminated its user. Clients stay away.",
        "The text says which. For an Origin, add it to `origins` of the app.",
    ),
    row(
        Kind::Close,
        4100,
        "A client without WebSocket came when the worker had limits.http_sessions of them, or was about to be replaced. Clients come back after a second.",
        "Look why so many cannot use WebSocket, or raise the limit.",
    ),
    row(
        Kind::Close,
        4200,
        "Another worker takes over: a reload, an upgrade, or a graceful stop. Or messages of a client without WebSocket were lost on their way between workers. Clients come back at once.",
        "Nothing; drain_seconds spreads it over time.",
    ),
    row(
        Kind::Close,
        4201,
        "The client did not answer a PING. Clients come back at once.",
        "A phone that slept or a network that went away; nothing to do unless all clients show it.",
    ),
    row(
        Kind::Event,
        4301,
        "A client event over limits.client_events_per_second; the connection stays.",
        "Send fewer: join what changes often into one event.",
    ),
    row(
        Kind::Event,
        4302,
        "A watchlist with more users than limits.watchlist_users: the first are watched, the rest are not. The sign-in stands.",
        "Shorten the list, or raise the limit.",
    ),
];

/// Everything about one code; `None` for one that is not ours.
pub fn explain(code: u16) -> Option<String> {
    let mut text = String::new();
    for row in ROWS.iter().filter(|row| row.code == code) {
        let _ = writeln!(text, "{} {code}: {}", row.kind.title(), row.when);
        if !row.advice.is_empty() {
            let _ = writeln!(text, "  What to do: {}", row.advice);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// All codes, one line each.
pub fn list() -> String {
    let mut text = String::new();
    for row in ROWS {
        let _ = writeln!(text, "{:>5}  {}: {}", row.code, row.kind.title(), row.when);
    }
    text
}

/// docs/codes.md.
pub fn page() -> String {
    let mut text = String::from(
        "# Every code\n\nMade from src/run/explain.rs; `lineman explain CODE` says the same.\n",
    );
    for kind in Kind::ALL {
        let _ = write!(
            text,
            "\n## {}\n\n| code | when | what to do |\n|---:|---|---|\n",
            kind.title()
        );
        for row in ROWS.iter().filter(|row| row.kind == kind) {
            let _ = writeln!(text, "| {} | {} | {} |", row.code, row.when, row.advice);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::close::{Close, Violation};
    use crate::run::exit::{ChildExit, Exit};

    fn has(kind: Kind, code: u16) -> bool {
        ROWS.iter().any(|row| row.kind == kind && row.code == code)
    }

    #[test]
    fn every_code_we_give_is_explained() {
        for exit in Exit::ALL {
            assert!(has(Kind::Exit, exit as u16), "{exit:?}");
        }
        for exit in ChildExit::ALL {
            assert!(has(Kind::Child, exit as u16), "{exit:?}");
        }
        for close in [
            Close::Done,
            Close::Violation(Violation::Protocol("")),
            Close::Violation(Violation::NotUtf8),
            Close::Violation(Violation::TooBig),
            Close::Violation(Violation::Unsupported("")),
            Close::TooLate,
            Close::Unheard,
            Close::GoingAway,
            Close::Replaced,
            Close::Dismissed,
            Close::AppUnknown(String::new()),
            Close::PathUnknown,
            Close::VersionRefused(4006),
            Close::VersionRefused(4007),
            Close::Unauthorised(""),
            Close::Unsendable,
        ] {
            let (code, _) = close.websocket().expect("a code");
            assert!(has(Kind::Close, code), "{close:?}");
        }
    }

    #[test]
    fn one_number_may_have_several_meanings_or_none() {
        assert!(explain(4201).is_some_and(|text| text.contains("PING")));
        assert!(explain(2).is_some_and(|text| text.contains("--help")));
        assert_eq!(explain(4999), None);
        assert_eq!(list().lines().count(), ROWS.len());
    }
}
