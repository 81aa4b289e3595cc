//! The tables about push: their rows in the reference, their shape in the file, whether it makes
//! sense. Does not know who is notified of what. Invariant: a token key is never in the file itself,
//! since that is handed to every process of the server.

use std::path::Path;

use serde::Deserialize;

use crate::app::apps::Secret;
use crate::base::dice::Dice;
use crate::config::check::Checker;
use crate::config::key_vault::RawTokenKey;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step;
use crate::config::problem::Step::{Index, Key};
use crate::config::secret::{Fetch, Kept, RawSecret, fetch_apart};
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::{Binding, TokenVault, VaultFault};
use crate::push::providers::webpush::guard::{OriginPolicy, USUAL};

/// Longer is a typing error.
const KEEP_DAYS_MAX: u64 = 3_650;

pub(super) const TABLE: TableRow = TableRow {
    heading: "[push]",
    help: "Notifications to devices (docs/push.md). Without token_key there is no push gateway.",
    keys: &[
        KeyRow {
            name: "token_key",
            kind: "where it is kept",
            default: "",
            help: "The key that device tokens are encrypted with: 32 bytes in base64, as `lineman keys generate` makes them. { env = \"NAME\" }, { file = \"PATH\" }, { credential = \"NAME\" } or { key_vault = \"https://NAME.vault.azure.net/secrets/NAME\" } (docs/push.md), never the key itself.",
        },
        KeyRow {
            name: "token_key_id",
            kind: "word",
            default: "\"1\"",
            help: "The name of that key, kept beside every token. Another key has another name. Without it a key out of Key Vault is named after its version.",
        },
        KeyRow {
            name: "keep_inactive_days",
            kind: "integer, 0 to 3_650",
            default: "30",
            help: "For how long a device that gets nothing any more is kept, so that it can be explained; then it is removed, once a day.",
        },
        KeyRow {
            name: "web_push_services",
            kind: "list of hosts",
            default: "[\"*.googleapis.com\", \"*.push.apple.com\", \"*.notify.windows.com\", \"*.push.services.mozilla.com\"]",
            help: "Where subscriptions of browsers may lead: HOST, *.HOST for all names under it, either with :PORT; * for all public names.",
        },
        KeyRow {
            name: "allow_loopback",
            kind: "true or false",
            default: "false",
            help: "Subscriptions may lead to this machine: for tests, with lineman mock webpush.",
        },
        KeyRow {
            name: "wrong_tokens_percent",
            kind: "integer, 1 to 100",
            default: "20",
            help: "Of so many answers in a hundred, within ten minutes, that call a device's token dead or wrong, no device is retired for it any more: rather the credential is wrong. 100: always retired.",
        },
    ],
    active: "",
    optional: false,
};

pub(super) const FORMER_TABLE: TableRow = TableRow {
    heading: "[[push.former_keys]]",
    help: "A key that tokens were encrypted with before, needed until `lineman keys status` says otherwise. At most 15.",
    keys: &[
        KeyRow {
            name: "token_key",
            kind: "where it is kept",
            default: "",
            help: "As in [push].",
        },
        KeyRow {
            name: "token_key_id",
            kind: "word",
            default: "",
            help: "The name that it had; of a key out of Key Vault its version.",
        },
    ],
    active: "",
    optional: true,
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPush {
    token_key: Option<RawTokenKey>,
    token_key_id: Option<String>,
    keep_inactive_days: u64,
    web_push_services: Vec<String>,
    allow_loopback: bool,
    wrong_tokens_percent: u32,
    former_keys: Vec<RawFormerKey>,
}

impl Default for RawPush {
    fn default() -> RawPush {
        RawPush {
            token_key: None,
            token_key_id: None,
            keep_inactive_days: 30,
            web_push_services: USUAL.map(str::to_string).to_vec(),
            allow_loopback: false,
            wrong_tokens_percent: 20,
            former_keys: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormerKey {
    token_key: RawTokenKey,
    token_key_id: Option<String>,
}

/// What the push gateway needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The current one first. Whoever is not to know them has none.
    keys: Option<Vec<(KeyId, Secret)>>,
    pub keep_inactive_days: u64,
    /// Where subscriptions may lead, and whether to this machine.
    pub web_push_services: OriginPolicy,
    pub allow_loopback: bool,
    pub wrong_tokens_percent: u32,
}

impl RawPush {
    /// Whether there is no push gateway.
    pub fn is_off(&self) -> bool {
        self.token_key.is_none()
    }
}

impl Push {
    /// `None` in a process that is not to know the keys.
    pub fn vault(&self, dice: &mut Dice) -> Option<Result<TokenVault, VaultFault>> {
        let keys = self.keys.as_ref()?.iter();
        let keys = keys.map(|(id, text)| TokenKey::parse(id.clone(), text.expose()));
        let mut keys = keys.collect::<Result<Vec<_>, _>>().ok()?.into_iter();
        Some(TokenVault::new(
            keys.next()?,
            keys.collect(),
            Binding::Row,
            dice,
        ))
    }
}

/// `None` without a gateway. The keys are fetched, and noted in `apart`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: &RawConfig,
    from: (&Path, &Fetch<'_>),
    noted: (&mut Kept, &mut Vec<String>),
) -> Option<Push> {
    let one = &raw.push;
    let place = [Key("push"), Key("keep_inactive_days")];
    let days = one.keep_inactive_days;
    checker.range(&place, "keep_inactive_days", days, 0, KEEP_DAYS_MAX);
    let percent = u64::from(one.wrong_tokens_percent);
    let place = [Key("push"), Key("wrong_tokens_percent")];
    checker.range(&place, "wrong_tokens_percent", percent, 1, 100);
    let hosts: Vec<&str> = one.web_push_services.iter().map(String::as_str).collect();
    let services = OriginPolicy::new(&hosts);
    let services = services.unwrap_or_else(|why| {
        checker.problem(&[Key("push"), Key("web_push_services")], why, None);
        OriginPolicy::default()
    });
    let services = match one.allow_loopback {
        true => services.with_loopback(),
        false => services,
    };
    let Some(current) = &one.token_key else {
        if !one.former_keys.is_empty() {
            let message = "former keys open tokens, and there is no token_key to seal them with";
            checker.problem(&[Key("push"), Key("former_keys")], message, None);
        }
        return None;
    };
    let (apart, warnings) = noted;
    let mut read = |at: &[Step], id: Option<&str>, key: &RawTokenKey| {
        read_key(checker, at, (id, &key.0), from, (apart, warnings))
    };
    let id = one.token_key_id.as_deref();
    let id = id.or((!current.is_vault()).then_some("1"));
    let mut keys = vec![read(&[Key("push")], id, current)];
    for (index, former) in one.former_keys.iter().enumerate() {
        let at = [Key("push"), Key("former_keys"), Index(index)];
        let id = former.token_key_id.as_deref();
        keys.push(read(&at, id, &former.token_key));
    }
    let keys: Vec<Option<(KeyId, Secret)>> = keys.into_iter().collect::<Option<_>>()?;
    let keys = keys.into_iter().collect();
    let push = Push {
        keys,
        keep_inactive_days: days,
        web_push_services: services,
        allow_loopback: one.allow_loopback,
        wrong_tokens_percent: one.wrong_tokens_percent,
    };
    // What it draws is used for nothing but the self-test.
    if let Some(Err(fault)) = push.vault(&mut Dice::new([0; 16])) {
        checker.problem(&[Key("push"), Key("token_key")], fault.text(), None);
    }
    Some(push)
}

/// The id and the text of a key that is good; the inner `None` where it is withheld. A key that has no
/// `id` brings its own.
fn read_key(
    checker: &mut Checker<'_>,
    at: &[Step],
    (id, key): (Option<&str>, &RawSecret),
    (base, fetch): (&Path, &Fetch<'_>),
    (apart, warnings): (&mut Kept, &mut Vec<String>),
) -> Option<Option<(KeyId, Secret)>> {
    let place = |name| [at, &[Key(name)]].concat();
    let RawSecret::Elsewhere(keeper) = key else {
        let message = "a token key does not stand in the file, which every process gets";
        let hint = "{ env = \"NAME\" }, { file = \"PATH\" }, { credential = \"NAME\" } or { key_vault = \"URL\" }";
        checker.problem(&place("token_key"), message, Some(hint));
        return None;
    };
    if id.is_none() && !keeper.is_vault() {
        checker.problem(at, "token_key_id is missing", None);
        return None;
    }
    let written = id.map(KeyId::parse).transpose();
    let written =
        written.map_err(|fault| checker.problem(&place("token_key_id"), fault.text(), None));
    let found = fetch_apart(keeper, base, fetch, (apart, warnings));
    let found = found.map_err(|fault| {
        checker.problem(&place("token_key"), fault.message, fault.hint);
    });
    let (written, Some(found)) = (written.ok()?, found.ok()?) else {
        return Some(None);
    };
    let (version, text) = match keeper.is_vault() {
        true => found.expose().split_once(' ').unwrap_or_default(),
        false => ("1", found.expose()),
    };
    let id = written.map_or_else(|| KeyId::parse(version), Ok);
    let good = id.and_then(|id| TokenKey::parse(id.clone(), text).map(|_| id));
    match good {
        Ok(id) => Some(Some((id, Secret::new(text.to_string())))),
        Err(fault) => {
            checker.problem(&place("token_key"), fault.text(), None);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::{Fault, Fetched, Keeper};

    fn fetch(keeper: &Keeper) -> Result<Fetched, Fault> {
        match keeper {
            Keeper::Env(name) if name == "WITHHELD" => Err(Fault::withheld()),
            Keeper::Env(name) => {
                let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
                Ok(Fetched {
                    secret: Secret::new(text),
                    warning: None,
                })
            }
            Keeper::KeyVault(keeper) => Ok(Fetched {
                secret: Secret::new(format!("4387e9f3 {}", of_vault(&keeper.url))),
                warning: None,
            }),
            _ => Err(Fault::new("nothing is kept")),
        }
    }

    fn of_vault(url: &str) -> String {
        data_encoding::BASE64.encode(format!("{:>32}", &url[url.len() - 5..]).as_bytes())
    }

    fn push(lines: &str) -> Result<Push, String> {
        let text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n[push]\n{lines}\n"
        );
        let config = parse(&text, "f", Path::new("/"), &Program::default(), &fetch);
        let config = config.map_err(|error| error.0)?;
        assert!(config.kept.is_empty(), "they are kept apart");
        Ok(config.push.expect("there is a gateway"))
    }

    const FORMER: &str = "[[push.former_keys]]\ntoken_key = { env = \"B\" }\ntoken_key_id = \"b\"";

    #[test]
    fn a_gateway_has_a_key_and_perhaps_former_ones() {
        let ids = |lines: &str| {
            let push = push(lines).expect(lines);
            let vault = push
                .vault(&mut Dice::new([1; 16]))
                .expect("keys")
                .expect("good ones");
            let ids = vault.keys().map(|(id, _)| id.as_str().to_string());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids("token_key = { env = \"A\" }"), ["1"]);
        let two = format!("token_key = {{ env = \"A\" }}\ntoken_key_id = \"a\"\n{FORMER}");
        assert_eq!(ids(&two), ["a", "b"]);
    }

    #[test]
    fn a_key_out_of_a_vault_is_named_after_its_version_unless_it_has_a_name() {
        let vault = "token_key = { key_vault = \"https://v.vault.azure.net/secrets/key-1\", \
                     identity = { tenant = \"t\", client_id = \"c\", client_secret = { env = \"S\" } } }";
        let ids = |lines: &str| {
            let push = push(lines).expect(lines);
            let vault = push.vault(&mut Dice::new([1; 16]));
            let vault = vault.expect("keys").expect("good ones");
            let ids = vault.keys().map(|(id, _)| id.as_str().to_string());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids(vault), ["4387e9f3"]);
        assert_eq!(ids(&format!("{vault}\ntoken_key_id = \"7\"")), ["7"]);
        let both = format!("token_key = {{ env = \"A\" }}\n[[push.former_keys]]\n{vault}");
        assert_eq!(ids(&both), ["1", "4387e9f3"]);
    }

    #[test]
    fn whoever_is_not_to_know_the_keys_reads_the_same_file_without_them() {
        let push = push("token_key = { env = \"WITHHELD\" }").expect("it is read");
        assert!(push.vault(&mut Dice::new([1; 16])).is_none());
    }

    #[test]
    fn what_is_wrong_with_keys_is_told_with_its_line() {
        let same = "token_key = { env = \"B\" }\n".to_string() + FORMER;
        let twice = "token_key = { env = \"A\" }\ntoken_key_id = \"b\"\n".to_string() + FORMER;
        let table = [
            (
                "token_key = \"c2VjcmV0\"",
                "f:5: a token key does not stand in the file",
            ),
            ("token_key = { file = \"a\" }", "f:5: nothing is kept"),
            (
                "token_key = { env = \"A\" }\ntoken_key_id = \"a b\"",
                "f:6: the name of a key",
            ),
            (
                "token_key = { env = \"A\" }\nkeep_inactive_days = 9999",
                "keep_inactive_days",
            ),
            (FORMER, "there is no token_key"),
            (
                "token_key = { env = \"A\" }\n[[push.former_keys]]\ntoken_key = { env = \"B\" }",
                "token_key_id is missing",
            ),
            (
                "token_key = { key_vault = \"u\", identity = { client_secret = \"c2VjcmV0\" } }",
                "expected { key_vault",
            ),
            (
                "token_key = { key_vault = \"u\", identty = {} }",
                "expected { key_vault",
            ),
            (&same, "is there twice, or has the same bytes"),
            (&twice, "is there twice"),
            (
                "token_key = { env = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" }",
                "a placeholder",
            ),
        ];
        for (lines, told) in table {
            let error = push(lines).expect_err(lines);
            assert!(error.contains(told), "{lines}: {error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
