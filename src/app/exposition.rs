//! The numbers of the whole server as Prometheus reads them (text exposition format 0.0.4), and the
//! page that explains them. Owns the names of what is told of processes; those of the counters are
//! in `base/counters`. Invariant: what is shown and what is explained is made from the same rows.

use std::cell::OnceCell;
use std::fmt::Write;

use bytes::Bytes;

use crate::base::counters::{By, CounterRow, Counters, LABELLED};
use crate::base::histogram::Histogram;
use crate::wire::numbers::{Numbers, ProcessNumbers, Whose};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// In front of every name.
const PREFIX: &str = "lineman_";

/// The numbers, turned into text once for all who asked at the same time.
pub struct Page<'a> {
    numbers: &'a Numbers,
    text: OnceCell<Bytes>,
}

impl<'a> Page<'a> {
    pub fn new(numbers: &'a Numbers) -> Page<'a> {
        Page {
            numbers,
            text: OnceCell::new(),
        }
    }

    pub fn text(&self) -> &Bytes {
        self.text.get_or_init(|| Bytes::from(render(self.numbers)))
    }
}

/// What is told of each process.
struct ProcessRow {
    metric: &'static str,
    help: &'static str,
    /// `None`: nothing is known, so nothing is shown.
    value: fn(&ProcessNumbers) -> Option<String>,
}

const PROCESS_ROWS: &[ProcessRow] = &[
    ProcessRow {
        metric: "process_up",
        help: "1 while the process runs and answers the master, else 0.",
        value: |process| Some(u8::from(process.up).to_string()),
    },
    ProcessRow {
        metric: "process_restarts_total",
        help: "How often the process was replaced because it died, hung or grew too big. Reloads do not count.",
        value: |process| (process.whose != Whose::Master).then(|| process.restarts.to_string()),
    },
    ProcessRow {
        metric: "process_resident_memory_bytes",
        help: "Memory the process holds in RAM.",
        value: |process| Some(process.memory_bytes?.to_string()),
    },
    ProcessRow {
        metric: "process_cpu_seconds_total",
        help: "CPU time of the process, user and system; it begins at zero with each process.",
        value: |process| Some(seconds(process.cpu_ms?.saturating_mul(1000))),
    },
];

/// What is told of the server.
const SERVER_ROWS: &[(&str, &str)] = &[
    ("build_info", "1, with the version as its label."),
    (
        "start_time_seconds",
        "When the server was started, in seconds since 1970.",
    ),
    ("uptime_seconds", "How long ago that is."),
];

/// All metrics as text.
pub fn render(numbers: &Numbers) -> String {
    let mut text = String::new();
    let version = format!("{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    let started = format!(" {}", seconds(numbers.started_unix_ms.saturating_mul(1000)));
    let uptime = format!(" {}", seconds(numbers.uptime_ms.saturating_mul(1000)));
    for ((name, help), value) in SERVER_ROWS.iter().zip([version, started, uptime]) {
        head(&mut text, name, help);
        let _ = writeln!(text, "{PREFIX}{name}{value}");
    }
    for row in PROCESS_ROWS {
        head(&mut text, row.metric, row.help);
        for process in &numbers.processes {
            if let Some(value) = (row.value)(process) {
                let labels = labels(By::All, process.whose, "");
                let _ = writeln!(text, "{PREFIX}{}{labels} {value}", row.metric);
            }
        }
    }
    let counters = numbers.processes.iter();
    let counters =
        counters.map(|process| (process.whose, Counters::from_values(&process.counters)));
    let counters: Vec<(Whose, Counters)> = counters.collect();
    render_counters(&mut text, &counters);
    for (index, row) in Counters::HISTOGRAMS.iter().enumerate() {
        head(&mut text, row.metric, row.help);
        for (whose, counters) in counters.iter().filter(|(whose, _)| has(row.by, *whose)) {
            render_histogram(&mut text, row, *whose, counters.histograms()[index]);
        }
    }
    text
}

/// The rows of one metric have to stand together, wherever they were declared.
fn render_counters(text: &mut String, counters: &[(Whose, Counters)]) {
    let values: Vec<(Whose, Vec<u64>)> = counters
        .iter()
        .map(|(whose, counters)| (*whose, counters.values()))
        .collect();
    for rows in families() {
        head(text, rows[0].1.family(), help_of(rows[0].1));
        for (index, row) in rows {
            for (whose, values) in values.iter().filter(|(whose, _)| has(row.by, *whose)) {
                let labels = labels(row.by, *whose, row.label());
                let _ = writeln!(text, "{PREFIX}{}{labels} {}", row.family(), values[index]);
            }
        }
    }
}

/// The counters that are metrics, each with its place, those of one metric together.
fn families() -> Vec<Vec<(usize, &'static CounterRow)>> {
    let mut families: Vec<Vec<(usize, &'static CounterRow)>> = Vec::new();
    let rows = Counters::ROWS.iter().enumerate();
    for (index, row) in rows.filter(|(_, row)| !row.metric.is_empty()) {
        match families
            .iter_mut()
            .find(|it| it[0].1.family() == row.family())
        {
            Some(family) => family.push((index, row)),
            None => families.push(vec![(index, row)]),
        }
    }
    families
}

fn help_of(row: &CounterRow) -> &'static str {
    let labelled = LABELLED.iter().find(|(name, _)| *name == row.family());
    labelled.map_or(row.help, |(_, help)| help)
}

fn render_histogram(text: &mut String, row: &CounterRow, whose: Whose, histogram: &Histogram) {
    let name = row.metric;
    let bounds = histogram
        .cumulated()
        .map(|(bound, count)| (seconds(bound), count));
    let all = ("+Inf".to_string(), histogram.count());
    for (bound, count) in bounds.chain([all]) {
        let labels = labels(row.by, whose, &format!("le=\"{bound}\""));
        let _ = writeln!(text, "{PREFIX}{name}_bucket{labels} {count}");
    }
    let labels = labels(row.by, whose, "");
    let sum = seconds(histogram.sum_micros());
    let _ = writeln!(text, "{PREFIX}{name}_sum{labels} {sum}");
    let _ = writeln!(text, "{PREFIX}{name}_count{labels} {}", histogram.count());
}

fn head(text: &mut String, name: &str, help: &str) {
    let kind = kind(name);
    let _ = writeln!(text, "# HELP {PREFIX}{name} {help}");
    let _ = writeln!(text, "# TYPE {PREFIX}{name} {kind}");
}

/// The endings that Prometheus asks for say what a metric is.
fn kind(name: &str) -> &'static str {
    let histogram = Counters::HISTOGRAMS.iter().any(|row| row.metric == name);
    match (histogram, name.ends_with("_total")) {
        (true, _) => "histogram",
        (false, true) => "counter",
        (false, false) => "gauge",
    }
}

fn has(by: By, whose: Whose) -> bool {
    match whose {
        Whose::Master => by == By::All,
        Whose::Switchboard => !matches!(by, By::Workers | By::Courier),
        Whose::Courier => !matches!(by, By::Workers | By::Switchboard),
        Whose::Worker(_) => !matches!(by, By::Switchboard | By::Courier),
    }
}

/// Whose number it is, unless there can be only one, and `own` before that.
fn labels(by: By, whose: Whose, own: &str) -> String {
    let several = matches!(by, By::Both | By::All);
    let process = match whose {
        Whose::Master => "process=\"master\"".to_string(),
        Whose::Switchboard if several => "process=\"switchboard\"".to_string(),
        Whose::Courier if several => "process=\"courier\"".to_string(),
        Whose::Switchboard | Whose::Courier => String::new(),
        Whose::Worker(number) if several => format!("process=\"worker\",worker=\"{number}\""),
        Whose::Worker(number) => format!("worker=\"{number}\""),
    };
    match (own, process.as_str()) {
        ("", "") => String::new(),
        ("", labels) | (labels, "") => format!("{{{labels}}}"),
        (own, process) => format!("{{{own},{process}}}"),
    }
}

/// Microseconds as a decimal fraction of seconds, to the last digit.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The text of `docs/metrics.md`.
pub fn reference_page() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         A listener with `handler = \"metrics\"` serves `GET /metrics` in the text format of Prometheus,\n\
         version 0.0.4, for the whole server: whichever worker is asked, the numbers of all are told.\n\
         A process that is replaced goes on counting where its predecessor ended; what one that was\n\
         killed did since the last question is lost. When the master does not answer in time: 503 with\n\
         `Retry-After`. Answers may be a quarter of a second old.\n\n\
         Labels: `worker` is the number of a worker, all its threads together; `process` is `master`,\n\
         `switchboard` or `worker`, where several kinds of process have the number.\n\n\
         This page is made from `src/base/counters.rs` and `src/app/exposition.rs`.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    let mut row = |metric: &str, labels: &str, help: &str| {
        let (kind, labels) = (kind(metric), labels.replace(',', "`, `"));
        let labels = match labels.as_str() {
            "" => String::new(),
            labels => format!("`{labels}`"),
        };
        let _ = writeln!(text, "| `{PREFIX}{metric}` | {kind} | {labels} | {help} |");
    };
    for (metric, help) in SERVER_ROWS {
        row(
            metric,
            if *metric == "build_info" {
                "version"
            } else {
                ""
            },
            help,
        );
    }
    for process in PROCESS_ROWS {
        row(process.metric, "process,worker", process.help);
    }
    for rows in families() {
        let first = rows[0].1;
        let mut help = help_of(first).to_string();
        for (_, row) in rows.iter().filter(|(_, row)| !row.label().is_empty()) {
            let _ = write!(help, " `{}`: {}", row.label(), row.help);
        }
        let name = first.label().split_once('=').map_or("", |(name, _)| name);
        let names = [name, label_names(first.by)];
        let names: Vec<&str> = names.into_iter().filter(|it| !it.is_empty()).collect();
        row(first.family(), &names.join(","), &help);
    }
    for histogram in Counters::HISTOGRAMS {
        row(histogram.metric, label_names(histogram.by), histogram.help);
    }
    text
}

fn label_names(by: By) -> &'static str {
    match by {
        By::Workers => "worker",
        By::Switchboard | By::Courier => "",
        By::Both | By::All => "process,worker",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn numbers() -> Numbers {
        let mut counters = Counters {
            connections: 3,
            closed_slow: 2,
            links: 1,
            ..Counters::default()
        };
        counters.turned(Duration::from_micros(300));
        let process = |whose| ProcessNumbers {
            whose,
            up: true,
            restarts: 0,
            memory_bytes: None,
            cpu_ms: Some(1500),
            counters: counters.values(),
        };
        Numbers {
            started_unix_ms: 1_700_000_000_500,
            uptime_ms: 2000,
            processes: vec![
                process(Whose::Master),
                process(Whose::Switchboard),
                process(Whose::Worker(4)),
            ],
        }
    }

    #[test]
    fn every_process_has_its_own_numbers_and_no_others() {
        let text = render(&numbers());
        for line in [
            "lineman_start_time_seconds 1700000000.5",
            "lineman_uptime_seconds 2",
            "lineman_process_cpu_seconds_total{process=\"master\"} 1.5",
            "lineman_process_up{process=\"worker\",worker=\"4\"} 1",
            "# TYPE lineman_connections gauge",
            "lineman_connections{worker=\"4\"} 3",
            "# TYPE lineman_connections_closed_total counter",
            "lineman_connections_closed_total{reason=\"too_slow\",worker=\"4\"} 2",
            "lineman_links 1",
            "lineman_log_lines_dropped_total{process=\"master\"} 0",
            "# TYPE lineman_turn_seconds histogram",
            "lineman_turn_seconds_bucket{le=\"0.00025\",process=\"switchboard\"} 0",
            "lineman_turn_seconds_bucket{le=\"0.0005\",process=\"switchboard\"} 1",
            "lineman_turn_seconds_bucket{le=\"+Inf\",process=\"switchboard\"} 1",
            "lineman_turn_seconds_sum{process=\"switchboard\"} 0.0003",
            "lineman_fan_out_seconds_count{worker=\"4\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in:\n{text}");
        }
        assert!(!text.contains("lineman_closed"), "{text}");
        assert!(!text.contains("process_resident_memory_bytes{"), "{text}");
        assert!(
            !text.contains("process_restarts_total{process=\"master\""),
            "{text}"
        );
        assert_eq!(text.matches("lineman_connections{").count(), 1);
    }

    #[test]
    fn each_metric_is_introduced_once_and_its_lines_stand_together() {
        let text = render(&numbers());
        let mut seen: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!seen.contains(&name), "{name} twice");
                assert!(!help.is_empty());
                seen.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(
                    name.starts_with(seen.last().unwrap()),
                    "{line} stands elsewhere"
                );
            }
        }
    }
}
