//! The `channels` handler: Pusher Channels for clients, the HTTP API for backends, the demo page
//! and the probes. Protocol facts are Pusher's published ones; where servers differ, the reason
//! for our choice stands beside it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::app::addon;
use crate::app::api::{self, Call};
use crate::app::application::{Application, Cx, Kept, Message, SessionCall, Unavailable};
use crate::app::apps::{App, Apps};
use crate::app::client::{self, Client};
use crate::app::cors;
use crate::app::probe::{self, Probe, READ_METHODS};
use crate::app::readers;
use crate::app::sessions;
use crate::base::close::{Close, Violation};
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::names::{ChannelKey, user_of};
use crate::base::now::Moment;
use crate::wire::bus::{Answer, RefusalReason};
use crate::wire::http::{Request, Response};
use crate::wire::protocol::Protocol;
use crate::wire::pusher::{self, Subscribe};
use crate::wire::query::parse_query;
use crate::wire::sockjs;

/// The protocol version spoken when a client names none.
const PROTOCOL_DEFAULT: u8 = 7;
/// Java and .NET still speak 5.
const PROTOCOLS: std::ops::RangeInclusive<u8> = 5..=7;

/// What the handler remembers of a connection.
enum State {
    /// A request to the HTTP API waits for its answer.
    Calling(Call),
    Probing,
    /// The upgrade was accepted; who it will be, or why it will be turned away.
    Upgrading(Result<Admitted, Refused>),
    Client(Box<Client>),
    /// A stream of events was begun, for these channels.
    Reading(Box<Client>, Vec<Subscribe>),
    /// Came by lines or frames and has not said yet which app it wants.
    Stranger,
}

/// Of which app a client will be, and which version of the protocol it speaks.
struct Admitted {
    app: Arc<App>,
    protocol: u8,
}

/// A client that is turned away after the upgrade: before it, it would see nothing but a failure
/// without a reason, and retry for ever.
struct Refused {
    close: Close,
    protocol: u8,
}

/// One per worker; all `channels` listeners share it.
pub struct Channels {
    apps: Apps,
    /// Shown at `/`, when there is something to try it with.
    demo_page: Option<&'static str>,
    states: HashMap<ConnId, State, FixedState>,
    /// Who has not shown yet that his app's backend knows him, and until when he may.
    unauthorised: BTreeSet<(Moment, ConnId)>,
}

impl Channels {
    pub fn new(apps: Apps, demo_page: Option<&'static str>, dice: &mut Dice) -> Channels {
        Channels {
            apps,
            demo_page,
            states: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            unauthorised: BTreeSet::new(),
        }
    }

    fn page(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method, "GET" | "HEAD") {
            return probe::method_not_allowed(READ_METHODS);
        }
        match self.demo_page {
            Some(page) => Response::html(200, page),
            None => Response::text(200, "Lineman is on the line.\n"),
        }
    }

    /// Who asks to be a client of the app with this key; the query tells which `protocol` it speaks.
    fn admit(&self, request: &Request<'_>, key: Option<&str>) -> Result<Admitted, Refused> {
        let query = parse_query(request.query()).unwrap_or_default();
        let parameter = |name| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| &**value)
        };
        let protocol = match parameter("protocol").filter(|text| !text.is_empty()) {
            None => Ok(PROTOCOL_DEFAULT),
            Some(text) => match text.parse::<u32>() {
                Ok(version) => match u8::try_from(version) {
                    Ok(version) if PROTOCOLS.contains(&version) => Ok(version),
                    _ => Err(4007),
                },
                Err(_) => Err(4006),
            },
        };
        let protocol = protocol.map_err(|code| Refused {
            close: Close::VersionRefused(code),
            protocol: PROTOCOL_DEFAULT,
        })?;
        let key = key.ok_or(Refused {
            close: Close::PathUnknown,
            protocol,
        })?;
        let app = self.apps.by_key(key);
        let app = app.ok_or_else(|| Refused {
            close: Close::AppUnknown(key.into()),
            protocol,
        })?;
        if !app.admits(request.header("origin")) {
            return Err(Refused {
                close: Close::Unauthorised("Origin is not allowed"),
                protocol,
            });
        }
        Ok(Admitted {
            app: app.clone(),
            protocol,
        })
    }

    /// The first message by lines or frames. There never were older clients, so one version of the
    /// protocol is enough.
    fn introduce(&self, message: Message<'_>, cx: &mut Cx<'_>) -> Result<Box<Client>, Close> {
        let Message::Text(text) = message else {
            return Err(Close::Violation(Violation::NotUtf8));
        };
        let connect = pusher::parse_connect(text)
            .map_err(|malformed| Close::Unauthorised(malformed.text()))?;
        match connect.protocol {
            None => {}
            Some(version) if version == u64::from(PROTOCOL_DEFAULT) => {}
            Some(_) => return Err(Close::VersionRefused(4007)),
        }
        match self.apps.by_key(&connect.app_key) {
            Some(app) => Ok(Box::new(Client::new(app.clone(), PROTOCOL_DEFAULT, cx))),
            None => Err(Close::AppUnknown(connect.app_key)),
        }
    }

    /// A request of a client that comes by many. Whether its session is new is not known here.
    fn session_request(
        &mut self,
        conn: ConnId,
        request: &Request<'_>,
        path: &sockjs::Path<'_>,
        cx: &mut Cx<'_>,
    ) {
        let Some(call) = sessions::request(conn, request, path, &self.apps, cx) else {
            return;
        };
        if !matches!(call, SessionCall::Post(_)) {
            match self.admit(request, Some(path.app_key)) {
                Ok(admitted) => self.states.insert(conn, State::Upgrading(Ok(admitted))),
                Err(refused) => {
                    let answer = sessions::turned_away(&refused.close);
                    return cx.outlet.reply(conn, answer);
                }
            };
        }
        cx.outlet.session(conn, path.session, call);
    }

    /// Somebody wants Server-Sent Events.
    fn read(&mut self, conn: ConnId, request: &Request<'_>, key: &str, cx: &mut Cx<'_>) {
        let Some(wanted) = readers::request(conn, request, key, &self.apps, cx) else {
            return;
        };
        let channels = wanted.subscriptions();
        let mut client = Client::new(wanted.app, PROTOCOL_DEFAULT, cx);
        if wanted.signed {
            client = client.authorised();
        }
        let state = State::Reading(Box::new(client), channels);
        self.states.insert(conn, state);
        let head = readers::head(cx);
        cx.outlet.stream(conn, head, Protocol::EventStream);
    }

    fn establish(&mut self, conn: ConnId, client: Box<Client>, cx: &mut Cx<'_>) {
        cx.hub.enter(conn, client.socket_id());
        let hello = pusher::connection_established(client.socket_id(), cx.limits.activity_seconds);
        cx.outlet.send(conn, Message::Text(&hello));
        let until = client.authorize_by();
        self.unauthorised.extend(until.map(|until| (until, conn)));
        self.states.insert(conn, State::Client(client));
    }
}

/// The app key in `…/app/KEY`. A proxy may put us under a prefix, which every SDK can be told.
fn key_of(path: &str) -> Option<&str> {
    let (directory, key) = path.rsplit_once('/')?;
    let is_app = directory == "app" || directory.ends_with("/app");
    (is_app && !key.is_empty()).then_some(key)
}

/// Browsers ask before they send a page's request, without credentials, so nothing is checked yet.
fn options(path: &str) -> Response {
    match path {
        "*" => cors::options("GET, HEAD, POST, OPTIONS"),
        "/" | addon::SCRIPT_PATH | addon::MODULE_PATH => cors::options(READ_METHODS),
        _ => match api::allowed_methods(path) {
            Some(methods) => cors::options(methods),
            None => Response::error(404, "There is nothing at this path"),
        },
    }
}

impl Application for Channels {
    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) {
        if request.wants_websocket() {
            let admitted = self.admit(request, key_of(request.path()));
            self.states.insert(conn, State::Upgrading(admitted));
            return cx.outlet.upgrade(conn);
        }
        match probe::request(conn, request, cx) {
            Probe::Answered => return,
            Probe::Asked => {
                self.states.insert(conn, State::Probing);
                return;
            }
            Probe::NotOne => {}
        }
        if let Some(path) = sockjs::Path::parse(request.path()) {
            return self.session_request(conn, request, &path, cx);
        }
        if let Some(key) = readers::key_of(request.path()) {
            return self.read(conn, request, key, cx);
        }
        if request.method == "OPTIONS" {
            return cx.outlet.reply(conn, options(request.path()));
        }
        if request.path() == "/" {
            return cx.outlet.reply(conn, self.page(request));
        }
        if let Some(response) = addon::answer(request) {
            return cx.outlet.reply(conn, response);
        }
        if let Some(call) = api::request(conn, request, &self.apps, cx) {
            self.states.insert(conn, State::Calling(call));
        }
    }

    fn connected(&mut self, conn: ConnId, _cx: &mut Cx<'_>) {
        self.states.insert(conn, State::Stranger);
    }

    fn opened(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        match self.states.remove(&conn) {
            Some(State::Upgrading(Ok(Admitted { app, protocol }))) => {
                let client = Box::new(Client::new(app, protocol, cx));
                self.establish(conn, client, cx);
            }
            Some(State::Upgrading(Err(Refused { close, protocol }))) => {
                client::close(conn, close, protocol, cx);
            }
            Some(State::Reading(client, channels)) => {
                self.establish(conn, client, cx);
                if let Some(State::Client(client)) = self.states.get_mut(&conn) {
                    for channel in &channels {
                        client.join(conn, channel, cx);
                    }
                }
            }
            _ => cx.outlet.close(conn, Close::PathUnknown),
        }
    }

    fn session_opened(&mut self, session: ConnId, by: ConnId, cx: &mut Cx<'_>) {
        match self.states.remove(&by) {
            Some(State::Upgrading(Ok(Admitted { app, protocol }))) => {
                let client = Box::new(Client::new(app, protocol, cx));
                self.establish(session, client, cx);
            }
            _ => cx.outlet.close(session, Close::PathUnknown),
        }
    }

    fn message(&mut self, conn: ConnId, message: Message<'_>, cx: &mut Cx<'_>) {
        match self.states.get_mut(&conn) {
            Some(State::Client(client)) => {
                let until = client.authorize_by();
                client.message(conn, message, cx);
                if let Some(until) = until.filter(|_| client.authorize_by().is_none()) {
                    self.unauthorised.remove(&(until, conn));
                }
            }
            Some(State::Stranger) => match self.introduce(message, cx) {
                Ok(client) => self.establish(conn, client, cx),
                Err(close) => cx.outlet.close(conn, close),
            },
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Moment> {
        self.unauthorised.first().map(|(until, _)| *until)
    }

    fn elapsed(&mut self, cx: &mut Cx<'_>) {
        while self.deadline().is_some_and(|until| until <= cx.now.moment) {
            let Some((_, conn)) = self.unauthorised.pop_first() else {
                return;
            };
            if let Some(State::Client(client)) = self.states.get(&conn) {
                let close = Close::Unauthorised("Connection not authorized within timeout");
                client::close(conn, close, client.protocol(), cx);
            }
        }
    }

    fn silent(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        if let Some(State::Client(_)) = self.states.get(&conn) {
            cx.outlet.send(conn, Message::Text(pusher::PING));
        }
    }

    /// Where a WebSocket client reads a Close frame, others get its code as an event.
    fn last_words(&self, close: &Close) -> Option<String> {
        let (code, text) = close.websocket()?;
        (*close != Close::Done).then(|| pusher::error(Some(code), &text))
    }

    fn answered(&mut self, conn: ConnId, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>) {
        match self.states.remove(&conn) {
            Some(State::Calling(call)) => {
                let response = api::respond(call, answer, cx);
                cx.outlet.reply(conn, response);
            }
            Some(State::Probing) => cx.outlet.reply(conn, probe::ready(answer)),
            Some(other) => {
                self.states.insert(conn, other);
            }
            None => {}
        }
    }

    fn subscribed(&mut self, conn: ConnId, key: &ChannelKey, kept: &Kept<'_>, cx: &mut Cx<'_>) {
        if user_of(key.channel()).is_none() {
            return client::subscribed(conn, key, kept, cx);
        }
        if let Some(State::Client(client)) = self.states.get_mut(&conn) {
            client.signed_in(conn, cx);
        }
    }

    fn refused(&mut self, conn: ConnId, key: &ChannelKey, reason: RefusalReason, cx: &mut Cx<'_>) {
        if let Some(State::Client(client)) = self.states.get_mut(&conn) {
            client.refused(conn, key, reason, cx);
        }
    }

    fn undelivered(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        if let Some(State::Client(client)) = self.states.get(&conn) {
            client.undelivered(conn, cx);
        }
    }

    fn closed(&mut self, conn: ConnId, _close: &Close, cx: &mut Cx<'_>) {
        if let Some(State::Client(client)) = self.states.remove(&conn) {
            cx.hub.leave(client.socket_id());
            cx.unwatch(conn);
            let until = client.authorize_by();
            until.map(|until| self.unauthorised.remove(&(until, conn)));
        }
    }
}
