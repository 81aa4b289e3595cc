//! Each provider as the command line describes it: which files are read, which are made, and what a
//! client has to know. Owns the keys that are made for a developer who has none.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::base::dice::Dice;
use crate::mock::Provider;
use crate::mock::apns::{Apns, ApnsOptions};
use crate::mock::azure::{Azure, AzureOptions};
use crate::mock::azure_vault::VaultOptions;
use crate::mock::fcm::{Fcm, FcmOptions};
use crate::mock::jwt::PublicKey;
use crate::mock::subscriber::Subscriber;
use crate::mock::webpush::{PATH, WebPush, WebPushOptions};
use crate::run::exit::Failure;

use super::words::{ApnsWords, AzureWords, FcmWords, WebPushWords, Which};
use super::{Site, failed, read, usage, write};

/// Of the keys that are made here.
const KEY_ID: &str = "MOCKKEY001";
const TEAM_ID: &str = "MOCKTEAM01";
const PROJECT: &str = "mock-project";
const EMAIL: &str = "push@mock-project.iam.gserviceaccount.com";

type Built = (Box<dyn Provider + Send>, Value);

/// The provider, and what a client has to know of it.
pub fn build(which: &Which, site: &Site<'_>, dice: &mut Dice) -> Result<Built, Failure> {
    match which {
        Which::Apns { own, common } => own.build(site, common.client_ca.is_some()),
        Which::Fcm { own, .. } => own.build(site),
        Which::Webpush { own, .. } => own.build(site, dice),
        Which::Azure { own, .. } => own.build(site, dice),
    }
}

fn public_key(path: &Path, rsa: bool) -> Result<PublicKey, Failure> {
    let text = read(path)?;
    PublicKey::from_pem(text.as_bytes(), rsa)
        .map_err(|why| usage(format!("{}: {why}", path.display())))
}

impl ApnsWords {
    /// `by_certificate`: the handshake asks for one, and nobody asks for a token.
    fn build(&self, site: &Site<'_>, by_certificate: bool) -> Result<Built, Failure> {
        let mut more = json!({});
        let key = match &self.key {
            Some(path) => Some(public_key(path, false)?),
            None => {
                let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
                let made = made.map_err(|error| failed("a key", error))?;
                let path = write(site.dir, "AuthKey.p8", &made.serialize_pem())?;
                more = json!({
                    "key": path.display().to_string(), "key_id": KEY_ID, "team_id": TEAM_ID,
                });
                None
            }
        };
        let options = ApnsOptions {
            key,
            key_id: self.key_id.clone(),
            team_id: self.team_id.clone(),
            topics: self.topics.clone(),
            by_certificate,
            production: self.production,
        };
        Ok((Box::new(Apns::new(options)), more))
    }
}

impl FcmWords {
    fn build(&self, site: &Site<'_>) -> Result<Built, Failure> {
        let mut options = FcmOptions {
            project: self.project.clone(),
            any_access_token: self.any_access_token,
            ..FcmOptions::default()
        };
        let Some(path) = &self.account else {
            let path = self.make_account(site, &mut options)?;
            return Ok((Box::new(Fcm::new(options)), json!({ "account": path })));
        };
        let text = read(path)?;
        match serde_json::from_str::<Value>(&text) {
            Err(_) => options.key = Some(public_key(path, true)?),
            Ok(account) => {
                let wrong = |why: &str| usage(format!("{}: {why}", path.display()));
                let pem = account["private_key"].as_str();
                let pem = pem.ok_or_else(|| wrong("there is no private_key in it"))?;
                let key = PublicKey::from_pem(pem.as_bytes(), true).map_err(wrong)?;
                options.key = Some(key);
                options.email = account["client_email"].as_str().map(str::to_string);
                let project = account["project_id"].as_str().map(str::to_string);
                options.project = options.project.or(project);
            }
        }
        Ok((Box::new(Fcm::new(options)), json!({})))
    }

    /// A service account that leads here.
    fn make_account(&self, site: &Site<'_>, options: &mut FcmOptions) -> Result<String, Failure> {
        let none = |_| failed("a key", "the library makes none");
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).map_err(none)?;
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).map_err(none)?;
        let body = BASE64.encode(der.as_ref());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(ascii).collect();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        );
        let key = PublicKey::from_pem(pem.as_bytes(), true);
        options.key = Some(key.map_err(|why| failed("a key", why))?);
        options.email = Some(EMAIL.to_string());
        let account = json!({
            "type": "service_account",
            "project_id": options.project.as_deref().unwrap_or(PROJECT),
            "private_key_id": KEY_ID,
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": format!("{}/token", site.urls[0]),
        });
        let path = write(site.dir, "service-account.json", &format!("{account:#}\n"))?;
        Ok(path.display().to_string())
    }
}

/// Base64 is nothing else.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl WebPushWords {
    fn build(&self, site: &Site<'_>, dice: &mut Dice) -> Result<Built, Failure> {
        let mut subscribers = BTreeMap::new();
        let mut shown = Vec::new();
        for number in 1..=self.subscriptions {
            let subscriber = Subscriber::draw(dice);
            let name = format!("sub-{number}");
            shown.push(json!({
                "endpoint": format!("{}{PATH}{name}", site.urls[0]),
                "expirationTime": null,
                "keys": { "p256dh": subscriber.p256dh(), "auth": subscriber.auth() },
            }));
            subscribers.insert(name, subscriber);
        }
        let options = WebPushOptions {
            subscribers,
            vapid: self.vapid.clone(),
            plain: site.plain,
        };
        let more = json!({ "subscriptions": shown });
        Ok((Box::new(WebPush::new(options)), more))
    }
}

/// The secret that there is when none is asked for: a token key of 32 bytes.
const SECRET: &str = "push-token-key";

impl AzureWords {
    fn build(&self, site: &Site<'_>, dice: &mut Dice) -> Result<Built, Failure> {
        let mut random = || {
            let halves = [dice.next_u128(), dice.next_u128()].map(u128::to_be_bytes);
            BASE64.encode(&halves.concat())
        };
        let mut secrets = BTreeMap::new();
        for secret in &self.secrets {
            let wrong = || usage(format!("`{secret}` is not NAME=VALUE"));
            let (name, value) = secret.split_once('=').ok_or_else(wrong)?;
            secrets.insert(name.to_string(), value.to_string());
        }
        if secrets.is_empty() {
            secrets.insert(SECRET.to_string(), random());
        }
        let client = self.client.as_ref().map(|client| {
            let wrong = || usage("`--client` is ID:SECRET");
            let (id, secret) = client.split_once(':').ok_or_else(wrong)?;
            Ok((id.to_string(), secret.to_string()))
        });
        let key = self.key.clone().unwrap_or_else(random);
        let url = &site.urls[0];
        let place = url.split_once("://").map_or("", |(_, place)| place);
        let names: Vec<String> = secrets
            .keys()
            .map(|name| format!("{url}/secrets/{name}"))
            .collect();
        let more = json!({
            "connection_string": format!(
                "Endpoint=sb://{place}/;SharedAccessKeyName={};SharedAccessKey={key}",
                self.key_name
            ),
            "hub": self.hub.as_deref().unwrap_or("mock-hub"),
            "secrets": names,
            "tenant": "mock-tenant",
        });
        let options = AzureOptions {
            hub: self.hub.clone(),
            key_name: self.key_name.clone(),
            key,
            vault: VaultOptions {
                secrets,
                client: client.transpose()?,
            },
        };
        Ok((Box::new(Azure::new(options)), more))
    }
}
