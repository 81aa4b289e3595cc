//! What a client was told, checked as it comes: an event once and not before success, members who
//! come and go in turns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Default)]
pub struct View {
    pub succeeded: BTreeSet<String>,
    /// Channel to the numbers received, in order.
    pub received: BTreeMap<String, Vec<u64>>,
    pub present: BTreeSet<String>,
}

impl View {
    /// One event of a channel that the client has not left.
    pub fn take(&mut self, event: &Value) {
        let channel = event["channel"].as_str().unwrap_or("").to_owned();
        let data = &event["data"];
        match event["event"].as_str().expect("every event has a name") {
            "pusher:connection_established" => {}
            "pusher_internal:subscription_succeeded" => {
                assert!(self.succeeded.insert(channel), "success came twice");
                if let Some(ids) = data["presence"]["ids"].as_array() {
                    self.present = ids
                        .iter()
                        .map(|id| id.as_str().expect("text").to_owned())
                        .collect();
                }
            }
            "pusher_internal:member_added" => {
                let user = data["user_id"].as_str().expect("text").to_owned();
                assert!(self.succeeded.contains(&channel), "a member before success");
                assert!(self.present.insert(user), "a member was added twice");
            }
            "pusher_internal:member_removed" => {
                let user = data["user_id"].as_str().expect("text");
                assert!(self.present.remove(user), "a member left who was not there");
            }
            "n" => {
                assert!(self.succeeded.contains(&channel), "an event before success");
                let number = data["number"].as_u64().expect("a number");
                let received = self.received.entry(channel).or_default();
                assert!(!received.contains(&number), "event {number} came twice");
                received.push(number);
            }
            // Lines and frames have no Close frame: a client that is to reconnect is told so.
            "pusher:error" => assert_eq!(data["code"], 4200, "{event}"),
            other => panic!("an unexpected event {other}: {event}"),
        }
    }
}
