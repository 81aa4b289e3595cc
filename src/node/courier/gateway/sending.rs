//! Deliveries on their way to providers.

use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::jobs::DeliveryOutcome;

/// What is to be done with a job's outcome.
pub(super) enum Waiting {}

impl Courier {
    pub(super) fn take_delivery_outcome(
        &mut self,
        waiting: Waiting,
        _outcome: DeliveryOutcome,
        _now: Now,
    ) {
        match waiting {}
    }
}
