//! The apps of every world, one for each way to be set.

use std::time::Duration;

use lineman::app::apps::{App, AppKey, Role, Secret};
use lineman::base::history_rule::HistoryRule;

/// A key that is named after what it may do.
fn limited_key(name: &str, roles: &[Role]) -> AppKey {
    let secret = Secret::new(format!("{name}-secret"));
    AppKey {
        roles: roles.to_vec(),
        publishes_per_second: 2,
        ..AppKey::new(format!("{name}-key"), secret)
    }
}

/// `quiet` has all that is optional off, `strict` on; any other is as most are.
pub fn app(name: &str) -> App {
    App {
        id: name.into(),
        keys: vec![
            AppKey::new(format!("{name}-key"), Secret::new(format!("{name}-secret"))),
            limited_key(&format!("{name}-publish"), &[Role::Publish]),
            limited_key(&format!("{name}-read"), &[Role::Read]),
            limited_key(&format!("{name}-admin"), &[Role::Admin]),
        ],
        publishes_per_second: 0,
        client_events: name != "quiet",
        subscription_counts: name == "strict",
        watchlists: name != "quiet",
        replay_guard: name == "strict",
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
