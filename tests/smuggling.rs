//! HTTP request smuggling against the real program: on one socket, a request, then one that two
//! readers might cut differently, then another. Exactly the answers that the strict reading gives
//! come back, and after a refusal nothing that followed is taken up. The grammar itself, at every
//! cut, is tested in `src/session/http_strict_tests.rs`.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::{ECHO, PATIENCE, Server};

/// What an attacker wants to be taken for a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const BEFORE: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nbefore";
const AFTER: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nafter";

type Answers = Vec<(u16, String)>;

/// The answers to all that was sent on one connection, up to its orderly end.
fn exchange(address: &str, sent: &[u8]) -> Answers {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(sent).expect("sent");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    assert!(end.is_ok(), "{end:?} for {}", sent.escape_ascii());
    let mut rest = String::from_utf8(bytes).expect("answers in ASCII");
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_once("\r\n\r\n").expect("a whole head");
        let status: u16 = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        answers.push((status, behind[..length].to_string()));
        rest = behind[length..].to_string();
    }
    answers
}

/// Sends `doubtful` between two plain requests.
fn between(address: &str, doubtful: &str) -> Answers {
    exchange(address, format!("{BEFORE}{doubtful}{AFTER}").as_bytes())
}

/// The first is answered, the doubtful one refused with this status, and that is the end.
fn refused(address: &str, doubtful: &str, status: u16) {
    let answers = between(address, doubtful);
    let shown = doubtful.escape_debug();
    assert_eq!(answers.len(), 2, "{answers:?} for {shown}");
    assert_eq!(answers[0], (200, "before".to_string()), "{shown}");
    assert_eq!(answers[1].0, status, "{answers:?} for {shown}");
}

/// All three are answered; the one in the middle, which has one reading, like this.
fn taken(address: &str, clear: &str, status: u16, body: &str) {
    let answers = between(address, clear);
    let shown = clear.escape_debug();
    assert_eq!(answers.len(), 3, "{answers:?} for {shown}");
    assert_eq!(answers[0], (200, "before".to_string()), "{shown}");
    assert_eq!(answers[1].0, status, "{answers:?} for {shown}");
    assert!(answers[1].1.contains(body), "{answers:?} for {shown}");
    assert_eq!(answers[2], (200, "after".to_string()), "{shown}");
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn start() -> (Server, String) {
    let server = Server::start(&format!("workers = 1\n{ECHO}"));
    let address = server.address(0);
    (server, address)
}

#[test]
fn a_length_and_chunks_at_once_are_refused() {
    let (_server, address) = start();
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let length = format!("Content-Length: {}\r\n", chunks.len());
    let encoding = "Transfer-Encoding: chunked\r\n";
    // CL.TE and TE.CL, whichever of the two the other reader goes by.
    refused(
        &address,
        &post(&format!("{length}{encoding}"), &chunks),
        400,
    );
    refused(
        &address,
        &post(&format!("{encoding}{length}"), &chunks),
        400,
    );
    let hidden = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let short = format!("{encoding}Content-Length: 4\r\n");
    refused(&address, &post(&short, &hidden), 400);
    refused(
        &address,
        &post(&format!("{encoding}Content-Length: 0\r\n"), &hidden),
        400,
    );
    refused(
        &address,
        &post(
            "content-length: 4\r\nTRANSFER-ENCODING: CHUNKED\r\n",
            &hidden,
        ),
        400,
    );
}

#[test]
fn an_encoding_that_one_of_two_readers_may_miss_is_refused() {
    let (_server, address) = start();
    let body = format!("0\r\n\r\n{HIDDEN}");
    let table = [
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: x, chunked", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", 400),
        (
            "Transfer-Encoding: identity\r\nTransfer-encoding: chunked",
            400,
        ),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer-Encoding: x\r\n\tchunked", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\t: chunked", 400),
        (" Transfer-Encoding: chunked", 400),
        ("Transfer-Encoding\r\n: chunked", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding: chunked\u{b}", 400),
        ("Transfer-Encoding: chunked\0", 400),
        ("Transfer-Encoding:\u{a0}chunked", 400),
        ("Transfer-Encoding: 'chunked'", 501),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunk", 501),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("X: x\nTransfer-Encoding: chunked", 400),
        ("X: x\rTransfer-Encoding: chunked", 400),
        ("X: x\r\r\nTransfer-Encoding: chunked", 400),
        ("\0Transfer-Encoding: chunked", 400),
        ("Transfer-Encoding\u{17f}: chunked", 400),
    ];
    for (field, status) in table {
        // With a length beside it, by which the hidden request would be a body.
        let length = format!("Content-Length: {}\r\n", body.len());
        for fields in [
            format!("{length}{field}\r\n"),
            format!("{field}\r\n{length}"),
        ] {
            let answers = between(&address, &post(&fields, &body));
            let shown = fields.escape_debug();
            let codes: Vec<u16> = answers.iter().map(|(code, _)| *code).collect();
            assert!(
                [[200, 400], [200, 501]].iter().any(|it| codes == it),
                "{codes:?} for {shown}"
            );
        }
        refused(&address, &post(&format!("{field}\r\n"), &body), status);
    }
    let old = format!(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{body}"
    );
    refused(&address, &old, 400);
}

#[test]
fn a_body_belongs_to_its_request_also_where_nobody_wants_it() {
    let (_server, address) = start();
    let with_body = |line: &str| {
        format!(
            "{line}\r\nHost: a\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        )
    };
    let in_chunks = |line: &str| {
        let size = HIDDEN.len();
        format!(
            "{line}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        )
    };
    // CL.0: paths and methods that read no body, and answers that are errors.
    for (line, status, body) in [
        ("POST / HTTP/1.1", 200, HIDDEN),
        ("GET / HTTP/1.1", 200, "POST something"),
        ("GET /healthz HTTP/1.1", 200, "alive"),
        ("POST /healthz HTTP/1.1", 405, ""),
        ("DELETE /none HTTP/1.1", 405, ""),
        ("OPTIONS * HTTP/1.1", 204, ""),
    ] {
        taken(&address, &with_body(line), status, body);
        taken(&address, &in_chunks(line), status, body);
    }
    // 0.CL: a length that one reader takes for none.
    for field in [
        "Content-Length : 34",
        " Content-Length: 34",
        "Content-Length: +34",
        "Content-Length: 34, 0",
        "Content-Length: 0x22",
        "Content-Length: 34\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 34",
        "Content-Length: 34\r\nContent-Length: 34",
        "Content-Length:\r\n 34",
        "Content-Length: 18446744073709551650",
        "Content-Length: -0",
        "Content-Length\0: 34",
        "X: x\nContent-Length: 34",
    ] {
        refused(&address, &post(&format!("{field}\r\n"), HIDDEN), 400);
    }
    // Who expects what nobody knows may or may not send its body.
    let vague = format!(
        "Expect: y 100-continue\r\nContent-Length: {}\r\n",
        HIDDEN.len()
    );
    refused(&address, &post(&vague, HIDDEN), 417);
}

#[test]
fn chunks_end_where_every_reader_sees_the_end() {
    let (_server, address) = start();
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let size = HIDDEN.len();
    let last = "0\r\n\r\n";
    // Bare line ends and extensions in which another reader sees the end of the line.
    for bad in [
        format!("2;\nxx\r\n{size:x}\r\n{last}{HIDDEN}{last}"),
        format!("{size:x};\n{HIDDEN}\r\n{last}"),
        format!("2;a=\"\r\nxx\r\n{last}{HIDDEN}"),
        format!("2;a\rb\r\nxx\r\n{last}{HIDDEN}"),
        format!("2\rxx\r\n{last}{HIDDEN}"),
        format!("2\nxx\n0\n\n{HIDDEN}"),
        format!("5\r\nabc\r\n{last}{HIDDEN}"),
        format!("2\r\nxxXX0\r\n\r\n{HIDDEN}"),
        format!("2\r\nxxyz{last}{HIDDEN}"),
        format!("2\r\nxx\r{last}{HIDDEN}"),
        format!("0\r\n\r{HIDDEN}"),
        format!("0\r\nX: y\n\r\n{HIDDEN}"),
        format!("0\n\n{HIDDEN}"),
        format!("0_0\r\n\r\n{HIDDEN}"),
        format!("0x0\r\n\r\n{HIDDEN}"),
        format!("-0\r\n\r\n{HIDDEN}"),
        format!("{size:x} \r\n{HIDDEN}\r\n{last}"),
        format!("1000000000000000{size:x}\r\n{HIDDEN}\r\n{last}"),
        format!("\r\n{last}{HIDDEN}"),
    ] {
        refused(&address, &chunked(&bad), 400);
    }
    // A size that is one only to a reader with wide numbers is too large to both.
    refused(
        &address,
        &chunked(&format!("ffffffff{size:08x}\r\n{HIDDEN}\r\n{last}")),
        413,
    );
    taken(
        &address,
        &chunked(&format!("2;a=b\r\nxx\r\n{last}")),
        200,
        "xx",
    );
    // Trailers are no fields: whatever they say of framing comes too late.
    for trailer in [
        "Content-Length: 34",
        "Transfer-Encoding: chunked",
        "Host: b",
    ] {
        taken(
            &address,
            &chunked(&format!("2\r\nxx\r\n0\r\n{trailer}\r\n\r\n")),
            200,
            "xx",
        );
    }
}

#[test]
fn lines_fields_and_hosts_have_one_reading() {
    let (_server, address) = start();
    let line = "GET / HTTP/1.1\r\n";
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\n".to_string(),
        "GET / HTTP/1.1\rHost: a\r\r".to_string(),
        format!("{line}Host: a\r\nX: y\rGET /hidden HTTP/1.1\r\n\r\n"),
        format!("{line}Host: a\n{HIDDEN}"),
        format!("{line}Host: a\r\nX: y\r\n z\r\n\r\n"),
        format!("{line}\r\n{HIDDEN}"),
        format!("{line} Host: a\r\n\r\n"),
        format!("{line}Host : a\r\n\r\n"),
        format!("{line}Host: a\r\nHost: b\r\n\r\n"),
        format!("{line}Host: a\r\nHost: a\r\n\r\n"),
        format!("{line}Host: a, b\r\n\r\n"),
        format!("{line}Host: a@b\r\n\r\n"),
        format!("{line}Host: a/b\r\n\r\n"),
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_string(),
        "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n".to_string(),
        format!("{line}Host: a\r\nX Y: z\r\n\r\n"),
        format!("{line}Host: a\r\nX\u{e9}: z\r\n\r\n"),
        format!("{line}Host: a\r\n: z\r\n\r\n"),
        format!("{line}Host: a\r\nX\r\n\r\n"),
        format!("{line}Host: a\r\nX: \0\r\n\r\n"),
        format!("GET / HTTP/1.1 {HIDDEN}"),
        "GET /\r\n".to_string(),
        "GET / HTTP/1.1\u{b}\r\nHost: a\r\n\r\n".to_string(),
    ] {
        refused(&address, &bad, 400);
    }
    refused(&address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    refused(&address, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501);
    taken(
        &address,
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        200,
        "POST",
    );
    // An upgrade that nobody offers is no reason to read on in another protocol.
    let upgrade =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n";
    taken(
        &address,
        &format!("{line}Host: a\r\n{upgrade}\r\n"),
        200,
        "POST",
    );
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    refused(
        &address,
        &format!("{line}Host: a\r\n{upgrade}\r\n{HIDDEN}"),
        426,
    );
}
