//! The `metrics` handler: the numbers of the whole server at `/metrics`, whichever worker is asked.
//! Holds nothing: they are gathered for each question.

use crate::app::application::{Application, Cx, Unavailable};
use crate::app::cors;
use crate::app::exposition::{CONTENT_TYPE, Page};
use crate::app::probe::{self, Probe, READ_METHODS};
use crate::base::ids::ConnId;
use crate::wire::bus::Answer;
use crate::wire::http::{Request, Response};

/// See the file's head.
pub struct Metrics;

impl Application for Metrics {
    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) {
        if let Probe::Answered | Probe::Asked = probe::request(conn, request, cx) {
            return;
        }
        let response = match (request.path(), request.method) {
            ("/metrics", "GET" | "HEAD") => return cx.outlet.gather(conn),
            ("/metrics", "OPTIONS") => cors::options(READ_METHODS),
            ("/metrics", _) => probe::method_not_allowed(READ_METHODS),
            _ => Response::error(404, "There is /metrics, /healthz and /readyz"),
        };
        cx.outlet.reply(conn, response);
    }

    fn gathered(&mut self, conn: ConnId, page: Result<&Page<'_>, Unavailable>, cx: &mut Cx<'_>) {
        let response = match page.map(Page::text) {
            Ok(text) => Response::new(200, CONTENT_TYPE, text.clone()),
            Err(Unavailable) => Response::error(503, "The numbers could not be gathered in time")
                .with_header("Retry-After", "1"),
        };
        cx.outlet.reply(conn, response);
    }

    fn answered(&mut self, conn: ConnId, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>) {
        cx.outlet.reply(conn, probe::ready(answer));
    }
}
