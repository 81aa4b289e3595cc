//! Events that go to other servers, and questions that Redis answers. What cannot be said of the
//! cluster is said of this server, and that it is.

use crate::base::ids::ConnId;
use crate::base::names::{ChannelKey, is_cache_key};
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::cluster::Asked;
use crate::node::switchboard::cluster::following::Seen;
use crate::node::switchboard::cluster::placing::{Kept, read_history};
use crate::push::webhook::Kind;
use crate::wire::bus::{
    Answer, Cached, ChannelCounts, Content, Down, Item, Position, Question, Reach, RefusalReason,
};
use crate::wire::cluster::{Said, Script};
use crate::wire::resp::Value;

/// A question that is under way.
#[derive(Debug)]
pub(super) enum OwnedQuestion {
    Channels {
        app_id: String,
        prefix: String,
    },
    Channel {
        key: String,
    },
    Users {
        key: String,
    },
    History {
        key: ChannelKey,
        after: Option<Position>,
        count: u32,
    },
}

impl OwnedQuestion {
    fn as_question(&self) -> Question<'_> {
        match self {
            OwnedQuestion::Channels { app_id, prefix } => Question::Channels { app_id, prefix },
            OwnedQuestion::Channel { key } => Question::Channel { channel: key },
            OwnedQuestion::Users { key } => Question::Users { channel: key },
            OwnedQuestion::History { key, after, count } => Question::History {
                channel: key.as_str(),
                after: *after,
                count: *count,
            },
        }
    }
}

impl Switchboard {
    /// Whether what waits for Redis leaves no room for so many bytes more.
    pub(in crate::node::switchboard) fn is_cluster_congested(&self, bytes: usize) -> bool {
        let conn = self.cluster.as_ref().and_then(|it| it.joined());
        conn.is_some_and(|conn| self.lines.waiting(conn) + bytes > self.limits.link_bytes)
    }

    /// How far an event comes that is published now, before anybody answered.
    pub(in crate::node::switchboard) fn reach(&self) -> Reach {
        match &self.cluster {
            Some(cluster) if !cluster.is_joined() => Reach::Here,
            _ => Reach::Everywhere,
        }
    }

    /// Passes events on to other servers; how many answers follow for the publish with this number.
    /// `keeps`: they are the last of their cache channels.
    pub(in crate::node::switchboard) fn tell_others(
        &mut self,
        items: &[Item<'_>],
        publish: u64,
        keeps: bool,
        now: Now,
    ) -> usize {
        let Some(cluster) = self.cluster.as_ref().filter(|it| it.is_joined()) else {
            return 0;
        };
        let server = cluster.server;
        let id = server.to_string();
        let keep = (self.limits.cache_seconds * 1000).to_string();
        let epoch = self.new_epoch();
        let (mut owed, mut counted) = (0, 0);
        for item in items {
            let said = Said::Event {
                server,
                kept: keeps,
                item: Item {
                    channels: Vec::new(),
                    info: Default::default(),
                    ..item.clone()
                },
            };
            let message = said.encode();
            let place = self.next_place();
            let number = format!("{place:016x}");
            let mut parts = vec![id.as_bytes(), message.as_slice()];
            parts.extend([number.as_bytes(), epoch.as_bytes()]);
            let is_event = matches!(item.content, Content::Event { .. });
            let rules = item.channels.iter().map(|key| self.rule_words(key, item));
            let rules: Vec<String> = rules.collect();
            for (key, rule) in item.channels.iter().zip(&rules) {
                parts.push(key.as_bytes());
                parts.push(match keeps {
                    true if is_event && is_cache_key(key) => keep.as_bytes(),
                    true => b"0",
                    false if self.is_news(key, Kind::ClientEvent) => b"n",
                    false => b"c",
                });
                parts.push(rule.as_bytes());
            }
            self.counters.cluster_events_out += 1;
            let first = item.info.any().then_some(counted);
            if item.info.any() {
                counted += item.channels.len();
            }
            let about = Asked::Told { publish, first };
            self.run_script(Script::Tell, &parts, about, now);
            owed += 1;
            let placed = item.channels.iter().zip(&rules);
            for (key, _) in placed.filter(|(_, rule)| !rule.is_empty()) {
                let comes = self.await_place(key, (place, keeps.then_some(publish)), &message);
                owed += usize::from(comes && keeps);
            }
        }
        owed
    }

    /// Asks for the counts that are not known here; how many answers follow.
    pub(in crate::node::switchboard) fn ask_counts(
        &mut self,
        items: &[Item<'_>],
        publish: u64,
        now: Now,
    ) -> usize {
        if !self.cluster.as_ref().is_some_and(|it| it.is_joined()) {
            return 0;
        }
        let wanted = items.iter().filter(|item| item.info.any());
        let keys = wanted.flat_map(|item| &item.channels).enumerate();
        let unknown: Vec<(usize, &str)> = keys
            .map(|(index, key)| (index, *key))
            .filter(|(_, key)| !self.is_seen(key))
            .collect();
        for (index, key) in &unknown {
            let about = Asked::Counts {
                publish,
                index: *index,
                key: key.to_string(),
            };
            self.run_script(Script::Glance, &[key.as_bytes()], about, now);
        }
        unknown.len()
    }

    /// Whether the registry knows all of a channel.
    fn is_seen(&self, key: &str) -> bool {
        let followed = self.cluster.as_ref().and_then(|it| it.followed.get(key));
        followed.is_some_and(|followed| followed.seen == Seen::Now)
    }

    /// Asks Redis what the registry cannot know; whether that is so.
    pub(in crate::node::switchboard) fn ask_afar(
        &mut self,
        asker: ConnId,
        ticket: u64,
        question: &Question<'_>,
        now: Now,
    ) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|it| it.is_joined()) else {
            return false;
        };
        let about = |question| Asked::Question {
            asker,
            ticket,
            question,
        };
        match *question {
            Question::Channels { app_id, prefix } => {
                let index = cluster.names.app(app_id);
                let (app_id, prefix) = (app_id.to_string(), prefix.to_string());
                let question = OwnedQuestion::Channels { app_id, prefix };
                self.ask_redis(&["HGETALL", &index], about(question), now);
            }
            Question::Channel { channel } if !self.is_seen(channel) => {
                let key = channel.to_string();
                let about = about(OwnedQuestion::Channel { key });
                self.run_script(Script::Glance, &[channel.as_bytes()], about, now);
            }
            Question::Users { channel } if !self.is_seen(channel) => {
                let key = channel.to_string();
                let about = about(OwnedQuestion::Users { key });
                self.run_script(Script::Look, &[channel.as_bytes(), b""], about, now);
            }
            Question::History {
                channel,
                after,
                count,
            } if !self.has_copy(channel) => {
                let Some(key) = ChannelKey::parse(channel) else {
                    return false;
                };
                let epoch = self.epoch_words(channel, true);
                let about = about(OwnedQuestion::History { key, after, count });
                let parts = [channel.as_bytes(), epoch.as_bytes()];
                self.run_script(Script::Look, &parts, about, now);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn take_answer(
        &mut self,
        (asker, ticket): (ConnId, u64),
        question: &OwnedQuestion,
        value: &Value<'_>,
        now: Now,
    ) {
        let answer = match question {
            OwnedQuestion::History { key, after, count } => {
                return self.take_past((asker, ticket), key, (*after, *count), value, now);
            }
            OwnedQuestion::Channels { prefix, .. } => {
                let pairs = value.list().chunks_exact(2);
                let all = pairs.filter_map(|pair| Some((pair[0].text()?, counts(&pair[1]))));
                let mut channels: Vec<(&str, ChannelCounts)> =
                    all.filter(|(name, _)| name.starts_with(prefix)).collect();
                channels.sort_unstable_by_key(|(name, _)| *name);
                Answer::Channels(channels)
            }
            OwnedQuestion::Channel { .. } => {
                let [counted, message, left] = value.list() else {
                    return self.refuse_question(asker, ticket, now);
                };
                let said = message.bytes().map(Said::decode);
                let cached = match &said {
                    Some(Ok(Some(Said::Event { item, .. }))) => cached(item.content, left),
                    _ => None,
                };
                Answer::Channel {
                    counts: counts(counted),
                    cached,
                }
            }
            OwnedQuestion::Users { .. } => {
                let servers = value.list().first().map_or(&[][..], Value::list);
                let users = servers.iter().filter_map(|server| server.list().get(2));
                let users = users.flat_map(|users| users.list().chunks_exact(2));
                let mut users: Vec<&str> = users.filter_map(|pair| pair[0].text()).collect();
                users.sort_unstable();
                users.dedup();
                Answer::Users(users)
            }
        };
        self.give_answer(asker, ticket, answer, now);
    }

    /// A page of the history of a channel that nobody here follows.
    fn take_past(
        &mut self,
        (asker, ticket): (ConnId, u64),
        key: &ChannelKey,
        (after, count): (Option<Position>, u32),
        value: &Value<'_>,
        now: Now,
    ) {
        let history = value.list().get(3..);
        let history = history.and_then(|parts| read_history(key, parts));
        if let Some((last, kept)) = history
            && !self.has_copy(key.as_str())
        {
            let events = kept.iter().map(Kept::aged);
            self.history.restore(key.as_str(), last, events, now.moment);
        }
        let channel = key.as_str();
        let question = Question::History {
            channel,
            after,
            count,
        };
        self.answer_here(asker, ticket, &question, now);
        if !self.has_copy(channel) {
            self.history.forget(channel);
        }
    }

    fn refuse_question(&mut self, asker: ConnId, ticket: u64, now: Now) {
        let answer = Answer::Refused(RefusalReason::Congested);
        self.send(asker, &Down::Answer { ticket, answer }, now);
    }

    pub(super) fn take_counts(&mut self, publish: u64, index: usize, value: &Value<'_>, now: Now) {
        let counted = value.list().first().map_or_else(Default::default, counts);
        if let Some(publish) = self.unanswered.iter_mut().find(|it| it.number == publish)
            && let Some(slot) = publish.counts.get_mut(index)
        {
            slot.0 = counted;
        }
        self.others_were_told(publish, true, now);
    }

    /// One of a publish's events was delivered in a channel with history: the kernel has it when these
    /// marks are reached.
    pub(super) fn publish_is_placed(
        &mut self,
        publish: u64,
        marks: &[(ConnId, u64)],
        reach: Reach,
        now: Now,
    ) {
        if let Some(publish) = self.unanswered.iter_mut().find(|it| it.number == publish) {
            publish.add_marks(marks);
        }
        self.others_were_told(publish, reach == Reach::Everywhere, now);
    }

    /// Redis answered one of the questions of a publish, or will not: `reached` then is false.
    pub(super) fn others_were_told(&mut self, publish: u64, reached: bool, now: Now) {
        // Their answers come in order, so it stands near the front.
        let Some(publish) = self.unanswered.iter_mut().find(|it| it.number == publish) else {
            return;
        };
        publish.owed = publish.owed.saturating_sub(1);
        if !reached {
            publish.reach = Reach::Here;
        }
        let done = publish.owed == 0 && publish.marks.is_empty();
        if done {
            self.answer_what_is_out(now);
        }
    }

    /// Redis will not answer this.
    pub(super) fn answer_from_here(&mut self, about: Asked, now: Now) {
        match about {
            Asked::Told { publish, .. } => self.others_were_told(publish, false, now),
            Asked::Counts {
                publish,
                index,
                key,
            } => {
                let counts = self.registry.counts(&key);
                if let Some(publish) = self.unanswered.iter_mut().find(|it| it.number == publish)
                    && let Some(slot) = publish.counts.get_mut(index)
                {
                    slot.0 = counts;
                }
                self.others_were_told(publish, false, now);
            }
            Asked::Question {
                asker,
                ticket,
                question,
            } => self.answer_here(asker, ticket, &question.as_question(), now),
            Asked::Done
            | Asked::Index(_)
            | Asked::Renewal { .. }
            | Asked::Memory { .. }
            | Asked::News
            | Asked::Kept { .. }
            | Asked::Burial { .. }
            | Asked::Look { .. } => {}
        }
    }
}

/// `SUBSCRIPTIONS USERS`; nothing is nobody.
fn counts(value: &Value<'_>) -> ChannelCounts {
    let (subscriptions, users) = value.text().and_then(|it| it.split_once(' ')).unzip();
    let number = |text: Option<&str>| text.and_then(|it| it.parse().ok()).unwrap_or(0);
    ChannelCounts {
        users: number(users),
        subscriptions: number(subscriptions),
    }
}

/// `left`: milliseconds to live.
fn cached<'a>(content: Content<'a>, left: &Value<'_>) -> Option<Cached<'a>> {
    let Content::Event { name, data } = content else {
        return None;
    };
    let left = left.number().and_then(|it| u64::try_from(it).ok());
    Some(Cached {
        name,
        data,
        ttl_seconds: left.unwrap_or(0) / 1000,
    })
}
