//! Sessions of many requests, with a switchboard that says exactly what the test wants: what is sent
//! again, what is taken up once, who gives way, and what is lost aloud.

use std::time::Duration;

use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::{Origin, Peer};
use lineman::wire::bus::{Caller, Down, Errand, Outcome, Up};

use crate::worker_play::Play;
use crate::world::client::call;

const NAME: &str = "demo-key/1/s";
const PING: &str = "[\"{\\\"event\\\":\\\"pusher:ping\\\",\\\"data\\\":{}}\"]";
const PONG: &str = "a[\"{\\\"event\\\":\\\"pusher:pong\\\",\\\"data\\\":\\\"{}\\\"}\"]\n";
/// All that the client of an answer takes.
const ROOM: u32 = 262_144;

fn request(ask: &str, body: &str) -> Vec<u8> {
    call(
        "POST",
        &format!("/pusher/app/{NAME}/{ask}?protocol=7"),
        body,
    )
}

fn caller(ticket: u64) -> Caller {
    let (slot, life) = (7, 0);
    Caller { slot, life, ticket }
}

/// What a connection was sent since the last call.
fn said(play: &mut Play, conn: ConnId) -> String {
    String::from_utf8(play.hand.take(conn)).expect("text")
}

fn outcome(play: &mut Play, ticket: u64, outcome: Outcome<'_>) {
    play.tell(&Down::Outcome { ticket, outcome });
}

fn ask(play: &mut Play, from: Caller, errand: Errand<'_>) {
    let session = NAME;
    play.tell(&Down::Errand {
        from,
        session,
        errand,
    });
}

fn receive(have: Option<u32>) -> Errand<'static> {
    Errand::Receive {
        have,
        room: ROOM,
        opens: true,
    }
}

/// A worker that holds the session; its first poll was answered.
fn holder(limits: Limits) -> Play {
    let mut play = Play::new(limits);
    let conn = play.open(0);
    play.send(conn, &request("xhr", ""));
    let errand = format!("{:?}", receive(None));
    let asked = play.told();
    assert!(
        asked[0].contains(&errand) && asked[0].contains(NAME),
        "{asked:?}"
    );
    outcome(&mut play, 1, Outcome::Yours);
    let lines = said(&mut play, conn);
    assert!(lines.contains("\r\n\r\no{}\na[\"{\\\"event\\\":\\\"pusher:connection_established"));
    play
}

fn lines(number: u32, lines: &str, ticket: u64) -> String {
    let (session, lines) = (NAME, lines.as_bytes());
    let last = false;
    format!(
        "{:?}",
        Up::Outcome {
            to: caller(ticket),
            session,
            outcome: Outcome::Lines {
                number,
                lines,
                last,
            },
        }
    )
}

fn told_outcome(ticket: u64, outcome: Outcome<'_>) -> String {
    let (to, session) = (caller(ticket), NAME);
    format!(
        "{:?}",
        Up::Outcome {
            to,
            session,
            outcome,
        }
    )
}

fn ping() -> Vec<u8> {
    lineman::wire::sockjs::messages(PING.as_bytes()).expect("messages")
}

#[test]
fn lines_that_did_not_come_are_handed_over_again_and_posts_are_taken_up_once() {
    let mut play = holder(Limits::default());
    ask(&mut play, caller(1), receive(None));
    assert_eq!(play.told(), [""; 0], "nothing waits");
    for _ in 0..2 {
        ask(&mut play, caller(2), Errand::Post(&ping()));
    }
    let taken = told_outcome(2, Outcome::Taken);
    let pong = lines(1, PONG, 1);
    assert_eq!(play.told(), [&taken[..], &pong, &taken]);
    ask(&mut play, caller(1), receive(None));
    assert_eq!(play.told(), [lines(1, PONG, 1)]);
    ask(&mut play, caller(1), receive(Some(1)));
    assert_eq!(play.told(), [""; 0]);
    ask(&mut play, caller(3), Errand::Post(&ping()));
    let taken = told_outcome(3, Outcome::Taken);
    assert_eq!(play.told(), [taken, lines(2, PONG, 1)]);
}

#[test]
fn a_newer_receiver_takes_the_place_of_an_older_one_wherever_they_are() {
    let mut play = holder(Limits::default());
    ask(&mut play, caller(1), receive(None));
    ask(&mut play, caller(2), receive(None));
    assert_eq!(play.told(), [told_outcome(1, Outcome::Superseded)]);
    let here = play.open(0);
    play.send(here, &request("xhr", ""));
    assert_eq!(play.told(), [told_outcome(2, Outcome::Superseded)]);
    ask(&mut play, caller(3), receive(None));
    assert!(said(&mut play, here).ends_with("c[2010,\"Another connection still open\"]\n"));
    // Word from those who were replaced changes nothing.
    ask(&mut play, caller(2), Errand::Release { returns: false });
    ask(&mut play, caller(4), Errand::Post(&ping()));
    assert_eq!(play.told()[1], lines(1, PONG, 3));
}

#[test]
fn what_was_not_answered_goes_to_the_next_switchboard_in_its_order() {
    let mut play = Play::new(Limits::default());
    let (post, stream) = (play.open(0), play.open(0));
    play.send(post, &request("xhr_send", PING));
    play.send(stream, &request("xhr_streaming", ""));
    let asked = play.told();
    assert_eq!(asked.len(), 2);
    play.hand.lose(play.link);
    play.hand.pass(Duration::from_secs(1));
    play.link = play.hand.open(Origin::Dialled(Peer::Switchboard));
    let again = play.told();
    assert!(again[0].starts_with("Hello"), "{again:?}");
    assert_eq!(again[1], "Announced");
    assert_eq!(again[2..], asked);
    play.tell(&Down::Welcome);
    outcome(&mut play, 1, Outcome::Taken);
    assert!(said(&mut play, post).starts_with("HTTP/1.1 204 "));
    outcome(&mut play, 2, Outcome::Yours);
    assert!(said(&mut play, stream).contains("h\no{}\n"));
    play.hand.lose(play.link);
    play.hand.pass(Duration::from_secs(1));
    play.link = play.hand.open(Origin::Dialled(Peer::Switchboard));
    let held = format!("{:?}", Up::Sessions { names: vec![NAME] });
    assert_eq!(play.told()[1..], [held, "Announced".to_string()]);
}

#[test]
fn a_post_that_nobody_answers_is_lost_and_the_session_is_told() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &request("xhr_send", PING));
    play.told();
    play.hand.pass(Duration::from_secs(5));
    assert!(said(&mut play, conn).starts_with("HTTP/1.1 503 "));
    let told = play.told();
    assert!(told.len() == 1 && told[0].contains("Lost"), "{told:?}");

    let mut play = holder(Limits::default());
    let here = play.open(0);
    play.send(here, &request("xhr_streaming", ""));
    ask(&mut play, caller(1), Errand::Lost);
    let last = said(&mut play, here);
    assert!(
        last.ends_with("c[4200,\"Please reconnect immediately\"]\n"),
        "{last}"
    );
    let ended = format!("{:?}", Up::SessionEnded { name: NAME });
    assert_eq!(play.told(), [ended, told_outcome(1, Outcome::Taken)]);
}

#[test]
fn a_stream_that_is_full_is_given_nothing_until_there_is_another() {
    let mut play = Play::new(Limits::default());
    let conn = play.open(0);
    play.send(conn, &request("xhr_streaming", ""));
    play.told();
    let line = format!("a[\"{}\"]\n", "x".repeat(ROOM as usize));
    let (number, lines, last) = (1, line.as_bytes(), false);
    let full = Outcome::Lines {
        number,
        lines,
        last,
    };
    outcome(&mut play, 1, full);
    let released = format!("{:?}", Errand::Release { returns: true });
    let told = play.told();
    assert!(told.len() == 1 && told[0].contains(&released), "{told:?}");
    assert!(said(&mut play, conn).ends_with("\"]\n"));
    outcome(&mut play, 1, Outcome::Gone);
    assert_eq!(
        said(&mut play, conn),
        "",
        "it is no affair of this stream any more"
    );
}

#[test]
fn a_session_nobody_receives_for_is_over_and_so_is_one_whose_request_broke_off() {
    let mut play = holder(Limits::default());
    play.hand.pass(Duration::from_millis(19_900));
    assert_eq!(play.told(), [""; 0]);
    play.hand.pass(Duration::from_millis(200));
    let ended = format!("{:?}", Up::SessionEnded { name: NAME });
    assert_eq!(play.told(), [&ended[..]]);

    let mut play = holder(Limits::default());
    let conn = play.open(0);
    play.send(conn, &request("xhr", ""));
    play.hand.hang_up(conn);
    assert_eq!(play.told(), [&ended[..]]);

    let mut play = holder(Limits::default());
    ask(&mut play, caller(1), receive(None));
    play.hand.pass(Duration::from_secs(25));
    assert_eq!(play.told(), [lines(1, "h\n", 1)], "a heartbeat");
    ask(&mut play, caller(1), Errand::Release { returns: false });
    assert_eq!(play.told(), [&ended[..]]);
}
