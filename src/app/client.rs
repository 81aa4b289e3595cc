//! One Pusher client: what it may say, what it is told. The rules of subscriptions, signatures and
//! client events live here; who else is in a channel is the hub's and the registry's business.

use std::sync::Arc;
use std::time::Duration;

use crate::app::application::{Cx, Denial, Kept, Message, Unavailable};
use crate::app::apps::App;
use crate::app::users::User;
use crate::base::close::{Close, Violation};
use crate::base::ids::{ConnId, SocketId};
use crate::base::names::{
    ChannelKey, ChannelKind, is_cache, is_encrypted, is_event_name, is_name, user_of,
};
use crate::base::now::Moment;
use crate::base::quota::Quota;
use crate::realtime::hub::{NotSubscribed, Presence};
use crate::wire::bus::{
    Beginning, Cached, Content, InfoWanted, Item, Past, Position, RefusalReason,
};
use crate::wire::pusher::{self, ClientEvent, ClientMessage, Subscribe};
use crate::wire::sign::channel_text;

const UNDELIVERED: &str = "Client event not delivered; try again";

/// An established connection of the Pusher protocol.
pub struct Client {
    pub(super) app: Arc<App>,
    socket_id: SocketId,
    protocol: u8,
    bad_messages: u32,
    events: Quota,
    pub(super) user: Option<Box<User>>,
    pub(super) failed_signins: u32,
    authorize_by: Option<Moment>,
}

/// Why a subscription fails: the three fields of the error event.
struct Refusal {
    kind: &'static str,
    status: u16,
    text: String,
}

impl Refusal {
    fn new(kind: &'static str, status: u16, text: impl Into<String>) -> Refusal {
        Refusal {
            kind,
            status,
            text: text.into(),
        }
    }

    fn auth(text: impl Into<String>) -> Refusal {
        Refusal::new("AuthError", 401, text)
    }

    fn limit(status: u16, text: impl Into<String>) -> Refusal {
        Refusal::new("LimitReached", status, text)
    }
}

impl Client {
    pub fn new(app: Arc<App>, protocol: u8, cx: &mut Cx<'_>) -> Client {
        let patience = Duration::from_secs(app.authorize_seconds);
        Client {
            authorize_by: (!patience.is_zero()).then(|| cx.now.moment + patience),
            app,
            socket_id: SocketId::random(cx.dice),
            protocol,
            user: None,
            failed_signins: 0,
            bad_messages: 0,
            events: Quota::new(cx.limits.client_events_per_second, cx.now.moment),
        }
    }

    pub fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Until when it has to sign in or to join a channel that needs a signature; `None` when it
    /// has, or need not.
    pub fn authorize_by(&self) -> Option<Moment> {
        self.authorize_by
    }

    pub fn message(&mut self, conn: ConnId, message: Message<'_>, cx: &mut Cx<'_>) {
        let Message::Text(text) = message else {
            let violation = Violation::Unsupported("Binary messages are not supported");
            return close(conn, Close::Violation(violation), self.protocol, cx);
        };
        match pusher::parse(text) {
            Ok(ClientMessage::Ping) => cx.outlet.send(conn, Message::Text(pusher::PONG)),
            Ok(ClientMessage::Pong) => {}
            Ok(ClientMessage::Subscribe(subscribe)) => self.subscribe(conn, &subscribe, cx),
            Ok(ClientMessage::Unsubscribe { channel }) => {
                // A sign-in lasts as long as the connection.
                if user_of(&channel).is_none() {
                    cx.unsubscribe(conn, &ChannelKey::new(&self.app.id, &channel));
                }
            }
            Ok(ClientMessage::SignIn(signin)) => self.sign_in(conn, &signin, cx),
            Ok(ClientMessage::Acknowledge { id }) => self.acknowledge(conn, &id, cx),
            Ok(ClientMessage::Event(event)) => {
                if let Err((code, text)) = self.client_event(conn, &event, cx) {
                    self.complain(conn, code, &text, cx);
                }
            }
            Err(malformed) => {
                self.bad_messages += 1;
                if self.bad_messages > cx.limits.bad_messages {
                    let reason = Close::Unauthorised("Too many malformed messages");
                    return close(conn, reason, self.protocol, cx);
                }
                self.complain(conn, None, malformed.text(), cx);
            }
        }
    }

    /// `pusher:error`; the connection stays.
    pub(super) fn complain(&self, conn: ConnId, code: Option<u16>, text: &str, cx: &mut Cx<'_>) {
        cx.outlet
            .send(conn, Message::Text(&pusher::error(code, text)));
    }

    fn subscribe(&mut self, conn: ConnId, subscribe: &Subscribe, cx: &mut Cx<'_>) {
        let channel = subscribe.channel.as_str();
        if let Err(refusal) = self.try_subscribe(conn, subscribe, cx) {
            self.refuse(conn, channel, &refusal, cx);
        }
    }

    /// Joins a channel that the app's backend has allowed already, if it needs that.
    pub fn join(&mut self, conn: ConnId, subscribe: &Subscribe, cx: &mut Cx<'_>) {
        if let Err(refusal) = self.join_allowed(conn, subscribe, cx) {
            self.refuse(conn, &subscribe.channel, &refusal, cx);
        }
    }

    /// The app's backend knows the client.
    pub fn authorised(mut self) -> Client {
        self.authorize_by = None;
        self
    }

    fn try_subscribe(
        &mut self,
        conn: ConnId,
        subscribe: &Subscribe,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let channel = subscribe.channel.as_str();
        if let Some(user_id) = user_of(channel) {
            return self.join_own(conn, channel, user_id, cx);
        }
        if !is_name(channel, cx.limits.channel_name_bytes) {
            let text = format!(
                "Invalid channel name: letters, digits and _-=@,.; only, {} at most",
                cx.limits.channel_name_bytes
            );
            return Err(Refusal::new("InvalidChannel", 400, text));
        }
        if ChannelKind::of(channel).needs_auth() {
            self.check_auth(conn, subscribe, cx)?;
        }
        self.join_allowed(conn, subscribe, cx)
    }

    fn join_allowed(
        &mut self,
        conn: ConnId,
        subscribe: &Subscribe,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let channel = subscribe.channel.as_str();
        let presence = match ChannelKind::of(channel) {
            ChannelKind::Presence => Some(self.presence_of(subscribe, cx)?),
            _ => None,
        };
        let key = ChannelKey::new(&self.app.id, channel);
        match cx.resume(conn, &key, presence, subscribe.recover()) {
            Ok(()) | Err(NotSubscribed::Asked) => Ok(()),
            Err(NotSubscribed::Already) => {
                // Success again, without counting or announcing anybody twice.
                cx.outlet.send(conn, Message::Text(&success(&key, cx)));
                Ok(())
            }
            Err(NotSubscribed::TooMany) => {
                let text = format!(
                    "At most {} channels per connection",
                    cx.limits.channels_per_connection
                );
                Err(Refusal::limit(429, text))
            }
        }
    }

    /// The channel of the signed-in user himself: he has it since he signed in.
    fn join_own(
        &self,
        conn: ConnId,
        channel: &str,
        user_id: &str,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let own = self.user.as_ref().is_some_and(|user| user.is(user_id));
        if !own {
            let text = "Only the user who has signed in may subscribe to this channel";
            return Err(Refusal::new("AuthError", 403, text));
        }
        let text = pusher::subscription_succeeded(channel);
        cx.outlet.send(conn, Message::Text(&text));
        Ok(())
    }

    /// Whether the app's backend has signed the text. If so, it knows the client. `what` is for the
    /// log.
    pub(super) fn is_signed(
        &mut self,
        conn: ConnId,
        (auth, text): (&str, &str),
        what: &str,
        cx: &mut Cx<'_>,
    ) -> bool {
        let signed = self.app.is_signed_for_client(auth, text);
        if signed {
            self.authorize_by = None;
        } else {
            cx.counters.signatures_refused += 1;
            let denial = Denial {
                what,
                key: self.app.known_key(auth.split_once(':').map(|(key, _)| key)),
                why: "the signature does not match, or its key may not sign for clients",
            };
            cx.denied(conn, &denial);
        }
        signed
    }

    fn check_auth(
        &mut self,
        conn: ConnId,
        subscribe: &Subscribe,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let channel = subscribe.channel.as_str();
        let auth = subscribe.auth.as_deref().filter(|auth| !auth.is_empty());
        let auth = auth.ok_or_else(|| {
            Refusal::auth(format!("Auth info required to subscribe to {channel}"))
        })?;
        if !auth.contains(':') {
            let text = format!(
                "Auth value for subscription to {channel} is invalid: should be of format 'key:signature'"
            );
            return Err(Refusal::auth(text));
        }
        let text = channel_text(
            &self.socket_id.to_string(),
            channel,
            subscribe.channel_data.as_deref(),
        );
        if !self.is_signed(conn, (auth, &text), channel, cx) {
            return Err(Refusal::auth(
                "Invalid signature for this socket, channel and key",
            ));
        }
        Ok(())
    }

    /// The switchboard refused.
    pub fn refused(
        &mut self,
        conn: ConnId,
        key: &ChannelKey,
        reason: RefusalReason,
        cx: &mut Cx<'_>,
    ) {
        if user_of(key.channel()).is_some() {
            self.user = None;
            let text = "The server cannot sign in now; try again";
            return self.complain(conn, None, text, cx);
        }
        let refusal = match reason {
            RefusalReason::Full => {
                let text = format!(
                    "At most {} users in a presence channel",
                    cx.limits.presence_members
                );
                Refusal::limit(409, text)
            }
            _ => Refusal::new(
                "ServerError",
                503,
                "The server cannot subscribe now; try again",
            ),
        };
        self.refuse(conn, key.channel(), &refusal, cx);
    }

    /// The switchboard could not promise delivery of a client event.
    pub fn undelivered(&self, conn: ConnId, cx: &mut Cx<'_>) {
        self.complain(conn, None, UNDELIVERED, cx);
    }

    /// Both error events; old clients show nothing but `pusher:error`.
    fn refuse(&self, conn: ConnId, channel: &str, refusal: &Refusal, cx: &mut Cx<'_>) {
        let Refusal { kind, status, text } = refusal;
        for event in pusher::subscription_errors(channel, kind, text, *status) {
            cx.outlet.send(conn, Message::Text(&event));
        }
        if self.protocol < 6 {
            self.complain(conn, None, text, cx);
        }
    }

    /// Reads and checks `channel_data`; without it, the signed-in user counts.
    fn presence_of(&self, subscribe: &Subscribe, cx: &Cx<'_>) -> Result<Presence, Refusal> {
        let presence = match (&subscribe.channel_data, &self.user) {
            (None, Some(user)) => Some(user.presence()),
            (data, _) => data
                .as_deref()
                .and_then(pusher::parse_channel_data)
                .map(|data| Presence {
                    user_id: data.user_id,
                    user_info: data.user_info,
                }),
        };
        let presence = presence.ok_or_else(|| {
            Refusal::auth(
                "channel_data must be a JSON string with a user_id, for presence channels",
            )
        })?;
        let (id_max, info_max) = (cx.limits.user_id_bytes, cx.limits.presence_member_bytes);
        if presence.user_id.len() > id_max {
            let text = format!("user_id is longer than {id_max} bytes");
            return Err(Refusal::limit(413, text));
        }
        if presence.user_info.len() > info_max {
            let text = format!("user_info is longer than {info_max} bytes");
            return Err(Refusal::limit(413, text));
        }
        Ok(presence)
    }

    /// Checks and publishes; why not, as `pusher:error`.
    fn client_event(
        &mut self,
        conn: ConnId,
        event: &ClientEvent<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), (Option<u16>, String)> {
        let rejected = |text: &str| Err((None, format!("Client event rejected - {text}")));
        if !self.app.client_events {
            return rejected("client events are not enabled for this app");
        }
        if !ChannelKind::of(&event.channel).needs_auth() {
            return rejected("only supported on private and presence channels");
        }
        if is_encrypted(&event.channel) {
            return rejected("not supported on encrypted channels");
        }
        if !is_event_name(&event.event, cx.limits.event_name_bytes) {
            return rejected("the event's name is too long or not printable");
        }
        if event.data.len > cx.limits.event_data_bytes {
            return rejected(&format!(
                "data is longer than {} bytes",
                cx.limits.event_data_bytes
            ));
        }
        let key = ChannelKey::new(&self.app.id, &event.channel);
        let Some(user_id) = cx.hub.membership(conn, key.as_str()) else {
            return rejected("this connection is not subscribed to the channel");
        };
        if !self.events.take(cx.now.moment) {
            cx.counters.client_events_limited += 1;
            let per_second = cx.limits.client_events_per_second;
            return Err((
                Some(4301),
                format!("Rate limit: {per_second} client events a second"),
            ));
        }
        let item = Item {
            channels: vec![key.as_str()],
            content: Content::Event {
                name: &pusher::json_string(&event.event),
                data: &event.data.json,
            },
            user_id,
            exclude: Some(self.socket_id),
            info: InfoWanted::default(),
        };
        let published = cx.outlet.publish(item);
        published.map_err(|Unavailable| (None, UNDELIVERED.to_owned()))?;
        cx.counters.events_published += 1;
        Ok(())
    }
}

/// The subscription stands: success, then what was missed, or else what a cache channel keeps.
pub fn subscribed(conn: ConnId, key: &ChannelKey, kept: &Kept<'_>, cx: &mut Cx<'_>) {
    let mut text = success(key, cx);
    let mut missed = None;
    if let Some(beginning) = &kept.beginning {
        missed = beginning.missed.as_deref();
        missed = missed.filter(|missed| has_room(conn, key, missed, cx));
        pusher::add_beginning(&mut text, beginning.position, missed.map(<[_]>::len));
    }
    cx.outlet.send(conn, Message::Text(&text));
    match (missed, &kept.beginning) {
        (Some(missed), Some(Beginning { position, .. })) => {
            for past in missed {
                tell_past(conn, key, position.epoch, past, cx);
            }
        }
        _ => recall(conn, key.channel(), kept.last, cx),
    }
}

/// In a presence channel with everybody who is there.
fn success(key: &ChannelKey, cx: &Cx<'_>) -> String {
    let channel = key.channel();
    let roster = cx.hub.roster(key.as_str());
    match (ChannelKind::of(channel), roster) {
        (ChannelKind::Presence, Some(roster)) => pusher::presence_succeeded(channel, roster.iter()),
        _ => pusher::subscription_succeeded(channel),
    }
}

/// Whether the client can be told all this. Who comes back to many channels would else be cut for
/// reading too slowly, come back, and be cut again.
fn has_room(conn: ConnId, key: &ChannelKey, missed: &[Past<'_>], cx: &Cx<'_>) -> bool {
    let around = key.as_str().len() + ENVELOPE_BYTES;
    let bytes: usize = missed.iter().map(|past| past.bytes() + around).sum();
    cx.outlet.waiting(conn) + bytes <= cx.limits.outbox_bytes / 2
}

/// At least what the members of an event's message take beside what they hold, and a frame's head.
const ENVELOPE_BYTES: usize = 128;

fn tell_past(conn: ConnId, key: &ChannelKey, epoch: u64, past: &Past<'_>, cx: &mut Cx<'_>) {
    let offset = past.offset;
    let position = Some(Position { epoch, offset });
    let text = pusher::event_at(key.channel(), past.name, past.data, past.user_id, position);
    cx.outlet.send(conn, Message::Text(&text));
    cx.counters.events_recovered += 1;
}

/// What is kept of a cache channel, for who has just come.
fn recall(conn: ConnId, channel: &str, last: Option<Cached<'_>>, cx: &mut Cx<'_>) {
    if !is_cache(channel) {
        return;
    }
    let text = match last {
        Some(Cached { name, data, .. }) => pusher::event(channel, name, data, None),
        None => pusher::cache_miss(channel),
    };
    cx.outlet.send(conn, Message::Text(&text));
}

/// Ends a connection with a reason. Before protocol 6 clients look for it in an event; from 6 on
/// they read the Close frame, and would report both.
pub fn close(conn: ConnId, close: Close, protocol: u8, cx: &mut Cx<'_>) {
    if let Some((code, text)) = close.websocket().filter(|_| protocol < 6) {
        cx.outlet
            .send(conn, Message::Text(&pusher::error(Some(code), &text)));
    }
    cx.outlet.close(conn, close);
}
