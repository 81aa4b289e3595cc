//! Where one connection stands in its protocol: one state machine per protocol. A session consumes
//! an `Inbox`, writes what the protocol itself answers into an `Outbox`, and hands up what it
//! understood. It knows neither sockets nor what messages mean.

pub mod asker;
pub mod caller;
pub mod framed;
pub mod http;
pub mod http1;
pub mod http2;
pub mod link;
pub mod redis;
pub mod stream;
pub mod upgrade;
pub mod websocket;
mod websocket_message;

/// The protocol a connection speaks now.
pub enum Session {
    /// Boxed: a WebSocket, which most connections become, needs a fraction of it.
    Http(Box<http::Http>),
    WebSocket(websocket::WebSocket),
    /// An HTTP answer that has begun and has no end.
    Stream(Box<stream::Stream>),
    /// We asked a server for a WebSocket and wait for its answer.
    Upgrading(Box<upgrade::Upgrade>),
    /// Lines, frames or bytes; also what many requests of one client bring.
    Framed(framed::Framed),
    /// To the switchboard.
    Uplink,
    /// To the master.
    Master,
}

impl Session {
    /// Whether the peer is a stranger, client or server, and not a process of ours.
    pub fn is_foreign(&self) -> bool {
        !matches!(self, Session::Uplink | Session::Master)
    }
}
