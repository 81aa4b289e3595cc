//! What callers are told of notifications, as JSON.

use serde_json::{Value, json};

use crate::push::notify::jobs::{Shown, Standing, Summary, Whom};

/// With more users and channels than this, only sums are told.
const NAMED_MAX: usize = 100;

/// What has come of a notification when its call is answered.
pub(super) fn accepted(id: &str, state: &str, standings: &[(Whom, Standing)]) -> String {
    let mut answer = json!({"id": id, "state": state});
    let users = standings
        .iter()
        .filter(|(whom, _)| matches!(whom, Whom::User(_)));
    let users: Vec<&Standing> = users.map(|(_, standing)| standing).collect();
    if !users.is_empty() {
        let many = |fits: fn(&Standing) -> bool| users.iter().filter(|it| fits(it)).count();
        answer["totals"] = json!({
            "live": many(|it| it.live.is_some_and(|live| live > 0)),
            "push": users.iter().map(|it| it.queued).sum::<u32>(),
            "held": users.iter().map(|it| it.held).sum::<u32>(),
            "nobody": many(|it| it.live.unwrap_or(0) == 0 && it.queued + it.held == 0),
        });
    }
    if !standings.is_empty() && standings.len() <= NAMED_MAX {
        let rows = |is_user: bool| -> Vec<Value> {
            let rows = standings.iter().filter_map(|(whom, it)| match whom {
                Whom::User(id) if is_user => Some(json!({
                    "user_id": id, "live": it.live, "push": it.queued, "held": it.held,
                })),
                Whom::Channel(name) if !is_user => Some(json!({"channel": name, "live": it.live})),
                _ => None,
            });
            rows.collect()
        };
        for (name, rows) in [("users", rows(true)), ("channels", rows(false))] {
            if !rows.is_empty() {
                answer[name] = rows.into();
            }
        }
    }
    answer.to_string()
}

/// Of a notification that was accepted before, by a call of which nobody knows the answer.
pub(super) fn known(id: &str) -> String {
    json!({"id": id}).to_string()
}

pub(super) fn listed(rows: &[Summary]) -> String {
    json!({"notifications": rows}).to_string()
}

/// All that is known, and the same as a story: what happened, in its order.
pub(super) fn shown(shown: &Shown) -> String {
    let mut answer = json!(shown);
    let mut told: Vec<(u64, Value)> = vec![(
        shown.summary.created_at_ms,
        json!({"event": "accepted", "by": shown.summary.sender}),
    )];
    for reach in &shown.reaches {
        let mut tell = |at: Option<u64>, event: &str| {
            if let Some(at) = at {
                let mut entry = json!({"event": event});
                match (&reach.user_id, &reach.channel) {
                    (Some(user), _) => entry["user_id"] = user.clone().into(),
                    (None, channel) => entry["channel"] = channel.clone().into(),
                }
                if event == "live" {
                    entry["connections"] = reach.connections.into();
                }
                told.push((at, entry));
            }
        };
        tell(reach.live_at_ms, "live");
        tell(reach.acknowledged_at_ms, "acknowledged");
        tell(reach.pushed_at_ms, "push");
    }
    for delivery in &shown.deliveries {
        for attempt in &delivery.failed_attempts {
            let mut entry = json!(attempt);
            entry["event"] = "attempt failed".into();
            entry["number"] = delivery.number.into();
            entry["device_id"] = json!(delivery.device_id);
            told.push((attempt.at_ms, entry));
        }
        if let Some(at) = delivery.settled_at_ms {
            let mut entry = json!(delivery);
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("failed_attempts");
            }
            entry["event"] = format!("delivery {}", delivery.state).into();
            told.push((at, entry));
        }
    }
    if let Some(at) = shown.summary.settled_at_ms {
        told.push((at, json!({"event": shown.summary.state})));
    }
    told.sort_by_key(|(at, _)| *at);
    let told = told.into_iter().map(|(at, mut entry)| {
        entry["at_ms"] = at.into();
        entry
    });
    answer["timeline"] = told.collect::<Vec<Value>>().into();
    answer.to_string()
}
