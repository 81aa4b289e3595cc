//! What `connections` tells: the rows of all reactors joined to one list, as JSON from the master
//! to the command line and as a table for a person. Does not know how they were gathered.
//! Invariant: a list that was cut off says so.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::run::status::columns;
use crate::wire::control::ConnectionRow;

/// More rows than this are not told at once.
pub const LIMIT_MAX: u32 = 10_000;
/// A question's text may not be longer.
pub const FILTER_BYTES_MAX: usize = 256;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// How many fit the question; there may be more than are listed.
    pub matched: u64,
    /// Processes that did not answer in time.
    pub missing: Vec<String>,
    pub connections: Vec<Connection>,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub pid: u32,
    /// Of the reactor, among all of the server.
    pub slot: u32,
    /// For `connections close`.
    pub id: String,
    pub transport: String,
    pub protocol: String,
    pub recv_queue: u64,
    pub send_queue: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub status: String,
    pub user: Option<String>,
    pub channels: u32,
    pub age_ms: u64,
    pub local: String,
    /// The client's address, as far as it is known.
    pub remote: String,
    /// The proxy who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// A connection among all of the server, as a person copies it: `PID-SLOT-NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    pub pid: u32,
    pub slot: u32,
    pub conn: u64,
}

impl Id {
    pub fn parse(text: &str) -> Option<Id> {
        let mut parts = text.split('-');
        let id = Id {
            pid: parts.next()?.parse().ok()?,
            slot: parts.next()?.parse().ok()?,
            conn: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{:x}", self.pid, self.slot, self.conn)
    }
}

/// A row and whose it is.
pub struct Found {
    pub pid: u32,
    pub slot: u32,
    pub row: ConnectionRow,
}

impl Connections {
    /// The first `limit` of all in the order of `column`. `local` tells a listener's URL.
    pub fn join(
        mut found: Vec<Found>,
        column: &str,
        limit: usize,
        local: impl Fn(u32) -> String,
    ) -> Vec<Connection> {
        let place = |a: &Found, b: &Found| (a.slot, a.pid).cmp(&(b.slot, b.pid));
        found.sort_by(|a, b| match column {
            "id" => place(a, b).then_with(|| a.row.compare(&b.row, column)),
            _ => match a.row.compare(&b.row, column) {
                Ordering::Equal => place(a, b),
                other => other,
            },
        });
        found.truncate(limit);
        let shown = found.into_iter().map(|found| {
            let local = local(found.row.listener);
            Connection::new(found, &local)
        });
        shown.collect()
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let heading = [
            "PID",
            "SLOT",
            "ID",
            "TRANS",
            "PROTOCOL",
            "RECV-Q",
            "SEND-Q",
            "BYTES-IN",
            "BYTES-OUT",
            "STATUS",
            "USER",
            "CHANNELS",
            "AGE",
            "LOCAL",
            "REMOTE",
        ];
        let mut rows = vec![heading.map(str::to_string)];
        rows.extend(self.connections.iter().map(Connection::cells));
        let mut text = columns(&rows);
        let shown = self.connections.len();
        text.push_str(&format!("{shown} of {} connections\n", self.matched));
        if (shown as u64) < self.matched {
            text.push_str(
                "The list is cut off; --limit, --sort and --filter choose what it shows.\n",
            );
        }
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            text.push_str(&format!("Not heard of in time: {missing}\n"));
        }
        text
    }
}

impl Connection {
    fn new(found: Found, listener: &str) -> Connection {
        let Found { pid, slot, row } = found;
        let (scheme, local) = listener.split_once("://").unwrap_or(("", listener));
        let id = Id {
            pid,
            slot,
            conn: row.conn,
        };
        let transport = match (scheme, row.protocol.as_str()) {
            ("https" | "wss" | "tls" | "ssl", _) | ("", "tls-client" | "wss-client") => "tls",
            ("unix", _) | ("", "unix-client") => "unix",
            _ => "tcp",
        };
        Connection {
            pid,
            slot,
            id: id.to_string(),
            transport: transport.to_string(),
            protocol: row.protocol,
            recv_queue: row.recv_queue,
            send_queue: row.send_queue,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            status: row.status,
            user: row.user,
            channels: row.channels,
            age_ms: row.age_ms,
            local: local.to_string(),
            remote: row.remote,
            via: Some(row.via).filter(|via| !via.is_empty()),
        }
    }

    fn cells(&self) -> [String; 15] {
        [
            self.pid.to_string(),
            self.slot.to_string(),
            self.id.clone(),
            self.transport.clone(),
            self.protocol.clone(),
            self.recv_queue.to_string(),
            self.send_queue.to_string(),
            self.bytes_in.to_string(),
            self.bytes_out.to_string(),
            self.status.clone(),
            // A user id is what somebody's backend made of it; a terminal must not obey it.
            self.user.as_deref().map_or("-".to_string(), harmless),
            self.channels.to_string(),
            format!("{}s", self.age_ms / 1000),
            or_dash(&self.local),
            or_dash(&self.remote),
        ]
    }
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_string(),
        text => text.to_string(),
    }
}

fn harmless(text: &str) -> String {
    let shown = text.chars().take(40);
    shown
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(slot: u32, conn: u64, bytes_in: u64) -> Found {
        let row = ConnectionRow {
            conn,
            bytes_in,
            user: Some("a\u{1b}[2J".into()),
            ..ConnectionRow::default()
        };
        Found {
            pid: 100 + slot,
            slot,
            row,
        }
    }

    #[test]
    fn an_id_survives_being_copied_and_nonsense_is_none() {
        let id = Id {
            pid: 4711,
            slot: 2,
            conn: 7 << 32 | 3,
        };
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        for text in ["", "1", "1-2", "1-2-x", "1-2-3-4", "-1-2-3"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_was_dialled_is_shown_with_its_transport_though_it_has_no_listener() {
        let shown = |protocol: &str| {
            let mut found = found(0, 1, 0);
            found.row.protocol = protocol.to_string();
            Connection::new(found, "")
        };
        let transports = ["ws-client", "wss-client", "unix-client"].map(|it| shown(it).transport);
        assert_eq!(transports, ["tcp", "tls", "unix"]);
        assert_eq!(shown("ws-client").cells()[13], "-");
    }

    #[test]
    fn lists_are_joined_in_order_and_cut_with_words() {
        let all = vec![found(1, 5, 10), found(0, 9, 30), found(0, 2, 20)];
        let joined = Connections::join(all, "bytes-in", 2, |_| "http://127.0.0.1:1".into());
        let slots: Vec<(u32, u64)> = joined.iter().map(|it| (it.slot, it.bytes_in)).collect();
        assert_eq!(slots, [(0, 30), (0, 20)]);
        let list = Connections {
            matched: 3,
            missing: vec!["worker 1".into()],
            connections: joined,
        };
        let table = list.table();
        for part in ["2 of 3", "cut off", "worker 1", "127.0.0.1:1", "100-0-9"] {
            assert!(table.contains(part), "no {part} in {table}");
        }
        assert!(!table.contains('\u{1b}'));
    }
}
