//! Jobs of deliveries in every store.

use super::*;
use crate::push::delivery::jobs::{KEEP_MS, Settlement};
use crate::push::delivery::kit::{NOW_MS, device, vault};
use crate::push::devices::token::Service;
use crate::push::jobs::{Job, Outcome};
use crate::push::notify::jobs::NotifyJob;
use crate::store::kit::{Base, everywhere};

struct Play {
    file: Base,
    now_ms: u64,
}

fn lane(app: &str) -> LaneName {
    LaneName {
        app_id: app.into(),
        way: Way::Device(Service::Apns),
    }
}

impl Play {
    fn new(file: Base) -> Play {
        let vault = vault();
        let (id, print) = vault.keys().next().expect("a key");
        devices::put_key(&file, id, print, 1).expect("a row");
        Play {
            file,
            now_ms: NOW_MS,
        }
    }

    fn notification(&self, id: &str, app: &str, spec: &str, expires: Option<u64>) {
        let sql = "INSERT INTO notifications (id, app_id, sender, spec, is_reach, created_at, \
                   send_at, expires_at, priority, state) \
                   VALUES (?1, ?2, 'k', ?3, ?4, ?5, ?5, ?6, 1, 'open')";
        let is_reach = spec.contains("reach");
        self.file
            .write(sql, &values![id, app, spec, is_reach, NOW_MS, expires]);
    }

    fn queue(&self, id: u64, notification: &str, device: &str, app: &str, priority: u8, due: u64) {
        let sql = "INSERT INTO deliveries (id, notification, app_id, user_id, device, way, state, \
                   due_at, priority) VALUES (?, ?, ?, 'u', ?, 'apns', 'queued', ?, ?)";
        let due = NOW_MS + due;
        self.file
            .write(sql, &values![id, notification, app, device, due, priority]);
    }

    fn run(&mut self, job: &DeliveryJob) -> DeliveryOutcome {
        match self.file.commit(&[Job::Delivery(job.clone())]).remove(0) {
            Outcome::Delivery(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn claim(&mut self, courier: &str, apps: &[(&str, u32)]) -> Claimed {
        let lanes = apps.iter().map(|(app, count)| (lane(app), *count));
        let claim = Claim {
            courier: courier.into(),
            lanes: lanes.collect(),
            now_ms: self.now_ms,
            until_ms: self.now_ms + 1_000,
        };
        match self.run(&DeliveryJob::Claim(Arc::new(claim))) {
            DeliveryOutcome::Claimed(claimed) => *claimed,
            other => panic!("{other:?}"),
        }
    }

    fn ids(&mut self, courier: &str, apps: &[(&str, u32)]) -> Vec<u64> {
        let claimed = self.claim(courier, apps);
        claimed.deliveries.iter().map(|it| it.id).collect()
    }

    fn cancel(&mut self, notification: &str) {
        let cancel = NotifyJob::Cancel {
            app_id: "a".into(),
            id: notification.into(),
            now_ms: self.now_ms,
        };
        self.file.commit(&[Job::Notify(cancel)]);
    }

    fn report(&mut self, courier: &str, report: DeliveryReport) -> DeliveryOutcome {
        let now_ms = self.now_ms;
        self.run(&DeliveryJob::Settle {
            courier: courier.into(),
            reports: vec![report],
            now_ms,
        })
    }

    /// State, attempts, uncertain, reason of each delivery, and the state of each notification.
    fn shown(&self) -> String {
        let deliveries = "SELECT id || ' ' || state || ' ' || attempts || ' ' || uncertain \
                          || coalesce(' ' || reason, '') FROM deliveries ORDER BY id";
        let notifications = "SELECT id || ' ' || state FROM notifications ORDER BY id";
        let lines = [deliveries, notifications].map(|sql| self.file.lines(sql));
        lines.concat().join(", ")
    }
}

/// A device of the user that all deliveries here are for.
fn his(id: &str) -> Device {
    let mut device = device(
        id,
        &format!("00{}", data_encoding::HEXLOWER.encode(id.as_bytes())),
    );
    device.profile.user_id = Some("u".to_string());
    device
}

fn settled(id: u64, state: Settlement, news: Option<TokenNewsKind>) -> DeliveryReport {
    DeliveryReport {
        id,
        notification: "n".into(),
        attempts: 1,
        uncertain: 0,
        tried_ms: Some(NOW_MS),
        end: DeliveryEnd::Settled {
            state,
            reason: None,
            provider_id: Some("p".into()),
        },
        news: news.map(|kind| TokenNews {
            device: "d".into(),
            asked_ms: NOW_MS + 10,
            kind,
        }),
    }
}

fn again(id: u64, due: u64) -> DeliveryReport {
    let due_ms = NOW_MS + due;
    let reason = Some("503".to_string());
    DeliveryReport {
        end: DeliveryEnd::Again { due_ms, reason },
        ..settled(id, Settlement::Failed, None)
    }
}

#[test]
fn what_is_due_is_claimed_once_the_urgent_first_and_each_app_has_its_share() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for app in ["a", "b"] {
            play.notification(&format!("n{app}"), app, "{}", None);
        }
        for id in 1..=5 {
            play.queue(id, "na", &format!("d{id}"), "a", 2, 0);
        }
        play.queue(6, "na", "d6", "a", 0, 0);
        play.queue(7, "na", "d7", "a", 0, 500);
        play.queue(8, "nb", "d8", "b", 1, 0);
        assert_eq!(play.ids("c", &[("a", 3), ("b", 3)]), [6, 1, 2, 8]);
        let rest = play.claim("other", &[("a", 30), ("c", 9)]);
        let ids: Vec<u64> = rest.deliveries.iter().map(|it| it.id).collect();
        assert_eq!(ids, [3, 4, 5]);
        assert_eq!(rest.next_ms, Some(NOW_MS + 500));
        assert_eq!(rest.specs.len(), 1, "what is shared is read once");
        play.now_ms += 600;
        assert_eq!(play.ids("c", &[("a", 9)]), [7]);
    });
}

#[test]
fn the_last_settled_delivery_ends_its_notification() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.notification("n", "a", "{}", None);
        play.queue(1, "n", "d", "a", 1, 0);
        play.queue(2, "n", "e", "a", 1, 0);
        play.claim("c", &[("a", 9)]);
        play.report("c", settled(1, Settlement::Accepted, None));
        assert_eq!(play.shown(), "1 accepted 1 0, 2 queued 0 0, n open");
        play.report("c", again(2, 700));
        assert_eq!(play.shown(), "1 accepted 1 0, 2 queued 1 0 503, n open");
        play.now_ms += 700;
        assert_eq!(play.ids("c", &[("a", 9)]), [2]);
        play.report("c", settled(2, Settlement::Failed, None));
        play.report("c", again(2, 0));
        assert_eq!(play.shown(), "1 accepted 1 0, 2 failed 1 0, n done");
    });
}

#[test]
fn what_a_courier_leaves_behind_is_taken_up_and_counts_as_uncertain() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.notification("n", "a", "{}", None);
        for (id, device) in [(1, "d"), (2, "e"), (3, "f")] {
            play.queue(id, "n", device, "a", 1, 0);
        }
        assert_eq!(play.ids("c", &[("a", 9)]), [1, 2, 3]);
        let ids = vec![2];
        let now_ms = play.now_ms;
        play.run(&DeliveryJob::Mark { ids, now_ms });
        assert!(play.ids("other", &[("a", 9)]).is_empty());
        let courier = "c".to_string();
        let begun = play.run(&DeliveryJob::Begin { courier, now_ms });
        let passes = Default::default();
        let released = 3;
        assert_eq!(begun, DeliveryOutcome::Begun { released, passes });
        let lost = format!("2 failed 0 1 {UNCERTAIN}");
        assert_eq!(
            play.shown(),
            format!("1 queued 0 1, {lost}, 3 queued 0 1, n open")
        );
        assert_eq!(play.ids("c", &[("a", 9)]), [1, 3]);
        play.now_ms += 1_000;
        let claimed = play.claim("other", &[("a", 1)]);
        assert_eq!(claimed.released, 1, "a lease has ended");
        assert_eq!(claimed.deliveries[0].uncertain, 2);
        play.report("c", again(1, 0));
        assert!(play.ids("third", &[("a", 9)]).contains(&3));
        let due = play
            .file
            .number("SELECT due_at FROM deliveries WHERE id = 1");
        assert_eq!(
            due,
            play.now_ms + 1_000,
            "who lost his claim changes nothing"
        );
    });
}

#[test]
fn what_was_cancelled_in_hand_is_not_sent_again() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.notification("n", "a", r#"{"deliver":"reach"}"#, None);
        play.queue(1, "n", "d", "a", 1, 0);
        play.claim("c", &[("a", 9)]);
        let reach = "INSERT INTO reaches (notification, kind, name, acknowledged_at) \
                 VALUES ('n', 'user', 'u', 1)";
        play.file.write(reach, &[]);
        play.report("c", again(1, 0));
        assert_eq!(play.shown(), "1 cancelled 1 0 acknowledged, n done");
    });
}

#[test]
fn what_was_cancelled_in_hand_is_not_sent_again_when_its_courier_has_died() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for (id, name) in [(1, "n"), (2, "m"), (3, "x")] {
            play.notification(name, "a", "{}", None);
            play.queue(id, name, "d", "a", 1, 0);
        }
        assert_eq!(play.ids("c", &[("a", 9)]), [1, 2, 3]);
        play.cancel("n");
        play.cancel("m");
        // The same begins again.
        play.run(&DeliveryJob::Begin {
            courier: "c".into(),
            now_ms: NOW_MS,
        });
        assert_eq!(play.ids("c", &[("a", 9)]), [3]);
        play.cancel("x");
        // Another finds that the lease has ended.
        play.now_ms += 1_000;
        assert_eq!(play.ids("other", &[("a", 9)]), [0; 0]);
        assert_eq!(
            play.shown(),
            "1 cancelled 0 1 cancelled, 2 cancelled 0 1 cancelled, 3 cancelled 0 2 cancelled, \
             m cancelled, n cancelled, x cancelled"
        );
    });
}

#[test]
fn what_may_have_been_sent_when_a_lease_ended_stays_counted() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for id in ["n", "m"] {
            play.notification(id, "a", "{}", None);
        }
        play.queue(1, "n", "d", "a", 1, 0);
        play.queue(2, "m", "d", "a", 2, 0);
        assert_eq!(play.ids("slow", &[("a", 9)]), [1, 2]);
        play.now_ms += 1_000;
        assert_eq!(play.ids("other", &[("a", 1)]), [1]);
        play.report("slow", settled(1, Settlement::Accepted, None));
        play.cancel("m");
        assert_eq!(
            play.shown(),
            "1 accepted 1 1, 2 cancelled 0 1 cancelled, m cancelled, n done"
        );
    });
}

#[test]
fn a_device_hears_what_its_provider_says() {
    let dead = |since| TokenNewsKind::Dead { since_ms: since };
    let suspect = |limit| TokenNewsKind::Suspect { limit };
    // news | active | suspicions | accepted
    let table = [
        (TokenNewsKind::Accepted, true, 0, Some(NOW_MS)),
        (dead(Some(NOW_MS)), false, 0, None),
        (dead(Some(NOW_MS - 1)), true, 0, None),
        (dead(None), false, 0, None),
        (suspect(Some(1)), false, 1, None),
        (suspect(Some(2)), true, 1, None),
        (suspect(None), true, 1, None),
        (TokenNewsKind::Unreadable, false, 0, None),
    ];
    for (news, active, suspicions, accepted) in table {
        everywhere(|base| {
            let mut play = Play::new(base);
            play.notification("n", "a", "{}", None);
            devices::put(&play.file, &his("d")).expect("a row");
            play.queue(1, "n", "d", "a", 1, 0);
            let claimed = play.claim("c", &[("a", 1)]);
            let DeliveryTarget::Device(Some(_)) = claimed.deliveries[0].target else {
                panic!("the device is there");
            };
            let done = play.report("c", settled(1, Settlement::Failed, Some(news)));
            let retired = u64::from(!active);
            assert_eq!(done, DeliveryOutcome::Settled { retired }, "{news:?}");
            let device = devices::find(&play.file, "a", "d")
                .expect("a row")
                .expect("it");
            let known = (
                device.state == State::Active,
                device.suspicions,
                device.accepted_ms,
            );
            assert_eq!(known, (active, suspicions, accepted), "{news:?}");
        });
    }
}

#[test]
fn a_device_with_another_service_goes_the_other_way_and_one_of_another_user_nowhere() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.notification("n", "a", "{}", None);
        let mut device = his("d");
        device.service = Service::ApnsSandbox;
        devices::put(&play.file, &device).expect("a row");
        play.queue(1, "n", "d", "a", 1, 0);
        let mut other = his("e");
        other.profile.user_id = Some("v".to_string());
        devices::put(&play.file, &other).expect("a row");
        play.queue(2, "n", "e", "a", 1, 0);
        let claimed = play.claim("c", &[("a", 9)]);
        assert_eq!(claimed.deliveries.len(), 1);
        assert_eq!(claimed.deliveries[0].target, DeliveryTarget::Device(None));
        let way = play.file.lines("SELECT way FROM deliveries WHERE id = 1");
        assert_eq!(way, ["apns-sandbox"]);
    });
}

#[test]
fn what_nobody_wants_to_see_any_more_expires_though_nobody_can_send_it() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.notification("n", "a", "{}", Some(NOW_MS + 10));
        play.notification("m", "a", "{}", None);
        play.queue(1, "n", "d", "a", 1, 0);
        play.queue(2, "m", "d", "a", 1, 0);
        let expire = |now_ms| DeliveryJob::Expire { now_ms };
        let expired = |count| DeliveryOutcome::Expired { count, more: false };
        assert_eq!(play.run(&expire(NOW_MS + 9)), expired(0));
        assert_eq!(play.run(&expire(NOW_MS + 10)), expired(1));
        let shown = "1 expired 0 0 expired, 2 queued 0 0, m open, n done";
        assert_eq!(play.shown(), shown);
        assert_eq!(play.run(&expire(NOW_MS + KEEP_MS - 1)), expired(0));
        assert_eq!(play.run(&expire(NOW_MS + KEEP_MS)), expired(1));
    });
}

#[test]
fn passes_are_kept() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for text in ["s", "t"] {
            let (name, text) = ("a".to_string(), text.to_string());
            play.run(&DeliveryJob::KeepPass { name, text });
        }
        let (courier, now_ms) = ("c".to_string(), NOW_MS);
        let begun = play.run(&DeliveryJob::Begin { courier, now_ms });
        let passes = [("a".to_string(), "t".to_string())].into();
        assert_eq!(
            begun,
            DeliveryOutcome::Begun {
                released: 0,
                passes
            }
        );
    });
}
