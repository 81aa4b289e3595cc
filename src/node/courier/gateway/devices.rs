//! Calls about devices.

use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::devices::jobs::DeviceOutcome;
use crate::wire::gateway::GatewayCall;
/// What is to be done with a job's outcome.
pub(super) enum Waiting {}

impl Courier {
    pub(super) fn take_device_call(&mut self, ticket: u64, _call: &GatewayCall<'_>, _now: Now) {
        self.refuse_call(ticket, 404, "There is nothing at this path");
    }

    pub(super) fn take_device_outcome(
        &mut self,
        waiting: Waiting,
        _outcome: DeviceOutcome,
        _now: Now,
    ) {
        match waiting {}
    }
}
