//! The connection against a server of the h2 crate: cuts, limits, deadlines, ends.

use super::play::{Client, Pair, at, options};
use super::*;
use crate::base::bytes::Outbox;
use crate::base::dice::Dice;

fn pair() -> Pair {
    Pair::new(options(), 100)
}

/// A pair with `count` requests of which the server knows.
fn asked(count: usize) -> Pair {
    let mut pair = pair();
    pair.client.asks(count);
    pair.run();
    assert_eq!(pair.server.taken.len(), count);
    pair
}

#[test]
fn an_answer_is_understood_wherever_it_is_cut() {
    let answered = || {
        let mut pair = asked(4);
        let taken = std::mem::take(&mut pair.server.taken);
        for (taken, (status, body)) in
            taken
                .into_iter()
                .zip([(200, ""), (410, "gone"), (503, "x"), (204, "")])
        {
            taken.answer(status, body.as_bytes());
        }
        let down = pair.server.turn(&[]);
        (pair, down)
    };
    let expected = ["1: 200 ", "7: 204 ", "3: 410 gone", "5: 503 x"];
    let length = answered().1.len();
    for cut in 0..=length {
        let (mut pair, down) = answered();
        pair.client.feed(&down[..cut]);
        pair.client.feed(&down[cut..]);
        let mut told = pair.client.told();
        told.sort_by_key(|line| expected.iter().position(|other| other == line));
        assert_eq!(told, expected, "cut at {cut}");
        assert_eq!(pair.client.http2.under_way(), 0);
    }
}

#[test]
fn pieces_of_any_size_give_the_same_answers() {
    for piece in 1..80 {
        let mut pair = pair();
        pair.piece = piece;
        for round in 0..3 {
            pair.client.ask(&[b'a' + round; 20]).expect("room");
            pair.client.ask(b"").expect("room");
            pair.echo();
        }
        let told = pair.client.told();
        assert_eq!(told.len(), 6, "{told:?}");
        for line in [
            "1: 200 aaaaaaaaaaaaaaaaaaaa",
            "3: 200 ",
            "9: 200 cccccccccccccccccccc",
        ] {
            assert!(told.contains(&line.to_string()), "{told:?}");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = |seed: u8| {
        let mut dice = Dice::new([seed; 16]);
        let mut pair = pair();
        for _ in 0..40 {
            pair.piece = dice.below(60) as usize + 1;
            for _ in 0..dice.below(5) {
                let body = vec![b'x'; dice.below(3000) as usize];
                let _ = pair.client.ask(&body);
            }
            match dice.below(3) {
                0 => pair.wait(dice.below(15)),
                1 => pair.echo(),
                _ => pair.run(),
            }
        }
        (pair.client.told(), pair.client.wrote)
    };
    for seed in 0..8 {
        let (first, second) = (run(seed), run(seed));
        assert!(first == second, "seed {seed}");
        assert!(first.0.len() > 5, "{:?}", first.0);
    }
}

#[test]
fn one_request_goes_until_the_server_has_said_how_many() {
    let mut client = Client::new(options());
    assert_eq!(client.http2.room(), 1);
    assert_eq!(client.ask(b"a"), Ok(StreamKey(1)));
    assert_eq!(client.ask(b"b"), Err(NotAsked::Full));

    let mut pair = Pair::new(options(), 7);
    assert_eq!(pair.client.http2.room(), 7);
    pair.client.asks(7);
    assert_eq!(pair.client.ask(b""), Err(NotAsked::Full));
    pair.echo();
    assert_eq!(pair.client.http2.room(), 7);

    let few = Http2Options {
        streams_max: 3,
        ..options()
    };
    assert_eq!(Pair::new(few, 7).client.http2.room(), 3);
}

#[test]
fn where_a_token_signs_in_the_second_request_waits_for_the_first_answer() {
    let careful = Http2Options {
        start_with_one: true,
        ..options()
    };
    let mut pair = Pair::new(careful, 100);
    assert_eq!(pair.client.http2.room(), 1);
    pair.client.asks(1);
    assert_eq!(pair.client.http2.room(), 0);
    pair.echo();
    assert_eq!(pair.client.http2.room(), 100);
}

#[test]
fn a_thousand_requests_go_at_once() {
    let mut pair = Pair::new(options(), 1000);
    pair.client.asks(1000);
    pair.run();
    assert_eq!(pair.server.taken.len(), 1000);
    pair.echo();
    let told = pair.client.told();
    assert_eq!(told.len(), 1000);
    assert!(told.iter().all(|line| line.ends_with(": 200 {}")));
}

#[test]
fn long_bodies_wait_for_the_window_and_for_the_outbox() {
    let body: Vec<u8> = (0..900_000).map(|at| (at % 251) as u8).collect();
    let mut pair = pair();
    pair.client.ask(&body).expect("room");
    pair.client.poll();
    assert!(pair.client.out.len() < 160_000, "{}", pair.client.out.len());
    pair.run();
    let taken = pair.server.taken.pop().expect("a request");
    assert!(taken.is_whole() && taken.body == body);
    taken.answer(200, b"ok");
    pair.run();
    assert_eq!(pair.client.told(), ["1: 200 ok"]);
}

#[test]
fn bodies_have_a_bound_each_and_together() {
    let mut pair = pair();
    let long = vec![0; REQUEST_BYTES + 1];
    let refused = pair.client.ask(&long).expect_err("too long");
    assert_eq!(
        refused,
        NotAsked::Malformed("the body is over 1048576 bytes".to_string())
    );
    for _ in 0..8 {
        pair.client.ask(&long[1..]).expect("room");
    }
    assert_eq!(pair.client.ask(b"a"), Err(NotAsked::Full));
    pair.echo();
    assert_eq!(pair.client.ask(b"a"), Ok(StreamKey(17)), "room again");
}

#[test]
fn of_a_long_answer_a_part_is_kept_and_the_connection_goes_on() {
    let mut pair = asked(2);
    let second = pair.server.taken.pop().expect("a request");
    let first = pair.server.taken.pop().expect("a request");
    first.answer(500, &[b'x'; 300_000]);
    second.answer(500, &[b'y'; 65_536]);
    pair.run();
    let told = pair.client.told();
    assert_eq!(told.len(), 2);
    assert!(
        told.contains(&"1: 500 65536 bytes (cut)".to_string()),
        "{told:?}"
    );
    assert!(told.contains(&"3: 500 65536 bytes".to_string()), "{told:?}");
    pair.client.asks(1);
    pair.echo();
    assert_eq!(pair.client.told(), ["5: 200 {}"]);
}

#[test]
fn a_late_request_is_told_and_the_connection_goes_on() {
    let mut pair = asked(1);
    pair.wait(5);
    pair.client.asks(1);
    pair.wait(14);
    assert!(pair.client.told().is_empty());
    pair.client.wait(1000);
    assert_eq!(pair.client.told(), ["1: late"]);
    assert_eq!(pair.client.http2.room(), 99);
    // The server answers before it hears of that.
    pair.server.taken.remove(0).answer(200, b"{}");
    let down = pair.server.turn(&[]);
    pair.client.feed(&down);
    pair.echo();
    assert_eq!(pair.client.told(), ["3: 200 {}"]);
}

#[test]
fn many_late_requests_do_not_break_a_connection() {
    let mut pair = pair();
    for _ in 0..20 {
        pair.client.asks(60);
        pair.run();
        pair.wait(19);
        pair.client.wait(1000);
        assert_eq!(pair.client.told().len(), 60);
        for taken in pair.server.taken.drain(..) {
            taken.answer(200, b"{}");
        }
        let down = pair.server.turn(&[]);
        pair.client.feed(&down);
        pair.run();
    }
    pair.client.asks(1);
    pair.echo();
    assert_eq!(pair.client.told(), ["2401: 200 {}"]);
}

#[test]
fn an_answer_that_came_is_not_late_though_nobody_had_looked() {
    let mut pair = asked(1);
    pair.server.taken.pop().expect("a request").answer(200, b"");
    let down = pair.server.turn(&[]);
    pair.client.now = 25_000;
    pair.client.feed(&down);
    assert_eq!(pair.client.told(), ["1: 200 "]);
}

#[test]
fn a_server_that_shuts_down_loses_nothing() {
    for seed in 0..64 {
        let mut dice = Dice::new([seed; 16]);
        let mut pair = pair();
        pair.piece = dice.below(90) as usize + 1;
        let (mut asked, mut told) = (0, Vec::new());
        for round in 0..30 {
            let count = dice.below(10) as usize;
            asked += (0..count)
                .filter(|_| pair.client.ask(b"{}").is_ok())
                .count();
            for _ in 0..dice.below(4) {
                pair.step();
            }
            if round == 15 {
                pair.server.shut_down();
            }
            let count = dice.below(12) as usize;
            for taken in pair
                .server
                .taken
                .drain(..count.min(pair.server.taken.len()))
            {
                taken.answer(200, b"");
            }
            told.extend(pair.client.told());
        }
        pair.echo();
        told.extend(pair.client.told());
        assert!(pair.server.is_over());
        assert_eq!(told.pop().as_deref(), Some("drained"));
        told.retain(|line| !line.starts_with("goaway"));
        let mut keys: Vec<&str> = told
            .iter()
            .filter_map(|line| line.split(':').next())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), told.len()), (asked, asked), "seed {seed}");
        assert!(
            told.iter()
                .all(|line| line.contains(": 200") || line.contains(": refused"))
        );
    }
}

#[test]
fn a_connection_that_breaks_tells_what_was_never_sent_from_what_may_have_been() {
    let mut pair = asked(2);
    pair.client.asks(2);
    pair.client.end();
    let expected = ["1: lost", "3: lost", "5: refused", "7: refused", "broken"];
    assert_eq!(pair.client.told(), expected);
    assert!(
        pair.client.out.is_empty(),
        "what is refused does not leave any more"
    );
    assert_eq!(pair.client.ask(b""), Err(NotAsked::Leaving));
    assert_eq!(pair.client.http2.deadline(), None);
    pair.client.feed(b"more");
    pair.client.end();
    assert!(pair.client.told().is_empty());
}

#[test]
fn what_came_before_the_end_counts() {
    let mut pair = asked(3);
    let taken = std::mem::take(&mut pair.server.taken);
    let mut taken = taken.into_iter();
    taken.next().expect("a request").answer(200, b"all");
    let mut half = taken.next().expect("a request");
    let answer = http::Response::builder()
        .status(400)
        .body(())
        .expect("an answer");
    let mut stream = half.reply.send_response(answer, false).expect("a stream");
    stream.send_data("ha".into(), false).expect("a stream");
    let down = pair.server.turn(&[]);
    let mut bytes = down.clone();
    pair.client
        .http2
        .received(&mut Inbox::new(&mut bytes), at(0));
    pair.client.end();
    let mut told = pair.client.told();
    told.sort();
    assert_eq!(told, ["1: 200 all", "3: 400 ha (cut)", "5: lost", "broken"]);
}

#[test]
fn a_silent_connection_is_asked_and_given_up() {
    let mut pair = pair();
    pair.wait(301);
    assert_eq!(
        pair.client.http2.deadline(),
        Some(at(600_000).moment),
        "it answered"
    );
    pair.client.asks(1);
    pair.client.take_output();
    pair.client.wait(9_000);
    assert!(pair.client.out.is_empty());
    pair.client.wait(1_000);
    assert_eq!(pair.client.out.len(), 17, "a PING");
    pair.client.wait(10_000);
    assert_eq!(pair.client.told(), ["1: late", "broken"]);
}

#[test]
fn a_retired_connection_drains() {
    let mut pair = asked(2);
    pair.client.http2.retire();
    assert_eq!(
        (pair.client.http2.room(), pair.client.ask(b"")),
        (0, Err(NotAsked::Leaving))
    );
    pair.echo();
    assert_eq!(pair.client.told(), ["1: 200 {}", "3: 200 {}", "drained"]);
    let mut idle = self::pair();
    idle.client.http2.retire();
    idle.run();
    assert_eq!(idle.client.told(), ["drained"]);
    assert!(idle.server.is_over(), "it was told");
}

#[test]
fn a_connection_retires_when_its_keys_run_out() {
    let mut pair = pair();
    pair.client.http2.key_last = 5;
    for key in [1, 3, 5] {
        assert_eq!(pair.client.ask(b""), Ok(StreamKey(key)));
    }
    assert_eq!(pair.client.ask(b""), Err(NotAsked::Leaving));
    pair.echo();
    let told = pair.client.told();
    assert_eq!((told.len(), told[3].as_str()), (4, "drained"));
}

#[test]
fn a_request_that_is_none_costs_nobody_else_anything() {
    let mut pair = asked(1);
    let fields = [("connection", "close")];
    let request = Http2Request {
        method: "POST",
        path: "/",
        common: None,
        fields: &fields,
        body: "x".into(),
    };
    let refused = pair.client.http2.ask(&request, at(1000).moment, at(0));
    assert!(
        matches!(refused, Err(NotAsked::Malformed(_))),
        "{refused:?}"
    );
    let refused = pair.client.ask_path("no path", b"");
    assert!(
        matches!(refused, Err(NotAsked::Malformed(_))),
        "{refused:?}"
    );
    pair.client.asks(1);
    pair.echo();
    let told = pair.client.told();
    assert!(told.len() == 2 && told.iter().all(|line| line.ends_with(": 200 {}")));
}

#[test]
fn a_server_that_takes_nothing_is_not_read_from() {
    let mut client = Client::new(options());
    client.out = Outbox::new(usize::MAX);
    client.feed(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let pings = ping.repeat(1000);
    let mut fed = 0;
    while client.http2.wants_input() {
        client.feed(&pings);
        fed += 1;
        assert!(fed < 20, "it is read without end");
    }
    assert!(client.out.len() < 160 * 1024, "{}", client.out.len());
    assert!(client.told().is_empty());
    // It goes on where it was.
    client.take_output();
    assert!(client.out.take_awaited());
    client.poll();
    assert!(client.http2.wants_input());
}

#[test]
fn an_outbox_that_is_full_loses_nothing() {
    let mut pair = pair();
    pair.client.out = Outbox::new(300);
    let body = vec![b'z'; 5000];
    for _ in 0..20 {
        pair.client.ask(&body).expect("room");
    }
    pair.echo();
    let told = pair.client.told();
    assert_eq!(told.len(), 20);
    assert!(told.iter().all(|line| line.ends_with(": 200 5000 bytes")));
}
