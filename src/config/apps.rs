//! The `[[apps]]` tables: whether their ids, keys and secrets make sense, and what the server gets
//! of them. An app's own `key` and `secret` are short for one `[[apps.keys]]` table.

use crate::app::apps::{App, AppKey, Role, Secret};
use crate::app::handler::Handler;
use crate::config::Listen;
use crate::config::check::{Checker, check_origins};
use crate::config::load::RawApp;
use crate::config::problem::Step;
use crate::config::problem::Step::{Index, Key};
use crate::config::secret::RawSecret;

/// The secret of the shipped configuration: everybody knows it.
pub const DEMO_SECRET: &str = "demo-secret";

/// Where a key and its secret are written.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In the app's own table.
    App,
    /// In this one of its `[[apps.keys]]`.
    Keys(usize),
}

impl Place {
    /// The path of a setting of the key, for the app at `index`.
    pub fn path(self, index: usize, name: &'static str) -> Vec<Step> {
        let app = [Key("apps"), Index(index)];
        match self {
            Place::App => [&app[..], &[Key(name)]].concat(),
            Place::Keys(at) => [&app[..], &[Key("keys"), Index(at), Key(name)]].concat(),
        }
    }
}

impl RawApp {
    /// All that are written, its own first.
    pub fn secrets(&self) -> impl Iterator<Item = (Place, &RawSecret)> {
        let more = self.keys.iter().enumerate();
        let more = more.map(|(at, one)| (Place::Keys(at), &one.secret));
        self.secret.iter().map(|it| (Place::App, it)).chain(more)
    }

    /// As `secrets`.
    fn key_names(&self) -> impl Iterator<Item = (Place, &str)> {
        let more = self.keys.iter().enumerate();
        let more = more.map(|(at, one)| (Place::Keys(at), one.key.0.as_str()));
        let own = self.key.iter().map(|it| (Place::App, it.0.as_str()));
        own.chain(more)
    }
}

/// Finds what is wrong with them. `secrets` are by app, in the order of `RawApp::secrets`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    apps: &[RawApp],
    listens: &[Listen],
    secrets: &[Vec<Option<Secret>>],
) {
    let for_channels = listens.iter().any(|one| one.handler == Handler::Channels);
    if apps.is_empty() && for_channels {
        let message = "there is no [[apps]]: nobody could connect to the channels handler";
        let hint = "add:\n    [[apps]]\n    id = \"1\"\n    key = \"…\"\n    secret = \"…\"";
        checker.problem(&[], message, Some(hint));
    }
    for (index, (app, secrets)) in apps.iter().zip(secrets).enumerate() {
        let at = |key| [Key("apps"), Index(index), Key(key)];
        check_path_word(checker, &at("id"), "the id", &app.id);
        if apps[..index].iter().any(|other| other.id == app.id) {
            let message = format!("the id \"{}\" is used twice", app.id);
            checker.problem(&at("id"), message, None);
        }
        check_keys(checker, apps, index);
        check_secrets(checker, index, app, listens, secrets);
        check_origins(checker, &at("origins"), &app.origins);
        let authorize = app.authorize_seconds;
        checker.range(&at("authorize_seconds"), "it", authorize, 0, 86_400);
    }
}

/// The keys of the app at `index`, among those of all.
fn check_keys(checker: &mut Checker<'_>, apps: &[RawApp], index: usize) {
    let app = &apps[index];
    let incomplete = match (&app.key, &app.secret) {
        (Some(_), None) => Some("the key needs a secret beside it"),
        (None, Some(_)) => Some("the secret needs a key beside it"),
        (None, None) if app.keys.is_empty() => Some("the app has no key and secret"),
        _ => None,
    };
    if let Some(message) = incomplete {
        checker.problem(&[Key("apps"), Index(index), Key("key")], message, None);
    }
    let mut seen: Vec<&str> = apps[..index]
        .iter()
        .flat_map(RawApp::key_names)
        .map(|(_, key)| key)
        .collect();
    for (place, key) in app.key_names() {
        let path = place.path(index, "key");
        check_path_word(checker, &path, "the key", key);
        if seen.contains(&key) {
            checker.problem(&path, "this key is used twice", None);
        }
        seen.push(key);
    }
    for (at, key) in app.keys.iter().enumerate() {
        let path = Place::Keys(at).path(index, "roles");
        for role in key.roles.iter().flatten() {
            checker.word(&path, role, Role::ALL);
        }
        if key.roles.as_ref().is_some_and(Vec::is_empty) {
            let hint = "leave roles out for all of them";
            checker.problem(&path, "a key without roles is of no use", Some(hint));
        }
    }
}

fn check_secrets(
    checker: &mut Checker<'_>,
    index: usize,
    app: &RawApp,
    listens: &[Listen],
    secrets: &[Option<Secret>],
) {
    let public = listens.iter().find(|one| one.url.place.is_public());
    for (nth, ((place, _), secret)) in app.secrets().zip(secrets).enumerate() {
        let path = place.path(index, "secret");
        let Some(secret) = secret else { continue };
        if secret.expose().is_empty() {
            let hint = "choose one, e.g. `openssl rand -hex 32`";
            checker.problem(&path, "the secret is empty", Some(hint));
        } else if secrets[..nth].contains(&Some(secret.clone())) {
            let hint = "as a bearer token it could not tell which key is meant";
            checker.problem(&path, "another key of the app has this secret", Some(hint));
        }
        if let Some(public) = public.filter(|_| secret.expose() == DEMO_SECRET) {
            let message = format!(
                "the demo secret is known to everybody, and {} is reachable from other machines",
                public.url
            );
            let hint = "choose a secret, e.g. `openssl rand -hex 32`, or listen on 127.0.0.1";
            checker.problem(&path, message, Some(hint));
        }
    }
}

/// Ids and keys stand in URL paths and signatures, where these characters end or change them.
fn check_path_word(checker: &mut Checker<'_>, path: &[Step], name: &str, word: &str) {
    let plain = word
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"/?#%\"\\:".contains(&b));
    if word.is_empty() || !plain {
        let message =
            format!("{name} must be letters, digits and signs other than / ? # % \" \\ :");
        checker.problem(path, message, None);
    }
}

/// An app that was checked, with its secrets in the order of `RawApp::secrets`.
pub(super) fn app(raw: RawApp, secrets: Vec<Option<Secret>>) -> App {
    let mut secrets = secrets.into_iter().flatten();
    let own = raw
        .key
        .and_then(|key| Some(AppKey::new(key.0, secrets.next()?)));
    let more = raw.keys.into_iter().zip(secrets).map(|(raw, secret)| {
        let mut key = AppKey::new(raw.key.0, secret);
        if let Some(words) = raw.roles {
            let is_named = |word: &str| words.iter().any(|it| it == word);
            key.roles.retain(|role| is_named(role.word()));
        }
        key.publishes_per_second = raw.publishes_per_second;
        key
    });
    App {
        keys: own.into_iter().chain(more).collect(),
        id: raw.id,
        publishes_per_second: raw.publishes_per_second,
        client_events: raw.client_events,
        subscription_counts: raw.subscription_counts,
        watchlists: raw.watchlists,
        authorize_seconds: raw.authorize_seconds,
        replay_guard: raw.replay_guard,
        origins: raw.origins,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    /// The message must name each of `expected`; nothing expected means the file is right.
    fn check(text: &str, expected: &[&str]) {
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

    fn listen(url: &str) -> String {
        format!("[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n")
    }

    fn app(id: &str, key: &str, secret: &str) -> String {
        format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n")
    }

    fn more(key: &str, secret: &str) -> String {
        format!("[[apps.keys]]\nkey = \"{key}\"\nsecret = \"{secret}\"\n")
    }

    #[test]
    fn apps_have_plain_unique_ids_and_a_secret() {
        let base = listen("http://127.0.0.1:0");
        check(&format!("{base}{}", app("a", "k", "s")), &[]);
        check(
            &format!("{base}{}", app("a/b", "k", "s")),
            &["f:5:", "the id"],
        );
        check(&format!("{base}{}", app("", "k", "s")), &["f:5:"]);
        check(
            &format!("{base}{}", app("a", "k", "")),
            &["f:7:", "openssl rand -hex 32"],
        );
        let two = format!("{base}{}{}", app("a", "k", "s"), app("a", "k", "s"));
        check(&two, &["f:9:", "f:10:", "used twice"]);
    }

    #[test]
    fn the_demo_secret_stays_on_the_loopback() {
        let demo = app("demo", "demo-key", "demo-secret");
        check(&format!("{}{demo}", listen("http://127.0.0.1:0")), &[]);
        check(&format!("{}{demo}", listen("http://[::1]:0")), &[]);
        let refused = [
            "f:7:",
            "demo secret",
            "openssl rand -hex 32",
            "listen on 127.0.0.1",
        ];
        check(&format!("{}{demo}", listen("http://0.0.0.0:0")), &refused);
        check(&format!("{}{demo}", listen("http://[::]:0")), &refused);
    }

    #[test]
    fn an_app_has_any_number_of_keys_and_each_is_its_own() {
        let base = listen("http://127.0.0.1:0");
        let bare = format!("{base}[[apps]]\nid = \"a\"\n");
        check(&format!("{bare}{}", more("k", "s")), &[]);
        check(&bare, &["f:4:", "no key and secret"]);
        check(&format!("{bare}key = \"k\"\n"), &["f:6:", "needs a secret"]);
        check(&format!("{bare}secret = \"s\"\n"), &["needs a key"]);
        let with = |text: String| format!("{base}{}{text}", app("a", "k", "s"));
        check(&with(more("l", "t")), &[]);
        check(&with(more("k", "t")), &["f:8:", "f:9:", "used twice"][1..]);
        check(&with(more("l", "s")), &["f:10:", "another key"]);
        let other = app("b", "l", "u");
        check(&with(more("l", "t") + &other), &["f:13:", "used twice"]);
        let role = |roles| with(more("l", "t") + &format!("roles = {roles}\n"));
        check(&role("[\"read\", \"publish\"]"), &[]);
        check(&role("[\"raed\"]"), &["f:11:", "did you mean \"read\""]);
        check(&role("[]"), &["f:11:", "leave roles out"]);
    }

    #[test]
    fn a_key_may_do_what_its_roles_say_and_one_without_may_do_all() {
        let text = listen("http://127.0.0.1:0")
            + &app("a", "k", "s")
            + &more("l", "t")
            + "roles = [\"read\"]\npublishes_per_second = 3\n";
        let config = parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets);
        let keys = &config.unwrap().apps[0].keys;
        assert!(Role::ALL.iter().all(|(_, role)| keys[0].may(*role)));
        assert_eq!(
            (&keys[1].roles[..], keys[1].publishes_per_second),
            (&[Role::Read][..], 3)
        );
    }
}
