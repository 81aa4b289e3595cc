//! The apps of one server: who may connect and publish under which key.

use std::fmt;

use crate::wire::origin::is_listed;

/// A secret that prints as dots, so that no log line or panic can carry it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: String) -> Secret {
        Secret(secret)
    }

    /// The secret itself; only for signing and comparing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••")
    }
}

/// One `[[apps]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// In the paths of the HTTP API; without a slash.
    pub id: String,
    /// In the WebSocket path and in signatures.
    pub key: String,
    pub secret: Secret,
    /// Whether clients may send `client-` events.
    pub client_events: bool,
    /// Whether subscribers are told how many they are.
    pub subscription_counts: bool,
    /// Whether signed-in users are told of those on their watchlists.
    pub watchlists: bool,
    /// Within this time a client signs in, or joins a private or presence channel; 0 for ever.
    pub authorize_seconds: u64,
    /// Of the pages that may connect; empty for any.
    pub origins: Vec<String>,
}

impl App {
    /// Whether a client with this `Origin` may connect. Browsers always send one; who sends none is
    /// no page that could act for somebody else's user.
    pub fn admits(&self, origin: Option<&str>) -> bool {
        self.origins.is_empty() || origin.is_none_or(|origin| is_listed(&self.origins, origin))
    }
}

/// Looks apps up by id and key. A handful at most, so a scan beats a map.
#[derive(Clone, Debug, Default)]
pub struct Apps(Vec<App>);

impl Apps {
    pub fn new(apps: Vec<App>) -> Apps {
        Apps(apps)
    }

    pub fn by_id(&self, id: &str) -> Option<&App> {
        self.0.iter().find(|app| app.id == id)
    }

    pub fn by_key(&self, key: &str) -> Option<&App> {
        self.0.iter().find(|app| app.key == key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &App> {
        self.0.iter()
    }
}
