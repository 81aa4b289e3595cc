//! Who calls the HTTP API: which app and key, shown by a signature or by the secret itself, and what
//! that key may do. Invariant: whoever is refused is counted and audited, and told nothing that
//! would help to guess.

use std::borrow::Cow;

use crate::app::application::{Cx, Denial};
use crate::app::apps::{App, AppKey, Apps, Role};
use crate::app::gateway;
use crate::base::ids::ConnId;
use crate::wire::bus::{Once, Terms};
use crate::wire::http::{Request, Response};
use crate::wire::sign::{SignatureFault, SignedRequest, TIMESTAMP_WINDOW_SECONDS};

/// A caller that has shown to hold a key.
pub struct Caller<'a> {
    pub app: &'a App,
    key: &'a AppKey,
    /// With a signature, where the app takes each for one time.
    once: Option<Once>,
}

/// Why a caller is not let in.
type Denied = Cow<'static, str>;

impl<'a> Caller<'a> {
    /// Reads who calls; `app` is the one that the path names, if it names one. Otherwise the answer
    /// that refuses.
    pub fn identify(
        conn: ConnId,
        request: &Request<'_>,
        signed: &SignedRequest<'_>,
        (apps, app): (&'a Apps, Option<&'a App>),
        cx: &mut Cx<'_>,
    ) -> Result<Caller<'a>, Response> {
        let app = app.map_or_else(|| app_of_key(signed, apps), Ok);
        let caller = app.and_then(|app| authenticate(request, signed, app));
        caller.map_err(|why| deny(conn, signed, apps, &why, cx))
    }

    /// Refuses a caller whose key lacks the role that the path asks for, whatever the method.
    pub fn check_role(
        &self,
        conn: ConnId,
        request: &Request<'_>,
        segments: &[&str],
        cx: &mut Cx<'_>,
    ) -> Result<(), Response> {
        let Some(role) = role_for(segments).filter(|role| !self.key.may(*role)) else {
            return Ok(());
        };
        let why = format!("The key lacks the role \"{}\"", role.word());
        cx.counters.calls_forbidden += 1;
        let denial = Denial {
            what: request.path(),
            key: &self.key.key,
            why: &why,
        };
        cx.denied(conn, &denial);
        Err(Response::error(403, &why))
    }

    /// The public half of its key.
    pub fn key(&self) -> &'a str {
        &self.key.key
    }

    /// On what terms its events are published.
    pub fn terms(&self) -> Terms {
        Terms {
            rates: self.app.publish_rates(self.key),
            once: self.once.clone(),
        }
    }

    /// For what is no event: not counted against a rate.
    pub fn unrated_terms(&self) -> Terms {
        Terms {
            rates: Vec::new(),
            once: self.once.clone(),
        }
    }
}

fn role_for(segments: &[&str]) -> Option<Role> {
    match segments {
        ["events" | "batch_events"] => Some(Role::Publish),
        ["channels"] | ["channels", _] | ["channels", _, "users" | "history"] => Some(Role::Read),
        ["users", _, "terminate_connections"] => Some(Role::Admin),
        ["credentials", ..] => Some(Role::Admin),
        _ if gateway::is_for_courier(segments) => Some(Role::Push),
        _ => None,
    }
}

/// The app of a path that does not name one.
fn app_of_key<'a>(signed: &SignedRequest<'_>, apps: &'a Apps) -> Result<&'a App, Denied> {
    let key = signed.parameter("auth_key");
    let key = key.ok_or("auth_key is missing")?;
    let app = apps.by_key(key).map(|app| &**app);
    Ok(app.ok_or("auth_key does not belong to any app")?)
}

/// The key that the caller has shown to hold: by a signature over the request, or by its secret
/// itself as a bearer token, for callers without an SDK.
fn authenticate<'a>(
    request: &Request<'_>,
    signed: &SignedRequest<'_>,
    app: &'a App,
) -> Result<Caller<'a>, Denied> {
    // Another scheme is a proxy's business, not ours.
    let bearer = request
        .header("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if let Some((_, token)) = bearer {
        let key = app.key_of_secret(token.trim());
        let key = key.ok_or("The bearer token is no secret of this app")?;
        let once = None;
        return Ok(Caller { app, key, once });
    }
    let key = signed.parameter("auth_key");
    let key = key.ok_or("auth_key is missing")?;
    let key = app.key(key);
    let key = key.ok_or("auth_key does not belong to this app")?;
    let verified = signed.verify(key.secret.expose());
    let timestamp = verified.map_err(SignatureFault::text)?;
    let once = app.replay_guard.then(|| Once {
        signature: signed
            .parameter("auth_signature")
            .unwrap_or_default()
            .to_owned(),
        until: timestamp + TIMESTAMP_WINDOW_SECONDS,
    });
    Ok(Caller { app, key, once })
}

fn deny(
    conn: ConnId,
    signed: &SignedRequest<'_>,
    apps: &Apps,
    why: &str,
    cx: &mut Cx<'_>,
) -> Response {
    cx.counters.calls_unauthorised += 1;
    let denial = Denial {
        what: signed.path,
        key: apps.known_key(signed.parameter("auth_key")),
        why,
    };
    cx.denied(conn, &denial);
    Response::error(401, why).with_header("WWW-Authenticate", "Bearer")
}
