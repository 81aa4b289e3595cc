//! Files that are made from tables in the code: the shipped configuration and the reference pages.
//! Each has to be what its table makes; `LINEMAN_BLESS=1 cargo test --test generated` writes them.

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
