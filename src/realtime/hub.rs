//! One reactor's view of channels: which of its connections subscribe to what, and which of those
//! the switchboard has confirmed. It sends nothing; its owner fans out to `subscribers`.
//!
//! Invariant: a confirmed subscription stands both in its connection's list and in its channel's,
//! a pending one only in its connection's; a channel is kept while it has either.

use std::collections::HashMap;

use foldhash::quality::FixedState;

use crate::base::by_slot::BySlot;
use crate::base::dice::Dice;
use crate::base::ids::{ConnId, SocketId};
use crate::base::names::{self, ChannelKey};
use crate::realtime::by_name::ByName;
use crate::realtime::roster::Roster;
use crate::realtime::watchlists::Watchlists;
use crate::wire::bus::{Holding, Member, Position, Recover};

/// The user a presence subscription stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub user_id: String,
    /// JSON.
    pub user_info: String,
}

#[derive(Default)]
struct Channel {
    /// Confirmed ones, in no order.
    subscribers: Vec<ConnId>,
    pending: u32,
    /// Apart, because most channels have none of it.
    special: Option<Box<Special>>,
}

#[derive(Default)]
struct Special {
    /// Of a presence channel, once the switchboard told it.
    roster: Option<Roster>,
    /// How many subscribe in the whole server, as all subscribers here were told.
    counted: Option<u64>,
    /// Of the last event that subscribers here were sent, where history is kept.
    position: Option<Position>,
}

struct Subscription {
    channel: u32,
    state: Standing,
    presence: Option<Box<Presence>>,
}

/// How far a subscription has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The switchboard has not answered this ticket.
    Asked(u64),
    /// Confirmed, at this place in the channel's list: leaving must not search it.
    Confirmed(usize),
}

/// A subscription that the switchboard has not answered.
struct Pending {
    conn: ConnId,
    key: ChannelKey,
    recover: Option<Recover>,
}

/// Why a subscription is not even asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSubscribed {
    /// Confirmed already.
    Already,
    /// Asked for already; the answer will serve both.
    Asked,
    TooMany,
}

/// What an unsubscription leaves to tell the switchboard.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    pub key: ChannelKey,
    pub user_id: Option<String>,
}

/// See the file's head.
pub struct Hub {
    channels: ByName<Channel>,
    /// By connection slot; the table's owner makes sure that a slot is left before it is reused.
    subscriptions: BySlot<Vec<Subscription>>,
    pending: HashMap<u64, Pending, FixedState>,
    sockets: HashMap<SocketId, ConnId, FixedState>,
    pub watchlists: Watchlists,
    next_ticket: u64,
    confirmed: u64,
    per_connection_max: usize,
}

impl Hub {
    pub fn new(per_connection_max: usize, dice: &mut Dice) -> Hub {
        let hasher = FixedState::with_seed(dice.next_u64());
        Hub {
            channels: ByName::new(dice),
            subscriptions: BySlot::default(),
            pending: HashMap::with_hasher(hasher.clone()),
            sockets: HashMap::with_hasher(hasher),
            watchlists: Watchlists::new(dice),
            next_ticket: 1,
            confirmed: 0,
            per_connection_max,
        }
    }

    /// Lets `find` know the connection by its public name.
    pub fn enter(&mut self, conn: ConnId, socket_id: SocketId) {
        self.sockets.insert(socket_id, conn);
    }

    pub fn leave(&mut self, socket_id: SocketId) {
        self.sockets.remove(&socket_id);
    }

    pub fn find(&self, socket_id: SocketId) -> Option<ConnId> {
        self.sockets.get(&socket_id).copied()
    }

    /// Notes that the connection wants the channel, perhaps from where it was before. The ticket is
    /// to come back with `confirm` or `refuse`.
    pub fn subscribe(
        &mut self,
        conn: ConnId,
        key: &ChannelKey,
        presence: Option<Presence>,
        recover: Option<Recover>,
    ) -> Result<u64, NotSubscribed> {
        if let Some(subscription) = self.subscription(conn, key.as_str()) {
            return Err(match subscription.state {
                Standing::Asked(_) => NotSubscribed::Asked,
                Standing::Confirmed(_) => NotSubscribed::Already,
            });
        }
        if self.subscriptions.reach(conn).len() >= self.per_connection_max {
            return Err(NotSubscribed::TooMany);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let channel = match self.channels.find(key.as_str()) {
            Some(channel) => channel,
            None => self.channels.insert(key.clone(), Channel::default()),
        };
        self.channels[channel].pending += 1;
        let pending = Pending {
            conn,
            key: key.clone(),
            recover,
        };
        self.pending.insert(ticket, pending);
        let presence = presence.map(Box::new);
        let list = self.subscriptions.reach(conn);
        list.reserve_exact(1);
        list.push(Subscription {
            channel,
            state: Standing::Asked(ticket),
            presence,
        });
        Ok(ticket)
    }

    /// The switchboard said yes; `roster` comes with our first subscription of a presence channel.
    /// It is taken up even when the connection that asked has left: whoever asked after it waits
    /// for the same one. `None` when the connection has left meanwhile.
    pub fn confirm(
        &mut self,
        ticket: u64,
        key: &str,
        roster: Option<&[Member<'_>]>,
    ) -> Option<(ConnId, ChannelKey)> {
        if let (Some(members), Some(channel)) = (roster, self.channels.get_mut(key)) {
            channel.special().roster = Some(Roster::new(members));
        }
        let Pending { conn, key, .. } = self.pending.remove(&ticket)?;
        let list = self.subscriptions.get_mut(conn)?;
        let subscription = list
            .iter_mut()
            .find(|s| s.state == Standing::Asked(ticket))?;
        let channel = &mut self.channels[subscription.channel];
        subscription.state = Standing::Confirmed(channel.subscribers.len());
        channel.pending -= 1;
        if channel.subscribers.is_empty() {
            // Most channels have one subscriber here: no room is kept for more.
            channel.subscribers.reserve_exact(1);
        }
        channel.subscribers.push(conn);
        if let Some(special) = &mut channel.special {
            special.counted = None;
        }
        self.confirmed += 1;
        Some((conn, key))
    }

    /// The switchboard said no. `None` when the connection has left meanwhile.
    pub fn refuse(&mut self, ticket: u64) -> Option<(ConnId, ChannelKey)> {
        let pending = self.pending.get(&ticket)?;
        let (conn, key) = (pending.conn, pending.key.clone());
        self.unsubscribe(conn, key.as_str())?;
        Some((conn, key))
    }

    /// Ends one subscription, pending or confirmed.
    pub fn unsubscribe(&mut self, conn: ConnId, key: &str) -> Option<Left> {
        let channel = self.channels.find(key)?;
        let list = self.subscriptions.get_mut(conn)?;
        let index = list.iter().position(|s| s.channel == channel)?;
        let subscription = list.swap_remove(index);
        Some(self.forget(conn, subscription))
    }

    /// Ends all subscriptions of a connection.
    pub fn unsubscribe_all(&mut self, conn: ConnId) -> Vec<Left> {
        let Some(list) = self.subscriptions.get_mut(conn) else {
            return Vec::new();
        };
        let list = std::mem::take(list);
        list.into_iter()
            .map(|subscription| self.forget(conn, subscription))
            .collect()
    }

    fn forget(&mut self, conn: ConnId, subscription: Subscription) -> Left {
        let channel = &mut self.channels[subscription.channel];
        match subscription.state {
            Standing::Asked(ticket) => {
                channel.pending -= 1;
                self.pending.remove(&ticket);
            }
            Standing::Confirmed(position) => {
                let removed = channel.subscribers.swap_remove(position);
                debug_assert_eq!(removed, conn);
                self.confirmed -= 1;
                if let Some(moved) = channel.subscribers.get(position) {
                    let list = self.subscriptions.reach(*moved);
                    let moved = list.iter_mut().find(|s| s.channel == subscription.channel);
                    moved.expect("who is listed has a subscription").state =
                        Standing::Confirmed(position);
                }
            }
        }
        let is_left = channel.subscribers.is_empty() && channel.pending == 0;
        let key = match is_left {
            true => self.channels.remove(subscription.channel).0,
            false => self.channels.key(subscription.channel).clone(),
        };
        let user_id = subscription.presence.map(|presence| presence.user_id);
        Left { key, user_id }
    }

    /// Confirmed subscribers.
    pub fn subscribers(&self, key: &str) -> &[ConnId] {
        let channel = self.channels.get(key);
        channel.map_or(&[], |channel| &channel.subscribers)
    }

    /// Whether the connection is a confirmed subscriber, and as which user.
    pub fn membership(&self, conn: ConnId, key: &str) -> Option<Option<&str>> {
        let subscription = self.subscription(conn, key)?;
        if let Standing::Asked(_) = subscription.state {
            return None;
        }
        Some(
            subscription
                .presence
                .as_ref()
                .map(|presence| presence.user_id.as_str()),
        )
    }

    /// The switchboard says how many subscribe; whether that is news to somebody here.
    pub fn count(&mut self, key: &str, subscriptions: u64) -> bool {
        let Some(channel) = self.channels.get_mut(key) else {
            return false;
        };
        let told = channel.special().counted.replace(subscriptions);
        told != Some(subscriptions)
    }

    pub fn roster(&self, key: &str) -> Option<&Roster> {
        let special = self.channels.get(key)?.special.as_ref()?;
        special.roster.as_ref()
    }

    pub fn roster_mut(&mut self, key: &str) -> Option<&mut Roster> {
        let special = self.channels.get_mut(key)?.special.as_mut()?;
        special.roster.as_mut()
    }

    /// Everything of the channel up to this position was sent to its subscribers.
    pub fn sent(&mut self, key: &str, position: Position) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.special().position = Some(position);
        }
    }

    /// Channels a connection is in, confirmed or not.
    pub fn channels_of(&self, conn: ConnId) -> impl Iterator<Item = &ChannelKey> {
        let list = self.subscriptions.get(conn);
        list.into_iter()
            .flatten()
            .map(|s| self.channels.key(s.channel))
    }

    /// As which user the connection is signed in; else, as whom it is in presence channels, the first
    /// of which decides.
    pub fn user_of(&self, conn: ConnId) -> Option<&str> {
        let signed_in = self.channels_of(conn);
        let signed_in = signed_in.filter_map(|key| names::user_of(key.channel()));
        let list = self.subscriptions.get(conn)?;
        let present = list.iter().filter_map(|s| s.presence.as_ref());
        signed_in.chain(present.map(|it| &*it.user_id)).next()
    }

    /// Confirmed subscriptions.
    pub fn len(&self) -> u64 {
        self.confirmed
    }

    pub fn is_empty(&self) -> bool {
        self.confirmed == 0
    }

    /// Calls `each` with everything confirmed, for a new switchboard.
    pub fn announce(&self, mut each: impl FnMut(Holding<'_>)) {
        for (number, key, channel) in self.channels.iter() {
            if channel.subscribers.is_empty() {
                continue;
            }
            let mut members: Vec<(Member<'_>, u32)> = Vec::new();
            let mut places: HashMap<&str, usize, FixedState> =
                HashMap::with_hasher(self.pending.hasher().clone());
            let presences = channel
                .subscribers
                .iter()
                .filter_map(|c| self.presence(*c, number));
            for Presence { user_id, user_info } in presences {
                let place = *places.entry(user_id).or_insert_with(|| {
                    members.push((Member { user_id, user_info }, 0));
                    members.len() - 1
                });
                members[place].1 += 1;
            }
            let subscriptions = channel.subscribers.len() as u32;
            each(Holding {
                channel: key.as_str(),
                subscriptions,
                members,
                position: channel.special.as_ref().and_then(|it| it.position),
            });
        }
    }

    /// Calls `each` with everything not yet answered, oldest first.
    pub fn pending(
        &self,
        mut each: impl FnMut(u64, &ChannelKey, Option<Member<'_>>, Option<Recover>),
    ) {
        let mut tickets: Vec<u64> = self.pending.keys().copied().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            let Pending { conn, key, recover } = &self.pending[&ticket];
            let presence = self
                .subscription(*conn, key.as_str())
                .and_then(|s| s.presence.as_ref());
            let member = presence.map(|presence| Member {
                user_id: &presence.user_id,
                user_info: &presence.user_info,
            });
            each(ticket, key, member, *recover);
        }
    }

    fn presence(&self, conn: ConnId, channel: u32) -> Option<&Presence> {
        let list = self.subscriptions.get(conn)?;
        list.iter()
            .find(|s| s.channel == channel)?
            .presence
            .as_deref()
    }

    fn subscription(&self, conn: ConnId, key: &str) -> Option<&Subscription> {
        let channel = self.channels.find(key)?;
        let list = self.subscriptions.get(conn)?;
        list.iter().find(|s| s.channel == channel)
    }
}

impl Channel {
    fn special(&mut self) -> &mut Special {
        self.special.get_or_insert_default()
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
