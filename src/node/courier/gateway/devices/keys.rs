//! The token keys in service: whether they fit what is kept, what still needs which of them, a
//! rotation from page to page; and the daily upkeep of devices. Invariants: nothing is served with
//! keys that do not fit; a rotation that was interrupted goes on where rows are left to seal.

use std::time::Duration;

use serde_json::json;

use super::{Asker, Then, Waiting};
use crate::base::now::{Moment, Now};
use crate::node::courier::Courier;
use crate::push::devices::device::Device;
use crate::push::devices::jobs::{DeviceJob, DeviceOutcome, KeyJob, KeyUse, Resealed};
use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::devices::vault::{Binding, SEALS_MAX};
use crate::wire::gateway::GatewayCall;

/// Tokens of one step; the store does other work between two of them.
const PAGE: u32 = 200;
/// Devices of one step of upkeep.
const UPKEEP_PAGE: u32 = 500;
const UPKEEP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A rotation that is under way.
#[derive(Default)]
pub(super) struct Rotation {
    /// The last device that was looked at.
    after: String,
    sealed: u64,
    unreadable: u64,
}

/// Jobs for which nobody waits.
pub(in crate::node::courier::gateway) enum Own {
    KeysPut,
    KeysCounted,
    Outdated,
    Resealed,
    RotationEnded,
    Upkept,
    Counted,
}

impl Courier {
    /// Whether the keys fit what is kept; to be asked before anything is served. Notes them then,
    /// and begins what there is to do.
    pub(in crate::node::courier) fn take_up_devices(
        &mut self,
        needed: &[(KeyId, Fingerprint)],
        now: Now,
    ) -> Result<(), String> {
        let Some(vault) = self.gateway.devices.vault() else {
            return Ok(());
        };
        vault.check_known(needed).map_err(|fault| fault.text())?;
        let keys = vault.keys().map(|(id, print)| (id.clone(), print.clone()));
        let keys = keys.collect();
        self.ask_devices(Waiting::Own(Own::KeysPut), KeyJob::Put { keys, now });
        self.ask_devices(Waiting::Own(Own::KeysCounted), KeyJob::Count);
        self.ask_upkeep(now);
        self.count_devices(now);
        Ok(())
    }

    /// A call of an operator at the machine.
    pub(in crate::node::courier::gateway) fn take_key_call(
        &mut self,
        ticket: u64,
        call: &GatewayCall<'_>,
    ) {
        let Some(vault) = self.gateway.devices.vault() else {
            return self.refuse_call(ticket, 503, "There are no token keys");
        };
        let asker = Asker {
            ticket,
            app_id: String::new(),
            key: call.key.to_string(),
        };
        match (call.method, &call.segments[..]) {
            ("GET", [_]) => self.ask_device(asker, Then::Keys, KeyJob::Count),
            ("POST", [_, "rotation"]) => {
                let current = vault.keys().next().map(|(id, _)| id.clone());
                let key = current.expect("a vault has a current key");
                let wanted = true;
                self.ask_device(asker, Then::Rotates, KeyJob::Rotate { key, wanted });
            }
            _ => self.refuse_call(ticket, 404, "There is nothing at this path"),
        }
    }

    pub(super) fn answer_keys(&mut self, ticket: u64, uses: &[KeyUse]) {
        let Some(vault) = self.gateway.devices.vault() else {
            return;
        };
        let mut keys = Vec::new();
        for (place, (id, _)) in vault.keys().enumerate() {
            let found = uses.iter().find(|it| it.key == *id);
            keys.push(json!({
                "id": id.as_str(),
                "current": place == 0,
                "tokens": found.map_or(0, |it| it.tokens),
                "unbound": found.map_or(0, |it| it.unbound),
                "credentials": found.map_or(0, |it| it.credentials),
                "sealed": found.map_or(0, |it| it.sealed),
            }));
        }
        let rotation = self.gateway.devices.rotation.as_ref();
        let rotation = rotation.map(|it| json!({"sealed": it.sealed, "unreadable": it.unreadable}));
        let answer = json!({ "keys": keys, "rotation": rotation });
        self.answer_call(ticket, 200, &answer.to_string());
    }

    /// From the beginning, even if one is under way: what that has sealed is soon passed by.
    pub(super) fn begin_rotation(&mut self, asker: &Asker) {
        let by = asker.key.as_str();
        log::info!(by; "all device tokens are to be sealed with the current key");
        let goes_on = self.gateway.devices.rotation.is_some();
        if !goes_on {
            self.gateway.devices.rotation = Some(Rotation::default());
            self.ask_outdated();
        }
        self.answer_call(asker.ticket, 202, "{}");
    }

    pub(super) fn go_on_with_keys(&mut self, own: Own, outcome: DeviceOutcome, now: Now) {
        match (own, outcome) {
            (Own::KeysCounted, DeviceOutcome::Keys(uses)) => self.resume_rotation(&uses),
            (Own::Outdated, DeviceOutcome::List(devices, _)) => self.reseal(devices),
            (Own::Resealed, DeviceOutcome::Done(count)) => {
                if let Some(rotation) = &mut self.gateway.devices.rotation {
                    rotation.sealed += count;
                }
                self.ask_outdated();
            }
            (
                Own::Upkept,
                DeviceOutcome::Upkept {
                    expired,
                    removed,
                    more,
                },
            ) => {
                self.counters.devices_expired += expired;
                self.counters.devices_forgotten += removed;
                if expired + removed > 0 {
                    log::info!(expired, removed; "upkeep of devices");
                }
                if more {
                    self.ask_upkeep(now);
                }
            }
            (Own::Counted, DeviceOutcome::Counted(page, next)) => self.counted(&page, next, now),
            (Own::Counted, _) => self.count_devices_later(now),
            // What the store could not do was told; upkeep comes again, a rotation is asked for.
            (Own::Outdated | Own::Resealed, _) => self.gateway.devices.rotation = None,
            (Own::KeysPut | Own::KeysCounted | Own::RotationEnded | Own::Upkept, _) => {}
        }
    }

    /// One that was under way when the courier before ended.
    fn resume_rotation(&mut self, uses: &[KeyUse]) {
        let vault = self.gateway.devices.vault();
        let current = vault.and_then(|vault| vault.keys().next());
        let Some((id, _)) = current else { return };
        let Some(own) = uses.iter().find(|it| it.key == *id) else {
            return;
        };
        if own.sealed > SEALS_MAX / 2 {
            let key = own.key.as_str();
            log::warn!(key, sealed = own.sealed; "the token key is worn; give it a successor");
        }
        if own.is_rotating && self.gateway.devices.rotation.is_none() {
            log::info!("the rotation of the token keys goes on");
            self.gateway.devices.rotation = Some(Rotation::default());
            self.ask_outdated();
        }
    }

    fn ask_outdated(&mut self) {
        let devices = &self.gateway.devices;
        let (Some(vault), Some(rotation)) = (devices.vault(), &devices.rotation) else {
            return;
        };
        let Some((key, _)) = vault.keys().next() else {
            return;
        };
        let job = KeyJob::Outdated {
            key: key.clone(),
            binding: Binding::Row,
            after: rotation.after.clone(),
            count: PAGE,
        };
        self.ask_devices(Waiting::Own(Own::Outdated), job);
    }

    /// One page of the rotation; none is left when it is empty.
    fn reseal(&mut self, devices: Vec<Device>) {
        let Some(last) = devices.last() else {
            return self.rotate_credentials();
        };
        let Some(rotation) = &mut self.gateway.devices.rotation else {
            return;
        };
        rotation.after = last.id.clone();
        let Some(options) = &self.gateway.devices.options else {
            return;
        };
        let mut rows = Vec::new();
        for mut device in devices {
            let was = device.sealed.clone();
            match device.reseal(&options.vault, &mut self.dice) {
                Ok(_) => {
                    self.counters.tokens_opened += 1;
                    self.counters.tokens_sealed += 1;
                    let (id, sealed) = (device.id, device.sealed);
                    rows.push(Resealed { id, was, sealed });
                }
                Err(fault) => {
                    rotation.unreadable += 1;
                    self.counters.tokens_unreadable += 1;
                    let id = device.id.as_str();
                    log::error!(device = id; "its token does not open: {}", fault.text());
                }
            }
        }
        self.ask_devices(Waiting::Own(Own::Resealed), KeyJob::Reseal(rows));
    }

    pub(in crate::node::courier::gateway) fn end_rotation(&mut self) {
        let Some(rotation) = self.gateway.devices.rotation.take() else {
            return;
        };
        let (sealed, unreadable) = (rotation.sealed, rotation.unreadable);
        log::info!(sealed, unreadable; "the token keys are rotated");
        let vault = self.gateway.devices.vault();
        let current = vault.and_then(|vault| vault.keys().next());
        let Some(key) = current.map(|(id, _)| id.clone()) else {
            return;
        };
        let wanted = false;
        let job = KeyJob::Rotate { key, wanted };
        self.ask_devices(Waiting::Own(Own::RotationEnded), job);
    }

    fn ask_upkeep(&mut self, now: Now) {
        let Some(options) = &self.gateway.devices.options else {
            return;
        };
        let job = DeviceJob::Upkeep {
            keep_ms: options.keep_ms,
            count: UPKEEP_PAGE,
            now,
        };
        self.gateway.devices.upkeep_at = Some(now.moment + UPKEEP_EVERY);
        self.ask_devices(Waiting::Own(Own::Upkept), job);
    }

    pub(in crate::node::courier) fn devices_elapsed(&mut self, now: Now) {
        let due = self.gateway.devices.upkeep_at;
        if due.is_some_and(|due| due <= now.moment) {
            self.ask_upkeep(now);
        }
        self.look_for_count(now);
    }

    pub(in crate::node::courier) fn devices_deadline(&self) -> Option<Moment> {
        let devices = &self.gateway.devices;
        let own = [devices.upkeep_at, devices.counting.deadline()];
        own.into_iter().flatten().min()
    }
}
