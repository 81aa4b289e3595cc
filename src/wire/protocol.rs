//! What is spoken on a listener, and so how a message has to be written for whoever came through
//! it. Knows the framings; knows no connection.

use crate::wire::frames::Frames;
use crate::wire::framing::Framing;
use crate::wire::lines::Lines;
use crate::wire::raw::Raw;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1; messages begin after an upgrade and are WebSocket frames.
    #[default]
    Http,
    Lines,
    Frames,
    Raw,
}

impl Protocol {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// How messages stand in the byte stream; `None` where WebSocket rules that.
    pub fn framing(self) -> Option<&'static dyn Framing> {
        match self {
            Protocol::Http => None,
            Protocol::Lines => Some(&Lines),
            Protocol::Frames => Some(&Frames),
            Protocol::Raw => Some(&Raw),
        }
    }
}
