//! Who may come in: how many connections a listener and an address may have, and how fast new ones
//! may come. Counted over all reactors of the server, in cells of memory that they share; whose
//! memory that is, it does not know. It knows no sockets either: it is asked, and gives permits.
//!
//! Addresses are counted in a count-min sketch: each has a cell in each of two rows, by a keyed
//! hash, and its count is the lesser of the two. So strangers can make it look busier than it is,
//! by few and only in a crowd, but never idler.
//!
//! Invariant: what a reactor has counted in the shared cells stands on its own page too, so that
//! it can be given back when the reactor dies.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::base::now::Now;

/// Cells of one row of the sketch. With a hundred thousand addresses at once, one or two strangers
/// are in each.
const ROW: usize = 1 << 16;
/// A bucket holds what flows in within this time.
const BURST_MICROS: u64 = 1_000_000;
/// No permit counts in this cell.
const NONE: u32 = u32::MAX;

/// Bounds of one listener; zero is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerRules {
    pub connections: u64,
    pub accepts_per_second: u64,
}

/// All bounds; zero is none.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By the place of the listener in the configuration.
    pub listeners: Vec<ListenerRules>,
    pub connections_per_address: u64,
    pub accepts_per_address_per_second: u64,
}

impl Rules {
    /// Whether there is any bound.
    pub fn any(&self) -> bool {
        let bound = |rules: &ListenerRules| rules.connections + rules.accepts_per_second > 0;
        let addresses = self.connections_per_address + self.accepts_per_address_per_second;
        addresses > 0 || self.listeners.iter().any(bound)
    }
}

/// The memory in which reactors count together, and the part that one of them keeps for itself.
#[derive(Clone, Copy)]
pub struct Cells {
    /// Of the hash, the same for all.
    key: u64,
    /// Connections now, of listeners and then of addresses.
    counts: &'static [AtomicU64],
    /// In the same order, when each bucket will be full: microseconds since 1970.
    full_at: &'static [AtomicU64],
    /// This reactor's part of `counts`.
    page: &'static [AtomicU64],
}

impl Cells {
    /// How many cells a page has.
    pub const fn page_len(listeners: usize) -> usize {
        listeners + 2 * ROW
    }

    /// How many cells all share.
    pub const fn shared_len(listeners: usize) -> usize {
        1 + 2 * Cells::page_len(listeners)
    }

    /// `shared`: a key that nobody can guess, then zeros. `page`: zeros.
    pub fn new(shared: &'static [AtomicU64], page: &'static [AtomicU64]) -> Cells {
        let (key, cells) = shared.split_first().expect("a key and the cells");
        let (counts, full_at) = cells.split_at(page.len());
        Cells {
            key: key.load(Relaxed),
            counts,
            full_at,
            page,
        }
    }

    /// Takes what a dead reactor had counted, by its page, out of what all share.
    pub fn give_back(shared: &[AtomicU64], page: impl Iterator<Item = u64>) {
        for (cell, count) in shared[1..].iter().zip(page).filter(|(_, count)| *count > 0) {
            subtract(cell, count);
        }
    }

    /// One connection more; returns how many there were. Should we die between the two, one too
    /// many is given back, which locks nobody out.
    fn enter(&self, cell: usize) -> u64 {
        self.page[cell].fetch_add(1, Relaxed);
        self.counts[cell].fetch_add(1, Relaxed)
    }

    fn leave(&self, cell: usize) {
        subtract(&self.counts[cell], 1);
        subtract(&self.page[cell], 1);
    }

    /// How long until the bucket has a token again; `None`: it has one.
    fn wait(&self, cell: usize, per_second: u64, now: u64) -> Option<Duration> {
        let debt = debt(self.full_at[cell].load(Relaxed), now) + interval(per_second);
        let wait = debt.checked_sub(BURST_MICROS)?;
        (wait > 0).then(|| Duration::from_micros(wait))
    }

    fn spend(&self, cell: usize, per_second: u64, now: u64) {
        let next = |full_at| Some(now + debt(full_at, now) + interval(per_second));
        let _ = self.full_at[cell].fetch_update(Relaxed, Relaxed, next);
    }

    /// Of an IPv6 address the first half counts: the rest is its holder's to choose.
    fn of_address(&self, address: IpAddr) -> [usize; 2] {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        };
        let hash = FixedState::with_seed(self.key).hash_one(network) as usize;
        let rows = self.page.len() - 2 * ROW;
        [rows + hash % ROW, rows + ROW + hash / ROW % ROW]
    }
}

fn subtract(cell: &AtomicU64, count: u64) {
    let _ = cell.fetch_update(Relaxed, Relaxed, |value| Some(value.saturating_sub(count)));
}

/// Between two tokens.
fn interval(per_second: u64) -> u64 {
    BURST_MICROS / per_second
}

/// What a bucket lacks, as the time until it is full. More than it can lack means that the clock
/// was set back.
fn debt(full_at: u64, now: u64) -> u64 {
    let debt = full_at.saturating_sub(now);
    if debt > 2 * BURST_MICROS { 0 } else { debt }
}

/// Where one connection is counted. To be given back with `leave`.
#[derive(Debug)]
pub struct Permit([u32; 3]);

/// Why nobody is accepted on a listener for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resting {
    /// It has as many connections as it may.
    Full,
    /// They come too fast.
    Paced(Duration),
}

/// Why an address is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Connections,
    Rate,
}

/// See the file's head.
pub struct Admission {
    rules: Rules,
    /// `None`: nothing is bounded and nothing counted.
    cells: Option<Cells>,
}

impl Admission {
    /// Everybody may come in.
    pub fn open() -> Admission {
        Admission {
            rules: Rules::default(),
            cells: None,
        }
    }

    pub fn new(rules: Rules, cells: Cells) -> Admission {
        Admission {
            rules,
            cells: Some(cells),
        }
    }

    /// Before somebody is accepted on a listener, whoever it will be.
    pub fn enter(&self, listener: usize, now: Now) -> Result<Permit, Resting> {
        let mut permit = Permit([NONE; 3]);
        let (Some(cells), Some(rules)) = (&self.cells, self.rules.listeners.get(listener)) else {
            return Ok(permit);
        };
        let rate = rules.accepts_per_second;
        if rate > 0
            && let Some(wait) = cells.wait(listener, rate, micros(now))
        {
            return Err(Resting::Paced(wait));
        }
        if rules.connections > 0 {
            if cells.enter(listener) >= rules.connections {
                cells.leave(listener);
                return Err(Resting::Full);
            }
            permit.0[0] = listener as u32;
        }
        Ok(permit)
    }

    /// Somebody was.
    pub fn accepted(&self, listener: usize, now: Now) {
        if let (Some(cells), Some(rules)) = (&self.cells, self.rules.listeners.get(listener))
            && rules.accepts_per_second > 0
        {
            cells.spend(listener, rules.accepts_per_second, micros(now));
        }
    }

    /// Once it is known who it is. Whoever is refused still gives the permit back.
    pub fn identify(&self, permit: &mut Permit, address: IpAddr, now: Now) -> Result<(), Refused> {
        let Rules {
            connections_per_address: connections,
            accepts_per_address_per_second: rate,
            ..
        } = self.rules;
        let Some(cells) = self.cells.filter(|_| connections + rate > 0) else {
            return Ok(());
        };
        let both = cells.of_address(address);
        let late = |cell: &usize| cells.wait(*cell, rate, micros(now)).is_some();
        if rate > 0 && both.iter().all(late) {
            return Err(Refused::Rate);
        }
        if connections > 0 {
            let full = both.map(|cell| cells.enter(cell) >= connections);
            permit.0[1..].copy_from_slice(&both.map(|cell| cell as u32));
            if full == [true; 2] {
                return Err(Refused::Connections);
            }
        }
        if rate > 0 {
            for cell in both {
                cells.spend(cell, rate, micros(now));
            }
        }
        Ok(())
    }

    /// The connection is gone, or never came.
    pub fn leave(&self, permit: Permit) {
        if let Some(cells) = &self.cells {
            let counted = permit.0.into_iter().filter(|cell| *cell != NONE);
            counted.for_each(|cell| cells.leave(cell as usize));
        }
    }
}

/// The clock that all processes share.
fn micros(now: Now) -> u64 {
    now.unix_ms * 1000
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
