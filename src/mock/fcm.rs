//! Firebase Cloud Messaging, HTTP v1 (Firebase, "Method: projects.messages.send" and "FCM error
//! codes"): access tokens for assertions of a service account (RFC 7523), messages, and who
//! subscribes to topics, in the way of today and in that of the Instance ID API. Owns the access tokens it gave out. What a message may say is `fcm_message`'s.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mock::fcm_message;
use crate::mock::jwt::{Jwt, Known, PublicKey};
use crate::mock::line::readable;
use crate::mock::{Asked, Caller, Judged, Kind, Provider, Reply, Sight, World};
use crate::wire::query::{decode_path, parse_query};

/// Every code with its status. Words in small letters are answers without an FcmError, which come
/// from what stands before FCM.
pub const WORDS: &[(&str, u16)] = &[
    ("ok", 200),
    ("INVALID_ARGUMENT", 400),
    ("invalid-token", 400),
    ("invalid-grant", 400),
    ("THIRD_PARTY_AUTH_ERROR", 401),
    ("APNS_AUTH_ERROR", 401),
    ("unauthenticated", 401),
    ("SENDER_ID_MISMATCH", 403),
    ("permission-denied", 403),
    ("UNREGISTERED", 404),
    ("not-found", 404),
    ("QUOTA_EXCEEDED", 429),
    ("device-quota", 429),
    ("topic-quota", 429),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
];

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];
/// An assertion lasts no longer, in seconds.
const ASSERTION_SECONDS: i64 = 3600;
const ACCESS_SECONDS: i64 = 3599;
const SKEW: i64 = 60;
/// The oldest is forgotten, and its holder asks anew.
const ACCESS_TOKENS: usize = 1000;
/// Tokens in one call of the Instance ID API.
const INSTANCES: usize = 1000;

/// How an FCM is set up.
#[derive(Clone, Debug, Default)]
pub struct FcmOptions {
    /// Who signs assertions; without it every signature is taken.
    pub key: Option<PublicKey>,
    /// The account's `client_email`.
    pub email: Option<String>,
    /// Without it every project exists.
    pub project: Option<String>,
    /// Every access token is good, whoever gave it out.
    pub any_access_token: bool,
}

/// See the file's head.
pub struct Fcm {
    options: FcmOptions,
    /// When each that was given out ends.
    access: BTreeMap<String, i64>,
    assertions: Known<bool>,
}

impl Fcm {
    pub fn new(options: FcmOptions) -> Fcm {
        Fcm {
            options,
            access: BTreeMap::new(),
            assertions: Known::default(),
        }
    }

    /// RFC 6749 section 5 and RFC 7523 section 3.1.
    fn grant(&mut self, asked: &Asked, world: &mut World<'_>) -> Reply {
        let refused = |error: &str, why: &str| {
            let body = json!({ "error": error, "error_description": why });
            Reply::json(400, &body).because(format!("{error}: {why}"))
        };
        let form = std::str::from_utf8(&asked.body).ok().and_then(parse_query);
        let form = form.unwrap_or_default();
        let value = |name: &str| {
            form.iter()
                .find(|(own, _)| own == name)
                .map(|(_, it)| &**it)
        };
        if value("grant_type") != Some(GRANT) {
            return refused("unsupported_grant_type", "grant_type is not jwt-bearer");
        }
        let assertion = value("assertion").unwrap_or_default();
        if let Err(why) = self.check_assertion(assertion, asked, world.now.unix_seconds()) {
            return refused("invalid_grant", why);
        }
        let token = format!("ya29.mock-{}", world.uuid());
        let now = world.now.unix_seconds();
        if self.access.len() == ACCESS_TOKENS {
            let oldest = self.access.iter().min_by_key(|(_, ends)| **ends);
            let oldest = oldest.map(|(token, _)| token.clone());
            oldest.map(|token| self.access.remove(&token));
        }
        self.access.insert(token.clone(), now + ACCESS_SECONDS);
        Reply::json(
            200,
            &json!({"access_token": token, "expires_in": ACCESS_SECONDS, "token_type": "Bearer"}),
        )
    }

    fn check_assertion(
        &mut self,
        assertion: &str,
        asked: &Asked,
        now: i64,
    ) -> Result<(), &'static str> {
        let jwt = Jwt::parse(assertion).ok_or("the assertion is no JWT")?;
        if jwt.header["alg"] != "RS256" {
            return Err("the assertion is not signed with RS256");
        }
        let key = &self.options.key;
        let is_signed = || key.as_ref().is_none_or(|key| key.verifies(assertion));
        if !self.assertions.get(assertion, is_signed) {
            return Err("Invalid JWT Signature.");
        }
        let email = jwt.claims["iss"].as_str().ok_or("there is no iss")?;
        if self.options.email.as_ref().is_some_and(|own| own != email) {
            return Err("Invalid grant: account not found");
        }
        let scopes = jwt.claims["scope"].as_str().unwrap_or_default();
        if !scopes.split(' ').any(|scope| SCOPES.contains(&scope)) {
            return Err("no scope allows to send messages");
        }
        let audience = jwt.claims["aud"].as_str().unwrap_or_default();
        if !audience.ends_with(&format!("{}{}", asked.authority, asked.path())) {
            return Err("aud is not this URL");
        }
        let times = (jwt.seconds("iat"), jwt.seconds("exp"));
        let (Some(issued), Some(expires)) = times else {
            return Err("there is no iat or no exp");
        };
        let lasts = expires - issued;
        if !(1..=ASSERTION_SECONDS).contains(&lasts) || issued > now + SKEW || expires < now {
            return Err("Token must be a short-lived token and in a reasonable timeframe");
        }
        Ok(())
    }

    /// The word of the refusal, if the access token is not good.
    fn authenticate(&self, asked: &Asked, now: i64) -> Result<(), Reply> {
        let token = asked.authorization("bearer").filter(|it| !it.is_empty());
        let good = token.is_some_and(|token| {
            let ends = self.access.get(token);
            self.options.any_access_token || ends.is_some_and(|ends| *ends > now)
        });
        match good {
            true => Ok(()),
            false => Err(said(401, "unauthenticated")),
        }
    }

    fn send(
        &mut self,
        project: &str,
        asked: &Asked,
        sight: &Sight,
        world: &mut World<'_>,
    ) -> Judged {
        if let Err(refused) = self.authenticate(asked, world.now.unix_seconds()) {
            return refused.into();
        }
        if self
            .options
            .project
            .as_ref()
            .is_some_and(|own| own != project)
        {
            return said(404, "not-found").into();
        }
        let is_dry = match fcm_message::check(&sight.payload) {
            Ok(is_dry) => is_dry,
            Err(violation) => return invalid(&violation.field, &violation.why).into(),
        };
        let id = match is_dry {
            true => "fake_message_id".to_string(),
            false => world.uuid(),
        };
        accepted(project, &id).into()
    }

    /// `projects.registrations.topicSubscriptions`, which took the place of the Instance ID API.
    fn register(&self, place: &Registration, asked: &Asked, now: i64) -> Reply {
        if let Err(refused) = self.authenticate(asked, now) {
            return refused;
        }
        if !fcm_message::is_token(&place.token) {
            return said(400, "invalid-token");
        }
        if !fcm_message::is_topic(&place.topic) {
            return invalid("topic_name", "Malformed topic name");
        }
        let name = json!({ "name": asked.path().trim_start_matches("/v1/") });
        Reply::json(200, &name)
    }

    /// `iid/v1:batchAdd` and `batchRemove`.
    fn subscribe(&self, asked: &Asked, sight: &Sight, now: i64) -> Reply {
        if asked.field("access_token_auth") != Some("true") {
            return said(401, "unauthenticated");
        }
        if let Err(refused) = self.authenticate(asked, now) {
            return refused;
        }
        let topic = sight.payload["to"].as_str().unwrap_or_default();
        let topic = topic.strip_prefix("/topics/").unwrap_or_default();
        let tokens = sight.payload["registration_tokens"].as_array();
        let tokens = tokens.filter(|all| (1..=INSTANCES).contains(&all.len()));
        let (Some(tokens), true) = (tokens, fcm_message::is_topic(topic)) else {
            return Reply::json(400, &json!({"error": "InvalidTopicName"}))
                .because("InvalidTopicName");
        };
        let results: Vec<Value> = tokens
            .iter()
            .map(
                |token| match token.as_str().is_some_and(fcm_message::is_token) {
                    true => json!({}),
                    false => json!({"error": "INVALID_ARGUMENT"}),
                },
            )
            .collect();
        Reply::json(200, &json!({ "results": results }))
    }
}

fn accepted(project: &str, id: &str) -> Reply {
    Reply::json(
        200,
        &json!({ "name": format!("projects/{project}/messages/{id}") }),
    )
}

/// The project in `/v1/projects/PROJECT/messages:send`.
fn project(path: &str) -> Option<&str> {
    let project = path.strip_prefix("/v1/projects/")?;
    let project = project.strip_suffix("/messages:send")?;
    (!project.is_empty() && !project.contains('/')).then_some(project)
}

/// A device and a topic.
struct Registration {
    token: String,
    topic: String,
}

/// `POST …/registrations/TOKEN/topicSubscriptions?topic_name=TOPIC`, or `DELETE` with the topic in the
/// path.
fn registration(asked: &Asked) -> Option<Registration> {
    let rest = asked.path().strip_prefix("/v1/projects/")?;
    let (_, rest) = rest.split_once("/registrations/")?;
    let (token, rest) = rest.split_once("/topicSubscriptions")?;
    let query = parse_query(asked.query())?;
    let named = query.iter().find(|(name, _)| name == "topic_name");
    let topic = match (&*asked.method, rest.strip_prefix('/')) {
        ("POST", None) => named.map(|(_, topic)| topic.to_string())?,
        ("DELETE", Some(topic)) => decode_path(topic)?.into_owned(),
        _ => return None,
    };
    let token = decode_path(token)?.into_owned();
    Some(Registration { token, topic })
}

fn is_topics(path: &str) -> bool {
    matches!(path, "/iid/v1:batchAdd" | "/iid/v1:batchRemove")
}

/// A refusal of a field of the message (google.rpc.BadRequest).
fn invalid(field: &str, why: &str) -> Reply {
    let details = json!([
        fcm_error("INVALID_ARGUMENT"),
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": field, "description": why }],
        },
    ]);
    error(
        400,
        "INVALID_ARGUMENT",
        &format!("Invalid value at '{field}': {why}"),
        details,
    )
    .because(format!("INVALID_ARGUMENT: {field}: {why}"))
}

fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

fn quota(subject: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{ "subject": subject, "description": "the quota is used up" }],
    })
}

fn error(code: u16, status: &str, message: &str, details: Value) -> Reply {
    let mut error = json!({"code": code, "message": message, "status": status});
    if details.as_array().is_some_and(|all| !all.is_empty()) {
        error["details"] = details;
    }
    Reply::json(code, &json!({ "error": error }))
}

/// The answer that belongs to a word.
fn said(status: u16, word: &str) -> Reply {
    let own =
        |google: &str, message: &str| error(status, google, message, json!([fcm_error(word)]));
    let before = |google: &str, message: &str| error(status, google, message, json!([]));
    let limited = |subject: &str| {
        let details = json!([fcm_error("QUOTA_EXCEEDED"), quota(subject)]);
        error(status, "RESOURCE_EXHAUSTED", "Quota exceeded", details)
    };
    let reply = match word {
        "INVALID_ARGUMENT" => invalid("message", "the script says so"),
        "invalid-token" => error(
            status,
            "INVALID_ARGUMENT",
            "The registration token is not a valid FCM registration token",
            json!([fcm_error("INVALID_ARGUMENT")]),
        ),
        "invalid-grant" => Reply::json(status, &json!({"error": "invalid_grant"})),
        "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR" => own(
            "UNAUTHENTICATED",
            "Auth error from APNS or Web Push Service",
        ),
        "unauthenticated" => before(
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
        ),
        "SENDER_ID_MISMATCH" => own("PERMISSION_DENIED", "SenderId mismatch"),
        "permission-denied" => before("PERMISSION_DENIED", "The caller does not have permission"),
        "UNREGISTERED" => own("NOT_FOUND", "Requested entity was not found."),
        "not-found" => before("NOT_FOUND", "Requested entity was not found."),
        "QUOTA_EXCEEDED" => limited("project:mock"),
        "device-quota" => limited("device:mock"),
        "topic-quota" => limited("topic:mock"),
        "INTERNAL" => own("INTERNAL", "Internal error encountered."),
        "UNAVAILABLE" => own("UNAVAILABLE", "The service is currently unavailable."),
        "" => Reply::empty(status),
        other => error(status, other, other, json!([fcm_error(other)])),
    };
    reply.because(word)
}

impl Provider for Fcm {
    fn kind(&self) -> Kind {
        Kind::Fcm
    }

    fn sight(&mut self, asked: &Asked) -> Sight {
        let payload = readable(&asked.body);
        let message = &payload["message"];
        let targets = ["token", "fid", "topic", "condition"];
        let token = targets.iter().find_map(|name| message[*name].as_str());
        Sight {
            is_push: project(asked.path()).is_some(),
            token: token.unwrap_or_default().to_string(),
            payload,
            unreadable: None,
        }
    }

    fn judge(&mut self, _: Caller, asked: &Asked, sight: &Sight, mut world: World<'_>) -> Judged {
        if let Some(place) = registration(asked) {
            return self
                .register(&place, asked, world.now.unix_seconds())
                .into();
        }
        if asked.method != "POST" {
            return said(404, "not-found").into();
        }
        match asked.path() {
            "/token" => self.grant(asked, &mut world).into(),
            path if is_topics(path) => self
                .subscribe(asked, sight, world.now.unix_seconds())
                .into(),
            path => match project(path) {
                Some(project) => self.send(project, asked, sight, &mut world),
                None => said(404, "not-found").into(),
            },
        }
    }

    fn say(&mut self, status: u16, word: &str, asked: &Asked, mut world: World<'_>) -> Reply {
        match (word, project(asked.path())) {
            ("ok", Some(project)) => accepted(project, &world.uuid()),
            ("ok", None) => Reply::json(status, &json!({})),
            _ => said(status, word),
        }
    }
}

#[cfg(test)]
#[path = "fcm_tests.rs"]
mod tests;
