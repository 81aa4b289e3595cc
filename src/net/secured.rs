//! One TLS connection over a socket: ciphertext in and out, plaintext to and from the node. It
//! drives the library's unbuffered interface over buffers that all connections of a reactor share,
//! so that an idle connection holds none.
//!
//! Invariants: no plaintext is taken from an outbox while sealed bytes wait for the kernel, so at
//! most one batch waits beside the outbox. After a fault only the alert that tells it is sent; what
//! the peer says from then on is ignored, and the connection reads as ended.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind};

use crate::base::bytes::Outbox;
use crate::base::counters::Counters;
use crate::net::stream::{RawReading, Stream};
use crate::net::tls::ServerTls;
use crate::net::transport::{Buffers, Reading};

/// Plaintext sealed at once; four records.
const BATCH_BYTES: usize = 64 * 1024;
/// Slices looked at for one batch.
const SLICES: usize = 64;
/// A record that has not arrived whole is kept; a handshake message may take several. More than
/// any peer with a sensible certificate sends.
const HELD_BYTES_MAX: usize = 32 * 1024;
/// A peer that makes us answer (with key updates, say) and does not read is not read from either.
const UNSENT_BYTES_MAX: usize = 2 * BATCH_BYTES;

pub struct Secured {
    stream: Stream,
    session: Session,
    /// Ciphertext that is not a whole record yet.
    held: Vec<u8>,
    /// Sealed bytes that the kernel did not take, or was not offered yet.
    unsent: Vec<u8>,
    /// It was not offered them: they go out with what is sealed next.
    held_back: bool,
    /// The peer said that it will send no more.
    closed_by_peer: bool,
    failed: bool,
    /// What the library says of it.
    fault: Option<Box<rustls::Error>>,
    said_goodbye: bool,
}

/// The library's half of it, by which end we are.
enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What the library gives both ends in the same shape and under the same names, but not as one
/// type.
trait End {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Session {
    fn state(&self) -> &CommonState {
        match self {
            Session::Server(end) => end.state(),
            Session::Client(end) => end.state(),
        }
    }
}

/// How a handshake came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    Resumed,
    Failed,
    /// It took too long.
    Late,
}

impl Handshake {
    pub fn count(self, counters: &mut Counters) {
        match self {
            Handshake::Full => counters.tls_handshakes += 1,
            Handshake::Resumed => {
                counters.tls_handshakes += 1;
                counters.tls_resumed += 1;
            }
            Handshake::Failed => counters.tls_failed += 1,
            Handshake::Late => {
                counters.tls_failed += 1;
                counters.tls_late += 1;
            }
        }
    }
}

/// The library cannot go on with this connection.
struct Fault;

impl Secured {
    pub fn accept(stream: Stream, tls: &ServerTls) -> io::Result<Secured> {
        let session = UnbufferedServerConnection::new(tls.config.clone())
            .map_err(|_| io::Error::from(ErrorKind::ConnectionAborted))?;
        Ok(Secured::new(stream, Session::Server(session)))
    }

    /// Begins a handshake as a client: says hello.
    pub fn connect(
        stream: Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Secured> {
        let session = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut secured = Secured::new(stream, Session::Client(session));
        let mut hello = Vec::new();
        secured.open(&mut [], &mut Vec::new(), &mut hello);
        secured.send(&hello)?;
        Ok(secured)
    }

    fn new(stream: Stream, session: Session) -> Secured {
        Secured {
            stream,
            session,
            held: Vec::new(),
            unsent: Vec::new(),
            held_back: false,
            closed_by_peer: false,
            failed: false,
            fault: None,
            said_goodbye: false,
        }
    }

    /// Why it failed, if the library knows.
    pub fn fault(&self) -> Option<&rustls::Error> {
        self.fault.as_deref()
    }

    /// Sends on what the kernel did not take.
    pub fn send_on(&mut self) -> io::Result<()> {
        self.send(&[])
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// What the handshake agreed on (ALPN).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.state().alpn_protocol()
    }

    pub fn is_handshaking(&self) -> bool {
        !self.failed && self.session.state().is_handshaking()
    }

    pub fn wants_input(&self) -> bool {
        self.unsent.len() <= UNSENT_BYTES_MAX
    }

    /// Reads once; hands on what could be opened and sends what the protocol itself has to say.
    pub fn read<'a>(&mut self, buffers: &'a mut Buffers) -> Reading<'a> {
        let held = self.held.len();
        let room = buffers.raw.len() - held;
        buffers.raw[..held].copy_from_slice(&self.held);
        let count = match self.stream.read(&mut buffers.raw[held..]) {
            RawReading::Bytes(count) => count,
            RawReading::Nothing => return Reading::Nothing,
            RawReading::End => return Reading::End,
            RawReading::Broken => return Reading::Broken,
        };
        buffers.plain.clear();
        buffers.sealed.clear();
        let handshaking = self.is_handshaking();
        let was_open = !self.is_ended();
        if was_open {
            let incoming = &mut buffers.raw[..held + count];
            let used = self.open(incoming, &mut buffers.plain, &mut buffers.sealed);
            // Nothing left is an empty vector, which holds no memory.
            self.held = incoming[used..].to_vec();
            if self.held.len() > HELD_BYTES_MAX || self.is_ended() {
                self.failed |= self.held.len() > HELD_BYTES_MAX;
                self.held = Vec::new();
            }
        }
        let handshake = self.outcome().filter(|_| handshaking);
        if self.is_accepted(handshake) {
            // The reactor flushes next: the ticket leaves with the first answer, where the last
            // words of the handshake came with a request.
            self.unsent.extend_from_slice(&buffers.sealed);
            self.held_back = !self.unsent.is_empty();
        } else if self.send(&buffers.sealed).is_err() {
            return Reading::Broken;
        }
        Reading::Bytes {
            bytes: &mut buffers.plain,
            more: count == room,
            end: was_open && self.is_ended(),
            handshake,
        }
    }

    /// Whether a client came in. Who dials is not flushed next, and its server waits for its word.
    fn is_accepted(&self, handshake: Option<Handshake>) -> bool {
        let done = matches!(handshake, Some(Handshake::Full | Handshake::Resumed));
        done && matches!(self.session, Session::Server(_))
    }

    fn is_ended(&self) -> bool {
        self.failed || self.closed_by_peer
    }

    fn outcome(&self) -> Option<Handshake> {
        if self.failed {
            return Some(Handshake::Failed);
        }
        if self.session.state().is_handshaking() {
            return None;
        }
        match self.session.state().handshake_kind() {
            Some(HandshakeKind::Resumed) => Some(Handshake::Resumed),
            _ => Some(Handshake::Full),
        }
    }

    /// Opens every whole record of `incoming`; returns how many bytes are done with.
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, sealed: &mut Vec<u8>) -> usize {
        let mut opening = Opening {
            plain,
            sealed,
            closed_by_peer: false,
            fault: None,
        };
        let used = match &mut self.session {
            Session::Server(end) => opening.open(end, incoming),
            Session::Client(end) => opening.open(end, incoming),
        };
        self.closed_by_peer |= opening.closed_by_peer;
        if let Some(error) = opening.fault {
            log::debug!("a TLS connection failed: {error}");
            self.failed = true;
            self.fault = Some(Box::new(error));
        }
        used
    }

    /// Seals and writes what waits until all is with the kernel or it takes no more.
    pub fn flush(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<()> {
        self.seal(outbox, buffers)?;
        self.send(&buffers.sealed)
    }

    /// The same, and then says that nothing more will come, in one breath with the last of it.
    /// Whether all that is with the kernel.
    pub fn finish(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<bool> {
        self.seal(outbox, buffers)?;
        let handshaking = self.session.state().is_handshaking();
        if outbox.is_empty() && !self.said_goodbye && !self.failed && !handshaking {
            self.said_goodbye = true;
            // One that cannot be said is not missed by a peer that is gone in any case.
            let _ = self.with_traffic(Seal::Goodbye, &mut buffers.sealed);
        }
        self.send(&buffers.sealed)?;
        Ok(outbox.is_empty() && self.unsent.is_empty())
    }

    /// Seals what waits; all but the last batch is sent, as long as the kernel takes it. The last
    /// is left in `buffers.sealed`.
    fn seal(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<()> {
        if self.failed {
            // The peer could not read it.
            outbox.clear();
        }
        if !self.held_back {
            self.send(&[])?;
        }
        buffers.sealed.clear();
        while self.may_seal() && !outbox.is_empty() {
            if !buffers.sealed.is_empty() {
                self.send(&buffers.sealed)?;
                buffers.sealed.clear();
                continue;
            }
            let plain = gather(outbox, &mut buffers.gathered);
            let count = plain.len();
            let taken = self.with_traffic(Seal::Plain(plain), &mut buffers.sealed);
            match taken {
                Ok(true) => outbox.advance(count),
                Ok(false) => return Ok(()),
                Err(Fault) => return Err(ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    /// Nothing waits for the kernel, and the peer can read what is sealed.
    fn may_seal(&self) -> bool {
        let waits = !self.unsent.is_empty() && !self.held_back;
        !waits && !self.session.state().is_handshaking()
    }

    /// Lets `seal` write something, if the connection is at a point where that can be done.
    fn with_traffic(&mut self, seal: Seal<'_>, sealed: &mut Vec<u8>) -> Result<bool, Fault> {
        let held = &mut self.held;
        let sealing = match &mut self.session {
            Session::Server(end) => seal.write(end, held, sealed),
            Session::Client(end) => seal.write(end, held, sealed),
        };
        let sealing = sealing.inspect_err(|Fault| self.failed = true)?;
        self.closed_by_peer |= sealing.closed_by_peer;
        Ok(sealing.done)
    }

    /// Writes what waits and then `sealed`; what the kernel does not take waits.
    fn send(&mut self, mut sealed: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.held_back) {
            self.unsent.extend_from_slice(std::mem::take(&mut sealed));
        }
        if !self.unsent.is_empty() {
            let count = self.stream.write(&self.unsent)?;
            if count == self.unsent.len() {
                self.unsent = Vec::new();
            } else {
                self.unsent.drain(..count);
                self.unsent.extend_from_slice(sealed);
                return Ok(());
            }
        }
        if !sealed.is_empty() {
            let count = self.stream.write(sealed)?;
            self.unsent.extend_from_slice(&sealed[count..]);
        }
        Ok(())
    }
}

/// What comes of opening records.
struct Opening<'a> {
    plain: &'a mut Vec<u8>,
    sealed: &'a mut Vec<u8>,
    closed_by_peer: bool,
    fault: Option<rustls::Error>,
}

impl Opening<'_> {
    fn open<E: End>(&mut self, end: &mut E, incoming: &mut [u8]) -> usize {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = end.process(&mut incoming[used..]);
            let again = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        self.plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => grow(self.sealed, |room| {
                    data.encode(room).map_err(wanted_to_encode)
                })
                .is_ok(),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.closed_by_peer = true;
                    false
                }
                Ok(_) => false,
                Err(error) => {
                    self.fault.get_or_insert(error);
                    false
                }
            };
            used += discard;
            // After a fault only what is queued already may be asked for, which is the alert: the
            // library would stumble over the same bytes again.
            let again = match self.fault {
                Some(_) => end.state().wants_write(),
                None => again,
            };
            if !again {
                return used;
            }
        }
    }
}

/// What is to be sealed.
enum Seal<'a> {
    Plain(&'a [u8]),
    /// The word that nothing more will come.
    Goodbye,
}

/// What comes of sealing.
struct Sealing {
    /// False: it is not the time for it.
    done: bool,
    closed_by_peer: bool,
}

impl Seal<'_> {
    fn write<E: End>(
        self,
        end: &mut E,
        held: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
    ) -> Result<Sealing, Fault> {
        let mut sealing = Sealing {
            done: false,
            closed_by_peer: false,
        };
        loop {
            // The library may remember places in what is held, so it is shown it every time.
            let UnbufferedStatus { discard, state } = end.process(held);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.write_to(&mut traffic, sealed)?;
                    sealing.done = true;
                    return Ok(sealing);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    grow(sealed, |room| data.encode(room).map_err(wanted_to_encode))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => sealing.closed_by_peer = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return Ok(sealing);
                }
                // Every whole record was opened when it arrived.
                Ok(_) | Err(_) => return Err(Fault),
            }
            held.drain(..discard);
        }
    }

    fn write_to<Data>(
        self,
        traffic: &mut WriteTraffic<'_, Data>,
        sealed: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        grow(sealed, |room| {
            let written = match self {
                Seal::Plain(plain) => traffic.encrypt(plain, room),
                Seal::Goodbye => traffic.queue_close_notify(room),
            };
            written.map_err(wanted_to_encrypt)
        })
    }
}

/// The front of the outbox in one piece, so that many small messages make one record.
fn gather<'a>(outbox: &'a Outbox, gathered: &'a mut Vec<u8>) -> &'a [u8] {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = outbox.slices(&mut slices);
    if filled == 1 || slices[0].len() >= BATCH_BYTES {
        // Taken from the outbox again, whose bytes outlive the slices.
        return outbox.front(BATCH_BYTES);
    }
    gathered.clear();
    for slice in &slices[..filled] {
        let room = BATCH_BYTES - gathered.len();
        gathered.extend_from_slice(&slice[..room.min(slice.len())]);
    }
    gathered
}

/// Lets `write` fill the end of `sealed`, with as much room as it says it wants.
fn grow(
    sealed: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<(), Fault> {
    let start = sealed.len();
    // The first try learns how much.
    for _ in 0..2 {
        match write(&mut sealed[start..]) {
            Ok(count) => {
                sealed.truncate(start + count);
                return Ok(());
            }
            Err(Some(error)) => sealed.resize(start + error.required_size, 0),
            Err(None) => return Err(Fault),
        }
    }
    Err(Fault)
}

fn wanted_to_encode(error: EncodeError) -> Option<InsufficientSizeError> {
    match error {
        EncodeError::InsufficientSize(error) => Some(error),
        EncodeError::AlreadyEncoded => None,
    }
}

fn wanted_to_encrypt(error: EncryptError) -> Option<InsufficientSizeError> {
    match error {
        EncryptError::InsufficientSize(error) => Some(error),
        EncryptError::EncryptExhausted => None,
    }
}
