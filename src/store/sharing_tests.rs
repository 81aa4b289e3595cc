//! Several couriers with one database: each of these begins a transaction in the name of one, and lets
//! another do its work before that is committed.

use std::sync::Arc;
use std::thread;

use crate::push::delivery::jobs::{
    Claim, Claimed, DeliveryEnd, DeliveryJob, DeliveryOutcome, DeliveryReport, LaneName,
    Settlement, Way,
};
use crate::push::delivery::kit::{NOW_MS, at, vault};
use crate::push::devices::jobs::{DeviceJob, DeviceLimits, DeviceOutcome, KeyJob};
use crate::push::devices::registration::{DeviceBounds, Registration};
use crate::push::devices::token::Service;
use crate::push::jobs::{Job, Outcome};
use crate::push::notify::jobs::{Due, NotifyJob, NotifyOutcome};
use crate::store::jobs;
use crate::store::kit::Base;
use crate::store::rows::values;

/// A notification, with so many deliveries to topics.
fn with_deliveries(base: &Base, count: u64) {
    let sql = "INSERT INTO notifications (id, app_id, sender, spec, is_reach, created_at, send_at, \
               priority, state) VALUES ('n', 'a', 'k', '{}', FALSE, ?1, ?1, 1, 'open')";
    base.write(sql, &values![NOW_MS]);
    let sql = "INSERT INTO deliveries (id, notification, app_id, address, way, state, due_at, \
               priority) VALUES (?1, 'n', 'a', '{}', 'fcm', 'queued', ?2, 1)";
    for id in 1..=count {
        base.write(sql, &values![id, NOW_MS]);
    }
}

fn run(base: &Base, job: Job) -> Outcome {
    jobs::run(base, &job).expect("a working database")
}

fn claim(courier: &str, now_ms: u64, count: u32) -> Job {
    let lane = LaneName {
        app_id: "a".into(),
        way: Way::Device(Service::Fcm),
    };
    Job::Delivery(DeliveryJob::Claim(Arc::new(Claim {
        courier: courier.into(),
        lanes: [(lane, count)].into(),
        now_ms,
        until_ms: now_ms + 1_000,
    })))
}

fn claimed(outcome: Outcome) -> Claimed {
    match outcome {
        Outcome::Delivery(DeliveryOutcome::Claimed(claimed)) => *claimed,
        other => panic!("{other:?}"),
    }
}

fn ids(claimed: &Claimed) -> Vec<u64> {
    claimed.deliveries.iter().map(|it| it.id).collect()
}

fn settled(courier: &str, id: u64) -> Job {
    Job::Delivery(DeliveryJob::Settle {
        courier: courier.into(),
        reports: vec![DeliveryReport {
            id,
            notification: "n".into(),
            attempts: 1,
            uncertain: 0,
            tried_ms: Some(NOW_MS),
            end: DeliveryEnd::Settled {
                state: Settlement::Accepted,
                reason: None,
                provider_id: None,
            },
            news: None,
        }],
        now_ms: NOW_MS,
    })
}

#[test]
fn what_one_claims_no_other_gets_before_the_lease_is_over_and_nobody_waits() {
    let one = Base::server();
    let two = one.again();
    with_deliveries(&one, 5);
    one.write("BEGIN", &[]);
    let first = ids(&claimed(run(&one, claim("one", NOW_MS, 3))));
    let second = ids(&claimed(two.commit(&[claim("two", NOW_MS, 9)]).remove(0)));
    one.write("COMMIT", &[]);
    assert_eq!((first.len(), second.len()), (3, 2));
    assert!(first.iter().all(|id| !second.contains(id)));
    let none = claimed(two.commit(&[claim("two", NOW_MS + 999, 9)]).remove(0));
    assert_eq!((ids(&none), none.next_ms), (vec![], Some(NOW_MS + 1_000)));
    // The first has died.
    two.commit(
        &second
            .iter()
            .map(|id| settled("two", *id))
            .collect::<Vec<_>>(),
    );
    let late = claimed(two.commit(&[claim("two", NOW_MS + 1_000, 9)]).remove(0));
    assert_eq!((ids(&late), late.released), (first, 3));
    assert!(late.deliveries.iter().all(|it| it.uncertain == 1));
}

#[test]
fn of_two_that_settle_the_last_deliveries_the_later_one_ends_the_notification() {
    let one = Base::server();
    let two = one.again();
    with_deliveries(&one, 2);
    one.commit(&[claim("one", NOW_MS, 1)]);
    two.commit(&[claim("two", NOW_MS, 1)]);
    one.write("BEGIN", &[]);
    run(&one, settled("one", 1));
    let later = thread::spawn(move || {
        two.commit(&[settled("two", 2)]);
    });
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while one.number(waits) == 0 {
        assert!(!later.is_finished(), "it does not wait for the first");
        thread::yield_now();
    }
    one.write("COMMIT", &[]);
    later.join().expect("it is settled");
    assert_eq!(one.lines("SELECT state FROM notifications"), ["done"]);
}

#[test]
fn what_is_due_one_of_them_does() {
    let one = Base::server();
    let two = one.again();
    with_deliveries(&one, 0);
    let spec = r#"{"to":{"users":["u"]},"note":{"title":"t"}}"#;
    one.write("UPDATE notifications SET spec = ?", &values![spec]);
    let sql = "INSERT INTO reaches (notification, kind, name, orders, due_at) \
               VALUES ('n', 'user', 'u', 1, ?)";
    one.write(sql, &values![NOW_MS]);
    let due = |outcome| -> Due {
        match outcome {
            Outcome::Notify(NotifyOutcome::Due(due)) => due,
            other => panic!("{other:?}"),
        }
    };
    let look = || Job::Notify(NotifyJob::Due { now_ms: NOW_MS });
    one.write("BEGIN", &[]);
    assert_eq!(due(run(&one, look())).orders.len(), 1);
    let other = due(two.commit(&[look()]).remove(0));
    assert!(other.orders.is_empty());
    assert!(other.next_ms.is_some_and(|at| at > NOW_MS), "not at once");
    one.write("COMMIT", &[]);
    assert!(due(two.commit(&[look()]).remove(0)).orders.is_empty());
}

#[test]
fn who_registers_devices_of_one_app_takes_turns_and_its_limit_holds() {
    let one = Base::server();
    let two = one.again();
    let (vault, now) = (vault(), at(0));
    let keys = vault.keys().map(|(id, print)| (id.clone(), print.clone()));
    let keys = KeyJob::Put {
        keys: keys.collect(),
        now,
    };
    one.commit(&[Job::Devices(keys.into())]);
    let register = move |device: &str| {
        let json = format!(
            r#"{{"device_id":"{device}","platform":"web","service":"fcm","token":"of-{device}"}}"#
        );
        let read = Registration::read(&json, &DeviceBounds::default(), now).expect("right");
        let dice = &mut crate::base::dice::Dice::new([device.len() as u8; 16]);
        let sealed =
            crate::push::devices::device::SealedRegistration::seal("a", read, &vault, dice, now);
        Job::Devices(DeviceJob::Register {
            registrations: vec![sealed],
            limits: DeviceLimits {
                per_app: 1,
                per_user: 9,
                topics: 9,
            },
            now,
        })
    };
    let done = |outcome| match outcome {
        Outcome::Devices(DeviceOutcome::Registered(mut done)) => done.remove(0),
        other => panic!("{other:?}"),
    };
    one.write("BEGIN", &[]);
    assert!(done(run(&one, register("d"))).is_ok_and(|it| it.is_new));
    let (same, more) = (register("d"), register("e2"));
    let later = thread::spawn(move || two.commit(&[same, more]));
    thread::sleep(std::time::Duration::from_millis(100));
    assert!(!later.is_finished(), "it does not take its turn");
    one.write("COMMIT", &[]);
    let mut later = later.join().expect("they are done");
    assert!(done(later.remove(0)).is_ok_and(|it| !it.is_new));
    assert!(done(later.remove(0)).is_err(), "the app is full");
}
