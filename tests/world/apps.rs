//! The apps of every world, one for each way to be set.

use std::time::Duration;

use lineman::app::apps::{App, Secret};
use lineman::base::history_rule::HistoryRule;

/// `quiet` has all that is optional off, `strict` on; any other is as most are.
pub fn app(name: &str) -> App {
    App {
        id: name.into(),
        key: format!("{name}-key"),
        secret: Secret::new(format!("{name}-secret")),
        client_events: name != "quiet",
        subscription_counts: name == "strict",
        watchlists: name != "quiet",
        authorize_seconds: if name == "strict" { 30 } else { 0 },
        origins: Vec::new(),
    }
}

/// Channels whose name has `kept-` in it keep history, `short-kept-` only three events.
pub fn history() -> Vec<HistoryRule> {
    let rule = |pattern: &str, events| HistoryRule {
        app_id: "demo".into(),
        pattern: pattern.into(),
        events,
        bytes: 1 << 20,
        age: Duration::from_secs(60),
    };
    vec![rule("short-kept-*", 3), rule("*kept-*", 1000)]
}
