//! One request to a web server, waited for: for whoever has nothing else to do before the answer is
//! there. Owns the connection, which ends with it. Does not know what is asked. Invariant: it ends at
//! its time, but for the system's resolver, which has times of its own (resolv.conf(5)).

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::base::bytes::{Inbox, Outbox};
use crate::base::now::Now;
use crate::net::client_tls;
use crate::session::caller::{Caller, CallerStep};
use crate::wire::http2::Http2Answer;
use crate::wire::target::{ClientTls, Target};

/// Time is kept by the socket, and not by the session.
const NEVER: Duration = Duration::from_secs(3600);
/// What a socket is told at least.
const LEAST: Duration = Duration::from_millis(1);

/// Writes `request`, which is whole, and reads the answer. Why there is none is told for people.
pub fn ask(target: &Target, request: &[u8], until: Instant) -> Result<Http2Answer, String> {
    let stream = connect(target, until)?;
    if !target.scheme().is_secured() {
        return exchange(stream, request).map_err(|error| words(&error, target));
    }
    let client = ClientTls {
        protocols: &[b"http/1.1"],
        certificate: None,
    };
    let (config, name) = client_tls::prepare(target, &client)?;
    let connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
    let stream = StreamOwned::new(connection, stream);
    exchange(stream, request).map_err(|error| words(&error, target))
}

/// A socket whose calls end in time.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left < LEAST {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn connect(target: &Target, until: Instant) -> Result<Timed, String> {
    let (host, port) = (target.host(), target.port());
    let addresses = (host, port).to_socket_addrs();
    let addresses =
        addresses.map_err(|error| format!("the name {host} could not be resolved: {error}"))?;
    let mut why = format!("the name {host} has no address");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now()).max(LEAST);
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(Timed { stream, until }),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Http2Answer> {
    let mut caller = Caller::keeping();
    let mut out = Outbox::new(usize::MAX);
    let asked = caller.ask(request, NEVER, &mut out, Now::default());
    debug_assert!(asked.is_ok(), "it has room for everything");
    stream.write_all(&out.take(usize::MAX))?;
    stream.flush()?;
    let mut held = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            // Whoever ends TLS without saying so has ended it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read?,
        };
        held.extend_from_slice(&buffer[..count]);
        let mut inbox = Inbox::new(&mut held);
        let mut step = caller.next(&mut inbox);
        if count == 0 && step == CallerStep::Idle {
            step = caller.ended();
        }
        let taken = inbox.taken();
        held.drain(..taken);
        match step {
            CallerStep::Idle => {}
            CallerStep::Answered { .. } => return Ok(caller.take_answer()),
            CallerStep::Broken { why, .. } => return Err(io::Error::other(why)),
        }
    }
}

fn words(error: &io::Error, target: &Target) -> String {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    match (inner, error.kind()) {
        (Some(inner), _) => client_tls::explain(inner, target),
        (None, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            "no answer in time".to_string()
        }
        _ => error.to_string(),
    }
}
