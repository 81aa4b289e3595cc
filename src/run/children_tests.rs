//! The table of children: restarts, stopping, and replacing.

use super::*;
use crate::run::replacing::SUCCESSOR_PATIENCE;

const SWITCHBOARD: usize = 0;
const WORKER: usize = 1;

fn at(ms: u64) -> Moment {
    Moment::from_micros(1_000_000 + ms * 1000)
}

fn actions(children: &mut Children) -> Vec<Action> {
    std::iter::from_fn(|| children.poll_action()).collect()
}

/// One switchboard and two workers, all running since `at(0)`.
fn running() -> Children {
    let mut children = Children::new(2, 1, [0; 16], at(0));
    children.handle_elapsed(at(0));
    let started = actions(&mut children);
    assert_eq!(
        started,
        [Action::Start(0), Action::Start(1), Action::Start(2)]
    );
    for index in 0..3 {
        children.handle_started(index, at(0));
        children.handle_ready(index, at(0));
    }
    assert!(children.all_running());
    children
}

fn die(children: &mut Children, index: usize, ms: u64) {
    children.handle_ended(index, End::Signal(libc::SIGKILL), at(ms));
    children.handle_elapsed(at(ms));
}

fn wait_ms(children: &Children, index: usize, now_ms: u64) -> u64 {
    match children.rows()[index].phase {
        Phase::Waiting(due) => due.since(at(now_ms)).as_millis() as u64,
        other => panic!("it is {other:?}"),
    }
}

#[test]
fn the_switchboard_is_started_first_and_a_child_runs_when_all_its_reactors_do() {
    let mut children = Children::new(1, 2, [0; 16], at(0));
    assert_eq!(children.deadline(), Some(at(0)));
    children.handle_elapsed(at(0));
    assert_eq!(
        actions(&mut children),
        [Action::Start(SWITCHBOARD), Action::Start(WORKER)]
    );
    children.handle_started(WORKER, at(1));
    children.handle_ready(WORKER, at(0));
    assert_eq!(children.rows()[WORKER].phase, Phase::Starting);
    children.handle_ready(WORKER, at(0));
    assert_eq!(children.rows()[WORKER].phase, Phase::Running);
}

#[test]
fn the_first_death_is_made_good_at_once_and_the_next_ones_ever_later() {
    let mut children = running();
    die(&mut children, WORKER, 3000);
    assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
    let mut now = 3000;
    for longest in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        children.handle_started(WORKER, at(now));
        die(&mut children, WORKER, now);
        let wait = wait_ms(&children, WORKER, now);
        assert!(
            (longest / 2..=longest).contains(&wait),
            "{wait} of {longest}"
        );
        assert!(actions(&mut children).is_empty());
        now += wait + 1;
        children.handle_elapsed(at(now));
        assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
    }
    assert_eq!(children.rows()[WORKER].restarts, 9);
    assert_eq!(children.rows()[SWITCHBOARD].restarts, 0);
}

#[test]
fn a_good_life_wipes_the_slate() {
    let mut children = running();
    for _ in 0..4 {
        die(&mut children, WORKER, 20_000);
        children.handle_started(WORKER, at(20_000));
    }
    actions(&mut children);
    die(&mut children, WORKER, 30_000);
    assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
}

#[test]
fn a_child_that_cannot_be_started_is_not_tried_in_a_circle() {
    let mut children = Children::new(1, 1, [0; 16], at(0));
    children.handle_elapsed(at(0));
    actions(&mut children);
    children.handle_ended(WORKER, End::NotStarted("no memory".into()), at(0));
    assert!(wait_ms(&children, WORKER, 0) >= 100);
}

#[test]
fn workers_stop_before_the_switchboard_and_then_it_is_over() {
    let mut children = running();
    children.handle_stop(None, at(0));
    children.handle_stop(None, at(1));
    assert_eq!(
        actions(&mut children),
        [Action::Unlisten, Action::Order(1), Action::Order(2)]
    );
    children.handle_ended(1, End::Exit(0), at(5));
    assert!(actions(&mut children).is_empty());
    children.handle_ended(2, End::Exit(0), at(6));
    assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
    children.handle_ended(SWITCHBOARD, End::Exit(0), at(7));
    assert_eq!(actions(&mut children), [Action::Finish]);
    assert_eq!(children.deadline(), None);
}

#[test]
fn who_does_not_stop_in_time_is_killed_the_switchboard_with_them() {
    let mut children = running();
    children.handle_stop(None, at(0));
    actions(&mut children);
    children.handle_ended(1, End::Exit(0), at(5));
    assert_eq!(children.deadline(), Some(at(2000)));
    children.handle_elapsed(at(2000));
    assert_eq!(actions(&mut children), [Action::Kill(0), Action::Kill(2)]);
    children.handle_ended(0, End::Signal(9), at(2001));
    children.handle_ended(2, End::Signal(9), at(2002));
    assert_eq!(actions(&mut children), [Action::Finish]);
}

#[test]
fn nothing_is_started_any_more_once_stopping() {
    let mut children = running();
    die(&mut children, WORKER, 100);
    children.handle_stop(None, at(100));
    assert_eq!(actions(&mut children), [Action::Unlisten, Action::Order(2)]);
    children.handle_elapsed(at(1000));
    assert!(actions(&mut children).is_empty());
    children.handle_ended(2, End::Exit(1), at(1001));
    assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
}

#[test]
fn a_server_whose_children_all_wait_stops_at_once() {
    let mut children = Children::new(1, 1, [0; 16], at(0));
    children.handle_stop(None, at(0));
    assert_eq!(actions(&mut children), [Action::Unlisten, Action::Finish]);
}

#[test]
fn a_child_that_lost_its_pair_and_lives_on_is_killed() {
    let mut children = running();
    children.handle_link_lost(WORKER, at(100));
    children.handle_link_lost(WORKER, at(200));
    children.handle_elapsed(at(2099));
    assert!(actions(&mut children).is_empty());
    children.handle_elapsed(at(2100));
    assert_eq!(actions(&mut children), [Action::Kill(WORKER)]);
    die(&mut children, WORKER, 2101);
    assert_eq!(actions(&mut children), [Action::Start(WORKER)]);
}

const WINDOW: Duration = Duration::from_secs(30);

/// Starts and readies whatever is to be started.
fn start_all(children: &mut Children, ms: u64) -> Vec<Action> {
    let given = actions(children);
    for action in &given {
        if let Action::Start(index) = action {
            children.handle_started(*index, at(ms));
            children.handle_ready(*index, at(ms));
        }
    }
    given
}

fn outcome(children: &mut Children) -> (u32, Option<String>) {
    let outcome = children.poll_outcome().expect("an outcome");
    (outcome.replaced, outcome.failure)
}

#[test]
fn workers_are_replaced_one_by_one_and_the_old_drain_once_the_new_run() {
    let mut children = running();
    children.handle_replace_all(false, WINDOW, at(0));
    assert_eq!(start_all(&mut children, 1), [Action::Start(3)]);
    assert!(children.all_running());
    assert_eq!(
        start_all(&mut children, 2),
        [Action::Drain(WORKER, WINDOW), Action::Start(4)]
    );
    assert_eq!(start_all(&mut children, 3), [Action::Drain(2, WINDOW)]);
    assert_eq!(outcome(&mut children), (2, None));
    assert!(!children.is_replacing());
    for old in [WORKER, 2] {
        children.handle_ended(old, End::Exit(0), at(500));
        assert!(!children.rows()[old].is_listed());
    }
    assert!(actions(&mut children).is_empty());
    // The rows of those that left are used again, and no life is lived twice.
    children.handle_replace_all(false, WINDOW, at(600));
    assert_eq!(start_all(&mut children, 600), [Action::Start(WORKER)]);
    let mut lives: Vec<u32> = children.rows().iter().map(|row| row.life).collect();
    lives.sort_unstable();
    lives.dedup();
    assert_eq!(lives.len(), children.rows().len());
}

#[test]
fn a_successor_that_does_not_come_up_costs_nothing() {
    let mut children = running();
    children.handle_replace_all(false, WINDOW, at(0));
    assert_eq!(actions(&mut children), [Action::Start(3)]);
    children.handle_started(3, at(0));
    children.handle_ended(3, End::Exit(12), at(100));
    let (replaced, failure) = outcome(&mut children);
    assert_eq!(replaced, 0);
    assert!(failure.expect("a reason").contains("worker 0"));
    assert!(children.all_running() && actions(&mut children).is_empty());
    // One that hangs is killed, and then it is the same.
    children.handle_replace_all(false, WINDOW, at(0));
    assert_eq!(actions(&mut children), [Action::Start(3)]);
    children.handle_started(3, at(0));
    let due = at(0) + SUCCESSOR_PATIENCE;
    assert_eq!(children.deadline(), Some(due));
    children.handle_elapsed(due);
    assert_eq!(actions(&mut children), [Action::Kill(3)]);
}

#[test]
fn when_the_old_one_dies_first_its_successor_has_the_place() {
    let mut children = running();
    children.handle_replace_all(false, WINDOW, at(0));
    assert_eq!(actions(&mut children), [Action::Start(3)]);
    children.handle_started(3, at(0));
    children.handle_ended(WORKER, End::Signal(9), at(5));
    assert!(!children.all_running());
    assert_eq!(children.rows()[3].duty, Duty::Serves);
    assert_eq!(children.rows()[3].restarts, 1);
    children.handle_ready(3, at(10));
    // Nobody is left to drain; the next one's turn.
    assert_eq!(start_all(&mut children, 11), [Action::Start(WORKER)]);
    assert_eq!(actions(&mut children), [Action::Drain(2, WINDOW)]);
    assert_eq!(outcome(&mut children), (2, None));
}

#[test]
fn the_switchboard_is_restarted_first_when_it_is_concerned() {
    let mut children = running();
    children.handle_replace_all(true, WINDOW, at(0));
    assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
    children.handle_ended(SWITCHBOARD, End::Exit(0), at(5));
    children.handle_elapsed(at(5));
    assert_eq!(start_all(&mut children, 6), [Action::Start(SWITCHBOARD)]);
    assert_eq!(children.rows()[SWITCHBOARD].restarts, 0);
    assert_eq!(start_all(&mut children, 7), [Action::Start(3)]);
}

#[test]
fn a_child_in_back_off_is_started_at_once_by_a_reload() {
    let mut children = running();
    for _ in 0..5 {
        die(&mut children, WORKER, 100);
        actions(&mut children);
        children.handle_started(WORKER, at(100));
    }
    die(&mut children, WORKER, 100);
    assert!(wait_ms(&children, WORKER, 100) > 100);
    children.handle_replace_all(false, WINDOW, at(200));
    children.handle_elapsed(at(200));
    let given = actions(&mut children);
    assert!(given.contains(&Action::Start(WORKER)), "{given:?}");
}

#[test]
fn a_graceful_stop_drains_first_and_a_fast_one_overtakes_it() {
    let mut children = running();
    children.handle_stop(Some(WINDOW), at(0));
    let drains = [
        Action::Unlisten,
        Action::Drain(1, WINDOW),
        Action::Drain(2, WINDOW),
    ];
    assert_eq!(actions(&mut children), drains);
    children.handle_ended(1, End::Exit(0), at(10));
    assert!(actions(&mut children).is_empty());
    children.handle_stop(Some(WINDOW), at(20));
    assert!(actions(&mut children).is_empty());
    children.handle_stop(None, at(30));
    assert_eq!(actions(&mut children), [Action::Order(2)]);
    assert_eq!(children.deadline(), Some(at(30) + STOP_PATIENCE));
    children.handle_ended(2, End::Exit(0), at(40));
    assert_eq!(actions(&mut children), [Action::Order(SWITCHBOARD)]);
}

#[test]
fn a_stop_during_a_reload_ends_the_old_the_new_and_the_plan() {
    let mut children = running();
    children.handle_replace_all(false, WINDOW, at(0));
    start_all(&mut children, 1);
    actions(&mut children);
    children.handle_stop(None, at(2));
    assert!(outcome(&mut children).1.is_some());
    let given = actions(&mut children);
    for index in [WORKER, 2, 3] {
        assert!(given.contains(&Action::Order(index)), "{given:?}");
    }
    // The one that was only to be launched never was.
    assert_eq!(children.rows()[4].phase, Phase::Gone);
}

#[test]
fn who_drains_for_too_long_is_killed() {
    let mut children = running();
    children.handle_replace_all(false, WINDOW, at(0));
    start_all(&mut children, 1);
    start_all(&mut children, 1);
    let due = at(1) + WINDOW + LEAVE_PATIENCE;
    children.handle_elapsed(due);
    let given = actions(&mut children);
    assert!(given.contains(&Action::Kill(WORKER)), "{given:?}");
}

#[test]
fn one_that_is_condemned_is_killed_once_and_its_end_has_our_words() {
    let mut children = running();
    children.condemn(WORKER, "stuck".into(), at(5));
    children.condemn(WORKER, "again".into(), at(3));
    children.handle_elapsed(at(4));
    assert_eq!(actions(&mut children), []);
    children.handle_elapsed(at(5));
    assert_eq!(actions(&mut children), [Action::Kill(WORKER)]);
    die(&mut children, WORKER, 10);
    let end = children.rows()[WORKER].last_end.as_ref();
    assert_eq!(end.map(End::to_string).as_deref(), Some("stuck"));
}

#[test]
fn one_worker_alone_can_be_replaced_and_says_why() {
    let mut children = running();
    assert!(children.handle_replace(WORKER, "too heavy", WINDOW, at(0)));
    assert!(!children.handle_replace(2, "too heavy", WINDOW, at(0)));
    assert_eq!(start_all(&mut children, 1), [Action::Start(3)]);
    assert_eq!(actions(&mut children), [Action::Drain(WORKER, WINDOW)]);
    assert_eq!(
        children.rows()[3]
            .last_end
            .as_ref()
            .map(End::to_string)
            .as_deref(),
        Some("too heavy")
    );
    assert_eq!(outcome(&mut children), (1, None));
}

#[test]
fn one_that_is_never_ready_is_killed_waits_and_says_why() {
    let mut children = Children::new(1, 1, [0; 16], at(0));
    children.set_start_patience(Some(Duration::from_secs(20)));
    children.handle_elapsed(at(0));
    children.handle_started(SWITCHBOARD, at(0));
    children.handle_ready(SWITCHBOARD, at(0));
    let mut now = 0;
    for longest in [200, 400, 800] {
        children.handle_started(WORKER, at(now));
        actions(&mut children);
        assert_eq!(children.deadline(), Some(at(now + 20_000)));
        children.handle_elapsed(at(now + 19_999));
        assert!(actions(&mut children).is_empty());
        now += 20_000;
        children.handle_elapsed(at(now));
        assert_eq!(actions(&mut children), [Action::Kill(WORKER)]);
        let again = at(now) + STOP_PATIENCE;
        assert_eq!(children.deadline(), Some(again), "if it still lives then");
        // Twenty seconds of doing nothing are no good life.
        die(&mut children, WORKER, now);
        let wait = wait_ms(&children, WORKER, now);
        assert!(
            (longest / 2..=longest).contains(&wait),
            "{wait} of {longest}"
        );
        let end = children.rows()[WORKER]
            .last_end
            .as_ref()
            .map(End::to_string);
        assert_eq!(end.as_deref(), Some("not ready after 20 s, killed"));
        now += wait;
        children.handle_elapsed(at(now));
    }
    children.handle_started(WORKER, at(now));
    children.handle_ready(WORKER, at(now));
    children.handle_elapsed(at(now + 30_000));
    assert!(
        actions(&mut children)
            .iter()
            .all(|it| *it == Action::Start(WORKER))
    );
}

fn heir(role: Role, number: u32, leaves_within_ms: Option<u64>) -> Heir {
    Heir {
        pid: 7,
        role,
        number,
        life: number + 3,
        restarts: 2,
        last_end: Some("exit code 1".to_string()),
        leaves_within_ms,
        links: Vec::new(),
        pages: Vec::new(),
        log: None,
    }
}

#[test]
fn children_of_the_program_before_are_taken_up_as_they_were_and_replaced() {
    let heirs = [
        heir(Role::Switchboard, 0, None),
        heir(Role::Worker, 0, None),
        heir(Role::Worker, 0, Some(5000)),
    ];
    let mut children = Children::restore(&heirs, 1, 9, [0; 16], at(0));
    assert!(children.all_running());
    assert_eq!(children.deadline(), Some(at(5000)));
    assert_eq!(children.rows()[WORKER].restarts, 2);
    assert_eq!(
        children.leave(at(1000)),
        Some(vec![(0, None), (1, None), (2, Some(4000))])
    );
    children.handle_replace_all(false, Duration::from_secs(2), at(0));
    assert_eq!(
        children.leave(at(0)),
        None,
        "not while somebody is replaced"
    );
    assert_eq!(actions(&mut children), [Action::Start(3)]);
    assert_eq!(children.rows()[3].life, 10, "lives go on");
}

#[test]
fn nothing_is_left_to_another_program_while_a_child_starts_or_waits_or_all_stop() {
    let mut children = running();
    assert_eq!(children.leave(at(0)).map(|it| it.len()), Some(3));
    die(&mut children, WORKER, 100);
    assert_eq!(children.leave(at(100)), None);
    actions(&mut children);
    children.handle_started(WORKER, at(100));
    assert_eq!(children.leave(at(100)), None);
    children.handle_ready(WORKER, at(100));
    assert!(children.leave(at(100)).is_some());
    children.handle_stop(None, at(200));
    assert_eq!(children.leave(at(200)), None);
}
