//! Readers of Server-Sent Events: `GET …/app/KEY/sse?channels=a,b`. They name their channels in the
//! URL and have nothing to say afterwards. Since their socket id is not known beforehand, channels
//! that need a signature need one over the whole URL, with an end to its validity; there is no other
//! way into them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::app::application::{Cx, Denial};
use crate::app::apps::{App, Apps, Role};
use crate::app::cors;
use crate::app::probe::method_not_allowed;
use crate::base::ids::ConnId;
use crate::base::names::{ChannelKind, is_name};
use crate::wire::bus::Position;
use crate::wire::event_stream;
use crate::wire::http::{Request, Response};
use crate::wire::pusher::Subscribe;
use crate::wire::query::parse_query;
use crate::wire::sign::{SignatureFault, SignedRequest};

const METHODS: &str = "GET, OPTIONS";
/// A reader whose stream ended comes back after this at least, and twice this at most, so that
/// those of one worker do not all come at once.
const RETRY_MS: u64 = 1000;

/// What a reader may have.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub app: Arc<App>,
    pub channels: Vec<String>,
    /// For presence channels, as JSON.
    pub channel_data: Option<String>,
    /// Whether the app's backend knows the reader.
    pub signed: bool,
    /// The last position that it has, and of which channel: the `Last-Event-ID` of a reader whose
    /// stream broke.
    pub last: Option<(String, Position)>,
}

impl Wanted {
    /// As whom it subscribes to what, and from where on.
    pub fn subscriptions(&self) -> Vec<Subscribe> {
        let subscribe = |channel: &String| {
            let subscribe = Subscribe::new(channel.clone(), self.channel_data.clone());
            match &self.last {
                Some((last, position)) if last == channel => subscribe.resuming(*position),
                _ => subscribe,
            }
        };
        self.channels.iter().map(subscribe).collect()
    }
}

/// The app key in `…/app/KEY/sse`.
pub fn key_of(path: &str) -> Option<&str> {
    let mut segments = path.strip_suffix("/sse")?.rsplit('/');
    let key = segments.next().filter(|key| !key.is_empty())?;
    (segments.next() == Some("app")).then_some(key)
}

/// What the reader is to get; `None`: the request was answered.
pub fn request(
    conn: ConnId,
    request: &Request<'_>,
    key: &str,
    apps: &Apps,
    cx: &mut Cx<'_>,
) -> Option<Wanted> {
    let app = apps.by_key(key);
    let origins = app.map(|app| &app.origins[..]);
    if let Some(origin) = cors::of_app(origins.unwrap_or(&[]), request) {
        cx.outlet.allow_origin(conn, origin);
    }
    let wanted = match request.method {
        "OPTIONS" => Err(cors::options(METHODS)),
        "GET" => {
            let app = app.ok_or_else(|| Response::error(404, "There is no app with this key"));
            app.and_then(|app| admit(conn, request, (key, app), cx))
        }
        _ => Err(method_not_allowed(METHODS)),
    };
    wanted.map_err(|answer| cx.outlet.reply(conn, answer)).ok()
}

fn admit(
    conn: ConnId,
    request: &Request<'_>,
    (key, app): (&str, &Arc<App>),
    cx: &mut Cx<'_>,
) -> Result<Wanted, Response> {
    if !app.admits(request.header("origin")) {
        return Err(Response::error(403, "Origin is not allowed"));
    }
    let query = parse_query(request.query())
        .ok_or_else(|| Response::error(400, "The query is not well-formed"))?;
    // What is signed is this path, whatever prefix a proxy put before it.
    let path = format!("/app/{key}/sse");
    let signed = SignedRequest {
        method: request.method,
        path: &path,
        query: &query,
        body: b"",
        unix_seconds: cx.now.unix_seconds(),
    };
    let channels = channels(signed.parameter("channels").unwrap_or(""), cx)?;
    let guarded = |name: &&String| ChannelKind::of(name).needs_auth();
    let is_signed = signed.parameter("auth_signature").is_some();
    if is_signed {
        verify(&signed, app).map_err(|why| deny(conn, &signed, app, &why, cx))?;
    } else if let Some(name) = channels.iter().find(guarded) {
        let text = format!("To read {name}, the URL has to be signed by the app's server");
        return Err(Response::error(401, &text));
    }
    let channel_data = signed.parameter("channel_data").map(str::to_owned);
    let last = request.header("last-event-id");
    let last = last.and_then(event_stream::read_id);
    Ok(Wanted {
        app: app.clone(),
        channels,
        channel_data: channel_data.filter(|_| is_signed),
        signed: is_signed,
        last: last.map(|(channel, position)| (channel.to_owned(), position)),
    })
}

/// By a key that may sign for clients.
fn verify(signed: &SignedRequest<'_>, app: &App) -> Result<(), Cow<'static, str>> {
    let key = signed.parameter("auth_key").and_then(|key| app.key(key));
    let key = key.ok_or("auth_key does not belong to this app")?;
    if !key.may(Role::Publish) {
        return Err("The key may not sign for clients".into());
    }
    let verified = signed.verify_until(key.secret.expose());
    verified.map_err(SignatureFault::text)
}

fn deny(
    conn: ConnId,
    signed: &SignedRequest<'_>,
    app: &App,
    why: &str,
    cx: &mut Cx<'_>,
) -> Response {
    cx.counters.signatures_refused += 1;
    let denial = Denial {
        what: signed.path,
        key: app.known_key(signed.parameter("auth_key")),
        why,
    };
    cx.denied(conn, &denial);
    Response::error(401, why)
}

fn channels(list: &str, cx: &Cx<'_>) -> Result<Vec<String>, Response> {
    let name_max = cx.limits.channel_name_bytes;
    let names: Vec<&str> = list.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.len() > cx.limits.channels_per_connection {
        let most = cx.limits.channels_per_connection;
        let text = format!("channels must name 1 to {most} channels, divided by commas");
        return Err(Response::error(400, &text));
    }
    if let Some(bad) = names.iter().find(|name| !is_name(name, name_max)) {
        return Err(Response::error(400, &format!("{bad} is no channel name")));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The beginning of a reader's stream.
pub fn head(cx: &mut Cx<'_>) -> Response {
    let retry = event_stream::retry(RETRY_MS + cx.dice.below(RETRY_MS));
    Response::new(200, event_stream::CONTENT_TYPE, retry)
        .with_header("Cache-Control", "no-store, no-transform")
        .with_header("X-Accel-Buffering", "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_app() {
        assert_eq!(key_of("/app/k/sse"), Some("k"));
        assert_eq!(key_of("/prefix/app/k/sse"), Some("k"));
        for other in ["/app/sse", "/app//sse", "/apps/k/sse", "/app/k/sse/", "sse"] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }
}
