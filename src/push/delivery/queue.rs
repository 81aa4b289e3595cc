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
    /// It is to have a request of its own, since one for several was refused.
    pub alone: bool,
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

    /// The next one, if it is so.
    pub fn take_if(&mut self, is_so: impl Fn(&InHand) -> bool) -> Option<InHand> {
        let next = self
            .waiting
            .iter_mut()
            .find(|waiting| !waiting.is_empty())?;
        match next.front().is_some_and(is_so) {
            true => next.pop_front(),
            false => None,
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes those that lie here since before; the oldest are at the front.
    pub fn take_old(&mut self, before: Moment) -> Vec<InHand> {
        let mut old = Vec::new();
        for waiting in &mut self.waiting {
            while waiting.front().is_some_and(|one| one.claimed < before) {
                old.extend(waiting.pop_front());
            }
        }
        old
    }

    pub fn take_all(&mut self) -> Vec<InHand> {
        self.waiting.iter_mut().flat_map(std::mem::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::delivery::jobs::{DeliveryTarget, LaneName, Way};
    use crate::push::notify::spec::Spec;

    fn one(id: u64, priority: u8, seconds: u64) -> InHand {
        InHand {
            delivery: Delivery {
                id,
                lane: LaneName {
                    app_id: "a".into(),
                    way: Way::Channel,
                },
                notification: "n".into(),
                target: DeliveryTarget::Device(None),
                priority,
                attempts: 0,
                uncertain: 0,
                tried_ms: None,
            },
            share: Arc::new(Claimable {
                spec: Spec::default(),
                expires_ms: None,
                created_ms: 0,
            }),
            claimed: Moment::default() + Duration::from_secs(seconds),
            marked: false,
            remedied: false,
            bounces: 0,
            alone: false,
        }
    }

    #[test]
    fn the_urgent_go_first_and_what_came_back_before_its_like() {
        let mut queue = Queue::default();
        for (id, priority) in [(1, 1), (2, 2), (3, 0), (4, 1)] {
            queue.put(one(id, priority, 0));
        }
        queue.put_back(one(5, 1, 0));
        assert_eq!(queue.len(), 5);
        let order = std::iter::from_fn(|| queue.take()).map(|it| it.delivery.id);
        assert_eq!(order.collect::<Vec<_>>(), [3, 5, 1, 4, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_lies_here_for_too_long_is_taken_out() {
        let mut queue = Queue::default();
        for (id, priority, seconds) in [(1, 1, 10), (2, 1, 30), (3, 2, 20)] {
            queue.put(one(id, priority, seconds));
        }
        let before = Moment::default() + Duration::from_secs(25);
        let old = queue.take_old(before);
        let ids: Vec<u64> = old.iter().map(|it| it.delivery.id).collect();
        assert_eq!((ids, queue.len()), (vec![1, 3], 1));
        assert_eq!(queue.take_all().len(), 1);
    }

    #[test]
    fn the_next_one_is_taken_only_if_it_is_so() {
        let mut queue = Queue::default();
        for (id, priority) in [(1, 1), (2, 1), (3, 0)] {
            queue.put(one(id, priority, 0));
        }
        let mut take = |id| queue.take_if(|it| it.delivery.id == id).is_some();
        assert!(!take(1), "another one is more urgent");
        assert!(take(3) && !take(2) && take(1) && take(2) && !take(2));
    }
}
