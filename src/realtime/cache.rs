//! The last event of each cache channel, for those who subscribe later. It does not know who
//! subscribes, nor what an event means.
//!
//! Bounds: so many events, so many bytes, so long; beyond either, the oldest is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::limits::Limits;
use crate::base::names::ChannelKey;
use crate::base::now::Moment;
use crate::wire::bus::Cached;

struct Kept {
    name: Box<str>,
    data: Box<str>,
    number: u64,
    until: Moment,
}

impl Kept {
    fn bytes(&self, key: &ChannelKey) -> usize {
        key.as_str().len() + self.name.len() + self.data.len()
    }
}

/// See the file's head.
pub struct Cache {
    events: HashMap<ChannelKey, Kept, FixedState>,
    /// By the order in which they came, which is nearly that in which they run out.
    order: BTreeMap<u64, ChannelKey>,
    next_number: u64,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    lifetime: Duration,
}

impl Cache {
    pub fn new(limits: &Limits, dice: &mut Dice) -> Cache {
        Cache {
            events: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            order: BTreeMap::new(),
            next_number: 0,
            bytes: 0,
            events_max: limits.cache_events,
            bytes_max: limits.cache_bytes,
            lifetime: Duration::from_secs(limits.cache_seconds),
        }
    }

    /// Keeps an event in place of the one before. Name and data are JSON strings.
    pub fn put(&mut self, key: &str, name: &str, data: &str, now: Moment) {
        self.put_until(key, (name, data), now + self.lifetime, now);
    }

    /// The same for one that was published some time ago and has an end.
    pub fn put_until(&mut self, key: &str, (name, data): (&str, &str), until: Moment, now: Moment) {
        let Some(key) = ChannelKey::parse(key) else {
            return;
        };
        self.forget(&key);
        let kept = Kept {
            name: name.into(),
            data: data.into(),
            number: self.next_number,
            until: until.min(now + self.lifetime),
        };
        self.next_number += 1;
        self.bytes += kept.bytes(&key);
        self.order.insert(kept.number, key.clone());
        self.events.insert(key, kept);
        self.make_room(now);
    }

    /// What is kept of the channel.
    pub fn get(&self, key: &str, now: Moment) -> Option<Cached<'_>> {
        let kept = self.events.get(key).filter(|kept| kept.until > now)?;
        Some(Cached {
            name: &kept.name,
            data: &kept.data,
            ttl_seconds: kept.until.since(now).as_secs(),
        })
    }

    fn make_room(&mut self, now: Moment) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let over = self.events.len() > self.events_max || self.bytes > self.bytes_max;
            if !over && self.events[oldest].until > now {
                return;
            }
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &ChannelKey) {
        if let Some(kept) = self.events.remove(key) {
            self.order.remove(&kept.number);
            self.bytes -= kept.bytes(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_micros(0);

    fn cache(events: usize, bytes: usize) -> Cache {
        let limits = Limits {
            cache_events: events,
            cache_bytes: bytes,
            cache_seconds: 60,
            ..Limits::default()
        };
        Cache::new(&limits, &mut Dice::new([0; 16]))
    }

    fn data<'a>(cache: &'a Cache, key: &str, now: Moment) -> Option<&'a str> {
        cache.get(key, now).map(|cached| cached.data)
    }

    #[test]
    fn the_last_event_counts_until_its_time_is_up() {
        let mut cache = cache(10, 1000);
        cache.put("demo/cache-a", "\"e\"", "1", START);
        let later = START + Duration::from_secs(30);
        cache.put("demo/cache-a", "\"e\"", "2", later);
        let last = cache.get("demo/cache-a", later).expect("it is kept");
        assert_eq!((last.data, last.ttl_seconds), ("2", 60));
        let end = START + Duration::from_secs(90);
        assert_eq!(data(&cache, "demo/cache-a", end), None);
        cache.put("demo/cache-b", "\"e\"", "3", end);
        assert_eq!(cache.events.len(), 1, "what has run out takes no room");
    }

    #[test]
    fn when_it_is_full_the_oldest_is_forgotten() {
        let mut few = cache(2, 1000);
        for (key, text) in [("d/cache-a", "1"), ("d/cache-b", "2"), ("d/cache-a", "3")] {
            few.put(key, "\"e\"", text, START);
        }
        few.put("d/cache-c", "\"e\"", "4", START);
        assert_eq!(data(&few, "d/cache-b", START), None);
        assert_eq!(data(&few, "d/cache-a", START), Some("3"));

        let mut small = cache(10, 40);
        small.put("d/cache-a", "\"e\"", &"x".repeat(20), START);
        small.put("d/cache-b", "\"e\"", "1", START);
        assert_eq!(data(&small, "d/cache-a", START), None);
        assert_eq!(data(&small, "d/cache-b", START), Some("1"));
        small.put("d/cache-c", "\"e\"", &"x".repeat(100), START);
        assert_eq!((small.bytes, small.order.len()), (0, 0), "it never fits");
    }
}
