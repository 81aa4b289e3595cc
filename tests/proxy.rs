//! Clients behind proxies, on the real program: the address that a PROXY header or a request header
//! tells is the one that is shown, and nobody tells one who is not trusted. A real HAProxy stands in
//! front of the last test.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use support::{PATIENCE, Place, Server, pid_of, processes, wait_until};
use tungstenite::{Message, WebSocket};

/// One listener with an echo, and what it believes.
fn listener(url: &str, rest: &str) -> String {
    format!("[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n{rest}\n")
}

const LOCAL_PROXY: &str = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]";
const LOCAL_HEADER: &str = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// The rows of `connections --json`.
fn rows(server: &Server) -> Vec<Value> {
    let output = server.place.run(&["connections", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    list["connections"].as_array().expect("a list").clone()
}

/// The address and the proxy of the only connection.
fn seen(server: &Server) -> (String, String) {
    let rows = rows(server);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let text = |name: &str| rows[0][name].as_str().unwrap_or("").to_string();
    (text("remote"), text("via"))
}

fn counter(server: &Server, name: &str) -> u64 {
    server.status()["total"][name].as_u64().expect("a counter")
}

fn none_is_left(server: &Server) {
    wait_until("the connection is gone", || rows(server).is_empty());
}

/// The peer ended the connection, whether by an end or by a reset.
fn is_ended(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let head = b"\r\n\r\n\0\r\nQUIT\n";
    let length = (block.len() as u16).to_be_bytes();
    [head, &[0x20 | command, family][..], &length, block].concat()
}

/// 203.0.113.9:4321 and a TLV.
fn tcp4() -> Vec<u8> {
    let block = [203, 0, 113, 9, 10, 0, 0, 1, 0x10, 0xe1, 1, 187, 4, 0, 1, 0];
    binary(1, 0x11, &block)
}

fn echoes(socket: &mut WebSocket<impl Read + Write>) {
    socket.send(Message::text("hello")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text("hello"));
}

#[test]
fn a_header_of_either_version_tells_the_address_and_what_follows_is_served() {
    let server = Server::start(&format!(
        "{}{}",
        listener("http://127.0.0.1:0", LOCAL_PROXY),
        listener("text://127.0.0.1:0", LOCAL_PROXY),
    ));
    let line = b"PROXY TCP6 2001:db8::9 ::1 4321 443\r\n".to_vec();
    for (header, expected) in [
        (line, Some("[2001:db8::9]:4321")),
        (tcp4(), Some("203.0.113.9:4321")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (binary(0, 0, &[]), None),
    ] {
        let mut stream = connect(&server.address(0));
        let own = stream.local_addr().expect("an address").to_string();
        stream.write_all(&header).expect("sent");
        let (mut socket, _) = tungstenite::client("ws://x/", stream).expect("a handshake");
        echoes(&mut socket);
        let (remote, via) = seen(&server);
        match expected {
            Some(expected) => assert_eq!((remote, via), (expected.to_string(), own)),
            None => assert_eq!((remote, via), (own, String::new())),
        }
        drop(socket);
        none_is_left(&server);
    }
    // In one packet with what follows, and cut anywhere.
    let whole = [&tcp4()[..], b"hello\n"].concat();
    for cut in [1, 12, 15, 16, 31, 32, 33, whole.len()] {
        let mut stream = connect(&server.address(1));
        for part in [&whole[..cut], &whole[cut..]] {
            stream.write_all(part).expect("sent");
            // Until the server has read it, or the parts would arrive as one.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).expect("an echo");
        assert_eq!(&answer, b"hello\n");
    }
    assert_eq!(counter(&server, "proxy_failed"), 0);
}

#[test]
fn the_header_comes_before_the_tls_handshake() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_string()]).expect("a certificate");
    let place = Place::new("");
    let write = |name: &str, text: String| std::fs::write(place.path().join(name), text);
    write("c.pem", cert.pem()).expect("written");
    write("k.pem", signing_key.serialize_pem()).expect("written");
    let tls = format!("{LOCAL_PROXY}\ntls = {{ certificate = \"c.pem\", key = \"k.pem\" }}");
    place.configure(&listener("https://127.0.0.1:0", &tls));
    let server = Server::start_in(place);
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("an authority");
    let config =
        ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let config = config.with_safe_default_protocol_versions().expect("some");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(config.into(), name).expect("a session");
    let mut stream = connect(&server.address(0));
    stream.write_all(&tcp4()).expect("sent");
    let stream = StreamOwned::new(session, stream);
    let (mut socket, _) = tungstenite::client("wss://localhost/", stream).expect("a handshake");
    echoes(&mut socket);
    assert_eq!(seen(&server).0, "203.0.113.9:4321");
    // The handshake without the header is no header.
    let mut bare = connect(&server.address(0));
    bare.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0")
        .expect("sent");
    assert!(is_ended(&mut bare));
    assert_eq!(counter(&server, "proxy_failed"), 1);
    assert_eq!(counter(&server, "tls_failed"), 0);
}

#[test]
fn who_sends_no_header_or_may_send_none_is_ended_and_counted() {
    let elsewhere = "proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]";
    let unix = "proxy_protocol = true\ntrusted_proxies = [\"unix\"]";
    let server = Server::start(&format!(
        "workers = 1\n{}{}{}[limits]\ntls_handshake_seconds = 1\n",
        listener("http://127.0.0.1:0", LOCAL_PROXY),
        listener("http://127.0.0.1:0", elsewhere),
        listener("unix://p.sock", unix),
    ));
    // Silent, or silent after the beginning.
    let mut silent = connect(&server.address(0));
    let mut half = connect(&server.address(0));
    half.write_all(b"PROXY TCP4 203.0").expect("sent");
    let mut garbage = connect(&server.address(0));
    garbage
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert!(is_ended(&mut garbage));
    assert!(is_ended(&mut silent) && is_ended(&mut half));
    let gone = connect(&server.address(0));
    drop(gone);
    wait_until("all four are counted", || {
        counter(&server, "proxy_failed") == 4
    });
    // Not trusted, with the best of headers.
    let mut stranger = connect(&server.address(1));
    let _ = stranger.write_all(&tcp4());
    assert!(is_ended(&mut stranger));
    assert_eq!(counter(&server, "proxy_untrusted"), 1);
    // None of them was a client, and clients are served as before.
    assert_eq!(counter(&server, "accepted"), 0);
    let mut stream = UnixStream::connect(server.place.path().join("p.sock")).expect("it listens");
    stream.write_all(&tcp4()).expect("sent");
    let (mut socket, _) = tungstenite::client("ws://x/", stream).expect("a handshake");
    echoes(&mut socket);
    let shown = ("203.0.113.9:4321".to_string(), "unix".to_string());
    assert_eq!(seen(&server), shown);
}

#[test]
fn limits_by_address_count_the_client_and_not_the_proxy() {
    let server = Server::start(&format!(
        "workers = 1\n{}[limits]\nconnections_per_address = 1\n",
        listener("text://127.0.0.1:0", LOCAL_PROXY),
    ));
    let open = |ip: &str| {
        let mut stream = connect(&server.address(0));
        let text = format!("PROXY TCP4 {ip} 10.0.0.1 4321 443\r\nhello\n");
        stream.write_all(text.as_bytes()).expect("sent");
        stream
    };
    let echoes = |stream: &mut TcpStream| {
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).expect("an echo");
        assert_eq!(&answer, b"hello\n");
    };
    let mut first = open("203.0.113.9");
    echoes(&mut first);
    echoes(&mut open("198.51.100.7"));
    assert!(is_ended(&mut open("203.0.113.9")));
    assert_eq!(counter(&server, "refused_connections"), 1);
    // Its place is free again when it leaves, and nothing was counted that was refused.
    drop(first);
    none_is_left(&server);
    echoes(&mut open("203.0.113.9"));
}

#[test]
fn whoever_was_accepted_before_a_reload_is_served_after_it() {
    let server = Server::start(&format!(
        "workers = 1\n{}{}",
        listener("http://127.0.0.1:0", LOCAL_PROXY),
        listener("text://127.0.0.1:0", LOCAL_PROXY),
    ));
    let before = worker_pids(&server);
    let [mut web, mut text] = [0, 1].map(|listen| {
        let mut stream = connect(&server.address(listen));
        stream.write_all(b"PROXY TCP4 203.0").expect("sent");
        stream
    });
    // The worker answers one who came later, so it has accepted those two.
    let mut later = connect(&server.address(0));
    later
        .write_all(b"PROXY UNKNOWN\r\nGET /healthz HTTP/1.0\r\n\r\n")
        .expect("sent");
    assert!(later.read(&mut [0; 64]).expect("an answer") > 0);
    drop(later);
    none_is_left(&server);
    assert_eq!(server.place.run(&["reload"]).status.code(), Some(0));
    assert_ne!(worker_pids(&server), before);
    let rest = b".113.9 10.0.0.1 4321 443\r\n";
    text.write_all(&[&rest[..], b"hello\n"].concat())
        .expect("sent");
    let mut answer = [0; 6];
    text.read_exact(&mut answer).expect("an echo");
    assert_eq!(&answer, b"hello\n");
    web.write_all(rest).expect("sent");
    web.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    web.read_to_string(&mut answer)
        .expect("an answer and an end");
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    assert!(is_ended(&mut text));
}

fn worker_pids(server: &Server) -> Vec<u32> {
    let status = server.status();
    let workers = processes(&status, "worker");
    workers.into_iter().map(pid_of).collect()
}

/// The address that is shown of a WebSocket whose request has these lines.
fn told(server: &Server, listen: usize, lines: &[(&str, &str)]) -> String {
    let mut stream = connect(&server.address(listen));
    let mut head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_string();
    for (name, value) in lines {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
    let own = stream.local_addr().expect("an address").to_string();
    let (remote, via) = seen(server);
    drop(stream);
    none_is_left(server);
    if remote == own {
        assert_eq!(via, "");
        return "its own".to_string();
    }
    assert_eq!(via, own);
    remote
}

#[test]
fn a_request_header_is_believed_from_trusted_proxies_and_only_as_far_as_they_wrote_it() {
    let with = |header: &str| format!("{LOCAL_HEADER}real_ip_header = \"{header}\"");
    let elsewhere = "trusted_proxies = [\"10.0.0.0/8\"]\nreal_ip_header = \"x-forwarded-for\"";
    let server = Server::start(&format!(
        "workers = 1\n{}{}{}{}",
        listener("http://127.0.0.1:0", &with("x-forwarded-for")),
        listener("http://127.0.0.1:0", &with("forwarded")),
        listener("http://127.0.0.1:0", elsewhere),
        listener("http://127.0.0.1:0", ""),
    ));
    let xff = "X-Forwarded-For";
    let node = "for=\"[2001:db8::9]:80\"";
    for (listen, lines, expected) in [
        (0, &[(xff, "203.0.113.9")][..], "203.0.113.9"),
        (0, &[(xff, "1.1.1.1, 203.0.113.9, 10.1.1.1")], "203.0.113.9"),
        (
            0,
            &[(xff, "1.1.1.1"), (xff, "203.0.113.9:7")],
            "203.0.113.9:7",
        ),
        (0, &[(xff, "1.1.1.1, what")], "its own"),
        // The header that is not believed says nothing.
        (0, &[("Forwarded", "for=1.1.1.1")], "its own"),
        (
            1,
            &[(xff, "1.1.1.1"), ("Forwarded", node)],
            "[2001:db8::9]:80",
        ),
        (1, &[(xff, "1.1.1.1")], "its own"),
        // Nor does anybody who is not trusted, or where nobody is.
        (2, &[(xff, "1.1.1.1")], "its own"),
        (
            3,
            &[(xff, "1.1.1.1"), ("Forwarded", "for=1.1.1.1")],
            "its own",
        ),
    ] {
        assert_eq!(told(&server, listen, lines), expected, "{listen} {lines:?}");
    }
}

/// An HAProxy in the foreground; ends with the test.
struct HaProxy(Child);

impl HaProxy {
    /// Where Debian puts it, unless the environment says otherwise.
    fn start(config: &Path) -> HaProxy {
        let program = std::env::var_os("HAPROXY").unwrap_or("/usr/sbin/haproxy".into());
        let child = Command::new(program)
            .arg("-db")
            .arg("-f")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        HaProxy(child.expect("haproxy runs; tests/setup installs it"))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `tests/setup` installs it.
#[test]
fn haproxy_tells_the_address_in_each_of_its_ways() {
    let ways = ["send-proxy", "send-proxy-v2", ""];
    let forwarded = format!("{LOCAL_HEADER}real_ip_header = \"x-forwarded-for\"");
    let server = Server::start(&format!(
        "workers = 1\n{}{}",
        listener("http://127.0.0.1:0", LOCAL_PROXY),
        listener("http://127.0.0.1:0", &forwarded),
    ));
    for way in ways {
        let listen = usize::from(way.is_empty());
        // HAProxy inherits the socket, so nobody else can take its port.
        let front = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = front.local_addr().expect("an address").to_string();
        let front = socket2::Socket::from(front);
        front.set_cloexec(false).expect("a socket to pass on");
        let (mode, option) = match way {
            "" => ("http", "option forwardfor"),
            _ => ("tcp", ""),
        };
        let text = format!(
            "defaults\n mode {mode}\n {option}\n timeout connect 5s\n timeout client 60s\n \
             timeout server 60s\n timeout tunnel 60s\n\
             listen lineman\n bind fd@{}\n server one {} {way}\n",
            front.as_raw_fd(),
            server.address(listen)
        );
        let path = server.place.path().join("haproxy.cfg");
        std::fs::write(&path, text).expect("written");
        let haproxy = HaProxy::start(&path);
        let stream = connect(&address);
        let own = stream.local_addr().expect("an address");
        let (mut socket, _) = tungstenite::client("ws://x/", stream).expect("a handshake");
        echoes(&mut socket);
        let (remote, via) = seen(&server);
        let expected = match way {
            // X-Forwarded-For of a trusted address without a port.
            "" => own.ip().to_string(),
            _ => own.to_string(),
        };
        assert_eq!(remote, expected, "{way}");
        assert!(via.starts_with("127.0.0.1:") && via != remote, "{via}");
        drop(socket);
        drop(haproxy);
        none_is_left(&server);
    }
}
