//! The shipped file and the reference page against what the loader takes.

use std::path::Path;

use super::*;
use crate::config::load::parse;
use crate::config::program::Program;
use crate::config::secret::no_secrets;

#[test]
fn the_defaults_shown_are_the_defaults_used() {
    let plain = parse(
        &config_file(),
        "f",
        Path::new("/"),
        &Program::default(),
        &no_secrets,
    )
    .unwrap();
    let written: String = config_file()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if is_setting(key) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(written, config_file());
    let spelt = parse(
        &written,
        "f",
        Path::new("/"),
        &Program::default(),
        &no_secrets,
    )
    .unwrap();
    assert_eq!(format!("{plain:?}"), format!("{spelt:?}"));
}

fn is_setting(line: &str) -> bool {
    let name = line.split_once(" = ").map_or("", |(name, _)| name);
    !name.is_empty()
        && !line.contains('…')
        && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
}

#[test]
fn every_key_the_loader_takes_has_a_row() {
    for table in TABLES {
        let above = match table.optional {
            true if table.heading.starts_with("[[apps") => "[[apps]]\nid = \"\"\n",
            true if table.heading.starts_with("[[push") => "",
            true => "[[listen]]\nurl = \"\"\n",
            false => "",
        };
        let text = format!("{above}{}\nzzz = 1\n", table.heading);
        let error = parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets)
            .unwrap_err()
            .0;
        let (_, known) = error.split_once(", expected ").unwrap();
        let known = known.lines().next().unwrap();
        for name in known.split('`').skip(1).step_by(2) {
            let elsewhere = [
                "log",
                "listen",
                "apps",
                "keys",
                "websocket",
                "http",
                "limits",
                "webhooks",
                "apns",
                "fcm",
                "webpush",
                "azure",
                "history",
                "push",
                "former_keys",
                "apns",
                "fcm",
                "webpush",
                "azure",
                "store",
                "cluster",
                "tls",
                "sni",
            ];
            let elsewhere = elsewhere.contains(&name);
            let here = table.keys.iter().any(|key| key.name == name);
            assert!(
                here || elsewhere,
                "{name} has no row in {:?}",
                table.heading
            );
        }
        assert!(table.keys.iter().all(|key| known.contains(key.name)));
    }
}
