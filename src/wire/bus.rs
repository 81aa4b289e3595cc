//! What workers and the switchboard say to each other. `Up` goes to the switchboard, `Down` comes
//! from it. A link is one ordered stream each way; what its order guarantees is written beside
//! the messages that rely on it.

use crate::base::ids::SocketId;
use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// Raised with every change of a message.
pub const VERSION: u32 = 3;

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
}

impl InfoWanted {
    pub fn any(self) -> bool {
        self.user_count || self.subscription_count
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
}

/// Worker to switchboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up<'a> {
    /// Always first. `slot` is the reactor's place among all reactors of the server, `life` tells
    /// the processes apart that hold it one after the other, and for a while together; `shards` is
    /// how many switchboards the worker believes in and `shard` which one it dialled.
    Hello {
        version: u32,
        slot: u32,
        life: u32,
        shard: u32,
        shards: u32,
    },
    /// After Hello, for each channel: what the worker held before this link. Replaces whatever
    /// the switchboard knew from this reactor's former link.
    Announce(Holding<'a>),
    /// All was announced.
    Announced,
    /// `ticket` comes back in `Subscribed` or `Refused`.
    Subscribe {
        ticket: u64,
        channel: &'a str,
        member: Option<Member<'a>>,
    },
    Unsubscribe {
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    /// Ticket 0 wants no answer, only `Undelivered` if it is refused.
    Publish {
        ticket: u64,
        items: Vec<Item<'a>>,
    },
    Ask {
        ticket: u64,
        question: Question<'a>,
    },
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// One entry per channel of each item that wanted info, in the order of the call. Sent when
    /// the kernel has the event on the link of every worker with subscribers.
    Published(Vec<ChannelCounts>),
    /// Names without the app, sorted.
    Channels(Vec<(&'a str, ChannelCounts)>),
    /// Zero subscriptions: not occupied.
    Channel(ChannelCounts),
    Users(Vec<&'a str>),
    Ready {
        linked: u32,
        expected: u32,
    },
    Refused(RefusalReason),
}

/// Switchboard to worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down<'a> {
    /// The snapshot was taken up and the switchboard answers from now on.
    Welcome,
    /// From here on in this stream the subscriber receives the channel's events. `roster` is
    /// sent when this is the worker's first subscription of a presence channel; later changes
    /// follow as `MemberAdded` and `MemberRemoved`.
    Subscribed {
        ticket: u64,
        channel: &'a str,
        roster: Option<Vec<Member<'a>>>,
    },
    Refused {
        ticket: u64,
        channel: &'a str,
        reason: RefusalReason,
    },
    Deliver(Item<'a>),
    MemberAdded {
        channel: &'a str,
        member: Member<'a>,
    },
    MemberRemoved {
        channel: &'a str,
        user_id: &'a str,
    },
    /// The whole truth about a presence channel, after a link came back.
    Roster {
        channel: &'a str,
        members: Vec<Member<'a>>,
    },
    Answer {
        ticket: u64,
        answer: Answer<'a>,
    },
    /// A client event of this connection was refused: a worker with subscribers does not keep up.
    Undelivered {
        sender: SocketId,
    },
}

impl<'a> Member<'a> {
    fn write(&self, to: &mut Writer) {
        to.text(self.user_id).text(self.user_info);
    }

    fn read(from: &mut Reader<'a>) -> Result<Member<'a>, Garbled> {
        Ok(Member {
            user_id: from.text()?,
            user_info: from.text()?,
        })
    }
}

impl InfoWanted {
    fn write(self, to: &mut Writer) {
        to.u8(u8::from(self.user_count) | u8::from(self.subscription_count) << 1);
    }

    fn read(from: &mut Reader<'_>) -> Result<InfoWanted, Garbled> {
        let bits = from.u8()?;
        Ok(InfoWanted {
            user_count: bits & 1 != 0,
            subscription_count: bits & 2 != 0,
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
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn write(self, to: &mut Writer) {
        match self {
            Content::Event { name, data } => to.u8(0).text(name).text(data),
            Content::Text(text) => to.u8(1).text(text),
            Content::Binary(bytes) => to.u8(2).bytes(bytes),
        };
    }

    fn read(from: &mut Reader<'a>) -> Result<Content<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Content::Event {
                name: from.text()?,
                data: from.text()?,
            },
            1 => Content::Text(from.text()?),
            2 => Content::Binary(from.bytes()?),
            _ => return Err(Garbled),
        })
    }
}

impl<'a> Item<'a> {
    fn write(&self, to: &mut Writer) {
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

    fn read(from: &mut Reader<'a>) -> Result<Item<'a>, Garbled> {
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
    fn write(&self, to: &mut Writer) {
        to.text(self.channel).u32(self.subscriptions);
        to.list(&self.members, |to, (member, count)| {
            member.write(to);
            to.u32(*count);
        });
    }

    fn read(from: &mut Reader<'a>) -> Result<Holding<'a>, Garbled> {
        Ok(Holding {
            channel: from.text()?,
            subscriptions: from.u32()?,
            members: from.list(|from| Ok((Member::read(from)?, from.u32()?)))?,
        })
    }
}

impl<'a> Question<'a> {
    fn write(&self, to: &mut Writer) {
        match self {
            Question::Channels { app_id, prefix } => to.u8(0).text(app_id).text(prefix),
            Question::Channel { channel } => to.u8(1).text(channel),
            Question::Users { channel } => to.u8(2).text(channel),
            Question::Ready => to.u8(3),
        };
    }

    fn read(from: &mut Reader<'a>) -> Result<Question<'a>, Garbled> {
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
            _ => return Err(Garbled),
        })
    }
}

impl ChannelCounts {
    fn write(&self, to: &mut Writer) {
        to.u64(self.users).u64(self.subscriptions);
    }

    fn read(from: &mut Reader<'_>) -> Result<ChannelCounts, Garbled> {
        Ok(ChannelCounts {
            users: from.u64()?,
            subscriptions: from.u64()?,
        })
    }
}

impl RefusalReason {
    const ALL: [RefusalReason; 4] = [
        RefusalReason::Full,
        RefusalReason::Congested,
        RefusalReason::Settling,
        RefusalReason::TooLong,
    ];

    fn write(self, to: &mut Writer) {
        to.u8(self as u8);
    }

    fn read(from: &mut Reader<'_>) -> Result<RefusalReason, Garbled> {
        let index = usize::from(from.u8()?);
        RefusalReason::ALL.get(index).copied().ok_or(Garbled)
    }
}

impl<'a> Answer<'a> {
    fn write(&self, to: &mut Writer) {
        match self {
            Answer::Published(counts) => {
                to.u8(0).list(counts, |to, counts| counts.write(to));
            }
            Answer::Channels(channels) => {
                to.u8(1).list(channels, |to, (name, counts)| {
                    to.text(name);
                    counts.write(to);
                });
            }
            Answer::Channel(counts) => counts.write(to.u8(2)),
            Answer::Users(users) => {
                to.u8(3).list(users, |to, user| {
                    to.text(user);
                });
            }
            Answer::Ready { linked, expected } => {
                to.u8(4).u32(*linked).u32(*expected);
            }
            Answer::Refused(reason) => reason.write(to.u8(5)),
        }
    }

    fn read(from: &mut Reader<'a>) -> Result<Answer<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Answer::Published(from.list(ChannelCounts::read)?),
            1 => {
                Answer::Channels(from.list(|from| Ok((from.text()?, ChannelCounts::read(from)?)))?)
            }
            2 => Answer::Channel(ChannelCounts::read(from)?),
            3 => Answer::Users(from.list(Reader::text)?),
            4 => Answer::Ready {
                linked: from.u32()?,
                expected: from.u32()?,
            },
            5 => Answer::Refused(RefusalReason::read(from)?),
            _ => return Err(Garbled),
        })
    }
}

impl<'a> Up<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Up::Hello {
                version,
                slot,
                life,
                shard,
                shards,
            } => {
                let mut to = Writer::new(0);
                to.u32(*version).u32(*slot).u32(*life);
                to.u32(*shard).u32(*shards);
                to.finish()
            }
            Up::Announce(holding) => {
                let mut to = Writer::new(1);
                holding.write(&mut to);
                to.finish()
            }
            Up::Announced => Writer::new(2).finish(),
            Up::Subscribe {
                ticket,
                channel,
                member,
            } => {
                let mut to = Writer::new(3);
                to.u64(*ticket)
                    .text(channel)
                    .option(*member, |to, m| m.write(to));
                to.finish()
            }
            Up::Unsubscribe { channel, user_id } => {
                let mut to = Writer::new(4);
                to.text(channel).option(*user_id, |to, user_id| {
                    to.text(user_id);
                });
                to.finish()
            }
            Up::Publish { ticket, items } => {
                let mut to = Writer::new(5);
                to.u64(*ticket).list(items, |to, item| item.write(to));
                to.finish()
            }
            Up::Ask { ticket, question } => {
                let mut to = Writer::new(6);
                question.write(to.u64(*ticket));
                to.finish()
            }
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &'a [u8]) -> Result<Up<'a>, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let from = &mut from;
        let message = match kind {
            0 => Up::Hello {
                version: from.u32()?,
                slot: from.u32()?,
                life: from.u32()?,
                shard: from.u32()?,
                shards: from.u32()?,
            },
            1 => Up::Announce(Holding::read(from)?),
            2 => Up::Announced,
            3 => Up::Subscribe {
                ticket: from.u64()?,
                channel: from.text()?,
                member: from.option(Member::read)?,
            },
            4 => Up::Unsubscribe {
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            5 => Up::Publish {
                ticket: from.u64()?,
                items: from.list(Item::read)?,
            },
            6 => Up::Ask {
                ticket: from.u64()?,
                question: Question::read(from)?,
            },
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(message)
    }
}

impl<'a> Down<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(self.kind());
        match self {
            Down::Welcome => {}
            Down::Subscribed {
                ticket,
                channel,
                roster,
            } => {
                to.u64(*ticket).text(channel);
                to.option(roster.as_deref(), |to, members| {
                    to.list(members, |to, member| member.write(to));
                });
            }
            Down::Refused {
                ticket,
                channel,
                reason,
            } => {
                reason.write(to.u64(*ticket).text(channel));
            }
            Down::Deliver(item) => item.write(&mut to),
            Down::MemberAdded { channel, member } => member.write(to.text(channel)),
            Down::MemberRemoved { channel, user_id } => {
                to.text(channel).text(user_id);
            }
            Down::Roster { channel, members } => {
                to.text(channel)
                    .list(members, |to, member| member.write(to));
            }
            Down::Answer { ticket, answer } => answer.write(to.u64(*ticket)),
            Down::Undelivered { sender } => {
                to.socket_id(*sender);
            }
        }
        to.finish()
    }

    fn kind(&self) -> u8 {
        match self {
            Down::Welcome => 0,
            Down::Subscribed { .. } => 1,
            Down::Refused { .. } => 2,
            Down::Deliver(_) => 3,
            Down::MemberAdded { .. } => 4,
            Down::MemberRemoved { .. } => 5,
            Down::Roster { .. } => 6,
            Down::Answer { .. } => 7,
            Down::Undelivered { .. } => 8,
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &'a [u8]) -> Result<Down<'a>, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let from = &mut from;
        let message = match kind {
            0 => Down::Welcome,
            1 => Down::Subscribed {
                ticket: from.u64()?,
                channel: from.text()?,
                roster: from.option(|from| from.list(Member::read))?,
            },
            2 => Down::Refused {
                ticket: from.u64()?,
                channel: from.text()?,
                reason: RefusalReason::read(from)?,
            },
            3 => Down::Deliver(Item::read(from)?),
            4 => Down::MemberAdded {
                channel: from.text()?,
                member: Member::read(from)?,
            },
            5 => Down::MemberRemoved {
                channel: from.text()?,
                user_id: from.text()?,
            },
            6 => Down::Roster {
                channel: from.text()?,
                members: from.list(Member::read)?,
            },
            7 => Down::Answer {
                ticket: from.u64()?,
                answer: Answer::read(from)?,
            },
            8 => Down::Undelivered {
                sender: from.socket_id()?,
            },
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(message)
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
