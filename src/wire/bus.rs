//! What workers and the switchboard say to each other. `Up` goes to the switchboard, `Down` comes
//! from it. A link is one ordered stream each way; what its order guarantees is written beside
//! the messages that rely on it.

use crate::base::ids::SocketId;
use crate::wire::bus_codec::{Garbled, Reader, Writer};
pub use crate::wire::bus_errands::{Caller, Errand, Outcome};
pub use crate::wire::bus_parts::{
    Answer, Beginning, Cached, ChannelCounts, Content, Holding, InfoWanted, Item, Member, Past,
    Position, Question, Reach, Recover, RefusalReason,
};
pub use crate::wire::bus_terms::{Once, Rate, Terms};

/// Raised with every change of a message.
pub const VERSION: u32 = 11;

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
    /// Among the announcements: sessions of many requests that the worker holds.
    Sessions {
        names: Vec<&'a str>,
    },
    /// The worker holds this session no more.
    SessionEnded {
        name: &'a str,
    },
    /// For whoever holds the session. Errands of one worker reach it in their order.
    Errand {
        ticket: u64,
        session: &'a str,
        errand: Errand<'a>,
    },
    /// What came of the errand that `to` waits for.
    Outcome {
        to: Caller,
        session: &'a str,
        outcome: Outcome<'a>,
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
    /// An errand for a session that this worker holds; what comes of it goes back to `from`.
    Errand {
        from: Caller,
        session: &'a str,
        errand: Errand<'a>,
    },
    Outcome {
        ticket: u64,
        outcome: Outcome<'a>,
    },
}

fn write_texts(to: &mut Writer, texts: &[&str]) {
    to.list(texts, |to, text| {
        to.text(text);
    });
}

fn write_text(to: &mut Writer, text: &str) {
    to.text(text);
}

impl<'a> Up<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(self.kind());
        match self {
            Up::Hello {
                version,
                slot,
                life,
                shard,
                shards,
                counted,
            } => {
                to.u32(*version).u32(*slot).u32(*life);
                write_texts(to.u32(*shard).u32(*shards), counted);
            }
            Up::Announce(holding) => holding.write(&mut to),
            Up::Announced => {}
            Up::Subscribe {
                ticket,
                channel,
                member,
                recover,
            } => {
                to.u64(*ticket).text(channel);
                to.option(*member, |to, member| member.write(to))
                    .option(*recover, |to, recover| recover.write(to));
            }
            Up::Unsubscribe { channel, user_id } => {
                to.text(channel).option(*user_id, write_text);
            }
            Up::Publish {
                ticket,
                terms,
                items,
            } => {
                terms.write(to.u64(*ticket));
                to.list(items, |to, item| item.write(to));
            }
            Up::Ask { ticket, question } => question.write(to.u64(*ticket)),
            Up::Watch { users: texts }
            | Up::Unwatch { users: texts }
            | Up::Sessions { names: texts } => write_texts(&mut to, texts),
            Up::SessionEnded { name } => {
                to.text(name);
            }
            Up::Errand {
                ticket,
                session,
                errand,
            } => errand.write(to.u64(*ticket).text(session)),
            Up::Outcome {
                to: caller,
                session,
                outcome,
            } => {
                caller.write(&mut to);
                outcome.write(to.text(session));
            }
        }
        to.finish()
    }

    fn kind(&self) -> u8 {
        match self {
            Up::Hello { .. } => 0,
            Up::Announce(_) => 1,
            Up::Announced => 2,
            Up::Subscribe { .. } => 3,
            Up::Unsubscribe { .. } => 4,
            Up::Publish { .. } => 5,
            Up::Ask { .. } => 6,
            Up::Watch { .. } => 7,
            Up::Unwatch { .. } => 8,
            Up::Sessions { .. } => 9,
            Up::SessionEnded { .. } => 10,
            Up::Errand { .. } => 11,
            Up::Outcome { .. } => 12,
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
            9 => Up::Sessions {
                names: from.list(Reader::text)?,
            },
            10 => Up::SessionEnded { name: from.text()? },
            11 => Up::Errand {
                ticket: from.u64()?,
                session: from.text()?,
                errand: Errand::read(from)?,
            },
            12 => Up::Outcome {
                to: Caller::read(from)?,
                session: from.text()?,
                outcome: Outcome::read(from)?,
            },
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(message)
    }
}

fn write_members(to: &mut Writer, members: &[Member<'_>]) {
    to.list(members, |to, member| member.write(to));
}

fn write_positions(to: &mut Writer, positions: &[Option<Position>]) {
    to.list(positions, |to, position| {
        to.option(*position, |to, position| position.write(to));
    });
}

fn read_positions(from: &mut Reader<'_>) -> Result<Vec<Option<Position>>, Garbled> {
    from.list(|from| from.option(Position::read))
}

fn read_standings<'a>(from: &mut Reader<'a>) -> Result<Down<'a>, Garbled> {
    let users = from.list(|from| Ok((from.text()?, from.u8()? != 0)))?;
    Ok(Down::Standings { users })
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
                to.option(roster.as_deref(), write_members);
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
                write_positions(&mut to, positions);
            }
            Down::MemberAdded { channel, member } => member.write(to.text(channel)),
            Down::MemberRemoved { channel, user_id } => {
                to.text(channel).text(user_id);
            }
            Down::Roster { channel, members } => write_members(to.text(channel), members),
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
            Down::Errand {
                from,
                session,
                errand,
            } => {
                from.write(&mut to);
                errand.write(to.text(session));
            }
            Down::Outcome { ticket, outcome } => outcome.write(to.u64(*ticket)),
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
            Down::Errand { .. } => 11,
            Down::Outcome { .. } => 12,
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
                positions: read_positions(from)?,
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
            10 => read_standings(from)?,
            11 => Down::Errand {
                from: Caller::read(from)?,
                session: from.text()?,
                errand: Errand::read(from)?,
            },
            12 => Down::Outcome {
                ticket: from.u64()?,
                outcome: Outcome::read(from)?,
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
