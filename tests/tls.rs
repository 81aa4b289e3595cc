//! TLS on the real program: certificates by name, client certificates, tickets that any worker
//! takes, certificates changed under open connections, and peers that speak no TLS at all.

#[path = "support/authority.rs"]
mod authority;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::Authority;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};
use support::{PATIENCE, Place, Server, processes, wait_until};
use tungstenite::{Message, WebSocket};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A server whose certificate is for localhost, signed by an authority of its own. `tls` is added
/// to its table, `rest` follows.
fn start(workers: u32, tls: &str, rest: &str) -> (Server, Authority) {
    let authority = Authority::new();
    let place = Place::new("");
    authority.issue_into(&place, "first", "localhost");
    authority.issue_into(&place, "other", "other.example");
    std::fs::write(place.path().join("ca.pem"), &authority.pem).expect("written");
    place.configure(&format!(
        "workers = {workers}\n[[listen]]\nurl = \"https://127.0.0.1:0\"\nhandler = \"echo\"\n\
         [listen.tls]\ncertificate = \"first.pem\"\nkey = \"first.key\"\n{tls}\n{rest}"
    ));
    (Server::start_in(place), authority)
}

/// A connection whose handshake has not begun.
fn dial(address: &str, config: &Arc<ClientConfig>, name: &str) -> Tls {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    let name = ServerName::try_from(name.to_string()).expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    StreamOwned::new(session, stream)
}

fn open(address: &str, config: &Arc<ClientConfig>) -> WebSocket<Tls> {
    let stream = dial(address, config, "localhost");
    let (socket, _) = tungstenite::client("wss://localhost/", stream).expect("a handshake");
    socket
}

fn echoes(socket: &mut WebSocket<Tls>, text: &str) {
    socket.send(Message::text(text)).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text(text));
}

/// One GET; the whole answer. The orderly end of it is checked by reading to the end: without
/// close_notify, that is an error.
fn get(stream: &mut Tls) -> std::io::Result<String> {
    get_at(stream, "/healthz")
}

fn get_at(stream: &mut Tls, path: &str) -> std::io::Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn counter(server: &Server, name: &str) -> u64 {
    server.status()["total"][name].as_u64().unwrap_or(0)
}

#[test]
fn both_versions_serve_requests_and_messages_and_end_in_order() {
    let (server, authority) = start(1, "", "");
    let address = server.address(0);
    let both = [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, expected) in both {
        let mut config = authority.client(&[version], None);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let mut stream = dial(&address, &config, "localhost");
        let answer = get(&mut stream).expect("an answer and close_notify");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(stream.conn.protocol_version(), Some(expected));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut socket = open(&address, &config);
        echoes(&mut socket, "hello");
        socket.close(None).expect("a Close frame");
        assert!(matches!(socket.read(), Ok(Message::Close(_))));
        // The Close frames were exchanged, and then the server ends the stream as TLS wants it.
        let mut rest = Vec::new();
        let end = socket.get_mut().read_to_end(&mut rest);
        assert!(end.is_ok() && rest.is_empty(), "{end:?}");
    }
    assert_eq!(counter(&server, "tls_failed"), 0);
    // The second of each version came with the ticket of the first.
    assert_eq!(counter(&server, "tls_handshakes"), 4);
    assert_eq!(counter(&server, "tls_resumed"), 2);
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let (server, authority) = start(1, "min_version = \"1.3\"", "");
    let old = Arc::new(authority.client(&[&rustls::version::TLS12], None));
    assert!(get(&mut dial(&server.address(0), &old, "localhost")).is_err());
    let new = Arc::new(authority.client(&[&rustls::version::TLS13], None));
    assert!(get(&mut dial(&server.address(0), &new, "localhost")).is_ok());
    assert_eq!(counter(&server, "tls_failed"), 1);
}

#[test]
fn the_name_asked_for_picks_the_certificate() {
    let sni = "[[listen.tls.sni]]\nnames = [\"other.example\", \"*.wild.example\"]\n\
               certificate = \"other.pem\"\nkey = \"other.key\"";
    let (server, authority) = start(1, sni, "");
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    // The client checks the name itself.
    for name in ["localhost", "other.example"] {
        let mut stream = dial(&server.address(0), &config, name);
        assert!(get(&mut stream).is_ok(), "{name}");
    }
    assert!(get(&mut dial(&server.address(0), &config, "third.example")).is_err());
    let status = server.status();
    let certificates = &status["listen"][0]["certificates"];
    assert_eq!(certificates.as_array().map(Vec::len), Some(2));
    assert!(certificates[1]["days_left"].as_i64() > Some(14));
    assert_eq!(certificates[1]["names"][0], "other.example");
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    for (auth, without) in [("required", false), ("optional", true)] {
        let tls = format!("client_ca = \"ca.pem\"\nclient_auth = \"{auth}\"");
        let (server, authority) = start(1, &tls, "");
        let address = server.address(0);
        let try_with = |identity| {
            let config = Arc::new(authority.client(rustls::ALL_VERSIONS, identity));
            get(&mut dial(&address, &config, "localhost")).is_ok()
        };
        assert_eq!(try_with(None), without, "{auth}");
        assert!(try_with(Some(authority.issue("client"))), "{auth}");
        let stranger = Authority::new().issue("client");
        assert!(!try_with(Some(stranger)), "{auth}");
    }
}

#[test]
fn a_client_resumes_at_whichever_worker_it_comes_back_to() {
    let (server, authority) = start(3, "", "");
    let address = server.address(0);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = authority.client(&[version], None);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let mut resumed = 0;
        for _ in 0..40 {
            let mut stream = dial(&address, &config, "localhost");
            get(&mut stream).expect("an answer");
            if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
                resumed += 1;
            }
        }
        // All but the first, which had nothing to resume.
        assert_eq!(resumed, 39, "{version:?}");
    }
    let status = server.status();
    let served = processes(&status, "worker")
        .iter()
        .filter(|worker| worker["counters"]["tls_resumed"].as_u64() > Some(0))
        .count();
    assert!(served >= 2, "the kernel spread them");
}

#[test]
fn a_client_that_asks_for_nothing_gets_its_ticket() {
    let (server, authority) = start(1, "", "");
    let config = Arc::new(authority.client(&[&rustls::version::TLS13], None));
    let mut stream = dial(&server.address(0), &config, "localhost");
    while stream.conn.tls13_tickets_received() == 0 {
        let moved = stream.conn.complete_io(&mut stream.sock);
        assert_ne!(moved.expect("the ticket in time").0, 0, "ended without");
    }
}

#[test]
fn what_is_no_tls_is_told_so_and_closed() {
    let (server, authority) = start(1, "", "");
    let address = server.address(0);
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
        &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5],
        &[255; 4096],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(&address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an orderly end");
        // A fatal alert: RFC 8446 section 6.
        assert_eq!(answer.first(), Some(&0x15), "{answer:?} to {bytes:?}");
        assert_eq!((answer.len(), answer.get(5)), (7, Some(&2)), "{answer:?}");
    }
    // Half a greeting and then the end.
    let mut stream = TcpStream::connect(&address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut");
    assert_eq!(stream.read(&mut [0; 8]).expect("an orderly end"), 0);
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    echoes(&mut open(&address, &config), "still there");
    assert_eq!(counter(&server, "tls_failed"), 4);
}

#[test]
fn who_does_not_finish_the_handshake_is_ended() {
    let limits = "[limits]\ntls_handshake_seconds = 1\nhttp_head_seconds = 2\n";
    let (server, authority) = start(1, "", limits);
    let address = server.address(0);
    let mut silent = TcpStream::connect(&address).expect("the server listens");
    let mut slow = silent_hello(&address, &authority);
    // One that shook hands and says nothing is ended by the deadline of the head.
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    let mut mute = dial(&address, &config, "localhost");
    while mute.conn.is_handshaking() {
        mute.conn.complete_io(&mut mute.sock).expect("a handshake");
    }
    for stream in [&mut silent, &mut slow] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let end = stream.read_to_end(&mut Vec::new());
        assert!(end.map_or_else(
            |e| e.kind() == std::io::ErrorKind::ConnectionReset,
            |_| true
        ));
    }
    assert!(
        mute.read_to_end(&mut Vec::new()).is_ok(),
        "with close_notify"
    );
    wait_until("all are gone", || counter(&server, "connections") == 0);
    assert_eq!(counter(&server, "tls_failed"), 2);
    assert_eq!(counter(&server, "tls_late"), 2);
}

/// A connection that has sent half of a good ClientHello.
fn silent_hello(address: &str, authority: &Authority) -> TcpStream {
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a greeting");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(&hello[..hello.len() / 2]).expect("sent");
    stream
}

#[test]
fn a_storm_of_handshakes_does_not_stall_who_is_there() {
    let (server, authority) = start(1, "", "");
    let address = server.address(0);
    let mut config = authority.client(rustls::ALL_VERSIONS, None);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let mut there = open(&address, &config);
    let mut crowd: Vec<Tls> = (0..200)
        .map(|_| dial(&address, &config, "localhost"))
        .collect();
    // All greetings are on their way before any answer is read.
    for stream in &mut crowd {
        stream.conn.write_tls(&mut stream.sock).expect("sent");
    }
    for round in 0..20 {
        echoes(&mut there, &format!("round {round}"));
    }
    for stream in &mut crowd {
        assert!(get(stream).expect("an answer").starts_with("HTTP/1.1 200"));
    }
    assert_eq!(counter(&server, "tls_handshakes"), 201);
}

#[test]
fn large_messages_pass_both_ways() {
    let limits = "[limits]\nmessage_bytes = 20_000_000\noutbox_bytes = 20_000_000\n";
    let (server, authority) = start(1, "", limits);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.client(&[version], None));
        let mut socket = open(&server.address(0), &config);
        let bytes: Vec<u8> = (0..16u32 << 20).map(|i| (i % 251) as u8).collect();
        socket.send(Message::binary(bytes.clone())).expect("sent");
        assert!(socket.read().expect("an echo") == Message::binary(bytes));
        echoes(&mut socket, "and a small one");
    }
}

#[test]
fn a_slow_reader_is_cut_at_the_limit_over_tls_too() {
    let limits = "[limits]\noutbox_bytes = 262_144\n";
    let (server, authority) = start(1, "", limits);
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    let mut socket = open(&server.address(0), &config);
    let slow = socket.get_mut().sock.try_clone().expect("a copy");
    slow.set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    // It is not read from while it does not read: sending comes to a halt, memory does not grow.
    let message = Message::binary(vec![7; 60_000]);
    let mut sent = 0;
    while sent < 2000 && socket.send(message.clone()).is_ok() {
        sent += 1;
    }
    assert!(sent < 2000, "somebody swallowed {sent} messages");
}

#[test]
fn lines_and_frames_are_secured_as_well() {
    let authority = Authority::new();
    let place = Place::new("");
    authority.issue_into(&place, "first", "localhost");
    let listen = |scheme: &str| {
        format!(
            "[[listen]]\nurl = \"{scheme}://127.0.0.1:0\"\nhandler = \"echo\"\n\
             tls = {{ certificate = \"first.pem\", key = \"first.key\" }}\n"
        )
    };
    let all = ["text", "frame", "tcp"].map(listen).concat();
    place.configure(&format!("workers = 1\n{all}"));
    let server = Server::start_in(place);
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    let messages: [&[u8]; 3] = [b"hello\n", b"\0\0\0\x09hello", b"hello"];
    for (index, message) in messages.into_iter().enumerate() {
        let mut stream = dial(&server.address(index), &config, "localhost");
        stream.write_all(message).expect("sent");
        let mut echo = vec![0; message.len()];
        stream.read_exact(&mut echo).expect("an echo");
        assert_eq!(echo, message, "listener {index}");
    }
}

#[test]
fn certificates_change_under_open_connections() {
    let (server, authority) = start(2, "", "");
    let address = server.address(0);
    let config = Arc::new(authority.client(rustls::ALL_VERSIONS, None));
    let mut before: Vec<_> = (0..6).map(|_| open(&address, &config)).collect();
    let shown = || {
        let mut config = authority.client(rustls::ALL_VERSIONS, None);
        config.resumption = Resumption::disabled();
        let mut stream = dial(&address, &Arc::new(config), "localhost");
        get(&mut stream).expect("an answer");
        let chain = stream.conn.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    };
    let old = shown();
    // Broken files change nothing.
    std::fs::write(server.place.path().join("first.key"), "nonsense").expect("written");
    server.kill(server.pid(), 1);
    wait_until("it is told", || server.stderr().contains("in use stay"));
    assert_eq!(shown(), old);
    authority.issue_into(&server.place, "first", "localhost");
    server.kill(server.pid(), 1);
    let began = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 10 {
        in_a_row = if shown() == old { 0 } else { in_a_row + 1 };
        assert!(began.elapsed() < PATIENCE, "the old one is still shown");
    }
    for socket in &mut before {
        echoes(socket, "still there");
    }
    let status = server.status();
    for worker in processes(&status, "worker") {
        assert_eq!(worker["restarts"], 0);
    }
}

#[test]
fn a_reload_takes_up_certificates_and_configuration_together() {
    let (server, authority) = start(2, "", "");
    let address = server.address(0);
    let mut config = authority.client(rustls::ALL_VERSIONS, None);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let shown = || {
        let mut stream = dial(&address, &config, "localhost");
        let answer = get_at(&mut stream, "/").expect("an answer");
        let chain = stream.conn.peer_certificates().expect("a certificate");
        (chain[0].to_vec(), answer)
    };
    let (old, answer) = shown();
    assert!(answer.contains("POST something"), "{answer}");
    authority.issue_into(&server.place, "first", "localhost");
    let toml = std::fs::read_to_string(server.place.config()).expect("written before");
    let toml = toml.replace("handler = \"echo\"", "handler = \"channels\"");
    let app = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";
    std::fs::write(server.place.config(), toml + app).expect("written");
    let output = server.place.run(&["reload"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.status()["listen"][0]["handler"], "channels");
    // Both workers, most likely.
    for _ in 0..10 {
        let (new, answer) = shown();
        assert!(new != old && !answer.contains("POST something"), "{answer}");
    }
}

#[test]
fn check_and_start_refuse_certificates_that_cannot_serve() {
    let place = Place::new(
        "[[listen]]\nurl = \"wss://127.0.0.1:0\"\nhandler = \"echo\"\n\
         tls = { certificate = \"no.pem\", key = \"no.key\" }\n",
    );
    for verb in ["check", "start"] {
        let output = place.run(&[verb]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            told.contains("test.toml:5:") && told.contains("no.pem"),
            "{told}"
        );
    }
    let authority = Authority::new();
    authority.issue_into(&place, "no", "localhost");
    let output = place.run(&["check"]);
    assert!(output.status.success(), "{output:?}");
    // Tests write files that everybody may read.
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("everybody on this machine can read the key"),
        "{told}"
    );
}
