//! The HTTP/2 client over real TCP and TLS against servers that others wrote: nghttpd and HAProxy,
//! which `tests/setup` installs. A plain loop stands for the reactor: read, decide, write.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::now::{Moment, Now};
use lineman::session::http2::{Http2, Http2Event, Http2Options, PulseOptions, StreamKey};
use lineman::wire::http2::{Http2Answer, Http2Origin, Http2Request};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for `localhost`, and who trusts it.
struct Trust {
    folder: TempDir,
    client: Arc<ClientConfig>,
}

impl Trust {
    fn new() -> Trust {
        let made = generate_simple_self_signed(vec!["localhost".to_string()]);
        let CertifiedKey { cert, signing_key } = made.expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("cert.pem", &cert.pem());
        write("key.pem", &signing_key.serialize_pem());
        write("both.pem", &(cert.pem() + &signing_key.serialize_pem()));
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let client = ClientConfig::builder().with_root_certificates(roots);
        let mut client = client.with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let client = Arc::new(client);
        Trust { folder, client }
    }

    /// A connection to whoever listens there and is who it should be.
    fn connect(&self, port: u16) -> Option<StreamOwned<ClientConnection, TcpStream>> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(self.client.clone(), name).expect("TLS");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).ok()?;
        }
        Some(StreamOwned::new(tls, socket))
    }

    fn path(&self, name: &str) -> OsString {
        self.folder.path().join(name).into()
    }
}

/// A server of somebody else; ends with the test.
struct Foreign {
    child: Child,
    port: u16,
}

impl Foreign {
    /// `arguments` makes the command line for a port. Another program may take the port before the
    /// server does, so it is tried again.
    fn start(trust: &Trust, program: &str, arguments: impl Fn(u16) -> Vec<OsString>) -> Foreign {
        for _ in 0..10 {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = socket.local_addr().expect("an address").port();
            drop(socket);
            let child = Command::new(program)
                .args(arguments(port))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let child = child.expect("the server runs; tests/setup installs it");
            let mut foreign = Foreign { child, port };
            if foreign.listens(trust) {
                return foreign;
            }
        }
        panic!("{program} does not listen");
    }

    fn listens(&mut self, trust: &Trust) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if trust.connect(self.port).is_some() {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn nghttpd(trust: &Trust, options: &[&str]) -> Foreign {
        let program = std::env::var("NGHTTPD").unwrap_or("/usr/sbin/nghttpd".to_string());
        Foreign::start(trust, &program, |port| {
            let fixed = ["-a", "127.0.0.1", "-d"].map(OsString::from);
            let mut all = fixed.to_vec();
            all.push(trust.folder.path().into());
            all.extend(options.iter().map(OsString::from));
            all.push(port.to_string().into());
            all.extend([trust.path("key.pem"), trust.path("cert.pem")]);
            all
        })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection and what the reactor does for it.
struct Driver {
    http2: Http2,
    out: Outbox,
    stream: StreamOwned<ClientConnection, TcpStream>,
    began: Instant,
    input: Vec<u8>,
    gone: bool,
}

impl Driver {
    fn connect(trust: &Trust, server: &Foreign) -> Driver {
        let stream = trust.connect(server.port).expect("it listens");
        let wait = Some(Duration::from_millis(5));
        stream.sock.set_read_timeout(wait).expect("a timeout");
        let authority = format!("localhost:{}", server.port);
        let options = Http2Options {
            origin: Http2Origin::new(true, &authority).expect("an authority"),
            streams_max: 1000,
            start_with_one: false,
            pulse: PulseOptions::default(),
        };
        let began = Instant::now();
        Driver {
            http2: Http2::new(options, at(began)),
            out: Outbox::new(1 << 20),
            stream,
            began,
            input: vec![0; 64 * 1024],
            gone: false,
        }
    }

    fn now(&self) -> Now {
        at(self.began)
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> StreamKey {
        let request = Http2Request {
            method,
            path,
            common: None,
            fields: &[("apns-topic", "org.example"), ("authorization", "bearer x")],
            body: Bytes::copy_from_slice(body),
        };
        let now = self.now();
        let asked = self.http2.ask(&request, now.moment + PATIENCE, now);
        asked.expect("there is room")
    }

    /// What is there to tell is told, what is there to write is written, until there is neither: an
    /// outbox that was emptied may have held more back.
    fn poll(&mut self) -> Vec<Http2Event> {
        let mut told = Vec::new();
        let now = self.now();
        loop {
            while let Some(event) = self.http2.poll(&mut self.out, now) {
                told.push(event);
            }
            if self.out.is_empty() || self.gone {
                return told;
            }
            self.write();
        }
    }

    fn write(&mut self) {
        while !self.out.is_empty() {
            let front = self.out.front(usize::MAX);
            let count = front.len();
            if self.stream.write_all(front).is_err() {
                return self.end();
            }
            self.out.advance(count);
        }
    }

    fn end(&mut self) {
        self.gone = true;
        self.http2.ended();
    }

    /// One turn: reads what there is, and tells what comes of it.
    fn turn(&mut self) -> Vec<Http2Event> {
        let mut told = self.poll();
        if self.http2.wants_input() && !self.gone {
            match self.stream.read(&mut self.input) {
                Ok(0) => self.end(),
                Ok(count) => {
                    let now = at(self.began);
                    let mut inbox = Inbox::new(&mut self.input[..count]);
                    self.http2.received(&mut inbox, now);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.end(),
            }
        }
        told.extend(self.poll());
        assert!(self.began.elapsed() < PATIENCE, "it comes to no end");
        told
    }

    /// The answer to the only request under way.
    fn answer(&mut self) -> Http2Answer {
        loop {
            match self.turn().pop() {
                Some(Http2Event::Answered { answer, .. }) => return answer,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }
}

fn at(began: Instant) -> Now {
    let elapsed = began.elapsed();
    Now {
        moment: Moment::from_micros(elapsed.as_micros() as u64),
        unix_ms: elapsed.as_millis() as u64,
    }
}

/// Asks `count` times, as many at once as there is room, and checks that each request gets the
/// answer that is meant for it. The most that were under way.
fn asks_and_is_answered(driver: &mut Driver, count: usize) -> usize {
    let (mut asked, mut most) = (0, 0);
    let mut waiting: BTreeMap<StreamKey, Vec<u8>> = BTreeMap::new();
    while asked < count || !waiting.is_empty() {
        while asked < count && driver.http2.room() > 0 {
            let body = format!("{{\"aps\":{{\"badge\":{asked}}}}}").into_bytes();
            waiting.insert(driver.ask("POST", "/3/device/00", &body), body);
            asked += 1;
        }
        most = most.max(driver.http2.under_way());
        for event in driver.turn() {
            let Http2Event::Answered { key, answer } = event else {
                panic!("{event:?}");
            };
            let body = waiting.remove(&key).expect("it was asked and not answered");
            assert_eq!((answer.status, answer.whole), (200, true));
            assert_eq!(answer.body, body);
        }
    }
    most
}

#[test]
fn a_thousand_requests_at_a_time_get_their_own_answers() {
    let trust = Trust::new();
    let options = ["-m", "1000", "--echo-upload", "--padding", "40"];
    let server = Foreign::nghttpd(&trust, &options);
    let mut driver = Driver::connect(&trust, &server);
    assert_eq!(asks_and_is_answered(&mut driver, 10_000), 1000);
}

#[test]
fn no_more_are_asked_at_a_time_than_the_server_takes() {
    let trust = Trust::new();
    let server = Foreign::nghttpd(&trust, &["-m", "7", "--echo-upload", "--trailer", "a: b"]);
    let mut driver = Driver::connect(&trust, &server);
    assert_eq!(asks_and_is_answered(&mut driver, 500), 7);
}

#[test]
fn answers_of_every_length_are_read_and_the_longest_is_cut() {
    let trust = Trust::new();
    let file: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
    for (name, length) in [("short", 10), ("just", 65_536), ("long", 1_000_000)] {
        std::fs::write(trust.path(name), &file[..length]).expect("written");
    }
    let server = Foreign::nghttpd(&trust, &[]);
    let mut driver = Driver::connect(&trust, &server);
    for (path, status, length, whole) in [
        ("/short", 200, Some(10), true),
        ("/long", 200, Some(65_536), false),
        ("/just", 200, Some(65_536), true),
        ("/none", 404, None, true),
        ("/short", 200, Some(10), true),
    ] {
        driver.ask("GET", path, b"");
        let answer = driver.answer();
        assert_eq!((answer.status, answer.whole), (status, whole), "{path}");
        assert!(answer.fields.only("server").is_some(), "{path}");
        if let Some(length) = length {
            assert!(answer.body == file[..length], "{path}");
        }
    }
    let body = &file[..700_000];
    driver.ask("POST", "/short", body);
    assert_eq!(driver.answer().status, 200, "a long body is taken");
}

#[test]
fn a_server_that_is_killed_leaves_nothing_untold() {
    let trust = Trust::new();
    let mut server = Foreign::nghttpd(&trust, &["-m", "1000", "--echo-upload"]);
    let mut driver = Driver::connect(&trust, &server);
    asks_and_is_answered(&mut driver, 100);
    let mut waiting: Vec<StreamKey> = Vec::new();
    waiting.extend((0..500).map(|_| driver.ask("POST", "/", b"{}")));
    let mut told = driver.turn();
    server.child.kill().expect("it runs");
    while !matches!(told.last(), Some(Http2Event::Broken { .. })) {
        told.extend(driver.turn());
    }
    told.pop();
    let keys = told.into_iter().map(|event| match event {
        Http2Event::Answered { key, .. } | Http2Event::Lost { key, .. } => key,
        other => panic!("{other:?}"),
    });
    let mut keys: Vec<StreamKey> = keys.collect();
    keys.sort_unstable();
    assert_eq!(keys, waiting);
}

fn haproxy(trust: &Trust) -> Foreign {
    let config = trust.folder.path().join("haproxy.cfg");
    let start = |port: u16| {
        let text = format!(
            "defaults\n mode http\n timeout client 60s\n\
             frontend push\n bind 127.0.0.1:{port} ssl crt {} alpn h2\n\
             http-request return status 200 content-type text/plain string fine\n",
            Path::new(&trust.path("both.pem")).display()
        );
        std::fs::write(&config, text).expect("written");
        ["-db".into(), "-f".into(), config.clone().into_os_string()].to_vec()
    };
    let program = std::env::var("HAPROXY").unwrap_or("/usr/sbin/haproxy".to_string());
    Foreign::start(trust, &program, start)
}

#[test]
fn a_server_that_stops_gently_loses_no_request() {
    let trust = Trust::new();
    let server = haproxy(&trust);
    let mut driver = Driver::connect(&trust, &server);
    let (mut asked, mut answered, mut refused) = (0, 0, 0);
    let mut goaway = None;
    'turns: loop {
        while driver.http2.room() > 0 {
            driver.ask("POST", "/3/device/00", b"{}");
            asked += 1;
        }
        for event in driver.turn() {
            match event {
                Http2Event::Answered { answer, .. } => {
                    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"fine"[..]));
                    answered += 1;
                }
                Http2Event::Refused { .. } => refused += 1,
                Http2Event::GoAway(said) => goaway = Some(said),
                Http2Event::Drained => break 'turns,
                other => panic!("{other:?} after {asked}, {goaway:?}"),
            }
        }
        if answered > 2000 && goaway.is_none() {
            // A soft stop. Safe to send: the process is a child of ours.
            let pid = server.child.id().to_string();
            let sent = Command::new("kill").args(["-USR1", &pid]).status();
            assert!(sent.expect("kill runs").success());
        }
    }
    assert_eq!(goaway.expect("it said so").code, 0);
    assert_eq!(answered + refused, asked);
    assert!(answered > 2000, "{answered} of {asked}");
}
