//! What the servers of a cluster say to each other through Redis, and what is kept there of them:
//! names of keys, messages, the scripts that change them (docs/cluster.md). It does not know who says
//! what when.
//!
//! A message is one letter for its kind, then the id of the server that speaks, then a frame. Kinds
//! that a server does not know are left alone, so that a cluster can be upgraded server by server.

use std::fmt;
use std::str::FromStr;

use crate::wire::bus::{Item, Position};
use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// One server from when it joins until it is away or ends; nobody else ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    /// By chance: one life of one switchboard.
    pub life: u64,
    /// How often that has joined before.
    pub era: u32,
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{:08x}", self.life, self.era)
    }
}

impl FromStr for ServerId {
    type Err = Garbled;

    fn from_str(text: &str) -> Result<ServerId, Garbled> {
        let (life, era) = text.split_once('.').ok_or(Garbled)?;
        let id = ServerId {
            life: u64::from_str_radix(life, 16).map_err(|_| Garbled)?,
            era: u32::from_str_radix(era, 16).map_err(|_| Garbled)?,
        };
        // One spelling, since it is a key too.
        match id.to_string() == text {
            true => Ok(id),
            false => Err(Garbled),
        }
    }
}

/// Bytes of an id as text.
const ID_BYTES: usize = 16 + 1 + 8;
/// Of epoch, offset and number.
const PLACE_BYTES: usize = 3 * 16;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// An event for the channel on which the message comes; the item names none itself. `kept`: it
    /// is the last one of a cache channel from now on.
    Event {
        server: ServerId,
        kept: bool,
        item: Item<'a>,
    },
    /// The same in a channel that keeps history, where it has this position. `number` is the one that
    /// its server knows it by. Made of an event by a script.
    Placed {
        server: ServerId,
        position: Position,
        number: u64,
        kept: bool,
        item: Item<'a>,
    },
    /// What the server holds there from now on. Users who are not named did not change.
    Holds {
        server: ServerId,
        subscriptions: u32,
        users: Vec<(&'a str, Option<&'a str>)>,
    },
    /// The server holds nothing there any more. Written by a script.
    Gone { server: ServerId },
    /// Somebody subscribed there to an empty cache channel. To whoever tells webhooks.
    Missed { server: ServerId },
}

impl<'a> Said<'a> {
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(0);
        let (kind, server) = match self {
            Said::Event { server, kept, item } => {
                item.write(to.u8(u8::from(*kept)));
                (b'E', server)
            }
            Said::Placed {
                server,
                position: Position { epoch, offset },
                number,
                kept,
                item,
            } => {
                let place = format!("P{server}{epoch:016x}{offset:016x}{number:016x}");
                item.write(to.u8(u8::from(*kept)));
                return [place.into_bytes(), to.finish()].concat();
            }
            Said::Holds {
                server,
                subscriptions,
                users,
            } => {
                to.u32(*subscriptions);
                to.list(users, |to, (user, info)| {
                    to.text(user).option(*info, |to, info| {
                        to.text(info);
                    });
                });
                (b'H', server)
            }
            Said::Gone { server } => return format!("G{server}").into_bytes(),
            Said::Missed { server } => return format!("M{server}").into_bytes(),
        };
        let mut message = vec![kind];
        message.extend_from_slice(server.to_string().as_bytes());
        message.extend(to.finish());
        message
    }

    /// `None` for a kind that a newer server may know.
    pub fn decode(message: &'a [u8]) -> Result<Option<Said<'a>>, Garbled> {
        let (kind, rest) = message.split_first().ok_or(Garbled)?;
        let (server, frame) = rest.split_at_checked(ID_BYTES).ok_or(Garbled)?;
        let server: ServerId = std::str::from_utf8(server).map_err(|_| Garbled)?.parse()?;
        match kind {
            b'G' => return Ok(Some(Said::Gone { server })),
            b'M' => return Ok(Some(Said::Missed { server })),
            b'E' | b'H' | b'P' => {}
            _ => return Ok(None),
        }
        let (place, frame) = match kind {
            b'P' => frame.split_at_checked(PLACE_BYTES).ok_or(Garbled)?,
            _ => frame.split_at(0),
        };
        let (_, mut from) = Reader::new(frame)?;
        let from = &mut from;
        let said = match kind {
            b'E' => Said::Event {
                server,
                kept: from.u8()? != 0,
                item: Item::read(from)?,
            },
            b'P' => Said::Placed {
                server,
                position: Position {
                    epoch: digits(&place[..16])?,
                    offset: digits(&place[16..32])?,
                },
                number: digits(&place[32..])?,
                kept: from.u8()? != 0,
                item: Item::read(from)?,
            },
            _ => Said::Holds {
                server,
                subscriptions: from.u32()?,
                users: from.list(|from| Ok((from.text()?, from.option(Reader::text)?)))?,
            },
        };
        from.end()?;
        Ok(Some(said))
    }
}

/// A number as scripts write it, in sixteen digits.
pub fn digits(text: &[u8]) -> Result<u64, Garbled> {
    let text = std::str::from_utf8(text).map_err(|_| Garbled)?;
    match text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => u64::from_str_radix(text, 16).map_err(|_| Garbled),
        false => Err(Garbled),
    }
}

/// What Redis is asked to run, by its place in `SCRIPTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Hold,
    Bury,
    Renew,
    Look,
    Tell,
    Glance,
    Turn,
    Keep,
    News,
}

/// Their texts; each file says what it takes and returns.
pub const SCRIPTS: [&str; 9] = [
    concat!(include_str!("sums.lua"), include_str!("hold.lua")),
    concat!(include_str!("sums.lua"), include_str!("bury.lua")),
    include_str!("renew.lua"),
    concat!(include_str!("places.lua"), include_str!("look.lua")),
    concat!(include_str!("places.lua"), include_str!("tell.lua")),
    include_str!("glance.lua"),
    include_str!("turn.lua"),
    include_str!("keep.lua"),
    include_str!("news.lua"),
];

/// What the first word of an error is when a server's lease is gone.
pub const LOST: &[u8] = b"LOST";

/// The names of keys, as far as they are not made by scripts.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Names {
        Names {
            prefix: prefix.to_string(),
        }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn lease(&self, server: ServerId) -> String {
        format!("{}server:{server}", self.prefix)
    }

    /// While it is there, nothing more is heard of the server, though its lease may live.
    pub fn mute(&self, server: ServerId) -> String {
        format!("{}mute:{server}", self.prefix)
    }

    pub fn servers(&self) -> String {
        format!("{}servers", self.prefix)
    }

    /// Whom endpoints are told to be there, requests that are not settled, and how far reports were
    /// taken up: the memory of whoever tells webhooks.
    pub fn told(&self) -> String {
        format!("{}told", self.prefix)
    }

    pub fn letters(&self) -> String {
        format!("{}letters", self.prefix)
    }

    pub fn heard(&self) -> String {
        format!("{}heard", self.prefix)
    }

    /// The occupied channels of an app.
    pub fn app(&self, app_id: &str) -> String {
        format!("{}app:{app_id}", self.prefix)
    }

    /// Where events and changes of a channel come.
    pub fn on(&self, key: &str) -> String {
        format!("{}on:{key}", self.prefix)
    }

    /// Where changes of all channels of an app come, each message behind the channel's key and a
    /// blank; and what else whoever tells webhooks has to know.
    pub fn within(&self, app_id: &str) -> String {
        format!("{}in:{app_id}", self.prefix)
    }

    /// Whether that is such a name.
    pub fn is_within(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix);
        rest.is_some_and(|rest| rest.starts_with("in:"))
    }

    /// The channel of which `on` gave the name.
    pub fn key_of<'a>(&self, on: &'a str) -> Option<&'a str> {
        on.strip_prefix(&self.prefix)?.strip_prefix("on:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bus::Content;

    const SERVER: ServerId = ServerId {
        life: 0xfeed,
        era: 7,
    };

    #[test]
    fn what_is_said_is_understood_and_what_is_cut_is_not() {
        let item = Item {
            channels: Vec::new(),
            content: Content::Event {
                name: "\"e\"",
                data: "\"d\"",
            },
            user_id: Some("u"),
            exclude: None,
            info: Default::default(),
        };
        let users = vec![("u", Some("{}")), ("v", None)];
        let server = SERVER;
        let all = [
            Said::Event {
                server,
                kept: true,
                item: item.clone(),
            },
            Said::Placed {
                server,
                position: Position {
                    epoch: u64::MAX,
                    offset: 1,
                },
                number: 0xabc,
                kept: false,
                item,
            },
            Said::Holds {
                server,
                subscriptions: 3,
                users,
            },
            Said::Gone { server },
            Said::Missed { server },
        ];
        for said in all {
            let message = said.encode();
            assert_eq!(Said::decode(&message), Ok(Some(said)));
            for cut in 0..message.len() {
                assert_eq!(Said::decode(&message[..cut]), Err(Garbled), "{cut}");
            }
        }
        let mut newer = Said::Gone { server }.encode();
        newer[0] = b'Z';
        assert_eq!(Said::decode(&newer), Ok(None));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let text = SERVER.to_string();
        assert_eq!(text.len(), ID_BYTES);
        assert_eq!(text.parse(), Ok(SERVER));
        for bad in [
            "",
            "feed.7",
            &text.to_uppercase(),
            &format!("+{}", &text[1..]),
        ] {
            assert!(bad.parse::<ServerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_channel_is_found_by_the_name_it_has_in_redis() {
        let names = Names::new("p:");
        assert_eq!(names.key_of(&names.on("demo/a")), Some("demo/a"));
        assert_eq!(names.key_of("q:on:demo/a"), None);
        assert_eq!(names.lease(SERVER), format!("p:server:{SERVER}"));
    }
}
