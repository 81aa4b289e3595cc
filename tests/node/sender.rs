//! What a courier is made of that sends to APNs, with nothing set that need not be.

use lineman::base::dice::Dice;
use lineman::base::limits::Limits;
use lineman::node::courier::{CourierOptions, DeviceOptions, SendingOptions};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::push::providers::credential::Credential;
use serde_json::{Map, Value, json};

use super::apps::one_app;

/// `name` is the courier's own; `key` is the provider's, as PEM.
pub fn courier_options(
    name: &str,
    key: &str,
    limits: Limits,
    dice: &mut Dice,
    seed: [u8; 16],
) -> CourierOptions {
    let text = data_encoding::BASE64.encode(b"a key of two and thirty bytes ..");
    let token_key = TokenKey::parse(KeyId::parse("1").expect("an id"), &text).expect("a key");
    let vault = TokenVault::new(token_key, Vec::new(), Binding::Row, dice);
    CourierOptions {
        webhooks: Vec::new(),
        apps: one_app("a", "k", "s"),
        limits,
        in_cluster: false,
        devices: Some(DeviceOptions {
            vault: vault.expect("a vault"),
            keep_ms: 30 * 24 * 3600 * 1000,
        }),
        sending: SendingOptions {
            credentials: vec![("a".into(), credential(key))],
            courier: name.to_string(),
            wrong_tokens: 100,
            ..SendingOptions::default()
        },
        seed,
    }
}

fn credential(key: &str) -> Credential {
    let fields = json!({
        "kind": "apns-token", "key": key, "key_id": "ABC123DEFG", "team_id": "TEAM123456",
        "bundle": "org.example.app", "base_url": "https://apns.example",
    });
    let fields: Map<String, Value> = fields.as_object().expect("an object").clone();
    Credential::parse(&fields).expect("a credential")
}
