//! Every rule that keeps two readers of the same bytes from seeing different requests, one table
//! each; every entry is tried whole, cut in two at each byte, and byte by byte.

use super::tests::*;
use super::*;
use crate::base::dice::Dice;

#[test]
fn line_ends_are_crlf_and_nothing_else() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\rX: b\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\r",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        check_refused(bad, 400);
    }
    check_accepted(format!("\r\n{}", get("")));
    check_accepted(format!("\r\n\r\n{}", get("")));
}

#[test]
fn field_lines_follow_the_grammar() {
    for bad in [
        "X : a\r\n",
        "X\t: a\r\n",
        " X: a\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        ": a\r\n",
        "X\r\n",
        "X(: a\r\n",
        "\u{e4}: a\r\n",
        "X\0: a\r\n",
        "X: a\0b\r\n",
        "X: a\x01b\r\n",
        "X: a\x7fb\r\n",
        "X: \x0bb\r\n",
    ] {
        check_refused(get(bad), 400);
    }
    check_accepted(get("X:\r\nY: \u{e4}\r\nZ:\tb\t \r\n"));
    let hundred = format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "X: a\r\n".repeat(99));
    assert_eq!(answer(hundred.as_bytes()).0, 200);
    check_refused(get(&"X: a\r\n".repeat(100)), 431);
}

#[test]
fn request_lines_follow_the_grammar() {
    let table = [
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("get / HTTP/1.1", 501),
        ("BREW / HTTP/1.1", 501),
        ("CONNECT a.example:80 HTTP/1.1", 501),
        ("TRACE / HTTP/1.1", 501),
    ];
    for (line, status) in table {
        check_refused(format!("{line}\r\n{HOST}\r\n"), status);
    }
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        check_accepted(format!("{method} / HTTP/1.1\r\n{HOST}\r\n"));
    }
}

#[test]
fn targets_come_in_origin_form_or_become_it() {
    let accepted = [
        ("GET", "/a/b?c=d?e", "/a/b?c=d?e"),
        ("GET", "//a", "//a"),
        ("OPTIONS", "*", "*"),
        ("GET", "http://a.example/b?c", "/b?c"),
        ("GET", "HTTPS://A.Example/b", "/b"),
        ("GET", "http://a.example", "/"),
        ("GET", "http://a.example?b=/c", "/?b=/c"),
        ("OPTIONS", "http://a.example", "*"),
    ];
    for (method, target, told) in accepted {
        let input = format!("{method} {target} HTTP/1.1\r\n{HOST}\r\n");
        assert_eq!(events(&input), [format!("{method} {told} ")]);
    }
    for bad in [
        "a",
        "*",
        "*/",
        "/a#b",
        "/a\\b",
        "/\u{e4}",
        "/a\x01",
        "/a\x7f",
        "?a",
        "a.example:80",
        "ftp://a.example/",
        "http:/a.example/",
        "http:///a",
        "http://u@a.example/",
        "http://b.example/",
        "http://a.example:80/",
    ] {
        check_refused(format!("GET {bad} HTTP/1.1\r\n{HOST}\r\n"), 400);
    }
}

#[test]
fn one_valid_host_is_required() {
    check_refused("GET / HTTP/1.1\r\n\r\n", 400);
    for bad in [
        "", "a,b", "a b", "u@a", "a/b", "a:b", "a:99999", "a:-1", "[::1", "[]", "[x]", "a:1:2",
        "\u{e4}", "a?b", "a#b", ":80", "a\"b",
    ] {
        check_refused(format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n"), 400);
        check_refused(format!("GET / HTTP/1.0\r\nHost: {bad}\r\n\r\n"), 400);
    }
    check_refused(get("Host: a.example\r\n"), 400);
    check_refused(get("host: b\r\n"), 400);
    for good in [
        "a",
        "a:80",
        "a:",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
        "a_b-c.d~",
    ] {
        check_accepted(format!("GET / HTTP/1.1\r\nHost:{good}\r\n\r\n"));
    }
    check_accepted("GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn content_length_has_one_reading() {
    for bad in [
        "",
        "-1",
        "+1",
        "0x1",
        "0o1",
        "1_0",
        "1 0",
        "1,1",
        "1, 1",
        "1;",
        "a",
        "1.0",
        "\"1\"",
        "99999999999999999999",
        "18446744073709551616",
        "-18446744073709551615",
    ] {
        check_refused(post(&format!("Content-Length: {bad}\r\n"), "a"), 400);
    }
    check_refused(post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400);
    check_refused(
        post("Content-Length: 1\r\ncontent-length: 2\r\n", "ab"),
        400,
    );
    check_accepted(post("Content-Length: 0\r\n", ""));
    assert_eq!(
        events(post("Content-Length: 003\r\n", "abc")),
        ["POST / abc"]
    );
    let with_body = format!("GET / HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc");
    assert_eq!(events(with_body), ["GET / abc"]);
}

#[test]
fn a_long_body_is_refused_before_it_is_read() {
    assert_eq!(
        answer(post("Content-Length: 100\r\n", "").as_bytes()),
        (0, false)
    );
    check_refused(post("Content-Length: 101\r\n", ""), 413);
    check_refused(post("Content-Length: 18446744073709551615\r\n", ""), 413);
    check_refused(
        post("Expect: 100-continue\r\nContent-Length: 101\r\n", ""),
        413,
    );
    check_refused(chunked("65\r\n"), 413);
    check_refused(chunked("ffffffffffffffff\r\n"), 413);
    check_refused(
        chunked(&"1e\r\n012345678901234567890123456789\r\n".repeat(4)),
        413,
    );
}

#[test]
fn transfer_encoding_is_chunked_or_refused() {
    let table = [
        ("gzip", 501),
        ("xchunked", 501),
        ("identity", 501),
        ("gzip, chunked", 501),
        ("", 400),
        (",", 400),
        ("chunked,", 400),
        (", chunked", 400),
        ("chunked, chunked", 400),
        ("chunked, gzip", 400),
        ("chunked;a=b", 400),
        ("\"chunked\"", 400),
        ("chun ked", 400),
        ("chunked\x0b", 400),
        ("\x0cchunked", 400),
        ("chunked\0", 400),
        ("chunked\r\n gzip", 400),
    ];
    for (value, status) in table {
        check_refused(
            post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n"),
            status,
        );
    }
    let chunked_length = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    check_refused(post(chunked_length, "0\r\n\r\n"), 400);
    let length_chunked = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    check_refused(post(length_chunked, "0\r\n\r\n"), 400);
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    check_refused(post(twice, "0\r\n\r\n"), 400);
    check_refused(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
    check_accepted(post("Transfer-Encoding:\tCHUNKED \r\n", "0\r\n\r\n"));
}

#[test]
fn chunks_are_joined() {
    let table = [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("1\r\na\r\nA\r\n0123456789\r\n0000\r\n\r\n", "a0123456789"),
        ("000000000000000a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("2;a\r\n\r\n\r\n0;b=\"c\"\r\n\r\n", "\r\n"),
        ("2;a=\";\\\"\" ; b\r\nab\r\n0\r\n\r\n", "ab"),
        ("2; a=b ;c\r\nab\r\n0\r\nX: y\r\nZ:\r\n\r\n", "ab"),
    ];
    for (body, told) in table {
        assert_eq!(events(chunked(body)), [format!("POST / {told}")]);
    }
}

#[test]
fn chunk_framing_has_one_reading() {
    for bad in [
        "\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "1_0\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\t;a\r\na\r\n0\r\n\r\n",
        "g\r\na\r\n0\r\n\r\n",
        "00000000000000001\r\na\r\n0\r\n\r\n",
        "1;\r\na\r\n0\r\n\r\n",
        "1;a;\r\na\r\n0\r\n\r\n",
        "1;=a\r\na\r\n0\r\n\r\n",
        "1;a=\r\na\r\n0\r\n\r\n",
        "1;a b\r\na\r\n0\r\n\r\n",
        "1;a=\"\r\na\r\n0\r\n\r\n",
        "1;a=\"\\\"\r\na\r\n0\r\n\r\n",
        "1;a=\"b\"c\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1;a\rb\r\na\r\n0\r\n\r\n",
        "1;a\0\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1\ra\r0\r\r",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\r0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX: a\r\r\n",
        "0\r\n X: a\r\n\r\n",
    ] {
        check_refused(chunked(bad), 400);
    }
    check_refused(chunked(&format!("1;{}\r\na\r\n", "e".repeat(300))), 400);
    check_refused(chunked(&format!("0\r\nX: {}", "e".repeat(1100))), 431);
    check_refused(chunked(&format!("0\r\n{}\r\n", "X:\r\n".repeat(101))), 431);
    // Framing that outweighs what it carries by far.
    let padded = format!("1;{}\r\na\r\n", "e".repeat(200));
    check_refused(chunked(&padded.repeat(3)), 413);
}

#[test]
fn heads_are_bounded() {
    let long_target = format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(600));
    check_refused(long_target, 414);
    check_refused("a".repeat(600), 414);
    let long_field = get(&format!("X: {}\r\n", "a".repeat(1000)));
    check_refused(long_field, 431);
    let rest = 1024 - get("X: \r\n").len();
    check_accepted(get(&format!("X: {}\r\n", "a".repeat(rest))));
    check_refused(get(&format!("X: {}\r\n", "a".repeat(rest + 1))), 431);
    let line = "GET / HTTP/1.1\r\n".len();
    let fit = format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(512 - line));
    check_accepted(fit);
    let over = format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(513 - line));
    check_refused(over, 414);
}

#[test]
fn a_faulty_websocket_handshake_is_refused() {
    let version = |value: &str| get(&format!("{UPGRADE}{KEY}Sec-WebSocket-Version: {value}\r\n"));
    for wrong in ["8", "14", "013", "", "13, 8"] {
        check_refused(version(wrong), 426);
    }
    check_refused(get(&[UPGRADE, KEY].concat()), 426);
    let mut client = Client::new(small_limits());
    client.send(version("8").as_bytes(), at(0));
    assert!(
        client
            .output()
            .contains("\r\nSec-WebSocket-Version: 13\r\n")
    );

    check_refused(get(&[UPGRADE, VERSION].concat()), 400);
    for wrong in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25j*Q==",
    ] {
        let key = format!("Sec-WebSocket-Key: {wrong}\r\n");
        check_refused(get(&[UPGRADE, VERSION, &key].concat()), 400);
    }
    check_refused(get(&[UPGRADE, VERSION, KEY, KEY].concat()), 400);
    check_refused(
        get(&[UPGRADE, VERSION, KEY, "Content-Length: 1\r\n"].concat()),
        400,
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    check_refused(get(&[UPGRADE, VERSION, KEY, chunked].concat()), 400);
}

#[test]
fn what_is_not_quite_a_websocket_handshake_is_an_ordinary_request() {
    let whole = [UPGRADE, KEY, VERSION].concat();
    let table = [
        (
            get(&[KEY, VERSION, "Upgrade: websocket\r\n"].concat()),
            false,
        ),
        (
            get(&[KEY, VERSION, "Connection: Upgrade\r\n"].concat()),
            false,
        ),
        (
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
            false,
        ),
        (
            get(&whole.replace("WebSocket\r\n", "websockets\r\n")),
            false,
        ),
        (format!("POST / HTTP/1.1\r\n{HOST}{whole}\r\n"), false),
        (format!("GET / HTTP/1.0\r\n{HOST}{whole}\r\n"), false),
        (
            get(&whole.replace("WebSocket\r\n", "h2c, websocket\r\n")),
            true,
        ),
    ];
    for (input, wanted) in table {
        let mut bytes = input.clone().into_bytes();
        let (mut http, mut out) = (Http::new(at(0)), Outbox::new(1000));
        match http.next(
            &mut Inbox::new(&mut bytes),
            &mut out,
            at(0),
            &Limits::default(),
        ) {
            HttpStep::Request(request) => assert_eq!(request.wants_websocket(), wanted, "{input}"),
            other => panic!("{other:?}: {input}"),
        }
    }
}

#[test]
fn a_request_inside_a_body_is_no_request() {
    let inner = get("X: inner\r\n");
    let length = format!("Content-Length: {}\r\n", inner.len());
    let input = post(&length, &inner) + &get("");
    assert_eq!(
        events(input).len(),
        2,
        "the outer one and the one behind it"
    );
    let size = inner.len();
    let input = chunked(&format!("{size:x}\r\n{inner}\r\n0\r\n\r\n"));
    assert_eq!(events(input).len(), 1);
}

/// Requests with bytes changed, lost and doubled: no reading may depend on the cuts or panic.
#[test]
fn damaged_requests_have_one_reading_too() {
    let seeds = [
        chunked("5;a=b\r\nabcde\r\n1\r\nf\r\n0\r\nX: y\r\n\r\n") + &get(""),
        post("Expect: 100-continue\r\nContent-Length: 5\r\n", "abcde") + &get("A: b\r\n"),
        "GET http://a.example?b HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".into(),
    ];
    let mut dice = Dice::new([7; 16]);
    for round in 0..600 {
        let mut input = seeds[round % seeds.len()].clone().into_bytes();
        for _ in 0..=dice.below(2) {
            let at = dice.below(input.len() as u64) as usize;
            let byte = b"\r\n \t:;,0a\0/*\xff"[dice.below(13) as usize];
            match dice.below(3) {
                0 => input[at] = byte,
                1 => input.insert(at, byte),
                _ => drop(input.remove(at)),
            }
        }
        check_cuts(&input);
    }
}
