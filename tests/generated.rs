//! Files that are made from tables in the code: the shipped configuration and the reference pages.
//! Each has to be what its table makes; `LINEMAN_BLESS=1 cargo test --test generated` writes them. And
//! the alerts that are shipped, which may name nothing that there is not.

use std::path::Path;

use lineman::app::exposition;
use lineman::config::keys;
use lineman::run::explain;

/// `path` starts at the root of the project.
fn check_current(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LINEMAN_BLESS").is_some() {
        std::fs::write(&path, expected).expect("it can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not what the code makes; run: LINEMAN_BLESS=1 cargo test --test generated",
        path.display()
    );
}

#[test]
fn config_file_is_current() {
    check_current("config/lineman.toml", &keys::config_file());
}

#[test]
fn reference_page_is_current() {
    check_current("docs/configuration.md", &keys::reference_page());
}

#[test]
fn metrics_page_is_current() {
    check_current("docs/metrics.md", &exposition::reference_page());
}

#[test]
fn codes_page_is_current() {
    check_current("docs/codes.md", &explain::page());
}

/// The values of a key anywhere in a YAML text, with the lines of a folded one put together.
fn values(yaml: &str, key: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let bare = line.trim_start().trim_start_matches("- ");
        let Some(value) = bare.strip_prefix(key).and_then(|it| it.strip_prefix(": ")) else {
            continue;
        };
        let mut value = value.to_string();
        while value.starts_with(">-") && lines.peek().is_some_and(|it| indent(it) > indent(line)) {
            value.push(' ');
            value.push_str(lines.next().expect("it was seen").trim());
        }
        found.push(value.trim_start_matches(">-").trim().to_string());
    }
    found
}

/// What begins like one of our metrics, with the labels that are asked of it.
fn metrics_of(expression: &str) -> Vec<(&str, Option<&str>)> {
    let starts = expression.match_indices("lineman_");
    let each = starts.map(|(at, _)| {
        let rest = &expression[at..];
        let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let labels = behind.strip_prefix('{').and_then(|it| it.split('}').next());
        (name, labels)
    });
    each.collect()
}

#[test]
fn alerts_name_metrics_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yml");
    let yaml = std::fs::read_to_string(path).expect("the alerts");
    let page = exposition::reference_page();
    let (alerts, rules) = (values(&yaml, "alert"), values(&yaml, "expr"));
    assert!(alerts.len() >= 10, "{alerts:?}");
    for key in ["expr", "severity", "summary"] {
        assert_eq!(values(&yaml, key).len(), alerts.len(), "each has a {key}");
    }
    for (alert, rule) in alerts.iter().zip(&rules) {
        let metrics = metrics_of(rule);
        assert!(!metrics.is_empty(), "{alert}");
        for (name, labels) in metrics {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{alert}: there is no {name}"));
            for label in labels.into_iter().flat_map(|it| it.split(',')) {
                assert!(row.contains(&format!("`{label}`")), "{alert}: {label}");
            }
            let counts = name.ends_with("_total");
            let is_rate = rule.contains(&format!("rate({name}["))
                || rule.contains(&format!("increase({name}["));
            assert_eq!(
                counts, is_rate,
                "{alert}: what counts up is looked at as a rate"
            );
        }
    }
    for (named, parts) in [
        (
            "decrypt failures, as a rate",
            ["tokens_unreadable_total", "tokens_opened_total"],
        ),
        (
            "a start with a wrong key",
            ["absent(", "start_time_seconds"],
        ),
        ("unusual places", ["registrations_located_total", "offset"]),
        ("tokens about to end", ["devices_expiring", "devices{state"]),
    ] {
        let has = |rule: &&String| parts.iter().all(|part| rule.contains(part));
        assert!(rules.iter().any(|rule| has(&rule)), "no alert for {named}");
    }
}
