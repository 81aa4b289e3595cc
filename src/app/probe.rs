//! Health probes, the same on every listener. `/healthz`: this worker turns. `/readyz`: all
//! workers are linked to the switchboard, so that a publish reaches everybody.

use crate::app::application::{Asked, Cx, Unavailable};
use crate::app::cors;
use crate::base::ids::ConnId;
use crate::wire::bus::{Answer, Question};
use crate::wire::http::{Request, Response};

/// The `Allow` of what can only be read.
pub const READ_METHODS: &str = "GET, HEAD, OPTIONS";

/// Whether `request` was a probe and has been taken care of; for `/readyz` the answer comes later,
/// through `ready`.
pub enum Probe {
    NotOne,
    Answered,
    /// `answered` will follow and is to be passed to `ready`.
    Asked,
}

pub fn request(conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) -> Probe {
    let path = request.path();
    if path != "/healthz" && path != "/readyz" {
        return Probe::NotOne;
    }
    if !matches!(request.method, "GET" | "HEAD") {
        let response = match request.method {
            "OPTIONS" => cors::options(READ_METHODS),
            _ => method_not_allowed(READ_METHODS),
        };
        cx.outlet.reply(conn, response);
        return Probe::Answered;
    }
    if path == "/healthz" {
        cx.outlet
            .reply(conn, Response::json(200, "{\"alive\":true}"));
        return Probe::Answered;
    }
    match cx
        .outlet
        .ask(conn, Asked::Question(Question::Ready), cx.now)
    {
        Ok(()) => Probe::Asked,
        Err(Unavailable) => {
            cx.outlet.reply(conn, ready(Err(Unavailable)));
            Probe::Answered
        }
    }
}

/// The answer to `/readyz`.
pub fn ready(answer: Result<Answer<'_>, Unavailable>) -> Response {
    match answer {
        Ok(Answer::Ready {
            linked,
            expected,
            joined,
        }) => {
            let ready = linked >= expected;
            // A server that is away from its cluster serves its clients all the same.
            let cluster = match joined {
                None => "",
                Some(true) => ",\"cluster\":\"joined\"",
                Some(false) => ",\"cluster\":\"away\"",
            };
            let body = format!(
                "{{\"ready\":{ready},\"switchboard\":true,\"linked\":{linked},\
                 \"expected\":{expected}{cluster}}}"
            );
            match ready {
                true => Response::json(200, body),
                false => Response::json(503, body).with_header("Retry-After", "1"),
            }
        }
        _ => Response::json(503, "{\"ready\":false,\"switchboard\":false}")
            .with_header("Retry-After", "1"),
    }
}

pub fn method_not_allowed(allowed: &'static str) -> Response {
    Response::error(405, "This method is not allowed here").with_header("Allow", allowed)
}
