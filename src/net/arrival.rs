//! Connections that come through a proxy and begin with a PROXY header (`wire/proxy`). Not one byte
//! beyond the header is taken: what follows is the TLS handshake's or the node's, who read for
//! themselves. Until the header is whole, the node knows nothing of the connection.

use std::net::SocketAddr;

use crate::net::stream::{RawReading, Stream};
use crate::node::Origin;
use crate::wire::proxy::{self, Parsed};

/// One whose header is still to come.
pub struct Arriving {
    listener: usize,
    /// The proxy; `None` through a Unix socket.
    peer: Option<SocketAddr>,
    /// What there is of the header; at most `proxy::BYTES_MAX`.
    held: Vec<u8>,
}

/// How far it came.
pub enum Arrival {
    /// More is to come; an event will tell.
    Waits,
    Refused(&'static str),
    Complete(Origin),
}

impl Arriving {
    pub fn new(listener: usize, peer: Option<SocketAddr>) -> Arriving {
        Arriving {
            listener,
            peer,
            held: Vec::new(),
        }
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Reads what there is of the header.
    pub fn read(&mut self, stream: &mut Stream) -> Arrival {
        loop {
            match proxy::parse(&self.held) {
                Err(refusal) => return Arrival::Refused(refusal.0),
                Ok(Parsed::Whole { source, .. }) => {
                    return Arrival::Complete(Origin::Client {
                        listener: self.listener,
                        address: source.or(self.peer),
                        peer: self.peer,
                    });
                }
                Ok(Parsed::Partial(missing)) => {
                    let held = self.held.len();
                    self.held.resize(held + missing, 0);
                    let reading = stream.read(&mut self.held[held..]);
                    let count = match reading {
                        RawReading::Bytes(count) => count,
                        _ => 0,
                    };
                    self.held.truncate(held + count);
                    match reading {
                        RawReading::Bytes(_) => {}
                        RawReading::Nothing => return Arrival::Waits,
                        RawReading::End | RawReading::Broken => {
                            return Arrival::Refused("it ended before its PROXY header did");
                        }
                    }
                }
            }
        }
    }
}

/// A connection's other end, for the log.
pub fn shown(peer: Option<SocketAddr>) -> String {
    match peer {
        Some(peer) => format!("a connection from {peer}"),
        None => "a connection through a Unix socket".to_string(),
    }
}
