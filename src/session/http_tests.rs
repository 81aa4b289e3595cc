//! What the HTTP session accepts, refuses and answers, whatever way its input is cut.

use super::*;

pub(super) const HOST: &str = "Host: a.example\r\n";

pub(super) fn at(seconds: u64) -> Now {
    Now {
        moment: Moment::from_micros(seconds * 1_000_000),
        unix_ms: 0,
    }
}

pub(super) fn small_limits() -> Limits {
    Limits {
        http_head_bytes: 1024,
        http_body_bytes: 100,
        ..Limits::default()
    }
}

/// A connection as a worker keeps it. Each request is answered with its own words.
pub(super) struct Client {
    http: Http,
    kept: Vec<u8>,
    out: Outbox,
    limits: Limits,
    /// Requests as `METHOD target body`, and the end.
    events: Vec<String>,
    ended: bool,
}

impl Client {
    pub(super) fn new(limits: Limits) -> Client {
        Client {
            http: Http::new(at(0)),
            kept: Vec::new(),
            out: Outbox::new(1 << 20),
            limits,
            events: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8], now: Now) {
        if self.ended {
            return;
        }
        self.kept.extend_from_slice(bytes);
        loop {
            let mut inbox = Inbox::new(&mut self.kept);
            let step = self.http.next(&mut inbox, &mut self.out, now, &self.limits);
            let taken = inbox.taken();
            let mut answer = None;
            let idle = match step {
                HttpStep::Idle => true,
                HttpStep::Request(request) => {
                    let Request { method, target, .. } = request;
                    let body = String::from_utf8_lossy(request.body);
                    self.events.push(format!("{method} {target} {body}"));
                    answer = Some(Response::text(200, target.to_string()));
                    false
                }
                HttpStep::Close(close) => {
                    self.events.push(format!("{close:?}"));
                    self.ended = true;
                    true
                }
            };
            self.kept.drain(..taken);
            if let Some(answer) = answer {
                let after = self.http.respond(&answer, &mut self.out, now);
                if after == Ok(AfterAnswer::Close) {
                    self.events.push("closed after answer".into());
                    self.ended = true;
                }
            }
            if idle || self.ended {
                return;
            }
        }
    }

    pub(super) fn output(&self) -> String {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let filled = self.out.slices(&mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        String::from_utf8(bytes).expect("answers are text")
    }
}

/// The status of the first answer, and whether the connection ended.
pub(super) fn answer(input: &[u8]) -> (u16, bool) {
    let mut client = Client::new(small_limits());
    client.send(input, at(0));
    let output = client.output();
    let status = output
        .get(9..12)
        .map_or(0, |s| s.parse().expect("a status"));
    (status, client.ended)
}

pub(super) fn check_refused(input: impl AsRef<[u8]>, status: u16) {
    let input = input.as_ref();
    let shown = String::from_utf8_lossy(input);
    assert_eq!(answer(input), (status, true), "{shown:?}");
    check_cuts(input);
}

pub(super) fn check_accepted(input: impl AsRef<[u8]>) {
    let input = input.as_ref();
    let shown = String::from_utf8_lossy(input);
    assert_eq!(answer(input).0, 200, "{shown:?}");
    check_cuts(input);
}

/// Events and output do not depend on how the input was cut.
pub(super) fn check_cuts(input: &[u8]) {
    let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut client = Client::new(small_limits());
        for piece in pieces {
            client.send(piece, at(0));
        }
        let output = client.output().replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        (client.events, output)
    };
    let whole = feed(&mut [input].into_iter());
    let shown = String::from_utf8_lossy(input);
    for cut in 1..input.len() {
        let (front, back) = input.split_at(cut);
        assert_eq!(
            feed(&mut [front, back].into_iter()),
            whole,
            "cut at {cut}: {shown:?}"
        );
    }
    assert_eq!(feed(&mut input.chunks(1)), whole, "byte by byte: {shown:?}");
}

pub(super) fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n")
}

pub(super) fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{HOST}{fields}\r\n{body}")
}

pub(super) fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub(super) fn events(input: impl AsRef<[u8]>) -> Vec<String> {
    check_cuts(input.as_ref());
    let mut client = Client::new(small_limits());
    client.send(input.as_ref(), at(0));
    client.events
}

#[test]
fn expectations_are_met_once_or_refused() {
    let expects = "Expect: 100-Continue\r\nContent-Length: 3\r\n";
    let mut client = Client::new(small_limits());
    client.send(post(expects, "").as_bytes(), at(0));
    assert_eq!(client.output(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"a", at(0));
    client.send(b"bc", at(0));
    assert_eq!(client.events, ["POST / abc"]);
    assert_eq!(client.output().matches("100 Continue").count(), 1);

    let mut client = Client::new(small_limits());
    client.send(post(expects, "abc").as_bytes(), at(0));
    assert!(
        !client.output().contains("100 Continue"),
        "the body is there"
    );

    let mut client = Client::new(small_limits());
    client.send(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        at(0),
    );
    assert_eq!(client.output(), "", "HTTP/1.0 knows no interim answers");

    check_refused(post("Expect: cake\r\nContent-Length: 3\r\n", "abc"), 417);
    check_accepted("GET / HTTP/1.0\r\nExpect: cake\r\n\r\n");
}

#[test]
fn requests_behind_each_other_are_answered_in_order() {
    let smuggled = post(
        "Content-Length: 34\r\n",
        "GET /inner HTTP/1.1\r\nHost: a\r\n\r\nxx",
    );
    let input = [
        &smuggled,
        &chunked("3\r\nabc\r\n0\r\n\r\n"),
        "\r\n",
        &get(""),
        "HEAD /head HTTP/1.1\r\n",
        HOST,
        "Connection: close\r\n\r\n",
        &get(""),
    ]
    .concat();
    let told = events(&input);
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[0].starts_with("POST / GET /inner"));
    assert_eq!(
        told[1..],
        ["POST / abc", "GET / ", "HEAD /head ", "closed after answer"]
    );
    let mut client = Client::new(small_limits());
    client.send(input.as_bytes(), at(0));
    let output = client.output();
    assert_eq!(output.matches("HTTP/1.1 200 OK\r\n").count(), 4);
    assert!(
        output.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\n"),
        "{output}"
    );
}

#[test]
fn nothing_is_read_after_a_fault() {
    let input = format!("GET / HTTP/1.1\r\n\r\n{}", get(""));
    let mut client = Client::new(small_limits());
    client.send(input.as_bytes(), at(0));
    assert_eq!(client.output().matches("HTTP/1.1").count(), 1);
    assert!(client.kept.is_empty());
    let mut more = get("").into_bytes();
    let mut inbox = Inbox::new(&mut more);
    let step = client
        .http
        .next(&mut inbox, &mut client.out, at(0), &client.limits);
    assert!(matches!(step, HttpStep::Idle));
    assert!(inbox.is_empty(), "what a broken peer sends is dropped");
}

#[test]
fn a_refusal_is_json_and_closes() {
    let mut client = Client::new(small_limits());
    client.send(b"GET / HTTP/1.1\r\n\r\n", at(0));
    assert_eq!(
        client.output(),
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 38\r\n\
         Connection: close\r\n\r\n{\"error\":\"Host is missing\",\"code\":400}"
    );
    assert_eq!(client.events, ["Violation(Protocol(\"Host is missing\"))"]);
    let mut client = Client::new(small_limits());
    client.send(b"HEAD / HTTP/1.1\r\n\r\n", at(0));
    assert!(
        client.output().ends_with("\r\n\r\n"),
        "no body in an answer to HEAD"
    );
}

#[test]
fn a_connection_persists_as_both_sides_wish() {
    let table = [
        ("HTTP/1.1", "", true, ""),
        ("HTTP/1.1", "Connection: close\r\n", false, "close"),
        ("HTTP/1.1", "Connection: a, Close\r\n", false, "close"),
        (
            "HTTP/1.1",
            "Connection: a\r\nConnection: close\r\n",
            false,
            "close",
        ),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true, ""),
        ("HTTP/1.0", "", false, "close"),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true, "keep-alive"),
        (
            "HTTP/1.0",
            "Connection: keep-alive, close\r\n",
            false,
            "close",
        ),
    ];
    for (version, fields, persists, said) in table {
        let mut client = Client::new(small_limits());
        client.send(
            format!("GET / {version}\r\n{HOST}{fields}\r\n").as_bytes(),
            at(0),
        );
        let output = client.output();
        assert_eq!(client.ended, !persists, "{version} {fields}");
        let line = output.lines().find_map(|l| l.strip_prefix("Connection: "));
        assert_eq!(line.unwrap_or(""), said, "{version} {fields}");
    }
}

/// Takes one request without answering it.
fn ask(http: &mut Http, input: &str) {
    let mut bytes = input.as_bytes().to_vec();
    let mut inbox = Inbox::new(&mut bytes);
    let mut out = Outbox::new(1000);
    let step = http.next(&mut inbox, &mut out, at(0), &Limits::default());
    assert!(matches!(step, HttpStep::Request(_)), "{input}");
}

fn answered(input: &str, response: &Response) -> (AfterAnswer, String) {
    let mut client = Client::new(Limits::default());
    ask(&mut client.http, input);
    let after = client.http.respond(response, &mut client.out, at(0));
    (after.expect("room"), client.output())
}

#[test]
fn answers_have_the_form_their_status_and_method_ask_for() {
    let (after, output) = answered(&get(""), &Response::empty(204));
    assert_eq!(
        (after, &*output),
        (AfterAnswer::KeepAlive, "HTTP/1.1 204 No Content\r\n\r\n")
    );

    let teapot = Response::html(418, "<p>").with_header("Allow", "GET, HEAD");
    let (_, output) = answered(&get(""), &teapot);
    assert_eq!(
        output,
        "HTTP/1.1 418 \r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 3\r\n\
         Allow: GET, HEAD\r\n\r\n<p>"
    );

    let closing = Response::text(503, "later").with_header("Connection", "close");
    let (after, output) = answered(&get(""), &closing);
    assert_eq!(after, AfterAnswer::Close);
    assert_eq!(output.matches("Connection: close\r\n").count(), 1);

    let split = Response::text(200, "").with_header("X", "a\r\nSet-Cookie: b".to_string());
    assert!(!answered(&get(""), &split).1.contains("Set-Cookie"));

    let quoted = Response::error(400, "a \"b\"\n");
    assert_eq!(
        &quoted.body[..],
        b"{\"error\":\"a \\\"b\\\"\\n\",\"code\":400}"
    );
}

#[test]
fn every_answer_tells_the_time_when_there_is_a_clock() {
    let date = "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let now = Now {
        unix_ms: 784_111_777_999,
        ..at(0)
    };
    for (input, status) in [(get(""), "200"), ("nonsense\r\n\r\n".into(), "400")] {
        let mut client = Client::new(Limits::default());
        client.send(input.as_bytes(), now);
        let output = client.output();
        assert!(
            output.starts_with(&format!("HTTP/1.1 {status}")),
            "{output}"
        );
        assert_eq!(output.matches(date).count(), 1, "{output}");
    }
    let (_, output) = answered(&get(""), &Response::empty(204));
    assert!(!output.contains("Date"), "no time is made up");
}

#[test]
fn an_answer_that_does_not_fit_is_not_begun() {
    let mut http = Http::new(at(0));
    ask(&mut http, &get(""));
    let mut out = Outbox::new(100);
    out.push(b"before").expect("room");
    let long = Response::text(200, "a".repeat(100));
    assert_eq!(http.respond(&long, &mut out, at(0)), Err(Full));
    assert_eq!(out.len(), 6);
    assert!(http.is_answering());
}

pub(super) const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
pub(super) const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
pub(super) const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

#[test]
fn a_websocket_handshake_is_answered_with_the_key_it_sent() {
    let input = get(&[UPGRADE, KEY, VERSION].concat());
    let frames = b"\x81\x80\0\0\0\0";
    let mut bytes = [input.as_bytes(), frames].concat();
    let mut inbox = Inbox::new(&mut bytes);
    let (mut http, mut out) = (Http::new(at(0)), Outbox::new(1000));
    match http.next(&mut inbox, &mut out, at(0), &Limits::default()) {
        HttpStep::Request(request) => assert!(request.wants_websocket()),
        other => panic!("{other:?}"),
    }
    http.upgrade(&mut out).expect("room");
    assert_eq!(inbox.rest(), frames);
    let mut client = Client::new(Limits::default());
    client.out = out;
    assert_eq!(
        client.output(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

fn lapse(client: &mut Client, seconds: u64) -> Option<Close> {
    let now = at(seconds);
    client.http.elapsed(&mut client.out, now, &client.limits)
}

#[test]
fn a_head_that_trickles_is_answered_408() {
    let mut client = Client::new(Limits::default());
    for (second, byte) in get("").bytes().take(9).enumerate() {
        client.send(&[byte], at(5 + second as u64));
        assert_eq!(lapse(&mut client, 5 + second as u64), None);
    }
    assert_eq!(lapse(&mut client, 14), None);
    assert_eq!(lapse(&mut client, 15), Some(Close::TooLate));
    assert!(
        client
            .output()
            .starts_with("HTTP/1.1 408 Request Timeout\r\n")
    );
    assert!(client.output().contains("Connection: close\r\n"));
    assert_eq!(client.http.deadline(&client.limits), None);
}

#[test]
fn a_body_that_trickles_is_answered_408() {
    for input in [post("Content-Length: 50\r\n", ""), chunked("32\r\n")] {
        let mut client = Client::new(Limits::default());
        client.send(input.as_bytes(), at(9));
        for second in 10..39 {
            client.send(b"a", at(second));
            assert_eq!(lapse(&mut client, second), None);
        }
        assert_eq!(lapse(&mut client, 39), Some(Close::TooLate));
        assert!(client.output().starts_with("HTTP/1.1 408 "));
    }
}

#[test]
fn a_quiet_connection_is_closed_silently() {
    let mut client = Client::new(Limits::default());
    assert_eq!(lapse(&mut client, 9), None);
    assert_eq!(lapse(&mut client, 10), Some(Close::TooLate));
    assert_eq!(client.output(), "");

    let mut client = Client::new(Limits::default());
    client.send(get("").as_bytes(), at(100));
    client.out.clear();
    assert_eq!(lapse(&mut client, 174), None);
    assert_eq!(lapse(&mut client, 175), Some(Close::Done));
    assert_eq!(client.output(), "");
}

#[test]
fn an_answer_that_is_not_taken_ends_the_connection() {
    let mut client = Client::new(Limits::default());
    client.send(get("").as_bytes(), at(100));
    assert_eq!(lapse(&mut client, 129), None);
    assert_eq!(lapse(&mut client, 130), Some(Close::Unread));

    // It was taken in time; the next one is not.
    let mut client = Client::new(Limits::default());
    client.send(get("").as_bytes(), at(100));
    client.out.clear();
    assert_eq!(lapse(&mut client, 130), None);
    client.send(get("").as_bytes(), at(140));
    assert_eq!(lapse(&mut client, 169), None);
    assert_eq!(lapse(&mut client, 170), Some(Close::Unread));
}

#[test]
fn an_answer_that_is_owed_has_no_deadline_here() {
    let mut http = Http::new(at(0));
    ask(&mut http, &get(""));
    assert_eq!(http.deadline(&Limits::default()), None);
}

#[test]
fn a_peer_that_hung_up_still_gets_its_answers() {
    let limits = Limits::default();
    let ok = Response::text(200, "");
    let mut out = Outbox::new(10_000);

    assert!(Http::new(at(0)).hung_up(), "nothing is owed");

    let mut http = Http::new(at(0));
    ask(&mut http, &get(""));
    assert!(!http.hung_up());
    assert_eq!(http.respond(&ok, &mut out, at(0)), Ok(AfterAnswer::Close));

    // A second request came whole before the end, and a part of a third.
    let mut http = Http::new(at(0));
    let mut bytes = [get(""), get(""), "GET".into()].concat().into_bytes();
    let mut inbox = Inbox::new(&mut bytes);
    let mut next = |http: &mut Http, out: &mut Outbox| {
        format!("{:?}", http.next(&mut inbox, out, at(0), &limits))
    };
    assert!(next(&mut http, &mut out).starts_with("Request"));
    assert_eq!(next(&mut http, &mut out), "Idle");
    assert!(!http.hung_up());
    assert_eq!(
        http.respond(&ok, &mut out, at(0)),
        Ok(AfterAnswer::KeepAlive)
    );
    assert!(next(&mut http, &mut out).starts_with("Request"));
    assert_eq!(
        http.respond(&ok, &mut out, at(0)),
        Ok(AfterAnswer::KeepAlive)
    );
    assert_eq!(next(&mut http, &mut out), "Close(PeerGone)");
}

#[test]
fn a_long_chunked_body_byte_by_byte_stays_cheap() {
    let limits = Limits::default();
    let (mut http, mut out) = (Http::new(at(0)), Outbox::new(1000));
    let body = "1;e\r\na\r\n".repeat(20_000) + "0\r\n\r\n";
    let mut bytes = chunked(&body).into_bytes();
    for len in 1..bytes.len() {
        let mut inbox = Inbox::new(&mut bytes[..len]);
        let step = http.next(&mut inbox, &mut out, at(0), &limits);
        assert!(matches!(step, HttpStep::Idle));
    }
    let mut inbox = Inbox::new(&mut bytes);
    match http.next(&mut inbox, &mut out, at(0), &limits) {
        HttpStep::Request(request) => assert_eq!(request.body, [b'a'; 20_000]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Http>() <= 64, "{}", size_of::<Http>());
}

#[test]
fn a_body_in_pieces_is_as_long_as_its_head_said_and_the_next_request_waits_for_it() {
    let mut http = Http::new(at(0));
    ask(&mut http, &get(""));
    let mut out = Outbox::new(1 << 20);
    let mut response = Response::text(200, "");
    response.file = Some(crate::base::files::FilePart {
        offset: 7,
        length: 5,
    });
    let after = http.respond(&response, &mut out, at(1));
    assert_eq!((after, http.owes()), (Ok(AfterAnswer::Body), 5));
    assert!(http.is_answering() && !http.hung_up());
    let mut next = get("").into_bytes();
    let mut inbox = Inbox::new(&mut next);
    let step = http.next(&mut inbox, &mut out, at(1), &Limits::default());
    assert!(matches!(step, HttpStep::Idle) && inbox.taken() == 0);
    assert_eq!(http.send(b"abc", &mut out, at(20)), Ok(AfterAnswer::Body));
    // Time is counted from the last piece.
    let limits = Limits::default();
    assert_eq!(http.deadline(&limits), Some(at(50).moment));
    assert_eq!(
        http.send(b"de", &mut out, at(49)),
        Ok(AfterAnswer::KeepAlive)
    );
    assert_eq!(http.owes(), 0);
    let step = http.next(&mut inbox, &mut out, at(50), &limits);
    assert!(matches!(step, HttpStep::Request(_)));
}

#[test]
fn who_takes_no_piece_in_time_is_cut_and_an_empty_or_unwanted_body_is_no_piece() {
    let mut out = Outbox::new(1 << 20);
    let part = |length| Some(crate::base::files::FilePart { offset: 0, length });
    let mut response = Response::text(200, "");
    let mut http = Http::new(at(0));
    ask(&mut http, &get(""));
    response.file = part(5);
    http.respond(&response, &mut out, at(1)).expect("room");
    let limits = Limits::default();
    assert_eq!(http.elapsed(&mut out, at(30), &limits), None);
    assert_eq!(
        http.elapsed(&mut out, at(31), &limits),
        Some(Close::TooSlow)
    );
    for (request, length) in [(get(""), 0), (get("").replace("GET", "HEAD"), 5)] {
        let mut http = Http::new(at(0));
        ask(&mut http, &request);
        response.file = part(length);
        let after = http.respond(&response, &mut out, at(1));
        assert_eq!(after, Ok(AfterAnswer::KeepAlive), "{request}");
    }
}
