//! What `status` tells: one value that travels as JSON from the master to the command line, and
//! the table made from it. Does not know how the numbers were gathered. Invariant: everything in
//! the table is in the JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::base::counters::Counters;
use crate::run::children::Role;
use crate::run::rates::Rates;

/// The whole server at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `running` when every process is, else `starting` or `stopping`.
    pub state: State,
    pub config: String,
    pub run_dir: String,
    pub log_file: Option<String>,
    /// The file of the courier's database, if it is one of this server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    pub user: String,
    pub started_at: String,
    pub uptime_seconds: u64,
    pub workers: u32,
    pub threads: u32,
    pub listen: Vec<ListenStatus>,
    pub master: MasterStatus,
    pub processes: Vec<ProcessStatus>,
    pub total: BTreeMap<String, u64>,
    /// Known to whoever asks more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenStatus {
    /// With the real port.
    pub url: String,
    pub handler: String,
    /// How many of them accept here.
    #[serde(default)]
    pub workers: u32,
    /// None where clients speak in the clear.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
}

/// One certificate of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// None for the one that is shown for every other name.
    pub names: Vec<String>,
    pub file: String,
    pub expires_at: String,
    /// Negative once it has expired.
    pub days_left: i64,
}

impl CertificateStatus {
    fn words(&self) -> String {
        let names = match self.names.as_slice() {
            [] => "any name".to_string(),
            names => names.join(", "),
        };
        let left = match self.days_left {
            ..0 => "EXPIRED".to_string(),
            days => format!("{days} days left"),
        };
        format!(
            "  {} for {names}: {left} (until {})",
            self.file, self.expires_at
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    pub pid: u32,
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Starting,
    Running,
    /// It did not answer in time.
    Busy,
    /// It lets its clients go before it ends.
    Draining,
    /// It died and is replaced after a pause.
    Waiting,
    Stopping,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Busy => "busy",
            State::Draining => "draining",
            State::Waiting => "waiting",
            State::Stopping => "stopping",
        }
    }
}

/// One worker, or the switchboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub pid: Option<u32>,
    pub role: Role,
    pub number: u32,
    pub state: State,
    /// Until it is replaced, when waiting.
    pub wait_ms: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub restarts: u64,
    /// How its predecessor ended.
    pub last_end: Option<String>,
    pub counters: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

/// Counters under their names.
pub fn named(counters: &Counters) -> BTreeMap<String, u64> {
    let names = Counters::ROWS.iter().map(|row| row.name.to_string());
    names.zip(counters.values()).collect()
}

const HEADINGS: [&str; 9] = [
    "PID",
    "ROLE",
    "MEMORY",
    "CONNECTIONS",
    "SUBSCRIPTIONS",
    "MSGS-IN",
    "MSGS-OUT",
    "RESTARTS",
    "STATE",
];

const RATE_HEADINGS: [&str; 3] = ["CONNS/S", "IN/S", "OUT/S"];
/// Before this column the rates are shown: after the totals they belong to.
const RATES_AT: usize = 7;

impl Status {
    /// For a person.
    pub fn table(&self) -> String {
        self.under_header(columns(&self.rows()))
    }

    /// The same with what happens each second.
    pub fn table_with_rates(&self) -> String {
        let mut cells = vec![RATE_HEADINGS.map(str::to_string), rate_cells(None)];
        cells.extend(self.processes.iter().map(|process| match process.role {
            Role::Worker => rate_cells(process.rates.as_ref()),
            Role::Switchboard | Role::Courier => rate_cells(None),
        }));
        cells.push(rate_cells(self.rates.as_ref()));
        let both = self.rows().into_iter().zip(cells);
        let rows: Vec<Vec<String>> = both
            .map(|(row, cells)| {
                let mut row = row.to_vec();
                row.splice(RATES_AT..RATES_AT, cells);
                row
            })
            .collect();
        self.under_header(columns(&rows))
    }

    fn rows(&self) -> Vec<[String; 9]> {
        let mut rows = vec![HEADINGS.map(str::to_string), self.master_row()];
        rows.extend(self.processes.iter().map(ProcessStatus::row));
        rows.push(self.summary_row());
        rows
    }

    fn under_header(&self, table: String) -> String {
        let mut text = self.header();
        let rule = "-".repeat(text.lines().map(str::len).max().unwrap_or(0).clamp(60, 100));
        let _ = writeln!(text, "{rule}");
        text.push_str(&table);
        text
    }

    fn header(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<10} {value}");
        };
        line(
            "Lineman",
            &format!("{} ({})", self.version, self.state.word()),
        );
        let uptime = uptime(self.uptime_seconds);
        line("started", &format!("{}, up {uptime}", self.started_at));
        line("config", &self.config);
        line("run dir", &self.run_dir);
        if let Some(store) = &self.store {
            line("store", store);
        }
        for listen in &self.listen {
            let served = match listen.workers {
                some if some < self.workers => format!(", {some} of {} workers", self.workers),
                _ => String::new(),
            };
            let value = format!("{} ({}{served})", listen.url, listen.handler);
            line("listen", &value);
            for certificate in &listen.certificates {
                line("", &certificate.words());
            }
        }
        line("user", &self.user);
        line(
            "processes",
            &format!("{} workers × {} threads", self.workers, self.threads),
        );
        text
    }

    fn master_row(&self) -> [String; 9] {
        let mut row = [const { String::new() }; 9].map(|_: String| "-".to_string());
        row[0] = self.master.pid.to_string();
        row[1] = "master".to_string();
        row[2] = memory(self.master.memory_bytes);
        row[8] = self.state.word().to_string();
        row
    }

    fn summary_row(&self) -> [String; 9] {
        let memories = self.processes.iter().map(|process| process.memory_bytes);
        let all = memories.chain([self.master.memory_bytes]).flatten().sum();
        let restarts: u64 = self.processes.iter().map(|process| process.restarts).sum();
        let number = |name: &str| self.total.get(name).copied().unwrap_or(0).to_string();
        [
            "Summary".to_string(),
            format!("{} processes", self.processes.len() + 1),
            memory(Some(all)),
            number("connections"),
            number("subscriptions"),
            number("messages_in"),
            number("messages_out"),
            restarts.to_string(),
            String::new(),
        ]
    }
}

impl ProcessStatus {
    fn row(&self) -> [String; 9] {
        let number = |name: &str| match self.role {
            Role::Worker => self.counters.get(name).copied().unwrap_or(0).to_string(),
            Role::Switchboard | Role::Courier => "-".to_string(),
        };
        [
            self.pid.map_or("-".to_string(), |pid| pid.to_string()),
            match self.role {
                Role::Switchboard | Role::Courier => self.role.word().to_string(),
                Role::Worker => format!("worker {}", self.number),
            },
            memory(self.memory_bytes),
            number("connections"),
            number("subscriptions"),
            number("messages_in"),
            number("messages_out"),
            self.restarts.to_string(),
            self.state_words(),
        ]
    }

    fn state_words(&self) -> String {
        let mut words = self.state.word().to_string();
        if let Some(wait_ms) = self.wait_ms {
            let _ = write!(words, " {} s", wait_ms.div_ceil(1000));
        }
        if let Some(end) = &self.last_end {
            let _ = write!(words, " [{end}]");
        }
        words
    }
}

fn rate_cells(rates: Option<&Rates>) -> [String; 3] {
    let numbers = rates.map(|it| [it.accepted, it.messages_in, it.messages_out].map(Some));
    let cell = |number: Option<f64>| number.map_or("-".to_string(), |it| format!("{it:.1}"));
    numbers.unwrap_or_default().map(cell)
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_string(), |bytes| {
        format!("{:.1}M", bytes as f64 / 1_048_576.0)
    })
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Aligns columns; the last one runs free. All rows are as long as the first.
pub fn columns(rows: &[impl AsRef<[String]>]) -> String {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row.as_ref()[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let count = rows.first().map_or(0, |row| row.as_ref().len());
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A server with one worker.
    pub fn status() -> Status {
        let counters = Counters {
            connections: 3,
            messages_in: 9,
            ..Counters::default()
        };
        Status {
            version: "1.0".into(),
            state: State::Running,
            config: "a.toml".into(),
            run_dir: "/run/x".into(),
            log_file: None,
            store: Some("/x/lineman.db".into()),
            user: "nobody".into(),
            started_at: "2026-01-01T00:00:00.000Z".into(),
            uptime_seconds: 3_700,
            workers: 1,
            threads: 1,
            listen: vec![ListenStatus {
                url: "http://127.0.0.1:1".into(),
                handler: "echo".into(),
                workers: 2,
                certificates: vec![CertificateStatus {
                    names: vec!["a.example".into(), "*.b.example".into()],
                    file: "/etc/a.pem".into(),
                    expires_at: "2026-06-01T00:00:00.000Z".into(),
                    days_left: 3,
                }],
            }],
            master: MasterStatus {
                pid: 10,
                memory_bytes: Some(1_048_576),
            },
            processes: vec![ProcessStatus {
                pid: Some(11),
                role: Role::Worker,
                number: 0,
                state: State::Waiting,
                wait_ms: Some(1500),
                memory_bytes: Some(2_097_152),
                restarts: 2,
                last_end: Some("exit code 1".into()),
                counters: named(&counters),
                rates: None,
            }],
            total: named(&counters),
            rates: None,
        }
    }

    #[test]
    fn the_table_shows_each_process_and_a_summary() {
        let table = status().table();
        let lines: Vec<&str> = table.lines().collect();
        let row = |start: &str| {
            let found = lines.iter().find(|line| line.starts_with(start));
            found
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            row("11 "),
            "11 worker 0 2.0M 3 0 9 0 2 waiting 2 s [exit code 1]"
        );
        assert_eq!(row("10 "), "10 master 1.0M - - - - - running");
        assert_eq!(row("Summary"), "Summary 2 processes 3.0M 3 0 9 0 2");
        assert!(table.contains("http://127.0.0.1:1 (echo)"));
        assert!(table.contains("up 1 h 1 min"));
        assert!(table.contains("/etc/a.pem for a.example, *.b.example: 3 days left"));
    }

    #[test]
    fn rates_have_columns_of_their_own_where_they_are_known() {
        let mut status = status();
        let row = |status: &Status, start: &str| {
            let table = status.table_with_rates();
            let line = table.lines().find(|line| line.starts_with(start));
            let cells: Vec<String> = line
                .unwrap()
                .split_whitespace()
                .map(str::to_string)
                .collect();
            cells.join(" ")
        };
        assert!(row(&status, "PID").ends_with("MSGS-OUT CONNS/S IN/S OUT/S RESTARTS STATE"));
        assert!(row(&status, "11 ").contains("9 0 - - - 2 waiting"));
        let rates = Rates {
            accepted: 0.5,
            messages_in: 1200.0,
            messages_out: 3.0,
        };
        status.processes[0].rates = Some(rates);
        status.rates = Some(rates);
        assert!(row(&status, "11 ").contains("9 0 0.5 1200.0 3.0 2 waiting"));
        assert_eq!(
            row(&status, "10 "),
            "10 master 1.0M - - - - - - - - running"
        );
        assert_eq!(
            row(&status, "Summary"),
            "Summary 2 processes 3.0M 3 0 9 0 0.5 1200.0 3.0 2"
        );
        assert!(!status.table().contains("CONNS/S"));
    }

    #[test]
    fn status_survives_the_trip_as_json() {
        let json = serde_json::to_string(&status()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
        assert!(json.contains("\"state\":\"waiting\""));
    }
}
