//! Readers of Server-Sent Events, with real sockets: what they get, with which URL they may read what,
//! and how they are let go.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use support::requests::{holders, publish, request, signed};
use support::{DEMO, Server};

/// The fields of the next event of a stream of Server-Sent Events; comments are passed over.
fn next_event(stream: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).expect("a line"), 0, "the end");
        match line.trim_end() {
            "" if fields.is_empty() => {}
            "" => return fields,
            comment if comment.starts_with(':') => {}
            field => fields.push(field.to_string()),
        }
    }
}

fn signed_query(channels: &str, expires: u64, rest: &str) -> String {
    let query = format!("auth_key=demo-key{rest}&channels={channels}&expires={expires}");
    let signature = signed(&format!("GET\n/app/demo-key/sse\n{query}"));
    format!("/app/demo-key/sse?{query}&auth_signature={signature}")
}

#[test]
fn readers_get_events_of_public_channels_and_heartbeats() {
    let server = Server::start(&format!(
        "workers = 2\n{DEMO}[limits]\nhttp_heartbeat_seconds = 1\n"
    ));
    let address = server.address(0);
    let get = |path: &str| request(&address, "GET", path, "Origin: https://p.example\r\n", "");
    let (code, head, mut open) = get("/app/demo-key/sse?channels=a,b");
    assert_eq!(code, 200);
    for field in [
        "Content-Type: text/event-stream\r\n",
        "Access-Control-Allow-Origin: *\r\n",
    ] {
        assert!(head.contains(field), "{head}");
    }
    let retry = next_event(&mut open);
    assert!(retry[0].starts_with("retry: "), "{retry:?}");
    assert_eq!(
        next_event(&mut open)[0],
        "event: pusher:connection_established"
    );
    for channel in ["a", "b"] {
        let told = next_event(&mut open);
        assert!(
            told[1].contains(&format!("\"channel\":\"{channel}\"")),
            "{told:?}"
        );
    }
    publish(&server, "b", "1");
    let data = "data: {\"event\":\"news\",\"channel\":\"b\",\"data\":\"1\"}";
    assert_eq!(next_event(&mut open), ["event: news", data]);
    assert_eq!(holders(&server, "sse", "open").len(), 1);

    let mut comments = String::new();
    open.read_line(&mut comments).expect("a heartbeat");
    assert_eq!(comments, ":\n");
}

/// A reader's stream behind its first event, and the fields of that and of the success.
fn begin(server: &Server, channels: &str, last: &str) -> (BufReader<TcpStream>, Vec<String>) {
    let path = format!("/app/demo-key/sse?channels={channels}");
    let fields = match last {
        "" => String::new(),
        id => format!("Last-Event-ID: {id}\r\n"),
    };
    let (code, _, mut stream) = request(&server.address(0), "GET", &path, &fields, "");
    assert_eq!(code, 200);
    assert!(next_event(&mut stream)[0].starts_with("retry: "));
    assert!(next_event(&mut stream)[0].contains("connection_established"));
    let success = next_event(&mut stream);
    (stream, success)
}

fn id_of(event: &[String]) -> &str {
    event[0].strip_prefix("id: ").expect("an id")
}

#[test]
fn a_reader_that_comes_back_gets_what_it_missed() {
    let rule = "[[apps.history]]\npattern = \"kept-*\"\nevents = 3\n";
    let server = Server::start(&format!("workers = 2\n{DEMO}{rule}"));
    let (mut stream, success) = begin(&server, "kept-a", "");
    let nothing = id_of(&success).to_string();
    publish(&server, "kept-a", "1");
    let first = next_event(&mut stream);
    assert!(first[2].contains("\"data\":\"1\""), "{first:?}");
    drop(stream);
    publish(&server, "kept-a", "2");
    publish(&server, "kept-a", "3");
    let (mut stream, success) = begin(&server, "kept-a", id_of(&first));
    assert!(
        success[0].starts_with("event: "),
        "its id comes with the last of them"
    );
    assert!(success[1].contains("\"missed\":2"), "{success:?}");
    for number in [2, 3] {
        let event = next_event(&mut stream);
        assert!(
            event[2].contains(&format!("\"data\":\"{number}\"")),
            "{event:?}"
        );
    }
    publish(&server, "kept-a", "4");
    let last = next_event(&mut stream);
    assert!(last[2].contains("\"data\":\"4\""), "{last:?}");
    let (_, success) = begin(&server, "kept-a", id_of(&last));
    assert!(success[2].contains("\"missed\":0"), "{success:?}");
    assert_eq!(id_of(&success), id_of(&last));
    // Too long ago, of another channel, or nothing of ours.
    for id in [&nothing, "kept-b/0000000000000001/1", "7"] {
        let (_, success) = begin(&server, "kept-a", id);
        assert!(success[2].contains("\"recovered\":false"), "{success:?}");
    }
    // Without history there is nothing to go on from.
    let (mut stream, success) = begin(&server, "news", "7");
    publish(&server, "news", "1");
    let event = next_event(&mut stream);
    for fields in [&success, &event] {
        assert!(fields[0].starts_with("event: "), "{fields:?}");
    }
}

#[test]
fn channels_that_need_a_signature_need_it_over_the_whole_url() {
    let server = Server::start(&format!("workers = 2\n{DEMO}"));
    let address = server.address(0);
    let get = |path: &str| request(&address, "GET", path, "", "");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let private = "private-a,presence-b";
    let me = "&channel_data={\"user_id\":\"reader\"}";
    let (code, _, mut signed) = get(&signed_query(private, now + 60, me));
    assert_eq!(code, 200);
    let told: Vec<String> = (0..4).map(|_| next_event(&mut signed).concat()).collect();
    assert!(told[3].contains("reader"), "{told:?}");
    for (path, expected) in [
        (format!("/app/demo-key/sse?channels={private}"), 401),
        (signed_query(private, now - 1, me), 401),
        (
            signed_query(private, now + 60, me).replace("private-a", "private-c"),
            401,
        ),
        (
            signed_query("a", now + 60, "").replace("=a&", "=a,private-x&"),
            401,
        ),
        ("/app/demo-key/sse?channels=".to_string(), 400),
        ("/app/demo-key/sse?channels=a%20b".to_string(), 400),
        ("/app/nobody/sse?channels=a".to_string(), 404),
    ] {
        assert_eq!(get(&path).0, expected, "{path}");
    }
}

#[test]
fn readers_are_let_go_when_the_worker_is_replaced() {
    let server = Server::start(&format!("workers = 1\n{DEMO}"));
    let path = "/app/demo-key/sse?channels=a";
    let (_, _, mut stream) = request(&server.address(0), "GET", path, "", "");
    let mut reload = server.place.command(&["reload"]);
    let mut reload = reload
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an orderly end");
    assert!(rest.contains("4200"), "{rest}");
    assert!(reload.wait().expect("it ends").success());
    assert_eq!(request(&server.address(0), "GET", path, "", "").0, 200);
}
