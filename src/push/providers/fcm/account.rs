//! A Google service account: how it asks for an access token (RFC 7523 section 2.1, as Google's
//! "OAuth 2.0 for server to server applications" uses it), and what is answered.

use serde::Deserialize;
use serde_json::json;

use crate::base::now::Now;
use crate::push::providers::provider::{Answer, Method, Pass, Request};
use crate::push::providers::verdict::{Ruling, Verdict, word_of};
use crate::wire::jwt::JwtKey;
use crate::wire::target::Target;

pub const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
/// The longest that Google takes.
const ASSERTION_SECONDS: i64 = 3600;
/// A pass is renewed so long before it ends, or halfway if it is a short one.
const RENEW_BEFORE_SECONDS: i64 = 300;

#[derive(Debug)]
pub struct ServiceAccount {
    pub project: String,
    /// Where it asks: the file's `token_uri`, or a relay to it.
    pub token_url: String,
    token_uri: String,
    email: String,
    key_id: Option<String>,
    key: JwtKey,
}

/// As Google writes it.
#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    project_id: String,
    token_uri: String,
}

impl ServiceAccount {
    /// Whose account it is, as an address.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// The name of its key, where the file has one.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Reads the JSON file. Errors quote nothing of it.
    pub fn parse(json: &[u8]) -> Result<ServiceAccount, String> {
        let read: Result<AccountFile, _> = serde_json::from_slice(json);
        let file = read.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("this is no service account's JSON (line {line}, column {column})")
        })?;
        Target::parse_web(&file.token_uri).map_err(|why| format!("token_uri: {why}"))?;
        Ok(ServiceAccount {
            project: file.project_id,
            token_url: file.token_uri.clone(),
            token_uri: file.token_uri,
            email: file.client_email,
            key_id: file.private_key_id,
            key: JwtKey::rs256_pem(file.private_key.as_bytes())?,
        })
    }

    /// What is sent to `token_url`; one at a time for each account.
    pub fn request(&self, now: Now) -> Result<Request, String> {
        let issued = now.unix_seconds();
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = json!(id);
        }
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri,
            "iat": issued, "exp": issued + ASSERTION_SECONDS,
        });
        let assertion = self.key.sign(&header, &claims)?;
        let target = Target::parse_web(&self.token_url)?;
        let origin = format!("{}://{}", target.scheme().word(), target.authority());
        let path = target.path_and_query().to_string();
        let body = format!("grant_type={GRANT}&assertion={assertion}");
        let request = Request::new(Method::Post, &origin, path);
        Ok(request.with_body("application/x-www-form-urlencoded", body.into_bytes()))
    }
}

/// The pass that was granted, or why none was.
pub fn granted(answer: &Answer<'_>, now: Now) -> Result<Pass, Ruling> {
    let json = answer.json();
    let token = json["access_token"].as_str();
    let token = token.filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_graphic()));
    let lifetime = json["expires_in"].as_i64().filter(|it| *it > 0);
    if let (200, Some(token), Some(lifetime)) = (answer.status, token, lifetime) {
        let lifetime = lifetime.min(24 * 3600);
        let early = RENEW_BEFORE_SECONDS.min(lifetime / 2);
        return Ok(Pass {
            authorization: format!("Bearer {token}"),
            renew_at: now.unix_seconds() + lifetime - early,
            ends_at: now.unix_seconds() + lifetime,
        });
    }
    let verdict = match answer.status {
        429 | 500.. | 200 => answer.passing(now),
        _ => Verdict::APP_BROKEN,
    };
    let reason = json["error"].as_str().unwrap_or_default();
    Err(Ruling::new(verdict, word_of(reason, answer.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::address::bytes_of;
    use crate::push::providers::kit::{NOW, answer, head, now, rows, shown};

    fn account() -> ServiceAccount {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        let file = json!({
            "type": "service_account", "client_email": "a@p.iam.gserviceaccount.com",
            "private_key": key.serialize_pem(), "private_key_id": "k1", "project_id": "p",
            "token_uri": "https://oauth2.googleapis.com/token",
        });
        ServiceAccount::parse(file.to_string().as_bytes()).expect("an account")
    }

    #[test]
    fn an_assertion_is_what_google_asks_for() {
        let request = account().request(now()).expect("a request");
        let expected = [
            "POST https://oauth2.googleapis.com/token",
            "content-type: application/x-www-form-urlencoded",
        ];
        assert_eq!(head(&request), expected);
        let body = String::from_utf8(request.body).expect("text");
        let prefix = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
        let parts: Vec<&str> = body
            .strip_prefix(prefix)
            .expect("a form")
            .split('.')
            .collect();
        let part = |at: usize| -> serde_json::Value {
            serde_json::from_slice(&bytes_of(parts[at]).expect("base64url")).expect("JSON")
        };
        assert_eq!(part(0), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let claims = json!({
            "iss": "a@p.iam.gserviceaccount.com", "aud": "https://oauth2.googleapis.com/token",
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "iat": NOW, "exp": NOW + 3600,
        });
        assert_eq!(part(1), claims);
    }

    #[test]
    fn a_pass_is_renewed_five_minutes_before_it_ends() {
        let body = r#"{"access_token":"ya29.x","expires_in":3599,"token_type":"Bearer"}"#;
        let pass = granted(&answer("200", &[], body), now()).expect("a pass");
        assert_eq!(pass.authorization, "Bearer ya29.x");
        assert_eq!((pass.renew_at, pass.ends_at), (NOW + 3299, NOW + 3599));
    }

    #[test]
    fn what_was_not_granted_is_ruled() {
        let table = r#"
            | 400 | {"error":"invalid_grant"} | AuthBroken |
            | 401 | {"error":"invalid_client"} | AuthBroken |
            | 429 | {} | Retry |
            | 500 | - | Retry |
            | 503 | - | Retry |
            | 200 | {"access_token":"a\r\nb","expires_in":1} | Retry |
        "#;
        for row in rows(table) {
            let ruling = granted(&answer(row[0], &[], row[1]), now()).expect_err(row[1]);
            assert_eq!(shown(&ruling), row[2], "{row:?}");
        }
    }

    #[test]
    fn a_file_that_is_none_is_refused_without_being_quoted() {
        for file in ["", "{}", r#"{"private_key":"secret"}"#] {
            let error = ServiceAccount::parse(file.as_bytes()).expect_err(file);
            assert!(error.starts_with("this is no service account"), "{error}");
            assert!(!error.contains("secret"));
        }
    }
}
