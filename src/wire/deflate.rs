//! Payloads of permessage-deflate (RFC 7692 section 7.2): message to compressed bytes and back.
//! Neither side remembers a message: a context is the last plain bytes that went by (`History`),
//! kept by whoever owns the conversation and lent for one message. So one compressor and one
//! inflater serve every connection of a reactor, and a context costs its bytes instead of the
//! hundreds of kilobytes of a compressor's tables. Knows nothing of frames. Invariant: no call
//! produces more than the caller allowed.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use crate::base::close::Violation;

/// What a sync flush ends with; left out at the end of a message (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// A broadcast is compressed once for all, so that it is worth some effort.
const LEVEL: i32 = 6;
/// RFC 7692 section 7.1.2.1 knows 8 too, of which zlib silently makes 9: it is never agreed to.
pub const WINDOW_BITS_MIN: u8 = 9;
pub const WINDOW_BITS_MAX: u8 = 15;
/// How much longer than its message a payload may be that earns its place in a context.
const GROWTH_BYTES: usize = 64;
/// Inflated at a time, and the most that is inflated beyond what is allowed.
const STEP_BYTES: usize = 16 * 1024;
/// Room for compressed bytes that is kept between messages.
const KEPT_BYTES: usize = 64 * 1024;

/// The last bytes of a conversation that its next message may refer to.
#[derive(Debug, Default)]
pub struct History {
    bytes: Vec<u8>,
    max: usize,
}

impl History {
    /// For a window of that many bits; none keeps nothing.
    pub fn new(window_bits: Option<u8>) -> History {
        History {
            bytes: Vec::new(),
            max: window_bits.map_or(0, |bits| 1 << bits),
        }
    }

    /// `message` went by, compressed.
    pub fn remember(&mut self, message: &[u8]) {
        let message = &message[message.len().saturating_sub(self.max)..];
        let needed = (self.bytes.len() + message.len()).min(self.max);
        let surplus = self.bytes.len() + message.len() - needed;
        self.bytes.drain(..surplus);
        if needed > self.bytes.capacity() {
            // Grows in few steps and never beyond the window.
            let capacity = needed.next_power_of_two().min(self.max);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(message);
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory back.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
    }
}

/// Makes compressed payloads.
pub struct Compressor {
    deflate: Deflate,
    buffer: Vec<u8>,
}

impl Compressor {
    /// Refers back at most `1 << window_bits` bytes.
    pub fn new(window_bits: u8) -> Compressor {
        let bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let config = DeflateConfig {
            // Negative: without a zlib header.
            window_bits: -i32::from(bits),
            ..DeflateConfig::new(LEVEL)
        };
        Compressor {
            deflate: Deflate::new_with_config(config),
            buffer: Vec::new(),
        }
    }

    /// `message` compressed; `None` when that would not make it smaller.
    pub fn compress(&mut self, message: &[u8]) -> Option<&[u8]> {
        self.compress_within(message, &[], message.len())
    }

    /// The same for a receiver that has seen `history`. A little growth is accepted: the first
    /// messages of a conversation seldom shrink, and make those shrink that resemble them.
    pub fn compress_after(&mut self, message: &[u8], history: &[u8]) -> Option<&[u8]> {
        self.compress_within(message, history, message.len() + GROWTH_BYTES)
    }

    /// `None` when it would take `limit` bytes or more.
    fn compress_within(&mut self, message: &[u8], history: &[u8], limit: usize) -> Option<&[u8]> {
        self.deflate.reset();
        if !history.is_empty() {
            self.deflate.set_dictionary(history).ok()?;
        }
        let room = limit + TAIL.len();
        if self.buffer.len() < room || self.buffer.len() > room.max(KEPT_BYTES) {
            self.buffer = vec![0; room];
        }
        let mut written = 0;
        while written < room {
            let taken = self.deflate.total_in() as usize;
            let rest = message.get(taken..)?;
            let space = &mut self.buffer[written..room];
            let flush = DeflateFlush::SyncFlush;
            self.deflate.compress(rest, space, flush).ok()?;
            let now = self.deflate.total_out() as usize;
            if now == written {
                break;
            }
            written = now;
        }
        let payload = self.buffer[..written].strip_suffix(&TAIL)?;
        let is_whole = self.deflate.total_in() as usize == message.len();
        (is_whole && written < room).then_some(payload)
    }
}

/// What is wrong with a compressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbled {
    NotDeflate,
    /// More than the caller allowed.
    TooLong,
}

impl From<Garbled> for Violation {
    fn from(garbled: Garbled) -> Violation {
        match garbled {
            Garbled::NotDeflate => Violation::Protocol("Compressed message is garbled"),
            Garbled::TooLong => Violation::TooBig,
        }
    }
}

/// Reads compressed payloads, piece by piece.
pub struct Inflater {
    inflate: Inflate,
    buffer: Box<[u8]>,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater {
            // Reads what was made with any smaller window too.
            inflate: Inflate::new(false, WINDOW_BITS_MAX),
            buffer: vec![0; STEP_BYTES].into(),
        }
    }
}

impl Inflater {
    /// A message begins that may refer to `history`.
    pub fn begin(&mut self, history: &[u8]) -> Result<(), Garbled> {
        self.inflate.reset(false);
        if !history.is_empty() {
            let set = self.inflate.set_dictionary(history);
            set.map_err(|_| Garbled::NotDeflate)?;
        }
        Ok(())
    }

    /// Inflates `piece` into `sink`, in steps. At most `allowed` bytes come out of it.
    ///
    /// True: a final block ended at the returned count of bytes. What follows is a stream of its
    /// own (RFC 7692 section 7.2.3.4): `begin` again with what came out so far.
    pub fn push<E: From<Garbled>>(
        &mut self,
        piece: &[u8],
        mut allowed: usize,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(usize, bool), E> {
        let began = self.inflate.total_in();
        loop {
            let taken = (self.inflate.total_in() - began) as usize;
            let before = self.inflate.total_out();
            let rest = piece.get(taken..).unwrap_or_default();
            let status = self
                .inflate
                .decompress(rest, &mut self.buffer, InflateFlush::NoFlush)
                .map_err(|_| Garbled::NotDeflate)?;
            let made = (self.inflate.total_out() - before) as usize;
            let taken = (self.inflate.total_in() - began) as usize;
            if made > allowed {
                return Err(Garbled::TooLong.into());
            }
            allowed -= made;
            sink(&self.buffer[..made])?;
            match status {
                Status::StreamEnd => return Ok((taken, true)),
                // With room left, it wanted more input.
                _ if made < self.buffer.len() => return Ok((taken, false)),
                _ => {}
            }
        }
    }

    /// The message is whole: what its sender left out is put back (RFC 7692 section 7.2.2).
    pub fn finish<E: From<Garbled>>(
        &mut self,
        allowed: usize,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push(&TAIL, allowed, sink).map(|_| ())
    }
}

/// Inflaters between two messages.
#[derive(Default)]
pub struct Inflaters {
    spare: Option<Inflater>,
}

impl Inflaters {
    /// One that is ready for a message after `history`.
    pub fn lend(&mut self, history: &[u8]) -> Result<Inflater, Garbled> {
        let mut inflater = self.spare.take().unwrap_or_default();
        inflater.begin(history)?;
        Ok(inflater)
    }

    /// One is kept: messages are mostly read whole, one after the other.
    pub fn give_back(&mut self, inflater: Inflater) {
        self.spare = Some(inflater);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dice::Dice;

    fn inflate(payload: &[u8], history: &[u8], cut: usize, max: usize) -> Result<Vec<u8>, Garbled> {
        let mut inflaters = Inflaters::default();
        let mut inflater = inflaters.lend(history)?;
        let mut plain = Vec::new();
        for mut piece in payload.chunks(cut) {
            while !piece.is_empty() {
                let allowed = max - plain.len();
                let sink = |bytes: &[u8]| {
                    plain.extend_from_slice(bytes);
                    Ok::<(), Garbled>(())
                };
                let (taken, ended) = inflater.push(piece, allowed, sink)?;
                piece = &piece[taken..];
                if ended {
                    inflater.begin(&plain)?;
                }
            }
        }
        let allowed = max - plain.len();
        inflater.finish(allowed, |bytes: &[u8]| {
            plain.extend_from_slice(bytes);
            Ok::<(), Garbled>(())
        })?;
        Ok(plain)
    }

    fn text(dice: &mut Dice, size: usize) -> Vec<u8> {
        (0..size).map(|_| b'a' + dice.below(6) as u8).collect()
    }

    #[test]
    fn what_is_compressed_comes_back_for_every_window_and_cut() {
        let mut dice = Dice::new([7; 16]);
        for bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX {
            let mut compressor = Compressor::new(bits);
            let mut history = History::new(Some(bits));
            for size in [64, 200, 5_000, 100_000, 64, 300] {
                let message = text(&mut dice, size);
                let seen = history.as_slice().to_vec();
                if let Some(payload) = compressor.compress_after(&message, &seen) {
                    for cut in [1 + payload.len() / 3, payload.len()] {
                        let back = inflate(payload, &seen, cut, size);
                        assert_eq!(back.as_deref(), Ok(&*message), "{bits} {size} {cut}");
                    }
                    history.remember(&message);
                }
                assert!(history.as_slice().len() <= 1 << bits);
                assert!(history.bytes.capacity() <= 1 << bits);
            }
            assert_eq!(history.as_slice().len(), 1 << bits);
        }
    }

    #[test]
    fn a_message_like_the_last_one_costs_a_few_bytes_with_a_history() {
        let message = text(&mut Dice::new([1; 16]), 400);
        let mut compressor = Compressor::new(15);
        let alone = compressor.compress(&message).expect("smaller").len();
        let again = compressor
            .compress_after(&message, &message)
            .expect("smaller");
        assert!(again.len() < 20 && alone > 100, "{alone} {}", again.len());
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let mut compressor = Compressor::new(15);
        let mut dice = Dice::new([5; 16]);
        let noise: Vec<u8> = (0..500).map(|_| dice.below(256) as u8).collect();
        assert_eq!(compressor.compress(&noise), None);
        assert_eq!(compressor.compress(b"a"), None);
        assert!(compressor.compress(&[b'a'; 100]).is_some());
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3_are_read() {
        // Fixed Huffman codes, split anywhere.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        for cut in 1..=hello.len() {
            assert_eq!(inflate(&hello, b"", cut, 5).as_deref(), Ok(&b"Hello"[..]));
        }
        // The second "Hello", with the first as context.
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(
            inflate(&again, b"Hello", 9, 5).as_deref(),
            Ok(&b"Hello"[..])
        );
        // A block without compression.
        let stored = [
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ];
        assert_eq!(inflate(&stored, b"", 9, 5).as_deref(), Ok(&b"Hello"[..]));
        // BFINAL is set.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        for cut in 1..=last.len() {
            assert_eq!(inflate(&last, b"", cut, 5).as_deref(), Ok(&b"Hello"[..]));
        }
        // Two blocks.
        let two = [
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ];
        assert_eq!(inflate(&two, b"", 3, 5).as_deref(), Ok(&b"Hello"[..]));
        assert_eq!(inflate(&[0x00], b"", 1, 0).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn a_bomb_is_stopped_within_one_step_of_what_is_allowed() {
        let mut compressor = Compressor::new(15);
        let bomb = compressor.compress(&vec![0; 50_000_000]).expect("smaller");
        assert!(bomb.len() < 60_000);
        assert_eq!(inflate(bomb, b"", bomb.len(), 1000), Err(Garbled::TooLong));
    }

    #[test]
    fn garbage_is_told_and_never_more_than_allowed_comes_out() {
        let mut dice = Dice::new([3; 16]);
        let mut wrong = 0;
        for _ in 0..2000 {
            let size = 1 + dice.below(60) as usize;
            let garbage: Vec<u8> = (0..size).map(|_| dice.below(256) as u8).collect();
            match inflate(&garbage, b"abc", 1 + size / 2, 300) {
                Ok(plain) => assert!(plain.len() <= 300),
                Err(_) => wrong += 1,
            }
        }
        assert!(wrong > 500, "{wrong}");
        // A reference to before the beginning.
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(inflate(&again, b"", 9, 5), Err(Garbled::NotDeflate));
    }
}
