//! The table `[store]`: its rows in the reference, its shape in the file, whether it makes sense. Does
//! not know what is stored. Invariant: no password is in a URL, since URLs are shown.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::app::apps::Secret;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step::Key;
use crate::config::secret::{Fetch, Kept, RawSecret, fetch_apart};
use crate::wire::target::Target;

const DEFAULT_PORT: u16 = 5432;
/// What PostgreSQL cuts a name to.
const NAME_BYTES_MAX: usize = 63;

pub(super) const TABLE: TableRow = TableRow {
    heading: "[store]",
    help: "What has to survive a crash. Only needed with webhooks or push: a SQLite file of this server's own, or a PostgreSQL that several servers share (docs/operations.md). A change needs a restart.",
    keys: &[
        KeyRow {
            name: "dir",
            kind: "path",
            default: "",
            help: "The directory of the SQLite file. Without it: systemd's StateDirectory; else, for root without run_dir, /var/lib/lineman, in a directory of its own for each configuration file; else the run directory, which some systems empty when they start. A relative path starts beside this file.",
        },
        KeyRow {
            name: "url",
            kind: "URL",
            default: "",
            help: "Instead of a file, a PostgreSQL of version 13 or newer: postgres://HOST[:PORT]/DATABASE, or postgres:///DATABASE?host=DIRECTORY for the one whose socket is there. No password in it.",
        },
        KeyRow {
            name: "user",
            kind: "word",
            default: "",
            help: "With url: as whom to sign in. It makes a schema \"lineman\", or owns the one that is there.",
        },
        KeyRow {
            name: "password",
            kind: "where it is kept",
            default: "",
            help: "The password there: { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }. Only the courier gets to know it.",
        },
        KeyRow {
            name: "tls",
            kind: "word",
            default: "",
            help: "verify: the connection is encrypted, and the server's certificate has to be good for its name; off: it is in the clear. Without it, off for sockets and 127.0.0.1, [::1] and localhost, and verify for all others.",
        },
        KeyRow {
            name: "ca_file",
            kind: "path",
            default: "",
            help: "A PEM file with the authorities to trust instead of the system's. A relative path starts beside this file.",
        },
        KeyRow {
            name: "server",
            kind: "word",
            default: "\"main\"",
            help: "The name of this server in the database: which webhooks are its to send. Servers that share a database have different names; one that moves to another machine keeps its name.",
        },
    ],
    active: "",
    optional: false,
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    pub dir: Option<PathBuf>,
    url: Option<String>,
    user: Option<String>,
    password: Option<RawSecret>,
    tls: Option<String>,
    ca_file: Option<PathBuf>,
    server: String,
}

impl RawStore {
    /// Several servers may use it.
    pub(super) fn is_shared(&self) -> bool {
        self.url.is_some()
    }
}

impl Default for RawStore {
    fn default() -> RawStore {
        RawStore {
            dir: None,
            url: None,
            user: None,
            password: None,
            tls: None,
            ca_file: None,
            server: "main".into(),
        }
    }
}

/// The database that is shared, and as whom this server comes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// `tcp`, `tls`, or, for a directory of sockets, `unix`.
    pub target: Target,
    /// Also what a socket's name ends with.
    pub port: u16,
    pub database: String,
    pub user: String,
    /// Only the courier has it, and the master.
    pub password: Option<Secret>,
    pub server: String,
}

/// What may be meant, but is worth a word.
pub(super) fn warning(postgres: Option<&Postgres>) -> Option<String> {
    let target = &postgres?.target;
    let is_open = !target.scheme().is_secured() && !is_near(target);
    is_open.then(|| {
        format!("the database at {target} is asked in the clear: leave store.tls out unless the network is yours")
    })
}

/// `None` without a url. The password is fetched, and noted in `noted`, with warnings.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: &RawConfig,
    (base, fetch): (&Path, &Fetch<'_>),
    noted: (&mut Kept, &mut Vec<String>),
) -> Option<Postgres> {
    let one = &raw.store;
    let at = |key| [Key("store"), Key(key)];
    let password = one.password.as_ref().and_then(|password| {
        let RawSecret::Elsewhere(keeper) = password else {
            let message = "a password does not stand in the file, which every process gets";
            let hint = "{ env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";
            checker.problem(&at("password"), message, Some(hint));
            return None;
        };
        let found = fetch_apart(keeper, base, fetch, noted);
        found
            .map_err(|fault| checker.problem(&at("password"), fault.message, fault.hint))
            .ok()
            .flatten()
    });
    let Some(url) = &one.url else {
        let written = [
            ("user", one.user.is_some()),
            ("password", one.password.is_some()),
            ("tls", one.tls.is_some()),
            ("ca_file", one.ca_file.is_some()),
        ];
        for (key, _) in written.iter().filter(|(_, is_there)| *is_there) {
            checker.problem(&at(key), format!("{key} goes with url"), None);
        }
        return None;
    };
    if one.dir.is_some() {
        let message = "dir is for SQLite, and url for PostgreSQL: leave one out";
        checker.problem(&at("dir"), message, None);
    }
    let place = read_url(url);
    let place = place.map_err(|(message, hint)| checker.problem(&at("url"), message, hint));
    let Some(user) = one.user.clone() else {
        checker.problem(&at("url"), "url needs user", None);
        return None;
    };
    for (key, name) in [("user", &user), ("server", &one.server)] {
        check_name(checker, key, name);
    }
    let place = place.ok()?;
    let target = secured(checker, one, place.target, base);
    Some(Postgres {
        target,
        port: place.port,
        database: place.database,
        user,
        password,
        server: one.server.clone(),
    })
}

fn check_name(checker: &mut Checker<'_>, key: &'static str, name: &str) {
    let is_good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_good {
        let message = format!(
            "{key} must be printable ASCII without blanks, and no longer than {NAME_BYTES_MAX} bytes"
        );
        checker.problem(&[Key("store"), Key(key)], message, None);
    }
}

/// The target with TLS, if it is to have it.
fn secured(checker: &mut Checker<'_>, raw: &RawStore, target: Target, base: &Path) -> Target {
    let at = |key| [Key("store"), Key(key)];
    let is_socket = target.host().is_empty();
    let words = [("verify", true), ("off", false)];
    let wish = raw.tls.as_ref();
    let wish = wish.and_then(|word| checker.word(&at("tls"), word, &words));
    if wish == Some(true) && is_socket {
        checker.problem(&at("tls"), "a socket needs no TLS", None);
    }
    if !wish.unwrap_or(!is_near(&target)) || is_socket {
        if raw.ca_file.is_some() {
            checker.problem(&at("ca_file"), "ca_file goes with tls = \"verify\"", None);
        }
        return target;
    }
    let url = target.to_string().replacen("tcp://", "tls://", 1);
    let target = Target::parse(&url).unwrap_or(target);
    match &raw.ca_file {
        Some(path) => target.with_ca_file(&base.join(path).to_string_lossy()),
        None => target,
    }
}

fn is_near(target: &Target) -> bool {
    let host = target.host();
    host.is_empty() || host == "localhost" || host.starts_with("127.") || host == "::1"
}

struct Place {
    target: Target,
    port: u16,
    database: String,
}

/// What is wrong, and what helps; the URL itself is not repeated.
type Fault = (String, Option<&'static str>);

fn read_url(url: &str) -> Result<Place, Fault> {
    const EXAMPLE: Option<&str> = Some("such as \"postgres://10.0.0.5/lineman\"");
    let wrong = |message: &str| (message.to_string(), EXAMPLE);
    let schemes = ["postgres://", "postgresql://"];
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| wrong("url begins with postgres://"))?;
    if rest.contains('@') {
        let message = "a user or password does not belong into url".to_string();
        return Err((message, Some("set user and password in [store]")));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte);
    if database.is_empty() || !database.bytes().all(is_name) || database.len() > NAME_BYTES_MAX {
        return Err(wrong("behind the host stands the name of a database"));
    }
    let (mut directory, mut socket_port) = (None, DEFAULT_PORT);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("host", path)) => directory = Some(path),
            Some(("port", digits)) => {
                let port = digits.parse().ok().filter(|port| *port > 0);
                socket_port = port.ok_or_else(|| wrong("port is a number up to 65535"))?;
            }
            _ => return Err(wrong("behind the database there may be host and port only")),
        }
    }
    let target = match (place, directory) {
        ("", Some(path)) => Target::parse(&format!("unix://{path}")),
        ("", None) => return Err(wrong("there is no host in it")),
        (_, Some(_)) => return Err(wrong("there are two hosts in it")),
        (place, None) => Target::parse(&format!("tcp://{}", with_port(place))),
    };
    let target = target.map_err(|why| (why, EXAMPLE))?;
    Ok(Place {
        port: match target.host() {
            "" => socket_port,
            _ => target.port(),
        },
        target,
        database: database.to_string(),
    })
}

fn with_port(place: &str) -> String {
    let has_port = match place.rsplit_once(']') {
        Some((_, port)) => !port.is_empty(),
        None => place.contains(':'),
    };
    match has_port {
        true => place.to_string(),
        false => format!("{place}:{DEFAULT_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::{Fetched, Keeper};

    fn read(table: &str) -> Result<Config, String> {
        let text = format!("[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n{table}");
        let fetch = |keeper: &Keeper| {
            assert_eq!(*keeper, Keeper::Env("PW".into()));
            let secret = Secret::new("tiger".into());
            let warning = None;
            Ok(Fetched { secret, warning })
        };
        let parsed = parse(&text, "f", Path::new("/base"), &Program::default(), &fetch);
        parsed.map_err(|error| error.0)
    }

    fn postgres(lines: &str) -> Postgres {
        let config = read(&format!("[store]\nuser = \"u\"\n{lines}")).expect("it is right");
        config.postgres.expect("a database")
    }

    #[test]
    fn the_url_has_a_place_and_a_database_and_the_password_is_kept_elsewhere() {
        assert_eq!(read("").expect("it is right").postgres, None);
        let far = postgres("url = \"postgres://db.example/a\"\nca_file = \"ca.pem\"\n");
        assert_eq!(far.target.to_string(), "tls://db.example:5432");
        assert_eq!(far.target.ca_file(), Some("/base/ca.pem"));
        assert_eq!((far.server.as_str(), far.password), ("main", None));
        let near = postgres(
            "url = \"postgresql://[::1]:7/a\"\npassword = { env = \"PW\" }\nserver = \"east-1\"\n",
        );
        assert_eq!(near.target.to_string(), "tcp://[::1]:7");
        assert_eq!((near.port, near.database.as_str()), (7, "a"));
        assert_eq!(near.server, "east-1");
        assert_eq!(near.password.expect("fetched").expose(), "tiger");
        let socket = postgres("url = \"postgres:///a?host=/run/pg&port=8\"\n");
        assert_eq!(socket.target.to_string(), "unix:///run/pg");
        assert_eq!(socket.port, 8);
    }

    #[test]
    fn tls_is_left_out_only_where_nobody_listens_or_somebody_says_so() {
        let url = "url = \"postgres://10.0.0.5/a\"\n";
        assert!(postgres(url).target.scheme().is_secured());
        let open = format!("[store]\nuser = \"u\"\n{url}tls = \"off\"\n");
        let open = read(&open).expect("it is right");
        let warnings = open.warnings();
        assert!(warnings[0].contains("in the clear"), "{warnings:?}");
        let near = "url = \"postgres://localhost/a\"\ntls = \"verify\"\n";
        assert!(postgres(near).target.scheme().is_secured());
    }

    #[test]
    fn the_password_is_kept_apart() {
        let url = "[store]\nuser = \"u\"\nurl = \"postgres://localhost/a\"\n";
        let kept = read(&format!("{url}password = {{ env = \"PW\" }}\n")).expect("it is right");
        assert_eq!((kept.kept_apart.len(), kept.kept.len()), (1, 0));
    }

    #[test]
    fn what_is_wrong_is_told_at_its_line_and_no_password_is_repeated() {
        let with = |lines: &str| format!("url = \"postgres://a/b\"\nuser = \"u\"\n{lines}");
        let table = [
            (
                "url = \"mysql://a/b\"\nuser = \"u\"".into(),
                "f:5: url begins with",
            ),
            (
                "url = \"postgres://u:tiger@a/b\"\nuser = \"u\"".into(),
                "set user and password",
            ),
            (
                "url = \"postgres://a\"\nuser = \"u\"".into(),
                "the name of a database",
            ),
            ("url = \"postgres:///b\"\nuser = \"u\"".into(), "no host"),
            (
                "url = \"postgres://a/b?sslmode=off\"\nuser = \"u\"".into(),
                "host and port only",
            ),
            ("url = \"postgres://a/b\"".into(), "url needs user"),
            ("user = \"u\"".into(), "f:5: user goes with url"),
            (with("dir = \"d\""), "leave one out"),
            (with("tls = \"of\""), "did you mean \"off\""),
            (
                with("tls = \"off\"\nca_file = \"c\""),
                "f:8: ca_file goes with",
            ),
            (with("server = \"a b\""), "printable"),
            (with("password = 12345"), "f:7:"),
            (
                with("password = \"tiger\""),
                "f:7: a password does not stand",
            ),
        ];
        for (lines, words) in table {
            let error = read(&format!("[store]\n{lines}\n")).expect_err(words);
            assert!(error.contains(words), "{words}: {error}");
            let is_told = error.contains("tiger") || error.contains("12345");
            assert!(!is_told, "{error}");
        }
    }
}
