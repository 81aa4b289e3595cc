//! The contract between meaning and transport: an application is told what happened to a
//! connection and answers through the `Cx` it is handed. It never sees a socket, a session or
//! another process.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::app::exposition::Page;
use crate::app::handler::Handler;
use crate::base::close::Close;
use crate::base::counters::Counters;
use crate::base::dice::Dice;
use crate::base::files::{FileFacts, NoFile};
use crate::base::ids::{ConnId, DialId, Ticket};
use crate::base::limits::Limits;
use crate::base::names::ChannelKey;
use crate::base::now::{Moment, Now};
use crate::realtime::hub::{Hub, Left, NotSubscribed, Presence};
use crate::realtime::watchlists::Changes;
use crate::wire::bus::{
    Answer, Beginning, Cached, Item, Member, Question, Recover, RefusalReason, Terms, Up,
};
use crate::wire::framing::{Payload, Unsendable};
use crate::wire::gateway::GatewayCall;
use crate::wire::http::{Request, Response};
use crate::wire::protocol::Protocol;
use crate::wire::target::Target;
use crate::wire::websocket::{self, OpCode};

/// One message, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Message<'a> {
        Message::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Message<'a> {
        Message::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Message<'a> {
        Message::Binary(bytes)
    }
}

impl<'a> From<Payload<'a>> for Message<'a> {
    fn from(payload: Payload<'a>) -> Message<'a> {
        match payload {
            Payload::Text(text) => Message::Text(text),
            Payload::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

impl<'a> Message<'a> {
    pub fn payload(self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// As what it goes over a WebSocket.
    pub fn opcode(self) -> OpCode {
        match self {
            Message::Text(_) => websocket::TEXT,
            Message::Binary(_) => websocket::BINARY,
        }
    }
}

/// A message for many receivers, encoded once for each kind of transport among them, when the
/// first of the kind is met.
pub struct Parcel<'a> {
    message: Message<'a>,
    /// By `Protocol::place`.
    encoded: [OnceCell<Result<Bytes, Unsendable>>; Protocol::COUNT],
    /// For WebSockets that agreed on compression; `None` when it does not pay.
    deflated: OnceCell<Option<Bytes>>,
}

impl Parcel<'_> {
    pub fn text(text: &str) -> Parcel<'_> {
        Parcel::new(Message::Text(text))
    }

    pub fn new(message: Message<'_>) -> Parcel<'_> {
        Parcel {
            message,
            encoded: Default::default(),
            deflated: OnceCell::new(),
        }
    }

    /// As all connections of this protocol get it; `None` where each gets its own bytes.
    pub fn encoded(&self, protocol: Protocol) -> Option<Result<&Bytes, Unsendable>> {
        let encoded = self.encoded[protocol.place()?].get_or_init(|| {
            let payload = self.message.payload();
            let Some(framing) = protocol.framing() else {
                return Ok(websocket::frame(self.message.opcode(), payload));
            };
            let mut bytes = Vec::with_capacity(payload.len() + 4);
            framing.encode(payload, &mut bytes)?;
            Ok(Bytes::from(bytes))
        });
        Some(encoded.as_ref().map_err(|unsendable| *unsendable))
    }

    /// As it is before it is encoded.
    pub fn message(&self) -> Message<'_> {
        self.message
    }

    /// The frame for receivers that agreed on compression, without reference to other messages;
    /// `compress` is called once.
    pub fn deflated(&self, compress: impl FnOnce(Message<'_>) -> Option<Bytes>) -> Option<&Bytes> {
        let frame = self.deflated.get_or_init(|| compress(self.message));
        frame.as_ref()
    }
}

/// The switchboard cannot be asked, or did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// What an application may have done. The worker implements it; tests record it.
pub trait Outlet {
    /// Queues a message; a connection whose outbox is full is cut.
    fn send(&mut self, conn: ConnId, message: Message<'_>);

    /// Bytes queued for the connection that its socket has not taken.
    fn waiting(&self, conn: ConnId) -> usize;

    /// Whether the connection is read from. While it is not, what it sends waits in the kernel,
    /// and at last at the peer.
    fn read_from(&mut self, conn: ConnId, wanted: bool);

    /// Queues a message that others receive too.
    fn deliver(&mut self, conn: ConnId, parcel: &Parcel<'_>);

    /// Answers the connection's request.
    fn reply(&mut self, conn: ConnId, response: Response);

    /// Accepts the WebSocket that the request asked for; `opened` follows.
    fn upgrade(&mut self, conn: ConnId);

    /// Lets pages of this origin read the answer to the connection's request, whatever the server
    /// allows besides. Before that answer.
    fn allow_origin(&mut self, conn: ConnId, origin: Cow<'static, str>);

    /// Begins an answer without an end to the connection's request; messages follow as `protocol`
    /// writes them. `opened` follows.
    fn stream(&mut self, conn: ConnId, head: Response, protocol: Protocol);

    /// The connection's request is one of this session, and is answered there. When there was no
    /// session of that name, and `call` wants to receive, one begins: `session_opened` follows.
    fn session(&mut self, conn: ConnId, name: &str, call: SessionCall);

    /// Ends the connection. `closed` follows.
    fn close(&mut self, conn: ConnId, close: Close);

    /// Tells the switchboard. While it is away this does nothing: it will be told everything
    /// that is held when it returns.
    fn tell(&mut self, message: &Up<'_>);

    /// Hands events to the switchboard without waiting for word.
    fn publish(&mut self, item: Item<'_>) -> Result<(), Unavailable>;

    /// A question of `conn`; `answered` follows unless this fails.
    fn ask(&mut self, conn: ConnId, question: Asked<'_>, now: Now) -> Result<(), Unavailable>;

    /// A call for the courier that nobody waits for.
    fn call(&mut self, call: GatewayCall<'_>) -> Result<(), Unavailable>;

    /// Somebody was not let in; for the log.
    fn denied(&mut self, conn: ConnId, denial: &Denial<'_>, now: Now);

    /// Asks for the numbers of the whole server; `gathered` follows.
    fn gather(&mut self, conn: ConnId);

    /// Opens a file below the root of the connection's listener, a path without a leading slash;
    /// one that is empty or ends in a slash means the index there. `file_opened` follows.
    fn open_file(&mut self, conn: ConnId, path: String);

    /// Connects to a server; a WebSocket is asked for without compression. Exactly one of `reached`
    /// and `unreached` follows, never during this call; the application of `handler` is told. With `limits.dials` under way, or as many
    /// connections as there may be, it is `unreached`, and so it is when the worker is to end.
    fn dial(&mut self, handler: Handler, target: &Target) -> DialId;

    /// Gives up a connection that does not stand yet; `unreached` follows. Nothing happens once it
    /// does: then `close` ends it.
    fn hang_up(&mut self, dial: DialId);
}

/// An attempt that failed for want of the right secret. Holds none, not even a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// The path or the channel.
    pub what: &'a str,
    /// As which key's holder; empty if none that exists was named.
    pub key: &'a str,
    pub why: &'a str,
}

/// What a request wants of the session that it is one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCall {
    /// Its messages as they come.
    Stream,
    /// Those that wait, or the next.
    Poll,
    /// To say something: messages as `wire::sockjs` frames them.
    Post(Vec<u8>),
}

/// What can be asked of the switchboard.
pub enum Asked<'a> {
    Question(Question<'a>),
    /// Publish all of these, and say when nothing but the end of the worker that has subscribers
    /// can keep them from it.
    Publish(Vec<Item<'a>>, Terms),
}

impl<'a> Asked<'a> {
    pub fn into_message(self, ticket: Ticket) -> Up<'a> {
        let Ticket(ticket) = ticket;
        match self {
            Asked::Question(question) => Up::Ask { ticket, question },
            Asked::Publish(items, terms) => Up::Publish {
                ticket,
                terms,
                items,
            },
        }
    }
}

/// What is kept of a channel for a new subscriber.
pub struct Kept<'a> {
    /// The last event of a cache channel.
    pub last: Option<Cached<'a>>,
    /// Where history is kept.
    pub beginning: Option<Beginning<'a>>,
}

/// What an application works with during one call.
pub struct Cx<'a> {
    pub now: Now,
    pub dice: &'a mut Dice,
    pub hub: &'a mut Hub,
    pub limits: &'a Limits,
    pub counters: &'a mut Counters,
    pub outlet: &'a mut dyn Outlet,
}

impl Cx<'_> {
    /// Somebody was not let in; for the log.
    pub fn denied(&mut self, conn: ConnId, denial: &Denial<'_>) {
        self.outlet.denied(conn, denial, self.now);
    }

    /// The same, lent for a shorter time.
    pub fn reborrow(&mut self) -> Cx<'_> {
        Cx {
            now: self.now,
            dice: self.dice,
            hub: self.hub,
            limits: self.limits,
            counters: self.counters,
            outlet: self.outlet,
        }
    }

    /// Asks for a subscription; `subscribed` or `refused` follows.
    pub fn subscribe(
        &mut self,
        conn: ConnId,
        key: &ChannelKey,
        presence: Option<Presence>,
    ) -> Result<(), NotSubscribed> {
        self.resume(conn, key, presence, None)
    }

    /// The same, with what was missed since a position of before.
    pub fn resume(
        &mut self,
        conn: ConnId,
        key: &ChannelKey,
        presence: Option<Presence>,
        recover: Option<Recover>,
    ) -> Result<(), NotSubscribed> {
        let described = presence.clone();
        let ticket = self.hub.subscribe(conn, key, presence, recover)?;
        let member = described.as_ref().map(|presence| Member {
            user_id: &presence.user_id,
            user_info: &presence.user_info,
        });
        self.outlet.tell(&Up::Subscribe {
            ticket,
            channel: key.as_str(),
            member,
            recover,
        });
        Ok(())
    }

    /// Ends a subscription; nothing happens when there is none.
    pub fn unsubscribe(&mut self, conn: ConnId, key: &ChannelKey) {
        if let Some(left) = self.hub.unsubscribe(conn, key.as_str()) {
            self.tell_left(&left);
        }
    }

    /// Ends everything a connection subscribed to.
    pub fn unsubscribe_all(&mut self, conn: ConnId) {
        for left in self.hub.unsubscribe_all(conn) {
            self.tell_left(&left);
        }
    }

    /// The connection wants to know which of these users are online; what is known already.
    pub fn watch(&mut self, conn: ConnId, list: Vec<ChannelKey>) -> Changes {
        let (unknown, known) = self.hub.watchlists.watch(conn, list);
        if !unknown.is_empty() {
            let users = unknown.iter().map(ChannelKey::as_str).collect();
            self.outlet.tell(&Up::Watch { users });
        }
        known
    }

    /// The connection has left.
    pub fn unwatch(&mut self, conn: ConnId) {
        let alone = self.hub.watchlists.unwatch(conn);
        if !alone.is_empty() {
            let users = alone.iter().map(ChannelKey::as_str).collect();
            self.outlet.tell(&Up::Unwatch { users });
        }
    }

    fn tell_left(&mut self, left: &Left) {
        self.outlet.tell(&Up::Unsubscribe {
            channel: left.key.as_str(),
            user_id: left.user_id.as_deref(),
        });
    }
}

/// What messages mean on one kind of listener. Every call returns at once; what has to wait is
/// asked for and comes back as another call.
pub trait Application {
    /// The reactor is about to begin.
    fn started(&mut self, _cx: &mut Cx<'_>) {}

    /// Its place is taken by another; the clients will be let go one after the other.
    fn draining(&mut self, _cx: &mut Cx<'_>) {}

    /// The reactor ends; the clients are told to go after this.
    fn stopping(&mut self, _cx: &mut Cx<'_>) {}

    /// When `elapsed` is due.
    fn deadline(&self) -> Option<Moment> {
        None
    }

    fn elapsed(&mut self, _cx: &mut Cx<'_>) {}

    /// Where a connection comes from: told when it was accepted, and again when more is known.
    /// `listener` is its listener's place in the configuration.
    fn located(
        &mut self,
        _conn: ConnId,
        _listener: usize,
        _address: Option<SocketAddr>,
        _cx: &mut Cx<'_>,
    ) {
    }

    /// More than half of what may wait for the connection does.
    fn congested(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    /// A connection that was congested has taken everything.
    fn drained(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    /// A request arrived. Exactly one `reply` or `upgrade` is owed, now or when an answer comes.
    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>);

    /// A client connected that speaks lines, frames or bytes; messages follow without a request.
    fn connected(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    /// A session of many requests began with the request of `by`. From here on it is a connection
    /// like others: messages follow, and in the end `closed`.
    fn session_opened(&mut self, _session: ConnId, _by: ConnId, _cx: &mut Cx<'_>) {}

    /// The upgrade was done, or a stream was begun.
    fn opened(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    fn message(&mut self, _conn: ConnId, _message: Message<'_>, _cx: &mut Cx<'_>) {}

    /// The answer to this connection's `ask`.
    fn answered(&mut self, conn: ConnId, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>);

    /// What came of this connection's `open_file`. A response with `file` reads from it.
    fn file_opened(&mut self, _conn: ConnId, _file: Result<&FileFacts, NoFile>, _cx: &mut Cx<'_>) {}

    /// What this connection's `gather` brought.
    fn gathered(&mut self, _conn: ConnId, _page: Result<&Page<'_>, Unavailable>, _cx: &mut Cx<'_>) {
    }

    /// The subscription stands. The channel's events follow, after those that `kept` brings.
    fn subscribed(&mut self, _: ConnId, _: &ChannelKey, _kept: &Kept<'_>, _: &mut Cx<'_>) {}

    /// The subscription was refused.
    fn refused(&mut self, _: ConnId, _: &ChannelKey, _: RefusalReason, _: &mut Cx<'_>) {}

    /// A server was reached: TLS and the WebSocket handshake, if any, are done. From here on the
    /// connection is like one that was accepted: messages follow, silence counts, and `closed`
    /// comes in the end.
    fn reached(&mut self, _conn: ConnId, _dial: DialId, _cx: &mut Cx<'_>) {}

    /// A server was not reached; `why` is a sentence for people, which quotes nothing that the
    /// server sent.
    fn unreached(&mut self, _dial: DialId, _why: &str, _cx: &mut Cx<'_>) {}

    /// An event this connection published through `Outlet::publish` reached nobody.
    fn undelivered(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    /// A connection whose protocol has no PING was silent for long. Unless something comes soon it
    /// is ended, so whoever can ask for a sign of life does it now.
    fn silent(&mut self, _conn: ConnId, _cx: &mut Cx<'_>) {}

    /// What a connection whose protocol has no Close frame is told before it ends.
    fn last_words(&self, _close: &Close) -> Option<String> {
        None
    }

    /// Nothing can be sent to the connection any more. Called once for each that was located or
    /// reached.
    fn closed(&mut self, _conn: ConnId, _close: &Close, _cx: &mut Cx<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_encoded_once_for_each_kind_of_transport() {
        let parcel = Parcel::text("{}");
        for (protocol, expected) in [
            (Protocol::Http, &b"\x81\x02{}"[..]),
            (Protocol::Lines, b"{}\n"),
            (Protocol::Frames, b"\0\0\0\x06{}"),
            (Protocol::Raw, b"{}"),
        ] {
            let encoded = || parcel.encoded(protocol).expect("it is shared");
            let first = encoded().expect("it has a form");
            assert_eq!(&first[..], expected);
            let second = encoded().expect("it has a form");
            assert_eq!(first.as_ptr(), second.as_ptr());
        }
    }

    #[test]
    fn a_text_that_would_become_two_lines_is_no_line() {
        let parcel = Parcel::text("a\nb");
        assert_eq!(parcel.encoded(Protocol::Lines), Some(Err(Unsendable)));
        assert!(
            parcel
                .encoded(Protocol::Frames)
                .is_some_and(|it| it.is_ok())
        );
    }
}
