//! Answers under every cut, answers that are none, connections that end.

use super::*;

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n";

fn at(millis: u64) -> Now {
    Now {
        moment: Moment::from_micros(millis * 1000),
        unix_ms: millis,
    }
}

fn asked() -> Caller {
    let mut caller = Caller::default();
    ask(&mut caller);
    caller
}

fn ask(caller: &mut Caller) {
    let mut out = Outbox::new(100);
    let within = Duration::from_secs(1);
    caller.ask(b"?", within, &mut out, at(0)).expect("room");
    assert_eq!(out.front(100), b"?");
}

/// What came of pieces that arrive one after the other.
fn feed(caller: &mut Caller, pieces: &[&[u8]]) -> Vec<CallerStep> {
    let mut held = Vec::new();
    let mut steps = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut inbox = Inbox::new(&mut held);
        let step = caller.next(&mut inbox);
        let taken = inbox.taken();
        held.drain(..taken);
        if step != CallerStep::Idle {
            steps.push(step);
        }
    }
    steps
}

fn answered(status: u16, keeps: bool) -> CallerStep {
    CallerStep::Answered { status, keeps }
}

#[test]
fn an_answer_is_understood_wherever_it_is_cut() {
    for (text, status) in [(PLAIN, 200), (CHUNKED, 503), (INTERIM, 204)] {
        for cut in 0..=text.len() {
            let (front, back) = text.as_bytes().split_at(cut);
            let mut caller = asked();
            let steps = feed(&mut caller, &[front, back]);
            assert_eq!(steps, [answered(status, true)], "{text:?} cut at {cut}");
            assert!(caller.is_resting());
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(feed(&mut asked(), &bytes), [answered(status, true)]);
    }
}

#[test]
fn a_connection_is_used_again_unless_somebody_said_otherwise() {
    let mut caller = asked();
    for _ in 0..3 {
        let steps = feed(&mut caller, &[PLAIN.as_bytes()]);
        assert_eq!(steps, [answered(200, true)]);
        ask(&mut caller);
    }
    let close = PLAIN.replace("OK\r\n", "OK\r\nConnection: close\r\n");
    let surplus = format!("{PLAIN}x");
    let long = PLAIN.replace("5", "99999999");
    for text in [close, surplus, long] {
        let steps = feed(&mut asked(), &[text.as_bytes()]);
        assert_eq!(steps, [answered(200, false)], "{text:?}");
    }
}

#[test]
fn what_is_no_answer_spends_the_connection() {
    let endless = "x".repeat(HEAD_BYTES);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
    for text in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        &endless,
        &interim,
    ] {
        let steps = feed(&mut asked(), &[text.as_bytes(), b"more"]);
        let broken = matches!(steps[..], [CallerStep::Broken { stale: false, .. }]);
        assert!(broken, "{steps:?}");
    }
    let unasked = feed(&mut Caller::default(), &[PLAIN.as_bytes()]);
    assert!(matches!(unasked[..], [CallerStep::Broken { .. }]));
}

#[test]
fn a_server_may_close_what_rests_and_the_question_is_asked_elsewhere() {
    let mut fresh = asked();
    assert!(matches!(
        fresh.ended(),
        CallerStep::Broken { stale: false, .. }
    ));
    let mut used = asked();
    feed(&mut used, &[PLAIN.as_bytes()]);
    ask(&mut used);
    assert!(matches!(
        used.ended(),
        CallerStep::Broken { stale: true, .. }
    ));
    // Whoever began to answer had the question.
    let mut begun = asked();
    feed(&mut begun, &[PLAIN.as_bytes()]);
    ask(&mut begun);
    feed(&mut begun, &[b"HTTP/1.1 2"]);
    assert!(matches!(
        begun.ended(),
        CallerStep::Broken { stale: false, .. }
    ));
    let mut cut = asked();
    feed(
        &mut cut,
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"],
    );
    assert_eq!(cut.ended(), answered(200, false));
}

#[test]
fn an_answer_has_its_time() {
    let mut caller = asked();
    assert_eq!(caller.deadline(), Some(at(1000).moment));
    assert_eq!(caller.elapsed(at(999)), CallerStep::Idle);
    let late = caller.elapsed(at(1000));
    assert!(
        matches!(late, CallerStep::Broken { stale: false, .. }),
        "{late:?}"
    );
    assert_eq!(caller.deadline(), None);
    assert_eq!(feed(&mut caller, &[PLAIN.as_bytes()]), []);
}
