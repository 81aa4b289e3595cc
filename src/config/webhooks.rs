//! The tables about webhooks: their rows in the reference, their shape in the file, whether it makes
//! sense. Does not know what is sent when.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::app::apps::App;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step::{Index, Key};
use crate::push::news::KINDS;
use crate::push::webhook::{Kind, Webhook};
use crate::wire::target::Target;

/// Fields that a webhook has anyway.
const OWN_FIELDS: [&str; 5] = [
    "content-type",
    "x-pusher-key",
    "x-pusher-signature",
    "user-agent",
    "accept-encoding",
];
/// Pusher's own libraries refuse what is older, so that more is for receivers of one's own.
const RETRY_SECONDS_MAX: u64 = 7 * 86_400;
const ENDPOINTS_MAX: usize = 64;

pub(super) const APP_TABLE: TableRow = TableRow {
    heading: "[[apps.webhooks]]",
    help: "A server that is told what happens in channels of the [[apps]] table above it (docs/webhooks.md). One table for each; the first one and the last one need a restart to come and go.",
    keys: &[
        KeyRow {
            name: "url",
            kind: "URL",
            default: "",
            help: "https://HOST[:PORT]/PATH, or http:// for a server of your own network.",
        },
        KeyRow {
            name: "events",
            kind: "list of words",
            default: "",
            help: "What it is told: channel_occupied, channel_vacated, member_added, member_removed, client_event, subscription_count, cache_miss; notification_delivered, notification_failed, device_removed of the push gateway (with [cluster] only together with store.url).",
        },
        KeyRow {
            name: "channel_prefix",
            kind: "string",
            default: "\"\"",
            help: "Only of channels whose name begins so.",
        },
        KeyRow {
            name: "channel_suffix",
            kind: "string",
            default: "\"\"",
            help: "Only of channels whose name ends so.",
        },
        KeyRow {
            name: "batch_events",
            kind: "integer, 1 to 1000",
            default: "100",
            help: "Events that come while earlier ones are stored go out in one request, up to so many. 1 sends each by itself.",
        },
        KeyRow {
            name: "timeout_seconds",
            kind: "integer, 1 to 60",
            default: "10",
            help: "Time for a connection to stand, and again for an answer.",
        },
        KeyRow {
            name: "retry_seconds",
            kind: "integer, 0 to 604_800",
            default: "300",
            help: "For how long a request without a 2xx answer is sent again. Pusher's libraries refuse one that is older than 300 seconds.",
        },
        KeyRow {
            name: "headers",
            kind: "table",
            default: "",
            help: "Further header fields, such as { X-Team = \"chat\" }. Not for secrets: the signature proves who asks.",
        },
    ],
    active: "",
    optional: true,
};

pub(super) const TABLE: TableRow = TableRow {
    heading: "[webhooks]",
    help: "What holds for the webhooks of all apps.",
    keys: &[KeyRow {
        name: "allow_private",
        kind: "true or false",
        default: "false",
        help: "Whether an endpoint may be on a private, loopback or link-local address. Names are looked up first, so that none can lead there.",
    }],
    active: "",
    optional: false,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    url: String,
    events: Vec<String>,
    #[serde(default)]
    channel_prefix: String,
    #[serde(default)]
    channel_suffix: String,
    #[serde(default = "default_batch")]
    batch_events: usize,
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    #[serde(default = "default_retry")]
    retry_seconds: u64,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn default_batch() -> usize {
    100
}

fn default_timeout() -> u64 {
    10
}

fn default_retry() -> u64 {
    300
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWebhooks {
    pub allow_private: bool,
}

/// The webhooks of all apps, in the order of the file.
pub(super) fn check(checker: &mut Checker<'_>, raw: &RawConfig) -> Vec<Webhook> {
    let mut webhooks: Vec<Webhook> = Vec::new();
    for (app_index, app) in raw.apps.iter().enumerate() {
        for (index, one) in app.webhooks.iter().enumerate() {
            let place = (app_index, index);
            let twice = app.webhooks[..index]
                .iter()
                .any(|other| other.url == one.url);
            if twice {
                let path = [
                    Key("apps"),
                    Index(app_index),
                    Key("webhooks"),
                    Index(index),
                    Key("url"),
                ];
                checker.problem(&path, "this app has this URL twice", None);
            }
            check_news(checker, place, one, raw);
            let private = raw.webhooks.allow_private;
            webhooks.extend(check_one(checker, place, one, (&app.id, private)));
        }
    }
    if webhooks.len() > ENDPOINTS_MAX {
        let message = format!("more than {ENDPOINTS_MAX} webhooks");
        checker.problem(&[Key("apps")], message, None);
    }
    webhooks
}

/// The one server of a cluster that tells webhooks has to see what happens to notifications.
fn check_news(
    checker: &mut Checker<'_>,
    (app, index): (usize, usize),
    one: &RawWebhook,
    raw: &RawConfig,
) {
    let is_news = |word: &String| KINDS.iter().any(|kind| kind.word() == word);
    if raw.cluster.is_there() && !raw.store.is_shared() && one.events.iter().any(is_news) {
        let path = [
            Key("apps"),
            Index(app),
            Key("webhooks"),
            Index(index),
            Key("events"),
        ];
        let message = "in a cluster, webhooks are told of notifications and devices only where the \
                       servers share them";
        checker.problem(&path, message, Some("set store.url"));
    }
}

fn check_one(
    checker: &mut Checker<'_>,
    (app, index): (usize, usize),
    raw: &RawWebhook,
    (app_id, allow_private): (&str, bool),
) -> Option<Webhook> {
    let table = [Key("apps"), Index(app), Key("webhooks"), Index(index)];
    let at = |key| [table[0], table[1], table[2], table[3], Key(key)];
    let kinds: Vec<Kind> = raw
        .events
        .iter()
        .filter_map(|word| checker.word(&at("events"), word, &Kind::ALL))
        .collect();
    if raw.events.is_empty() {
        checker.problem(&at("events"), "it would be told nothing", None);
    }
    let batch = raw.batch_events as u64;
    checker.range(&at("batch_events"), "batch_events", batch, 1, 1000);
    let (timeout, retry) = (raw.timeout_seconds, raw.retry_seconds);
    checker.range(&at("timeout_seconds"), "timeout_seconds", timeout, 1, 60);
    let name = "retry_seconds";
    checker.range(&at(name), name, retry, 0, RETRY_SECONDS_MAX);
    let timeout = Duration::from_secs(timeout);
    let target = read_target(checker, &at("url"), &at("headers"), raw)?;
    let target = target.with_connect_within(timeout);
    Some(Webhook {
        app_id: app_id.to_string(),
        url: raw.url.clone(),
        target: match allow_private {
            true => target,
            false => target.with_public_only(),
        },
        kinds,
        channel_prefix: raw.channel_prefix.clone(),
        channel_suffix: raw.channel_suffix.clone(),
        batch_events: raw.batch_events,
        timeout,
        retry: Duration::from_secs(retry),
    })
}

fn read_target(
    checker: &mut Checker<'_>,
    url: &[crate::config::problem::Step],
    headers: &[crate::config::problem::Step],
    raw: &RawWebhook,
) -> Option<Target> {
    let mut target = match Target::parse_web(&raw.url) {
        Ok(target) => target,
        Err(why) => {
            checker.problem(url, why, Some("such as \"https://example.com/pusher\""));
            return None;
        }
    };
    for (name, value) in &raw.headers {
        if OWN_FIELDS.contains(&name.to_ascii_lowercase().as_str()) {
            checker.problem(
                headers,
                format!("{name} is written by the server itself"),
                None,
            );
            continue;
        }
        match target.clone().with_header(name, value) {
            Ok(with) => target = with,
            Err(why) => checker.problem(headers, why, None),
        }
    }
    Some(target)
}

/// What may be meant, but is worth a word.
pub(super) fn warnings(webhooks: &[Webhook]) -> impl Iterator<Item = String> {
    let clear = webhooks.iter().filter(|it| {
        let is_near = it.target.host() == "localhost" || it.target.host().starts_with("127.");
        !it.target.scheme().is_secured() && !is_near
    });
    clear.map(|it| {
        format!(
            "webhooks of app \"{}\" go to {} in the clear: write https:// unless the network is yours",
            it.app_id, it.target
        )
    })
}

/// Whether webhooks differ, or what they are signed with.
pub(super) fn differ(old: (&[Webhook], &[App]), new: (&[Webhook], &[App])) -> bool {
    let keys = |(webhooks, apps): (&[Webhook], &[App])| -> Vec<App> {
        let watched = |app: &&App| webhooks.iter().any(|it| it.app_id == app.id);
        apps.iter().filter(watched).cloned().collect()
    };
    old.0 != new.0 || keys(old) != keys(new)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    fn read(hook: &str) -> Result<Vec<Webhook>, String> {
        let text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[apps]]\nid = \"a\"\nkey = \"k\"\n\
             secret = \"s\"\n{hook}"
        );
        let parsed = parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets);
        parsed
            .map(|config| config.webhooks)
            .map_err(|error| error.0)
    }

    const HOOK: &str = "[[apps.webhooks]]\nurl = \"https://b.example/c\"\n";

    #[test]
    fn a_webhook_has_pushers_defaults_and_stays_off_private_addresses() {
        let hooks = read(&format!("{HOOK}events = [\"member_added\"]\n")).expect("it is right");
        assert_eq!((hooks.len(), hooks[0].app_id.as_str()), (1, "a"));
        assert_eq!(hooks[0].kinds, [Kind::MemberAdded]);
        assert_eq!(hooks[0].retry, Duration::from_secs(300));
        assert!(hooks[0].target.is_public_only());
        let open = format!("{HOOK}events = [\"member_added\"]\n[webhooks]\nallow_private = true\n");
        assert!(!read(&open).expect("it is right")[0].target.is_public_only());
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_told_at_its_line() {
        let table = [
            ("events = []", "f:9:"),
            (
                "events = [\"member_aded\"]",
                "did you mean \"member_added\"",
            ),
            (
                "events = [\"member_added\"]\nretry_seconds = 999999",
                "f:10:",
            ),
            (
                "events = [\"member_added\"]\nbatch_events = 0",
                "between 1 and 1000",
            ),
            (
                "events = [\"member_added\"]\nheaders = { X-Pusher-Key = \"x\" }",
                "by the server itself",
            ),
            (
                "events = [\"member_added\"]\nheaders = { A = \"x\\r\\ny\" }",
                "cannot carry",
            ),
        ];
        for (lines, words) in table {
            let error = read(&format!("{HOOK}{lines}\n")).expect_err(lines);
            assert!(error.contains(words), "{words}: {error}");
        }
        let ftp = HOOK.replace("https", "ftp");
        let error = read(&format!("{ftp}events = [\"member_added\"]\n")).expect_err("ftp");
        assert!(
            error.contains("f:8:") && error.contains("neither https://"),
            "{error}"
        );
        let twice = format!("{HOOK}events = [\"member_added\"]\n");
        let error = read(&format!("{twice}{twice}")).expect_err("twice");
        assert!(error.contains("twice"), "{error}");
    }
}
