//! Calls about devices: what they ask for, which jobs of the store that takes, and the answers. Owns
//! the vault. Invariants: a token is sealed before it goes anywhere, and forgotten then; no answer and
//! no line of the log holds anything of it, or of what else a client said.

mod counting;
mod import;
mod keys;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::base::names::is_name;
use crate::base::now::{Moment, Now};
use crate::node::courier::Courier;
use crate::node::courier::gateway::rates::{Allowed, Rates};
use crate::node::courier::gateway::{OPERATOR, Waiting as AnyWaiting};
use crate::push::devices::device::{Device, SealedRegistration, SealedUpdate};
use crate::push::devices::jobs::{
    DeviceFilter, DeviceJob, DeviceLimits, DeviceOutcome, Full, Registered,
};
use crate::push::devices::registration::{DeviceBounds, Registration, RegistrationFault, Update};
use crate::push::devices::token::Platform;
use crate::push::devices::vault::TokenVault;
use crate::push::jobs::Job;
use crate::wire::gateway::GatewayCall;
use counting::Counting;
use import::{Import, lines};
use keys::Rotation;

/// Of a list, unless more or less is asked for.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;
/// A list ends with the device that exceeds this.
const PAGE_BYTES: usize = 512 * 1024;

/// What the gateway needs for devices.
pub struct DeviceOptions {
    pub vault: TokenVault,
    /// For how long inactive devices are kept.
    pub keep_ms: u64,
}

/// What it has.
#[derive(Default)]
pub(in crate::node::courier) struct Devices {
    options: Option<DeviceOptions>,
    rotation: Option<Rotation>,
    upkeep_at: Option<Moment>,
    counting: Counting,
    rates: Rates,
}

impl Devices {
    pub fn new(options: Option<DeviceOptions>) -> Devices {
        Devices {
            options,
            ..Devices::default()
        }
    }

    pub fn vault(&self) -> Option<&TokenVault> {
        self.options.as_ref().map(|options| &options.vault)
    }
}

/// What is to be done with a job's outcome.
pub(super) enum Waiting {
    Call(Asker, Then),
    Import(Asker, Import),
    Own(keys::Own),
}

/// Whom an answer goes to.
pub(super) struct Asker {
    ticket: u64,
    app_id: String,
    /// The key with which it came.
    key: String,
}

/// What the call wants.
pub(super) enum Then {
    Registered,
    Show,
    /// With this as the change.
    Update(Zeroizing<Vec<u8>>),
    Updated,
    Removed,
    UserRemoved,
    /// The devices of one user, or of others too.
    Listed {
        of_user: bool,
    },
    Keys,
    /// A rotation is wanted from now on.
    Rotates,
}

/// A caller's mistake: the status, and why.
type Refused = (u16, String);

impl Courier {
    pub(super) fn take_device_call(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        let asker = Asker {
            ticket,
            app_id: call.app_id.to_string(),
            key: call.key.to_string(),
        };
        if self.gateway.devices.vault().is_none() {
            return self.refuse_call(ticket, 503, "There are no token keys");
        }
        let name = call.segments.get(1).copied().unwrap_or_default();
        let taken = self.may_call(&asker, cost(call), now);
        let taken = taken.and_then(|()| match (call.method, &call.segments[..]) {
            ("POST", [_]) => self.register_device(asker, call.body, now),
            ("GET", [_]) => self.list_devices(asker, call),
            ("DELETE", [_]) => self.remove_user(asker, call, now),
            ("POST", [_, "import"]) => self.import_devices(asker, call.body, now),
            ("GET", [_, _]) => {
                self.ask_device(asker, Then::Show, find(call.app_id, name));
                Ok(())
            }
            ("PATCH", [_, _]) => {
                let then = Then::Update(Zeroizing::new(call.body.to_vec()));
                self.ask_device(asker, then, find(call.app_id, name));
                Ok(())
            }
            ("DELETE", [_, _]) => {
                let (app_id, device_id) = (call.app_id.to_string(), name.to_string());
                self.ask_device(
                    asker,
                    Then::Removed,
                    DeviceJob::Remove { app_id, device_id },
                );
                Ok(())
            }
            ("PUT" | "DELETE", [_, _, "topics", topic]) => {
                self.set_topic(asker, (name, topic), call.method == "PUT", now)
            }
            (_, [_] | [_, _] | [_, _, "topics", _]) => {
                Err((405, "This method does nothing here".to_string()))
            }
            _ => Err((404, "There is nothing at this path".to_string())),
        });
        if let Err((status, why)) = taken {
            self.refuse_devices(ticket, status, &why);
        }
    }

    pub(super) fn take_device_outcome(
        &mut self,
        waiting: Waiting,
        outcome: DeviceOutcome,
        now: Now,
    ) {
        if let DeviceOutcome::Impossible(why) = &outcome {
            log::error!("devices: the store could not do what was asked: {why}");
        }
        match waiting {
            Waiting::Own(own) => self.go_on_with_keys(own, outcome, now),
            Waiting::Import(asker, import) => self.answer_import(&asker, import, outcome),
            Waiting::Call(asker, then) => match (then, outcome) {
                (Then::Registered, DeviceOutcome::Registered(done)) => {
                    self.answer_registered(&asker, done);
                }
                (Then::Show, DeviceOutcome::Device(device)) => {
                    self.answer_call(asker.ticket, 200, &device.json());
                }
                (Then::Update(body), DeviceOutcome::Device(device)) => {
                    self.update_device(asker, &device, &body, now);
                }
                (Then::Updated, DeviceOutcome::Device(device)) => {
                    self.counters.devices_updated += 1;
                    audit(&asker, &device, "updated");
                    self.answer_call(asker.ticket, 200, &device.json());
                }
                (Then::Removed, DeviceOutcome::Device(device)) => {
                    self.counters.devices_removed += 1;
                    audit(&asker, &device, "removed");
                    self.answer_call(asker.ticket, 200, "{}");
                }
                (Then::UserRemoved, DeviceOutcome::Done(count)) => {
                    self.answer_user_removed(&asker, count);
                }
                (Then::Listed { of_user }, DeviceOutcome::List(devices, next)) => {
                    if !of_user {
                        let (app, key) = (&*asker.app_id, &*asker.key);
                        log::info!(app, key, count = devices.len(); "devices listed");
                    }
                    self.answer_call(asker.ticket, 200, &page(&devices, next.as_deref()));
                }
                (Then::Keys, DeviceOutcome::Keys(keys)) => self.answer_keys(asker.ticket, &keys),
                (Then::Rotates, DeviceOutcome::Done(_)) => self.begin_rotation(&asker),
                (_, outcome) => {
                    let (status, why) = self.reason(&outcome);
                    self.refuse_devices(asker.ticket, status, &why);
                }
            },
        }
    }

    fn register_device(&mut self, asker: Asker, body: &[u8], now: Now) -> Result<(), Refused> {
        let registration = self.sealed_registration(&asker.app_id, body, now);
        let registration = registration.map_err(|fault| (400, fault.text()))?;
        self.may_change(&asker, [registration.change.user_id.clone().flatten()], now)?;
        let job = DeviceJob::Register {
            registrations: vec![registration],
            limits: self.device_limits(),
            now,
        };
        self.ask_device(asker, Then::Registered, job);
        Ok(())
    }

    /// Reads a registration; its token is not seen in clear from here on.
    fn sealed_registration(
        &mut self,
        app_id: &str,
        json: &[u8],
        now: Now,
    ) -> Result<SealedRegistration, RegistrationFault> {
        let text = std::str::from_utf8(json).map_err(|_| no_utf8())?;
        let registration = Registration::read(text, &self.device_bounds(), now)?;
        let vault = self.gateway.devices.vault();
        let vault = vault.expect("calls are refused without one");
        let sealed = SealedRegistration::seal(app_id, registration, vault, &mut self.dice, now);
        self.counters.tokens_sealed += 1;
        Ok(sealed)
    }

    fn answer_registered(&mut self, asker: &Asker, done: Vec<Result<Registered, Full>>) {
        match done.into_iter().next() {
            Some(Ok(done)) => {
                self.count_registered(asker, &done);
                let status = if done.is_new { 201 } else { 200 };
                self.answer_call(asker.ticket, status, &done.device.json());
            }
            Some(Err(full)) => {
                let (status, why) = self.reason(&DeviceOutcome::Full(full));
                self.refuse_devices(asker.ticket, status, &why);
            }
            None => self.refuse_devices(asker.ticket, 500, "The store has lost a registration"),
        }
    }

    /// The device is there, and its service tells how a new token is read.
    fn update_device(&mut self, asker: Asker, device: &Device, body: &[u8], now: Now) {
        let text = std::str::from_utf8(body).map_err(|_| no_utf8());
        let bounds = self.device_bounds();
        let update = text.and_then(|text| Update::read(text, device.service, &bounds, now));
        let update = match update {
            Ok(update) => update,
            Err(fault) => return self.refuse_devices(asker.ticket, 400, &fault.text()),
        };
        let users = [
            &device.profile.user_id,
            &update.change.user_id.clone().flatten(),
        ];
        let users = users.map(Clone::clone);
        if let Err((status, why)) = self.may_change(&asker, users, now) {
            return self.refuse_devices(asker.ticket, status, &why);
        }
        self.counters.tokens_sealed += u64::from(update.token.is_some());
        let vault = self.gateway.devices.vault();
        let vault = vault.expect("calls are refused without one");
        let update = SealedUpdate::seal(device, update, vault, &mut self.dice);
        let job = DeviceJob::Update {
            app_id: device.app_id.clone(),
            device_id: device.device_id.clone(),
            update: Box::new(update),
            limits: self.device_limits(),
            now,
        };
        self.ask_device(asker, Then::Updated, job);
    }

    fn set_topic(
        &mut self,
        asker: Asker,
        (name, topic): (&str, &str),
        wanted: bool,
        now: Now,
    ) -> Result<(), Refused> {
        let bytes = self.device_bounds().topic_bytes;
        if !is_name(topic, bytes) {
            let why = format!("The topic is not 1 to {bytes} letters, digits and any of _-=@,.;");
            return Err((400, why));
        }
        let job = DeviceJob::SetTopic {
            app_id: asker.app_id.clone(),
            device_id: name.to_string(),
            topic: topic.to_string(),
            wanted,
            limits: self.device_limits(),
            now,
        };
        self.ask_device(asker, Then::Updated, job);
        Ok(())
    }

    fn remove_user(
        &mut self,
        asker: Asker,
        call: &GatewayCall<'_>,
        now: Now,
    ) -> Result<(), Refused> {
        let others = call.query.iter().any(|(name, _)| *name != "user_id");
        let Some(user_id) = call.parameter("user_id").filter(|_| !others) else {
            return Err((
                400,
                "user_id, and nothing else, says whose devices".to_string(),
            ));
        };
        self.may_change(&asker, [Some(user_id.to_string())], now)?;
        let job = DeviceJob::RemoveUser {
            app_id: call.app_id.to_string(),
            user_id: user_id.to_string(),
        };
        self.ask_device(asker, Then::UserRemoved, job);
        Ok(())
    }

    fn answer_user_removed(&mut self, asker: &Asker, count: u64) {
        self.counters.devices_removed += count;
        let (app, key) = (asker.app_id.as_str(), asker.key.as_str());
        log::info!(app, key, count; "all devices of a user removed");
        let body = json!({ "removed": count }).to_string();
        self.answer_call(asker.ticket, 200, &body);
    }

    fn list_devices(&mut self, asker: Asker, call: &GatewayCall<'_>) -> Result<(), Refused> {
        let (filter, after, count) = wanted(call)?;
        let of_user = filter.user_id.is_some();
        let job = DeviceJob::List {
            app_id: call.app_id.to_string(),
            filter,
            after,
            count,
        };
        self.ask_device(asker, Then::Listed { of_user }, job);
        Ok(())
    }

    fn ask_device(&mut self, asker: Asker, then: Then, job: impl Into<DeviceJob>) {
        self.ask_devices(Waiting::Call(asker, then), job);
    }

    fn ask_devices(&mut self, waiting: Waiting, job: impl Into<DeviceJob>) {
        self.ask_job(Job::Devices(job.into()), AnyWaiting::Devices(waiting));
    }

    /// Whether the app has not called too often; an operator may always.
    fn may_call(&mut self, asker: &Asker, count: usize, now: Now) -> Result<(), Refused> {
        self.take_rate(asker, count, &[], now)
    }

    /// The same of the users whose devices these are.
    fn may_change<const N: usize>(
        &mut self,
        asker: &Asker,
        users: [Option<String>; N],
        now: Now,
    ) -> Result<(), Refused> {
        let mut users: Vec<String> = users.into_iter().flatten().collect();
        users.dedup();
        self.take_rate(asker, 0, &users, now)
    }

    fn take_rate(
        &mut self,
        asker: &Asker,
        count: usize,
        users: &[String],
        now: Now,
    ) -> Result<(), Refused> {
        let allowed = Allowed {
            per_app: self.limits.device_calls_per_second,
            per_user: self.limits.device_calls_per_user_per_second,
        };
        if asker.ticket & OPERATOR > 0 {
            return Ok(());
        }
        let rates = &mut self.gateway.devices.rates;
        let taken = rates.take((&asker.app_id, count), users, allowed, now);
        taken.map_err(|whose| (429, format!("Too many calls about devices for {whose}")))
    }

    fn refuse_devices(&mut self, ticket: u64, status: u16, why: &str) {
        if status == 429 {
            self.counters.devices_limited += 1;
            return self.refuse_for_now(ticket, why);
        }
        self.counters.devices_refused += u64::from((400..500).contains(&status));
        self.refuse_call(ticket, status, why);
    }

    fn device_bounds(&self) -> DeviceBounds {
        DeviceBounds {
            user_id_bytes: self.limits.user_id_bytes,
            ..DeviceBounds::default()
        }
    }

    fn device_limits(&self) -> DeviceLimits {
        DeviceLimits {
            per_app: self.limits.devices_per_app,
            per_user: self.limits.devices_per_user,
            topics: self.device_bounds().topics,
        }
    }

    /// Why something could not be done.
    fn reason(&self, outcome: &DeviceOutcome) -> Refused {
        let limits = self.device_limits();
        let full = |what: &str, count: u64| (409, format!("{what} {count} devices already"));
        match outcome {
            DeviceOutcome::Unknown => (404, "There is no such device".to_string()),
            DeviceOutcome::Changed => {
                let why = "The device was registered for another service meanwhile; try again";
                (409, why.to_string())
            }
            DeviceOutcome::Full(Full::App) => full("The app has", limits.per_app),
            DeviceOutcome::Full(Full::User) => full("The user has", limits.per_user),
            DeviceOutcome::Full(Full::Topics) => (
                409,
                format!("The device has {} topics already", limits.topics),
            ),
            _ => (
                500,
                "The store could not do this; the log says why".to_string(),
            ),
        }
    }
}

fn find(app_id: &str, device_id: &str) -> DeviceJob {
    DeviceJob::Find {
        app_id: app_id.to_string(),
        device_id: device_id.to_string(),
    }
}

fn no_utf8() -> RegistrationFault {
    RegistrationFault {
        field: "",
        why: "this is no UTF-8".into(),
    }
}

/// What a list is to hold: the filter, where it begins, how much.
fn wanted(call: &GatewayCall<'_>) -> Result<(DeviceFilter, String, u32), Refused> {
    let mut filter = DeviceFilter::default();
    let (mut after, mut count) = (String::new(), PAGE);
    for (name, value) in &call.query {
        let wrong = |why: String| (400, format!("{name} {why}"));
        match *name {
            "user_id" => filter.user_id = Some(value.to_string()),
            "topic" => filter.topic = Some(value.to_string()),
            "platform" => {
                let platform = Platform::from_word(value);
                let platform = platform.ok_or("is none of ios, android, web".to_string());
                filter.platform = Some(platform.map_err(wrong)?);
            }
            "active" => {
                let active = value
                    .parse()
                    .map_err(|_| "is neither true nor false".to_string());
                filter.is_active = Some(active.map_err(wrong)?);
            }
            "after" => after = value.to_string(),
            "limit" => {
                let limit = value.parse().ok().filter(|it| (1..=PAGE_MAX).contains(it));
                count = limit.ok_or_else(|| wrong(format!("is not 1 to {PAGE_MAX}")))?;
            }
            _ => return Err(wrong("is not known here".to_string())),
        }
    }
    Ok((filter, after, count))
}

/// As how many calls it counts: each line of an import is one.
fn cost(call: &GatewayCall<'_>) -> usize {
    match &call.segments[..] {
        [_, "import"] => lines(call.body).count().max(1),
        _ => 1,
    }
}

/// `{"devices": […], "next": …}`; fewer devices than there are, if they are long.
fn page(devices: &[Device], next: Option<&str>) -> String {
    let mut text = String::from("{\"devices\":[");
    let mut next = next;
    for (place, device) in devices.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&device.json());
        if text.len() > PAGE_BYTES && place + 1 < devices.len() {
            next = Some(&device.id);
            break;
        }
    }
    let next = next.map_or(Value::Null, Value::from);
    text + &format!("],\"next\":{next}}}")
}

/// Who did what to which device, by the names that are ours.
fn audit(asker: &Asker, device: &Device, what: &str) {
    let (app, key) = (asker.app_id.as_str(), asker.key.as_str());
    let (device, platform) = (device.id.as_str(), device.platform.word());
    log::info!(app, key, device, platform; "device {what}");
}
