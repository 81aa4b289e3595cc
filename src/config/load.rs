//! The text of a configuration file to a `Config`. Owns the shape of the file (which tables and
//! types there are) and its defaults; what values are sensible is decided in `check`. Invariant:
//! all mistakes of a well-formed file are reported at once.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeTable;

use crate::base::limits::Limits;
use crate::config::check;
use crate::config::cluster::RawCluster;
use crate::config::credentials::{RawApns, RawAzure, RawFcm, RawWebPush};
use crate::config::history::RawHistory;
use crate::config::problem::{ConfigError, Problem, render};
use crate::config::program::Program;
use crate::config::push::RawPush;
use crate::config::secret::{Fetch, RawSecret};
use crate::config::store::RawStore;
use crate::config::tls::RawTls;
use crate::config::webhooks::{RawWebhook, RawWebhooks};
use crate::config::{Config, LogFormat};

/// The file as written, before anyone asked whether it makes sense.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub workers: u32,
    pub threads: u32,
    pub run_dir: Option<PathBuf>,
    pub drain_seconds: u64,
    pub watchdog_seconds: u64,
    pub worker_memory_bytes: u64,
    pub user: Option<String>,
    pub group: Option<String>,
    pub log: RawLog,
    pub listen: Vec<RawListen>,
    pub apps: Vec<RawApp>,
    pub websocket: RawWebSocket,
    pub http: RawHttp,
    pub webhooks: RawWebhooks,
    pub store: RawStore,
    pub cluster: RawCluster,
    pub push: RawPush,
    pub limits: Limits,
}

impl Default for RawConfig {
    fn default() -> RawConfig {
        RawConfig {
            workers: 0,
            threads: 1,
            run_dir: None,
            drain_seconds: 30,
            watchdog_seconds: 10,
            worker_memory_bytes: 0,
            user: None,
            group: None,
            log: RawLog::default(),
            listen: Vec::new(),
            apps: Vec::new(),
            websocket: RawWebSocket::default(),
            http: RawHttp::default(),
            webhooks: RawWebhooks::default(),
            store: RawStore::default(),
            cluster: RawCluster::default(),
            push: RawPush::default(),
            limits: Limits::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub level: String,
    pub format: String,
    pub file: Option<PathBuf>,
}

impl Default for RawLog {
    fn default() -> RawLog {
        RawLog {
            level: "info".into(),
            format: "text".into(),
            file: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListen {
    pub url: String,
    #[serde(default = "default_handler")]
    pub handler: String,
    pub root: Option<PathBuf>,
    pub index: Option<String>,
    pub tls: Option<RawTls>,
    #[serde(default)]
    pub proxy_protocol: bool,
    #[serde(default = "default_header")]
    pub real_ip_header: String,
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    #[serde(default)]
    pub workers: u32,
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub accepts_per_second: u64,
}

fn default_handler() -> String {
    "channels".into()
}

fn default_header() -> String {
    "none".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApp {
    pub id: String,
    pub key: Option<RawKey>,
    pub secret: Option<RawSecret>,
    #[serde(default)]
    pub keys: Vec<RawAppKey>,
    #[serde(default)]
    pub publishes_per_second: u32,
    #[serde(default = "default_client_events")]
    pub client_events: bool,
    #[serde(default)]
    pub subscription_counts: bool,
    #[serde(default)]
    pub watchlists: bool,
    #[serde(default)]
    pub replay_guard: bool,
    #[serde(default)]
    pub authorize_seconds: u64,
    #[serde(default)]
    pub origins: Vec<String>,
    #[serde(default)]
    pub history: Vec<RawHistory>,
    #[serde(default)]
    pub webhooks: Vec<RawWebhook>,
    #[serde(default)]
    pub apns: Vec<RawApns>,
    #[serde(default)]
    pub fcm: Vec<RawFcm>,
    #[serde(default)]
    pub webpush: Vec<RawWebPush>,
    #[serde(default)]
    pub azure: Vec<RawAzure>,
}

/// One `[[apps.keys]]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAppKey {
    pub key: RawKey,
    pub secret: RawSecret,
    pub roles: Option<Vec<String>>,
    #[serde(default)]
    pub publishes_per_second: u32,
}

fn default_client_events() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWebSocket {
    pub compression: bool,
    pub compression_context: String,
    pub compression_min_bytes: usize,
    pub compression_window_bits: u8,
}

impl Default for RawWebSocket {
    fn default() -> RawWebSocket {
        RawWebSocket {
            compression: false,
            compression_context: "none".into(),
            compression_min_bytes: 1024,
            compression_window_bits: 15,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    pub cors_origins: Vec<String>,
}

/// A string whose parse error does not repeat what was written.
#[derive(Debug)]
pub(super) struct RawKey(pub String);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<RawKey, D::Error> {
        match toml::Value::deserialize(from)? {
            toml::Value::String(text) => Ok(RawKey(text)),
            _ => Err(serde::de::Error::custom("expected a string in quotes")),
        }
    }
}

/// Reads `text`, whose listeners may name the handlers of `program`. `file` is for messages only;
/// relative paths in the text start at `base`; `fetch` gets the secrets that are kept elsewhere.
pub fn parse(
    text: &str,
    file: &str,
    base: &Path,
    program: &Program,
    fetch: &Fetch<'_>,
) -> Result<Config, ConfigError> {
    let syntax = |error: toml::de::Error| {
        let problem = Problem {
            span: error.span(),
            message: error.message().to_string(),
            hint: None,
        };
        render(file, text, vec![problem])
    };
    let document = DeTable::parse(text).map_err(syntax)?;
    let raw: RawConfig = toml::from_str(text).map_err(syntax)?;
    let mut config = check::check(raw, &document, program, (base, fetch))
        .map_err(|problems| render(file, text, problems))?;
    config.run_dir = config.run_dir.map(|dir| base.join(dir));
    for listen in &mut config.listen {
        listen.url.place = listen.url.place.clone().under(base);
    }
    for root in config.listen.iter_mut().filter_map(|it| it.root.as_mut()) {
        root.dir = base.join(&root.dir);
    }
    config.store_dir = config.store_dir.map(|dir| base.join(dir));
    config.log.file = config.log.file.map(|path| base.join(path));
    for tls in config.listen.iter_mut().filter_map(|it| it.tls.as_mut()) {
        tls.resolve(base);
    }
    Ok(config)
}

/// The words of `log.level`, from silent to chatty.
pub(super) const LEVELS: &[(&str, log::LevelFilter)] = &[
    ("off", log::LevelFilter::Off),
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

pub(super) const FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::config_file;
    use crate::config::secret::no_secrets;

    fn errors(text: &str) -> String {
        parse(
            text,
            "test.toml",
            Path::new("/base"),
            &Program::default(),
            &no_secrets,
        )
        .unwrap_err()
        .0
    }

    const GOOD: &str = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n";

    #[test]
    fn the_shipped_file_is_valid_and_holds_the_demo_app() {
        let config = parse(
            &config_file(),
            "lineman.toml",
            Path::new("/"),
            &Program::default(),
            &no_secrets,
        )
        .unwrap();
        assert_eq!(config.listen[0].url.to_string(), "http://127.0.0.1:8080");
        assert_eq!(config.apps[0].id, "demo");
        assert_eq!(config.apps[0].keys[0].secret.expose(), "demo-secret");
        assert_eq!(config.threads, 1);
        assert!(config.workers >= 1);
    }

    #[test]
    fn relative_paths_start_beside_the_file() {
        let text = format!("run_dir = \"run\"\n[log]\nfile = \"/var/log/l\"\n{GOOD}");
        let config = parse(
            &text,
            "t",
            Path::new("/base"),
            &Program::default(),
            &no_secrets,
        )
        .unwrap();
        assert_eq!(config.run_dir.as_deref(), Some(Path::new("/base/run")));
        assert_eq!(config.log.file.as_deref(), Some(Path::new("/var/log/l")));
        let unix = GOOD.replace("http://127.0.0.1:0", "unix://a.sock");
        let config = parse(
            &unix,
            "t",
            Path::new("/base"),
            &Program::default(),
            &no_secrets,
        )
        .unwrap();
        assert_eq!(config.listen[0].url.to_string(), "unix:///base/a.sock");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert!(errors("workers = 1\nthreads = \n").contains("test.toml:2:"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        let shown = errors(&format!("wokers = 1\n{GOOD}"));
        assert!(
            shown.contains("test.toml:1:") && shown.contains("`workers`"),
            "{shown}"
        );
    }

    #[test]
    fn a_secret_without_quotes_is_not_repeated() {
        let shown = errors("[[apps]]\nid = \"a\"\nkey = \"b\"\nsecret = 12345\n");
        assert!(
            shown.contains("test.toml:4:") && !shown.contains("12345"),
            "{shown}"
        );
    }
}
