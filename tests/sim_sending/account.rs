//! What the store says in the end, against what the provider has seen.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Life;

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
        self.under_way.is_none() && self.rows(open).is_empty()
    }

    /// Everything is settled, and what the store says agrees with what the provider has seen.
    pub fn check(&self) -> Sums {
        let mut sums = Sums::default();
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
        let seen = self.seen();
        let deliveries = self.rows(
            "SELECT v.state, v.uncertain, d.device_id, v.notification, n.spec, v.reason \
             FROM deliveries v JOIN notifications n ON n.id = v.notification \
             JOIN device_registrations d ON d.id = v.device",
        );
        for row in deliveries {
            let [state, uncertain, device, notification, spec, reason] = &row[..] else {
                panic!("six columns");
            };
            let uncertain: usize = uncertain.parse().expect("a number");
            let read: Value = serde_json::from_str(spec).expect("JSON");
            let call = read["note"]["data"]["call"].to_string();
            let times = seen.get(&(call, device.clone()));
            let times = times.copied().unwrap_or_default();
            let what = format!(
                "{device} of {notification} is {state} ({reason}), {uncertain} uncertain, and arrived {times} times"
            );
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

    /// How often the provider has taken something, by the call for it and the device.
    fn seen(&self) -> BTreeMap<(String, String), usize> {
        let mut seen = BTreeMap::new();
        for line in self.told.lock().expect("nobody died").iter() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if line["answer"]["status"] != 200 {
                continue;
            }
            let token = line["token"].as_str().expect("a token");
            let nth: u64 = token[..2].parse().expect("a number");
            let call = line["payload"]["call"].to_string();
            *seen.entry((call, format!("d{nth}"))).or_default() += 1;
        }
        seen
    }
}
