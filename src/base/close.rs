//! Every reason a connection ends, with the code each protocol knows it by. Codes 4000 and up are
//! Pusher's: 4000–4099 tell a client to stay away, 4100–4199 to wait a second, 4200–4299 to come
//! back at once.

use std::borrow::Cow;

/// What a peer did that its protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// RFC 6455 section 7.4.1, code 1002.
    Protocol(&'static str),
    /// Text that is not UTF-8, code 1007.
    NotUtf8,
    /// A message over `limits.message_bytes`, code 1009.
    TooBig,
    /// A kind of data the application does not take, code 1003.
    Unsupported(&'static str),
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// Its work is done: the last answer was sent, the Close frames were exchanged.
    Done,
    /// The peer closed or the network broke.
    PeerGone,
    /// The peer broke the protocol.
    Violation(Violation),
    /// The outbox passed `limits.outbox_bytes`.
    TooSlow,
    /// It did not take an answer within `limits.write_seconds`.
    Unread,
    /// A deadline of the protocol passed.
    TooLate,
    /// No answer to our PING.
    Unheard,
    /// The server stops or the worker is replaced.
    GoingAway,
    /// Pusher 4200: another worker takes over and waits for the client already.
    Replaced,
    /// The operator closed it.
    Dismissed,
    /// Pusher 4001.
    AppUnknown(String),
    /// Pusher 4005.
    PathUnknown,
    /// Pusher 4006 or 4007, by the code.
    VersionRefused(u16),
    /// Pusher 4009.
    Unauthorised(&'static str),
    /// The embedding program closed it, with the code and text of a WebSocket Close frame.
    Chosen(u16, String),
    /// The application sent what this kind of connection cannot carry.
    Unsendable,
}

impl Close {
    /// The code and text of the WebSocket Close frame; `None` when the socket is cut without one.
    pub fn websocket(&self) -> Option<(u16, Cow<'static, str>)> {
        let (code, text): (u16, &'static str) = match self {
            Close::Done => (1000, ""),
            Close::PeerGone | Close::TooSlow | Close::Unread => return None,
            Close::Violation(violation) => violation.websocket(),
            Close::TooLate => (1002, "Too late"),
            Close::Unheard => (4201, "Pong reply not received"),
            Close::GoingAway => (1001, "Server is going away"),
            Close::Replaced => (4200, "Please reconnect immediately"),
            Close::Dismissed => (1008, "Closed by the operator"),
            Close::AppUnknown(key) => {
                let shown: String = key.chars().take(60).collect();
                let text = format!("App key {shown} does not exist");
                return Some((4001, Cow::Owned(text)));
            }
            Close::PathUnknown => (4005, "Path not found"),
            Close::VersionRefused(4006) => (4006, "Invalid version string"),
            Close::VersionRefused(code) => (*code, "Unsupported protocol version"),
            Close::Unauthorised(text) => (4009, text),
            Close::Chosen(code, text) => return Some((*code, Cow::Owned(text.clone()))),
            Close::Unsendable => (1011, "Message cannot be sent on this connection"),
        };
        Some((code, Cow::Borrowed(text)))
    }
}

impl Violation {
    fn websocket(self) -> (u16, &'static str) {
        match self {
            Violation::Protocol(text) => (1002, text),
            Violation::NotUtf8 => (1007, "Text is not UTF-8"),
            Violation::TooBig => (1009, "Message is too big"),
            Violation::Unsupported(text) => (1003, text),
        }
    }
}
