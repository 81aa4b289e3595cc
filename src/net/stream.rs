//! A connected socket, TCP or Unix, without blocking: bytes in, bytes out, or why not.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::base::bytes::Outbox;

/// Buffers of one vectored write.
const SLICES: usize = 64;

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What the kernel gave.
pub enum RawReading {
    /// So many bytes; the kernel has no more when that is fewer than were asked for.
    Bytes(usize),
    /// Nothing now; an event will tell.
    Nothing,
    /// The peer will send nothing more.
    End,
    Broken,
}

impl Stream {
    /// Registers once for both directions; edge-triggered, so never again.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, both),
            Stream::Unix(stream) => stream.register(registry, token, both),
        }
    }

    /// Whether a connection that was begun stands; an error when it failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        let fault = match self {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        };
        if let Some(error) = fault? {
            return Err(error);
        }
        let peer = match self {
            Stream::Tcp(stream) => stream.peer_addr().map(|_| ()),
            Stream::Unix(stream) => stream.peer_addr().map(|_| ()),
        };
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn deregister(&mut self, registry: &Registry) {
        // It is closed next, which does the same; an error here has no consequence.
        let _ = match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
        };
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> RawReading {
        loop {
            let read = match self {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
            };
            return match read {
                Ok(0) => RawReading::End,
                Ok(count) => RawReading::Bytes(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => RawReading::Nothing,
                Err(_) => RawReading::Broken,
            };
        }
    }

    /// Writes until the outbox is empty or the kernel refuses. An error: the peer is gone.
    pub fn flush(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = outbox.slices(&mut slices);
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let wrote = match self {
                Stream::Tcp(stream) => stream.write_vectored(&slices[..filled]),
                Stream::Unix(stream) => stream.write_vectored(&slices[..filled]),
            };
            match wrote {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    outbox.advance(count);
                    if count < offered {
                        // The socket's buffer is full; trying again would only say so.
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what the kernel takes now, which may be nothing. An error: the peer is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let wrote = match self {
                Stream::Tcp(stream) => stream.write(bytes),
                Stream::Unix(stream) => stream.write(bytes),
            };
            return match wrote {
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                Ok(count) => Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                Err(error) => Err(error),
            };
        }
    }

    /// Tells the peer that nothing more will come.
    pub fn shut_sending(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
