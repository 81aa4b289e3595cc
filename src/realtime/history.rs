//! The last events of the channels that keep history, each with its position, for those who were
//! away. It does not know who subscribes, nor what an event means.
//!
//! A position is an epoch and an offset. Within one epoch of a channel offsets rise by one with each
//! event, so what lies between two positions of one epoch is known, or known to be gone. A channel
//! that is forgotten comes back with another epoch, which is what makes an old position recognisable.
//!
//! Bounds: each rule has its own for one channel; beside them so many channels, events and bytes in
//! all. Beyond these, what is forgotten next anyway is forgotten now.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::history_rule::HistoryRule;
use crate::base::ids::SocketId;
use crate::base::limits::Limits;
use crate::base::names::{ChannelKey, user_of};
use crate::base::now::Moment;
use crate::wire::bus::{Content, Item, Past, Position, Recover};

/// Some of what came after the position is gone, or it is no position of this channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

struct Kept {
    name: Box<str>,
    data: Box<str>,
    user_id: Option<Box<str>>,
    exclude: Option<SocketId>,
    /// Its place in `History::expiry`.
    expiry: (Moment, u64),
}

/// What keeping an event takes beside its texts, roughly.
const EVENT_BYTES: usize = 128;

impl Kept {
    fn bytes(&self) -> usize {
        let user_id = self.user_id.as_ref().map_or(0, |it| it.len());
        self.name.len() + self.data.len() + user_id + EVENT_BYTES
    }
}

/// One channel's.
struct Stream {
    epoch: u64,
    /// Of the last event.
    offset: u64,
    /// The last ones, without a hole; the youngest at the end.
    events: VecDeque<Kept>,
    bytes: usize,
    rule: usize,
    /// Its place in `History::quiet`: the number of its last event.
    number: u64,
}

impl Stream {
    fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.offset,
        }
    }

    /// The last `count` events, without those that this connection was not to receive.
    fn last(&self, count: usize, socket_id: Option<SocketId>) -> impl Iterator<Item = Past<'_>> {
        let first = self.offset + 1 - self.events.len() as u64;
        let events = self.events.iter().enumerate();
        let events = events.skip(self.events.len() - count);
        let own = move |kept: &Kept| socket_id.is_some() && kept.exclude == socket_id;
        let events = events.filter(move |(_, kept)| !own(kept));
        events.map(move |(index, kept)| Past {
            offset: first + index as u64,
            name: &kept.name,
            data: &kept.data,
            user_id: kept.user_id.as_deref(),
        })
    }
}

/// See the file's head.
pub struct History {
    rules: Vec<HistoryRule>,
    streams: HashMap<ChannelKey, Stream, FixedState>,
    /// All events, by the time at which they are forgotten.
    expiry: BTreeMap<(Moment, u64), ChannelKey>,
    /// All streams, by the number of their last event.
    quiet: BTreeMap<u64, ChannelKey>,
    next_number: u64,
    bytes: usize,
    /// The epoch of streams that begin now. Another one with each that is forgotten, so that no
    /// channel has the same epoch twice although nothing is remembered of it meanwhile.
    epoch: u64,
    channels_max: usize,
    events_max: usize,
    bytes_max: usize,
}

impl History {
    pub fn new(rules: Vec<HistoryRule>, limits: &Limits, dice: &mut Dice) -> History {
        History {
            rules,
            streams: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            expiry: BTreeMap::new(),
            quiet: BTreeMap::new(),
            next_number: 0,
            bytes: 0,
            epoch: dice.next_u64(),
            channels_max: limits.history_channels,
            events_max: limits.history_events,
            bytes_max: limits.history_bytes,
        }
    }

    /// Whether any channel keeps history.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Keeps an event of a channel; its position, or `None` where no history is kept.
    pub fn append(&mut self, key: &str, item: &Item<'_>, now: Moment) -> Option<Position> {
        let Content::Event { name, data } = item.content else {
            return None;
        };
        let rule = self.rule_of(key)?;
        let (age, number) = (self.rules[rule].age, self.next_number);
        self.next_number += 1;
        let kept = Kept {
            name: name.into(),
            data: data.into(),
            user_id: item.user_id.map(Into::into),
            exclude: item.exclude,
            expiry: (now + age, number),
        };
        let key = self.begin(key, rule)?;
        let stream = self.streams.get_mut(key.as_str())?;
        stream.offset += 1;
        let position = stream.position();
        self.quiet.remove(&stream.number);
        self.quiet.insert(number, key.clone());
        stream.number = number;
        stream.bytes += kept.bytes();
        self.bytes += kept.bytes();
        self.expiry.insert(kept.expiry, key.clone());
        stream.events.push_back(kept);
        self.trim(key.as_str());
        self.make_room(now);
        Some(position)
    }

    /// Where the channel stands; `None` where no history is kept.
    pub fn position(&self, key: &str) -> Option<Position> {
        self.rule_of(key)?;
        let (epoch, offset) = (self.epoch, 0);
        let stream = self.streams.get(key).map(Stream::position);
        Some(stream.unwrap_or(Position { epoch, offset }))
    }

    /// What came after the position, oldest first: all of it but what the connection was not to
    /// receive; or `Lost`.
    pub fn since(
        &self,
        key: &str,
        Recover {
            position,
            socket_id,
        }: Recover,
        now: Moment,
    ) -> Result<impl Iterator<Item = Past<'_>>, Lost> {
        let current = self.position(key).ok_or(Lost)?;
        if current.epoch != position.epoch {
            return Err(Lost);
        }
        let missed = current.offset.checked_sub(position.offset).ok_or(Lost)?;
        let missed = usize::try_from(missed).map_err(|_| Lost)?;
        if missed > self.alive(key, now) {
            return Err(Lost);
        }
        let stream = self.streams.get(key).into_iter();
        Ok(stream.flat_map(move |stream| stream.last(missed, socket_id)))
    }

    /// The last `count` events that are still kept, oldest first.
    pub fn last(&self, key: &str, count: usize, now: Moment) -> impl Iterator<Item = Past<'_>> {
        let count = count.min(self.alive(key, now));
        let stream = self.streams.get(key).into_iter();
        stream.flat_map(move |stream| stream.last(count, None))
    }

    /// Events kept of all channels.
    pub fn len(&self) -> usize {
        self.expiry.len()
    }

    pub fn is_empty(&self) -> bool {
        self.expiry.is_empty()
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Somebody may have missed events of the channel without knowing: no position of before means
    /// anything from now on.
    pub fn forget(&mut self, key: &str) {
        let Some(stream) = self.streams.remove(key) else {
            return;
        };
        self.quiet.remove(&stream.number);
        for kept in &stream.events {
            self.expiry.remove(&kept.expiry);
        }
        self.bytes -= stream.bytes;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The events of the channel whose time is not up.
    fn alive(&self, key: &str, now: Moment) -> usize {
        let events = self.streams.get(key).map(|stream| &stream.events);
        events.map_or(0, |events| {
            events.len() - events.partition_point(|kept| kept.expiry.0 <= now)
        })
    }

    fn rule_of(&self, key: &str) -> Option<usize> {
        if self.rules.is_empty() {
            return None;
        }
        if let Some(stream) = self.streams.get(key) {
            return Some(stream.rule);
        }
        let (app_id, channel) = key.split_once('/')?;
        if user_of(channel).is_some() {
            return None;
        }
        let mut rules = self.rules.iter();
        rules.position(|rule| rule.covers(app_id, channel))
    }

    /// The channel's key, whose stream is there from now on.
    fn begin(&mut self, key: &str, rule: usize) -> Option<ChannelKey> {
        if let Some((key, _)) = self.streams.get_key_value(key) {
            return Some(key.clone());
        }
        let key = ChannelKey::parse(key)?;
        let stream = Stream {
            epoch: self.epoch,
            offset: 0,
            events: VecDeque::new(),
            bytes: 0,
            rule,
            number: self.next_number,
        };
        self.streams.insert(key.clone(), stream);
        Some(key)
    }

    /// Brings one channel within its rule.
    fn trim(&mut self, key: &str) {
        while let Some(stream) = self.streams.get(key) {
            let rule = &self.rules[stream.rule];
            if stream.events.len() <= rule.events && stream.bytes <= rule.bytes {
                return;
            }
            self.drop_oldest(key);
        }
    }

    fn make_room(&mut self, now: Moment) {
        while let Some(((until, _), key)) = self.expiry.first_key_value() {
            let over = self.expiry.len() > self.events_max || self.bytes > self.bytes_max;
            if !over && *until > now {
                break;
            }
            let key = key.clone();
            self.drop_oldest(key.as_str());
        }
        while self.streams.len() > self.channels_max
            && let Some((_, key)) = self.quiet.first_key_value()
        {
            let key = key.clone();
            self.forget(key.as_str());
        }
    }

    /// The first of a channel's events to run out is its oldest.
    fn drop_oldest(&mut self, key: &str) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if let Some(kept) = stream.events.pop_front() {
            stream.bytes -= kept.bytes();
            self.bytes -= kept.bytes();
            self.expiry.remove(&kept.expiry);
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
