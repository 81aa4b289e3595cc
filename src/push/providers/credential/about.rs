//! What may be told of a credential: which one it is, and nothing of what it proves itself with. A
//! fingerprint says whether it is the one that somebody has in a file.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};

use crate::push::providers::credential::Proof;

/// Fields that are told as they were given.
const TOLD: [&str; 17] = [
    "kind",
    "key_id",
    "team_id",
    "bundle",
    "environment",
    "project",
    "contact",
    "hub",
    "namespace",
    "tenant",
    "client_id",
    "base_url",
    "channels_url",
    "token_url",
    "topics_url",
    "resource",
    "ca_file",
];
/// The one that is there is the secret.
const SECRET: [&str; 5] = [
    "key",
    "account",
    "connection_string",
    "client_secret",
    "identity_header",
];
/// Of the fingerprint: enough to tell keys apart.
const DIGITS: usize = 16;

pub(super) fn about(fields: &Map<String, Value>, proof: &Proof) -> Map<String, Value> {
    let told = fields.iter();
    let told = told.filter(|(name, value)| TOLD.contains(&name.as_str()) && value.is_string());
    let mut about: Map<String, Value> = told.map(|(k, v)| (k.clone(), v.clone())).collect();
    match proof {
        Proof::Vapid { key, .. } => _ = about.insert("public_key".into(), key.public().into()),
        Proof::FcmAccount { account, app, .. } => {
            about.insert("project".into(), app.project.as_str().into());
            about.insert("client_email".into(), account.email().into());
            about.insert("key_id".into(), account.key_id().into());
        }
        _ => {}
    }
    let secret = SECRET.iter().find_map(|name| fields.get(*name));
    let print = secret.map(|secret| match secret {
        Value::String(text) => digest(&SHA256, text.as_bytes()),
        other => digest(&SHA256, other.to_string().as_bytes()),
    });
    if let Some(print) = print {
        let hex = HEXLOWER.encode(print.as_ref());
        about.insert("fingerprint".into(), hex[..DIGITS].into());
    }
    about
}
