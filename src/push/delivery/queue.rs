//! Deliveries of one credential that were claimed and wait for room on a connection: the urgent ones
//! first, those of one urgency as they came. Bounded: what has no place stays in the store. What lies
//! here for too long is given back, so that no lease ends under it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::now::Moment;
use crate::push::delivery::jobs::{Claimable, Delivery};

/// How long one courier may have a delivery in hand.
pub const LEASE: Duration = Duration::from_secs(180);
/// How long it may lie here. The rest is for its request, and for a clock that runs differently.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
const PRIORITIES: usize = 3;

/// A delivery in hand.
#[derive(Clone, Debug)]
pub struct InHand {
    pub delivery: Delivery,
    pub share: Arc<Claimable>,
    pub claimed: Moment,
    /// The store knows that it may have been sent.
    pub marked: bool,
    /// A remedy was applied for it once.
    pub remedied: bool,
    /// How often it was certain that the provider did not take it.
    pub bounces: u8,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: [VecDeque<InHand>; PRIORITIES],
}

impl Queue {
    pub fn put(&mut self, one: InHand) {
        let priority = usize::from(one.delivery.priority).min(PRIORITIES - 1);
        self.waiting[priority].push_back(one);
    }

    /// In front of its like: it was at the front before.
    pub fn put_back(&mut self, one: InHand) {
        let priority = usize::from(one.delivery.priority).min(PRIORITIES - 1);
        self.waiting[priority].push_front(one);
    }

    pub fn take(&mut self) -> Option<InHand> {
        self.waiting.iter_mut().find_map(VecDeque::pop_front)
    }

    pub fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all that lie here since before.
    pub fn take_old(&mut self, before: Moment) -> Vec<InHand> {
        let mut old = Vec::new();
        for waiting in &mut self.waiting {
            if !waiting.iter().any(|one| one.claimed < before) {
                continue;
            }
            let (gone, stay) = waiting.drain(..).partition(|one| one.claimed < before);
            *waiting = stay;
            old.extend::<VecDeque<InHand>>(gone);
        }
        old
    }

    pub fn take_all(&mut self) -> Vec<InHand> {
        self.waiting.iter_mut().flat_map(std::mem::take).collect()
    }
}
