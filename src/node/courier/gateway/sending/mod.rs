//! Deliveries on their way to providers: claimed from the store in pages, sent over HTTP, settled in
//! batches. Owns what is in hand: each delivery lies in a queue, is under way on a connection, or
//! waits to be reported. Invariants: nothing is sent that is not claimed, and what is claimed is
//! reported or given back before its lease ends; a delivery is in one of these places at a time; a
//! credential that fails, or a provider that is down, keeps nobody else waiting.

mod answers;
mod asking;
mod batches;
mod claiming;
mod connections;
mod drafts;
mod line;
mod passes;
mod posts;

use std::collections::BTreeMap;
use std::time::Duration;

pub(in crate::node::courier) use connections::Provider;
use line::{Flight, FlightId, Line, LineId, Post};
pub(in crate::node::courier::gateway) use posts::Stored;

use crate::base::ids::DialId;
use crate::base::now::{Moment, Now};
use crate::node::Output;
use crate::node::courier::{Courier, Storing};
use crate::push::delivery::jobs::{DeliveryOutcome, DeliveryReport, LaneName};
use crate::push::delivery::outcome::given_back;
use crate::push::delivery::queue::InHand;
use crate::push::providers::credential::Credential;
use crate::push::providers::webpush::guard::OriginPolicy;

/// How long what is under way may take when this process is to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What the gateway needs for sending.
#[derive(Default)]
pub struct SendingOptions {
    /// By app; of several that serve a device the first is used.
    pub credentials: Vec<(String, Credential)>,
    /// Whom subscriptions may lead to.
    pub services: OriginPolicy,
    /// Whether private addresses are connected to for subscriptions, too.
    pub allow_private: bool,
    /// The name of this courier in claims; the next one that has it takes them back.
    pub courier: String,
    /// In percent (`delivery/guard`).
    pub wrong_tokens: u32,
}

/// See the file's head.
#[derive(Default)]
pub(in crate::node::courier) struct Sending {
    services: OriginPolicy,
    allow_private: bool,
    courier: String,
    wrong_tokens: u32,
    posts: Vec<Post>,
    /// Which credential each lane is sent with.
    lanes: BTreeMap<LaneName, usize>,
    lines: BTreeMap<LineId, Line>,
    last_line: u64,
    /// Where the last round of sending began.
    turn: LineId,
    flights: BTreeMap<FlightId, Flight>,
    /// How many deliveries share a request of these with another.
    together: usize,
    dials: BTreeMap<DialId, (LineId, Option<bool>)>,
    reports: Vec<DeliveryReport>,
    /// Must not be sent before the store knows that they may have been.
    marking: BTreeMap<u64, (LineId, InHand)>,
    to_mark: Vec<u64>,
    passes: BTreeMap<String, String>,
    phase: Phase,
    is_claiming: bool,
    /// Reports are on their way to the store.
    settling: u32,
    /// When the store is asked for more; `None`: not before something happens.
    look_at: Option<Moment>,
    expire_at: Option<Moment>,
    is_expiring: bool,
    /// Lines that could send more in the next turn.
    has_more: bool,
    stop_by: Option<Moment>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No gateway, or the store has not loaded.
    #[default]
    Off,
    /// What the courier before had in hand is being taken back.
    Beginning,
    On,
    Stopping,
}

/// What is to be done with a job's outcome.
pub(super) enum Waiting {
    Begun,
    /// Asked for at that time; from then on the lease runs.
    Claimed(Moment),
    Marked(Vec<u64>),
    Settled,
    Expired,
    Nothing,
}

impl Sending {
    pub fn new(options: SendingOptions) -> Sending {
        let mut sending = Sending {
            services: options.services,
            allow_private: options.allow_private,
            courier: options.courier,
            wrong_tokens: options.wrong_tokens,
            ..Sending::default()
        };
        for (app_id, credential) in options.credentials {
            let post = Post::new(app_id, None, credential, options.wrong_tokens);
            sending.posts.push(post);
        }
        sending.set_lanes();
        sending
    }
}

impl Courier {
    /// What was stored is there: from now on it is sent.
    pub(super) fn begin_sending(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        sending.expire_at = Some(now.moment);
        sending.phase = Phase::Beginning;
        self.ask_begin(now);
    }

    pub(super) fn take_delivery_outcome(
        &mut self,
        waiting: Waiting,
        outcome: DeliveryOutcome,
        now: Now,
    ) {
        match (waiting, outcome) {
            (waiting, DeliveryOutcome::Impossible(why)) => {
                self.take_no_delivery(waiting, &why, now);
            }
            (Waiting::Begun, DeliveryOutcome::Begun { released, passes }) => {
                self.begun(released, passes, now);
            }
            (Waiting::Claimed(since), DeliveryOutcome::Claimed(claimed)) => {
                self.claimed(*claimed, since, now);
            }
            (Waiting::Marked(ids), DeliveryOutcome::Done) => self.marked(&ids),
            (Waiting::Settled, DeliveryOutcome::Settled { retired }) => {
                self.gateway.sending.settling -= 1;
                self.counters.push_retired += retired;
            }
            (Waiting::Expired, DeliveryOutcome::Expired { count, more }) => {
                self.counters.push_expired += count;
                self.expired(more, now);
            }
            (Waiting::Nothing, _) => {}
            _ => debug_assert!(false, "an outcome is of the kind of its job"),
        }
    }

    /// Does whatever can be done now: passes, requests, reports, claims.
    pub(in crate::node::courier) fn go_on_sending(&mut self, now: Now) {
        self.look_for_expired(now);
        match self.gateway.sending.phase {
            Phase::Off | Phase::Beginning => return,
            Phase::On => {
                self.clear_retired(now);
                self.renew_passes(now);
                self.give_back_old(now);
                self.send_all(now);
                self.drop_idle_lines(now);
            }
            Phase::Stopping => {}
        }
        if matches!(self.storing, Storing::Idle) {
            if self.gateway.sending.is_claim_due(now) {
                self.let_go_of_old(now);
            }
            self.report(now);
            self.ask_marks(now);
            self.claim_more(now);
        }
        self.end_when_drained(now);
    }

    /// This process is to end: what is under way may be answered, the rest is left to the next.
    pub(in crate::node::courier) fn stop_sending(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        if sending.phase == Phase::Off {
            return self.outputs.push_back(Output::Quit);
        }
        sending.phase = Phase::Stopping;
        sending.stop_by = Some(now.moment + DRAIN);
        let mut waiting: Vec<InHand> = Vec::new();
        for line in sending.lines.values_mut() {
            waiting.extend(line.queue.take_all());
        }
        for post in &mut sending.posts {
            post.waiting = 0;
        }
        let marking = std::mem::take(&mut sending.marking);
        waiting.extend(marking.into_values().map(|(_, one)| one));
        let back = waiting.iter();
        let back = back.map(|one| given_back(&one.delivery, Duration::ZERO, now));
        sending.reports.extend(back);
        self.go_on(now);
    }

    fn end_when_drained(&mut self, now: Now) {
        let sending = &self.gateway.sending;
        let Some(stop_by) = sending.stop_by else {
            return;
        };
        let is_done = sending.flights.is_empty()
            && sending.reports.is_empty()
            && sending.settling == 0
            && !sending.is_claiming;
        if is_done || stop_by <= now.moment {
            self.gateway.sending.stop_by = None;
            self.outputs.push_back(Output::Quit);
        }
    }

    pub(in crate::node::courier) fn sending_deadline(&self) -> Option<Moment> {
        let sending = &self.gateway.sending;
        // Without a credential nothing is claimed, however much is queued.
        let on = sending.phase == Phase::On;
        let may_look = on && !sending.is_claiming && matches!(self.storing, Storing::Idle);
        let look = sending.look_at.filter(|_| may_look);
        let expire = sending.expire_at.filter(|_| !sending.is_expiring);
        let more = sending.has_more.then_some(Moment::default());
        let own = [look, expire, sending.stop_by, more];
        let lines = sending.lines.values().filter(|_| on);
        let lines = lines.filter_map(|line| sending.line_deadline(line));
        own.into_iter().flatten().chain(lines).min()
    }

    /// The numbers that go up and down.
    pub(in crate::node::courier) fn count_sending(&mut self) {
        let sending = &self.gateway.sending;
        let waiting: usize = sending.posts.iter().map(|post| post.waiting).sum();
        let lines = sending.lines.values();
        let conns: usize = lines.clone().map(|line| line.conns.len()).sum();
        let paused = lines.filter(|line| line.breaker.trouble().is_some());
        self.counters.push_paused = paused.count() as u64;
        self.counters.push_connections = conns as u64;
        self.counters.push_in_hand = (waiting + sending.in_hand()) as u64;
    }
}
