//! TLS as the generator's connections speak it: whom they trust, what they
//! offer, which tickets they come back with.
//!
//! TLS 1.3 only. A ticket is used once, as RFC 8446 (appendix C.4) asks for;
//! without `--resume` every handshake is a full one.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mio::net::TcpStream;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue};
use rustls::client::{Tls13ClientSessionValue, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore};

use crate::Fallible;
use crate::options::{Group, TlsOptions};

/// The name in the certificates that are made here.
const NAME: &str = "localhost";

/// What all connections of a run share.
#[derive(Clone)]
pub struct Security {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Security {
    /// Trusts the certificate in the file `authority` and nothing else.
    pub fn new(options: &TlsOptions, authority: &Path) -> Fallible<Security> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)? {
            roots.add(certificate?)?;
        }
        let mut provider = default_provider();
        // As browsers do it; servers commonly choose what comes first.
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        if options.group == Group::X25519 {
            provider.kx_groups = vec![kx_group::X25519];
        }
        let provider = Arc::new(provider);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.resumption = match options.resume {
            true => Resumption::store(Arc::new(Purse::default())),
            false => Resumption::disabled(),
        };
        Ok(Security {
            config: Arc::new(config),
            name: ServerName::try_from(NAME)?,
        })
    }
}

/// Makes a certificate for the server and its key (ECDSA with P-256), as PEM.
pub fn write_identity(certificate: &Path, key: &Path) -> Fallible<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(certificate, cert.pem())?;
    fs::write(key, signing_key.serialize_pem())?;
    Ok(())
}

/// The tickets that no connection has used yet. All are for one server.
#[derive(Debug, Default)]
struct Purse(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Purse {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.pop()
    }
}

/// The client's half of one TLS connection.
pub struct Session(ClientConnection);

impl Session {
    pub fn new(security: &Security) -> io::Result<Session> {
        let mut session = ClientConnection::new(security.config.clone(), security.name.clone())
            .map_err(io::Error::other)?;
        // What is sent before the handshake is over waits here, whatever its size.
        session.set_buffer_limit(None);
        Ok(Session(session))
    }

    /// Whether the handshake was a short one; `None` before its end.
    pub fn resumed(&self) -> Option<bool> {
        let kind = self.0.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }

    pub fn send(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)?;
        self.flush(stream)
    }

    pub fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected yet, or no room: an event will tell.
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the socket is empty or `room` is full. Returns how much of
    /// it was filled, and whether the peer has closed.
    pub fn fill(&mut self, stream: &mut TcpStream, room: &mut [u8]) -> Fallible<(usize, bool)> {
        let mut filled = 0;
        loop {
            filled += self.take(&mut room[filled..])?;
            if filled == room.len() {
                return Ok((filled, false));
            }
            match self.0.read_tls(stream) {
                Ok(0) => return Ok((filled, true)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((filled, false)),
                Err(error) => return Err(error.into()),
            }
            let state = self.0.process_new_packets()?;
            self.flush(stream)?;
            if state.peer_has_closed() {
                filled += self.take(&mut room[filled..])?;
                return Ok((filled, true));
            }
        }
    }

    /// Takes what was opened.
    fn take(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < room.len() {
            match self.0.reader().read(&mut room[taken..]) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
