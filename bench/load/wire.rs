//! One non-blocking client connection and the buffer that all of them read
//! into.
//!
//! It moves bytes, as they are or over TLS, and knows nothing of what they
//! mean. Events are edge triggered: who is told that a connection is readable
//! has to read until `Filled::more` is false.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::Fallible;
use crate::secure::{Security, Session};

/// The shared read buffer. A read that does not fill it has emptied the
/// socket, which saves the read that would only say so.
pub struct Scratch(Vec<u8>);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(vec![0; 512 * 1024])
    }

    pub fn bytes(&self, filled: &Filled) -> &[u8] {
        &self.0[..filled.length]
    }

    /// For messages that have to be unmasked where they lie.
    pub fn bytes_mut(&mut self, filled: &Filled) -> &mut [u8] {
        &mut self.0[..filled.length]
    }
}

/// What one read brought.
pub struct Filled {
    /// Bytes in the buffer: those kept from last time, then the new ones.
    pub length: usize,
    /// Whether the socket may hold more.
    pub more: bool,
    /// Whether the peer has closed.
    pub closed: bool,
}

pub struct Wire {
    stream: TcpStream,
    rest: Vec<u8>,
    unsent: Vec<u8>,
    /// Large, and absent from most runs.
    session: Option<Box<Session>>,
}

impl Wire {
    /// Starts connecting; over TLS if `security` is given. The socket is told
    /// to leave no TIME_WAIT behind: a generator that opens thousands of
    /// connections a second would run out of ports.
    pub fn connect(
        to: SocketAddr,
        source: Option<IpAddr>,
        security: Option<&Security>,
    ) -> io::Result<Wire> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(address) = source {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if !in_progress(&error) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into());
        Ok(Wire {
            stream,
            rest: Vec::new(),
            unsent: Vec::new(),
            session: security.map(Session::new).transpose()?.map(Box::new),
        })
    }

    /// Whether its TLS handshake took up an earlier session.
    pub fn resumed(&self) -> bool {
        let session = self.session.as_ref();
        session.and_then(|session| session.resumed()) == Some(true)
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Whether connecting has succeeded, failed, or is still under way.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Our end of the connection.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Writes now, and keeps what the kernel does not take.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            return session.send(&mut self.stream, bytes);
        }
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write_some(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what was kept; called when the connection is writable.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            return session.flush(&mut self.stream);
        }
        if !self.unsent.is_empty() {
            let written = write_some(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
        }
        Ok(())
    }

    /// Reads into `scratch`, behind what `keep` put aside: once, or over TLS
    /// until the socket is empty.
    pub fn fill(&mut self, scratch: &mut Scratch) -> Fallible<Filled> {
        let kept = self.rest.len();
        if kept > 0 {
            if kept >= scratch.0.len() {
                return Err("a message is larger than the read buffer".into());
            }
            scratch.0[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
        }
        if let Some(session) = &mut self.session {
            let room = &mut scratch.0[kept..];
            let (read, closed) = session.fill(&mut self.stream, room)?;
            return Ok(Filled {
                length: kept + read,
                more: read == room.len(),
                closed,
            });
        }
        loop {
            let free = &mut scratch.0[kept..];
            let room = free.len();
            return match self.stream.read(free) {
                Ok(0) => Ok(Filled {
                    length: kept,
                    more: false,
                    closed: true,
                }),
                Ok(read) => Ok(Filled {
                    length: kept + read,
                    more: read == room,
                    closed: false,
                }),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled {
                    length: kept,
                    more: false,
                    closed: false,
                }),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Puts aside the start of a message until its end arrives.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(written) => return Ok(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
    }
}

fn in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no kind of its own in the standard library; 115 is its
    // number on every Linux this generator reads /proc of.
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(115)
}
