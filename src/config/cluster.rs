//! The table `[cluster]`: its rows in the reference, its shape in the file, whether it makes sense.
//! Does not know what stands in Redis. Invariant: no password is in a URL, since URLs are shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::app::apps::Secret;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step::Key;
use crate::config::secret::{Fetch, RawSecret, Secrets, fetch_one};
use crate::wire::target::Target;

const DEFAULT_PORT: u16 = 6379;
/// Renewed every third of it, it has to outlast an answer that comes late.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 6..=300;
const DATABASES: u32 = 1 << 16;

pub(super) const TABLE: TableRow = TableRow {
    heading: "[cluster]",
    help: "Several servers that act as one (docs/cluster.md). Without redis_url this server is alone. A change needs a restart.",
    keys: &[
        KeyRow {
            name: "redis_url",
            kind: "URL",
            default: "",
            help: "The Redis or Valkey that all servers share, of version 6 or newer: redis://HOST[:PORT][/DATABASE], rediss:// with TLS, or unix:///PATH. No password in it.",
        },
        KeyRow {
            name: "user",
            kind: "word",
            default: "",
            help: "As whom to sign in, with password. Without it, Redis's default user.",
        },
        KeyRow {
            name: "password",
            kind: "string, or where it is kept",
            default: "",
            help: "The password there; like an app's secret it may be kept elsewhere, as in { env = \"NAME\" }.",
        },
        KeyRow {
            name: "ca_file",
            kind: "path",
            default: "",
            help: "For rediss://, a PEM file with the authorities to trust instead of the system's. A relative path starts beside this file.",
        },
        KeyRow {
            name: "prefix",
            kind: "string",
            default: "\"lineman:\"",
            help: "What all keys in Redis begin with. Servers with the same prefix are one cluster.",
        },
        KeyRow {
            name: "lease_seconds",
            kind: "integer, 6 to 300",
            default: "10",
            help: "A server that Redis does not hear of for so long counts as gone, with its users.",
        },
    ],
    active: "",
    optional: false,
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCluster {
    redis_url: Option<String>,
    user: Option<String>,
    password: Option<RawSecret>,
    ca_file: Option<PathBuf>,
    prefix: String,
    lease_seconds: u64,
}

impl RawCluster {
    pub(super) fn is_there(&self) -> bool {
        self.redis_url.is_some()
    }
}

impl Default for RawCluster {
    fn default() -> RawCluster {
        RawCluster {
            redis_url: None,
            user: None,
            password: None,
            ca_file: None,
            prefix: "lineman:".into(),
            lease_seconds: 10,
        }
    }
}

/// Where the cluster meets, and as whom this server comes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub target: Target,
    pub database: u32,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub prefix: String,
    pub lease: Duration,
}

/// `None` without a cluster. A password that is kept elsewhere is fetched, and noted in `secrets`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: &RawConfig,
    (base, fetch): (&Path, &Fetch<'_>),
    secrets: &mut Secrets,
) -> Option<Cluster> {
    let one = &raw.cluster;
    let at = |key| [Key("cluster"), Key(key)];
    let (low, high) = (*LEASE_SECONDS.start(), *LEASE_SECONDS.end());
    checker.range(
        &at("lease_seconds"),
        "lease_seconds",
        one.lease_seconds,
        low,
        high,
    );
    if one.prefix.len() > 64 || !one.prefix.bytes().all(|b| b.is_ascii_graphic()) {
        let message = "prefix must be printable ASCII without blanks, and no longer than 64 bytes";
        checker.problem(&at("prefix"), message, None);
    }
    if one.user.is_some() && one.password.is_none() {
        checker.problem(&at("user"), "user needs password", None);
    }
    let password = one.password.as_ref().and_then(|password| {
        let found = fetch_one(password, base, fetch, secrets);
        found
            .map_err(|fault| checker.problem(&at("password"), fault.message, fault.hint))
            .ok()
    });
    let url = one.redis_url.as_ref()?;
    let (mut target, database) = read_url(url)
        .map_err(|(message, hint)| checker.problem(&at("redis_url"), message, hint))
        .ok()?;
    if let Some(path) = &one.ca_file {
        if !target.scheme().is_secured() {
            checker.problem(&at("ca_file"), "ca_file goes with rediss://", None);
        }
        target = target.with_ca_file(&base.join(path).to_string_lossy());
    }
    Some(Cluster {
        target,
        database,
        user: one.user.clone(),
        password,
        prefix: one.prefix.clone(),
        lease: Duration::from_secs(one.lease_seconds),
    })
}

/// What is wrong, and what helps; the URL itself is not repeated.
type Fault = (String, Option<&'static str>);

fn read_url(url: &str) -> Result<(Target, u32), Fault> {
    const EXAMPLE: Option<&str> = Some("such as \"redis://10.0.0.5:6379/0\"");
    let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
    let like = match scheme {
        "redis" => "tcp",
        "rediss" => "tls",
        "unix" => return Target::parse(url).map_or_else(|why| Err((why, None)), |it| Ok((it, 0))),
        _ => {
            let message = "redis_url begins with redis://, rediss:// or unix://".to_string();
            return Err((message, EXAMPLE));
        }
    };
    if rest.contains('@') {
        let message = "a password does not belong into redis_url".to_string();
        return Err((message, Some("set user and password in [cluster]")));
    }
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = match database {
        "" => Some(0),
        digits => digits.parse().ok().filter(|it| *it < DATABASES),
    };
    let Some(database) = database else {
        let message = "what follows the host is the number of a database".to_string();
        return Err((message, EXAMPLE));
    };
    let has_port = match place.rsplit_once(']') {
        Some((_, port)) => !port.is_empty(),
        None => place.contains(':'),
    };
    let port = if has_port {
        String::new()
    } else {
        format!(":{DEFAULT_PORT}")
    };
    let target = Target::parse(&format!("{like}://{place}{port}"));
    target.map_or_else(|why| Err((why, EXAMPLE)), |it| Ok((it, database)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::{Fetched, Keeper};

    fn read(table: &str) -> Result<Option<Cluster>, String> {
        let text = format!("[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n{table}");
        let fetch = |keeper: &Keeper| {
            assert_eq!(*keeper, Keeper::Env("PW".into()));
            let secret = Secret::new("tiger".into());
            let warning = None;
            Ok(Fetched { secret, warning })
        };
        let parsed = parse(&text, "f", Path::new("/base"), &Program::default(), &fetch);
        parsed.map(|config| config.cluster).map_err(|error| error.0)
    }

    #[test]
    fn a_server_is_alone_unless_it_has_a_redis() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("[cluster]\n"), Ok(None));
        let cluster = read("[cluster]\nredis_url = \"redis://a\"\n").expect("it is right");
        let cluster = cluster.expect("a cluster");
        assert_eq!(cluster.target.to_string(), "tcp://a:6379");
        assert_eq!((cluster.prefix.as_str(), cluster.database), ("lineman:", 0));
        assert_eq!(cluster.lease, Duration::from_secs(10));
    }

    #[test]
    fn the_url_has_a_place_and_a_database_and_the_password_is_kept_elsewhere() {
        let table = "[cluster]\nredis_url = \"rediss://[::1]:7/3\"\nuser = \"u\"\n\
                     password = { env = \"PW\" }\nca_file = \"ca.pem\"\n";
        let cluster = read(table).expect("it is right").expect("a cluster");
        assert_eq!(
            (cluster.target.to_string().as_str(), cluster.database),
            ("tls://[::1]:7", 3)
        );
        assert_eq!(cluster.target.ca_file(), Some("/base/ca.pem"));
        assert_eq!(cluster.password.expect("fetched").expose(), "tiger");
        let unix = read("[cluster]\nredis_url = \"unix:///run/r.sock\"\n").expect("right");
        assert_eq!(
            unix.expect("a cluster").target.to_string(),
            "unix:///run/r.sock"
        );
    }

    #[test]
    fn what_is_wrong_is_told_at_its_line_and_no_password_is_repeated() {
        let table = [
            ("redis_url = \"http://a\"", "f:5: redis_url begins with"),
            ("redis_url = \"redis://:tiger@a\"", "set user and password"),
            ("redis_url = \"redis://a/x\"", "the number of a database"),
            ("redis_url = \"redis://a:x\"", "is no port"),
            ("lease_seconds = 5", "between 6 and 300"),
            ("prefix = \"a b\"", "printable"),
            ("user = \"u\"", "user needs password"),
            (
                "redis_url = \"redis://a\"\nca_file = \"c\"",
                "goes with rediss://",
            ),
            ("password = 12345", "f:5:"),
        ];
        for (lines, words) in table {
            let error = read(&format!("[cluster]\n{lines}\n")).expect_err(lines);
            assert!(error.contains(words), "{words}: {error}");
            assert!(
                !error.contains("tiger") && !error.contains("12345"),
                "{error}"
            );
        }
    }
}
