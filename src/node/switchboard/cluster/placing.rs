//! Events of channels that keep history, in a cluster. Redis gives them their positions and keeps
//! them; each server delivers them when they come from there, its own too, and has a copy of what is
//! kept for the channels that it follows, which is what those who come back are served from.
//!
//! Invariants. What was delivered here of such a channel while joined is all that lies up to a
//! position, in its order, and each worker is brought up to the same position after whatever kept it
//! away. When that cannot be, the channel gets another epoch. An event that was handed to Redis and
//! did not come back before Redis was lost is kept until it is known whether it is there; if not, it
//! is handed over again. So it comes once, everywhere, though late.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::names::{ChannelKey, is_cache_key};
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::cluster::Asked;
use crate::node::switchboard::cluster::following::Seen;
use crate::realtime::registry::LinkId;
use crate::wire::bus::{Content, Down, Item, Position, Reach};
use crate::wire::cluster::{Said, Script, ServerId, digits};
use crate::wire::resp::Value;

/// See the file's head.
pub(super) struct Placing {
    /// Of the last event that was handed to Redis.
    last: u64,
    /// Handed to Redis and not come back, in that order.
    unplaced: VecDeque<Unplaced>,
    /// Workers that were sent a channel's events up to a position by whoever was there before us, or
    /// before their link broke.
    behind: HashMap<ChannelKey, Vec<(LinkId, Position)>, FixedState>,
    /// Channels whose epoch is given up, until Redis says another: what still comes in it is delivered
    /// without a position.
    astray: BTreeMap<String, u64>,
}

/// An event of ours in one channel.
struct Unplaced {
    key: String,
    number: u64,
    /// The publish that is answered when this is delivered, if somebody waits for that.
    publish: Option<u64>,
    /// As it was said, for when it has to be said again.
    message: Vec<u8>,
    /// Redis was lost meanwhile.
    doubtful: bool,
}

/// An event as Redis keeps it.
pub(super) struct Kept<'a> {
    age: Duration,
    server: ServerId,
    number: u64,
    position: Position,
    item: Item<'a>,
}

impl<'a> Kept<'a> {
    pub(super) fn aged(&self) -> (Duration, &Item<'a>) {
        (self.age, &self.item)
    }
}

impl Placing {
    pub(super) fn new(dice: &mut Dice) -> Placing {
        Placing {
            last: 0,
            unplaced: VecDeque::new(),
            behind: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            astray: BTreeMap::new(),
        }
    }
}

impl Switchboard {
    /// Whether Redis gives the events of this channel their positions now.
    pub(in crate::node::switchboard) fn is_placed_afar(&self, key: &str, item: &Item<'_>) -> bool {
        let is_event = matches!(item.content, Content::Event { .. });
        let joined = self.cluster.as_ref().is_some_and(|it| it.is_joined());
        is_event && joined && self.history.rule(key).is_some()
    }

    /// What is delivered at once: the event without the channels that wait for their positions.
    pub(in crate::node::switchboard) fn unplaced_part<'a>(&self, item: &Item<'a>) -> Item<'a> {
        let mut part = item.clone();
        if self.cluster.is_some() && self.history.has_rules() {
            part.channels.retain(|key| !self.is_placed_afar(key, item));
        }
        part
    }

    /// The third argument of a channel in `tell.lua`.
    pub(super) fn rule_words(&self, key: &str, item: &Item<'_>) -> String {
        let rule = self.history.rule(key);
        let rule = rule.filter(|_| self.is_placed_afar(key, item));
        rule.map_or_else(String::new, |rule| {
            let age = rule.age.as_millis();
            format!("{} {age} {}", rule.events, rule.bytes)
        })
    }

    /// The epoch that a look at the channel offers; nothing where no history is wanted.
    pub(super) fn epoch_words(&mut self, key: &str, events: bool) -> String {
        match events && self.history.rule(key).is_some() {
            true => self.new_epoch(),
            false => String::new(),
        }
    }

    /// One that no history had before: whatever Redis forgot, an old position stays recognisable.
    pub(super) fn new_epoch(&mut self) -> String {
        let dice = self.cluster.as_mut().map(|it| &mut it.dice);
        format!("{:016x}", dice.map_or(0, Dice::next_u64))
    }

    /// The number that the next event is known by.
    pub(super) fn next_place(&mut self) -> u64 {
        let Some(cluster) = &mut self.cluster else {
            return 0;
        };
        cluster.placing.last += 1;
        cluster.placing.last
    }

    /// An event was handed to Redis; whether it comes back from there. `publish` is answered then.
    pub(super) fn await_place(
        &mut self,
        key: &str,
        (number, publish): (u64, Option<u64>),
        message: &[u8],
    ) -> bool {
        let Some(cluster) = &mut self.cluster else {
            return false;
        };
        let followed = cluster.followed.get(key);
        let comes = followed.is_some_and(|followed| followed.subscribed);
        if comes {
            cluster.placing.unplaced.push_back(Unplaced {
                key: key.to_string(),
                number,
                publish,
                message: message.to_vec(),
                doubtful: false,
            });
        }
        comes
    }

    /// An event came with its position.
    pub(super) fn hear_placed(&mut self, key: &str, said: &Said<'_>, now: Now) {
        let Said::Placed {
            server,
            position,
            number,
            kept,
            item,
        } = said
        else {
            return;
        };
        let Some(cluster) = &self.cluster else {
            return;
        };
        let ours = server.life == cluster.server.life;
        let followed = cluster.followed.get(key);
        // Before the look was answered, it is in the answer.
        if followed.is_none_or(|it| it.seen != Seen::Now) {
            return;
        }
        if *kept
            && is_cache_key(key)
            && let Content::Event { name, data } = item.content
        {
            self.cache.put(key, name, data, now.moment);
        }
        let is_placed = self.is_on_track(key, position.epoch);
        if is_placed {
            self.history.append_at(key, item, *position, now.moment);
        }
        if !ours {
            self.counters.cluster_events_in += 1;
        }
        let item = Item {
            channels: vec![key],
            ..item.clone()
        };
        let mut marks = Vec::new();
        let position = is_placed.then_some(*position);
        self.deliver(&item, &[position], &mut marks, now);
        if ours {
            self.placed(*number, key, &marks, now);
        }
    }

    /// Whether all that is kept of a channel is known here and stays so.
    pub(in crate::node::switchboard) fn has_copy(&self, key: &str) -> bool {
        let Some(cluster) = &self.cluster else {
            return true;
        };
        let followed = cluster.followed.get(key);
        let is_seen = followed.is_some_and(|it| it.subscribed && it.seen == Seen::Now);
        is_seen && cluster.is_joined() && !cluster.placing.astray.contains_key(key)
    }

    /// Whether this epoch of a channel holds, here.
    fn is_on_track(&mut self, key: &str, epoch: u64) -> bool {
        let Some(cluster) = &mut self.cluster else {
            return true;
        };
        let astray = &mut cluster.placing.astray;
        match astray.get(key) {
            Some(over) if *over == epoch => false,
            Some(_) => {
                astray.remove(key);
                true
            }
            None => true,
        }
    }

    /// An event of ours was delivered: whoever waits for it waits for the kernel now.
    fn placed(&mut self, number: u64, key: &str, marks: &[(ConnId, u64)], now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let unplaced = &mut cluster.placing.unplaced;
        let place = unplaced
            .iter()
            .position(|it| it.number == number && it.key == key);
        let Some(one) = place.and_then(|place| unplaced.remove(place)) else {
            return;
        };
        if let Some(publish) = one.publish {
            self.publish_is_placed(publish, marks, Reach::Everywhere, now);
        }
    }

    /// Redis is away: nobody waits for what it was handed.
    pub(super) fn doubt_places(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let mut awaited = Vec::new();
        for one in &mut cluster.placing.unplaced {
            one.doubtful = true;
            awaited.extend(one.publish.take());
        }
        for publish in awaited {
            self.publish_is_placed(publish, &[], Reach::Here, now);
        }
    }

    /// Joined again: of what concerns nobody here any more, nothing is said again.
    pub(super) fn forget_places(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            let followed = &cluster.followed;
            let unplaced = &mut cluster.placing.unplaced;
            unplaced.retain(|one| followed.contains_key(one.key.as_str()));
        }
    }

    /// Says again what was on its way when Redis was lost, and is not there.
    fn tell_again(&mut self, key: &ChannelKey, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let server = cluster.server;
        let mut again = Vec::new();
        for one in &mut cluster.placing.unplaced {
            if one.doubtful && one.key == key.as_str() {
                one.doubtful = false;
                again.push((one.number, one.message.clone()));
            }
        }
        for (number, message) in again {
            let Ok(Some(Said::Event { item, .. })) = Said::decode(&message) else {
                continue;
            };
            let (id, number) = (server.to_string(), format!("{number:016x}"));
            let epoch = self.new_epoch();
            let rule = self.rule_words(key.as_str(), &item);
            // Its cache channel may have another last event by now.
            let kept = false;
            let message = Said::Event { server, kept, item }.encode();
            let parts = [&*id, "", &*number, &*epoch, key.as_str(), "0", &*rule];
            let mut parts = parts.map(str::as_bytes);
            parts[1] = &message;
            self.run_script(Script::Tell, &parts, Asked::Done, now);
        }
    }

    /// The channel is not followed any more: there is nobody whom its events have to reach.
    pub(super) fn forget_history(&mut self, key: &ChannelKey, now: Now) {
        self.history.forget(key.as_str());
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.placing.behind.remove(key);
        cluster.placing.astray.remove(key.as_str());
        let (gone, left): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut cluster.placing.unplaced)
                .into_iter()
                .partition(|one| one.key == key.as_str());
        cluster.placing.unplaced = left;
        for publish in gone.into_iter().filter_map(|one| one.publish) {
            self.publish_is_placed(publish, &[], Reach::Everywhere, now);
        }
    }

    /// The positions that Redis gave, for the publisher who asked for them: those of the channels of
    /// one event, whose first stands at `first` in the answer.
    pub(super) fn take_positions(&mut self, publish: u64, first: usize, value: &Value<'_>) {
        let Some(publish) = self.unanswered.iter_mut().find(|it| it.number == publish) else {
            return;
        };
        for (place, position) in value.list().iter().enumerate() {
            if let Some(slot) = publish.counts.get_mut(first + place) {
                slot.1 = position.bytes().and_then(read_position);
            }
        }
    }

    /// A worker was sent a channel's events up to there.
    pub(in crate::node::switchboard) fn note_behind(
        &mut self,
        link: LinkId,
        key: &str,
        position: Option<Position>,
    ) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (Some(key), Some(position)) = (ChannelKey::parse(key), position) else {
            return;
        };
        let behind = cluster.placing.behind.entry(key.clone()).or_default();
        behind.retain(|(other, _)| *other != link);
        behind.push((link, position));
        if let Some(followed) = cluster.followed.get_mut(&key)
            && cluster.stage.is_joined()
            && !followed.queued
        {
            followed.queued = true;
            // What comes before the look is in it.
            if followed.seen == Seen::Now {
                followed.seen = Seen::Before;
            }
            cluster.unseen.push_back(key);
        }
    }

    /// The history part of an answer to a look: it becomes ours, and each worker with subscribers is
    /// sent what it lacks.
    pub(super) fn take_history(&mut self, key: &ChannelKey, parts: &[Value<'_>], now: Now) {
        let Some((last, kept)) = read_history(key, parts) else {
            return;
        };
        self.is_on_track(key.as_str(), last.epoch);
        let known = self.history.known(key.as_str());
        let links: Vec<LinkId> = self.registry.interested(key.as_str()).collect();
        let behind = self.cluster.as_mut();
        let behind = behind.and_then(|it| it.placing.behind.remove(key));
        let behind = behind.unwrap_or_default();
        for link in links {
            let own = behind.iter().find(|(other, _)| *other == link);
            let from = own.map(|(_, position)| *position).or(known);
            if let (Some(from), Some(conn)) = (from, self.by_id.get(&link).copied()) {
                self.catch_up_worker(conn, key, (from, last), &kept, now);
            }
        }
        let events = kept.iter().map(Kept::aged);
        self.history.restore(key.as_str(), last, events, now.moment);
        for number in self.numbers_of_ours(key, &kept) {
            let marks = self.marks_of(key.as_str());
            self.placed(number, key.as_str(), &marks, now);
        }
        self.tell_again(key, now);
    }

    /// Events of ours that were found among what is kept.
    fn numbers_of_ours(&self, key: &ChannelKey, kept: &[Kept<'_>]) -> Vec<u64> {
        let Some(cluster) = &self.cluster else {
            return Vec::new();
        };
        let life = cluster.server.life;
        let ours = kept.iter().filter(|it| it.server.life == life);
        let ours: BTreeSet<u64> = ours.map(|it| it.number).collect();
        let unplaced = cluster.placing.unplaced.iter();
        let found = unplaced.filter(|it| it.key == key.as_str() && ours.contains(&it.number));
        found.map(|it| it.number).collect()
    }

    /// Sends one worker what lies between two positions, or gives up the epoch if that is gone.
    fn catch_up_worker(
        &mut self,
        conn: ConnId,
        key: &ChannelKey,
        (from, last): (Position, Position),
        kept: &[Kept<'_>],
        now: Now,
    ) {
        if from.epoch != last.epoch {
            // Its clients see that with the next event.
            return;
        }
        let first = kept
            .first()
            .map_or(last.offset + 1, |it| it.position.offset);
        if from.offset + 1 < first {
            return self.turn_epoch(key, last.epoch, now);
        }
        for one in kept.iter().filter(|it| it.position.offset > from.offset) {
            let item = Item {
                channels: vec![key.as_str()],
                ..one.item.clone()
            };
            let positions = vec![Some(one.position)];
            self.send(conn, &Down::Deliver { item, positions }, now);
        }
    }

    fn turn_epoch(&mut self, key: &ChannelKey, epoch: u64, now: Now) {
        if let Some(cluster) = &mut self.cluster {
            let astray = &mut cluster.placing.astray;
            astray.insert(key.as_str().to_string(), epoch);
        }
        let (epoch, next) = (format!("{epoch:016x}"), self.new_epoch());
        let parts = [key.as_str().as_bytes(), epoch.as_bytes(), next.as_bytes()];
        self.run_script(Script::Turn, &parts, Asked::Done, now);
    }

    /// Where the links of all who subscribe to the channel stand now.
    fn marks_of(&mut self, key: &str) -> Vec<(ConnId, u64)> {
        let links = self.registry.interested(key);
        let conns: Vec<ConnId> = links
            .filter_map(|id| self.by_id.get(&id).copied())
            .collect();
        let marks = conns.into_iter().filter_map(|conn| {
            let position = self.lines.outbox(conn)?.position();
            Some((conn, position))
        });
        marks.collect()
    }
}

/// The end of a look's answer: the last position and the events.
pub(super) fn read_history<'a>(
    key: &'a ChannelKey,
    parts: &'a [Value<'_>],
) -> Option<(Position, Vec<Kept<'a>>)> {
    let [epoch, offset, time, events] = parts else {
        return None;
    };
    let last = Position {
        epoch: digits(epoch.bytes()?).ok()?,
        offset: u64::try_from(offset.number()?).ok()?,
    };
    let now: u64 = time.text()?.parse().ok()?;
    let read = |event: &'a Value<'_>| {
        let [time, message] = event.list() else {
            return None;
        };
        let time: u64 = time.text()?.parse().ok()?;
        let Ok(Some(Said::Placed {
            server,
            position,
            number,
            item,
            ..
        })) = Said::decode(message.bytes()?)
        else {
            log::warn!("what is kept of {} is not ours", key.as_str());
            return None;
        };
        Some(Kept {
            age: Duration::from_millis(now.saturating_sub(time)),
            server,
            number,
            position,
            item,
        })
    };
    Some((last, events.list().iter().filter_map(read).collect()))
}

/// An epoch and an offset, as `tell.lua` returns them.
fn read_position(text: &[u8]) -> Option<Position> {
    let (epoch, offset) = text.split_at_checked(16)?;
    Some(Position {
        epoch: digits(epoch).ok()?,
        offset: digits(offset).ok()?,
    })
}
