//! What the h2 crate wants to be polled again: the connection, or single streams. Owns the list of
//! it. Waking only writes the list: h2 wakes while it holds its own locks, so nothing may be polled
//! from there.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

#[derive(Default)]
struct Due {
    connection: AtomicBool,
    slots: Mutex<Vec<usize>>,
}

impl Due {
    fn slots(&self) -> MutexGuard<'_, Vec<usize>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.connection.store(true, Relaxed);
    }
}

struct SlotDue {
    slot: usize,
    due: Arc<Due>,
}

impl Wake for SlotDue {
    fn wake(self: Arc<Self>) {
        self.due.slots().push(self.slot);
    }
}

/// See the file's head.
pub(super) struct Wakes {
    due: Arc<Due>,
    connection: Waker,
    /// One for each slot that was ever used.
    slots: Vec<Waker>,
}

impl Wakes {
    pub fn new() -> Wakes {
        let due = Arc::new(Due::default());
        Wakes {
            connection: Waker::from(due.clone()),
            due,
            slots: Vec::new(),
        }
    }

    pub fn connection(&self) -> &Waker {
        &self.connection
    }

    pub fn slot(&mut self, slot: usize) -> &Waker {
        while self.slots.len() <= slot {
            let (slot, due) = (self.slots.len(), self.due.clone());
            let waker = Waker::from(Arc::new(SlotDue { slot, due }));
            self.slots.push(waker);
        }
        &self.slots[slot]
    }

    pub fn wake_connection(&self) {
        self.due.connection.store(true, Relaxed);
    }

    /// Whether the connection is to be polled; it counts as polled now.
    pub fn take_connection(&self) -> bool {
        self.due.connection.swap(false, Relaxed)
    }

    /// Whether anything is to be polled.
    pub fn is_due(&self) -> bool {
        self.due.connection.load(Relaxed) || !self.due.slots().is_empty()
    }

    /// The slots to be polled, in the order in which they woke; `empty` takes the place of the list.
    pub fn take_slots(&self, empty: Vec<usize>) -> Vec<usize> {
        std::mem::replace(&mut self.due.slots(), empty)
    }
}
