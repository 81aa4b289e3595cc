//! The part of the HTTP API that the courier answers: devices, notifications and credentials. It knows which paths
//! these are, passes the call on and the answer back; what they mean is `node/courier/gateway`'s.

use std::borrow::Cow;

use crate::app::application::{Asked, Cx, Unavailable};
use crate::base::ids::ConnId;
use crate::wire::bus::Question;
use crate::wire::gateway::{GatewayAnswer, GatewayCall};
use crate::wire::http::{Request, Response};

/// The `Allow` of such a path. The courier knows which of them does something.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whether a path of an app's API is the courier's.
pub fn is_for_courier(segments: &[&str]) -> bool {
    matches!(
        segments.first(),
        Some(&("credentials" | "devices" | "notify" | "notifications"))
    )
}

/// Passes the call on; `key` has the role for it.
pub fn ask(
    conn: ConnId,
    (app_id, key): (&str, &str),
    (request, segments): (&Request<'_>, &[&str]),
    query: &[(Cow<'_, str>, Cow<'_, str>)],
    cx: &mut Cx<'_>,
) -> Result<(), Unavailable> {
    let query = query.iter().map(|(name, value)| (&**name, &**value));
    let key_of_call = request.header("idempotency-key");
    let key_of_call = key_of_call.map(|value| ("idempotency_key", value));
    let call = GatewayCall {
        app_id,
        key,
        method: if request.method == "HEAD" {
            "GET"
        } else {
            request.method
        },
        segments: segments.to_vec(),
        query: query
            .filter(|(name, _)| !is_of_signature(name))
            .chain(key_of_call)
            .collect(),
        body: request.body,
    };
    let question = Question::Gateway(call);
    cx.outlet.ask(conn, Asked::Question(question), cx.now)
}

fn is_of_signature(name: &str) -> bool {
    name == "body_md5" || name.starts_with("auth_")
}

/// A call that the server itself makes for a client.
pub struct OwnCall {
    app_id: String,
    id: String,
    body: String,
}

/// A user acknowledges a notification.
pub fn acknowledgement(app_id: &str, id: &str, user_id: &str) -> OwnCall {
    OwnCall {
        app_id: app_id.to_string(),
        id: id.to_string(),
        body: serde_json::json!({ "user_id": user_id }).to_string(),
    }
}

impl OwnCall {
    pub fn as_call(&self) -> GatewayCall<'_> {
        GatewayCall {
            app_id: &self.app_id,
            key: "",
            method: "POST",
            segments: vec!["notifications", &self.id, "ack"],
            query: Vec::new(),
            body: self.body.as_bytes(),
        }
    }
}

/// The courier's answer as it goes out.
pub fn response(answer: &GatewayAnswer<'_>) -> Response {
    let response = Response::json(answer.status, answer.body.to_owned());
    match answer.retry_seconds {
        Some(seconds) => response.with_header("Retry-After", seconds.to_string()),
        None => response,
    }
}
