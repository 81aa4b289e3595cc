//! What workers say to each other, through the switchboard, about sessions of many requests: a
//! request that reached another worker than the one that holds the session becomes an errand to it.
//! Does not know how errands find their way.

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// Who waits for the outcome of an errand: a reactor, and its number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub slot: u32,
    pub life: u32,
    pub ticket: u64,
}

/// What the holder of a session is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand<'a> {
    /// Hand over lines as soon as there are any. `have` is the number of the lines that came last
    /// under the same ticket, if any did; more is asked for under it if they fit `room`, counted in
    /// characters. If nobody holds the session, the caller is to, unless it `opens` none.
    Receive {
        have: Option<u32>,
        room: u32,
        opens: bool,
    },
    /// Whoever received under this ticket does no more: it hung up, or was sent elsewhere and will
    /// be back.
    Release { returns: bool },
    /// Take up these messages, as `wire::sockjs::messages` wrote them.
    Post(&'a [u8]),
    /// Messages of the client were lost on their way: it is to begin anew.
    Lost,
}

/// What came of an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Nobody held the session; the caller does now.
    Yours,
    /// Nobody holds the session.
    Unknown,
    /// Not now: too much waits somewhere.
    Busy,
    /// What was brought has been taken up.
    Taken,
    /// Lines of the session, numbered from 1; kept until what is asked next shows that they came.
    /// After the last there is no session.
    Lines {
        number: u32,
        lines: &'a [u8],
        last: bool,
    },
    /// Somebody else receives now.
    Superseded,
    /// Who held the session is no more.
    Gone,
}

impl Caller {
    pub(super) fn write(self, to: &mut Writer) {
        to.u32(self.slot).u32(self.life).u64(self.ticket);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Caller, Garbled> {
        Ok(Caller {
            slot: from.u32()?,
            life: from.u32()?,
            ticket: from.u64()?,
        })
    }
}

impl<'a> Errand<'a> {
    pub(super) fn write(self, to: &mut Writer) {
        match self {
            Errand::Receive { have, room, opens } => {
                to.u8(0).option(have, |to, have| {
                    to.u32(have);
                });
                to.u32(room).u8(u8::from(opens));
            }
            Errand::Release { returns } => {
                to.u8(1).u8(u8::from(returns));
            }
            Errand::Post(messages) => {
                to.u8(2).bytes(messages);
            }
            Errand::Lost => {
                to.u8(3);
            }
        }
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Errand<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Errand::Receive {
                have: from.option(Reader::u32)?,
                room: from.u32()?,
                opens: from.u8()? != 0,
            },
            1 => Errand::Release {
                returns: from.u8()? != 0,
            },
            2 => Errand::Post(from.bytes()?),
            3 => Errand::Lost,
            _ => return Err(Garbled),
        })
    }
}

impl<'a> Outcome<'a> {
    pub(super) fn write(self, to: &mut Writer) {
        match self {
            Outcome::Yours => to.u8(0),
            Outcome::Unknown => to.u8(1),
            Outcome::Busy => to.u8(2),
            Outcome::Taken => to.u8(3),
            Outcome::Lines {
                number,
                lines,
                last,
            } => to.u8(4).u32(number).bytes(lines).u8(u8::from(last)),
            Outcome::Superseded => to.u8(5),
            Outcome::Gone => to.u8(6),
        };
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Outcome<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Outcome::Yours,
            1 => Outcome::Unknown,
            2 => Outcome::Busy,
            3 => Outcome::Taken,
            4 => Outcome::Lines {
                number: from.u32()?,
                lines: from.bytes()?,
                last: from.u8()? != 0,
            },
            5 => Outcome::Superseded,
            6 => Outcome::Gone,
            _ => return Err(Garbled),
        })
    }
}
