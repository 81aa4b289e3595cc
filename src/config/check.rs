//! Whether the values in a well-formed file make sense together. Owns the ranges and the rules
//! (a demo secret stays on the loopback); does not know how problems are shown.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use crate::app::handler::Handler;
use crate::config::load::{FORMATS, LEVELS, RawConfig, RawHttp, RawListen, RawLog, RawWebSocket};
use crate::config::problem::Step::{Index, Key};
use crate::config::problem::{Problem, Step, locate, nearest};
use crate::config::program::Program;
use crate::config::secret::{self, Fetch};
use crate::config::url::{self, ListenUrl, Scheme};
use crate::config::{
    Config, FilesRoot, Listen, LogFormat, LogOptions, apps, cluster, credentials, history, limits,
    proxies, push, store, tls, webhooks,
};
use crate::wire::deflate::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::wire::deflate_offer::DeflateOptions;
use crate::wire::origin::is_valid_entry;
use crate::wire::protocol::Protocol;

/// More processes than this is a typing error on any machine we know of.
pub const WORKERS_MAX: u32 = 256;
/// More reactors in one process would share one heap to no gain.
pub const THREADS_MAX: u32 = 64;
/// Longer than a day is a typing error.
const DRAIN_SECONDS_MAX: u64 = 86_400;
const WATCHDOG_SECONDS_MIN: u64 = 3;
/// What a worker takes without any client, and some.
const WORKER_MEMORY_MIN: u64 = 32 * 1024 * 1024;

pub(super) struct Checker<'a> {
    document: &'a Spanned<DeTable<'a>>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn problem(
        &mut self,
        path: &[Step],
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        self.problems.push(Problem {
            span: locate(self.document, path),
            message: message.into(),
            hint: hint.map(str::to_string),
        });
    }

    pub(super) fn range(&mut self, path: &[Step], name: &str, value: u64, low: u64, high: u64) {
        if !(low..=high).contains(&value) {
            let message = if high == u64::MAX {
                format!("{name} must be at least {low}, it is {value}")
            } else {
                format!("{name} must be between {low} and {high}, it is {value}")
            };
            self.problem(path, message, None);
        }
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        path: &[Step],
        word: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let hint = match nearest(word, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("one of: {}", names.join(", ")),
        };
        self.problem(path, format!("\"{word}\" is not known here"), Some(&hint));
        None
    }
}

/// Turns the raw file into a `Config` or into everything that is wrong with it. Secrets that are
/// kept elsewhere come from `fetch`, their relative paths start at `base`.
pub(super) fn check(
    raw: RawConfig,
    document: &Spanned<DeTable<'_>>,
    program: &Program,
    (base, fetch): (&Path, &Fetch<'_>),
) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker {
        document,
        problems: Vec::new(),
    };
    check_processes(&mut checker, &raw);
    check_supervision(&mut checker, &raw);
    let log = check_log(&mut checker, &raw.log);
    let workers = resolve_workers(raw.workers);
    let listen = check_listen(&mut checker, &raw.listen, (workers, program));
    let mut secrets = secret::fetch_all(&mut checker, &raw.apps, base, fetch);
    apps::check(&mut checker, &raw.apps, &listen, &secrets.of_apps);
    let history = history::check(&mut checker, &raw);
    let webhooks = webhooks::check(&mut checker, &raw);
    let cluster = cluster::check(&mut checker, &raw, (base, fetch), &mut secrets);
    let push = push::check(&mut checker, &raw, (base, fetch), secrets.noted());
    let postgres = store::check(&mut checker, &raw, (base, fetch), secrets.noted());
    let credentials = credentials::check(&mut checker, &raw, (base, fetch), secrets.noted());
    let deflate = check_websocket(&mut checker, &raw.websocket);
    check_http(&mut checker, &raw.http);
    limits::check(&mut checker, &raw.limits);
    if !checker.problems.is_empty() {
        return Err(checker.problems);
    }
    let apps = raw.apps.into_iter().zip(secrets.of_apps);
    Ok(Config {
        workers,
        threads: raw.threads,
        run_dir: raw.run_dir,
        drain: Duration::from_secs(raw.drain_seconds),
        watchdog: (raw.watchdog_seconds > 0).then(|| Duration::from_secs(raw.watchdog_seconds)),
        worker_memory_bytes: (raw.worker_memory_bytes > 0).then_some(raw.worker_memory_bytes),
        user: raw.user,
        group: raw.group,
        log,
        listen,
        apps: apps.map(|(raw, secrets)| apps::app(raw, secrets)).collect(),
        history,
        webhooks,
        credentials,
        push,
        cluster,
        store_dir: raw.store.dir,
        postgres,
        limits: raw.limits,
        deflate,
        cors_origins: raw.http.cors_origins,
        kept: secrets.kept,
        kept_apart: secrets.apart,
        secret_warnings: secrets.warnings,
    })
}

fn check_processes(checker: &mut Checker<'_>, raw: &RawConfig) {
    let mut range = |name: &'static str, value: u32, low: u64, high: u32| {
        checker.range(&[Key(name)], name, value.into(), low, high.into());
    };
    range("workers", raw.workers, 0, WORKERS_MAX);
    range("threads", raw.threads, 1, THREADS_MAX);
}

fn check_supervision(checker: &mut Checker<'_>, raw: &RawConfig) {
    let (drain, watchdog) = (raw.drain_seconds, raw.watchdog_seconds);
    checker.range(
        &[Key("drain_seconds")],
        "drain_seconds",
        drain,
        0,
        DRAIN_SECONDS_MAX,
    );
    if watchdog > 0 {
        // Less would take a worker that is merely busy for a stuck one.
        let name = "watchdog_seconds";
        checker.range(&[Key(name)], name, watchdog, WATCHDOG_SECONDS_MIN, 3600);
    }
    let memory = raw.worker_memory_bytes;
    if memory > 0 {
        let name = "worker_memory_bytes";
        checker.range(&[Key(name)], name, memory, WORKER_MEMORY_MIN, u64::MAX);
    }
    if raw.group.is_some() && raw.user.is_none() {
        checker.problem(&[Key("group")], "group needs user", None);
    }
}

fn resolve_workers(workers: u32) -> u32 {
    if workers > 0 {
        return workers;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(1).min(WORKERS_MAX)
}

fn check_log(checker: &mut Checker<'_>, raw: &RawLog) -> LogOptions {
    let level = checker.word(&[Key("log"), Key("level")], &raw.level, LEVELS);
    let format = checker.word(&[Key("log"), Key("format")], &raw.format, FORMATS);
    LogOptions {
        level: level.unwrap_or(log::LevelFilter::Info),
        format: format.unwrap_or(LogFormat::Text),
        file: raw.file.clone(),
        program: None,
    }
}

fn check_listen(
    checker: &mut Checker<'_>,
    raw: &[RawListen],
    (workers, program): (u32, &Program),
) -> Vec<Listen> {
    // A program may do nothing but connect to others.
    if raw.is_empty() && program.handlers.is_empty() {
        let hint = "add:\n    [[listen]]\n    url = \"http://127.0.0.1:8080\"";
        checker.problem(
            &[],
            "there is no [[listen]]: the server would hear nobody",
            Some(hint),
        );
    }
    let mut listens: Vec<Listen> = Vec::new();
    let handlers = program.words();
    for (index, one) in raw.iter().enumerate() {
        let at = |key| [Key("listen"), Index(index), Key(key)];
        let handler = checker.word(&at("handler"), &one.handler, &handlers);
        let mut url = match url::parse(&one.url) {
            Ok(url) => url,
            Err((message, hint)) => {
                checker.problem(&at("url"), message, Some(&hint));
                continue;
            }
        };
        let mut places = listens.iter().map(|other| &other.url.place);
        if places.any(|place| place.is_taken_by(&url.place)) {
            checker.problem(&at("url"), format!("{url} is listened on twice"), None);
        }
        let handler = handler.unwrap_or(Handler::Channels);
        check_handler(checker, &at("url"), &url, handler);
        let http = url.scheme.protocol() == Protocol::Http;
        let some = one.workers.into();
        checker.range(&at("workers"), "workers", some, 0, workers.into());
        let tls = one.tls.as_ref();
        let tls = tls.map(|raw| tls::check(checker, index, raw, http));
        url.scheme = check_scheme(checker, &at("url"), url.scheme, tls.is_some());
        let proxies = proxies::check(checker, index, one, &url);
        let root = check_root(checker, index, one, handler);
        listens.push(Listen {
            url,
            handler,
            word: one.handler.clone(),
            tls,
            proxies,
            workers: if some > 0 { one.workers } else { workers },
            connections: one.connections,
            accepts_per_second: one.accepts_per_second,
            root,
        });
    }
    listens
}

/// What the handler `files` serves; the others have no use for it.
fn check_root(
    checker: &mut Checker<'_>,
    index: usize,
    raw: &RawListen,
    handler: Handler,
) -> Option<FilesRoot> {
    let at = |key| [Key("listen"), Index(index), Key(key)];
    for (name, given) in [("root", raw.root.is_some()), ("index", raw.index.is_some())] {
        if given && handler != Handler::Files {
            let message = format!("{name} goes with handler = \"files\"");
            checker.problem(&at(name), message, None);
        }
    }
    let file = raw
        .index
        .clone()
        .unwrap_or_else(|| "index.html".to_string());
    if file.is_empty() || file.starts_with('.') || file.contains(['/', '\0']) {
        let message = "index must be the name of a file, and no hidden one";
        checker.problem(&at("index"), message, None);
    }
    if handler == Handler::Files && raw.root.is_none() {
        let hint = "add root = \"DIRECTORY\"";
        checker.problem(&at("handler"), "the files handler needs a root", Some(hint));
    }
    let dir = raw.root.clone().filter(|_| handler == Handler::Files)?;
    Some(FilesRoot { dir, index: file })
}

/// The scheme that clients have to write.
fn check_scheme(checker: &mut Checker<'_>, path: &[Step], scheme: Scheme, tls: bool) -> Scheme {
    match (scheme, tls) {
        (Scheme::Https, false) => {
            let message = "this URL needs a certificate";
            let hint = "add:\n    [listen.tls]\n    certificate = \"…\"\n    key = \"…\"";
            checker.problem(path, message, Some(hint));
            scheme
        }
        (Scheme::Http | Scheme::WebSocket, true) => Scheme::Https,
        _ => scheme,
    }
}

/// Some handlers cannot stand on some protocols.
fn check_handler(checker: &mut Checker<'_>, path: &[Step], url: &ListenUrl, handler: Handler) {
    let http_only = match handler {
        Handler::Metrics => Some("metrics"),
        Handler::Files => Some("files"),
        _ => None,
    };
    if let Some(word) = http_only.filter(|_| url.scheme.protocol() != Protocol::Http) {
        let message = format!("the {word} handler answers HTTP and nothing else");
        let hint = "write http://, https:// or unix://";
        checker.problem(path, message, Some(hint));
    }
    if url.scheme.protocol() == Protocol::Raw && handler == Handler::Channels {
        let message = "tcp:// has no messages, so the channels handler cannot be on it";
        let hint = "write text:// or frame://, which carry the same events as a WebSocket, or \
                    handler = \"echo\"";
        checker.problem(path, message, Some(hint));
    }
}

fn check_http(checker: &mut Checker<'_>, http: &RawHttp) {
    let path = [Key("http"), Key("cors_origins")];
    check_origins(checker, &path, &http.cors_origins);
}

pub(super) fn check_origins(checker: &mut Checker<'_>, path: &[Step], origins: &[String]) {
    for entry in origins.iter().filter(|entry| !is_valid_entry(entry)) {
        let hint = "SCHEME://HOST[:PORT] without a path, such as \"https://example.com\", \
                    \"https://*.example.com\" for all hosts below it, or \"*\"";
        checker.problem(path, format!("\"{entry}\" is no origin"), Some(hint));
    }
}

/// Which side's messages may refer to earlier ones: the client's, the server's.
const CONTEXTS: &[(&str, (bool, bool))] = &[
    ("none", (false, false)),
    ("client", (true, false)),
    ("both", (true, true)),
];

fn check_websocket(checker: &mut Checker<'_>, raw: &RawWebSocket) -> Option<DeflateOptions> {
    let at = |key| [Key("websocket"), Key(key)];
    let name = "compression_context";
    let context = checker.word(&at(name), &raw.compression_context, CONTEXTS);
    let name = "compression_window_bits";
    let (low, high) = (WINDOW_BITS_MIN.into(), WINDOW_BITS_MAX.into());
    checker.range(
        &at(name),
        name,
        raw.compression_window_bits.into(),
        low,
        high,
    );
    let (client_context, server_context) = context.unwrap_or_default();
    raw.compression.then_some(DeflateOptions {
        client_context,
        server_context,
        min_bytes: raw.compression_min_bytes,
        window_bits: raw.compression_window_bits,
    })
}

#[cfg(test)]
pub(in crate::config) mod tests {
    use std::path::Path;

    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    /// The message must name each of `expected`; nothing expected means the file is right.
    pub fn check(text: &str, expected: &[&str]) {
        match parse(text, "f", Path::new("/"), &Program::default(), &no_secrets) {
            Ok(_) => assert!(expected.is_empty(), "accepted: {text}"),
            Err(error) => {
                assert!(!expected.is_empty(), "refused: {text}\n{error}");
                for part in expected {
                    assert!(error.0.contains(part), "no {part:?} in:\n{error}");
                }
            }
        }
    }

    pub fn listen(url: &str) -> String {
        format!("[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n")
    }

    #[test]
    fn a_wrong_url_is_refused_at_its_line_with_a_hint() {
        check(&listen("text://[::1]:9"), &[]);
        check(&listen("127.0.0.1:80"), &["f:2:", "not a URL", "hint:"]);
        check(&listen("txt://127.0.0.1:80"), &["f:2:", "text://"]);
    }

    #[test]
    fn bytes_without_messages_are_for_echo_only() {
        let tcp = "[[listen]]\nurl = \"tcp://127.0.0.1:0\"\n";
        let app = app("a", "k", "s");
        check(&format!("{tcp}{app}"), &["f:2:", "text:// or frame://"]);
        check(&listen("tcp://127.0.0.1:0"), &[]);
        check(&format!("{}{app}", tcp.replace("tcp", "frame")), &[]);
    }

    #[test]
    fn all_problems_are_reported_at_once_in_the_order_of_lines() {
        let text = "workers = 999\nthreads = 0\n[[listen]]\nurl = \"x\"\nhandler = \"chanels\"\n\
                    [limits]\nactivity_seconds = 5\n";
        check(
            text,
            &[
                "f:1:",
                "f:2:",
                "f:4:",
                "f:5:",
                "did you mean \"channels\"",
                "f:7:",
            ],
        );
    }

    #[test]
    fn a_listener_is_served_by_some_of_the_workers_there_are() {
        let text = |some| {
            let listen = listen("http://127.0.0.1:0");
            format!("workers = 2\n{listen}workers = {some}\n")
        };
        check(&text(2), &[]);
        check(&text(0), &[]);
        check(&text(3), &["f:5:", "between 0 and 2"]);
    }

    #[test]
    fn a_server_that_hears_nobody_or_admits_nobody_is_refused() {
        check("", &["no [[listen]]"]);
        check(
            "[[listen]]\nurl = \"http://127.0.0.1:0\"\n",
            &["no [[apps]]"],
        );
    }

    #[test]
    fn two_listeners_cannot_share_an_address_unless_the_port_is_free_to_choose() {
        let twice = |url| format!("{}{}", listen(url), listen(url));
        check(&twice("http://127.0.0.1:80"), &["f:5:", "twice"]);
        check(&twice("unix://here.sock"), &["f:5:", "twice"]);
        check(&twice("http://127.0.0.1:0"), &[]);
    }

    pub fn app(id: &str, key: &str, secret: &str) -> String {
        format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n")
    }

    #[test]
    fn a_wrong_word_in_the_log_table_is_refused() {
        let text = format!(
            "{}[log]\nlevel = \"inf\"\nformat = \"xml\"\n",
            listen("http://127.0.0.1:0")
        );
        check(&text, &["did you mean \"info\"", "one of: text, json"]);
    }
}
