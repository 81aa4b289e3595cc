//! The two byte queues between a socket and a protocol. `Inbox`: what a peer sent and nobody took
//! yet. `Outbox`: what a peer is to receive, bounded, with large shared frames kept by reference.
//! Neither knows what the bytes mean; an empty one holds no memory.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

/// A view of received bytes. A protocol takes them from the front, as slices that outlive the
/// view itself, and may change them in place (unmasking).
pub struct Inbox<'a> {
    rest: &'a mut [u8],
    taken: usize,
}

impl<'a> Inbox<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Inbox<'a> {
        Inbox {
            rest: bytes,
            taken: 0,
        }
    }

    pub fn rest(&self) -> &[u8] {
        self.rest
    }

    /// Removes the first `count` bytes. Panics when there are fewer: measuring comes first.
    pub fn take(&mut self, count: usize) -> &'a mut [u8] {
        let (front, rest) = mem::take(&mut self.rest).split_at_mut(count);
        self.rest = rest;
        self.taken += count;
        front
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were taken since `new`.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// A push that would pass the limit. Nothing of it was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

enum Chunk {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// Up to this size a shared frame is copied: cheaper than one more vector in the write.
const COPY_MAX: usize = 1024;
/// Own chunks stop growing here, so that a long queue frees memory as it drains.
const CHUNK_BYTES: usize = 16 * 1024;
/// Where one message follows another in a turn, more do: the chunk gets room for them at once.
const MORE_BYTES: usize = 480;

/// Bytes on their way to one peer. Invariant: `len` is the sum of all chunks minus `offset`, and
/// no chunk is empty.
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that were written already.
    offset: usize,
    len: usize,
    limit: usize,
    /// Bytes taken by the transport since the connection opened: by the kernel where it is plain,
    /// as all links between our processes are; by TLS, which holds some for the kernel, else.
    written: u64,
    /// Somebody waits for it to be empty.
    awaited: bool,
}

impl Outbox {
    /// Holds at most `limit` bytes; one message larger than that is taken when nothing else waits.
    pub fn new(limit: usize) -> Outbox {
        Outbox {
            chunks: VecDeque::new(),
            offset: 0,
            len: 0,
            limit,
            written: 0,
            awaited: false,
        }
    }

    /// The next time it is empty, `take_awaited` says so.
    pub fn tell_when_empty(&mut self) {
        self.awaited = true;
    }

    /// Whether it is empty and somebody waited for that; true once.
    pub fn take_awaited(&mut self) -> bool {
        self.is_empty() && std::mem::take(&mut self.awaited)
    }

    /// Whether `count` more bytes would be accepted.
    pub fn has_room(&self, count: usize) -> bool {
        self.len == 0 || self.len + count <= self.limit
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.push_with(bytes.len(), |tail| tail.extend_from_slice(bytes))
    }

    /// Appends `count` bytes that `write` adds to the vector it is given.
    pub fn push_with(
        &mut self,
        count: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Full> {
        if !self.has_room(count) {
            return Err(Full);
        }
        if count == 0 {
            return Ok(());
        }
        let tail = self.tail(count);
        let before = tail.len();
        write(tail);
        let added = tail.len() - before;
        debug_assert_eq!(added, count, "the announced size is the written size");
        self.len += added;
        Ok(())
    }

    /// Appends a frame that others receive too.
    pub fn push_shared(&mut self, bytes: &Bytes) -> Result<(), Full> {
        if bytes.len() <= COPY_MAX {
            return self.push(bytes);
        }
        if !self.has_room(bytes.len()) {
            return Err(Full);
        }
        self.len += bytes.len();
        self.chunks.push_back(Chunk::Shared(bytes.clone()));
        Ok(())
    }

    fn tail(&mut self, count: usize) -> &mut Vec<u8> {
        let fits = matches!(self.chunks.back(), Some(Chunk::Own(tail)) if tail.len() + count <= CHUNK_BYTES);
        if !fits {
            self.chunks.push_back(Chunk::Own(Vec::with_capacity(count)));
        }
        match self.chunks.back_mut() {
            Some(Chunk::Own(tail)) => {
                if tail.capacity() - tail.len() < count {
                    tail.reserve(count.max(MORE_BYTES));
                }
                tail
            }
            _ => unreachable!("an own chunk was just made sure of"),
        }
    }

    /// Fills `slices` from the front; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let skip = if filled == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(&chunk.as_slice()[skip..]);
            filled += 1;
        }
        filled
    }

    /// The front in one piece, as far as it is one and at most `count` bytes of it.
    pub fn front(&self, count: usize) -> &[u8] {
        let first = self.chunks.front().map_or(&[][..], Chunk::as_slice);
        let rest = &first[self.offset..];
        &rest[..count.min(rest.len())]
    }

    /// The transport took `count` bytes.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len,
            "a socket takes no more than it was given"
        );
        self.len -= count;
        self.written += count as u64;
        self.offset += count;
        while let Some(first) = self.chunks.front() {
            let size = first.as_slice().len();
            if self.offset < size {
                break;
            }
            self.offset -= size;
            self.chunks.pop_front();
        }
        if self.len == 0 {
            self.chunks = VecDeque::new();
        }
    }

    /// Takes whole pieces, as they were pushed, until `enough` bytes are together or none is left.
    /// For a queue that no transport writes from.
    pub fn take(&mut self, enough: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < enough && !self.is_empty() {
            let piece = self.front(usize::MAX);
            let count = piece.len();
            taken.extend_from_slice(piece);
            self.advance(count);
        }
        taken
    }

    /// Puts back the end of what was taken last.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.written -= bytes.len() as u64;
            self.chunks.push_front(Chunk::Own(bytes));
        }
    }

    /// Drops everything that was not written.
    pub fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.offset = 0;
        self.len = 0;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where the last queued byte will stand in the stream: once `written` reaches it, everything
    /// queued so far is with the kernel.
    pub fn position(&self) -> u64 {
        self.written + self.len as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = outbox.slices(&mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
            let count = step.min(bytes.len());
            all.extend_from_slice(&bytes[..count]);
            outbox.advance(count);
        }
        all
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_the_socket_takes() {
        let big = Bytes::from(vec![b'x'; 3000]);
        for step in [1, 7, 1000, 100_000] {
            let mut outbox = Outbox::new(1 << 20);
            let mut expected = Vec::new();
            for round in 0..5u8 {
                outbox.push(&[round; 10]).expect("room");
                outbox.push_shared(&big).expect("room");
                outbox
                    .push_shared(&Bytes::from_static(b"small"))
                    .expect("room");
                expected.extend_from_slice(&[round; 10]);
                expected.extend_from_slice(&big);
                expected.extend_from_slice(b"small");
            }
            assert_eq!(outbox.position(), expected.len() as u64);
            assert_eq!(drain(&mut outbox, step), expected, "step {step}");
            assert_eq!(outbox.written(), expected.len() as u64);
        }
    }

    #[test]
    fn a_push_over_the_limit_is_refused_whole() {
        let mut outbox = Outbox::new(10);
        outbox.push(b"12345678").expect("room");
        assert_eq!(outbox.push(b"abc"), Err(Full));
        assert_eq!(outbox.len(), 8);
        outbox.push(b"ab").expect("just fits");
        assert_eq!(drain(&mut outbox, 3), b"12345678ab");
    }

    #[test]
    fn one_large_message_is_taken_when_nothing_waits() {
        let mut outbox = Outbox::new(10);
        outbox.push(&[1; 50]).expect("nothing waits");
        assert_eq!(outbox.push(b"a"), Err(Full));
    }

    #[test]
    fn taking_from_an_inbox_outlives_the_view() {
        let mut bytes = *b"abcdef";
        let mut inbox = Inbox::new(&mut bytes);
        let front = inbox.take(2);
        let next = inbox.take(3);
        front[0] = b'z';
        assert_eq!((&*front, &*next), (&b"zb"[..], &b"cde"[..]));
        assert_eq!((inbox.taken(), inbox.rest()), (5, &b"f"[..]));
    }
}
