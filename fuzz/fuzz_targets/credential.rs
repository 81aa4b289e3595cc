//! What an operator or a backend gives as a credential: it is read or refused. What is taken is for one
//! family of devices and is taken again as the same; a refusal quotes nothing long enough to be a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::push::providers::credential::Credential;
use serde_json::{Map, Value};

/// Shorter ones are words of the messages by chance.
const SECRET_BYTES: usize = 12;
/// What is no secret, and may be quoted.
const QUOTED: [&str; 4] = ["kind", "base_url", "token_url", "resource"];

fuzz_target!(|data: &[u8]| {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(data) else {
        return;
    };
    match Credential::parse(&fields) {
        Ok(credential) => {
            let again = Credential::parse(&fields).expect("it was taken before");
            assert!(credential.is_same(&again));
            assert_eq!(credential.kind(), again.kind());
            assert_eq!(credential.family(), again.family());
        }
        Err(why) => {
            assert!(!why.is_empty());
            let secrets = fields
                .iter()
                .filter(|(name, _)| !QUOTED.contains(&name.as_str()));
            for (_, value) in secrets {
                let Value::String(secret) = value else {
                    continue;
                };
                assert!(secret.len() < SECRET_BYTES || !why.contains(secret.as_str()));
            }
        }
    }
});
