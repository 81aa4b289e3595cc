//! What the store does for the gateway beside keeping facts: it looks something up, or changes it under
//! a condition, and says what came of it. Each part of the gateway has its own jobs, in its own
//! folder; here they are only put together. Invariants: the jobs of one request run in their order
//! and in one transaction with its facts; none of them half.

use crate::push::delivery::jobs::{DeliveryJob, DeliveryOutcome};
use crate::push::devices::jobs::{DeviceJob, DeviceOutcome};
use crate::push::news::{NewsJob, NewsOutcome};
use crate::push::notify::jobs::{NotifyJob, NotifyOutcome};

/// Under which number whoever asked finds the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobTicket(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    Devices(DeviceJob),
    Notify(NotifyJob),
    Delivery(DeliveryJob),
    News(NewsJob),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Devices(DeviceOutcome),
    Notify(NotifyOutcome),
    Delivery(DeliveryOutcome),
    News(NewsOutcome),
}
