//! Token keys out of Azure Key Vault, fetched while whoever reads the configuration waits. Owns the
//! time that this may take, and the access tokens that are good for more than one secret. What is
//! asked and what an answer means is in `push/devices`. Invariant: all requests of one reading
//! together end in time.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::app::apps::Secret;
use crate::base::now::Now;
use crate::config::key_vault::{VaultIdentity, VaultKeeper};
use crate::config::secret::{Fault, Fetched, Keeper};
use crate::net::clock::unix_seconds;
use crate::net::one_request;
use crate::push::devices::entra::{AccessToken, Call, Identity, TokenVerdict};
use crate::push::devices::key_vault::{KeyVerdict, SecretUrl};
use crate::push::devices::token_key::TokenKey;
use crate::push::providers::credential::parse_identity;
use crate::push::providers::provider::pairs;
use crate::wire::http_answer;
use crate::wire::http2::{Http2Answer, Http2Origin, Http2Request};
use crate::wire::target::Target;

/// For all keys of one configuration. A master that serves is watched by systemd meanwhile.
const WITHIN: Duration = Duration::from_secs(10);
/// Before the next try, where nobody says how long to wait.
const WAIT: Duration = Duration::from_millis(500);

/// See the file's head.
#[derive(Default)]
pub struct KeyVaults {
    /// From the first request on.
    until: Option<Instant>,
    tokens: BTreeMap<VaultIdentity, AccessToken>,
    /// Somebody did not answer, so that nothing is known to be wrong.
    is_unavailable: bool,
}

/// Gets a secret that is in no vault.
type Near<'a> = &'a dyn Fn(&Keeper) -> Result<Fetched, Fault>;

impl KeyVaults {
    /// Whether trying again later may help.
    pub fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }

    /// `VERSION KEY`.
    pub fn fetch(&mut self, keeper: &VaultKeeper, near: Near<'_>) -> Result<Fetched, Fault> {
        let found = self.find(keeper, near);
        let key = found.map_err(|why| Fault::new(format!("Azure Key Vault: {why}")))?;
        Ok(Fetched {
            secret: Secret::new(format!("{} {}", key.id().as_str(), *key.text())),
            warning: None,
        })
    }

    fn find(&mut self, keeper: &VaultKeeper, near: Near<'_>) -> Result<TokenKey, String> {
        let who = &keeper.identity;
        let url = SecretUrl::parse(&keeper.url)?;
        let identity = identity(who, near)?;
        let resource = who.resource.clone().or_else(|| url.resource());
        let resource = resource
            .ok_or("resource is missing: what the access token is for cannot be told from the vault's name")?;
        let ca = who.ca_file.as_ref().map(|path| path.display().to_string());
        let mut renewed = false;
        loop {
            let token = match self.tokens.get(who) {
                Some(token) => token.clone(),
                None => {
                    let token = self.token(&identity, &resource, ca.as_deref())?;
                    self.tokens.insert(who.clone(), token.clone());
                    token
                }
            };
            let answer = self.ask(url.request(&token), ca.as_deref())?;
            let hint = retry_after(&answer);
            match url.verdict(answer.status, hint.as_deref(), &answer.body, now()) {
                KeyVerdict::Key(key) => return Ok(key),
                KeyVerdict::TokenRefused if renewed => {
                    return Err("the vault refuses the access token".to_string());
                }
                KeyVerdict::TokenRefused => {
                    self.tokens.remove(who);
                    renewed = true;
                }
                KeyVerdict::Again(wait) => self.rest(wait.unwrap_or(WAIT), answer.status)?,
                KeyVerdict::Refused(why) => return Err(why.into_owned()),
            }
        }
    }

    fn token(
        &mut self,
        identity: &Identity,
        resource: &str,
        ca: Option<&str>,
    ) -> Result<AccessToken, String> {
        for tries in 1.. {
            let answer = self.ask(identity.request(resource), ca)?;
            let hint = retry_after(&answer);
            let status = answer.status;
            match identity.verdict(status, hint.as_deref(), &answer.body, tries, now()) {
                TokenVerdict::Token(token) => return Ok(token),
                TokenVerdict::Again(wait) => self.rest(wait, status)?,
                TokenVerdict::Refused(why) => {
                    self.is_unavailable |= status >= 500 || status == 429;
                    return Err(format!("no access token: {why}"));
                }
            }
        }
        unreachable!("the verdict ends it")
    }

    /// Waits before the next try, if there is time for one.
    fn rest(&mut self, wait: Duration, status: u16) -> Result<(), String> {
        if Instant::now() + wait >= self.until() {
            self.is_unavailable = true;
            return Err(format!("it answers {status}, and time is up"));
        }
        thread::sleep(wait);
        Ok(())
    }

    fn until(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + WITHIN)
    }

    fn ask(&mut self, call: Call, ca: Option<&str>) -> Result<Http2Answer, String> {
        let request = call.into_request()?;
        let mut target = Target::parse_web(&request.origin)?;
        if let Some(ca) = ca {
            target = target.with_ca_file(ca);
        }
        let fields = pairs(&request.fields);
        let asked = Http2Request {
            method: request.method.word(),
            path: &request.path,
            common: None,
            fields: &fields,
            body: Bytes::copy_from_slice(&request.body),
        };
        let origin = Http2Origin::new(target.scheme().is_secured(), &target.authority())?;
        let bytes = http_answer::request(&origin.head(&asked)?, &request.body);
        let until = self.until();
        one_request::ask(&target, &bytes, until).map_err(|why| {
            self.is_unavailable = true;
            format!("{}: {why}", target.authority())
        })
    }
}

fn now() -> Now {
    Now {
        unix_ms: unix_seconds() * 1000,
        ..Now::default()
    }
}

fn retry_after(answer: &Http2Answer) -> Option<String> {
    let value = answer.fields.only("retry-after")?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Who asks, with the secrets for it.
fn identity(who: &VaultIdentity, near: Near<'_>) -> Result<Identity, String> {
    let mut fields = Map::new();
    for (name, value) in [
        ("tenant", &who.tenant),
        ("client_id", &who.client_id),
        ("token_url", &who.token_url),
    ] {
        fields.extend(
            value
                .iter()
                .map(|it| (name.to_string(), Value::from(it.as_str()))),
        );
    }
    for (name, keeper) in [
        ("client_secret", &who.client_secret),
        ("identity_header", &who.identity_header),
    ] {
        if let Some(keeper) = keeper {
            let fetched = near(keeper).map_err(|fault| format!("{name}: {}", fault.message))?;
            fields.insert(name.to_string(), fetched.secret.expose().into());
        }
    }
    parse_identity(&fields).map_err(|why| format!("identity: {why}"))
}
