//! News for webhooks as rows (`push/news`). Knows the tables of `schema/0004.sql`. Invariants: what is
//! wanted is noted in the transaction that makes it so, and what is not wanted costs nothing; news are
//! in the hands of one courier at a time.

use crate::push::devices::device::{Device, State};
use crate::push::news::{KINDS, News, NewsJob, NewsOutcome, PAGE};
use crate::push::webhook::Kind;
use crate::store::rows::{Result, Row, Rows, Value, damaged, values};

/// Does a job in a transaction.
pub fn run(on: &dyn Rows, job: &NewsJob) -> Result<NewsOutcome> {
    match job {
        NewsJob::Want { courier, wanted } => {
            // Others may say the same at the same time.
            on.take_turn("news")?;
            on.execute("DELETE FROM news_wanted", &[])?;
            let rows = wanted.iter();
            let rows = rows.map(|(app_id, kind)| values![app_id, kind.word()].to_vec());
            let sql = "INSERT INTO news_wanted (app_id, kind) VALUES (?, ?)";
            on.execute_each(sql, &rows.collect::<Vec<_>>())?;
            let sql = "UPDATE news SET claimed_until = 0, claimed_by = NULL WHERE claimed_by = ?";
            on.execute(sql, &values![courier])?;
            Ok(NewsOutcome::Done)
        }
        NewsJob::Take {
            courier,
            now_ms,
            until_ms,
        } => take(on, courier, *now_ms, *until_ms),
        NewsJob::Forget { ids } => {
            let sql = format!("DELETE FROM news WHERE id {}", on.among(1));
            on.execute(&sql, &[list(ids)])?;
            Ok(NewsOutcome::Done)
        }
    }
}

fn list(ids: &[u64]) -> Value {
    Value::Ints(ids.iter().map(|id| *id as i64).collect())
}

fn take(on: &dyn Rows, courier: &str, now_ms: u64, until_ms: u64) -> Result<NewsOutcome> {
    let sql = format!(
        "UPDATE news SET claimed_by = ?1, claimed_until = ?2 WHERE id IN \
         (SELECT id FROM news WHERE claimed_until <= ?3 ORDER BY id LIMIT ?4{}) \
         RETURNING id, app_id, kind, notification, device_id, user_id, reason",
        on.free("")
    );
    let found = on.query(&sql, &values![courier, until_ms, now_ms, PAGE])?;
    let mut news = found.iter().map(read).collect::<Result<Vec<News>>>()?;
    news.sort_unstable_by_key(|it| it.id);
    Ok(NewsOutcome::Taken(news))
}

fn read(row: &Row) -> Result<News> {
    let word: String = row.get(2)?;
    let kind = KINDS.into_iter().find(|kind| kind.word() == word);
    Ok(News {
        id: row.get(0)?,
        app_id: row.get(1)?,
        kind: kind.ok_or_else(|| damaged("kind"))?,
        notification: row.get(3)?,
        device_id: row.get(4)?,
        user_id: row.get(5)?,
        reason: row.get(6)?,
    })
}

/// These deliveries are settled, each since this transaction.
pub fn note_settled(on: &dyn Rows, ids: &[u64]) -> Result<()> {
    // From those who want it, of whom there are few, and mostly none.
    let sql = format!(
        "INSERT INTO news (app_id, kind, notification, device_id, user_id, reason) \
         SELECT v.app_id, w.kind, v.notification, d.device_id, v.user_id, v.reason \
         FROM news_wanted w CROSS JOIN deliveries v \
         LEFT JOIN device_registrations d ON d.id = v.device \
         WHERE v.id {} AND v.app_id = w.app_id AND w.kind = CASE \
         WHEN v.state = 'accepted' THEN 'notification_delivered' \
         WHEN v.state IN ('failed', 'expired') THEN 'notification_failed' END ORDER BY v.id",
        on.among(1)
    );
    on.execute(&sql, &[list(ids)]).map(|_| ())
}

/// A device gets nothing any more, since this transaction.
pub fn note_retired(on: &dyn Rows, device: &Device) -> Result<()> {
    let State::Inactive { why, .. } = device.state else {
        return Ok(());
    };
    let sql = "INSERT INTO news (app_id, kind, device_id, user_id, reason) \
               SELECT app_id, kind, ?1, ?2, ?3 FROM news_wanted WHERE app_id = ?4 AND kind = ?5";
    let user_id = device.profile.user_id.as_ref();
    let kind = Kind::DeviceRemoved.word();
    let values = values![&device.device_id, user_id, why.word(), &device.app_id, kind];
    on.execute(sql, &values).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::now::Now;
    use crate::push::delivery::kit::{device, vault};
    use crate::push::devices::device::Retired;
    use crate::store::devices;
    use crate::store::kit::{Base, everywhere};

    fn want(on: &Base, kinds: &[(&str, Kind)]) {
        let wanted = kinds.iter().map(|(app, kind)| (app.to_string(), *kind));
        let job = NewsJob::Want {
            courier: "one".into(),
            wanted: wanted.collect::<BTreeSet<_>>(),
        };
        assert_eq!(run(on, &job).expect("it is done"), NewsOutcome::Done);
    }

    fn take(on: &Base, courier: &str, now_ms: u64) -> Vec<News> {
        let job = NewsJob::Take {
            courier: courier.into(),
            now_ms,
            until_ms: now_ms + 10,
        };
        match run(on, &job).expect("it is done") {
            NewsOutcome::Taken(news) => news,
            other => panic!("{other:?}"),
        }
    }

    fn told(news: &[News]) -> Vec<String> {
        let events = news.iter().map(|it| it.event().json("c"));
        events.collect()
    }

    fn with_deliveries(on: &Base, states: &[&str]) -> Vec<u64> {
        let vault = vault();
        let (id, print) = vault.keys().next().expect("a key");
        devices::put_key(on, id, print, 1).expect("a key");
        let mut his = device("d", "00ff");
        his.app_id = "a".into();
        his.profile.user_id = Some("u".into());
        devices::put(on, &his).expect("a device");
        on.write(
            "INSERT INTO notifications (id, app_id, sender, spec, is_reach, created_at, send_at, \
             priority, state) VALUES ('n', 'a', 'k', '{}', ?, 1, 1, 1, 'open')",
            &values![false],
        );
        for (id, state) in (1_u64..).zip(states) {
            let (device, address) = match id {
                1 => (Some(his.id.clone()), None),
                _ => (None, Some("{}".to_string())),
            };
            on.write(
                "INSERT INTO deliveries (id, notification, app_id, user_id, device, address, way, \
                 state, due_at, priority, reason) \
                 VALUES (?, 'n', 'a', 'u', ?, ?, 'apns', ?, 1, 1, 'why')",
                &values![id, device, address, *state],
            );
        }
        (1..=states.len() as u64).collect()
    }

    #[test]
    fn what_is_wanted_is_noted_and_nothing_else() {
        everywhere(|on| {
            let ids = with_deliveries(&on, &["accepted", "failed", "expired", "cancelled"]);
            note_settled(&on, &ids).expect("nobody wants it");
            assert_eq!(take(&on, "one", 1), []);
            want(
                &on,
                &[("a", Kind::NotificationFailed), ("b", Kind::DeviceRemoved)],
            );
            note_settled(&on, &ids).expect("it is noted");
            let failed = |name: &str| {
                format!(
                    "{{\"name\":\"{name}\",\"channel\":\"c\",\"notification_id\":\"n\",\
                     \"user_id\":\"u\",\"reason\":\"why\"}}"
                )
            };
            let both = vec![failed("notification_failed"); 2];
            assert_eq!(told(&take(&on, "one", 1)), both);
            want(&on, &[("a", Kind::NotificationDelivered)]);
            note_settled(&on, &ids).expect("it is noted");
            let news = take(&on, "one", 20);
            assert_eq!(news.len(), 3, "those taken before are free again");
            assert_eq!(news[2].device_id.as_deref(), Some("d"));
            assert_eq!(news[2].kind, Kind::NotificationDelivered);
        });
    }

    #[test]
    fn news_are_in_one_hand_until_they_are_forgotten() {
        everywhere(|on| {
            let ids = with_deliveries(&on, &["accepted", "accepted"]);
            want(&on, &[("a", Kind::NotificationDelivered)]);
            note_settled(&on, &ids).expect("it is noted");
            let first = take(&on, "one", 100);
            assert_eq!(first.len(), 2);
            assert_eq!(take(&on, "two", 109), [], "they are in hand");
            assert_eq!(take(&on, "two", 110), first, "the lease is over");
            let forget = NewsJob::Forget {
                ids: vec![first[0].id],
            };
            assert_eq!(run(&on, &forget).expect("it is done"), NewsOutcome::Done);
            assert_eq!(take(&on, "one", 200), first[1..]);
            want(&on, &[]);
            assert_eq!(
                take(&on, "two", 201),
                first[1..],
                "a courier that returns lets go"
            );
        });
    }

    #[test]
    fn a_device_that_is_removed_is_told_with_its_reason() {
        everywhere(|on| {
            want(&on, &[("a", Kind::DeviceRemoved)]);
            let mut device = device("d", "00ff");
            device.app_id = "a".into();
            note_retired(&on, &device).expect("it is active");
            device.retire(Retired::Gone, Now::default());
            note_retired(&on, &device).expect("it is noted");
            let gone = "{\"name\":\"device_removed\",\"channel\":\"c\",\"device_id\":\"d\",\"reason\":\"gone\"}";
            assert_eq!(told(&take(&on, "one", 1)), [gone]);
        });
    }
}
