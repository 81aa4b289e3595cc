//! Notifications in every store: whatever order things happen in, a user who
//! acknowledged in time gets nothing, and one whom nobody reached does.

use std::sync::Arc;

use super::*;
use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::devices::device::{Device, Retired};
use crate::push::devices::registration::{DeviceBounds, Registration};
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::{Binding, TokenVault};
use crate::push::jobs::{Job, Outcome};
use crate::store::devices;
use crate::store::kit::{Base, everywhere};

const APP: &str = "app";
const START: u64 = 1_800_000_000_000;

struct Play {
    file: Base,
    vault: TokenVault,
    dice: Dice,
    now: Now,
    last: u32,
}

impl Play {
    fn new(file: Base) -> Play {
        let text = data_encoding::BASE64.encode(b"a key of two and thirty bytes ..");
        let key = TokenKey::parse(KeyId::parse("k").expect("an id"), &text).expect("a key");
        let mut dice = Dice::new([7; 16]);
        let vault = TokenVault::new(key, Vec::new(), Binding::Row, &mut dice).expect("a vault");
        for (id, print) in vault.keys() {
            devices::put_key(&file, id, print, START).expect("a key");
        }
        let now = Now {
            unix_ms: START,
            ..Now::default()
        };
        Play {
            file,
            vault,
            dice,
            now,
            last: 0,
        }
    }

    fn device(&mut self, name: &str, platform: &str, rest: &str) -> Device {
        let token = match platform {
            "ios" => format!("{:064x}", self.dice.next_u128()),
            _ => format!("token-of-{name}"),
        };
        let json =
            format!(r#"{{"device_id":"{name}","platform":"{platform}","token":"{token}"{rest}}}"#);
        let read = Registration::read(&json, &DeviceBounds::default(), self.now);
        let read = read.expect("a registration");
        let device = Device::new(APP, read, &self.vault, &mut self.dice, self.now);
        devices::put(&self.file, &device).expect("it is put");
        device
    }

    /// A device of a user; both have one name.
    fn user(&mut self, name: &str) -> Device {
        self.device(name, "android", &format!(r#","user_id":"{name}""#))
    }

    fn run(&self, job: NotifyJob) -> NotifyOutcome {
        match self.file.commit(&[Job::Notify(job)]).remove(0) {
            Outcome::Notify(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn new_with(&mut self, spec: &str, rest: impl FnOnce(&mut New)) -> New {
        self.last += 1;
        let mut new = New {
            id: format!("00000000-0000-4000-8000-{:012}", self.last),
            app_id: APP.to_string(),
            sender: "key".to_string(),
            idempotency: None,
            spec: serde_json::from_str(spec).expect("a spec"),
            send_at_ms: self.now.unix_ms,
            expires_ms: None,
            now_ms: self.now.unix_ms,
        };
        rest(&mut new);
        new
    }

    fn accept(&mut self, spec: &str) -> (String, Vec<(Whom, Standing)>) {
        let new = self.new_with(spec, |_| {});
        let id = new.id.clone();
        match self.run(NotifyJob::Accept(Arc::new(new))) {
            NotifyOutcome::Accepted(Accepted::Fresh(standings)) => (id, standings),
            other => panic!("not accepted: {other:?}"),
        }
    }

    fn reach(&self, id: &str, user: &str, connections: u32) -> Standing {
        let job = NotifyJob::Reached {
            id: id.to_string(),
            reached: vec![(Whom::User(user.to_string()), connections)],
            now_ms: self.now.unix_ms,
        };
        match self.run(job) {
            NotifyOutcome::Reached(standings) => standings[0].1,
            other => panic!("not reached: {other:?}"),
        }
    }

    fn acknowledge(&self, id: &str, user: &str) -> NotifyOutcome {
        self.run(NotifyJob::Acknowledge {
            app_id: APP.to_string(),
            id: id.to_string(),
            user_id: user.to_string(),
            now_ms: self.now.unix_ms,
        })
    }

    fn due(&self) -> Due {
        let now_ms = self.now.unix_ms;
        match self.run(NotifyJob::Due { now_ms }) {
            NotifyOutcome::Due(due) => due,
            other => panic!("not due: {other:?}"),
        }
    }

    /// Until nothing is left to do now.
    fn all_due(&self) -> u64 {
        let mut queued = 0;
        loop {
            let due = self.due();
            queued += due.queued;
            if due.next_ms.is_none_or(|next| next > self.now.unix_ms) {
                return queued;
            }
        }
    }

    /// Device and state of each delivery, and in which state the notification is.
    fn states(&self, id: &str) -> (Vec<(String, String)>, String) {
        let job = NotifyJob::Show {
            app_id: APP.to_string(),
            id: id.to_string(),
            after: 0,
            limit: 1_000,
        };
        let NotifyOutcome::Shown(shown) = self.run(job) else {
            panic!("nothing is shown");
        };
        let deliveries = shown.deliveries.into_iter();
        let states = deliveries.map(|it| (it.device_id.unwrap_or_default(), it.state));
        let mut states: Vec<_> = states.collect();
        states.sort();
        (states, shown.summary.state)
    }

    fn check(&self, id: &str, expected: &[(&str, &str)], state: &str) {
        let (states, own) = self.states(id);
        let states: Vec<_> = states
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!((states.as_slice(), own.as_str()), (expected, state));
    }
}

const REACH: &str = r#"{"to":{"users":["u"]},"note":{"title":"t"},"ack_ms":5000}"#;

#[test]
fn who_acknowledges_in_time_gets_nothing_and_who_does_not_gets_it() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (id, standings) = play.accept(REACH);
        assert_eq!(standings[0].1.held, 1);
        assert_eq!(play.reach(&id, "u", 2).live, Some(2));
        play.now.unix_ms += 4_999;
        assert_eq!(play.due().queued, 0);
        assert_eq!(play.acknowledge(&id, "u"), NotifyOutcome::Changed(1));
        assert_eq!(
            play.acknowledge(&id, "u"),
            NotifyOutcome::Changed(0),
            "twice"
        );
        assert_eq!(play.acknowledge(&id, "v"), NotifyOutcome::Missing);
        play.now.unix_ms += 5_000;
        assert_eq!(play.due().queued, 0);
        play.check(&id, &[("u", "cancelled")], "done");

        let (id, _) = play.accept(REACH);
        play.reach(&id, "u", 1);
        play.now.unix_ms += 5_000;
        assert_eq!(play.due().queued, 1);
        play.check(&id, &[("u", "queued")], "open");
    });
}

#[test]
fn an_acknowledgement_may_come_before_the_count_and_a_count_twice() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (id, _) = play.accept(REACH);
        play.acknowledge(&id, "u");
        assert_eq!(play.reach(&id, "u", 0).queued, 0, "it was acknowledged");
        play.check(&id, &[("u", "cancelled")], "done");

        let (id, _) = play.accept(REACH);
        play.reach(&id, "u", 1);
        assert_eq!(play.reach(&id, "u", 0).held, 1, "the first count is it");
        play.check(&id, &[("u", "held")], "open");
    });
}

#[test]
fn what_a_courier_has_in_hand_is_not_taken_back() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (id, _) = play.accept(REACH);
        assert_eq!(play.reach(&id, "u", 0).queued, 1);
        let claimed = "UPDATE deliveries SET claimed_until = ?";
        play.file.write(claimed, &values![play.now.unix_ms + 10]);
        assert_eq!(play.acknowledge(&id, "u"), NotifyOutcome::Changed(0));
        play.check(&id, &[("u", "queued")], "open");
        // Its courier died.
        play.now.unix_ms += 10;
        assert_eq!(play.acknowledge(&id, "u"), NotifyOutcome::Changed(1));
        play.check(&id, &[("u", "cancelled")], "done");
    });
}

#[test]
fn an_order_that_nobody_answers_is_given_again_and_at_last_the_devices_get_it() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (id, _) = play.accept(REACH);
        let mut orders = 1;
        while play.states(&id).0[0].1 == "held" {
            play.now.unix_ms += ORDER_AGAIN_MS;
            let due = play.due();
            orders += due.orders.len() as u32;
            assert!(
                due.orders
                    .iter()
                    .all(|(order, ack)| order.id == id && *ack == 5_000)
            );
            assert!(orders <= ORDERS_MAX);
        }
        assert_eq!(orders, ORDERS_MAX);
        play.check(&id, &[("u", "queued")], "open");
    });
}

#[test]
fn a_device_that_is_not_the_users_any_more_gets_nothing() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let (mut sold, mut dead) = (play.user("u"), play.device("old", "web", WEB));
        play.device("new", "android", r#","user_id":"u""#);
        let (id, _) = play.accept(REACH);
        sold.profile.user_id = Some("v".to_string());
        dead.retire(Retired::Gone, play.now);
        for device in [&sold, &dead] {
            devices::put(&play.file, device).expect("it is put");
        }
        assert_eq!(play.reach(&id, "u", 0).queued, 1);
        let expected = [("new", "queued"), ("old", "cancelled"), ("u", "cancelled")];
        play.check(&id, &expected, "open");
    });
}

/// Takes the place of a token.
const WEB: &str = r#","user_id":"u","service":"fcm""#;

#[test]
fn ways_other_than_reach() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let with = |deliver: &str| {
            REACH.replace(
                "\"ack_ms\"",
                &format!("\"deliver\":\"{deliver}\",\"ack_ms\""),
            )
        };
        let (id, standings) = play.accept(&with("push"));
        assert_eq!(standings[0].1.queued, 1);
        assert_eq!(play.due().orders, []);
        assert_eq!(play.acknowledge(&id, "u"), NotifyOutcome::Changed(0));
        play.check(&id, &[("u", "queued")], "open");

        let (id, _) = play.accept(&with("both"));
        play.reach(&id, "u", 1);
        play.check(&id, &[("u", "queued")], "open");

        let (id, _) = play.accept(&with("live"));
        play.check(&id, &[], "open");
        play.reach(&id, "u", 0);
        play.check(&id, &[], "done");
    });
}

#[test]
fn what_is_scheduled_begins_at_its_time_or_has_expired() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let later = |new: &mut New| new.send_at_ms += 1_000;
        let new = play.new_with(REACH, later);
        let stale = play.new_with(REACH, |new| {
            later(new);
            new.expires_ms = Some(new.send_at_ms + 5);
        });
        for new in [&new, &stale] {
            let accepted = play.run(NotifyJob::Accept(Arc::new(new.clone())));
            let waits = NotifyOutcome::Accepted(Accepted::Fresh(Vec::new()));
            assert_eq!(accepted, waits);
        }
        assert_eq!(play.due().next_ms, Some(START + 1_000));
        play.check(&new.id, &[], "scheduled");
        play.now.unix_ms += 1_005;
        let due = play.due();
        assert_eq!(due.orders.len(), 1);
        play.check(&new.id, &[("u", "held")], "open");
        play.check(&stale.id, &[], "expired");
    });
}

#[test]
fn quiet_hours_put_off_what_is_queued() {
    everywhere(|base| {
        let mut play = Play::new(base);
        // 15 January 2027, 08:00 UTC: 17:00 in Tokyo.
        play.device("u", "android", r#","user_id":"u","time_zone":"Asia/Tokyo""#);
        let quiet = r#"{"to":{"users":["u"]},"note":{"title":"t"},"deliver":"push",
        "quiet":{"from":"16:30","to":"18:00"}}"#;
        play.accept(quiet);
        let due = "SELECT due_at FROM deliveries";
        assert_eq!(play.file.number(due), START + 3_600_000);
    });
}

#[test]
fn the_same_key_is_the_same_notification_unless_it_says_something_else() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let keyed = |print: &str| {
            let named = ("key".to_string(), print.to_string());
            move |new: &mut New| new.idempotency = Some(named)
        };
        let first = play.new_with(REACH, keyed("a"));
        play.run(NotifyJob::Accept(Arc::new(first.clone())));
        let again = |play: &mut Play, print: &str| {
            let new = play.new_with(REACH, keyed(print));
            play.run(NotifyJob::Accept(Arc::new(new)))
        };
        let known = |answer: Option<&str>| {
            let answer = answer.map(str::to_string);
            NotifyOutcome::Accepted(Accepted::Again(first.id.clone(), answer))
        };
        assert_eq!(again(&mut play, "a"), known(None));
        let answer = "{}".to_string();
        let id = first.id.clone();
        play.run(NotifyJob::Answered { id, answer });
        assert_eq!(again(&mut play, "a"), known(Some("{}")));
        let conflict = NotifyOutcome::Accepted(Accepted::Conflict);
        assert_eq!(again(&mut play, "b"), conflict);
    });
}

#[test]
fn devices_are_found_page_by_page_each_once() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for number in 0..1_203 {
            let rest = match number % 2 {
                0 => r#","topics":["a","b"]"#,
                _ => r#","topics":["b"]"#,
            };
            play.device(&format!("d{number}"), "android", rest);
        }
        let mut gone = play.device("gone", "android", r#","topics":["b"]"#);
        gone.retire(Retired::Gone, play.now);
        devices::put(&play.file, &gone).expect("it is put");
        play.device("ios", "ios", r#","topics":["b"]"#);
        let spec = |to: &str| format!(r#"{{"to":{to},"note":{{"title":"t"}}}}"#);
        let table = [
            (r#"{"topics":["a","b"]}"#, 1_204),
            (r#"{"topics":["a"]}"#, 602),
            (r#"{"topics":["b"],"platform":"ios"}"#, 1),
            (r#"{"platform":"android"}"#, 1_203),
            (
                r#"{"devices":["d1","d2","gone","nobody"],"topics":["c"]}"#,
                2,
            ),
            (r#"{"topics":["c"]}"#, 0),
        ];
        let mut all = Vec::new();
        for (to, count) in table {
            let (id, _) = play.accept(&spec(to));
            all.push((id, count));
        }
        let total: u64 = table.iter().map(|(_, count)| count).sum();
        assert_eq!(play.all_due(), total, "side by side");
        for (id, count) in all {
            let counted = format!(
                "SELECT count(*) FROM deliveries WHERE notification = '{id}' AND state = 'queued'"
            );
            assert_eq!(play.file.number(&counted), count, "{id}");
            let state = if count == 0 { "done" } else { "open" };
            assert_eq!(
                state_of(&play.file, (APP, &id))
                    .expect("a state")
                    .as_deref(),
                Some(state)
            );
        }
    });
}

#[test]
fn an_area_over_the_date_line_is_searched_through_in_both_parts() {
    everywhere(|base| {
        let mut play = Play::new(base);
        // On one latitude and one meridian, so that nothing but the id tells them apart.
        for number in 0..700 {
            let longitude = if number % 2 == 0 { 179.9 } else { -179.9 };
            let place = format!(r#","location":{{"latitude":-17.5,"longitude":{longitude}}}"#);
            play.device(&format!("d{number}"), "android", &place);
        }
        play.device(
            "far",
            "android",
            r#","location":{"latitude":-17.5,"longitude":170}"#,
        );
        play.device("nowhere", "android", "");
        let circle = r#"{"to":{"area":{"type":"Circle","latitude":-17.5,"longitude":180,
        "radius_metres":50000}},"note":{"title":"t"}}"#;
        play.accept(circle);
        assert_eq!(play.all_due(), 700);
    });
}

#[test]
fn addresses_of_providers_are_queued_as_they_are() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let spec = r#"{"to":{"fcm_topic":"news","apns_channel":"YQ=="},"note":{"title":"t"}}"#;
        play.accept(spec);
        let rows = "SELECT address FROM deliveries WHERE state = 'queued' ORDER BY address DESC";
        let expected = [r#"{"fcm_topic":"news"}"#, r#"{"apns_channel":"YQ=="}"#];
        assert_eq!(play.file.lines(rows), expected);
    });
}

#[test]
fn what_was_cancelled_stays_so_and_what_failed_can_be_tried_again() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let name = |id: &str| (APP.to_string(), id.to_string());
        let now_ms = play.now.unix_ms;
        let (id, _) = play.accept(REACH);
        let (app_id, own) = name(&id);
        let cancel = NotifyJob::Cancel {
            app_id,
            id: own,
            now_ms,
        };
        assert_eq!(play.run(cancel.clone()), NotifyOutcome::Changed(1));
        assert_eq!(play.run(cancel), NotifyOutcome::Changed(0));
        play.reach(&id, "u", 0);
        play.now.unix_ms += 60_000;
        assert_eq!(play.all_due(), 0);
        play.check(&id, &[("u", "cancelled")], "cancelled");

        let (id, _) = play.accept(REACH);
        play.reach(&id, "u", 0);
        let failed = "UPDATE deliveries SET state = 'failed', attempts = 3 WHERE state = 'queued'";
        play.file.write(failed, &[]);
        settle_if_over(&play.file, &id, now_ms).expect("a working file");
        play.check(&id, &[("u", "failed")], "done");
        let (app_id, own) = name(&id);
        let id_again = own.clone();
        let retry = NotifyJob::Retry {
            app_id,
            id: own,
            now_ms,
        };
        assert_eq!(play.run(retry), NotifyOutcome::Changed(1));
        play.check(&id_again, &[("u", "queued")], "open");
    });
}

#[test]
fn what_was_settled_long_ago_is_removed_in_pages_and_nothing_else() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let topic = r#"{"to":{"topics":["a"]},"note":{"title":"t"}}"#;
        let (open, _) = play.accept(REACH);
        let (old, _) = play.accept(topic);
        play.all_due();
        let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4500) \
                INSERT INTO deliveries \
                (notification, app_id, device, way, state, due_at, priority) \
                SELECT ?, 'app', 'd' || i, 'fcm', 'accepted', 0, 0 FROM n";
        play.file.write(many, &values![&old]);
        let mut after = OpenPlace::default();
        let mut pages = 0;
        loop {
            let job = NotifyJob::Tidy {
                settled_before_ms: play.now.unix_ms + 1,
                after: after.clone(),
                now_ms: play.now.unix_ms,
            };
            pages += 1;
            match play.run(job) {
                NotifyOutcome::Tidied { after: None, .. } => break,
                NotifyOutcome::Tidied {
                    after: Some(next), ..
                } => after = next,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(state_of(&play.file, (APP, &old)).expect("a state"), None);
        play.check(&open, &[("u", "held")], "open");
    });
}

#[test]
fn open_notifications_with_nothing_left_are_settled_page_by_page() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (waits, _) = play.accept(REACH);
        // All of one end, so that their ids are the order; and some of an end before.
        let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
                    INSERT INTO notifications (id, app_id, sender, spec, is_reach, created_at, \
                    send_at, expires_at, priority, state) \
                    SELECT 'left-' || i, 'app', 'k', '{}', ?, 0, 0, 90 + i / 1200, 0, 'open' FROM n";
        play.file.write(many, &values![false]);
        let mut after = OpenPlace::default();
        let mut pages = 1;
        while let NotifyOutcome::Tidied {
            after: Some(next), ..
        } = play.run(NotifyJob::Tidy {
            settled_before_ms: 0,
            after: after.clone(),
            now_ms: play.now.unix_ms,
        }) {
            assert!(next > after, "{next:?} is not behind {after:?}");
            after = next;
            pages += 1;
        }
        assert_eq!(pages, 3);
        let left = "SELECT id FROM notifications WHERE state = 'open'";
        let left = play.file.query(left, &[]).expect("rows");
        let left = left.iter().map(|row| row.get(0).expect("an id"));
        assert_eq!(left.collect::<Vec<String>>(), [waits]);
    });
}

#[test]
fn a_row_that_cannot_be_read_ends_its_own_notification_alone() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.user("u");
        let (bad, _) = play.accept(REACH);
        let (good, _) = play.accept(REACH);
        let spoil = "UPDATE notifications SET spec = '{' WHERE id = ?";
        play.file.write(spoil, &values![&bad]);
        play.now.unix_ms += ORDER_AGAIN_MS;
        let due = play.due();
        assert_eq!(due.orders.len(), 1);
        play.check(&bad, &[("u", "cancelled")], "cancelled");
        play.check(&good, &[("u", "held")], "open");
    });
}
