//! The table `[push]`: its rows in the reference, its shape in the file, whether it makes sense. Does
//! not know who is notified of what.

use std::path::Path;

use serde::Deserialize;

use crate::app::apps::Secret;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::RawConfig;
use crate::config::problem::Step::Key;
use crate::config::secret::{Fetch, RawSecret, Secrets, fetch_one};
use crate::push::devices::token_key::{KeyId, TokenKey};

pub(super) const TABLE: TableRow = TableRow {
    heading: "[push]",
    help: "Notifications to devices (docs/push.md). Without token_key there is no push gateway.",
    keys: &[
        KeyRow {
            name: "token_key",
            kind: "string, or where it is kept",
            default: "",
            help: "The key that device tokens are encrypted with: 32 bytes in base64, as `openssl rand -base64 32` makes them. It belongs elsewhere than in this file, as in { env = \"NAME\" }.",
        },
        KeyRow {
            name: "token_key_id",
            kind: "word",
            default: "\"1\"",
            help: "The name of that key, kept beside every token. Another key has another name.",
        },
    ],
    active: "",
    optional: false,
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPush {
    token_key: Option<RawSecret>,
    token_key_id: String,
}

impl Default for RawPush {
    fn default() -> RawPush {
        RawPush {
            token_key: None,
            token_key_id: "1".into(),
        }
    }
}

/// What the push gateway needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Known to be good for a `TokenKey` of the id.
    pub token_key: Secret,
    pub token_key_id: KeyId,
}

/// `None` without a gateway. A key that is kept elsewhere is fetched, and noted in `secrets`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: &RawConfig,
    (base, fetch): (&Path, &Fetch<'_>),
    secrets: &mut Secrets,
) -> Option<Push> {
    let one = &raw.push;
    let at = |key| [Key("push"), Key(key)];
    let id = KeyId::parse(&one.token_key_id);
    let id = id.map_err(|fault| checker.problem(&at("token_key_id"), fault.text(), None));
    let found = fetch_one(one.token_key.as_ref()?, base, fetch, secrets);
    let found = found.map_err(|fault| {
        checker.problem(&at("token_key"), fault.message, fault.hint);
    });
    let (id, token_key) = (id.ok()?, found.ok()?);
    if let Err(fault) = TokenKey::parse(id.clone(), token_key.expose()) {
        checker.problem(&at("token_key"), fault.text(), None);
    }
    Some(Push {
        token_key,
        token_key_id: id,
    })
}
