//! Connections that were refused and are not told so yet. Clients that are closed at once come back
//! at once, all together and for ever: holding each for a while of its own makes them fewer and
//! spreads them. Nothing is read from them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::dice::Dice;
use crate::base::now::Moment;
use crate::net::transport::Transport;

/// Held at a time; beyond, who is refused is closed at once. Each costs a descriptor.
const HELD_MAX: usize = 1_000;

/// See the file's head.
pub struct Tarpit {
    /// At most so long.
    window: Duration,
    dice: Dice,
    held: BTreeMap<(Moment, u64), Transport>,
    count: u64,
}

impl Tarpit {
    /// Without a window everybody is closed at once. `seed`: from the operating system's entropy.
    pub fn new(window: Duration, seed: [u8; 16]) -> Tarpit {
        Tarpit {
            window,
            dice: Dice::new(seed),
            held: BTreeMap::new(),
            count: 0,
        }
    }

    /// For who refuses nobody.
    pub fn none() -> Tarpit {
        Tarpit::new(Duration::ZERO, [0; 16])
    }

    /// Holds a refused connection, or drops it.
    pub fn hold(&mut self, transport: Transport, now: Moment) {
        if self.window.is_zero() || self.held.len() >= HELD_MAX {
            return;
        }
        let wait = self.dice.below(self.window.as_millis() as u64);
        self.count += 1;
        let key = (now + Duration::from_millis(wait), self.count);
        self.held.insert(key, transport);
    }

    /// Closes those whose time is up.
    pub fn release(&mut self, now: Moment) {
        while let Some(first) = self.held.first_entry()
            && first.key().0 <= now
        {
            first.remove();
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.held.first_key_value().map(|((at, _), _)| *at)
    }
}
