//! One file to one checked value. Owns the names of the settings, what they may be, and how a
//! mistake is explained. Does not know what the program does with them. Invariant: a `Config` that
//! exists was checked whole; nobody checks it again.

pub mod apps;
pub mod check;
pub mod cluster;
pub mod credentials;
pub mod diff;
mod history;
pub mod key_vault;
pub mod keys;
mod limits;
pub mod load;
pub mod locate;
pub mod problem;
pub mod program;
pub mod proxies;
pub mod push;
pub mod secret;
pub mod store;
pub mod tls;
pub mod url;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use crate::app::apps::App;
use crate::app::handler::Handler;
use crate::base::history_rule::HistoryRule;
use crate::base::limits::Limits;
use crate::base::tls_rules::ClientAuth;
use crate::config::cluster::Cluster;
use crate::config::credentials::AppCredential;
use crate::config::proxies::Proxies;
use crate::config::push::Push;
use crate::config::secret::Kept;
use crate::config::store::Postgres;
use crate::config::tls::ListenTls;
use crate::config::url::ListenUrl;
use crate::push::webhook::Webhook;
use crate::wire::deflate_offer::DeflateOptions;

/// Everything the configuration file says, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Processes that serve clients; resolved, so never zero.
    pub workers: u32,
    /// Reactor threads of each worker.
    pub threads: u32,
    /// Where sockets and the lock live; `None` leaves the choice to `run`.
    pub run_dir: Option<PathBuf>,
    /// Over how long a worker lets its clients go when there is no hurry.
    pub drain: Duration,
    /// A worker that does not turn for so long is replaced; `None` never.
    pub watchdog: Option<Duration>,
    /// A worker that holds more memory is replaced; `None` never.
    pub worker_memory_bytes: Option<u64>,
    /// Whose rights the children have; `None` leaves them ours.
    pub user: Option<String>,
    /// Without it, the user's own.
    pub group: Option<String>,
    pub log: LogOptions,
    pub listen: Vec<Listen>,
    pub apps: Vec<App>,
    /// Of all apps.
    pub history: Vec<HistoryRule>,
    /// Of all apps.
    pub webhooks: Vec<Webhook>,
    /// `None`: no push gateway.
    pub push: Option<Push>,
    /// Of all apps.
    pub credentials: Vec<AppCredential>,
    /// `None`: this server is alone.
    pub cluster: Option<Cluster>,
    /// Where a database of our own lies; `None` leaves the choice to `run`.
    pub store_dir: Option<PathBuf>,
    /// `None`: the database is our own.
    pub postgres: Option<Postgres>,
    pub limits: Limits,
    /// `None`: WebSocket messages are not compressed.
    pub deflate: Option<DeflateOptions>,
    /// The pages that may read what the server answers over HTTP.
    pub cors_origins: Vec<String>,
    /// The secrets that the file does not hold itself.
    pub kept: Kept,
    /// The same of those that only the courier gets: token keys, the password of the database.
    pub kept_apart: Kept,
    /// How those are kept that should be kept better.
    pub secret_warnings: Vec<String>,
}

impl Config {
    /// How many reactors accept from a listener, counted from the first.
    pub fn slots(&self, listen: &Listen) -> u32 {
        listen.workers * self.threads
    }

    /// Whether anything is to be stored and sent.
    pub fn has_courier(&self) -> bool {
        !self.webhooks.is_empty() || self.push.is_some()
    }

    /// What may be meant, but is worth a word.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.listen.iter().filter(|listen| {
            let asks = |tls: &ListenTls| tls.rules.client_auth == ClientAuth::Required;
            listen.handler == Handler::Metrics
                && listen.url.place.is_public()
                && !listen.tls.as_ref().is_some_and(asks)
        });
        let words = |listen: &Listen| {
            format!(
                "{} tells the numbers of this server to whoever reaches it: listen on 127.0.0.1 or \
                 unix://, demand certificates with client_ca, or let a firewall keep others out",
                listen.url
            )
        };
        let kept = self.secret_warnings.iter().cloned();
        let clear = webhooks::warnings(&self.webhooks);
        let store = store::warning(self.postgres.as_ref());
        kept.chain(open.map(words))
            .chain(clear)
            .chain(store)
            .collect()
    }

    /// Whether the app is there that the demo page and the banner's curl line speak of.
    pub fn has_demo_app(&self) -> bool {
        let demo = ("demo", "demo-key", apps::DEMO_SECRET);
        let is_demo = |app: &App| {
            let mut keys = app.keys.iter();
            keys.any(|key| (&*app.id, &*key.key, key.secret.expose()) == demo)
        };
        self.apps.iter().any(is_demo)
    }
}

/// One `[[listen]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub url: ListenUrl,
    pub handler: Handler,
    /// The handler as it was written.
    pub word: String,
    pub tls: Option<ListenTls>,
    pub proxies: Proxies,
    /// How many of the workers accept from it, counted from the first.
    pub workers: u32,
    /// At most so many in the whole server; zero: no bound of its own.
    pub connections: u64,
    /// The same for new ones in a second.
    pub accepts_per_second: u64,
    /// What the handler `files` serves.
    pub root: Option<FilesRoot>,
}

/// A directory to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesRoot {
    pub dir: PathBuf,
    /// The file that stands for a directory.
    pub index: String,
}

/// The `[log]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    pub level: log::LevelFilter,
    pub format: LogFormat,
    /// `None`: standard error, or a file in the run directory when started with `-d`.
    pub file: Option<PathBuf>,
    /// The embedding program, whose lines are ours too.
    pub program: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
