//! Ids of things that come and go. Each carries what is needed to tell a late message for a dead
//! holder from one for the living: a generation, or enough chance never to repeat.

use std::fmt;

use crate::base::dice::Dice;

/// One connection of one reactor: a slot in its table and how often that slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub slot: u32,
    pub generation: u32,
}

impl ConnId {
    pub fn new(slot: u32, generation: u32) -> ConnId {
        ConnId { slot, generation }
    }

    /// Added to the slots of connections that no socket is behind: a client whose requests come over
    /// sockets of their own is one.
    pub const SOCKETLESS: u32 = 1 << 31;

    pub fn socketless(index: u32, generation: u32) -> ConnId {
        ConnId::new(index | ConnId::SOCKETLESS, generation)
    }

    pub fn is_socketless(self) -> bool {
        self.slot & ConnId::SOCKETLESS != 0
    }

    /// One number, for a poll token or the bus.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub fn from_u64(packed: u64) -> ConnId {
        ConnId::new(packed as u32, (packed >> 32) as u32)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A question to another process that has not been answered yet. Never reused by its asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An outgoing connection from when it was asked for: its reactor never uses the number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// The name a Pusher client knows its connection by: two numbers joined by a dot. Signatures are
/// bound to it, so it is random and never reused; 60 bits a half keeps each within an i64 and
/// makes a collision across a cluster implausible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    high: u64,
    low: u64,
}

const HALF: u64 = (1 << 60) - 1;

impl SocketId {
    pub fn random(dice: &mut Dice) -> SocketId {
        let bits = dice.next_u128();
        SocketId {
            high: (bits >> 64) as u64 & HALF,
            low: bits as u64 & HALF,
        }
    }

    /// Digits, a dot, digits; `None` for anything else (leading zeros included, since a socket id
    /// must have one spelling).
    pub fn parse(text: &str) -> Option<SocketId> {
        let (high, low) = text.split_once('.')?;
        Some(SocketId {
            high: parse_half(high)?,
            low: parse_half(low)?,
        })
    }

    pub fn to_halves(self) -> (u64, u64) {
        (self.high, self.low)
    }

    pub fn from_halves(high: u64, low: u64) -> SocketId {
        SocketId { high, low }
    }
}

fn parse_half(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits == "0" || !digits.starts_with('0');
    if plain && canonical {
        digits.parse().ok()
    } else {
        None
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_survives_packing() {
        let id = ConnId::new(7, u32::MAX);
        assert_eq!(ConnId::from_u64(id.to_u64()), id);
    }

    #[test]
    fn a_socket_id_reads_back_what_it_prints() {
        let id = SocketId::random(&mut Dice::new([3; 16]));
        assert_eq!(SocketId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn a_malformed_socket_id_is_refused() {
        for text in [
            "", ".", "1", "1.", ".1", "1.2.3", "-1.2", "+1.2", "1.2 ", "01.2", "a.b",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text:?}");
        }
        assert!(SocketId::parse("1234.1234").is_some());
    }
}
