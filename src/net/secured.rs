//! One TLS connection over a socket: ciphertext in and out, plaintext to and from the node. It
//! drives the library's unbuffered interface over buffers that all connections of a reactor share,
//! so that an idle connection holds none.
//!
//! Invariants: no plaintext is taken from an outbox while sealed bytes wait for the kernel, so at
//! most one batch waits beside the outbox. After a fault only the alert that tells it is sent; what
//! the peer says from then on is ignored, and the connection reads as ended.

use std::io::{self, ErrorKind, IoSlice};

use rustls::HandshakeKind;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};

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
/// any client with a sensible certificate sends.
const HELD_BYTES_MAX: usize = 32 * 1024;
/// A peer that makes us answer (with key updates, say) and does not read is not read from either.
const UNSENT_BYTES_MAX: usize = 2 * BATCH_BYTES;

pub struct Secured {
    stream: Stream,
    session: UnbufferedServerConnection,
    /// Ciphertext that is not a whole record yet.
    held: Vec<u8>,
    /// Sealed bytes that the kernel did not take.
    unsent: Vec<u8>,
    /// The peer said that it will send no more.
    closed_by_peer: bool,
    failed: bool,
    said_goodbye: bool,
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
        Ok(Secured {
            stream,
            session,
            held: Vec::new(),
            unsent: Vec::new(),
            closed_by_peer: false,
            failed: false,
            said_goodbye: false,
        })
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn is_handshaking(&self) -> bool {
        !self.failed && self.session.is_handshaking()
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
        if self.send(&buffers.sealed).is_err() {
            return Reading::Broken;
        }
        Reading::Bytes {
            bytes: &mut buffers.plain,
            more: count == room,
            end: was_open && self.is_ended(),
            handshake: self.outcome().filter(|_| handshaking),
        }
    }

    fn is_ended(&self) -> bool {
        self.failed || self.closed_by_peer
    }

    fn outcome(&self) -> Option<Handshake> {
        if self.failed {
            return Some(Handshake::Failed);
        }
        if self.session.is_handshaking() {
            return None;
        }
        match self.session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Some(Handshake::Resumed),
            _ => Some(Handshake::Full),
        }
    }

    /// Opens every whole record of `incoming`; returns how many bytes are done with.
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, sealed: &mut Vec<u8>) -> usize {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut incoming[used..]);
            let again = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    grow(sealed, |room| data.encode(room).map_err(wanted_to_encode)).is_ok()
                }
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
                    log::debug!("a TLS connection failed: {error}");
                    self.failed = true;
                    false
                }
            };
            used += discard;
            // After a fault only what is queued already may be asked for, which is the alert: the
            // library would stumble over the same bytes again.
            let again = match self.failed {
                true => self.session.wants_write(),
                false => again,
            };
            if !again {
                return used;
            }
        }
    }

    /// Seals and writes what waits until all is with the kernel or it takes no more.
    pub fn flush(&mut self, outbox: &mut Outbox, buffers: &mut Buffers) -> io::Result<()> {
        loop {
            self.send(&[])?;
            if self.failed {
                // The peer could not read it.
                outbox.clear();
            }
            let ready = self.unsent.is_empty() && !self.session.is_handshaking();
            if !ready || outbox.is_empty() {
                return Ok(());
            }
            buffers.sealed.clear();
            let plain = gather(outbox, &mut buffers.gathered);
            let count = plain.len();
            let taken = self.with_traffic(&mut buffers.sealed, |traffic, sealed| {
                grow(sealed, |room| {
                    traffic.encrypt(plain, room).map_err(wanted_to_encrypt)
                })
            });
            match taken {
                Ok(true) => outbox.advance(count),
                Ok(false) => return Ok(()),
                Err(Fault) => return Err(ErrorKind::InvalidData.into()),
            }
            self.send(&buffers.sealed)?;
        }
    }

    /// Says that nothing more will come; whether that is with the kernel.
    pub fn say_goodbye(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        if !self.said_goodbye && !self.failed && !self.session.is_handshaking() {
            self.said_goodbye = true;
            buffers.sealed.clear();
            let said = self.with_traffic(&mut buffers.sealed, |traffic, sealed| {
                grow(sealed, |room| {
                    traffic.queue_close_notify(room).map_err(wanted_to_encrypt)
                })
            });
            // One that cannot be said is not missed by a peer that is gone in any case.
            if matches!(said, Ok(true)) {
                self.send(&buffers.sealed)?;
            }
        }
        self.send(&[])?;
        Ok(self.unsent.is_empty())
    }

    /// Lets `act` seal something, if the connection is at a point where that can be done.
    fn with_traffic(
        &mut self,
        sealed: &mut Vec<u8>,
        act: impl FnOnce(
            &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        loop {
            // The library may remember places in what is held, so it is shown it every time.
            let UnbufferedStatus { discard, state } =
                self.session.process_tls_records(&mut self.held);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return act(&mut traffic, sealed).map(|()| true);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    grow(sealed, |room| data.encode(room).map_err(wanted_to_encode))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed_by_peer = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return Ok(false);
                }
                // Every whole record was opened when it arrived.
                Ok(_) | Err(_) => {
                    self.failed = true;
                    return Err(Fault);
                }
            }
            self.held.drain(..discard);
        }
    }

    /// Writes what waits and then `sealed`; what the kernel does not take waits.
    fn send(&mut self, sealed: &[u8]) -> io::Result<()> {
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
