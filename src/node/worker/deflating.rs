//! The compression of what a worker sends: who agreed to what, and the compressors that all of its
//! connections share. Knows nothing of frames. Invariant: what a connection's history holds is
//! what its peer has inflated last, so that every reference finds its bytes.

use std::collections::HashMap;

use crate::app::application::Parcel;
use crate::base::ids::ConnId;
use crate::wire::deflate::{Compressor, History};
use crate::wire::deflate_offer::{Agreement, DeflateOptions, negotiate};
use crate::wire::http::Request;
use crate::wire::websocket::{self, TEXT};

/// See the file's head.
pub struct Deflating {
    options: Option<DeflateOptions>,
    /// By the bits of their window. Few clients ask for another one than the configured.
    compressors: HashMap<u8, Compressor>,
    /// By slot. Empty for good when compression is off.
    peers: Vec<Option<Receiver>>,
}

struct Receiver {
    generation: u32,
    bits: u8,
    /// Boxed, since without a context there is none.
    history: Option<Box<History>>,
}

/// How a parcel goes to one connection.
pub enum Deflated<'a> {
    /// By the frame that others get too.
    Shared(&'a bytes::Bytes),
    /// By a payload of its own.
    Own(&'a [u8]),
    Not,
}

impl Deflating {
    pub fn new(options: Option<DeflateOptions>) -> Deflating {
        Deflating {
            options,
            compressors: HashMap::new(),
            peers: Vec::new(),
        }
    }

    /// What comes of the offers of a request.
    pub fn negotiate(&self, request: &Request<'_>) -> Option<Agreement> {
        let options = self.options.filter(|_| request.wants_websocket())?;
        negotiate(request.headers("sec-websocket-extensions"), &options)
    }

    pub fn open(&mut self, conn: ConnId, agreed: Agreement) {
        let slot = conn.slot as usize;
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        let history = agreed.server_context_bits;
        self.peers[slot] = Some(Receiver {
            generation: conn.generation,
            bits: agreed.server_bits,
            history: history.map(|bits| Box::new(History::new(Some(bits)))),
        });
    }

    pub fn close(&mut self, conn: ConnId) {
        if let Some(receiver) = self.peers.get_mut(conn.slot as usize)
            && receiver
                .as_ref()
                .is_some_and(|receiver| receiver.generation == conn.generation)
        {
            *receiver = None;
        }
    }

    /// The connection is idle: its context is given back. The peer keeps its own, and messages
    /// that refer to nothing before now are right for it all the same.
    pub fn forget(&mut self, conn: ConnId) {
        if let Some(history) =
            receiver(&mut self.peers, conn).and_then(|one| one.history.as_deref_mut())
        {
            history.clear();
        }
    }

    /// The compressed payload of a message for one connection; `None`: it goes as it is.
    pub fn message(&mut self, conn: ConnId, message: &[u8]) -> Option<&[u8]> {
        let Deflating {
            options,
            compressors,
            peers,
        } = self;
        if message.len() < (*options)?.min_bytes {
            return None;
        }
        compress(compressors, receiver(peers, conn)?, message)
    }

    /// How a parcel goes to a connection. It is compressed once for all receivers with the
    /// configured window and without a context.
    pub fn parcel<'a>(&'a mut self, conn: ConnId, parcel: &'a Parcel) -> Deflated<'a> {
        let Deflating {
            options,
            compressors,
            peers,
        } = self;
        let Some(options) = options.filter(|o| parcel.payload().len() >= o.min_bytes) else {
            return Deflated::Not;
        };
        let Some(receiver) = receiver(peers, conn) else {
            return Deflated::Not;
        };
        if receiver.history.is_some() || receiver.bits != options.window_bits {
            return match compress(compressors, receiver, parcel.payload()) {
                Some(payload) => Deflated::Own(payload),
                None => Deflated::Not,
            };
        }
        let shared = parcel.deflated(|message| {
            let payload = compressor(compressors, receiver.bits).compress(message, &[]);
            payload.map(|payload| websocket::deflated_frame(TEXT, payload))
        });
        match shared {
            Some(frame) => Deflated::Shared(frame),
            None => Deflated::Not,
        }
    }
}

fn receiver(peers: &mut [Option<Receiver>], conn: ConnId) -> Option<&mut Receiver> {
    let receiver = peers.get_mut(conn.slot as usize)?.as_mut()?;
    (receiver.generation == conn.generation).then_some(receiver)
}

fn compressor(compressors: &mut HashMap<u8, Compressor>, bits: u8) -> &mut Compressor {
    compressors
        .entry(bits)
        .or_insert_with(|| Compressor::new(bits))
}

fn compress<'a>(
    compressors: &'a mut HashMap<u8, Compressor>,
    receiver: &mut Receiver,
    message: &[u8],
) -> Option<&'a [u8]> {
    let history = receiver.history.as_deref_mut();
    let seen = history.as_ref().map_or(&[][..], |seen| seen.as_slice());
    let payload = compressor(compressors, receiver.bits).compress(message, seen)?;
    if let Some(history) = history {
        history.remember(message);
    }
    Some(payload)
}
