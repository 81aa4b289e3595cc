//! The histories of the model of Redis: what the scripts about them do (docs/cluster.md).

use std::collections::VecDeque;

use super::redis::{Redis, bulk, int, list};

/// Of one channel.
#[derive(Default)]
pub struct History {
    epoch: String,
    offset: u64,
    /// When, in milliseconds, and the message.
    events: VecDeque<(u128, Vec<u8>)>,
}

impl Redis {
    pub(super) fn turn(&mut self, key: &str, epoch: &str, next: &str) {
        let history = self.histories.get_mut(key);
        if let Some(history) = history.filter(|it| it.epoch == epoch) {
            history.epoch = next.to_string();
        }
    }

    pub(super) fn history(&mut self, key: &str, epoch: &str) -> &mut History {
        let history = self.histories.entry(key.to_string()).or_default();
        if history.epoch.is_empty() {
            history.epoch = epoch.to_string();
        }
        history
    }

    /// The event's position as it is answered, and the message with it.
    pub(super) fn place(
        &mut self,
        key: &str,
        rule: &[u8],
        arguments: &[&[u8]],
    ) -> (String, Vec<u8>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let (message, number, epoch) = (arguments[1], text(arguments[2]), text(arguments[3]));
        let rule: Vec<u128> = text(rule)
            .split(' ')
            .map(|it| it.parse().expect("a number"))
            .collect();
        let now = u128::from(self.now.as_micros() / 1000);
        let history = self.history(key, &epoch);
        history.offset += 1;
        let position = format!("{}{:016x}", history.epoch, history.offset);
        let place = format!("P{}{position}{number}", text(&message[1..26]));
        let placed = [place.as_bytes(), &message[26..]].concat();
        history.events.push_back((now, placed.clone()));
        let is_over = |history: &History| {
            let bytes: usize = history.events.iter().map(|(_, event)| event.len()).sum();
            let old = history
                .events
                .front()
                .is_some_and(|(at, _)| at + rule[1] <= now);
            old || history.events.len() as u128 > rule[0] || bytes as u128 > rule[2]
        };
        while history.events.len() > 1 && is_over(history) {
            history.events.pop_front();
        }
        (position, placed)
    }

    /// The last four parts of a look.
    pub(super) fn past(&mut self, key: &str, epoch: &str) -> [Vec<u8>; 4] {
        let now = self.now.as_micros() / 1000;
        let history = self.history(key, epoch);
        let events = history.events.iter();
        let events =
            events.map(|(at, event)| list(&[bulk(at.to_string().as_bytes()), bulk(event)]));
        [
            bulk(history.epoch.as_bytes()),
            int(history.offset as i64),
            bulk(now.to_string().as_bytes()),
            list(&events.collect::<Vec<_>>()),
        ]
    }
}
