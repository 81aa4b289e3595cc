//! Readers of channels with history: each checks what it is told against what every reader may rely on.
//! Shared by the simulations of recovery.

#![allow(dead_code)] // each simulation uses its part

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Epoch and offset.
pub type Position = (String, u64);

/// Somebody with one connection after the other.
#[derive(Default)]
pub struct Reader {
    /// Of a cluster: there may be events without a position, and a new epoch need not begin with 1.
    pub clustered: bool,
    /// At which server of the cluster.
    pub server: usize,
    /// Numbers since the last loss, by channel.
    pub heard: BTreeSet<(String, u64)>,
    pub client: Option<usize>,
    pub seen: usize,
    pub asked: bool,
    /// By channel.
    pub last: BTreeMap<String, Position>,
    pub subscribed: Vec<String>,
    pub recovered: usize,
    pub told_of_loss: usize,
    pub received: usize,
    /// Events without a position.
    pub unplaced: usize,
}

impl Reader {
    pub fn subscription(&self, channel: &str) -> String {
        let mut data = json!({"channel": channel});
        if let Some((epoch, offset)) = self.last.get(channel) {
            data["recover"] = json!({"epoch": epoch, "offset": offset});
        }
        json!({"event": "pusher:subscribe", "data": data}).to_string()
    }

    fn lose(&mut self, channel: &str) {
        self.told_of_loss += 1;
        self.heard.retain(|(of, _)| of != channel);
    }

    fn hear(&mut self, channel: &str, number: u64) {
        let news = self.heard.insert((channel.to_string(), number));
        assert!(news, "{number} came twice in {channel}");
    }

    pub fn take(&mut self, event: &Value, truth: &mut BTreeMap<(String, Position), u64>) {
        let name = event["event"].as_str().expect("a name");
        let channel = event["channel"].as_str().unwrap_or_default().to_string();
        let position = || {
            let epoch = event["epoch"].as_str().expect("an epoch").to_string();
            (epoch, event["offset"].as_u64().expect("an offset"))
        };
        match name {
            "n" => {
                assert!(self.subscribed.contains(&channel), "too early: {event}");
                let number = event["data"]["number"].as_u64().expect("a number");
                if self.clustered && event["epoch"].is_null() {
                    self.unplaced += 1;
                    self.hear(&channel, number);
                    return;
                }
                let (epoch, offset) = position();
                let last = self.last.get(&channel).expect("success told a position");
                if epoch == last.0 {
                    assert_eq!(offset, last.1 + 1, "after {last:?}: {event}");
                } else {
                    // The history began anew, which the epoch tells.
                    assert!(offset == 1 || self.clustered, "after {last:?}: {event}");
                    self.lose(&channel);
                }
                self.hear(&channel, number);
                let place = (channel.clone(), (epoch.clone(), offset));
                let known = *truth.entry(place).or_insert(number);
                assert_eq!(known, number, "one position, two events: {event}");
                self.last.insert(channel, (epoch, offset));
                self.received += 1;
            }
            "pusher_internal:subscription_succeeded" => {
                self.subscribed.push(channel.clone());
                let (epoch, offset) = position();
                if event["recovered"] == true {
                    let last = self.last.get(&channel).expect("it named a position");
                    assert_eq!(last.0, epoch, "{event}");
                    assert!(offset >= last.1, "after {last:?}: {event}");
                    self.recovered += (offset - last.1) as usize;
                } else {
                    if self.last.contains_key(&channel) {
                        self.lose(&channel);
                    }
                    self.last.insert(channel, (epoch, offset));
                }
            }
            "pusher:connection_established" => {}
            // Refused while a new switchboard settles, or let go: it comes back.
            "pusher:error" => {}
            other => panic!("an unexpected event {other}: {event}"),
        }
    }
}
