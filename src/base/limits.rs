//! Every bound that can be configured: its name, its default, and what happens at it. (A bound that
//! nobody would want to change is a constant beside the code that keeps it.) The `[limits]` table
//! of the configuration has exactly these keys, and its reference page is made from this list.

use serde::Deserialize;

/// What happens to an event for a client whose outbox has no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutboxPolicy {
    /// The client is cut.
    Close,
    /// The client does not get it, nor those that follow until it has taken what waits.
    Drop,
}

/// A value as it is written in the file.
trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown_numbers {
    ($($type:ty),*) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                grouped(&self.to_string())
            }
        })*
    };
}

/// 1048576 as 1_048_576, which TOML reads.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

shown_numbers!(u32, u64, usize);

impl Shown for OutboxPolicy {
    fn shown(&self) -> String {
        match self {
            OutboxPolicy::Close => "\"close\"".into(),
            OutboxPolicy::Drop => "\"drop\"".into(),
        }
    }
}

/// One row of the table, for the configuration reference.
pub struct LimitRow {
    pub name: &'static str,
    /// As written in the file.
    pub default: fn() -> String,
    pub help: &'static str,
}

macro_rules! limits {
    ($($name:ident: $type:ty = $default:expr, $help:literal;)*) => {
        /// All bounds of one server; the unit is the last word of each name, plain numbers count
        /// things.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $default,)* }
            }
        }

        impl Limits {
            pub const ROWS: &'static [LimitRow] = &[
                $(LimitRow { name: stringify!($name), default: || Shown::shown(&($default as $type)), help: $help },)*
            ];
        }
    };
}

limits! {
    connections: usize = 100_000,
        "Connections of one reactor. At the limit it stops accepting until one closes.";
    dials: usize = 1_000,
        "Outgoing connections of one reactor that are being established. One more fails at once. Those that stand count among `connections`, and may exceed that limit by this number, so that accepting leaves room for them.";
    connections_per_address: u64 = 0,
        "Connections of one address in the whole server; of an IPv6 address, of its /64. One more is refused (tarpit_seconds). 0 sets no limit, which is right behind a proxy unless proxy_protocol tells the clients' addresses: to this limit, a request's header comes too late.";
    accepts_per_address_per_second: u64 = 0,
        "New connections of one address in a second, in the whole server and after a burst of as many. More are refused (tarpit_seconds). 0 sets no limit.";
    tarpit_seconds: u64 = 5,
        "Who is refused because of one of the two limits above is closed after a random part of this time, since clients that are closed at once come back at once. 1,000 of a reactor are held so; more are closed at once, and so are those that came through a proxy with the PROXY protocol. 0 holds nobody.";
    tls_handshake_seconds: u64 = 10,
        "Time for a TLS handshake, or a PROXY header, or both. Then the connection is cut.";
    http_head_bytes: usize = 16_384,
        "Request line and headers. A longer head is answered 431 (414 when the request line alone is longer than half of it).";
    http_body_bytes: usize = 1_048_576,
        "Request body. A longer one is answered 413.";
    http_head_seconds: u64 = 10,
        "Time for a request head to arrive whole. Then 408, or a silent close when nothing was sent.";
    http_body_seconds: u64 = 30,
        "Time for a request body to arrive whole; then 408. Also for a client to take 64 KiB of a file; then the connection is cut.";
    http_idle_seconds: u64 = 75,
        "Time a kept-alive connection may wait for its next request. Then it is closed.";
    write_seconds: u64 = 30,
        "Time for a client to take an HTTP answer, and for every client to take what was queued for it before its end. Then it is cut.";
    http_sessions: usize = 10_000,
        "Clients of one reactor that come by HTTP requests instead of a WebSocket. One more is answered 503.";
    http_session_seconds: u64 = 20,
        "Time such a client may be without a request that waits for messages. Then it counts as gone.";
    http_heartbeat_seconds: u64 = 25,
        "Silence after which a request that waits for messages is answered with a heartbeat, and a stream of messages gets one. Shorter than what proxies allow an answer to take.";
    message_bytes: usize = 131_072,
        "One WebSocket message, all fragments together, or one line or frame with its LF or prefix. A longer one closes the connection with 1009.";
    messages_per_second: u32 = 0,
        "WebSocket messages, lines, frames, HTTP requests or reads of tcp:// of one connection in a second, after a burst of as many. Beyond, it is not read from until its time has come. 0 sets no limit.";
    connect_seconds: u64 = 10,
        "Time for a client of text:// or frame:// to send pusher:connect. Then the connection is closed.";
    close_seconds: u64 = 5,
        "Time for the peer to answer a WebSocket Close frame. Then the socket is closed.";
    outbox_bytes: usize = 1_048_576,
        "Bytes waiting for one client that reads too slowly. One message more and the connection is cut.";
    outbox_policy: OutboxPolicy = OutboxPolicy::Close,
        "What one event more of a channel does to such a client: close cuts it; drop leaves the event out, and all that follow until the client has taken what waits, so that it must expect gaps. What is no event of a channel cuts it either way.";
    activity_seconds: u64 = 120,
        "Silence after which a Pusher client checks its connection (activity_timeout). Ten seconds later the server sends a PING of its own. A client of text:// or frame:// is sent pusher:ping after this silence; silence on tcp:// counts the same.";
    pong_seconds: u64 = 30,
        "Time to answer the server's PING. Then the connection is closed with 4201. Never longer than activity_seconds, so that a dead peer is found within twice the interval of the PINGs.";
    bad_messages: u32 = 20,
        "Malformed messages of one connection. Each is answered with pusher:error; one more closes it with 4009.";
    channels_per_connection: usize = 1_000,
        "Subscriptions of one connection. One more is answered with a subscription error, status 429.";
    channel_name_bytes: usize = 200,
        "Length of a channel name. A longer one is refused with status 400.";
    event_name_bytes: usize = 200,
        "Length of an event name. A longer one is refused with status 400.";
    event_data_bytes: usize = 10_240,
        "The data of one event. Longer data is answered 413; a client event with it gets pusher:error.";
    event_channels: usize = 100,
        "Channels of one published event. More are answered 400.";
    batch_events: usize = 10,
        "Events of one batch. More are answered 400.";
    client_events_per_second: u32 = 10,
        "Client events of one connection. More get pusher:error 4301; the connection stays.";
    notifications_per_second: u32 = 1_000,
        "Notifications of one app in a second (POST notify), after a burst of as many. More are answered 429. 0 sets no limit.";
    notifications_per_user_per_second: u32 = 20,
        "Notifications for one user in a second, after a burst of as many. A call for a user for whom there were more is answered 429. 0 sets no limit.";
    notification_days: u32 = 30,
        "Days for which it can be asked what became of a notification, once nothing is left to do for it. Then it is removed, and its idempotency key is forgotten.";
    presence_members: usize = 100,
        "Users of one presence channel. One more is answered with a subscription error, status 409.";
    presence_member_bytes: usize = 1_024,
        "The user_info of one presence member as JSON. More is answered with a subscription error, status 413.";
    user_id_bytes: usize = 128,
        "Length of a user id. A longer one is answered with a subscription error, status 413.";
    user_data_bytes: usize = 32_768,
        "The user_data of a sign-in. Longer data is answered with pusher:error 4009.";
    watchlist_users: usize = 100,
        "Users on the watchlist of a sign-in. The rest is left out, and pusher:error 4302 says so.";
    cache_events: usize = 10_000,
        "Cache channels whose last event is kept. One more and the oldest event is forgotten.";
    cache_bytes: usize = 67_108_864,
        "Bytes of all events kept for cache channels. More and the oldest are forgotten.";
    cache_seconds: u64 = 1_800,
        "How long the last event of a cache channel is kept.";
    history_channels: usize = 100_000,
        "Channels whose history, or at least its last position, is kept. One more and the one that was silent for longest is forgotten.";
    history_events: usize = 100_000,
        "Events of the history of all channels together. One more and the one whose time is up next is forgotten.";
    history_bytes: usize = 67_108_864,
        "Bytes of the history of all channels together, 128 for each event included. More and the events whose time is up next are forgotten.";
    recover_events: usize = 1_000,
        "Events that a client may have missed in one channel. If there are more, it is told that they cannot be recovered.";
    recover_bytes: usize = 262_144,
        "The same in bytes; also those of one page of the HTTP API's history. A client is sent no more at once than fits into half of its outbox_bytes.";
    devices_per_app: u64 = 10_000_000,
        "Devices that are registered in one app. One more is answered 409.";
    devices_per_user: u64 = 100,
        "Devices of one user that notifications can reach. One more is answered 409.";
    device_calls_per_second: u32 = 5_000,
        "Calls about devices of one app in a second, after a burst of as many; in an import each line counts. More are answered 429. Calls from the command line are not counted. 0 sets no limit.";
    device_calls_per_user_per_second: u32 = 10,
        "Registrations and changes of one user's devices in a second, after a burst of as many; imports are not counted. More are answered 429. 0 sets no limit.";
    questions: usize = 10_000,
        "HTTP calls of one reactor that wait for the switchboard. One more is answered 503.";
    question_seconds: u64 = 5,
        "Time for the switchboard, or for metrics the master, to answer. Then the caller gets 503.";
    link_bytes: usize = 67_108_864,
        "Bytes of events waiting between two of our processes. Publishing into a full link is answered 503. At twice this number the switchboard breaks the link, which then starts over with the whole state.";
    bus_message_bytes: usize = 16_777_216,
        "One message between two of our processes. An answer that would be longer is refused with 400.";
    settle_ms: u64 = 1_000,
        "How long a new switchboard waits for all workers to tell what they hold before it answers anyone.";
    held_messages: usize = 100_000,
        "Messages a new switchboard keeps while it waits for the workers, and answers it keeps while the kernel takes their events. One more is refused with 503.";
}
