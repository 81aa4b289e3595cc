//! The apps of one server: who may connect and publish under which key.

use std::fmt;
use std::sync::Arc;

use crate::wire::bus::Rate;
use crate::wire::origin::is_listed;
use crate::wire::sign::{is_same_secret, is_signed};

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

/// What a key's secret is good for. To connect, a client needs no more than the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishing, and signing for clients: who decides what is said in private channels also
    /// decides who hears it.
    Publish,
    /// Asking for channels and users.
    Read,
    /// Registering devices and notifying users.
    Push,
    /// Ending the connections of users, and changing what the app proves itself with to push providers.
    Admin,
}

impl Role {
    /// By their words in the configuration.
    pub const ALL: &'static [(&'static str, Role)] = &[
        ("publish", Role::Publish),
        ("read", Role::Read),
        ("push", Role::Push),
        ("admin", Role::Admin),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        let row = Role::ALL.iter().find(|(_, role)| *role == self);
        row.map_or("", |(word, _)| word)
    }
}

/// One of an app's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppKey {
    /// In the WebSocket path and in signatures; unique among all apps.
    pub key: String,
    /// Unique among the keys of the app.
    pub secret: Secret,
    pub roles: Vec<Role>,
    /// Events over the HTTP API; 0 for any number.
    pub publishes_per_second: u32,
}

impl AppKey {
    /// A key that may do everything, as often as it likes.
    pub fn new(key: String, secret: Secret) -> AppKey {
        AppKey {
            key,
            secret,
            roles: Role::ALL.iter().map(|(_, role)| *role).collect(),
            publishes_per_second: 0,
        }
    }

    pub fn may(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// One `[[apps]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// In the paths of the HTTP API; without a slash.
    pub id: String,
    /// At least one. Several while one is being replaced, or with different roles.
    pub keys: Vec<AppKey>,
    /// Events over the HTTP API, with all keys together; 0 for any number.
    pub publishes_per_second: u32,
    /// Whether a signed request that changes something is good for one time only.
    pub replay_guard: bool,
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

    pub fn key(&self, key: &str) -> Option<&AppKey> {
        self.keys.iter().find(|it| it.key == key)
    }

    /// The key as it may be logged: whoever mixes key and secret up must not find the latter there.
    pub fn known_key(&self, key: Option<&str>) -> &str {
        key.and_then(|key| self.key(key)).map_or("", |it| &it.key)
    }

    /// The key whose secret this is.
    pub fn key_of_secret(&self, secret: &str) -> Option<&AppKey> {
        let mut keys = self.keys.iter();
        keys.find(|key| is_same_secret(secret, key.secret.expose()))
    }

    /// Whether `auth` is `KEY:SIGNATURE` of a text about a client, by a key that may sign such.
    pub fn is_signed_for_client(&self, auth: &str, text: &str) -> bool {
        let Some((key, signature)) = auth.split_once(':') else {
            return false;
        };
        let key = self.key(key).filter(|key| key.may(Role::Publish));
        key.is_some_and(|key| is_signed(key.secret.expose(), text, signature))
    }

    /// The rates that a publishing call with `key` has to keep. Ids have no slash, so no two of
    /// these have one name.
    pub fn publish_rates(&self, key: &AppKey) -> Vec<Rate> {
        let of_app = (self.publishes_per_second > 0).then(|| Rate {
            name: self.id.clone(),
            per_second: self.publishes_per_second,
        });
        let of_key = (key.publishes_per_second > 0).then(|| Rate {
            name: format!("{}/{}", self.id, key.key),
            per_second: key.publishes_per_second,
        });
        of_app.into_iter().chain(of_key).collect()
    }
}

/// Looks apps up by id and key. A handful at most, so a scan beats a map.
#[derive(Clone, Debug, Default)]
pub struct Apps(Vec<Arc<App>>);

impl Apps {
    pub fn new(apps: Vec<App>) -> Apps {
        Apps(apps.into_iter().map(Arc::new).collect())
    }

    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| app.id == id)
    }

    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| app.key(key).is_some())
    }

    /// As `App::known_key`, of any app.
    pub fn known_key(&self, key: Option<&str>) -> &str {
        let app = key.and_then(|key| self.by_key(key));
        app.map_or("", |app| app.known_key(key))
    }

    pub fn iter(&self) -> impl Iterator<Item = &App> {
        self.0.iter().map(|app| &**app)
    }
}
