//! Where a server on Azure gets a secret: access tokens from Microsoft Entra ID for a client's secret,
//! or from the instance metadata service (Microsoft, "Get an access token from IMDS"), and the secret
//! from Key Vault (Microsoft, "Get Secret"). Owns the tokens it gave out and the secrets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mock::{Asked, Reply, World};
use crate::wire::query::parse_query;

const ACCESS_SECONDS: i64 = 3599;
/// The oldest is forgotten, and its holder asks anew.
const ACCESS_TOKENS: usize = 1000;
const RESOURCE: &str = "https://vault.azure.net";

/// How the vault is set up.
#[derive(Clone, Debug, Default)]
pub struct VaultOptions {
    /// Values by name.
    pub secrets: BTreeMap<String, String>,
    /// A client's id and secret; without it every client is known.
    pub client: Option<(String, String)>,
}

/// See the file's head.
pub(super) struct Vault {
    options: VaultOptions,
    /// What each that was given out is for, and when it ends.
    access: BTreeMap<String, (String, i64)>,
}

/// What a path asks for.
enum Call<'a> {
    /// Of a tenant.
    Discovery(&'a str),
    Instances,
    Token,
    Metadata,
    /// A secret's name and version.
    Secret(&'a str, Option<&'a str>),
}

fn call(path: &str) -> Option<Call<'_>> {
    let path = path.strip_prefix('/')?;
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match parts[..] {
        ["common", "discovery", "instance"] => Some(Call::Instances),
        ["metadata", "identity", "oauth2", "token"] => Some(Call::Metadata),
        ["secrets", name] => Some(Call::Secret(name, None)),
        ["secrets", name, version] => Some(Call::Secret(name, Some(version))),
        [tenant, "v2.0", ".well-known", "openid-configuration"] => Some(Call::Discovery(tenant)),
        [_, "oauth2", "v2.0", "token"] => Some(Call::Token),
        _ => None,
    }
}

impl Vault {
    pub fn new(options: VaultOptions) -> Vault {
        Vault {
            options,
            access: BTreeMap::new(),
        }
    }

    pub fn is_for(asked: &Asked) -> bool {
        call(asked.path()).is_some()
    }

    /// The answer that belongs to a word, in the form that such a service has for it.
    pub fn say(status: u16, word: &str) -> Reply {
        match status {
            status if status < 400 || word.is_empty() => Reply::empty(status).because(word),
            _ => fault(status, word, "the script says so"),
        }
    }

    pub fn judge(&mut self, asked: &Asked, world: &mut World<'_>) -> Reply {
        match (call(asked.path()), &*asked.method) {
            (Some(Call::Discovery(tenant)), "GET") => discovery(tenant, asked),
            (Some(Call::Instances), "GET") => instances(asked),
            (Some(Call::Token), "POST") => self.grant(asked, world),
            (Some(Call::Metadata), "GET") => self.metadata(asked, world),
            (Some(Call::Secret(name, version)), "GET") => self.secret(name, version, asked, world),
            _ => fault(405, "MethodNotAllowed", "the method is another one here"),
        }
    }

    fn grant(&mut self, asked: &Asked, world: &mut World<'_>) -> Reply {
        let form = std::str::from_utf8(&asked.body).ok().and_then(parse_query);
        let form = form.unwrap_or_default();
        let value = |name: &str| {
            form.iter()
                .find(|(own, _)| own == name)
                .map(|(_, it)| &**it)
        };
        let scope = value("scope").and_then(|scope| scope.strip_suffix("/.default"));
        let (Some("client_credentials"), Some(resource)) = (value("grant_type"), scope) else {
            let why = "grant_type or scope is not as expected";
            return fault(400, "invalid_request", why);
        };
        let client = (value("client_id"), value("client_secret"));
        let known = match (&self.options.client, client) {
            (Some((id, secret)), (Some(own), Some(said))) => id == own && secret == said,
            (None, (Some(_), _)) => true,
            _ => false,
        };
        if !known {
            return fault(
                401,
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
            );
        }
        let token = self.access_token(resource, world);
        let lasts = json!(ACCESS_SECONDS);
        let body = json!({
            "token_type": "Bearer", "expires_in": lasts, "ext_expires_in": lasts,
            "access_token": token,
        });
        Reply::json(200, &body)
    }

    fn metadata(&mut self, asked: &Asked, world: &mut World<'_>) -> Reply {
        let query = parse_query(asked.query()).unwrap_or_default();
        let resource = query.iter().find(|(name, _)| name == "resource");
        let (Some("true"), Some((_, resource))) = (asked.field("metadata"), resource) else {
            return fault(
                400,
                "invalid_request",
                "Required metadata header not specified",
            );
        };
        let token = self.access_token(resource, world);
        let ends = world.now.unix_seconds() + ACCESS_SECONDS;
        let body = json!({
            "access_token": token, "expires_in": ACCESS_SECONDS.to_string(),
            "expires_on": ends.to_string(), "resource": resource, "token_type": "Bearer",
        });
        Reply::json(200, &body)
    }

    fn access_token(&mut self, resource: &str, world: &mut World<'_>) -> String {
        let token = format!("mock.{}", world.uuid());
        if self.access.len() == ACCESS_TOKENS {
            let oldest = self.access.iter().min_by_key(|(_, (_, ends))| *ends);
            let oldest = oldest.map(|(token, _)| token.clone());
            oldest.map(|token| self.access.remove(&token));
        }
        let ends = world.now.unix_seconds() + ACCESS_SECONDS;
        let resource = resource.trim_end_matches('/').to_string();
        self.access.insert(token.clone(), (resource, ends));
        token
    }

    /// Whether the request shows an access token for this resource; `None`: it shows none.
    pub fn grants(&self, asked: &Asked, resource: &str, now: i64) -> Option<bool> {
        let token = asked.authorization("bearer")?;
        let given = self.access.get(token);
        Some(given.is_some_and(|(own, ends)| own == resource && *ends > now))
    }

    fn secret(&self, name: &str, version: Option<&str>, asked: &Asked, world: &World<'_>) -> Reply {
        let now = world.now.unix_seconds();
        match self.grants(asked, RESOURCE, now) {
            Some(true) => {}
            Some(false) => {
                return unauthorized(
                    asked,
                    "AKV10022: the token is too old, or for something else",
                );
            }
            None => return unauthorized(asked, "AKV10000: Request is missing a Bearer token."),
        }
        let Some(value) = self.options.secrets.get(name) else {
            let why = format!("A secret with (name/id) {name} was not found in this key vault.");
            return fault(404, "SecretNotFound", &why);
        };
        let own = version_of(value);
        if version.is_some_and(|version| version != own) {
            return fault(404, "SecretNotFound", "there is no such version");
        }
        let id = format!("https://{}/secrets/{name}/{own}", asked.authority);
        let body = json!({
            "value": value, "id": id,
            "attributes": {
                "enabled": true, "created": now, "updated": now,
                "recoveryLevel": "Recoverable+Purgeable",
            },
        });
        Reply::json(200, &body)
    }
}

/// 32 hexadecimal digits that stand for the value, as Key Vault's versions do; they do not tell it.
fn version_of(value: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
    data_encoding::HEXLOWER.encode(&digest.as_ref()[..16])
}

fn unauthorized(asked: &Asked, why: &str) -> Reply {
    let challenge = format!(
        "Bearer authorization=\"https://{}/mock-tenant\", resource=\"{RESOURCE}\"",
        asked.authority
    );
    fault(401, "Unauthorized", why).with("www-authenticate", challenge)
}

/// What the libraries read before they ask for a token (OpenID Connect Discovery 1.0, section 4.2).
fn discovery(tenant: &str, asked: &Asked) -> Reply {
    let base = format!("https://{}/{tenant}", asked.authority);
    let body = json!({
        "issuer": format!("{base}/v2.0"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    Reply::json(200, &body)
}

fn instances(asked: &Asked) -> Reply {
    let host = &asked.authority;
    let endpoint = format!("https://{host}/mock-tenant/v2.0/.well-known/openid-configuration");
    let body = json!({
        "tenant_discovery_endpoint": endpoint, "api-version": "1.1",
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
    });
    Reply::json(200, &body)
}

/// Key Vault says its errors as an object, Entra ID and the metadata service as a text.
fn fault(status: u16, word: &str, why: &str) -> Reply {
    let is_oauth = word
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let body: Value = match is_oauth {
        true => json!({ "error": word, "error_description": why }),
        false => json!({ "error": { "code": word, "message": why } }),
    };
    Reply::json(status, &body).because(format!("{word}: {why}"))
}
