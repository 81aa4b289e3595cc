//! What the switchboard tells workers of its own accord when channels change: members, counts of
//! subscriptions, and who of the watched users is online. What is true is the registry's to say.

use std::collections::BTreeMap;

use crate::base::ids::ConnId;
use crate::base::names::{ChannelKey, ChannelKind, user_of};
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::realtime::registry::{Dropped, LinkId};
use crate::wire::bus::{Down, Member};

impl Switchboard {
    pub(super) fn tell_member_added(
        &mut self,
        id: LinkId,
        channel: &str,
        member: Member<'_>,
        now: Now,
    ) {
        self.tell_links(channel, Some(id), now, |channel| Down::MemberAdded {
            channel,
            member,
        });
    }

    pub(super) fn tell_member_removed(&mut self, channel: &str, user_id: &str, now: Now) {
        self.tell_links(channel, None, now, |channel| Down::MemberRemoved {
            channel,
            user_id,
        });
    }

    /// Tells every link with subscribers of the channel, but one.
    pub(super) fn tell_links<'a>(
        &mut self,
        channel: &'a str,
        except: Option<LinkId>,
        now: Now,
        message: impl Fn(&'a str) -> Down<'a>,
    ) {
        let frame = message(channel).encode();
        let links: Vec<ConnId> = self
            .registry
            .interested(channel)
            .filter(|id| Some(*id) != except)
            .filter_map(|id| self.by_id.get(&id).copied())
            .collect();
        for conn in links {
            self.send_frame(conn, &frame, now);
        }
    }

    /// Subscriptions of a channel came or went.
    pub(super) fn tell_occupancy(&mut self, key: &str, was_occupied: bool, now: Now) {
        let channel = key.split_once('/').map_or("", |(_, channel)| channel);
        if user_of(channel).is_none() {
            self.count_changed(key, now);
        } else if self.registry.is_occupied(key) != was_occupied {
            self.tell_standings(&[(key, !was_occupied)], now);
        }
    }

    /// A link has taken its subscriptions with it.
    pub(super) fn tell_dropped(&mut self, dropped: &Dropped, now: Now) {
        for (key, user_id) in &dropped.users {
            self.tell_member_removed(key.as_str(), user_id, now);
        }
        // Who seems to be gone may be about to be announced again; settled, all is told.
        if self.is_settling() {
            return;
        }
        let (users, channels): (Vec<&ChannelKey>, Vec<&ChannelKey>) = dropped
            .channels
            .iter()
            .partition(|key| user_of(key.channel()).is_some());
        let gone: Vec<(&str, bool)> = users
            .iter()
            .filter(|key| !self.registry.is_occupied(key.as_str()))
            .map(|key| (key.as_str(), false))
            .collect();
        self.tell_standings(&gone, now);
        for key in channels {
            self.count_changed(key.as_str(), now);
        }
    }

    /// Tells each link of those users whom it watches, in one message.
    fn tell_standings(&mut self, users: &[(&str, bool)], now: Now) {
        let mut told: BTreeMap<ConnId, Vec<(&str, bool)>> = BTreeMap::new();
        for user in users {
            for id in self.watching.watchers(user.0) {
                if let Some(conn) = self.by_id.get(id) {
                    told.entry(*conn).or_default().push(*user);
                }
            }
        }
        for (conn, users) in told {
            self.send(conn, &Down::Standings { users }, now);
        }
    }

    /// A worker watches these users from now on.
    pub(super) fn watch(&mut self, conn: ConnId, id: LinkId, users: &[&str], now: Now) {
        for user in users {
            self.watching.watch(id, user);
            self.mark(user, None);
        }
        let users = users.iter();
        let users = users.map(|user| (*user, self.registry.is_occupied(user)));
        let users = users.collect();
        self.send(conn, &Down::Standings { users }, now);
    }

    fn count_changed(&mut self, key: &str, now: Now) {
        if self.counting_links(key).is_empty() {
            return;
        }
        let count = self.registry.counts(key).subscriptions;
        if self.counting.changed(key, count, now.moment) {
            self.tell_count(key, now);
        }
    }

    /// Counts that were told too recently to be told at once.
    pub(super) fn tell_due_counts(&mut self, now: Now) {
        while let Some(key) = self.counting.next_due(now.moment) {
            self.tell_count(key.as_str(), now);
        }
    }

    fn tell_count(&mut self, key: &str, now: Now) {
        let frame = self.count_of(key).encode();
        for conn in self.counting_links(key) {
            self.send_frame(conn, &frame, now);
        }
    }

    fn count_of<'a>(&self, channel: &'a str) -> Down<'a> {
        Down::Counted {
            channel,
            subscriptions: self.registry.counts(channel).subscriptions,
        }
    }

    /// The links with subscribers whose app wants them counted. Presence channels have users
    /// instead.
    fn counting_links(&self, key: &str) -> Vec<ConnId> {
        let Some((app_id, channel)) = key.split_once('/') else {
            return Vec::new();
        };
        if ChannelKind::of(channel) == ChannelKind::Presence || user_of(channel).is_some() {
            return Vec::new();
        }
        let links = self.registry.interested(key);
        let links = links.filter_map(|id| self.by_id.get(&id).copied());
        links.filter(|conn| self.counts(*conn, app_id)).collect()
    }

    fn counts(&self, conn: ConnId, app_id: &str) -> bool {
        let link = self.links.get(conn.slot as usize).and_then(Option::as_ref);
        link.is_some_and(|link| link.counted.iter().any(|counted| counted == app_id))
    }

    /// Tells a worker the truth about its presence channels, its counts and whom it watches; it
    /// knows which of it is new.
    pub(super) fn tell_truth(&mut self, conn: ConnId, id: LinkId, now: Now) {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for (key, members) in self.registry.presence_of(id) {
            let roster = Down::Roster {
                channel: key.as_str(),
                members: members.iter().collect(),
            };
            frames.push(roster.encode());
        }
        for key in self.registry.held(id).map(ChannelKey::as_str) {
            if self.counting_links(key).contains(&conn) {
                frames.push(self.count_of(key).encode());
            }
        }
        let watched: Vec<&ChannelKey> = self.watching.of_link(id).collect();
        for users in watched.chunks(STANDINGS_AT_ONCE) {
            let standing = |key: &&ChannelKey| self.registry.is_occupied(key.as_str());
            let users = users.iter().map(|key| (key.as_str(), standing(key)));
            let users = users.collect();
            frames.push(Down::Standings { users }.encode());
        }
        for frame in frames {
            self.send_frame(conn, &frame, now);
        }
    }
}

/// In one message, which is far from `limits.bus_message_bytes` then.
const STANDINGS_AT_ONCE: usize = 256;
