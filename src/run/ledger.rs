//! The memory in which all reactors count who came in, and one page of it for each reactor. The
//! master makes both and hands them over; what is counted, and how, is `net::admission`'s. Does not
//! know why a process ends. Invariant: with the process its page ends, and with the page what
//! stands on it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Config;
use crate::net::admission::{Admission, Cells, ListenerRules, Rules};
use crate::run::handover::Handover;
use crate::run::os;

/// The name of the shared memory among the descriptors of a worker.
pub const DESCRIPTOR: &str = "ledger";

const CELL_BYTES: usize = size_of::<AtomicU64>();

pub struct Ledger {
    file: File,
    cells: &'static [AtomicU64],
    listeners: usize,
}

impl Ledger {
    /// For the listeners of one configuration; `key` is to be unpredictable. Memory is taken only
    /// where something is counted.
    pub fn open(listeners: usize, key: u64) -> io::Result<Ledger> {
        let len = Cells::shared_len(listeners);
        let file = os::empty_memory_file(len * CELL_BYTES)?;
        let cells = os::share(&file, len)?;
        cells[0].store(key, Relaxed);
        Ok(Ledger {
            file,
            cells,
            listeners,
        })
    }

    /// One that the program before left, with all that is counted in it.
    pub fn adopt(file: OwnedFd, listeners: usize) -> io::Result<Ledger> {
        let file = File::from(file);
        let cells = os::share(&file, Cells::shared_len(listeners))?;
        Ok(Ledger {
            file,
            cells,
            listeners,
        })
    }

    /// The page of a reactor that lives on.
    pub fn adopt_page(&self, file: OwnedFd) -> Page {
        Page {
            file: File::from(file),
            shared: self.cells,
        }
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// For a reactor that is to start.
    pub fn page(&self) -> io::Result<Page> {
        let len = Cells::page_len(self.listeners);
        Ok(Page {
            file: os::empty_memory_file(len * CELL_BYTES)?,
            shared: self.cells,
        })
    }
}

/// What one reactor has counted. To be dropped when its process has ended.
pub struct Page {
    file: File,
    shared: &'static [AtomicU64],
}

impl Page {
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        match self.read() {
            Ok(bytes) => {
                let (cells, _) = bytes.as_chunks();
                let counts = cells.iter().map(|cell| u64::from_ne_bytes(*cell));
                Cells::give_back(self.shared, counts);
            }
            Err(error) => log::warn!("connections of a process that ended stay counted: {error}"),
        }
    }
}

/// The name of the page of the reactor in `slot`.
pub fn page_name(slot: u32) -> String {
    format!("{DESCRIPTOR}.slot{slot}")
}

/// Who may come in at the reactor in `slot`; `shared` is the ledger.
pub fn admission(
    config: &Config,
    shared: BorrowedFd<'_>,
    slot: u32,
    handover: &mut Handover,
) -> Result<Admission, String> {
    let page = handover.take(&page_name(slot))?;
    let listeners = config.listen.iter().map(|listen| ListenerRules {
        connections: listen.connections,
        accepts_per_second: listen.accepts_per_second,
    });
    let rules = Rules {
        listeners: listeners.collect(),
        connections_per_address: config.limits.connections_per_address,
        accepts_per_address_per_second: config.limits.accepts_per_address_per_second,
    };
    if !rules.any() {
        return Ok(Admission::open());
    }
    let count = rules.listeners.len();
    let map = |fd, len| os::share(fd, len).map_err(|error| format!("the ledger: {error}"));
    let shared = map(&shared, Cells::shared_len(count))?;
    let page = map(&page.as_fd(), Cells::page_len(count))?;
    Ok(Admission::new(rules, Cells::new(shared, page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_page_ends_with_it() {
        let ledger = Ledger::open(1, 7).unwrap();
        let (one, two) = (ledger.page().unwrap(), ledger.page().unwrap());
        let len = Cells::page_len(1);
        for (page, count) in [(&one, 3), (&two, 4)] {
            // As the child maps it.
            let cells = os::share(&page.file(), len).unwrap();
            cells[5].store(count, Relaxed);
            ledger.cells[1 + 5].fetch_add(count, Relaxed);
        }
        drop(one);
        assert_eq!(ledger.cells[1 + 5].load(Relaxed), 4);
        drop(two);
        assert_eq!(ledger.cells[1 + 5].load(Relaxed), 0);
        assert_eq!(ledger.cells[0].load(Relaxed), 7);
    }

    #[test]
    fn memory_that_is_shorter_than_it_should_be_is_not_mapped() {
        let file = os::empty_memory_file(8 * CELL_BYTES).unwrap();
        assert!(os::share(&file, 9).is_err());
        assert!(os::share(&file, 8).is_ok());
    }
}
