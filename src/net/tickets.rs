//! Session tickets that every worker can read: their keys follow from one secret, which the master
//! makes and hands to its workers, so that a client that comes back to another worker resumes.
//! The keys change with the hours, each computed from the one before in a way that cannot be
//! undone: who learns the secret of today cannot read the tickets of yesterday.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::net::clock::unix_seconds;

/// How long one key seals. A ticket can be used until the end of the next such time.
const EPOCH_SECONDS: u64 = 6 * 3600;
const NONCE_BYTES: usize = 12;
const NUMBER_BYTES: usize = 8;

/// The secret from which the keys of one epoch, and the secret of the next, are computed.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret {
    pub epoch: u64,
    pub bytes: [u8; 32],
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecret({}, …)", self.epoch)
    }
}

impl TicketSecret {
    /// `bytes` from the operating system's entropy.
    pub fn new(bytes: [u8; 32], unix_seconds: u64) -> TicketSecret {
        TicketSecret {
            epoch: unix_seconds / EPOCH_SECONDS,
            bytes,
        }
    }

    /// Forgets what opens no ticket any more. Tickets of the epoch before stay good.
    pub fn advance(&mut self, unix_seconds: u64) {
        let oldest = (unix_seconds / EPOCH_SECONDS).saturating_sub(1);
        while self.epoch < oldest {
            *self = self.next();
        }
    }

    fn next(&self) -> TicketSecret {
        TicketSecret {
            epoch: self.epoch + 1,
            bytes: self.derive(b"next", b""),
        }
    }

    fn derive(&self, label: &[u8], context: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        let tag = hmac::sign(&key, &[b"lineman ticket ", label, b" ", context].concat());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

struct Key {
    epoch: u64,
    key: RandomizedNonceKey,
}

struct Keys {
    /// Of the epoch before `current`, where it is known.
    previous: Option<Key>,
    current: Key,
    secret: TicketSecret,
}

/// Seals and opens tickets for one kind of listener.
pub struct Tickets {
    /// What a client had to show to get the ticket. Listeners that ask for different things must
    /// not read each other's: a ticket stands for what was shown.
    context: [u8; 32],
    keys: Mutex<Keys>,
}

impl Tickets {
    /// `None` when the library refuses the key, which it never does for one of this length.
    pub fn new(mut secret: TicketSecret, context: [u8; 32]) -> Option<Tickets> {
        secret.advance(unix_seconds());
        let keys = Keys {
            previous: None,
            current: key(&secret, &context)?,
            secret,
        };
        Some(Tickets {
            context,
            keys: Mutex::new(keys),
        })
    }

    fn seal(&self, plain: &[u8], unix_seconds: u64) -> Option<Vec<u8>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.roll(&mut keys, unix_seconds)?;
        let number = keys.current.epoch.to_be_bytes();
        let mut sealed = plain.to_vec();
        let nonce = keys
            .current
            .key
            .seal_in_place_append_tag(Aad::from(number), &mut sealed)
            .ok()?;
        Some([&number[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], unix_seconds: u64) -> Option<Vec<u8>> {
        let (number, rest) = ticket.split_first_chunk::<NUMBER_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.roll(&mut keys, unix_seconds)?;
        let epoch = u64::from_be_bytes(*number);
        let key = [Some(&keys.current), keys.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.epoch == epoch)?;
        let mut sealed = sealed.to_vec();
        let plain = key
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(*number),
                &mut sealed,
            )
            .ok()?;
        Some(plain.to_vec())
    }

    /// Steps on to the epoch of now. A clock that went back changes nothing.
    fn roll(&self, keys: &mut Keys, unix_seconds: u64) -> Option<()> {
        let now = unix_seconds / EPOCH_SECONDS;
        while keys.secret.epoch < now {
            keys.secret = keys.secret.next();
            let next = key(&keys.secret, &self.context)?;
            keys.previous = Some(std::mem::replace(&mut keys.current, next));
        }
        Some(())
    }
}

fn key(secret: &TicketSecret, context: &[u8; 32]) -> Option<Key> {
    let bytes = secret.derive(b"key", context);
    Some(Key {
        epoch: secret.epoch,
        key: RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?,
    })
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(…)")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * EPOCH_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, unix_seconds())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, unix_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(secret: &TicketSecret, context: u8) -> Tickets {
        let keys = Keys {
            previous: None,
            current: key(secret, &[context; 32]).unwrap(),
            secret: secret.clone(),
        };
        Tickets {
            context: [context; 32],
            keys: Mutex::new(keys),
        }
    }

    const NOW: u64 = 1000 * EPOCH_SECONDS;

    #[test]
    fn any_worker_opens_what_another_sealed_until_the_next_epoch_has_passed() {
        let secret = TicketSecret::new([7; 32], NOW);
        let (one, two) = (tickets(&secret, 1), tickets(&secret, 1));
        let ticket = one.seal(b"session", NOW).unwrap();
        let open = |at| two.open(&ticket, at);
        assert_eq!(open(NOW).as_deref(), Some(&b"session"[..]));
        assert_eq!(
            open(NOW + 2 * EPOCH_SECONDS - 1).as_deref(),
            Some(&b"session"[..])
        );
        assert_eq!(open(NOW + 2 * EPOCH_SECONDS), None);
    }

    #[test]
    fn a_worker_that_starts_later_reads_the_tickets_of_the_epoch_before() {
        let mut secret = TicketSecret::new([7; 32], NOW);
        let ticket = tickets(&secret, 1).seal(b"session", NOW).unwrap();
        secret.advance(NOW + EPOCH_SECONDS);
        assert_eq!(secret.epoch, NOW / EPOCH_SECONDS);
        let late = tickets(&secret, 1);
        assert!(late.open(&ticket, NOW + EPOCH_SECONDS).is_some());
        secret.advance(NOW + 2 * EPOCH_SECONDS);
        let later = tickets(&secret, 1);
        assert!(later.open(&ticket, NOW + 2 * EPOCH_SECONDS).is_none());
    }

    #[test]
    fn a_ticket_that_was_changed_or_is_of_another_kind_is_refused() {
        let secret = TicketSecret::new([7; 32], NOW);
        let one = tickets(&secret, 1);
        let ticket = one.seal(b"session", NOW).unwrap();
        assert_eq!(tickets(&secret, 2).open(&ticket, NOW), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.open(&changed, NOW), None, "byte {at}");
            assert_eq!(one.open(&ticket[..at], NOW), None, "cut at {at}");
        }
    }

    #[test]
    fn the_secret_does_not_show_itself() {
        let shown = format!("{:?}", TicketSecret::new([77; 32], NOW));
        assert!(!shown.contains("77"), "{shown}");
    }
}
