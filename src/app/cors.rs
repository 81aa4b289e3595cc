//! Which pages of other origins may read answers (the CORS protocol of the Fetch standard), the
//! same for every application: an application answers OPTIONS with the methods it allows, and what
//! browsers want besides is added here.

use std::borrow::Cow;

use crate::wire::http::{Request, Response};
use crate::wire::origin::is_listed;

/// What a page may send besides what it always may.
const FIELDS: &str = "Authorization, Content-Type, Last-Event-ID";
/// How long browsers may remember a preflight.
const MAX_AGE_SECONDS: &str = "600";

/// The allow-list of a server; an empty one allows nobody.
#[derive(Clone, Debug, Default)]
pub struct Cors(Vec<String>);

impl Cors {
    pub fn new(origins: Vec<String>) -> Cors {
        Cors(origins)
    }

    /// What to say in `Access-Control-Allow-Origin`; `None` when nothing is to be said.
    pub fn allowed(&self, request: &Request<'_>) -> Option<Cow<'static, str>> {
        if self.0.is_empty() {
            return None;
        }
        let origin = request.header("origin")?;
        if self.0.iter().any(|entry| entry == "*") {
            return Some(Cow::Borrowed("*"));
        }
        is_listed(&self.0, origin).then(|| Cow::Owned(origin.to_owned()))
    }
}

/// What to say when any of these origins may connect; an empty list means all. `None` when the
/// request's is not among them.
pub fn of_app(origins: &[String], request: &Request<'_>) -> Option<Cow<'static, str>> {
    if origins.is_empty() {
        return Some(Cow::Borrowed("*"));
    }
    let origin = request.header("origin")?;
    is_listed(origins, origin).then(|| Cow::Owned(origin.to_owned()))
}

/// Completes the answer to a request whose origin is allowed.
pub fn allow(response: &mut Response, origin: Cow<'static, str>) {
    if origin != "*" {
        // The answer to another origin differs.
        response.headers.push(("Vary", "Origin".into()));
    }
    response
        .headers
        .push(("Access-Control-Allow-Origin", origin));
    if response.status != 204 {
        return;
    }
    let allow = response.headers.iter().find(|(name, _)| *name == "Allow");
    if let Some(methods) = allow.map(|(_, methods)| methods.clone()) {
        let more = [
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", FIELDS.into()),
            ("Access-Control-Max-Age", MAX_AGE_SECONDS.into()),
        ];
        response.headers.extend(more);
    }
}

/// The answer to OPTIONS (RFC 9110 section 9.3.7).
pub fn options(allowed: &'static str) -> Response {
    Response::empty(204).with_header("Allow", allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str], lines: &[u8]) -> Option<String> {
        let request = Request {
            method: "GET",
            target: "/",
            body: b"",
            lines,
            websocket: false,
        };
        let cors = Cors::new(list.iter().map(|entry| entry.to_string()).collect());
        cors.allowed(&request).map(Cow::into_owned)
    }

    #[test]
    fn only_listed_origins_are_told_that_they_may_read() {
        let origin = b"Origin: https://a.example\r\n";
        assert_eq!(allowed(&[], origin), None);
        assert_eq!(allowed(&["*"], b"Host: x\r\n"), None);
        assert_eq!(allowed(&["*"], origin).as_deref(), Some("*"));
        assert_eq!(allowed(&["https://b.example"], origin), None);
        let listed = allowed(&["https://*.example", "https://b"], origin);
        assert_eq!(listed.as_deref(), Some("https://a.example"));
    }

    #[test]
    fn a_preflight_learns_the_methods_and_fields() {
        let mut response = options("GET, OPTIONS");
        allow(&mut response, "https://a.example".into());
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "Allow",
                "Vary",
                "Access-Control-Allow-Origin",
                "Access-Control-Allow-Methods",
                "Access-Control-Allow-Headers",
                "Access-Control-Max-Age"
            ]
        );
        let mut response = Response::text(200, "a");
        allow(&mut response, "*".into());
        assert_eq!(response.headers.len(), 1);
    }
}
