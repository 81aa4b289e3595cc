//! The compression of what a worker sends: who agreed to what, and the compressors that all of its
//! connections share. Knows nothing of frames. Invariant: what a connection's history holds is
//! what its peer has inflated last, so that every reference finds its bytes.

use std::collections::BTreeMap;

use crate::app::application::Parcel;
use crate::base::counters::Counters;
use crate::base::ids::ConnId;
use crate::wire::deflate::{Compressor, History};
use crate::wire::deflate_offer::{Agreement, DeflateOptions, negotiate};
use crate::wire::http::Request;
use crate::wire::websocket;

/// See the file's head.
pub struct Deflating {
    options: Option<DeflateOptions>,
    /// By the bits of their window. Few clients ask for another one than the configured.
    compressors: BTreeMap<u8, Compressor>,
    /// By slot. Empty for good when compression is off.
    peers: Vec<Option<Receiver>>,
    done: Done,
}

/// What compressing came to.
#[derive(Clone, Copy, Default)]
struct Done {
    messages: u64,
    bytes_before: u64,
    bytes_after: u64,
}

impl Done {
    fn count(&mut self, before: usize, after: usize) {
        self.messages += 1;
        self.bytes_before += before as u64;
        self.bytes_after += after as u64;
    }
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
            compressors: BTreeMap::new(),
            peers: Vec::new(),
            done: Done::default(),
        }
    }

    /// Tells what was compressed since the start.
    pub fn count(&self, counters: &mut Counters) {
        counters.deflated = self.done.messages;
        counters.deflated_in = self.done.bytes_before;
        counters.deflated_out = self.done.bytes_after;
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
            done,
        } = self;
        if message.len() < (*options)?.min_bytes {
            return None;
        }
        let payload = compress(compressors, receiver(peers, conn)?, message)?;
        done.count(message.len(), payload.len());
        Some(payload)
    }

    /// How a parcel goes to a connection. It is compressed once for all receivers with the
    /// configured window and without a context.
    pub fn parcel<'a>(&'a mut self, conn: ConnId, parcel: &'a Parcel<'_>) -> Deflated<'a> {
        let Deflating {
            options,
            compressors,
            peers,
            done,
        } = self;
        let Some(options) = options.filter(|o| parcel.message().payload().len() >= o.min_bytes)
        else {
            return Deflated::Not;
        };
        let Some(receiver) = receiver(peers, conn) else {
            return Deflated::Not;
        };
        if receiver.history.is_some() || receiver.bits != options.window_bits {
            let plain = parcel.message().payload();
            return match compress(compressors, receiver, plain) {
                Some(payload) => {
                    done.count(plain.len(), payload.len());
                    Deflated::Own(payload)
                }
                None => Deflated::Not,
            };
        }
        let shared = parcel.deflated(|message| {
            let plain = message.payload();
            let payload = compressor(compressors, receiver.bits).compress(plain)?;
            done.count(plain.len(), payload.len());
            Some(websocket::deflated_frame(message.opcode(), payload))
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

fn compressor(compressors: &mut BTreeMap<u8, Compressor>, bits: u8) -> &mut Compressor {
    compressors
        .entry(bits)
        .or_insert_with(|| Compressor::new(bits))
}

fn compress<'a>(
    compressors: &'a mut BTreeMap<u8, Compressor>,
    receiver: &mut Receiver,
    message: &[u8],
) -> Option<&'a [u8]> {
    let compressor = compressor(compressors, receiver.bits);
    let Some(history) = receiver.history.as_deref_mut() else {
        return compressor.compress(message);
    };
    let payload = compressor.compress_after(message, history.as_slice())?;
    history.remember(message);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deflate::{Garbled, Inflaters};

    const BOTH: DeflateOptions = DeflateOptions {
        client_context: true,
        server_context: true,
        min_bytes: 10,
        window_bits: 12,
    };

    fn join(deflating: &mut Deflating, slot: u32, offer: &str, options: &DeflateOptions) -> ConnId {
        let conn = ConnId::new(slot, 1);
        let agreed = negotiate([offer].into_iter(), options).expect("an agreement");
        deflating.open(conn, agreed);
        conn
    }

    fn inflate(payload: &[u8], history: &[u8]) -> Vec<u8> {
        let mut inflater = Inflaters::default().lend(history).expect("a history");
        let mut plain = Vec::new();
        let mut sink = |bytes: &[u8]| {
            plain.extend_from_slice(bytes);
            Ok::<(), Garbled>(())
        };
        inflater.push(payload, 10_000, &mut sink).expect("deflate");
        inflater.finish(10_000, &mut sink).expect("deflate");
        plain
    }

    #[test]
    fn a_broadcast_is_compressed_once_for_all_without_a_context() {
        let options = DeflateOptions {
            server_context: false,
            ..BOTH
        };
        let mut deflating = Deflating::new(Some(options));
        let text = "long and dull ".repeat(50);
        let parcel = Parcel::text(&text);
        let mut frames = Vec::new();
        for slot in 0..3 {
            let conn = join(&mut deflating, slot, "permessage-deflate", &options);
            match deflating.parcel(conn, &parcel) {
                Deflated::Shared(frame) => frames.push(frame.clone()),
                _ => panic!("a shared frame was expected"),
            }
        }
        assert!(
            frames
                .iter()
                .all(|frame| frame.as_ptr() == frames[0].as_ptr())
        );
        assert_eq!(frames[0][0], 0xc1, "final, compressed, text");
        let plain = inflate(websocket::payload(&frames[0]), b"");
        assert_eq!(plain, parcel.message().payload());
        // Who asked for a smaller window cannot read that one.
        let small = "permessage-deflate; server_max_window_bits=9";
        let small = join(&mut deflating, 3, small, &options);
        assert!(matches!(deflating.parcel(small, &parcel), Deflated::Own(_)));
        let stranger = ConnId::new(4, 1);
        assert!(matches!(deflating.parcel(stranger, &parcel), Deflated::Not));
        let short = Parcel::text("short");
        let first = ConnId::new(0, 1);
        assert!(matches!(deflating.parcel(first, &short), Deflated::Not));
        deflating.close(first);
        assert!(matches!(deflating.parcel(first, &parcel), Deflated::Not));
    }

    #[test]
    fn a_context_follows_what_the_peer_has_seen_and_may_be_forgotten() {
        let mut deflating = Deflating::new(Some(BOTH));
        let offer = "permessage-deflate; client_max_window_bits";
        let conn = join(&mut deflating, 0, offer, &BOTH);
        let texts: Vec<String> = (0..200)
            .map(|n| format!("{{\"event\":\"tick\",\"data\":\"{n} {}\"}}", n * 7919))
            .collect();
        // All the peer ever sees; it keeps at most its window of it.
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        for (round, text) in texts.iter().enumerate() {
            if round == 150 {
                deflating.forget(conn);
            }
            let parcel = Parcel::text(text);
            let payload = match deflating.parcel(conn, &parcel) {
                Deflated::Own(payload) => payload.to_vec(),
                Deflated::Not => continue,
                Deflated::Shared(_) => panic!("it has a context of its own"),
            };
            let window = &seen[seen.len() - seen.len().min(1 << 12)..];
            assert_eq!(inflate(&payload, window), text.as_bytes(), "round {round}");
            seen.extend_from_slice(text.as_bytes());
            sizes.push(payload.len());
        }
        assert!(
            sizes.iter().filter(|size| **size < 20).count() > 150,
            "{sizes:?}"
        );
    }
}
