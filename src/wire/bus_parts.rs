//! What messages on the bus are made of: members, events, questions and their answers, and how each
//! is written. It does not know which message carries which.

use crate::base::ids::SocketId;
use crate::wire::bus_codec::{Garbled, Reader, Writer};
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// One user of a presence channel as its first connection described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    pub user_id: &'a str,
    /// JSON; `null` when none was given.
    pub user_info: &'a str,
}

/// Which numbers the publisher or reader asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfoWanted {
    pub user_count: bool,
    pub subscription_count: bool,
    /// The last event of a cache channel; for readers only.
    pub cache: bool,
    /// Where the event stands in its channel; for publishers only.
    pub offset: bool,
}

impl InfoWanted {
    pub fn any(self) -> bool {
        self.user_count || self.subscription_count || self.offset
    }
}

/// What subscribers are to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An event of a Pusher channel. Name and data are JSON strings, quotes included: escaped once,
    /// by the accepting worker.
    Event { name: &'a str, data: &'a str },
    /// Passed on as it is.
    Text(&'a str),
    /// Likewise.
    Binary(&'a [u8]),
    /// Nothing to read: the subscribers' connections are to be closed.
    Dismissal,
}

/// The last event of a cache channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<'a> {
    /// JSON strings, quotes included.
    pub name: &'a str,
    pub data: &'a str,
    /// Until it is forgotten.
    pub ttl_seconds: u64,
}

/// An event's place in a channel that keeps history, or that of the channel's last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Tells the lives of a channel's history apart.
    pub epoch: u64,
    /// From 1 on; 0 is before the first event.
    pub offset: u64,
}

/// From where a subscriber wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    pub position: Position,
    /// Who it was when it got there: what it was not to receive then, it is not to receive now.
    pub socket_id: Option<SocketId>,
}

/// An event of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past<'a> {
    pub offset: u64,
    /// JSON strings, quotes included.
    pub name: &'a str,
    pub data: &'a str,
    pub user_id: Option<&'a str>,
}

/// What a subscriber of a channel with history begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// After everything in `missed`; live events follow it.
    pub position: Position,
    /// All that came after the position it named; `None` when that is not known, or it named none.
    pub missed: Option<Vec<Past<'a>>>,
}

/// One event for one or more channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// `ChannelKey`s.
    pub channels: Vec<&'a str>,
    pub content: Content<'a>,
    /// The sender of a client event in a presence channel.
    pub user_id: Option<&'a str>,
    /// The connection that is not to receive it.
    pub exclude: Option<SocketId>,
    pub info: InfoWanted,
}

/// How many connections of one user, and how many of a channel, a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding<'a> {
    pub channel: &'a str,
    pub subscriptions: u32,
    pub members: Vec<(Member<'a>, u32)>,
    /// Of the last event that its subscribers were sent, where history is kept.
    pub position: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Occupied channels of an app whose name starts with `prefix`.
    Channels {
        app_id: &'a str,
        prefix: &'a str,
    },
    Channel {
        channel: &'a str,
    },
    /// User ids of a presence channel.
    Users {
        channel: &'a str,
    },
    /// Whether every worker is linked.
    Ready,
    /// Events of a channel's history: the first ones after a position, else the last ones.
    History {
        channel: &'a str,
        after: Option<Position>,
        count: u32,
    },
    /// For the courier. With ticket 0 nobody waits for its answer.
    Gateway(GatewayCall<'a>),
}

/// What the switchboard knows of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounts {
    pub users: u64,
    pub subscriptions: u64,
}

/// Why the switchboard does not do as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// A presence channel has `limits.presence_members` users.
    Full,
    /// A worker that has subscribers does not keep up, so delivery cannot be promised.
    Congested,
    /// `limits.held_messages` wait for a new switchboard to settle.
    Settling,
    /// The answer would be longer than `limits.bus_message_bytes`.
    TooLong,
    /// More events were published than a rate allows.
    TooOften,
    /// The same request was made before.
    Repeated,
    /// The courier is away, or too much waits for it.
    NoCourier,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// One entry per channel of each item that wanted info, in the order of the call; the position
    /// where history is kept. Sent when the kernel has the event on the link of every worker with
    /// subscribers, and in a cluster Redis has answered, or will not.
    Published {
        counts: Vec<(ChannelCounts, Option<Position>)>,
        reach: Reach,
    },
    /// Names without the app, sorted.
    Channels(Vec<(&'a str, ChannelCounts)>),
    /// Zero subscriptions: not occupied.
    Channel {
        counts: ChannelCounts,
        cached: Option<Cached<'a>>,
    },
    Users(Vec<&'a str>),
    Ready {
        linked: u32,
        expected: u32,
        /// In a cluster; whether this server has joined it.
        joined: Option<bool>,
    },
    Refused(RefusalReason),
    /// Where the channel stands, unless it keeps no history; the events that were asked for, oldest
    /// first, or `None` when some of them are gone.
    History {
        position: Option<Position>,
        events: Option<Vec<Past<'a>>>,
    },
    /// The courier's.
    Gateway(GatewayAnswer<'a>),
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To every server there is.
    Everywhere,
    /// To this server; of the others nobody can say.
    Here,
}

impl<'a> Member<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        to.text(self.user_id).text(self.user_info);
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Member<'a>, Garbled> {
        Ok(Member {
            user_id: from.text()?,
            user_info: from.text()?,
        })
    }
}

impl InfoWanted {
    pub(super) fn write(self, to: &mut Writer) {
        let counts = u8::from(self.user_count) | u8::from(self.subscription_count) << 1;
        to.u8(counts | u8::from(self.cache) << 2 | u8::from(self.offset) << 3);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<InfoWanted, Garbled> {
        let bits = from.u8()?;
        Ok(InfoWanted {
            user_count: bits & 1 != 0,
            subscription_count: bits & 2 != 0,
            cache: bits & 4 != 0,
            offset: bits & 8 != 0,
        })
    }
}

impl<'a> Content<'a> {
    /// Bytes it adds to a message.
    pub fn len(self) -> usize {
        match self {
            Content::Event { name, data } => name.len() + data.len(),
            Content::Text(text) => text.len(),
            Content::Binary(bytes) => bytes.len(),
            Content::Dismissal => 0,
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub(super) fn write(self, to: &mut Writer) {
        match self {
            Content::Event { name, data } => to.u8(0).text(name).text(data),
            Content::Text(text) => to.u8(1).text(text),
            Content::Binary(bytes) => to.u8(2).bytes(bytes),
            Content::Dismissal => to.u8(3),
        };
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Content<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Content::Event {
                name: from.text()?,
                data: from.text()?,
            },
            1 => Content::Text(from.text()?),
            2 => Content::Binary(from.bytes()?),
            3 => Content::Dismissal,
            _ => return Err(Garbled),
        })
    }
}

impl<'a> Cached<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        to.text(self.name).text(self.data).u64(self.ttl_seconds);
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Cached<'a>, Garbled> {
        Ok(Cached {
            name: from.text()?,
            data: from.text()?,
            ttl_seconds: from.u64()?,
        })
    }
}

impl Position {
    pub(super) fn write(self, to: &mut Writer) {
        to.u64(self.epoch).u64(self.offset);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Position, Garbled> {
        Ok(Position {
            epoch: from.u64()?,
            offset: from.u64()?,
        })
    }
}

impl Recover {
    pub(super) fn write(self, to: &mut Writer) {
        self.position.write(to);
        to.option(self.socket_id, |to, id| {
            to.socket_id(id);
        });
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Recover, Garbled> {
        Ok(Recover {
            position: Position::read(from)?,
            socket_id: from.option(Reader::socket_id)?,
        })
    }
}

impl<'a> Past<'a> {
    /// Bytes it adds to a message, at most.
    pub fn bytes(&self) -> usize {
        self.name.len() + self.data.len() + self.user_id.map_or(0, str::len) + 64
    }

    fn write(&self, to: &mut Writer) {
        to.u64(self.offset).text(self.name).text(self.data);
        to.option(self.user_id, |to, user_id| {
            to.text(user_id);
        });
    }

    fn read(from: &mut Reader<'a>) -> Result<Past<'a>, Garbled> {
        Ok(Past {
            offset: from.u64()?,
            name: from.text()?,
            data: from.text()?,
            user_id: from.option(Reader::text)?,
        })
    }
}

fn write_events(to: &mut Writer, events: Option<&[Past<'_>]>) {
    to.option(events, |to, events| {
        to.list(events, |to, event| event.write(to));
    });
}

impl<'a> Beginning<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        self.position.write(to);
        write_events(to, self.missed.as_deref());
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Beginning<'a>, Garbled> {
        Ok(Beginning {
            position: Position::read(from)?,
            missed: from.option(|from| from.list(Past::read))?,
        })
    }
}

impl<'a> Item<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        to.list(&self.channels, |to, channel| {
            to.text(channel);
        });
        self.content.write(to);
        to.option(self.user_id, |to, user_id| {
            to.text(user_id);
        });
        to.option(self.exclude, |to, id| {
            to.socket_id(id);
        });
        self.info.write(to);
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Item<'a>, Garbled> {
        Ok(Item {
            channels: from.list(Reader::text)?,
            content: Content::read(from)?,
            user_id: from.option(Reader::text)?,
            exclude: from.option(Reader::socket_id)?,
            info: InfoWanted::read(from)?,
        })
    }
}

impl<'a> Holding<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        to.text(self.channel).u32(self.subscriptions);
        to.list(&self.members, |to, (member, count)| {
            member.write(to);
            to.u32(*count);
        });
        to.option(self.position, |to, position| position.write(to));
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Holding<'a>, Garbled> {
        Ok(Holding {
            channel: from.text()?,
            subscriptions: from.u32()?,
            members: from.list(|from| Ok((Member::read(from)?, from.u32()?)))?,
            position: from.option(Position::read)?,
        })
    }
}

impl<'a> Question<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        match self {
            Question::Channels { app_id, prefix } => to.u8(0).text(app_id).text(prefix),
            Question::Channel { channel } => to.u8(1).text(channel),
            Question::Users { channel } => to.u8(2).text(channel),
            Question::Ready => to.u8(3),
            Question::History {
                channel,
                after,
                count,
            } => {
                to.u8(4).text(channel).u32(*count);
                to.option(*after, |to, after| after.write(to))
            }
            Question::Gateway(call) => {
                call.write(to.u8(5));
                to
            }
        };
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Question<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Question::Channels {
                app_id: from.text()?,
                prefix: from.text()?,
            },
            1 => Question::Channel {
                channel: from.text()?,
            },
            2 => Question::Users {
                channel: from.text()?,
            },
            3 => Question::Ready,
            4 => Question::History {
                channel: from.text()?,
                count: from.u32()?,
                after: from.option(Position::read)?,
            },
            5 => Question::Gateway(GatewayCall::read(from)?),
            _ => return Err(Garbled),
        })
    }
}

impl ChannelCounts {
    pub(super) fn write(&self, to: &mut Writer) {
        to.u64(self.users).u64(self.subscriptions);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<ChannelCounts, Garbled> {
        Ok(ChannelCounts {
            users: from.u64()?,
            subscriptions: from.u64()?,
        })
    }
}

impl RefusalReason {
    const ALL: [RefusalReason; 7] = [
        RefusalReason::Full,
        RefusalReason::Congested,
        RefusalReason::Settling,
        RefusalReason::TooLong,
        RefusalReason::TooOften,
        RefusalReason::Repeated,
        RefusalReason::NoCourier,
    ];

    pub(super) fn write(self, to: &mut Writer) {
        to.u8(self as u8);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<RefusalReason, Garbled> {
        let index = usize::from(from.u8()?);
        RefusalReason::ALL.get(index).copied().ok_or(Garbled)
    }
}

impl<'a> Answer<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        match self {
            Answer::Published { counts, reach } => {
                to.u8(0).list(counts, |to, (counts, position)| {
                    counts.write(to);
                    to.option(*position, |to, position| position.write(to));
                });
                to.u8(u8::from(*reach == Reach::Here));
            }
            Answer::Channels(channels) => {
                to.u8(1).list(channels, |to, (name, counts)| {
                    to.text(name);
                    counts.write(to);
                });
            }
            Answer::Channel { counts, cached } => {
                counts.write(to.u8(2));
                to.option(*cached, |to, cached| cached.write(to));
            }
            Answer::Users(users) => {
                to.u8(3).list(users, |to, user| {
                    to.text(user);
                });
            }
            Answer::Ready {
                linked,
                expected,
                joined,
            } => {
                to.u8(4).u32(*linked).u32(*expected);
                to.option(*joined, |to, joined| {
                    to.u8(u8::from(joined));
                });
            }
            Answer::Refused(reason) => reason.write(to.u8(5)),
            Answer::History { position, events } => {
                to.u8(6);
                to.option(*position, |to, position| position.write(to));
                write_events(to, events.as_deref());
            }
            Answer::Gateway(answer) => answer.write(to.u8(7)),
        }
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<Answer<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Answer::Published {
                counts: from.list(|from| {
                    let counts = ChannelCounts::read(from)?;
                    Ok((counts, from.option(Position::read)?))
                })?,
                reach: match from.u8()? {
                    0 => Reach::Everywhere,
                    _ => Reach::Here,
                },
            },
            1 => {
                Answer::Channels(from.list(|from| Ok((from.text()?, ChannelCounts::read(from)?)))?)
            }
            2 => Answer::Channel {
                counts: ChannelCounts::read(from)?,
                cached: from.option(Cached::read)?,
            },
            3 => Answer::Users(from.list(Reader::text)?),
            4 => Answer::Ready {
                linked: from.u32()?,
                expected: from.u32()?,
                joined: from.option(|from| Ok(from.u8()? != 0))?,
            },
            5 => Answer::Refused(RefusalReason::read(from)?),
            6 => Answer::History {
                position: from.option(Position::read)?,
                events: from.option(|from| from.list(Past::read))?,
            },
            7 => Answer::Gateway(GatewayAnswer::read(from)?),
            _ => return Err(Garbled),
        })
    }
}
