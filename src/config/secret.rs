//! Secrets that the file does not hold itself: how it says where each is kept. Fetches nothing:
//! whoever reads a configuration brings somebody who can (`run/secrets.rs`). Invariant: no message
//! repeats what was written, since it may be a secret in the wrong place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::app::apps::Secret;
use crate::config::check::Checker;
use crate::config::key_vault::VaultKeeper;
use crate::config::load::RawApp;

/// Where a secret is kept, as in `{ env = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keeper {
    /// The environment, by the name of a variable.
    Env(String),
    /// A file of its own.
    File(PathBuf),
    /// The service manager, by the name of a credential (systemd.exec(5), LoadCredential).
    Credential(String),
    /// A token key in Azure Key Vault; what is fetched is `VERSION KEY`.
    KeyVault(Box<VaultKeeper>),
}

impl Keeper {
    /// A relative path starts at `base`.
    pub(super) fn under(&self, base: &Path) -> Keeper {
        match self {
            Keeper::File(path) => Keeper::File(base.join(path)),
            Keeper::KeyVault(keeper) => Keeper::KeyVault(Box::new(keeper.under(base))),
            other => other.clone(),
        }
    }

    pub fn is_vault(&self) -> bool {
        matches!(self, Keeper::KeyVault(_))
    }

    /// The variables of the environment that hold it, or what is needed to get it.
    pub fn variables(&self) -> Vec<String> {
        match self {
            Keeper::Env(name) => vec![name.clone()],
            Keeper::File(_) | Keeper::Credential(_) => Vec::new(),
            Keeper::KeyVault(keeper) => keeper.secrets().flat_map(Keeper::variables).collect(),
        }
    }
}

/// A secret that was fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    pub secret: Secret,
    /// What an operator should know about how it is kept.
    pub warning: Option<String>,
}

/// Why it was not, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    pub hint: Option<&'static str>,
    /// It is there, and not for this process.
    pub is_withheld: bool,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            hint: None,
            is_withheld: false,
        }
    }

    pub fn withheld() -> Fault {
        Fault {
            is_withheld: true,
            ..Fault::new("the secret was not handed over")
        }
    }
}

/// Gets a secret from where it is kept.
pub type Fetch<'a> = dyn Fn(&Keeper) -> Result<Fetched, Fault> + 'a;

/// Secrets by where they are kept: for those who read the same text and may not fetch themselves.
pub type Kept = BTreeMap<Keeper, Secret>;

/// A secret as written.
#[derive(Debug)]
pub(super) enum RawSecret {
    Here(Secret),
    Elsewhere(Keeper),
}

const EXPECTED: &str = "expected a string in quotes, { env = \"…\" }, { file = \"…\" } or \
                        { credential = \"…\" }";

impl<'de> Deserialize<'de> for RawSecret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<RawSecret, D::Error> {
        let expected = || serde::de::Error::custom(EXPECTED);
        match toml::Value::deserialize(from)? {
            toml::Value::String(text) => Ok(RawSecret::Here(Secret::new(text))),
            table @ toml::Value::Table(_) => {
                // Of vaults knows `key_vault`.
                let keeper = Keeper::deserialize(table).ok();
                let keeper = keeper.filter(|keeper| !keeper.is_vault());
                keeper.map(RawSecret::Elsewhere).ok_or_else(expected)
            }
            _ => Err(expected()),
        }
    }
}

/// The secrets of the file, each where it is now known.
#[derive(Default)]
pub(super) struct Secrets {
    /// By app, in the order of `RawApp::secrets`; `None` where a problem was noted.
    pub of_apps: Vec<Vec<Option<Secret>>>,
    pub kept: Kept,
    /// Those of `fetch_apart`.
    pub apart: Kept,
    pub warnings: Vec<String>,
}

impl Secrets {
    /// Where `fetch_apart` notes what it found, and what is to be said of it.
    pub fn noted(&mut self) -> (&mut Kept, &mut Vec<String>) {
        (&mut self.apart, &mut self.warnings)
    }
}

/// Fetches what is kept elsewhere. Relative paths start at `base`.
pub(super) fn fetch_all(
    checker: &mut Checker<'_>,
    apps: &[RawApp],
    base: &Path,
    fetch: &Fetch<'_>,
) -> Secrets {
    let mut secrets = Secrets::default();
    for (index, app) in apps.iter().enumerate() {
        let mut of_app = Vec::new();
        for (place, secret) in app.secrets() {
            let found = fetch_one(secret, base, fetch, &mut secrets);
            if let Err(fault) = &found {
                let path = place.path(index, "secret");
                checker.problem(&path, fault.message.as_str(), fault.hint);
            }
            of_app.push(found.ok());
        }
        secrets.of_apps.push(of_app);
    }
    secrets
}

/// One secret; where it was kept is noted in `secrets`.
pub(super) fn fetch_one(
    raw: &RawSecret,
    base: &Path,
    fetch: &Fetch<'_>,
    secrets: &mut Secrets,
) -> Result<Secret, Fault> {
    match raw {
        RawSecret::Here(secret) => Ok(secret.clone()),
        RawSecret::Elsewhere(keeper) => {
            let keeper = keeper.under(base);
            fetch(&keeper).map(|fetched| {
                secrets.warnings.extend(fetched.warning);
                secrets.kept.insert(keeper, fetched.secret.clone());
                fetched.secret
            })
        }
    }
}

/// One that most processes of the server do not get: it is noted in `apart`. `None`: this is one of
/// them.
pub(super) fn fetch_apart(
    keeper: &Keeper,
    base: &Path,
    fetch: &Fetch<'_>,
    (apart, warnings): (&mut Kept, &mut Vec<String>),
) -> Result<Option<Secret>, Fault> {
    let keeper = keeper.under(base);
    match fetch(&keeper) {
        Ok(fetched) => {
            warnings.extend(fetched.warning);
            apart.insert(keeper, fetched.secret.clone());
            Ok(Some(fetched.secret))
        }
        Err(fault) if fault.is_withheld => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// For tests of text that holds all its secrets.
#[cfg(test)]
pub fn no_secrets(_: &Keeper) -> Result<Fetched, Fault> {
    Err(Fault::new("nothing is kept"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;

    const ECHO: &str = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n";

    fn app(secret: &str) -> String {
        format!("{ECHO}[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = {secret}\n")
    }

    fn fetch(keeper: &Keeper) -> Result<Fetched, Fault> {
        match keeper {
            Keeper::Env(name) if name == "EMPTY" => Ok(String::new()),
            Keeper::Env(_) => Ok("from the environment".to_string()),
            Keeper::File(path) => Ok(format!("from {}", path.display())),
            Keeper::KeyVault(_) => Err(Fault::new("no vault")),
            Keeper::Credential(_) => Err(Fault {
                hint: Some("ask systemd"),
                ..Fault::new("no credential")
            }),
        }
        .map(|text| Fetched {
            secret: Secret::new(text),
            warning: Some("careful".into()),
        })
    }

    fn secret(written: &str) -> Result<String, String> {
        let config = parse(
            &app(written),
            "f",
            Path::new("/etc"),
            &Program::default(),
            &fetch,
        );
        let config = config.map_err(|error| error.0)?;
        Ok(config.apps[0].keys[0].secret.expose().to_string())
    }

    #[test]
    fn a_secret_is_written_here_or_fetched_from_where_it_is_kept() {
        assert_eq!(secret("\"here\"").unwrap(), "here");
        assert_eq!(secret("{ env = \"A\" }").unwrap(), "from the environment");
        assert_eq!(secret("{ file = \"s\" }").unwrap(), "from /etc/s");
        assert_eq!(secret("{ file = \"/s\" }").unwrap(), "from /s");
    }

    #[test]
    fn what_was_fetched_is_kept_for_those_who_cannot() {
        let text = app("{ file = \"s\" }");
        let config = parse(&text, "f", Path::new("/etc"), &Program::default(), &fetch).unwrap();
        assert_eq!(config.warnings(), ["careful"]);
        let handed = |keeper: &Keeper| {
            let secret = config.kept[keeper].clone();
            let warning = None;
            Ok(Fetched { secret, warning })
        };
        let again = parse(&text, "f", Path::new("/etc"), &Program::default(), &handed).unwrap();
        assert_eq!(again.apps, config.apps);
    }

    #[test]
    fn all_that_cannot_be_fetched_is_told_at_once_with_line_and_hint() {
        let two = app("{ credential = \"x\" }")
            + "[[apps]]\nid = \"b\"\nkey = \"l\"\nsecret = { env = \"EMPTY\" }\n";
        let told = parse(&two, "f", Path::new("/"), &Program::default(), &fetch)
            .unwrap_err()
            .0;
        for part in [
            "f:7: no credential",
            "hint: ask systemd",
            "f:11: the secret is empty",
        ] {
            assert!(told.contains(part), "no {part:?} in:\n{told}");
        }
    }

    #[test]
    fn a_table_of_another_shape_is_refused_without_repeating_it() {
        for written in [
            "{ environ = \"tiger\" }",
            "{ env = \"tiger\", file = \"tiger\" }",
            "{ env = 7 }",
            "{ key_vault = \"tiger\" }",
            "{ key_vault = { key_vault = \"tiger\" } }",
            "{}",
            "[\"tiger\"]",
        ] {
            let told = secret(written).unwrap_err();
            assert!(told.contains("f:7:") && told.contains("{ env"), "{told}");
            assert!(!told.contains("tiger"), "{told}");
        }
    }
}
