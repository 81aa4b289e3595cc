//! Events: to whom they go, and when their publisher is answered.
//!
//! Invariant: a publish that was taken is answered once: when the kernel has its events for every
//! link with subscribers and, in a cluster, Redis has answered or will not.

use crate::base::ids::ConnId;
use crate::base::names::is_cache_key;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::wire::bus::{
    Answer, ChannelCounts, Content, Down, Item, Position, Reach, RefusalReason,
};
use crate::wire::courier_bus::Report;

impl Switchboard {
    /// All events of a worker's call, or none.
    pub(super) fn publish(&mut self, conn: ConnId, ticket: u64, items: &[Item<'_>], now: Now) {
        self.publish_for(Asker::Worker(conn), ticket, items, now);
    }

    pub(super) fn publish_for(&mut self, asker: Asker, ticket: u64, items: &[Item<'_>], now: Now) {
        let mut marks: Vec<(ConnId, u64)> = Vec::new();
        let mut counts = Vec::new();
        for item in items {
            let positions = self.remember(item, now);
            if item.info.any() {
                counts.extend(item.channels.iter().enumerate().map(|(index, channel)| {
                    let position = positions.get(index).copied().flatten();
                    (self.registry.counts(channel), position)
                }));
            }
            let part = self.unplaced_part(item);
            self.deliver(&part, &positions, &mut marks, now);
        }
        self.last_publish += 1;
        let number = self.last_publish;
        let told = self.tell_others(items, number, ticket > 0, now);
        // Clients publish without a ticket, and what they say is not kept (Pusher: events that
        // were triggered through the HTTP API only).
        if ticket == 0 {
            return self.report_client_events(items);
        }
        items.iter().for_each(|item| self.keep(item, now));
        let owed = told + self.ask_counts(items, number, now);
        // What goes over the asker's own link stays ahead of the answer by itself.
        marks.retain(|(target, _)| *target != asker.conn());
        let reach = self.reach();
        let publish = Unanswered {
            number,
            asker,
            ticket,
            counts,
            reach,
            refused: None,
            marks,
            // Lost while it was told, Redis does not answer.
            owed: if reach == Reach::Here { 0 } else { owed },
        };
        if publish.is_done() {
            self.answer_publish(&publish, now);
        } else {
            self.unanswered.push_back(publish);
        }
    }

    fn answer_publish(&mut self, publish: &Unanswered, now: Now) {
        if publish.reach == Reach::Here && publish.refused.is_none() {
            self.counters.cluster_local_publishes += 1;
        }
        self.send_frame(publish.asker.conn(), &publish.frame(), now);
    }

    /// Keeps the event for those who subscribe to its cache channels later.
    fn keep(&mut self, item: &Item<'_>, now: Now) {
        let Content::Event { name, data } = item.content else {
            return;
        };
        for key in &item.channels {
            if is_cache_key(key) {
                self.cache.put(key, name, data, now.moment);
            }
        }
    }

    /// Queues an event on every link with subscribers, each channel with the links it needs.
    pub(super) fn deliver(
        &mut self,
        item: &Item<'_>,
        positions: &[Option<Position>],
        marks: &mut Vec<(ConnId, u64)>,
        now: Now,
    ) {
        // Links that take all of the channels get the same, which is encoded once.
        let mut whole: Option<Vec<u8>> = None;
        for (conn, places) in self.targets(item) {
            if places.len() == item.channels.len() {
                let frame = whole.get_or_insert_with(|| part_of(item, positions, &places));
                self.send_frame(conn, frame, now);
            } else {
                self.send_frame(conn, &part_of(item, positions, &places), now);
            }
            let Some(position) = self.lines.outbox(conn).map(|out| out.position()) else {
                continue;
            };
            match marks.iter_mut().find(|(target, _)| *target == conn) {
                Some((_, mark)) => *mark = position,
                None => marks.push((conn, position)),
            }
        }
    }

    /// The links with subscribers, and of which of the event's channels by their place in it.
    fn targets(&self, item: &Item<'_>) -> Vec<(ConnId, Vec<usize>)> {
        let mut targets: Vec<(ConnId, Vec<usize>)> = Vec::new();
        for (place, channel) in item.channels.iter().enumerate() {
            for conn in self.links_of(channel) {
                match targets.iter_mut().find(|(target, _)| *target == conn) {
                    Some((_, places)) => places.push(place),
                    None => targets.push((conn, vec![place])),
                }
            }
        }
        targets
    }

    fn links_of(&self, channel: &str) -> impl Iterator<Item = ConnId> {
        let links = self.registry.interested(channel);
        links.filter_map(|id| self.by_id.get(&id).copied())
    }

    /// Whether some link could not take all events of the call within its bound.
    pub(super) fn has_congested_target(&self, asker: ConnId, items: &[Item<'_>]) -> bool {
        let bytes: usize = items.iter().map(item_bytes).sum();
        let channels = items.iter().flat_map(|item| &item.channels);
        let mut targets = channels.flat_map(|channel| self.links_of(channel));
        let full = |conn| self.lines.waiting(conn) + bytes > self.limits.link_bytes;
        self.unanswered.len() >= self.limits.held_messages
            || self.is_cluster_congested(bytes)
            || full(asker)
            || targets.any(full)
    }

    /// The link is about to be cut by us: its worker lives on, and so do the subscribers whom events
    /// queued there will never reach.
    pub(super) fn refuse_what_is_lost(&mut self, conn: ConnId) {
        for publish in &mut self.unanswered {
            if publish.marks.iter().any(|(target, _)| *target == conn) {
                publish.refused = Some(RefusalReason::Congested);
                publish.marks.clear();
                publish.owed = 0;
            }
        }
    }

    /// Answers the publishes whose events are with the kernel everywhere; whether there were any.
    pub(super) fn answer_what_is_out(&mut self, now: Now) -> bool {
        let waiting = std::mem::take(&mut self.unanswered);
        let (before, mut ready) = (waiting.len(), Vec::new());
        for mut publish in waiting {
            publish.marks.retain(|(conn, mark)| {
                // A link that is gone took its subscribers with it.
                self.lines
                    .outbox(*conn)
                    .is_some_and(|out| out.written() < *mark)
            });
            match publish.is_done() {
                true => ready.push(publish),
                false => self.unanswered.push_back(publish),
            }
        }
        for publish in &ready {
            self.answer_publish(publish, now);
        }
        self.unanswered.len() < before
    }
}

/// Who is answered, in his own words.
#[derive(Clone, Copy)]
pub(super) enum Asker {
    Worker(ConnId),
    Courier(ConnId),
}

impl Asker {
    fn conn(self) -> ConnId {
        match self {
            Asker::Worker(conn) | Asker::Courier(conn) => conn,
        }
    }
}

/// A publish whose events are queued on links that the kernel has not taken them from yet, or about
/// which Redis has not answered.
pub(super) struct Unanswered {
    /// Rises from one to the next.
    pub(super) number: u64,
    asker: Asker,
    ticket: u64,
    pub(super) counts: Vec<(ChannelCounts, Option<Position>)>,
    pub(super) reach: Reach,
    refused: Option<RefusalReason>,
    /// The stream position each link must reach.
    pub(super) marks: Vec<(ConnId, u64)>,
    /// Answers of Redis.
    pub(super) owed: usize,
}

impl Unanswered {
    /// Further stream positions to be reached.
    pub(super) fn add_marks(&mut self, marks: &[(ConnId, u64)]) {
        let asker = self.asker.conn();
        let others = marks.iter().filter(|(conn, _)| *conn != asker);
        self.marks.extend(others);
    }

    fn is_done(&self) -> bool {
        self.marks.is_empty() && self.owed == 0
    }

    fn frame(&self) -> Vec<u8> {
        let (ticket, reach) = (self.ticket, self.reach);
        if let Asker::Courier(_) = self.asker {
            let counts = self.counts.iter().map(|(counts, _)| counts.subscriptions);
            let connections = counts.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            let refused = self.refused.is_some();
            return Report::Reached {
                ticket,
                connections: connections.filter(|_| !refused).collect(),
            }
            .encode();
        }
        let answer = match self.refused {
            Some(reason) => Answer::Refused(reason),
            None => Answer::Published {
                counts: self.counts.clone(),
                reach,
            },
        };
        Down::Answer { ticket, answer }.encode()
    }
}

/// The event as a link is to have it that takes the channels in these places.
fn part_of(item: &Item<'_>, positions: &[Option<Position>], places: &[usize]) -> Vec<u8> {
    let positions = match positions {
        [] => Vec::new(),
        _ => places.iter().map(|place| positions[*place]).collect(),
    };
    let item = Item {
        channels: places.iter().map(|place| item.channels[*place]).collect(),
        info: Default::default(),
        ..item.clone()
    };
    Down::Deliver { item, positions }.encode()
}

/// At least what the event takes on a link.
fn item_bytes(item: &Item<'_>) -> usize {
    let channels: usize = item.channels.iter().map(|channel| channel.len() + 21).sum();
    channels + item.content.len() + item.user_id.map_or(0, str::len) + 64
}
