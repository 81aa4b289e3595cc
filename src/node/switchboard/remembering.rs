//! What the switchboard does with history: it gives events their positions, tells those who come back
//! what they missed, and answers questions about the past. What is kept is `realtime/history`'s to
//! say; here is how much of it goes into one message.

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::wire::bus::{Answer, Beginning, Item, Past, Position, Recover};

impl Switchboard {
    /// Keeps an event in those of its channels that have history: its positions there, or nothing
    /// when none has.
    pub(super) fn remember(&mut self, item: &Item<'_>, now: Now) -> Vec<Option<Position>> {
        let history = &mut self.history;
        if !history.has_rules() {
            return Vec::new();
        }
        let channels = item.channels.iter();
        let positions = channels.map(|channel| history.append(channel, item, now.moment));
        let positions: Vec<_> = positions.collect();
        match positions.iter().all(Option::is_none) {
            true => Vec::new(),
            false => positions,
        }
    }

    /// Where a new subscriber begins. What it missed is told whole or not at all.
    pub(super) fn beginning(
        &self,
        conn: ConnId,
        channel: &str,
        recover: Option<Recover>,
        now: Now,
    ) -> Option<Beginning<'_>> {
        let position = self.history.position(channel)?;
        let missed = recover.and_then(|recover| self.missed(conn, channel, recover, now));
        Some(Beginning { position, missed })
    }

    fn missed(
        &self,
        conn: ConnId,
        channel: &str,
        recover: Recover,
        now: Now,
    ) -> Option<Vec<Past<'_>>> {
        let events = self.history.since(channel, recover, now.moment).ok()?;
        // A crowd that comes back at once shares the link with the events.
        let free = (self.limits.link_bytes).saturating_sub(self.lines.waiting(conn));
        let room = self.limits.recover_bytes.min(free);
        let mut bytes = 0;
        let mut missed = Vec::new();
        for event in events {
            bytes += event.bytes();
            if bytes > room || missed.len() == self.limits.recover_events {
                return None;
            }
            missed.push(event);
        }
        Some(missed)
    }

    /// A page of a channel's past, as long as may be.
    pub(super) fn past(
        &self,
        channel: &str,
        after: Option<Position>,
        count: usize,
        now: Now,
    ) -> Answer<'_> {
        let position = self.history.position(channel);
        // One event at least: who reads page after page has to get on.
        let mut bytes = 0;
        let mut fits = |event: &Past<'_>| {
            let is_first = bytes == 0;
            bytes += event.bytes();
            is_first || bytes <= self.limits.recover_bytes
        };
        let events = match after {
            None => {
                let last: Vec<_> = self.history.last(channel, count, now.moment).collect();
                let events = last.iter().rev().take_while(|it| fits(it)).count();
                Some(last[last.len() - events..].to_vec())
            }
            Some(position) => {
                let socket_id = None;
                let recover = Recover {
                    position,
                    socket_id,
                };
                let events = self.history.since(channel, recover, now.moment).ok();
                events.map(|it| it.take(count).take_while(fits).collect())
            }
        };
        Answer::History { position, events }
    }
}
