//! Several reactors of one server count together, in memory that stands for theirs.

use super::*;
use crate::base::now::Moment;

fn at(ms: u64) -> Now {
    Now {
        moment: Moment::default(),
        unix_ms: 1_767_225_600_000 + ms,
    }
}

fn cells(count: usize) -> &'static [AtomicU64] {
    Box::leak((0..count).map(|_| AtomicU64::new(0)).collect())
}

fn shared() -> &'static [AtomicU64] {
    let shared = cells(Cells::shared_len(1));
    shared[0].store(4711, Relaxed);
    shared
}

/// A reactor of a server with one listener.
fn reactor(shared: &'static [AtomicU64], rules: &Rules) -> (Admission, &'static [AtomicU64]) {
    let page = cells(Cells::page_len(1));
    (
        Admission::new(rules.clone(), Cells::new(shared, page)),
        page,
    )
}

fn per_address(connections: u64, rate: u64) -> Rules {
    Rules {
        connections_per_address: connections,
        accepts_per_address_per_second: rate,
        ..Rules::default()
    }
}

fn listener(connections: u64, accepts_per_second: u64) -> Rules {
    Rules {
        listeners: vec![ListenerRules {
            connections,
            accepts_per_second,
        }],
        ..Rules::default()
    }
}

/// What a reactor does with who comes.
fn come(admission: &Admission, address: &str, now: Now) -> Result<Permit, Refused> {
    let mut permit = admission.enter(0, now).expect("the listener is open");
    admission.accepted(0, now);
    match admission.identify(&mut permit, address.parse().expect("an address"), now) {
        Ok(()) => Ok(permit),
        Err(refused) => {
            admission.leave(permit);
            Err(refused)
        }
    }
}

#[test]
fn an_address_may_have_so_many_connections_whichever_reactor_they_reach() {
    let (shared, rules) = (shared(), per_address(2, 0));
    let [(one, _), (two, _)] = [reactor(shared, &rules), reactor(shared, &rules)];
    let first = come(&one, "10.0.0.1", at(0)).expect("the first");
    let _second = come(&two, "10.0.0.1", at(0)).expect("the second");
    for reactor in [&one, &two] {
        let third = come(reactor, "10.0.0.1", at(0)).map(drop);
        assert_eq!(third, Err(Refused::Connections));
    }
    come(&one, "10.0.0.2", at(0)).expect("somebody else");
    one.leave(first);
    come(&two, "::ffff:10.0.0.1", at(0)).expect("in the place of the first");
    come(&two, "10.0.0.1", at(0)).expect_err("full again");
}

#[test]
fn all_of_an_ipv6_network_is_one_address() {
    let (admission, _) = reactor(shared(), &per_address(1, 0));
    let _permit = come(&admission, "2001:db8:0:1::1", at(0)).expect("the first");
    come(&admission, "2001:db8:0:1:ffff::2", at(0)).expect_err("the same network");
    come(&admission, "2001:db8:0:2::1", at(0)).expect("another network");
}

#[test]
fn what_a_dead_reactor_had_counted_is_given_back() {
    let (shared, rules) = (shared(), per_address(2, 0));
    let (dies, page) = reactor(shared, &rules);
    let (lives, _) = reactor(shared, &rules);
    let _gone = come(&dies, "10.0.0.1", at(0)).expect("the first");
    let _stays = come(&lives, "10.0.0.1", at(0)).expect("the second");
    Cells::give_back(shared, page.iter().map(|cell| cell.load(Relaxed)));
    come(&lives, "10.0.0.1", at(0)).expect("one place is free");
    come(&lives, "10.0.0.1", at(0)).expect_err("and no other");
}

#[test]
fn after_a_burst_an_address_may_come_at_its_rate() {
    let (shared, rules) = (shared(), per_address(0, 4));
    let [(one, _), (two, _)] = [reactor(shared, &rules), reactor(shared, &rules)];
    let come_often = |now| {
        let both = [&one, &two].into_iter().cycle().take(20);
        both.filter(|it| come(it, "10.0.0.1", now).is_ok()).count()
    };
    assert_eq!(come_often(at(0)), 4);
    assert_eq!(come_often(at(249)), 0);
    assert_eq!(come_often(at(500)), 2);
    assert_eq!(come_often(at(60_000)), 4);
    // An operator sets the clock back by an hour.
    let (later, _) = reactor(shared, &rules);
    let past = Now {
        unix_ms: at(0).unix_ms - 3_600_000,
        ..at(0)
    };
    come(&later, "10.0.0.1", past).expect("nobody is locked out for an hour");
}

#[test]
fn a_full_listener_rests_until_somebody_leaves_any_reactor() {
    let (shared, rules) = (shared(), listener(2, 0));
    let [(one, _), (two, _)] = [reactor(shared, &rules), reactor(shared, &rules)];
    let first = one.enter(0, at(0)).expect("room");
    let second = two.enter(0, at(0)).expect("room");
    assert_eq!(one.enter(0, at(0)).map(drop), Err(Resting::Full));
    assert_eq!(two.enter(0, at(0)).map(drop), Err(Resting::Full));
    one.leave(first);
    let third = two.enter(0, at(0)).expect("room again");
    assert_eq!(two.enter(0, at(0)).map(drop), Err(Resting::Full));
    assert!(one.enter(1, at(0)).is_ok(), "other listeners have no bound");
    two.leave(second);
    two.leave(third);
    assert!(shared[1..].iter().all(|cell| cell.load(Relaxed) == 0));
}

#[test]
fn a_paced_listener_tells_when_to_come_again_and_only_who_came_counts() {
    let (admission, _) = reactor(shared(), &listener(0, 10));
    for _ in 0..10 {
        // Looked, and found nobody.
        admission.leave(admission.enter(0, at(0)).expect("no token was spent"));
        admission.accepted(0, at(0));
    }
    let wait = Duration::from_millis(100);
    assert_eq!(
        admission.enter(0, at(0)).map(drop),
        Err(Resting::Paced(wait))
    );
    assert!(admission.enter(0, at(100)).is_ok());
}

#[test]
fn strangers_in_a_crowd_are_not_taken_for_each_other() {
    let (admission, _) = reactor(shared(), &per_address(4, 0));
    let refused = (0..100_000u32).filter(|number| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        come(&admission, &address, at(0)).is_err()
    });
    assert_eq!(refused.count() / 100, 0, "less than one in a thousand");
}

#[test]
fn without_bounds_nothing_is_counted() {
    assert!(!Rules::default().any());
    assert!(listener(0, 1).any() && per_address(1, 0).any());
    let (shared, page) = (shared(), cells(Cells::page_len(1)));
    let admission = Admission::new(listener(0, 0), Cells::new(shared, page));
    come(&admission, "10.0.0.1", at(0)).expect("open to all");
    assert!(shared[1..].iter().all(|cell| cell.load(Relaxed) == 0));
}
