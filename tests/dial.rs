//! Outgoing connections through real sockets: a reactor whose node dials what a test wants and
//! writes down what comes of it. Servers are plain threads that send back what they get.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use lineman::base::bytes::Outbox;
use lineman::base::counters::Counters;
use lineman::base::ids::{ConnId, DialId};
use lineman::base::now::{Moment, Now};
use lineman::net::admission::Admission;
use lineman::net::clock::Clock;
use lineman::net::reactor::Reactor;
use lineman::net::sockets::{Sockets, Tls};
use lineman::node::{Ending, Node, Origin, Output, Peer};
use lineman::wire::target::Target;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longer than what one read, one record or one flush takes.
const MESSAGE_BYTES: usize = 300_000;

fn message() -> Vec<u8> {
    (0..MESSAGE_BYTES).map(|at| (at % 251) as u8).collect()
}

/// Dials all targets at once. To whoever is reached it sends the message, and it closes when that
/// has come back. It quits when every dial has come to an end.
struct Caller {
    targets: BTreeMap<DialId, Target>,
    outputs: VecDeque<Output>,
    open: BTreeMap<ConnId, Call>,
    /// How dials ended, and how many will.
    ends: BTreeMap<DialId, String>,
    ends_expected: usize,
    report: Sender<BTreeMap<DialId, String>>,
    counters: Counters,
}

struct Call {
    dial: DialId,
    outbox: Outbox,
    received: Vec<u8>,
}

impl Caller {
    fn quit_when_done(&mut self) {
        if self.ends.len() == self.ends_expected {
            self.report.send(self.ends.clone()).expect("the test waits");
            self.outputs.push_back(Output::Quit);
        }
    }
}

impl Node for Caller {
    fn opened(&mut self, conn: ConnId, origin: Origin, _now: Now) {
        let Origin::Dialled(Peer::Outside(dial)) = origin else {
            panic!("{origin:?} was not dialled");
        };
        let mut outbox = Outbox::new(usize::MAX);
        outbox.push(&message()).expect("room");
        let received = Vec::new();
        let call = Call {
            dial,
            outbox,
            received,
        };
        self.open.insert(conn, call);
        self.outputs.push_back(Output::Flush(conn));
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], _now: Now) {
        let call = self.open.get_mut(&conn).expect("open");
        call.received.extend_from_slice(bytes);
        if call.received.len() == MESSAGE_BYTES {
            self.outputs.push_back(Output::Close(conn, Ending::Flushed));
        }
    }

    fn hung_up(&mut self, conn: ConnId, _now: Now) {
        self.outputs.push_back(Output::Close(conn, Ending::Cut));
    }

    fn closed(&mut self, conn: ConnId, _now: Now) {
        let call = self.open.remove(&conn).expect("open");
        let end = match call.received == message() {
            true => "echoed".to_string(),
            false => format!("broke after {} bytes", call.received.len()),
        };
        assert!(
            self.ends.insert(call.dial, end).is_none(),
            "one end for each"
        );
        self.quit_when_done();
    }

    fn target(&mut self, dial: DialId) -> Option<Target> {
        self.targets.get(&dial).cloned()
    }

    fn unreachable(&mut self, peer: Peer, why: &str, _now: Now) {
        let Peer::Outside(dial) = peer else {
            panic!("{peer:?} was not dialled");
        };
        assert!(
            self.ends.insert(dial, why.to_string()).is_none(),
            "one end for each"
        );
        self.quit_when_done();
    }

    fn certificates_read(&mut self, _outcome: Result<(), String>) {}

    fn elapsed(&mut self, _now: Now) {}

    fn wants_input(&self, _conn: ConnId) -> bool {
        true
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.open.get_mut(&conn).map(|call| &mut call.outbox)
    }

    fn poll_output(&mut self, _now: Now) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Moment> {
        None
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// How dialling each target ends. Those `given_up` are hung up on at once and come to no end.
fn ends_beside(given_up: &[Target], targets: &[Target]) -> Vec<String> {
    let all = targets.iter().chain(given_up).cloned();
    let numbered = (0..).map(DialId).zip(all);
    let targets_by_id: BTreeMap<DialId, Target> = numbered.collect();
    let mut outputs = VecDeque::new();
    for (index, dial) in targets_by_id.keys().enumerate() {
        outputs.push_back(Output::Dial(Peer::Outside(*dial)));
        if index >= targets.len() {
            outputs.push_back(Output::HangUp(*dial));
        }
    }
    let (report, ends) = channel();
    let caller = Caller {
        targets: targets_by_id,
        outputs,
        open: BTreeMap::new(),
        ends: BTreeMap::new(),
        ends_expected: targets.len(),
        report,
        counters: Counters::default(),
    };
    let sockets = Sockets {
        listening: Vec::new(),
        master: None,
        switchboard: None,
        courier: None,
        store: None,
        admit: |_| false,
        lines_dropped: || 0,
        roots: Vec::new(),
        tls: Tls {
            read: None,
            handshake: Duration::from_secs(10),
        },
        tarpit: lineman::net::tarpit::Tarpit::none(),
        admission: Admission::open(),
        write: Duration::from_secs(30),
    };
    let reactor = thread::spawn(move || {
        let mut reactor = Reactor::new(caller, sockets, 100, Clock::start()).expect("a reactor");
        reactor.run().expect("it quits");
    });
    let ends = ends.recv_timeout(Duration::from_secs(60));
    reactor.join().expect("no panic");
    ends.expect("every dial comes to an end")
        .into_values()
        .collect()
}

fn ends(targets: &[Target]) -> Vec<String> {
    ends_beside(&[], targets)
}

fn target(url: &str) -> Target {
    Target::parse(url).expect("a URL")
}

/// Sends back what it gets until the other side closes.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 10_000];
    while let Ok(count) = stream.read(&mut buffer)
        && count > 0
    {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Serves each connection of a listener on a port of its own by a thread.
fn serve(with: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let with = with.clone();
            thread::spawn(move || with(stream));
        }
    });
    port
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn addresses_names_and_paths_are_reached() {
    let port = serve(echo);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || listener.incoming().flatten().for_each(echo));
    // A machine may know localhost by two addresses, of which one answers here.
    let targets = [
        target(&format!("tcp://127.0.0.1:{port}")),
        target(&format!("tcp://localhost:{port}")),
        target(&format!("unix://{}", path.display())),
    ];
    assert_eq!(ends(&targets), ["echoed", "echoed", "echoed"]);
}

#[test]
fn what_is_not_there_is_told_and_does_not_keep_others_from_being_reached() {
    let (open, closed) = (serve(echo), closed_port());
    let targets = [
        target(&format!("tcp://127.0.0.1:{closed}")),
        target(&format!("tls://127.0.0.1:{closed}")),
        target("tcp://no-such-name.invalid:80"),
        target("unix:///nowhere/x.sock"),
        target(&format!("tcp://127.0.0.1:{open}")),
    ];
    let ends = ends(&targets);
    let refused = format!("127.0.0.1:{closed}: Connection refused");
    assert_eq!(ends[..2], [refused.clone(), refused]);
    let unknown = "the name no-such-name.invalid could not be resolved";
    assert!(ends[2].starts_with(unknown), "{}", ends[2]);
    assert_eq!(ends[3], "/nowhere/x.sock: No such file or directory");
    assert_eq!(ends[4], "echoed");
}

#[test]
fn who_is_given_up_is_not_heard_of() {
    let port = serve(echo);
    let given_up = [
        target(&format!("tcp://127.0.0.1:{port}")),
        target(&format!("tcp://localhost:{port}")),
        target("unix:///nowhere/x.sock"),
    ];
    let last = [target(&format!("tcp://localhost:{port}"))];
    assert_eq!(ends_beside(&given_up, &last), ["echoed"]);
}

/// Who signs the certificates of a test, in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Authority {
            issuer: Issuer::new(parameters, key),
            folder,
        }
    }

    /// A TLS server for `name` that sends back what it gets.
    fn serve(&self, name: &str, last_year: i32, alpn: &[&[u8]]) -> u16 {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new([name.to_string()]).expect("a name");
        parameters.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        let chain = CertificateDer::from_pem_slice(certificate.pem().as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain.expect("PEM")], key.expect("PEM"))
            .expect("a certificate with its key");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(config);
        serve(move |stream| {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            echo(StreamOwned::new(connection, stream));
        })
    }

    /// A target that trusts this authority.
    fn target(&self, url: &str) -> Target {
        let path = self.folder.path().join("ca.pem");
        target(url).with_ca_file(&path.display().to_string())
    }
}

#[test]
fn tls_carries_what_is_sent_and_the_name_may_differ_from_the_address() {
    let authority = Authority::new();
    let (name, address) = ("server.example", "127.0.0.1");
    let by_name = authority.serve(name, 2100, &[]);
    let by_address = authority.serve(address, 2100, &[]);
    let http = authority.serve(name, 2100, &[b"h2", b"http/1.1"]);
    let named = |url: String| {
        authority
            .target(&url)
            .with_server_name(name)
            .expect("a name")
    };
    let targets = [
        named(format!("tls://{address}:{by_name}")),
        authority.target(&format!("tls://{address}:{by_address}")),
        // What asks for HTTP/1.1 is not given HTTP/2, and this driver knows nothing of either.
        named(format!("wss://{address}:{http}/")),
        named(format!("wss://{address}:{by_name}/")),
    ];
    assert_eq!(ends(&targets), ["echoed"; 4]);
}

#[test]
fn a_server_that_cannot_be_trusted_is_not_spoken_to_and_the_reason_is_said() {
    let authority = Authority::new();
    let good = authority.serve("localhost", 2100, &[]);
    let expired = authority.serve("localhost", 2001, &[]);
    let other_name = authority.serve("other.example", 2100, &[]);
    let only_http2 = authority.serve("localhost", 2100, &[b"h2"]);
    let plain = serve(|mut stream: TcpStream| {
        let _ = stream.write_all(b"220 mail.example ready, say something\r\n");
        echo(stream);
    });
    let shut = serve(drop);
    let url = |port: u16| authority.target(&format!("tls://localhost:{port}"));
    let nothing = authority.folder.path().join("none.pem");
    let nothing = nothing.display().to_string();
    let table = [
        (
            target(&format!("tls://localhost:{good}")),
            "from an unknown issuer",
        ),
        (url(expired), "has expired"),
        (url(other_name), "is not for the name localhost"),
        (url(plain), "does not speak TLS"),
        (url(shut), "closed the connection during the TLS handshake"),
        (
            authority.target(&format!("wss://localhost:{only_http2}")),
            "does not speak the protocol that is wanted",
        ),
        (url(good).with_ca_file(&nothing), "none.pem: No such file"),
        (url(good), "echoed"),
    ];
    let targets: Vec<Target> = table.iter().map(|(target, _)| target.clone()).collect();
    for ((target, words), end) in table.iter().zip(ends(&targets)) {
        assert!(end.contains(words), "{target} {words}: {end}");
    }
}

#[test]
fn a_server_that_says_nothing_is_waited_for_until_the_deadline() {
    let silent = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let target = target(&format!("tls://127.0.0.1:{silent}"));
    let target = target.with_connect_within(Duration::from_millis(200));
    let expected = "the TLS handshake was not done within 200ms";
    assert_eq!(ends(&[target]), [expected]);
}
