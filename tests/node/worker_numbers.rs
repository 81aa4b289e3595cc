//! A worker that is asked for the numbers of the whole server: one question to the master for all
//! who ask meanwhile, and an answer in time or a 503.

use std::time::Duration;

use lineman::base::limits::Limits;
use lineman::node::Origin;
use lineman::wire::control::{Order, Report};
use lineman::wire::numbers::Numbers;

use crate::worker_play::Play;

/// Of the listener with the handler `metrics`.
const METRICS: usize = 4;
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

fn gathered() -> Vec<u8> {
    Order::Gathered(Numbers::default()).encode()
}

#[test]
fn all_who_ask_at_once_share_one_question() {
    let mut play = Play::new(Limits::default());
    let master = play.hand.open(Origin::Master);
    play.hand.take(master);
    let askers = [play.open(METRICS), play.open(METRICS), play.open(METRICS)];
    for asker in askers {
        play.send(asker, SCRAPE);
    }
    assert_eq!(play.hand.take(master), Report::Gather.encode());
    play.hand.lose(askers[1]);
    play.hand.receive(master, &gathered());
    assert_eq!(play.statuses(askers[0]), [200]);
    assert_eq!(play.statuses(askers[2]), [200]);
    // What nobody asked for changes nothing; the next question is one.
    play.hand.receive(master, &gathered());
    play.send(askers[0], SCRAPE);
    assert_eq!(play.hand.take(master), Report::Gather.encode());
    play.hand.receive(master, &gathered());
    assert_eq!(play.statuses(askers[0]), [200]);
}

#[test]
fn a_master_that_says_nothing_becomes_503_in_time_and_so_does_a_crowd() {
    let mut play = Play::new(Limits::default());
    let asker = play.open(METRICS);
    play.send(asker, SCRAPE);
    assert_eq!(play.statuses(asker), [503], "there is no master");
    play.hand.open(Origin::Master);
    let crowd: Vec<_> = (0..65).map(|_| play.open(METRICS)).collect();
    for asker in &crowd {
        play.send(*asker, SCRAPE);
    }
    assert_eq!(play.statuses(crowd[64]), [503], "one too many");
    play.hand.pass(Duration::from_millis(4_999));
    assert_eq!(play.statuses(crowd[0]), [0; 0]);
    play.hand.pass(Duration::from_millis(1));
    for asker in &crowd[..64] {
        assert_eq!(play.statuses(*asker), [503]);
    }
}
