//! The apps of every world, one for each way to be set.

use lineman::app::apps::{App, Secret};

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
