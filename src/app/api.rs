//! The HTTP API that backends use: publish events, read channels. It finds the app, believes the
//! caller, checks the call and turns it into a question; and later the answer into a response.

use crate::app::api_body::{
    BadCall, Event, check_channel, check_user, has_users, parse_batch, parse_event, parse_info,
};
use crate::app::api_history;
use crate::app::application::{Asked, Cx, Unavailable};
use crate::app::apps::{App, Apps};
use crate::app::caller::Caller;
use crate::app::gateway;
use crate::app::probe::READ_METHODS;
use crate::base::ids::ConnId;
use crate::base::names::{is_cache, user_of};
use crate::wire::bus::{
    Answer, Cached, ChannelCounts, Content, InfoWanted, Item, Position, Question, Reach,
    RefusalReason, Terms,
};
use crate::wire::http::{Request, Response};
use crate::wire::pusher::json_string;
use crate::wire::query::{decode_path, parse_query};
use crate::wire::sign::SignedRequest;

/// The `Allow` of what can only be posted to.
const PUBLISH_METHODS: &str = "POST, OPTIONS";

/// A call that waits for the switchboard, and what its answer needs.
pub enum Call {
    /// By event, its channels if it wants info about them.
    Publish {
        batch: bool,
        wanted: Vec<(Vec<String>, InfoWanted)>,
    },
    Channels(InfoWanted),
    Channel(String, InfoWanted),
    Users,
    History,
    Terminate,
    /// The courier's.
    Gateway,
}

/// Handles a request to `/apps/…`. The call to remember, unless it was answered at once.
pub fn request(conn: ConnId, request: &Request<'_>, apps: &Apps, cx: &mut Cx<'_>) -> Option<Call> {
    match handle(conn, request, apps, cx) {
        Ok(call) => Some(call),
        Err(response) => {
            cx.outlet.reply(conn, response);
            None
        }
    }
}

fn handle(
    conn: ConnId,
    request: &Request<'_>,
    apps: &Apps,
    cx: &mut Cx<'_>,
) -> Result<Call, Response> {
    let path = request.path();
    let (app, rest) = named_app(path, apps)?;
    let query = parse_query(request.query())
        .ok_or_else(|| Response::error(400, "The query is not well-formed"))?;
    let signed = SignedRequest {
        method: request.method,
        path,
        query: &query,
        body: request.body,
        unix_seconds: cx.now.unix_seconds(),
    };
    let caller = Caller::identify(conn, request, &signed, (apps, app), cx)?;
    let app_id = &caller.app.id;
    let decoded = decode_path(rest).ok_or_else(nothing_here)?;
    let segments: Vec<&str> = decoded.split('/').collect();
    caller.check_role(conn, request, &segments, cx)?;
    let call = match (request.method, &segments[..]) {
        ("POST", ["events"]) => parse_event(app_id, request.body, cx.limits)
            .map(|event| publish(conn, vec![event], false, caller.terms(), cx)),
        ("POST", ["batch_events"]) => parse_batch(app_id, request.body, cx.limits)
            .map(|events| publish(conn, events, true, caller.terms(), cx)),
        ("GET" | "HEAD", ["channels"]) => read_channels(conn, app_id, &signed, cx),
        ("GET" | "HEAD", ["channels", name]) => read_channel(conn, app_id, name, &signed, cx),
        ("GET" | "HEAD", ["channels", name, "users"]) => read_users(conn, app_id, name, cx),
        ("GET" | "HEAD", ["channels", name, "history"]) => {
            read_history(conn, app_id, name, &signed, cx)
        }
        ("POST", ["users", user_id, "terminate_connections"]) => {
            terminate(conn, app_id, user_id, caller.unrated_terms(), cx)
        }
        _ if gateway::is_for_courier(&segments) => {
            let names = (app_id.as_str(), caller.key());
            let asked = gateway::ask(conn, names, (request, &segments), &query, cx);
            Ok(asked.map(|()| Call::Gateway))
        }
        (_, ["events" | "batch_events"] | ["users", _, "terminate_connections"]) => {
            return Err(wrong_method(PUBLISH_METHODS));
        }
        (_, ["channels"] | ["channels", _] | ["channels", _, "users" | "history"]) => {
            return Err(wrong_method(READ_METHODS));
        }
        _ => return Err(nothing_here()),
    };
    match call {
        Ok(Ok(call)) => Ok(call),
        Ok(Err(Unavailable)) => Err(unavailable(request.method == "POST", cx)),
        Err(bad) => Err(Response::error(bad.status, &bad.text)),
    }
}

fn nothing_here() -> Response {
    Response::error(404, "There is nothing at this path")
}

/// The app that the path names, and what follows in the path. The Python SDK leaves `/apps/ID` out
/// when it terminates a user's connections.
fn named_app<'p, 'a>(
    path: &'p str,
    apps: &'a Apps,
) -> Result<(Option<&'a App>, &'p str), Response> {
    if path.starts_with("/users/") && path.ends_with("/terminate_connections") {
        return Ok((None, &path[1..]));
    }
    let named = path.strip_prefix("/apps/");
    let (app_id, rest) = named
        .and_then(|path| path.split_once('/'))
        .ok_or_else(nothing_here)?;
    match apps.by_id(app_id) {
        Some(app) => Ok((Some(app), rest)),
        None => Err(Response::error(404, "There is no app with this id")),
    }
}

fn wrong_method(allowed: &'static str) -> Response {
    crate::app::probe::method_not_allowed(allowed)
}

/// The `Allow` of a path, whether or not its app exists.
pub fn allowed_methods(path: &str) -> Option<&'static str> {
    let rest = match path.strip_prefix("/apps/") {
        Some(path) => path.split_once('/')?.1,
        None => path
            .strip_prefix('/')
            .filter(|it| it.starts_with("users/"))?,
    };
    let segments: Vec<&str> = rest.split('/').collect();
    match &segments[..] {
        ["events" | "batch_events"] | ["users", _, "terminate_connections"] => {
            Some(PUBLISH_METHODS)
        }
        ["channels"] | ["channels", _] | ["channels", _, "users" | "history"] => Some(READ_METHODS),
        _ if gateway::is_for_courier(&segments) => Some(gateway::METHODS),
        _ => None,
    }
}

type Outcome = Result<Result<Call, Unavailable>, BadCall>;

fn publish(
    conn: ConnId,
    events: Vec<Event>,
    batch: bool,
    terms: Terms,
    cx: &mut Cx<'_>,
) -> Result<Call, Unavailable> {
    let items = events.iter().map(Event::item).collect();
    cx.outlet.ask(conn, Asked::Publish(items, terms), cx.now)?;
    let wanted = events
        .iter()
        .map(|event| {
            let keys = if event.info.any() {
                &event.keys[..]
            } else {
                &[]
            };
            (
                keys.iter().map(|key| key.channel().to_owned()).collect(),
                event.info,
            )
        })
        .collect();
    Ok(Call::Publish { batch, wanted })
}

fn read_channels(
    conn: ConnId,
    app_id: &str,
    signed: &SignedRequest<'_>,
    cx: &mut Cx<'_>,
) -> Outcome {
    let info = info_of_reader(signed)?;
    let prefix = signed.parameter("filter_by_prefix").unwrap_or("");
    if info.cache {
        let text = "info=cache is told of single channels only";
        return Err(BadCall::new(400, text));
    }
    if info.user_count && !has_users(prefix) {
        let text = "info=user_count needs filter_by_prefix=presence- or longer";
        return Err(BadCall::new(400, text));
    }
    let question = Question::Channels { app_id, prefix };
    let asked = cx.outlet.ask(conn, Asked::Question(question), cx.now);
    Ok(asked.map(|()| Call::Channels(info)))
}

fn read_channel(
    conn: ConnId,
    app_id: &str,
    name: &str,
    signed: &SignedRequest<'_>,
    cx: &mut Cx<'_>,
) -> Outcome {
    let key = check_channel(app_id, name, cx.limits)?;
    let info = info_of_reader(signed)?;
    if info.user_count && !has_users(name) {
        return Err(BadCall::new(
            400,
            "user_count is known of presence channels only",
        ));
    }
    if info.cache && !is_cache(name) {
        return Err(BadCall::new(400, "cache is known of cache channels only"));
    }
    let question = Question::Channel {
        channel: key.as_str(),
    };
    let asked = cx.outlet.ask(conn, Asked::Question(question), cx.now);
    Ok(asked.map(|()| Call::Channel(name.to_owned(), info)))
}

fn info_of_reader(signed: &SignedRequest<'_>) -> Result<InfoWanted, BadCall> {
    let info = parse_info(signed.parameter("info"))?;
    match info.offset {
        true => Err(BadCall::new(400, "info=offset is told to publishers only")),
        false => Ok(info),
    }
}

fn read_users(conn: ConnId, app_id: &str, name: &str, cx: &mut Cx<'_>) -> Outcome {
    let key = check_channel(app_id, name, cx.limits)?;
    if !has_users(name) {
        return Err(BadCall::new(
            400,
            "Users are known of presence channels only",
        ));
    }
    let question = Question::Users {
        channel: key.as_str(),
    };
    let asked = cx.outlet.ask(conn, Asked::Question(question), cx.now);
    Ok(asked.map(|()| Call::Users))
}

fn read_history(
    conn: ConnId,
    app_id: &str,
    name: &str,
    signed: &SignedRequest<'_>,
    cx: &mut Cx<'_>,
) -> Outcome {
    let asked = api_history::ask(conn, (app_id, name), signed, cx)?;
    Ok(asked.map(|()| Call::History))
}

/// Every worker with connections of the user is told to close them.
fn terminate(conn: ConnId, app_id: &str, user_id: &str, terms: Terms, cx: &mut Cx<'_>) -> Outcome {
    let key = check_user(app_id, user_id, cx.limits)?;
    let item = Item {
        channels: vec![key.as_str()],
        content: Content::Dismissal,
        user_id: None,
        exclude: None,
        info: InfoWanted::default(),
    };
    let asked = cx
        .outlet
        .ask(conn, Asked::Publish(vec![item], terms), cx.now);
    Ok(asked.map(|()| Call::Terminate))
}

/// The response to a call whose answer came, or did not.
pub fn respond(call: Call, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>) -> Response {
    let publishing = matches!(call, Call::Publish { .. });
    let body = match (call, answer) {
        (Call::Publish { batch, wanted }, Ok(Answer::Published { counts, reach })) => {
            cx.counters.events_published += wanted.len() as u64;
            let mut fields = published(batch, &wanted, &counts);
            fields.extend(local_only(reach));
            format!("{{{}}}", fields.join(","))
        }
        (Call::Channels(info), Ok(Answer::Channels(channels))) => {
            let entries = channels.iter().map(|(name, counts)| {
                let attributes = attributes(name, *counts, info).join(",");
                format!("{}:{{{attributes}}}", json_string(name))
            });
            let entries: Vec<String> = entries.collect();
            format!("{{\"channels\":{{{}}}}}", entries.join(","))
        }
        (Call::Channel(name, info), Ok(Answer::Channel { counts, cached })) => {
            let mut fields = vec![format!("\"occupied\":{}", counts.subscriptions > 0)];
            fields.extend(attributes(&name, counts, info));
            if info.cache {
                fields.push(format!("\"cache\":{}", cache(cached)));
            }
            format!("{{{}}}", fields.join(","))
        }
        (Call::History, Ok(Answer::History { position, events })) => {
            return api_history::page(position, events.as_deref());
        }
        (Call::Gateway, Ok(Answer::Gateway(answer))) => return gateway::response(&answer),
        (Call::Terminate, Ok(Answer::Published { reach, .. })) => {
            format!("{{{}}}", local_only(reach).unwrap_or_default())
        }
        (Call::Users, Ok(Answer::Users(users))) => {
            let users: Vec<String> = users
                .iter()
                .map(|id| format!("{{\"id\":{}}}", json_string(id)))
                .collect();
            format!("{{\"users\":[{}]}}", users.join(","))
        }
        (_, Ok(Answer::Refused(RefusalReason::TooLong))) => {
            return Response::error(400, "The answer would be too long; use filter_by_prefix");
        }
        (_, Ok(Answer::Refused(RefusalReason::TooOften))) => {
            cx.counters.calls_limited += 1;
            return Response::error(429, "publishes_per_second is used up; try again")
                .with_header("Retry-After", "1");
        }
        (_, Ok(Answer::Refused(RefusalReason::Repeated))) => {
            cx.counters.calls_repeated += 1;
            return Response::error(401, "This very request was made before")
                .with_header("WWW-Authenticate", "Bearer");
        }
        _ => return unavailable(publishing, cx),
    };
    Response::json(200, body)
}

/// Nothing can be promised now. Of a publish that was under way nobody can say how far it came.
fn unavailable(publishing: bool, cx: &mut Cx<'_>) -> Response {
    if publishing {
        cx.counters.events_refused += 1;
    }
    Response::error(503, "Delivery cannot be confirmed now; try again")
        .with_header("Retry-After", "1")
}

/// What is said of an event that may have reached this server alone: a field, since official
/// libraries take any JSON with 200, and some nothing else.
fn local_only(reach: Reach) -> Option<String> {
    (reach == Reach::Here).then(|| "\"cluster\":\"local\"".to_owned())
}

/// What was wanted, as fields of a JSON object.
fn published(
    batch: bool,
    wanted: &[(Vec<String>, InfoWanted)],
    counts: &[(ChannelCounts, Option<Position>)],
) -> Vec<String> {
    if !wanted.iter().any(|(_, info)| info.any()) {
        return Vec::new();
    }
    let mut counts = counts.iter().copied();
    let mut per_event = wanted.iter().map(|(channels, info)| {
        let of_channels: Vec<(&str, String)> = channels
            .iter()
            .map(|name| {
                let (counts, position) = counts.next().unwrap_or_default();
                let mut fields = attributes(name, counts, *info);
                let position = position.filter(|_| info.offset);
                fields.extend(position.map(api_history::position_fields));
                (name.as_str(), format!("{{{}}}", fields.join(",")))
            })
            .collect();
        of_channels
    });
    if batch {
        let entries: Vec<String> = per_event
            .map(|channels| {
                let first = channels.into_iter().next();
                first.map_or_else(|| "{}".to_owned(), |(_, attributes)| attributes)
            })
            .collect();
        return vec![format!("\"batch\":[{}]", entries.join(","))];
    }
    let channels = per_event.next().unwrap_or_default();
    let entries: Vec<String> = channels
        .into_iter()
        .map(|(name, attributes)| format!("{}:{attributes}", json_string(name)))
        .collect();
    vec![format!("\"channels\":{{{}}}", entries.join(","))]
}

/// What was wanted and applies to the channel, as fields of a JSON object.
fn attributes(channel: &str, counts: ChannelCounts, info: InfoWanted) -> Vec<String> {
    let mut fields = Vec::new();
    if info.user_count && has_users(channel) {
        fields.push(format!("\"user_count\":{}", counts.users));
    }
    if info.subscription_count && user_of(channel).is_none() {
        fields.push(format!("\"subscription_count\":{}", counts.subscriptions));
    }
    fields
}

/// What is kept of a cache channel.
fn cache(cached: Option<Cached<'_>>) -> String {
    cached.map_or_else(
        || "null".to_owned(),
        |Cached {
             data, ttl_seconds, ..
         }| format!("{{\"data\":{data},\"ttl\":{ttl_seconds}}}"),
    )
}
