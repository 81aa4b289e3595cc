//! Which events were published and who has heard them: the book that says
//! whether a fan-out was complete, in order and without repeats.
//!
//! Invariant: an event stays in its lane until every subscriber of the channel
//! has heard it, and a subscriber's next expected number in a lane only grows
//! by one.

use std::collections::VecDeque;
use std::time::Instant;

use crate::Fallible;
use crate::opening::Channels;
use crate::pusher::{self, excerpt};

/// `pppp.cccccc.ssssssss`: publisher, channel and number in hexadecimal.
const STAMP: usize = 20;

struct Pending {
    since: Instant,
    missing: usize,
    /// The first copy that was heard, parsed and found right.
    text: Vec<u8>,
}

/// The events of one publisher on one channel.
#[derive(Default)]
struct Lane {
    next: u32,
    /// Number of the first pending event.
    first: u32,
    pending: VecDeque<Pending>,
}

pub struct Ledger {
    channels: Channels,
    publishers: usize,
    lanes: Vec<Lane>,
    /// Per subscriber and publisher, the number that has to come next.
    expected: Vec<u32>,
    audience: Vec<usize>,
    /// Name of every event.
    event: &'static str,
    filler: String,
    unsettled: usize,
    /// Where the stamp lay in the last parsed text.
    stamp_at: usize,
}

impl Ledger {
    pub fn new(
        (channels, event): (Channels, &'static str),
        subscribers: usize,
        publishers: usize,
        bytes: usize,
    ) -> Fallible<Ledger> {
        let length = bytes
            .checked_sub(STAMP)
            .ok_or("an event has at least 20 bytes of data")?;
        let mut audience = vec![0; channels.count];
        (0..subscribers).for_each(|index| audience[channels.of_subscriber(index)] += 1);
        let mut lanes = Vec::new();
        lanes.resize_with(publishers * channels.count, Lane::default);
        Ok(Ledger {
            lanes,
            expected: vec![0; subscribers * publishers],
            audience,
            event,
            filler: "x".repeat(length),
            unsettled: 0,
            stamp_at: 0,
            channels,
            publishers,
        })
    }

    /// Enters an event that is about to be published; gives its data.
    pub fn enter(&mut self, publisher: usize, channel: usize, since: Instant) -> String {
        let missing = self.audience[channel];
        let lane = &mut self.lanes[publisher * self.channels.count + channel];
        let data = format!(
            "{publisher:04x}.{channel:06x}.{:08x}{}",
            lane.next, self.filler
        );
        lane.next += 1;
        lane.pending.push_back(Pending {
            since,
            missing,
            text: Vec::new(),
        });
        self.unsettled += 1;
        data
    }

    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether `payload` looks like an event of this run, cheaply.
    pub fn is_event(&self, payload: &[u8]) -> bool {
        read_stamp(payload, self.stamp_at).is_some()
    }

    /// Checks one delivery; gives the time the event was published if this was
    /// the last subscriber to hear it.
    pub fn deliver(&mut self, subscriber: usize, payload: &[u8]) -> Fallible<Option<Instant>> {
        let (publisher, channel, number) = match read_stamp(payload, self.stamp_at) {
            Some(stamp) => stamp,
            None => self.find_stamp(payload)?,
        };
        let own = self.channels.of_subscriber(subscriber);
        if publisher >= self.publishers || channel != own {
            let text = excerpt(payload);
            return Err(format!("an event that does not belong to channel {own}: {text}").into());
        }
        let expected = &mut self.expected[subscriber * self.publishers + publisher];
        if number != *expected {
            let what = if number < *expected {
                "repeated"
            } else {
                "lost or out of order"
            };
            return Err(format!(
                "{what}: expected event {expected}, got {}",
                excerpt(payload)
            )
            .into());
        }
        *expected += 1;
        let lane = &mut self.lanes[publisher * self.channels.count + channel];
        let place = number.wrapping_sub(lane.first) as usize;
        let pending = lane
            .pending
            .get_mut(place)
            .ok_or("an event that was never published")?;
        if pending.text != payload {
            let stamp = format!("{publisher:04x}.{channel:06x}.{number:08x}");
            let data = stamp + &self.filler;
            let channel = self.channels.name(channel);
            pusher::check_event(payload, self.event, &channel, &data)?;
            pending.text.clear();
            pending.text.extend_from_slice(payload);
        }
        pending.missing -= 1;
        if pending.missing > 0 {
            return Ok(None);
        }
        let since = pending.since;
        self.unsettled -= 1;
        while lane
            .pending
            .front()
            .is_some_and(|pending| pending.missing == 0)
        {
            lane.pending.pop_front();
            lane.first += 1;
        }
        Ok(Some(since))
    }

    pub fn describe_stall(&self) -> String {
        let missing: usize = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.pending)
            .map(|pending| pending.missing)
            .sum();
        let events = self.unsettled;
        format!(
            "no delivery for too long: {events} events are still to reach {missing} subscribers"
        )
    }

    /// The stamp of a text that is not laid out like the one before.
    fn find_stamp(&mut self, payload: &[u8]) -> Fallible<(usize, usize, u32)> {
        let last = payload.len().saturating_sub(STAMP);
        let at = (0..=last).find(|at| read_stamp(payload, *at).is_some());
        let at = at.ok_or_else(|| format!("not an event of this run: {}", excerpt(payload)))?;
        self.stamp_at = at;
        read_stamp(payload, at).ok_or_else(|| "no stamp".into())
    }
}

fn read_stamp(payload: &[u8], at: usize) -> Option<(usize, usize, u32)> {
    let stamp = payload.get(at..at + STAMP)?;
    if stamp[4] != b'.' || stamp[11] != b'.' {
        return None;
    }
    let publisher = hexadecimal(&stamp[..4])?;
    let channel = hexadecimal(&stamp[5..11])?;
    Some((
        publisher as usize,
        channel as usize,
        hexadecimal(&stamp[12..])?,
    ))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}
