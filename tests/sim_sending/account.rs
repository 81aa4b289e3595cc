//! What the store says in the end, against what the provider has seen.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Life;

/// What is written is there after so long.
const NET_MS: u64 = 30_000;
/// In a queue, and on its way.
const IN_HAND_MS: u64 = 80_000;

/// Of one life or of all.
#[derive(Debug, Default)]
pub struct Sums {
    pub accepted: usize,
    pub others: usize,
    pub uncertain: usize,
    pub twice: usize,
}

impl Life {
    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let store = self.store.connection();
        let mut statement = store.prepare(sql).expect("a statement");
        let columns = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| {
            let cells = (0..columns).map(|at| {
                let value: rusqlite::types::Value = row.get(at)?;
                Ok(match value {
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    _ => String::new(),
                })
            });
            cells.collect()
        };
        let rows = statement.query_map([], read).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }

    /// Whether nothing is to be done any more.
    pub fn is_done(&self) -> bool {
        let open =
            "SELECT 1 FROM notifications WHERE state IN ('scheduled', 'expanding', 'open') LIMIT 1";
        self.servers.iter().all(|it| it.under_way.is_none()) && self.rows(open).is_empty()
    }

    /// Who has just begun has nothing in hand: what its former lives had waits for no lease.
    pub fn check_begun(&self, index: usize) {
        let name = &self.servers[index].name;
        let held = format!("SELECT id FROM deliveries WHERE claimed_by = '{name}'");
        assert_eq!(self.rows(&held), [[""; 0]; 0], "{name} has begun");
    }

    /// Everything is settled, and what the store says agrees with what the provider has seen.
    pub fn check(&self) -> Sums {
        let mut sums = Sums::default();
        self.check_states();
        let seen = self.seen();
        let deliveries = self.rows(
            "SELECT v.state, v.uncertain, d.device_id, v.notification, n.spec, v.reason, n.expires_at \
             FROM deliveries v JOIN notifications n ON n.id = v.notification \
             JOIN device_registrations d ON d.id = v.device",
        );
        for row in deliveries {
            let [
                state,
                uncertain,
                device,
                notification,
                spec,
                reason,
                expires,
            ] = &row[..]
            else {
                panic!("seven columns");
            };
            let uncertain: usize = uncertain.parse().expect("a number");
            let read: Value = serde_json::from_str(spec).expect("JSON");
            let call = read["note"]["data"]["call"].to_string();
            let arrived = seen.get(&(call, device.clone()));
            let (times, last_ms) = arrived.copied().unwrap_or_default();
            let what = format!(
                "{device} of {notification} is {state} ({reason}), {uncertain} uncertain, and arrived {times} times"
            );
            let expires = expires.parse().map_or(u64::MAX, |at: u64| at + NET_MS);
            assert!(last_ms <= expires, "{what}, after it had expired");
            let cancelled = self.cancelled.get(notification);
            let cancelled = cancelled.map_or(u64::MAX, |at| at + NET_MS + IN_HAND_MS);
            assert!(last_ms <= cancelled, "{what}, long after it was cancelled");
            match state.as_str() {
                "accepted" => {
                    assert!((1..=1 + uncertain).contains(&times), "{what}");
                    sums.accepted += 1;
                }
                "failed" | "expired" | "cancelled" => {
                    assert!(times <= uncertain, "{what}");
                    sums.others += 1;
                }
                _ => panic!("{what}"),
            }
            if spec.contains(r#""on_unknown":"fail""#) {
                assert!(times <= 1, "{what}, and must not arrive twice");
            }
            // Who cancels while the store was out of reach for long cannot know what was in hand.
            let is_doubted = (uncertain > 0 && state != "cancelled") || times > 1;
            assert!(!(self.is_clear && is_doubted), "{what}");
            sums.twice += usize::from(times > 1);
            sums.uncertain += uncertain;
        }
        sums
    }

    /// Every notification that was accepted has come to an end.
    fn check_states(&self) {
        for id in &self.accepted {
            let found = self.rows(&format!(
                "SELECT state FROM notifications WHERE id = '{id}'"
            ));
            assert_eq!(found.len(), 1, "{id} was accepted, and is not there");
            let state = found[0][0].as_str();
            assert!(
                matches!(state, "done" | "cancelled" | "expired"),
                "{id} is {state}"
            );
        }
    }

    /// How often the provider has taken something, and when the last time, by the call for it and the
    /// device.
    fn seen(&self) -> BTreeMap<(String, String), (usize, u64)> {
        let mut seen = BTreeMap::new();
        for line in self.told.lock().expect("nobody died").iter() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if line["answer"]["status"] != 200 {
                continue;
            }
            let token = line["token"].as_str().expect("a token");
            let nth: u64 = token[..2].parse().expect("a number");
            let call = line["payload"]["call"].to_string();
            let (times, last_ms): &mut (usize, u64) =
                seen.entry((call, format!("d{nth}"))).or_default();
            *times += 1;
            *last_ms = line["at"].as_u64().expect("a time");
        }
        seen
    }
}
