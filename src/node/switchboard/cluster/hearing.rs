//! What the switchboard does with what Redis says: answers, and what other servers say through it.
//! An error is why Redis is not of use any more, for people.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::names::{ChannelKey, is_cache_key};
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::cluster::following::Seen;
use crate::node::switchboard::cluster::{Asked, Cluster};
use crate::realtime::registry::LinkId;
use crate::session::redis::Heard;
use crate::wire::bus::{Content, Down, Item};
use crate::wire::cluster::{LOST, Said, Script, ServerId};
use crate::wire::resp::Value;

/// Channels of a lost server that are removed in one step.
const BURIED_AT_ONCE: &str = "256";

/// Users with their info, or that they left.
type Users<'a> = [(&'a str, Option<&'a str>)];

impl Cluster {
    /// The link that stands for another server.
    pub(super) fn link_of(&mut self, server: ServerId) -> LinkId {
        let last = &mut self.last_server;
        *self.servers.entry(server).or_insert_with(|| {
            *last += 1;
            LinkId::afar(*last)
        })
    }
}

impl Switchboard {
    pub(super) fn hear_redis(&mut self, heard: Heard<'_, Asked>, now: Now) -> Result<(), String> {
        match heard {
            Heard::Ready => self.signed_in(now),
            Heard::Message { on, message } => self.hear_others(on, message, now),
            Heard::Answer(about, Value::Error(why)) => {
                self.answer_from_here(about, now);
                return Err(match why.starts_with(LOST) {
                    true => "the lease ran out, or Redis lost its data".to_string(),
                    false => String::from_utf8_lossy(why).into_owned(),
                });
            }
            Heard::Answer(about, value) => self.hear_answer(about, &value, now),
        }
        Ok(())
    }

    fn hear_answer(&mut self, about: Asked, value: &Value<'_>, now: Now) {
        match about {
            Asked::Done => {}
            Asked::Renewal { until_ms } => {
                let named = value.list().iter().filter_map(Value::text);
                let mut named = named.map(|it| it.parse::<ServerId>().ok());
                let (teller, before) = (named.next().flatten(), named.next().flatten());
                for server in named.flatten() {
                    self.bury(server, false, now);
                }
                self.see_teller((teller, before), until_ms, now);
            }
            Asked::Memory { courier, part } => self.take_memory(courier, part, value, now),
            Asked::News => self.take_news(value, now),
            Asked::Kept { courier, whole } => self.memory_kept(courier, whole),
            Asked::Burial { server, former } => {
                if value.number().is_some_and(|left| left > 0) {
                    self.bury(server, former, now);
                }
            }
            Asked::Index(app_id) => self.take_index(&app_id, value),
            Asked::Look { key, number } => {
                let Some(cluster) = &mut self.cluster else {
                    return;
                };
                cluster.unanswered -= 1;
                let followed = cluster.followed.get_mut(&key);
                if let Some(followed) = followed.filter(|it| it.look == number) {
                    followed.seen = Seen::Now;
                    self.take_look(&key, value, now);
                    self.hear_those_who_waited(&key, now);
                }
            }
            Asked::Told { publish, first } => {
                if let Some(first) = first {
                    self.take_positions(publish, first, value);
                }
                self.others_were_told(publish, true, now);
            }
            Asked::Counts { publish, index, .. } => {
                self.take_counts(publish, index, value, now);
            }
            Asked::Question {
                asker,
                ticket,
                question,
            } => self.take_answer((asker, ticket), &question, value, now),
        }
    }

    /// Removes what a server without a lease held.
    pub(super) fn bury(&mut self, server: ServerId, former: bool, now: Now) {
        let id = server.to_string();
        let insist: &[u8] = if former { b"1" } else { b"0" };
        let parts = [id.as_bytes(), insist, BURIED_AT_ONCE.as_bytes()];
        let about = Asked::Burial { server, former };
        self.run_script(Script::Bury, &parts, about, now);
    }

    /// All that is so in a channel elsewhere, in place of what was known.
    fn take_look(&mut self, key: &ChannelKey, value: &Value<'_>, now: Now) {
        let [servers, cached, left, history @ ..] = value.list() else {
            return;
        };
        let mut seen = Vec::new();
        for entry in servers.list() {
            let [server, count, users] = entry.list() else {
                continue;
            };
            let server = server.text().and_then(|it| it.parse::<ServerId>().ok());
            let count = count.number().and_then(|it| u32::try_from(it).ok());
            let (Some(server), Some(count), Some(cluster)) = (server, count, &mut self.cluster)
            else {
                continue;
            };
            if server.life == cluster.server.life {
                continue;
            }
            let link = cluster.link_of(server);
            seen.push(link);
            let pairs = users.list().chunks_exact(2);
            let mut users: Vec<(&str, Option<&str>)> = pairs
                .filter_map(|pair| Some((pair[0].text()?, Some(pair[1].text()?))))
                .collect();
            let there: BTreeSet<&str> = users.iter().map(|(user, _)| *user).collect();
            let known = self.registry.users_of(link, key.as_str()).into_iter();
            let gone = known.filter(|user| !there.contains(user));
            let gone: Vec<String> = gone.map(str::to_owned).collect();
            users.extend(gone.iter().map(|user| (user.as_str(), None)));
            self.set_afar(link, key.as_str(), count, &users, now);
        }
        for link in self.registry.afar(key.as_str()) {
            if !seen.contains(&link) {
                self.set_afar(link, key.as_str(), 0, &[], now);
            }
        }
        self.take_cached(key.as_str(), cached, left, now);
        self.take_history(key, history, now);
    }

    /// What Redis keeps of a cache channel counts, wherever it was published. `left`: milliseconds.
    fn take_cached(&mut self, key: &str, message: &Value<'_>, left: &Value<'_>, now: Now) {
        let left = left.number().and_then(|it| u64::try_from(it).ok());
        if let (Some(message), Some(left)) = (message.bytes(), left)
            && let Ok(Some(Said::Event { item, .. })) = Said::decode(message)
            && let Content::Event { name, data } = item.content
        {
            let until = now.moment + Duration::from_millis(left);
            self.cache.put_until(key, (name, data), until, now.moment);
        }
    }

    fn hear_others(&mut self, on: &str, message: &[u8], now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.names.is_within(on) {
            return self.hear_within(message, false, now);
        }
        let Some(key) = cluster.names.key_of(on).map(str::to_owned) else {
            return;
        };
        let followed = cluster.followed.get(key.as_str());
        let is_seen = followed.is_some_and(|it| it.seen == Seen::Now);
        let ours = cluster.server.life;
        match Said::decode(message) {
            // Our own events come back in the order that all servers see.
            Ok(Some(Said::Event { server, kept, item })) => {
                if server.life != ours {
                    self.counters.cluster_events_in += 1;
                    let item = Item {
                        channels: vec![&key],
                        ..item.clone()
                    };
                    self.deliver(&item, &[], &mut Vec::new(), now);
                }
                if let (true, Content::Event { name, data }) =
                    (kept && is_cache_key(&key), item.content)
                {
                    self.cache.put(&key, name, data, now.moment);
                }
            }
            Ok(Some(said @ Said::Placed { .. })) => self.hear_placed(&key, &said, now),
            Ok(Some(Said::Holds { server, .. } | Said::Gone { server }))
                if server.life == ours || !is_seen => {}
            Ok(Some(Said::Holds {
                server,
                subscriptions,
                users,
            })) => {
                let link = cluster.link_of(server);
                self.set_afar(link, &key, subscriptions, &users, now);
            }
            Ok(Some(Said::Gone { server })) => {
                let link = cluster.link_of(server);
                self.set_afar(link, &key, 0, &[], now);
            }
            Ok(Some(Said::Missed { .. }) | None) => {}
            Err(_) => log::warn!("somebody publishes what is no message of ours on {on}"),
        }
    }

    /// A server holds so much of a channel from now on; clients here are told what that changes.
    pub(super) fn set_afar(
        &mut self,
        link: LinkId,
        key: &str,
        count: u32,
        users: &Users<'_>,
        now: Now,
    ) {
        let was_occupied = self.registry.is_occupied(key);
        let moved = self.registry.set_afar(link, key, count, users);
        if !self.registry.is_occupied(key) {
            // Who only tells webhooks need not follow it any longer.
            self.mark(key, None);
        }
        if self.is_settling() {
            // Settled, all is told.
            return;
        }
        self.report_moved(key, was_occupied, &moved, now);
        for member in moved.came {
            self.tell_links(key, None, now, |channel| Down::MemberAdded {
                channel,
                member,
            });
        }
        for user_id in &moved.left {
            self.tell_member_removed(key, user_id, now);
        }
        self.tell_occupancy(key, was_occupied, now);
    }

    /// Nothing was heard of the cluster for so long that nobody there is believed in any more.
    pub(super) fn forget_others(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let servers = std::mem::take(&mut cluster.servers);
        if !servers.is_empty() {
            log::warn!("forgot what {} other servers hold", servers.len());
        }
        for link in servers.into_values() {
            let dropped = self.registry.drop_link(link);
            self.tell_dropped(&dropped, now);
        }
    }
}
