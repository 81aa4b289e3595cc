//! How our own messages are written: a frame is its length (u32, little-endian, of what follows),
//! one byte of kind, and fields in order. Strings and lists carry a u32 count. Both ends are the
//! same build or refuse each other at Hello, so there are no optional fields.

use crate::base::ids::SocketId;

/// A frame that does not say what its kind requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// What the front of a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The frame is not whole yet.
    Partial,
    /// The first `n` bytes are one frame, length field included.
    Whole(usize),
}

const LENGTH_BYTES: usize = 4;

/// Most messages fit: what grows from nothing is moved half a dozen times on its way there.
const USUAL_BYTES: usize = 256;

/// Measures the frame at the front of `input`; an empty or oversized one is garbled.
pub fn measure(input: &[u8], bytes_max: usize) -> Result<Extent, Garbled> {
    let Some(length) = input.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Extent::Partial);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > bytes_max {
        return Err(Garbled);
    }
    let whole = LENGTH_BYTES + length;
    Ok(if input.len() < whole {
        Extent::Partial
    } else {
        Extent::Whole(whole)
    })
}

/// Appends one frame to a vector; the length is filled in by `finish`.
pub struct Writer {
    frame: Vec<u8>,
}

impl Writer {
    pub fn new(kind: u8) -> Writer {
        let mut frame = Vec::with_capacity(USUAL_BYTES);
        frame.extend_from_slice(&[0, 0, 0, 0, kind]);
        Writer { frame }
    }

    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.frame.len() - LENGTH_BYTES) as u32;
        self.frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.frame
    }

    pub fn u8(&mut self, value: u8) -> &mut Writer {
        self.frame.push(value);
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Writer {
        self.frame.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Writer {
        self.frame.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn text(&mut self, value: &str) -> &mut Writer {
        self.bytes(value.as_bytes())
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Writer {
        self.u32(value.len() as u32);
        self.frame.extend_from_slice(value);
        self
    }

    pub fn option<T>(
        &mut self,
        value: Option<T>,
        write: impl FnOnce(&mut Writer, T),
    ) -> &mut Writer {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Writer, &T)) -> &mut Writer {
        self.u32(items.len() as u32);
        for item in items {
            write(self, item);
        }
        self
    }

    pub fn socket_id(&mut self, id: SocketId) -> &mut Writer {
        let (high, low) = id.to_halves();
        self.u64(high).u64(low)
    }
}

/// Reads the fields of one frame in order; strings borrow from it.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `frame` as `measure` found it. Returns the kind and the fields.
    pub fn new(frame: &'a [u8]) -> Result<(u8, Reader<'a>), Garbled> {
        let (&kind, rest) = frame
            .get(LENGTH_BYTES..)
            .and_then(<[u8]>::split_first)
            .ok_or(Garbled)?;
        Ok((kind, Reader { rest }))
    }

    /// Every field was read and nothing is left.
    pub fn end(&self) -> Result<(), Garbled> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Garbled)
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (front, rest) = self.rest.split_at_checked(count).ok_or(Garbled)?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let (front, rest) = self.rest.split_first_chunk::<N>().ok_or(Garbled)?;
        self.rest = rest;
        Ok(*front)
    }

    pub fn u8(&mut self) -> Result<u8, Garbled> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn text(&mut self) -> Result<&'a str, Garbled> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| Garbled)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Garbled>,
    ) -> Result<Option<T>, Garbled> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Garbled),
        }
    }

    pub fn list<T>(
        &mut self,
        read: impl Fn(&mut Reader<'a>) -> Result<T, Garbled>,
    ) -> Result<Vec<T>, Garbled> {
        let count = self.u32()? as usize;
        // Every item takes at least a byte: a count beyond that is a lie, not an allocation.
        if count > self.rest.len() {
            return Err(Garbled);
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub fn socket_id(&mut self) -> Result<SocketId, Garbled> {
        Ok(SocketId::from_halves(self.u64()?, self.u64()?))
    }
}
