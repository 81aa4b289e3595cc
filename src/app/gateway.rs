//! The part of the HTTP API that the courier answers: devices and notifications. It knows which paths
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
        Some(&("devices" | "notify" | "notifications"))
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
    let call = GatewayCall {
        app_id,
        key,
        method: if request.method == "HEAD" {
            "GET"
        } else {
            request.method
        },
        segments: segments.to_vec(),
        query: query.filter(|(name, _)| !is_of_signature(name)).collect(),
        body: request.body,
    };
    let question = Question::Gateway(call);
    cx.outlet.ask(conn, Asked::Question(question), cx.now)
}

fn is_of_signature(name: &str) -> bool {
    name == "body_md5" || name.starts_with("auth_")
}

/// The courier's answer as it goes out.
pub fn response(answer: &GatewayAnswer<'_>) -> Response {
    let response = Response::json(answer.status, answer.body.to_owned());
    match answer.retry_seconds {
        Some(seconds) => response.with_header("Retry-After", seconds.to_string()),
        None => response,
    }
}
