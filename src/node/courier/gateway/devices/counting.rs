//! The numbers about devices that the metrics tell: what registrations said of places, and how many
//! devices there are. These are counted page by page beside everything else, and never for a hundredth
//! of the time.

use std::time::Duration;

use super::keys::Own;
use super::{Asker, Waiting, audit};
use crate::base::counters::Counters;
use crate::base::now::{Moment, Now};
use crate::node::courier::Courier;
use crate::push::devices::census::Census;
use crate::push::devices::jobs::{DeviceJob, Registered};
use crate::push::devices::region::Region;
use crate::push::devices::token::Platform;

/// Devices of one step; the store does other work between two of them.
const PAGE: u32 = 1_000;
const EVERY: Duration = Duration::from_secs(60);
/// So many times as long as it took is waited before it is done again.
const REST: u32 = 100;

/// A count that is under way, or rests.
#[derive(Default)]
pub(super) struct Counting {
    began: Moment,
    sum: Census,
    /// When to begin again; `None` while it is under way.
    at: Option<Moment>,
}

impl Courier {
    pub(super) fn count_devices(&mut self, now: Now) {
        self.gateway.devices.counting = Counting {
            began: now.moment,
            ..Counting::default()
        };
        self.count_page(String::new(), now);
    }

    fn count_page(&mut self, after: String, now: Now) {
        let count = PAGE;
        let job = DeviceJob::Count { after, count, now };
        self.ask_devices(Waiting::Own(Own::Counted), job);
    }

    /// `next`: where it goes on.
    pub(super) fn counted(&mut self, page: &Census, next: Option<String>, now: Now) {
        self.gateway.devices.counting.sum.add(page);
        if let Some(after) = next {
            return self.count_page(after, now);
        }
        let counting = &self.gateway.devices.counting;
        let (sum, counters) = (&counting.sum, &mut self.counters);
        counters.devices_active = sum.active;
        counters.devices_inactive = sum.inactive;
        counters.devices_expiring = sum.expiring;
        counters.devices_overdue = sum.overdue;
        for region in Region::ALL {
            *located(counters, region) = sum.located[region as usize];
        }
        self.count_devices_later(now);
    }

    /// It is done, or could not be.
    pub(super) fn count_devices_later(&mut self, now: Now) {
        let counting = &mut self.gateway.devices.counting;
        let took = now.moment.since(counting.began);
        counting.at = Some(now.moment + EVERY.max(took * REST));
    }

    pub(super) fn look_for_count(&mut self, now: Now) {
        let due = self.gateway.devices.counting.at;
        if due.is_some_and(|due| due <= now.moment) {
            self.count_devices(now);
        }
    }

    pub(super) fn count_registered(&mut self, asker: &Asker, done: &Registered) {
        let counters = &mut self.counters;
        *match done.device.platform {
            Platform::Ios => &mut counters.devices_ios,
            Platform::Android => &mut counters.devices_android,
            Platform::Web => &mut counters.devices_web,
        } += 1;
        if let Some(place) = &done.device.profile.location {
            *registered(counters, Region::of(place)) += 1;
        }
        counters.devices_replaced += u64::from(done.replaced);
        audit(asker, &done.device, "registered");
    }
}

impl Counting {
    pub fn deadline(&self) -> Option<Moment> {
        self.at
    }
}

fn located(counters: &mut Counters, region: Region) -> &mut u64 {
    match region {
        Region::Africa => &mut counters.located_africa,
        Region::Antarctica => &mut counters.located_antarctica,
        Region::Asia => &mut counters.located_asia,
        Region::Europe => &mut counters.located_europe,
        Region::NorthAmerica => &mut counters.located_north_america,
        Region::Oceania => &mut counters.located_oceania,
        Region::SouthAmerica => &mut counters.located_south_america,
        Region::Elsewhere => &mut counters.located_elsewhere,
    }
}

fn registered(counters: &mut Counters, region: Region) -> &mut u64 {
    match region {
        Region::Africa => &mut counters.registered_africa,
        Region::Antarctica => &mut counters.registered_antarctica,
        Region::Asia => &mut counters.registered_asia,
        Region::Europe => &mut counters.registered_europe,
        Region::NorthAmerica => &mut counters.registered_north_america,
        Region::Oceania => &mut counters.registered_oceania,
        Region::SouthAmerica => &mut counters.registered_south_america,
        Region::Elsewhere => &mut counters.registered_elsewhere,
    }
}
