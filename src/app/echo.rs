//! The `echo` handler: every message and every HTTP POST comes back as it was. Test
//! suites and load generators need it; so does whoever wants to see whether bytes get through.

use bytes::Bytes;

use crate::app::application::{Application, Cx, Message, Unavailable};
use crate::app::cors;
use crate::app::probe::{self, Probe};
use crate::base::ids::ConnId;
use crate::wire::bus::Answer;
use crate::wire::http::{Request, Response};

const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// Has no state: everything it needs is in the call.
pub struct Echo;

impl Application for Echo {
    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) {
        if request.wants_websocket() {
            return cx.outlet.upgrade(conn);
        }
        if let Probe::Answered | Probe::Asked = probe::request(conn, request, cx) {
            return;
        }
        let response = match request.method {
            "POST" => {
                let mut response = Response::text(200, "");
                response.content_type = "application/octet-stream";
                response.body = Bytes::copy_from_slice(request.body);
                response
            }
            "GET" | "HEAD" => {
                Response::text(200, "POST something, or open a WebSocket: it comes back.\n")
            }
            "OPTIONS" => cors::options(METHODS),
            _ => probe::method_not_allowed(METHODS),
        };
        cx.outlet.reply(conn, response);
    }

    fn message(&mut self, conn: ConnId, message: Message<'_>, cx: &mut Cx<'_>) {
        cx.outlet.send(conn, message);
    }

    fn answered(&mut self, conn: ConnId, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>) {
        cx.outlet.reply(conn, probe::ready(answer));
    }
}
