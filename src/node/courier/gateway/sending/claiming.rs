//! What is taken from the store and what is given back to it. Owns when the store is asked for more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::line::{Line, LineId};
use super::{Phase, Sending, Waiting};
use crate::base::now::{Moment, Now, bring_forward};
use crate::node::courier::Courier;
use crate::node::courier::gateway::Waiting as Waits;
use crate::push::delivery::jobs::{
    Claim, Claimed, Delivery, DeliveryJob, DeliveryTarget, LaneName, TokenNewsKind, Way,
};
use crate::push::delivery::outcome::{given_back, put_off, undeliverable};
use crate::push::delivery::queue::{InHand, LEASE, WAIT_MAX};
use crate::push::devices::token::Service;
use crate::push::devices::vault::OpenFault;
use crate::push::jobs::Job;
use crate::push::providers::address::Address;
use crate::push::providers::credential::keeper::{ORIGINS_MAX, PassKeeper};
use crate::push::providers::credential::{Credential, Proof};
use crate::wire::target::Target;

/// What one credential may have in its queues, and what one claim takes for it.
const QUEUE_MAX: usize = 2_000;
const PAGE: usize = 500;
/// What all have in hand together.
pub(super) const IN_HAND_MAX: usize = 20_000;
/// Reports in one job.
const REPORTS: usize = 1_000;
/// However far the next time is.
const LOOK_AFTER: Duration = Duration::from_secs(30);
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Until the key of a token is looked for again.
const KEY_WAIT: Duration = Duration::from_secs(60);
/// Until what was given back because it lay here for too long is due again.
const OLD_WAIT: Duration = Duration::from_secs(5);
/// A line that is not used is forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// Which deliveries a credential is for.
pub(super) fn ways(credential: &Credential) -> Vec<Way> {
    let services = Service::ALL.iter().map(|(_, service)| *service);
    let services = services.filter(|service| credential.serves(*service));
    let mut ways: Vec<Way> = services.map(Way::Device).collect();
    if matches!(
        credential.proof,
        Proof::ApnsToken { .. } | Proof::ApnsCertificate { .. }
    ) {
        ways.push(Way::Channel);
    }
    ways
}

/// Where all that is sent with the credential goes; `None`: where each subscription says.
pub(super) fn origin_of(credential: &Credential) -> Option<&str> {
    match &credential.proof {
        Proof::ApnsToken { app, .. } | Proof::ApnsCertificate { app, .. } => Some(&app.origin),
        Proof::FcmAccount { app, .. } => Some(&app.origin),
        Proof::AzureConnection { hub, .. } | Proof::AzureEntra { hub, .. } => Some(&hub.origin),
        Proof::Vapid { .. } => None,
    }
}

impl Sending {
    /// What is claimed and lies in no queue.
    pub(super) fn in_hand(&self) -> usize {
        self.flights.len() + self.together + self.reports.len() + self.marking.len()
    }

    /// The line to an origin, made if there is none; `None`: there are too many.
    pub(super) fn line_to(
        &mut self,
        post: usize,
        origin: &str,
        is_for_passes: bool,
        now: Now,
    ) -> Option<LineId> {
        let key = match is_for_passes {
            true => format!("pass {origin}"),
            false => origin.to_string(),
        };
        let own = &mut self.posts[post];
        if let Some(id) = own.lines.get(&key) {
            return Some(*id);
        }
        if own.lines.len() >= ORIGINS_MAX {
            return None;
        }
        let mut target = Target::parse_web(origin).ok()?;
        if let Some(path) = &own.credential.ca_file {
            target = target.with_ca_file(path);
        }
        let is_bounded = own.credential.is_per_origin() || own.is_strangers;
        if is_bounded && !self.allow_private {
            target = target.with_public_only();
        }
        let mut line = Line::new(post, origin, target, now.moment);
        if !is_for_passes {
            let credential = &own.credential;
            let of_origin = credential.is_per_origin().then(|| origin.to_string());
            let name = pass_name(&own.app_id, credential, origin);
            let keeper = match self.passes.get(&name) {
                Some(kept) => PassKeeper::restore(credential, of_origin, kept, now),
                None => PassKeeper::new(of_origin),
            };
            line = line.with_keeper(keeper, &credential.proof, now.moment);
        }
        self.last_line += 1;
        let id = LineId(self.last_line);
        own.lines.insert(key, id);
        self.lines.insert(id, line);
        Some(id)
    }

    /// Which lanes can be sent now, and how many of each.
    fn wanted(&mut self, now: Moment) -> BTreeMap<LaneName, u32> {
        let waiting: usize = self.posts.iter().map(|post| post.waiting).sum();
        if waiting + self.in_hand() >= IN_HAND_MAX {
            return BTreeMap::new();
        }
        let mut wanted = BTreeMap::new();
        for (lane, &index) in &self.lanes {
            let post = &self.posts[index];
            let room = QUEUE_MAX.saturating_sub(post.waiting).min(PAGE);
            let line = origin_of(&post.credential).and_then(|origin| post.lines.get(origin));
            let line = line.and_then(|id| self.lines.get(id));
            let is_open = line.is_none_or(|line| line.rests_until <= now && can_send(line));
            // A little room is not worth a look.
            if is_open && room >= PAGE / 4 {
                wanted.insert(lane.clone(), room as u32);
            }
        }
        wanted
    }

    pub(super) fn is_claim_due(&self, now: Now) -> bool {
        let is_due = self.look_at.is_some_and(|at| at <= now.moment);
        is_due && self.phase == Phase::On && !self.is_claiming
    }

    pub(super) fn look_by(&mut self, at: Moment) {
        bring_forward(&mut self.look_at, at);
    }
}

/// Whether its breaker would let something through, as far as it is known.
fn can_send(line: &Line) -> bool {
    line.breaker.trouble().is_none() || line.queue.is_empty()
}

/// The name under which a pass is kept.
pub(super) fn pass_name(app_id: &str, credential: &Credential, origin: &str) -> String {
    format!("{app_id} {} {origin}", credential.kind())
}

impl Courier {
    pub(super) fn ask_delivery(&mut self, job: DeliveryJob, waiting: Waiting) {
        self.ask_job(Job::Delivery(job), Waits::Sending(waiting));
    }

    pub(super) fn ask_begin(&mut self, now: Now) {
        let courier = self.gateway.sending.courier.clone();
        let now_ms = now.unix_ms;
        self.ask_delivery(DeliveryJob::Begin { courier, now_ms }, Waiting::Begun);
    }

    pub(super) fn begun(&mut self, released: u64, passes: BTreeMap<String, String>, now: Now) {
        self.counters.push_uncertain += released;
        if released > 0 {
            log::warn!(deliveries = released; "the courier before had notifications in hand: they may come twice");
        }
        let sending = &mut self.gateway.sending;
        sending.passes = passes;
        if sending.phase == Phase::Beginning {
            sending.phase = Phase::On;
        }
        for post in 0..sending.posts.len() {
            if sending.posts[post].is_retired {
                continue;
            }
            let origin = origin_of(&sending.posts[post].credential).map(str::to_string);
            if let Some(origin) = origin {
                sending.line_to(post, &origin, false, now);
            }
        }
        sending.look_at = Some(now.moment);
        let warned = sending.posts.iter();
        for post in warned {
            if let Some(warning) = post.credential.warning(now) {
                log::warn!(app = post.app_id.as_str(), credential = post.credential.kind(); "{warning}");
            }
        }
    }

    /// Something may be queued that was not before.
    pub(in crate::node::courier) fn look_for_deliveries(&mut self, now: Now) {
        self.gateway.sending.look_by(now.moment);
    }

    pub(super) fn claim_more(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        if !sending.is_claim_due(now) {
            return;
        }
        if sending.lanes.is_empty() {
            sending.look_at = None;
            return;
        }
        let lanes = sending.wanted(now.moment);
        if lanes.is_empty() {
            // What makes room looks again.
            sending.look_at = Some(now.moment + Duration::from_millis(100));
            return;
        }
        sending.look_at = None;
        sending.is_claiming = true;
        let claim = Claim {
            courier: sending.courier.clone(),
            lanes,
            now_ms: now.unix_ms,
            until_ms: now.unix_ms + LEASE.as_millis() as u64,
        };
        let waiting = Waiting::Claimed(now.moment);
        self.ask_delivery(DeliveryJob::Claim(Arc::new(claim)), waiting);
    }

    /// The claim was asked for at `since`: the store may have needed long.
    pub(super) fn claimed(&mut self, claimed: Claimed, since: Moment, now: Now) {
        self.counters.push_uncertain += claimed.released;
        let latest = self.gateway.next_look(LOOK_AFTER);
        let sending = &mut self.gateway.sending;
        sending.is_claiming = false;
        let next = claimed.next_ms.map(|at| at.saturating_sub(now.unix_ms));
        let next = next.map_or(latest, Duration::from_millis);
        let pause = Duration::from_millis(if claimed.deliveries.is_empty() { 50 } else { 0 });
        sending.look_by(now.moment + next.clamp(pause, latest));
        for delivery in claimed.deliveries {
            let Some(share) = claimed.specs.get(&delivery.notification) else {
                continue;
            };
            let one = InHand {
                share: Arc::clone(share),
                claimed: since,
                marked: false,
                remedied: false,
                bounces: 0,
                alone: false,
                delivery,
            };
            self.take_in_hand(one, now);
        }
        self.go_on_sending(now);
    }

    /// Puts a delivery into the queue of its line.
    fn take_in_hand(&mut self, one: InHand, now: Now) {
        let sending = &mut self.gateway.sending;
        if sending.phase != Phase::On {
            let back = given_back(&one.delivery, Duration::ZERO, now);
            return sending.reports.push(back);
        }
        if matches!(one.delivery.target, DeliveryTarget::Device(None)) {
            let gone = undeliverable(
                &one.delivery,
                "the device is gone, or somebody else's",
                None,
                now,
            );
            return sending.reports.push(gone);
        }
        // Its credential may have been taken away meanwhile.
        let Some(&post) = sending.lanes.get(&one.delivery.lane) else {
            let back = given_back(&one.delivery, Duration::ZERO, now);
            return sending.reports.push(back);
        };
        let own = origin_of(&sending.posts[post].credential).map(str::to_string);
        let origin = match own {
            Some(origin) => origin,
            None => match self.service_of(&one.delivery, now) {
                Some(origin) => origin,
                None => return,
            },
        };
        let sending = &mut self.gateway.sending;
        match sending.line_to(post, &origin, false, now) {
            Some(id) => sending.put(id, one),
            None => {
                let back = given_back(&one.delivery, WAIT_MAX, now);
                sending.reports.push(back);
            }
        }
    }

    /// The service that a subscription names, if it may be connected to.
    fn service_of(&mut self, delivery: &Delivery, now: Now) -> Option<String> {
        let Address::WebPush(subscription) = self.address_of(delivery, now)? else {
            return None;
        };
        let sending = &mut self.gateway.sending;
        match sending.services.check(&subscription.origin) {
            Ok(()) => Some(subscription.origin),
            Err(why) => {
                let report = undeliverable(delivery, &why.to_string(), None, now);
                sending.reports.push(report);
                self.counters.push_unfit += 1;
                None
            }
        }
    }

    /// Where a delivery goes. What cannot be read is reported.
    pub(super) fn address_of(&mut self, delivery: &Delivery, now: Now) -> Option<Address> {
        let (read, news) = match &delivery.target {
            DeliveryTarget::Address(json) => (read_address(json), None),
            DeliveryTarget::Device(None) => return None,
            DeliveryTarget::Device(Some(device)) => {
                let vault = self.gateway.devices.vault()?;
                match vault.open(&device.row(), &device.sealed) {
                    Ok(token) => {
                        self.counters.tokens_opened += 1;
                        (Address::of(&token), None)
                    }
                    // Another server that shares the store seals with a key that is not here yet.
                    Err(fault @ OpenFault::UnknownKey(_)) => {
                        self.counters.tokens_unreadable += 1;
                        let report = put_off(delivery, fault.text(), KEY_WAIT, now);
                        self.gateway.sending.reports.push(report);
                        return None;
                    }
                    Err(fault) => {
                        self.counters.tokens_unreadable += 1;
                        (Err(fault.text()), Some(TokenNewsKind::Unreadable))
                    }
                }
            }
        };
        match read {
            Ok(address) => Some(address),
            Err(why) => {
                self.counters.push_unfit += 1;
                let report = undeliverable(delivery, &why, news, now);
                self.gateway.sending.reports.push(report);
                None
            }
        }
    }

    /// What lay in a queue for too long goes back to the store, so that its lease does not end here.
    pub(super) fn give_back_old(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        let before = now.moment - WAIT_MAX;
        for line in sending.lines.values_mut() {
            for one in line.queue.take_old(before) {
                sending.posts[line.post].waiting -= 1;
                let back = given_back(&one.delivery, OLD_WAIT, now);
                sending.reports.push(back);
            }
        }
    }

    /// Nothing is claimed that is in hand here, even if this process has slept and all leases have ended:
    /// what waits for an answer or for a mark is reported before.
    pub(super) fn let_go_of_old(&mut self, now: Now) {
        self.poll_due_providers(now);
        let sending = &mut self.gateway.sending;
        let before = now.moment - WAIT_MAX;
        let (marking, reports) = (&mut sending.marking, &mut sending.reports);
        marking.retain(|_, (_, one)| {
            let stays = one.claimed >= before;
            if !stays {
                reports.push(given_back(&one.delivery, OLD_WAIT, now));
            }
            stays
        });
        sending.to_mark.retain(|id| marking.contains_key(id));
    }

    /// Lines of services that nothing is sent to any more, and of credentials that are not in use.
    pub(super) fn drop_idle_lines(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        let before = now.moment - IDLE;
        let (posts, marking) = (&mut sending.posts, &sending.marking);
        sending.lines.retain(|id, line| {
            let post = &mut posts[line.post];
            let is_used =
                !post.credential.is_per_origin() || line.used.is_some_and(|used| used >= before);
            let is_marked = || marking.values().any(|(own, _)| own == id);
            let stays = !line.is_idle() || is_used && !post.is_retired || is_marked();
            if !stays {
                post.lines.retain(|_, other| other != id);
            }
            stays
        });
    }

    pub(super) fn report(&mut self, now: Now) {
        while !self.gateway.sending.reports.is_empty() {
            let sending = &mut self.gateway.sending;
            let count = sending.reports.len().min(REPORTS);
            let reports: Vec<_> = sending.reports.drain(..count).collect();
            let courier = sending.courier.clone();
            sending.settling += 1;
            let now_ms = now.unix_ms;
            let job = DeliveryJob::Settle {
                courier,
                reports,
                now_ms,
            };
            self.ask_delivery(job, Waiting::Settled);
        }
    }

    pub(super) fn ask_marks(&mut self, now: Now) {
        let ids = std::mem::take(&mut self.gateway.sending.to_mark);
        if ids.is_empty() {
            return;
        }
        let job = DeliveryJob::Mark {
            ids: ids.clone(),
            now_ms: now.unix_ms,
        };
        self.ask_delivery(job, Waiting::Marked(ids));
    }

    /// The store knows that these may have been sent: they may be.
    pub(super) fn marked(&mut self, ids: &[u64]) {
        let sending = &mut self.gateway.sending;
        for id in ids {
            if let Some((line, mut one)) = sending.marking.remove(id) {
                one.marked = true;
                sending.put_back(line, one);
            }
        }
    }

    /// The store could not do it: what is in hand comes back when its lease ends, and nothing is asked
    /// again at once.
    pub(super) fn take_no_delivery(&mut self, waiting: Waiting, why: &str, now: Now) {
        log::error!("deliveries: the store could not do what was asked: {why}");
        let sending = &mut self.gateway.sending;
        match waiting {
            Waiting::Begun => self.begun(0, BTreeMap::new(), now),
            Waiting::Claimed(_) => {
                sending.is_claiming = false;
                sending.look_by(now.moment + LOOK_AFTER);
            }
            Waiting::Marked(ids) => {
                for id in ids {
                    if let Some((_, one)) = sending.marking.remove(&id) {
                        let back = given_back(&one.delivery, WAIT_MAX, now);
                        sending.reports.push(back);
                    }
                }
            }
            Waiting::Settled => sending.settling -= 1,
            Waiting::Expired => self.expired(false, now),
            Waiting::Nothing => {}
        }
    }

    pub(super) fn look_for_expired(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        if !sending.is_expiring && sending.expire_at.is_some_and(|at| at <= now.moment) {
            sending.is_expiring = true;
            let now_ms = now.unix_ms;
            self.ask_delivery(DeliveryJob::Expire { now_ms }, Waiting::Expired);
        }
    }

    pub(super) fn expired(&mut self, more: bool, now: Now) {
        let sending = &mut self.gateway.sending;
        sending.is_expiring = false;
        let wait = if more { Duration::ZERO } else { EXPIRE_EVERY };
        sending.expire_at = Some(now.moment + wait);
    }
}

impl Sending {
    /// When a line has something to do though nothing happens.
    pub(super) fn line_deadline(&self, line: &Line) -> Option<Moment> {
        let waits = !line.queue.is_empty() || !line.asks.is_empty();
        let wake = line.wake.filter(|_| waits);
        // While nothing waits, nobody looks after its pass.
        let pass_due = line.pass_due.filter(|_| !line.queue.is_empty());
        [wake, pass_due].into_iter().flatten().min()
    }

    pub(super) fn put(&mut self, id: LineId, one: InHand) {
        if let Some(line) = self.lines.get_mut(&id) {
            self.posts[line.post].waiting += 1;
            line.used = Some(one.claimed);
            line.queue.put(one);
        }
    }

    pub(super) fn put_back(&mut self, id: LineId, one: InHand) {
        if let Some(line) = self.lines.get_mut(&id) {
            self.posts[line.post].waiting += 1;
            line.queue.put_back(one);
        }
    }
}

/// `{"fcm_topic":"…"}`, `{"fcm_condition":"…"}` or `{"apns_channel":"…"}`
fn read_address(json: &str) -> Result<Address, String> {
    let read: Result<BTreeMap<String, String>, _> = serde_json::from_str(json);
    let read = read.unwrap_or_default();
    let address = match read.first_key_value() {
        Some((kind, name)) => match kind.as_str() {
            "fcm_topic" => Address::fcm_topic(name),
            "fcm_condition" => Address::fcm_condition(name),
            "apns_channel" => Address::apns_channel(name),
            _ => Err("the address cannot be read"),
        },
        None => Err("the address cannot be read"),
    };
    address.map_err(str::to_string)
}
