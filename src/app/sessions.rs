//! Clients that come by many requests, because something on their way lets no WebSocket through:
//! what their requests are answered before there is a session, and which pages may make them. What
//! a session is, and which worker holds it, is the worker's business.

use crate::app::application::{Cx, SessionCall};
use crate::app::apps::Apps;
use crate::app::cors;
use crate::app::probe::method_not_allowed;
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::wire::http::{Request, Response};
use crate::wire::sockjs::{self, Ask, Path};

/// The `Allow` of all their paths.
const METHODS: &str = "POST, OPTIONS";

/// The call to hand on; `None`: the request was answered. Which pages may come is what the app says,
/// as with WebSockets, and not the server's list, which is about its HTTP API.
pub fn request(
    conn: ConnId,
    request: &Request<'_>,
    path: &Path<'_>,
    apps: &Apps,
    cx: &mut Cx<'_>,
) -> Option<SessionCall> {
    let origins = apps.by_key(path.app_key).map(|app| &app.origins[..]);
    // A page may read that there is no such app.
    if let Some(origin) = cors::of_app(origins.unwrap_or(&[]), request) {
        cx.outlet.allow_origin(conn, origin);
    }
    let call = match (request.method, path.ask) {
        ("OPTIONS", _) => Err(cors::options(METHODS)),
        ("POST", Ask::Stream) => Ok(SessionCall::Stream),
        ("POST", Ask::Poll) => Ok(SessionCall::Poll),
        ("POST", Ask::Post) => match sockjs::messages(request.body) {
            Some(messages) => Ok(SessionCall::Post(messages)),
            None => Err(Response::error(400, "The body is no JSON array of strings")),
        },
        _ => Err(method_not_allowed(METHODS)),
    };
    call.map_err(|answer| cx.outlet.reply(conn, answer)).ok()
}

/// A session that ends as soon as it began: only so does the client learn why.
pub fn turned_away(close: &Close) -> Response {
    let mut lines = sockjs::OPEN.to_vec();
    if let Some((code, text)) = close.websocket() {
        lines.extend(sockjs::closing(code, &text));
    }
    Response::text(200, lines)
}
