//! What is spoken on a listener, and so how a message has to be written for whoever came through
//! it. Knows the framings; knows no connection.

use std::fmt;

use crate::wire::event_stream::EventStream;
use crate::wire::frames::Frames;
use crate::wire::framing::Framing;
use crate::wire::lines::Lines;
use crate::wire::raw::Raw;
use crate::wire::sockjs::SockJs;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1; messages begin after an upgrade and are WebSocket frames.
    #[default]
    Http,
    Lines,
    Frames,
    Raw,
    /// WebSocket frames of a client, which we are: each has a key of its own.
    Masked,
    /// Lines that requests fetch, for a session of many requests.
    SockJs,
    /// Server-Sent Events, one way.
    EventStream,
    /// A framing that the embedding program brought.
    Own(&'static OwnFraming),
}

/// Kept behind one thin pointer, because every connection has one.
pub struct OwnFraming(Box<dyn Framing>);

impl OwnFraming {
    /// Lives as long as the program, as the listener does that speaks it.
    pub fn leak(framing: impl Framing + 'static) -> &'static OwnFraming {
        Box::leak(Box::new(OwnFraming(Box::new(framing))))
    }
}

impl PartialEq for OwnFraming {
    fn eq(&self, other: &OwnFraming) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for OwnFraming {}

impl fmt::Debug for OwnFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnFraming")
    }
}

impl Protocol {
    /// How many have a place.
    pub const COUNT: usize = 6;

    /// A number for each whose messages are written once for all receivers.
    pub fn place(self) -> Option<usize> {
        match self {
            Protocol::Http => Some(0),
            Protocol::Lines => Some(1),
            Protocol::Frames => Some(2),
            Protocol::Raw => Some(3),
            Protocol::SockJs => Some(4),
            Protocol::EventStream => Some(5),
            Protocol::Masked | Protocol::Own(_) => None,
        }
    }

    /// How messages stand in the byte stream; `None` where WebSocket rules that.
    pub fn framing(self) -> Option<&'static dyn Framing> {
        match self {
            Protocol::Http | Protocol::Masked => None,
            Protocol::Lines => Some(&Lines),
            Protocol::Frames => Some(&Frames),
            Protocol::Raw => Some(&Raw),
            Protocol::SockJs => Some(&SockJs),
            Protocol::EventStream => Some(&EventStream),
            Protocol::Own(own) => Some(&*own.0),
        }
    }
}
