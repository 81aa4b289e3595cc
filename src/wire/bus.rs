//! What workers and the switchboard say to each other. `Up` goes to the switchboard, `Down` comes
//! from it. A link is one ordered stream each way; what its order guarantees is written beside
//! the messages that rely on it.

use crate::base::ids::SocketId;
use crate::wire::bus_codec::{Garbled, Reader, Writer};
pub use crate::wire::bus_parts::{
    Answer, Beginning, Cached, ChannelCounts, Content, Holding, InfoWanted, Item, Member, Past,
    Position, Question, Reach, Recover, RefusalReason,
};
pub use crate::wire::bus_terms::{Once, Rate, Terms};

/// Raised with every change of a message.
pub const VERSION: u32 = 7;

/// Worker to switchboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up<'a> {
    /// Always first. `slot` is the reactor's place among all reactors of the server, `life` tells
    /// the processes apart that hold it one after the other, and for a while together; `shards` is
    /// how many switchboards the worker believes in and `shard` which one it dialled. `counted` are
    /// the ids of the apps whose clients are told how many subscribe to a channel.
    Hello {
        version: u32,
        slot: u32,
        life: u32,
        shard: u32,
        shards: u32,
        counted: Vec<&'a str>,
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
        recover: Option<Recover>,
    },
    Unsubscribe {
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    /// Ticket 0 wants no answer, only `Undelivered` if it is refused.
    Publish {
        ticket: u64,
        terms: Terms,
        items: Vec<Item<'a>>,
    },
    Ask {
        ticket: u64,
        question: Question<'a>,
    },
    /// Some connection wants to know whether these users are signed in. `Standings` of all of them
    /// follows, and of each whose standing changes. A user is named by the key of the channel that
    /// leads to him.
    Watch {
        users: Vec<&'a str>,
    },
    /// Nobody here wants to know any more.
    Unwatch {
        users: Vec<&'a str>,
    },
}

/// Switchboard to worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down<'a> {
    /// The snapshot was taken up and the switchboard answers from now on.
    Welcome,
    /// From here on in this stream the subscriber receives the channel's events. `roster` is
    /// sent when this is the worker's first subscription of a presence channel; later changes
    /// follow as `MemberAdded` and `MemberRemoved`. `cached` comes before all events that follow,
    /// and so does what `beginning` holds of the past: every event that was delivered earlier in this
    /// stream belongs there, none that follows does.
    Subscribed {
        ticket: u64,
        channel: &'a str,
        roster: Option<Vec<Member<'a>>>,
        cached: Option<Cached<'a>>,
        /// Where history is kept.
        beginning: Option<Beginning<'a>>,
    },
    Refused {
        ticket: u64,
        channel: &'a str,
        reason: RefusalReason,
    },
    Deliver {
        item: Item<'a>,
        /// One for each of its channels, `None` where no history is kept; empty if it is nowhere.
        positions: Vec<Option<Position>>,
    },
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
    /// How many subscribe to a channel of a counted app now.
    Counted {
        channel: &'a str,
        subscriptions: u64,
    },
    /// Whether these watched users are signed in.
    Standings {
        users: Vec<(&'a str, bool)>,
    },
}

fn write_texts(to: &mut Writer, texts: &[&str]) {
    to.list(texts, |to, text| {
        to.text(text);
    });
}

fn frame_of_texts(kind: u8, texts: &[&str]) -> Vec<u8> {
    let mut to = Writer::new(kind);
    write_texts(&mut to, texts);
    to.finish()
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
                counted,
            } => {
                let mut to = Writer::new(0);
                to.u32(*version).u32(*slot).u32(*life);
                write_texts(to.u32(*shard).u32(*shards), counted);
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
                recover,
            } => {
                let mut to = Writer::new(3);
                to.u64(*ticket)
                    .text(channel)
                    .option(*member, |to, m| m.write(to))
                    .option(*recover, |to, recover| recover.write(to));
                to.finish()
            }
            Up::Unsubscribe { channel, user_id } => {
                let mut to = Writer::new(4);
                to.text(channel).option(*user_id, |to, user_id| {
                    to.text(user_id);
                });
                to.finish()
            }
            Up::Publish {
                ticket,
                terms,
                items,
            } => {
                let mut to = Writer::new(5);
                terms.write(to.u64(*ticket));
                to.list(items, |to, item| item.write(to));
                to.finish()
            }
            Up::Ask { ticket, question } => {
                let mut to = Writer::new(6);
                question.write(to.u64(*ticket));
                to.finish()
            }
            Up::Watch { users } => frame_of_texts(7, users),
            Up::Unwatch { users } => frame_of_texts(8, users),
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
                counted: from.list(Reader::text)?,
            },
            1 => Up::Announce(Holding::read(from)?),
            2 => Up::Announced,
            3 => Up::Subscribe {
                ticket: from.u64()?,
                channel: from.text()?,
                member: from.option(Member::read)?,
                recover: from.option(Recover::read)?,
            },
            4 => Up::Unsubscribe {
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            5 => Up::Publish {
                ticket: from.u64()?,
                terms: Terms::read(from)?,
                items: from.list(Item::read)?,
            },
            6 => Up::Ask {
                ticket: from.u64()?,
                question: Question::read(from)?,
            },
            7 => Up::Watch {
                users: from.list(Reader::text)?,
            },
            8 => Up::Unwatch {
                users: from.list(Reader::text)?,
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
                cached,
                beginning,
            } => {
                to.u64(*ticket).text(channel);
                to.option(roster.as_deref(), |to, members| {
                    to.list(members, |to, member| member.write(to));
                });
                to.option(*cached, |to, cached| cached.write(to));
                to.option(beginning.as_ref(), |to, it| it.write(to));
            }
            Down::Refused {
                ticket,
                channel,
                reason,
            } => {
                reason.write(to.u64(*ticket).text(channel));
            }
            Down::Deliver { item, positions } => {
                item.write(&mut to);
                to.list(positions, |to, position| {
                    to.option(*position, |to, position| position.write(to));
                });
            }
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
            Down::Counted {
                channel,
                subscriptions,
            } => {
                to.text(channel).u64(*subscriptions);
            }
            Down::Standings { users } => {
                to.list(users, |to, (user, online)| {
                    to.text(user).u8(u8::from(*online));
                });
            }
        }
        to.finish()
    }

    fn kind(&self) -> u8 {
        match self {
            Down::Welcome => 0,
            Down::Subscribed { .. } => 1,
            Down::Refused { .. } => 2,
            Down::Deliver { .. } => 3,
            Down::MemberAdded { .. } => 4,
            Down::MemberRemoved { .. } => 5,
            Down::Roster { .. } => 6,
            Down::Answer { .. } => 7,
            Down::Undelivered { .. } => 8,
            Down::Counted { .. } => 9,
            Down::Standings { .. } => 10,
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
                cached: from.option(Cached::read)?,
                beginning: from.option(Beginning::read)?,
            },
            2 => Down::Refused {
                ticket: from.u64()?,
                channel: from.text()?,
                reason: RefusalReason::read(from)?,
            },
            3 => Down::Deliver {
                item: Item::read(from)?,
                positions: from.list(|from| from.option(Position::read))?,
            },
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
            9 => Down::Counted {
                channel: from.text()?,
                subscriptions: from.u64()?,
            },
            10 => Down::Standings {
                users: from.list(|from| Ok((from.text()?, from.u8()? != 0)))?,
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
