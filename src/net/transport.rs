//! What a reactor reads from and writes to: a socket as it is, or TLS over one. The reactor cannot
//! tell which. The plain path adds one branch to the socket's own.

use std::io;

use mio::{Registry, Token};

use crate::base::bytes::Outbox;
use crate::net::secured::{Handshake, Secured};
use crate::net::stream::{RawReading, Stream};
use crate::net::tls::ServerTls;

/// What one reactor reads into, for all its connections. The last three are empty until the first
/// TLS connection, and bounded by what one turn of one connection may take.
pub struct Buffers {
    /// As it came from the socket.
    pub raw: Box<[u8]>,
    /// Opened.
    pub plain: Vec<u8>,
    /// To be written.
    pub sealed: Vec<u8>,
    /// Small pieces of an outbox put together.
    pub gathered: Vec<u8>,
}

impl Buffers {
    /// Reads at most `bytes` at once.
    pub fn new(bytes: usize) -> Buffers {
        Buffers {
            raw: vec![0; bytes].into_boxed_slice(),
            plain: Vec::new(),
            sealed: Vec::new(),
            gathered: Vec::new(),
        }
    }
}

/// What a read brought.
pub enum Reading<'a> {
    Bytes {
        /// None, when a handshake took them all.
        bytes: &'a mut [u8],
        /// The kernel may have more.
        more: bool,
        /// The peer will send nothing more after these.
        end: bool,
        /// The handshake came to its end with these.
        handshake: Option<Handshake>,
    },
    /// Nothing now; an event will tell.
    Nothing,
    /// The peer will send nothing more.
    End,
    Broken,
}

pub enum Transport {
    Plain(Stream),
    /// Apart, because it is large and most connections may be plain.
    Tls(Box<Secured>),
}

impl Transport {
    /// An accepted socket.
    pub fn accepted(stream: Stream, tls: Option<&ServerTls>) -> io::Result<Transport> {
        match tls {
            None => Ok(Transport::Plain(stream)),
            Some(tls) => Ok(Transport::Tls(Box::new(Secured::accept(stream, tls)?))),
        }
    }

    fn stream(&self) -> &Stream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(secured) => secured.stream(),
        }
    }

    pub fn stream_mut(&mut self) -> &mut Stream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(secured) => secured.stream_mut(),
        }
    }

    /// Registers once for both directions; edge-triggered, so never again.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream_mut().register(registry, token)
    }

    pub fn deregister(&mut self, registry: &Registry) {
        self.stream_mut().deregister(registry);
    }

    /// Reading costs far more than it does later: there is a handshake to be computed.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(secured) => secured.is_handshaking(),
        }
    }

    /// Whether reading now could make more wait for the peer than may.
    pub fn wants_input(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(secured) => secured.wants_input(),
        }
    }

    pub fn read<'a>(&mut self, buffers: &'a mut Buffers) -> Reading<'a> {
        let stream = match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(secured) => return secured.read(buffers),
        };
        match stream.read(&mut buffers.raw) {
            RawReading::Bytes(count) => Reading::Bytes {
                more: count == buffers.raw.len(),
                bytes: &mut buffers.raw[..count],
                end: false,
                handshake: None,
            },
            RawReading::Nothing => Reading::Nothing,
            RawReading::End => Reading::End,
            RawReading::Broken => Reading::Broken,
        }
    }

    /// Takes from the outbox until it is empty or the kernel refuses. An error: the peer is gone.
    pub fn flush(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.flush(outbox),
            Transport::Tls(secured) => secured.flush(outbox, buffers),
        }
    }

    /// The same for the last time: nothing will follow, and the peer is told so. Whether everything
    /// is with the kernel now; if not, try again when it takes more.
    pub fn finish(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<bool> {
        match self {
            Transport::Plain(stream) => {
                stream.flush(outbox)?;
                Ok(outbox.is_empty())
            }
            Transport::Tls(secured) => secured.finish(outbox, buffers),
        }
    }

    /// The end of our side, as the kernel tells it.
    pub fn shut_sending(&self) -> io::Result<()> {
        self.stream().shut_sending()
    }
}
