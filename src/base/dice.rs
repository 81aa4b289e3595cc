//! Seeded chance: socket ids, jitter, masks, seeds of hash maps. The operating system's entropy enters
//! once, as the seed; the same seed gives the same run.

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};

/// A stream of unguessable numbers: AES-128 in counter mode, keyed by the seed (NIST SP 800-90A
/// uses the same construction). Not for long-term keys.
pub struct Dice {
    key: EncryptingKey,
    counter: u128,
}

impl Dice {
    /// The caller vouches that `seed` is unpredictable when the numbers have to be.
    pub fn new(seed: [u8; 16]) -> Dice {
        let key = UnboundCipherKey::new(&AES_128, &seed).and_then(EncryptingKey::ecb);
        Dice {
            key: key.expect("a 16 byte key fits AES-128"),
            counter: 0,
        }
    }

    pub fn next_u128(&mut self) -> u128 {
        self.counter = self.counter.wrapping_add(1);
        let mut block = self.counter.to_le_bytes();
        self.key
            .less_safe_encrypt(&mut block, EncryptionContext::None)
            .expect("one whole block needs no padding");
        u128::from_le_bytes(block)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.next_u128() as u64
    }

    /// The key of one WebSocket frame (RFC 6455 section 5.3).
    pub fn next_mask(&mut self) -> [u8; 4] {
        (self.next_u64() as u32).to_le_bytes()
    }

    /// A stream of its own for somebody else.
    pub fn branch(&mut self) -> Dice {
        Dice::new(self.next_u128().to_le_bytes())
    }

    /// Evenly spread over `0..bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_others() {
        let draw = |seed| {
            let mut dice = Dice::new([seed; 16]);
            [dice.next_u64(), dice.next_u64(), dice.next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7)[0], draw(7)[1]);
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut dice = Dice::new([1; 16]);
        let drawn: Vec<u64> = (0..1000).map(|_| dice.below(6)).collect();
        assert_eq!(drawn.iter().min(), Some(&0));
        assert_eq!(drawn.iter().max(), Some(&5));
        assert_eq!(dice.below(0), 0);
    }
}
