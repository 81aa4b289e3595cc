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
