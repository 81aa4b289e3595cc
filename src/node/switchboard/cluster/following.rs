//! Which channels this server follows in the cluster, what it writes of them, and who waits to
//! learn how they are elsewhere.
//!
//! Invariant: a channel is followed exactly while it has subscriptions here, or somebody here watches
//! the user it leads to, or somebody waits for a look at it.

use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::names::ChannelKey;
use crate::base::now::Now;
use crate::node::switchboard::cluster::Asked;
use crate::node::switchboard::{Role, Switchboard};
use crate::realtime::registry::LinkId;
use crate::wire::bus::Up;
use crate::wire::cluster::{Said, Script};

/// Mere counts are written this long after they changed, with all that changed meanwhile.
const COUNTS_AFTER: Duration = Duration::from_millis(100);
/// Users in one message; there are more only when a server joins.
const USERS_AT_ONCE: usize = 100;

/// One channel.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) seen: Seen,
    /// The look that is under way or was answered last.
    pub(super) look: u64,
    /// It stands among those to be looked at.
    pub(super) queued: bool,
    /// Its events come; they do not for who merely tells webhooks.
    pub(super) subscribed: bool,
    /// What Redis was told of our subscriptions under the present id.
    told: u32,
    /// Frames of workers, in their order.
    waiting: Vec<(ConnId, Vec<u8>)>,
}

/// Whether it is known how a channel is elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Seen {
    #[default]
    Never,
    /// Before we were away.
    Before,
    Now,
}

impl Switchboard {
    /// Something changed here in a channel, and for this user.
    pub(in crate::node::switchboard) fn mark(&mut self, key: &str, user_id: Option<&str>) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(key) = ChannelKey::parse(key) else {
            return;
        };
        let users = cluster.dirty.entry(key).or_default();
        users.extend(user_id.map(str::to_owned));
    }

    /// The same of all that a link holds, which is about to end.
    pub(in crate::node::switchboard) fn mark_link(&mut self, link: LinkId) {
        if self.cluster.is_none() {
            return;
        }
        let held = self.registry.held(link).cloned();
        let watched = self.watching.of_link(link).cloned();
        let keys: Vec<ChannelKey> = held.chain(watched).collect();
        for key in keys {
            let users = self.registry.users_of(link, key.as_str());
            let users: Vec<String> = users.into_iter().map(str::to_owned).collect();
            if let Some(cluster) = &mut self.cluster {
                cluster.dirty.entry(key).or_default().extend(users);
            }
        }
    }

    /// Everything is to be written and looked at under a new id.
    pub(super) fn follow_anew(&mut self) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        for followed in cluster.followed.values_mut() {
            (followed.subscribed, followed.queued) = (false, true);
            followed.told = 0;
        }
        cluster.unseen = cluster.followed.keys().cloned().collect();
        cluster.unseen.make_contiguous().sort_unstable();
        cluster.counted.clear();
        for key in self.registry.channels_here() {
            let users = self.registry.users_here(key.as_str());
            let users = users.into_iter().map(str::to_owned);
            cluster.dirty.entry(key.clone()).or_default().extend(users);
        }
    }

    /// Follows, writes and looks at what has changed, as far as Redis takes it.
    pub(in crate::node::switchboard) fn catch_up_cluster(&mut self, now: Now) {
        if !self.is_complete() {
            return;
        }
        while !self.is_redis_full()
            && let Some((key, users)) = self.cluster.as_mut().and_then(|it| it.dirty.pop_first())
        {
            if self.is_asked_about(key.as_str()) {
                self.follow(&key, true);
            }
            self.write_change(&key, users.into_iter().collect(), now);
            self.unfollow_unasked(&key, now);
        }
        while !self.is_redis_full()
            && let Some(cluster) = self.cluster.as_mut().filter(|it| it.is_joined())
            && let Some(key) = cluster.unseen.pop_front()
        {
            self.look(&key, now);
        }
        if let Some(cluster) = &mut self.cluster
            && cluster.is_joined()
            && cluster.dirty.is_empty()
            && cluster.unseen.is_empty()
        {
            for server in std::mem::take(&mut cluster.former) {
                self.bury(server, true, now);
            }
            self.note_whole(now);
        }
    }

    fn is_asked_about(&self, key: &str) -> bool {
        self.registry.subscriptions_here(key) > 0 || !self.watching.watchers(key).is_empty()
    }

    /// Follows a channel from now on, if it does not yet; with its `events` or without.
    pub(super) fn follow(&mut self, key: &ChannelKey, events: bool) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let is_joined = cluster.is_joined();
        let is_new = !cluster.followed.contains_key(key);
        let followed = cluster.followed.entry(key.clone()).or_default();
        let lacks = is_new || (events && !followed.subscribed);
        if lacks && is_joined && !followed.queued {
            followed.queued = true;
            cluster.unseen.push_back(key.clone());
        }
    }

    fn unfollow_unasked(&mut self, key: &ChannelKey, now: Now) {
        if self.is_asked_about(key.as_str()) || self.is_told_of(key) {
            return;
        }
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let waits = |followed: &Followed| !followed.waiting.is_empty();
        if cluster.followed.get(key).is_none_or(waits) {
            return;
        }
        let followed = cluster.followed.remove(key);
        cluster.counted.remove(key);
        let on = cluster.names.on(key.as_str());
        if followed.is_some_and(|followed| followed.subscribed) {
            let parts: [&[u8]; 2] = [b"UNSUBSCRIBE", on.as_bytes()];
            self.write_redis(now, |redis, to| redis.tell(&parts, to));
        }
        self.forget_history(key, now);
        self.registry.forget_afar(key.as_str());
    }

    /// Tells Redis what is so here; a mere count a little later.
    fn write_change(&mut self, key: &ChannelKey, users: Vec<String>, now: Now) {
        let subscriptions = self.registry.subscriptions_here(key.as_str());
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(followed) = cluster.followed.get_mut(key) else {
            return;
        };
        if !matches!(cluster.stage, super::Stage::Joined(_)) {
            return;
        }
        let occupied = (followed.told > 0) != (subscriptions > 0);
        if occupied || !users.is_empty() {
            followed.told = subscriptions;
            self.write_holding(key, subscriptions, &users, now);
        } else if followed.told != subscriptions {
            cluster.counted.insert(key.clone());
            cluster.counted_at.get_or_insert(now.moment + COUNTS_AFTER);
        }
    }

    /// Writes the counts whose time has come.
    pub(super) fn write_due_counts(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.counted_at.is_none_or(|at| at > now.moment) {
            return;
        }
        cluster.counted_at = None;
        for key in std::mem::take(&mut cluster.counted) {
            let subscriptions = self.registry.subscriptions_here(key.as_str());
            let cluster = self.cluster.as_mut().filter(|it| it.is_joined());
            let Some(followed) = cluster.and_then(|it| it.followed.get_mut(&key)) else {
                continue;
            };
            if followed.told != subscriptions {
                followed.told = subscriptions;
                self.write_holding(&key, subscriptions, &[], now);
            }
        }
    }

    fn write_holding(&mut self, key: &ChannelKey, count: u32, users: &[String], now: Now) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let server = cluster.server;
        let mut pieces = users.chunks(USERS_AT_ONCE);
        let mut piece = Some(pieces.next().unwrap_or_default());
        while let Some(users) = piece {
            let infos: Vec<(&str, Option<&str>)> = users
                .iter()
                .map(|user| (user.as_str(), self.registry.info_here(key.as_str(), user)))
                .collect();
            let (id, count) = (server.to_string(), count.to_string());
            let said = Said::Holds {
                server,
                subscriptions: self.registry.subscriptions_here(key.as_str()),
                users: infos.clone(),
            };
            let message = said.encode();
            let mut parts = vec![id.as_bytes(), key.as_str().as_bytes(), &message];
            parts.push(count.as_bytes());
            let mut owned: Vec<Vec<u8>> = Vec::new();
            for (user, info) in &infos {
                owned.push(user.as_bytes().to_vec());
                owned.push(info.unwrap_or_default().as_bytes().to_vec());
            }
            parts.extend(owned.iter().map(Vec::as_slice));
            self.run_script(Script::Hold, &parts, Asked::Done, now);
            piece = pieces.next();
        }
    }

    /// Subscribes to a channel in Redis and asks how it is elsewhere; what is heard before the
    /// answer is in the answer.
    fn look(&mut self, key: &ChannelKey, now: Now) {
        let asked = self.is_asked_about(key.as_str());
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(followed) = cluster.followed.get_mut(key) else {
            return;
        };
        cluster.looks += 1;
        let number = cluster.looks;
        followed.look = number;
        followed.queued = false;
        let events = asked || !followed.waiting.is_empty();
        let subscribes = events && !followed.subscribed;
        followed.subscribed |= events;
        cluster.unanswered += 1;
        if followed.seen == Seen::Now {
            followed.seen = Seen::Before;
        }
        let on = cluster.names.on(key.as_str());
        let parts: [&[u8]; 2] = [b"SUBSCRIBE", on.as_bytes()];
        if subscribes {
            self.write_redis(now, |redis, to| redis.tell(&parts, to));
        }
        let key = key.clone();
        let epoch = self.epoch_words(key.as_str(), events);
        let parts = [key.as_str().as_bytes(), epoch.as_bytes()];
        let about = Asked::Look {
            key: key.clone(),
            number,
        };
        self.run_script(Script::Look, &parts, about, now);
    }

    /// Whether the message has to wait for a look; it is kept then.
    pub(in crate::node::switchboard) fn waits_for_look(
        &mut self,
        conn: ConnId,
        message: &Up<'_>,
        now: Now,
    ) -> bool {
        if !self.cluster.as_ref().is_some_and(|it| it.is_joined()) {
            return false;
        }
        match message {
            Up::Subscribe { channel, .. } => self.wait(conn, channel, message, true, now),
            Up::Unsubscribe { channel, .. } => self.wait(conn, channel, message, false, now),
            Up::Watch { users } => {
                let mut known: Vec<&str> = users.clone();
                known.retain(|user| {
                    let one = Up::Watch { users: vec![user] };
                    !self.wait(conn, user, &one, true, now)
                });
                if known.len() == users.len() {
                    return false;
                }
                self.hear_known(conn, Up::Watch { users: known }, now);
                true
            }
            Up::Unwatch { users } => {
                let mut known: Vec<&str> = users.clone();
                known.retain(|user| {
                    let one = Up::Unwatch { users: vec![user] };
                    !self.wait(conn, user, &one, false, now)
                });
                self.hear_known(conn, Up::Unwatch { users: known }, now);
                true
            }
            _ => false,
        }
    }

    /// What is left of a message of which a part waits.
    fn hear_known(&mut self, conn: ConnId, message: Up<'_>, now: Now) {
        let role = self.link(conn).map(|link| link.role);
        if let Some(Role::Worker(id)) = role {
            self.hear(conn, id, message, now);
        }
    }

    /// Keeps a message about a channel that was not looked at, if it `begins` something or follows one
    /// that did; whether it was kept, or refused.
    fn wait(&mut self, conn: ConnId, key: &str, message: &Up<'_>, begins: bool, now: Now) -> bool {
        let Some(key) = ChannelKey::parse(key) else {
            return false;
        };
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let followed = cluster.followed.get(&key);
        let waits = match followed {
            None => begins,
            Some(followed) if begins => followed.seen == Seen::Never || !followed.subscribed,
            Some(followed) => !followed.waiting.is_empty(),
        };
        if !waits {
            return false;
        }
        let tells = matches!(
            message,
            Up::Unsubscribe { .. } | Up::Watch { .. } | Up::Unwatch { .. }
        );
        if cluster.waiting >= self.limits.held_messages && !tells {
            self.turn_away(conn, message, now);
            return true;
        }
        self.follow(&key, true);
        if let Some(cluster) = &mut self.cluster
            && let Some(followed) = cluster.followed.get_mut(&key)
        {
            followed.waiting.push((conn, message.encode()));
            cluster.waiting += 1;
        }
        true
    }

    /// The channel was looked at: those who waited are heard.
    pub(super) fn hear_those_who_waited(&mut self, key: &ChannelKey, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(followed) = cluster.followed.get_mut(key) else {
            return;
        };
        let waiting = std::mem::take(&mut followed.waiting);
        cluster.waiting -= waiting.len();
        // If nobody stays, it is not followed any longer.
        cluster.dirty.entry(key.clone()).or_default();
        for (conn, frame) in waiting {
            if self.take_frame(conn, &frame, now).is_err() {
                self.drop_garbled(conn, now);
            }
        }
    }

    /// Redis is away: nobody waits for it.
    pub(super) fn stop_waiting(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let mut keys = Vec::new();
        for (key, followed) in &mut cluster.followed {
            if followed.seen == Seen::Now {
                followed.seen = Seen::Before;
            }
            if !followed.waiting.is_empty() {
                keys.push(key.clone());
            }
        }
        keys.sort_unstable();
        for key in keys {
            self.hear_those_who_waited(&key, now);
        }
    }
}
