//! The tables about history: their rows in the reference, their shape in the file, whether it makes
//! sense. Does not know how history is kept.

use std::time::Duration;

use serde::Deserialize;

use crate::base::history_rule::HistoryRule;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step::{Index, Key};

const AGE_SECONDS_MAX: u64 = 7 * 86_400;

pub(super) const APP_TABLE: TableRow = TableRow {
    heading: "[[apps.history]]",
    help: "Channels of the [[apps]] table above it that keep their last events for clients that come back (docs/recovery.md). One table for each pattern; the first that matches counts. Without any, no channel does.",
    keys: &[
        KeyRow {
            name: "pattern",
            kind: "string",
            default: "",
            help: "A channel's name, in which * stands for any text: \"*\" for all channels.",
        },
        KeyRow {
            name: "events",
            kind: "integer, 1 to 1_000_000",
            default: "100",
            help: "How many of the last events of each channel are kept.",
        },
        KeyRow {
            name: "seconds",
            kind: "integer, 1 to 604_800",
            default: "300",
            help: "For how long each is kept.",
        },
        KeyRow {
            name: "bytes",
            kind: "integer, at least 1024",
            default: "1_048_576",
            help: "How many bytes they may take in each channel, 128 for each event included.",
        },
    ],
    active: "",
    optional: true,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHistory {
    pattern: String,
    #[serde(default = "default_events")]
    events: usize,
    #[serde(default = "default_seconds")]
    seconds: u64,
    #[serde(default = "default_bytes")]
    bytes: usize,
}

fn default_events() -> usize {
    100
}

fn default_seconds() -> u64 {
    300
}

fn default_bytes() -> usize {
    1_048_576
}

/// The rules of all apps, in the order of the file.
pub(super) fn check(checker: &mut Checker<'_>, raw: &RawConfig) -> Vec<HistoryRule> {
    let mut rules = Vec::new();
    for (app_index, app) in raw.apps.iter().enumerate() {
        for (index, one) in app.history.iter().enumerate() {
            let at = |key| {
                let table = [Key("apps"), Index(app_index), Key("history"), Index(index)];
                [table[0], table[1], table[2], table[3], Key(key)]
            };
            if one.pattern.is_empty() {
                let hint = "\"*\" means every channel of the app";
                checker.problem(&at("pattern"), "the pattern is empty", Some(hint));
            }
            let mut earlier = app.history[..index].iter();
            if let Some(other) = earlier.find(|it| it.pattern == "*" || it.pattern == one.pattern) {
                let message = format!(
                    "the pattern \"{}\" above leaves nothing to it",
                    other.pattern
                );
                checker.problem(&at("pattern"), message, None);
            }
            let (events, bytes) = (one.events as u64, one.bytes as u64);
            checker.range(&at("events"), "events", events, 1, 1_000_000);
            checker.range(&at("seconds"), "seconds", one.seconds, 1, AGE_SECONDS_MAX);
            checker.range(&at("bytes"), "bytes", bytes, 1024, u64::MAX);
            rules.push(HistoryRule {
                app_id: app.id.clone(),
                pattern: one.pattern.clone(),
                events: one.events,
                bytes: one.bytes,
                age: Duration::from_secs(one.seconds),
            });
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    fn read(tables: &str) -> Result<Vec<HistoryRule>, String> {
        let text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[apps]]\nid = \"a\"\nkey = \"k\"\n\
             secret = \"s\"\n{tables}"
        );
        let parsed = parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets);
        parsed.map(|config| config.history).map_err(|error| error.0)
    }

    const TABLE: &str = "[[apps.history]]\npattern = \"room-*\"\n";

    #[test]
    fn a_table_is_a_rule_and_there_is_none_without() {
        assert_eq!(read(""), Ok(Vec::new()));
        let rules = read(&format!("{TABLE}events = 5\n")).expect("it is right");
        let rule = HistoryRule {
            app_id: "a".into(),
            pattern: "room-*".into(),
            events: 5,
            bytes: 1_048_576,
            age: Duration::from_secs(300),
        };
        assert_eq!(rules, [rule]);
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_at_its_line() {
        let table = [
            ("events = 0", "f:9:"),
            ("seconds = 604801", "between 1 and 604800"),
            ("bytes = 1023", "at least 1024"),
            ("[[apps.history]]\npattern = \"\"", "f:10:"),
            ("[[apps.history]]\npattern = \"room-*\"", "leaves nothing"),
        ];
        for (lines, words) in table {
            let error = read(&format!("{TABLE}{lines}\n")).expect_err(lines);
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
