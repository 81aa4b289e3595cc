//! Webhooks in a cluster: one server tells them for all. It follows every channel of the apps they are of, without the events, so that its registry has the whole
//! truth; the reports to the courier are made of that, as ever.
//!
//! Invariant: what is not known is not reported. While away, and until all channels were looked at
//! again, nothing is; then the courier gets a snapshot and tells the difference.

use crate::base::names::{ChannelKey, is_cache_key, user_of};
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::cluster::Asked;
use crate::node::switchboard::cluster::following::Seen;
use crate::push::webhook::Kind;
use crate::wire::bus::Item;
use crate::wire::cluster::{Said, Script};
use crate::wire::resp::Value;

/// Of what waited, in one answer.
const NEWS_AT_ONCE: &[u8] = b"100";

impl Switchboard {
    /// In office: hears of every change in the apps with webhooks, and asks what is there.
    pub(super) fn follow_apps(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let apps = cluster.apps.clone();
        cluster.unanswered += apps.len();
        for app_id in apps {
            let Some(cluster) = &self.cluster else {
                return;
            };
            let (within, index) = (cluster.names.within(&app_id), cluster.names.app(&app_id));
            let parts: [&[u8]; 2] = [b"SUBSCRIBE", within.as_bytes()];
            self.write_redis(now, |redis, to| redis.tell(&parts, to));
            self.ask_redis(&["HGETALL", &index], Asked::Index(app_id), now);
        }
    }

    pub(super) fn take_index(&mut self, app_id: &str, value: &Value<'_>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.unanswered -= 1;
        }
        for pair in value.list().chunks_exact(2) {
            if let Some(channel) = pair[0].text() {
                self.follow(&ChannelKey::new(app_id, channel), false);
            }
        }
    }

    /// Whether the channel is followed for the sake of webhooks.
    pub(super) fn is_told_of(&self, key: &ChannelKey) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|it| it.office.held) else {
            return false;
        };
        let seen = cluster.followed.get(key).map(|followed| followed.seen);
        cluster.apps.contains(key.app_id())
            && user_of(key.channel()).is_none()
            && (seen != Some(Seen::Now) || self.registry.is_occupied(key.as_str()))
    }

    /// Nothing is left to be asked: if that was so for the first time, the courier is told all.
    pub(super) fn note_whole(&mut self, now: Now) {
        if let Some(cluster) = &mut self.cluster
            && !cluster.whole
            && cluster.unanswered == 0
        {
            cluster.whole = true;
            self.report_all();
            self.settle_if_known(now);
        }
    }

    /// Whether there are other servers of which not everything is known.
    pub(in crate::node::switchboard) fn is_blind(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| !cluster.whole)
    }

    /// Something changed, or happened, in some channel of an app with webhooks. `waited`: while nobody
    /// told; otherwise what is said here is known here.
    pub(super) fn hear_within(&mut self, message: &[u8], waited: bool, now: Now) {
        let Some(blank) = message.iter().position(|byte| *byte == b' ') else {
            return;
        };
        let key = std::str::from_utf8(&message[..blank]).unwrap_or_default();
        let said = Said::decode(&message[blank + 1..]);
        let (Some(cluster), Ok(Some(said))) = (&mut self.cluster, said) else {
            return;
        };
        let (Said::Event { server, .. }
        | Said::Placed { server, .. }
        | Said::Holds { server, .. }
        | Said::Gone { server }
        | Said::Missed { server }) = said;
        if server.life == cluster.server.life && !waited {
            return;
        }
        let followed = cluster.followed.get(key);
        let is_known = followed.is_some();
        let heard = followed.is_some_and(|it| it.seen == Seen::Now && !it.subscribed);
        let link = cluster.link_of(server);
        match said {
            Said::Event { item, .. } => {
                let channels = vec![key];
                self.report_client_events(&[Item { channels, ..item }]);
            }
            Said::Placed { .. } => {}
            Said::Missed { .. } => self.cache_missed(key, now),
            Said::Holds { .. } | Said::Gone { .. } if !is_known => {
                if let Some(key) = ChannelKey::parse(key)
                    && user_of(key.channel()).is_none()
                {
                    self.follow(&key, false);
                }
            }
            Said::Holds {
                subscriptions,
                users,
                ..
            } if heard => self.set_afar(link, key, subscriptions, &users, now),
            Said::Gone { .. } if heard => self.set_afar(link, key, 0, &[], now),
            Said::Holds { .. } | Said::Gone { .. } => {}
        }
    }

    /// Somebody subscribed here to a cache channel that is empty: whoever tells webhooks is told.
    pub(in crate::node::switchboard) fn tell_miss(&mut self, key: &str, now: Now) {
        let Some(cluster) = self.cluster.as_ref().filter(|it| it.is_joined()) else {
            return;
        };
        let app_id = key.split_once('/').map_or("", |(app_id, _)| app_id);
        let told_here = cluster.office.held && cluster.apps.contains(app_id);
        if told_here || !is_cache_key(key) || self.cache.get(key, now.moment).is_some() {
            return;
        }
        let server = cluster.server;
        let keep: &[u8] = match self.is_news(key, Kind::CacheMiss) {
            true => b"n",
            false => b"c",
        };
        let (id, message) = (server.to_string(), Said::Missed { server }.encode());
        // It has no place in any history, and so neither number nor epoch.
        let parts = [id.as_bytes(), &message, b"", b"", key.as_bytes(), keep, b""];
        self.run_script(Script::Tell, &parts, Asked::Done, now);
    }

    /// Asks for what happened while nobody told.
    pub(super) fn ask_news(&mut self, now: Now) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let server = cluster.server.to_string();
        let parts = [server.as_bytes(), NEWS_AT_ONCE];
        self.run_script(Script::News, &parts, Asked::News, now);
    }

    pub(super) fn take_news(&mut self, value: &Value<'_>, now: Now) {
        for message in value.list().iter().filter_map(Value::bytes) {
            self.hear_within(message, true, now);
        }
        if !value.list().is_empty() {
            self.ask_news(now);
        }
    }
}
