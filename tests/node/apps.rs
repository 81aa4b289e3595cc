//! The app of nodes that are played by hand, and of small simulations.

use lineman::app::apps::{App, AppKey, Apps, Secret};

/// One app, on which nothing is optional but events of clients, with a key that may do everything.
pub fn one_app(id: &str, key: &str, secret: &str) -> Apps {
    Apps::new(vec![App {
        id: id.into(),
        keys: vec![AppKey::new(key.into(), Secret::new(secret.into()))],
        publishes_per_second: 0,
        client_events: true,
        subscription_counts: false,
        watchlists: false,
        authorize_seconds: 0,
        replay_guard: false,
        origins: Vec::new(),
    }])
}
