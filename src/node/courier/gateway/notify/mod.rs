//! Calls about notifications, and whom they reach: what is asked for becomes jobs of the store, what
//! the store finds becomes orders to the switchboard and answers. Owns which calls and orders are
//! under way. Invariants: whatever must happen later has its time in the store, so that nothing here
//! is missed when this process dies; an answer says no more than what is stored.

mod answers;
mod due;
mod live;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::base::now::{Moment, Now};
use crate::base::uuid::uuid;
use crate::node::courier::Courier;
use crate::node::courier::gateway::Waiting as Waits;
use crate::node::courier::gateway::notify::live::{Call, Order};
use crate::node::courier::gateway::rates::{Allowed, Rates};
use crate::push::jobs::Job;
use crate::push::notify::jobs::{
    Accepted, LiveOrder, New, NotifyJob, NotifyOutcome, ORDER_AGAIN_MS, OpenPlace, Standing, Whom,
};
use crate::push::notify::request::{self, Request};
use crate::wire::gateway::GatewayCall;

/// Rows of one answer.
const ROWS: u32 = 100;
const ROWS_MAX: u32 = 1_000;

/// See the file's head.
#[derive(Default)]
pub(super) struct Notify {
    last_order: u64,
    orders: BTreeMap<u64, Order>,
    /// When the store is asked for what is due; `None`: nothing will be.
    look_at: Option<Moment>,
    is_looking: bool,
    /// When what is old is removed, and from where on.
    tidy_at: Option<Moment>,
    tidy_after: OpenPlace,
    rates: Rates,
}

/// What is to be done with a job's outcome.
pub(super) enum Waiting {
    Accepted { ticket: u64, new: Arc<New> },
    Reached { call: Option<Call> },
    Acknowledged { ticket: u64 },
    Changed { by: Changer, what: &'static str },
    Told { ticket: u64 },
    Due,
    Tidied,
    Nothing,
}

/// Who wants a notification cancelled or queued again.
pub(super) struct Changer {
    ticket: u64,
    app_id: String,
    key: String,
    id: String,
}

impl Courier {
    pub(super) fn take_notify_call(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        let (app_id, now_ms) = (call.app_id.to_string(), now.unix_ms);
        match (call.method, &call.segments[..]) {
            ("POST", ["notify"]) => self.take_notification(ticket, call, now),
            ("GET", ["notifications"]) => self.list(ticket, call),
            ("GET", ["notifications", id]) => self.show(ticket, id, call),
            ("DELETE", ["notifications", id]) | ("POST", ["notifications", id, "retry"]) => {
                let (id, key) = ((*id).to_string(), call.key.to_string());
                let by = Changer {
                    ticket,
                    app_id: app_id.clone(),
                    key,
                    id: id.clone(),
                };
                let (job, what) = match call.method {
                    "DELETE" => (NotifyJob::Cancel { app_id, id, now_ms }, "cancelled"),
                    _ => (NotifyJob::Retry { app_id, id, now_ms }, "queued"),
                };
                self.ask_notify(job, Waiting::Changed { by, what });
            }
            ("POST", ["notifications", id, "ack"]) => self.acknowledge(ticket, id, call, now),
            (_, ["notify"] | ["notifications"] | ["notifications", _])
            | (_, ["notifications", _, "retry" | "ack"]) => {
                self.refuse_call(ticket, 405, "This path has no such method");
            }
            _ => self.refuse_call(ticket, 404, "There is nothing at this path"),
        }
    }

    fn ask_notify(&mut self, job: NotifyJob, waiting: Waiting) {
        self.ask_job(Job::Notify(job), Waits::Notify(waiting));
    }

    fn take_notification(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        let header = call.parameter("idempotency_key");
        let read = Request::read(call.body, header, &self.limits, now);
        let request = match read {
            Ok(request) => request,
            Err(why) => return self.refuse_call(ticket, 400, &why),
        };
        let users = &request.spec.to.users;
        let allowed = Allowed {
            per_app: self.limits.notifications_per_second,
            per_user: self.limits.notifications_per_user_per_second,
        };
        let rates = &mut self.gateway.notify.rates;
        if let Err(whose) = rates.take((call.app_id, 1), users, allowed, now) {
            self.counters.notifications_limited += 1;
            return self.refuse_for_now(ticket, &format!("Too many notifications for {whose}"));
        }
        let print = || {
            let hash = digest::digest(&digest::SHA256, &request::canonical(call.body));
            HEXLOWER.encode(hash.as_ref())
        };
        let new = Arc::new(New {
            id: uuid(now.unix_ms, &mut self.dice),
            app_id: call.app_id.to_string(),
            sender: call.key.to_string(),
            idempotency: request.idempotency_key.map(|key| (key, print())),
            spec: request.spec,
            send_at_ms: request.send_at_ms,
            expires_ms: request.expires_ms,
            now_ms: now.unix_ms,
        });
        let job = NotifyJob::Accept(Arc::clone(&new));
        self.ask_notify(job, Waiting::Accepted { ticket, new });
    }

    fn acknowledge(&mut self, ticket: u64, id: &str, call: &GatewayCall<'_>, now: Now) {
        let user_id = match request::read_acknowledging_user(call.body) {
            Ok(user_id) => user_id,
            Err(why) => return self.refuse_call(ticket, 400, &why),
        };
        let job = NotifyJob::Acknowledge {
            app_id: call.app_id.to_string(),
            id: id.to_string(),
            user_id,
            now_ms: now.unix_ms,
        };
        self.ask_notify(job, Waiting::Acknowledged { ticket });
    }

    fn show(&mut self, ticket: u64, id: &str, call: &GatewayCall<'_>) {
        let (after, limit) = (number(call, "after", 0), number(call, "limit", ROWS.into()));
        let (Ok(after), Ok(limit)) = (after, limit) else {
            return self.refuse_call(ticket, 400, "after and limit are numbers");
        };
        let job = NotifyJob::Show {
            app_id: call.app_id.to_string(),
            id: id.to_string(),
            after,
            limit: limit.clamp(1, ROWS_MAX.into()) as u32,
        };
        self.ask_notify(job, Waiting::Told { ticket });
    }

    fn list(&mut self, ticket: u64, call: &GatewayCall<'_>) {
        let Ok(limit) = number(call, "limit", ROWS.into()) else {
            return self.refuse_call(ticket, 400, "limit is a number");
        };
        let text = |name| call.parameter(name).map(str::to_string);
        let job = NotifyJob::List {
            app_id: call.app_id.to_string(),
            state: text("state"),
            before: text("before"),
            limit: limit.clamp(1, ROWS_MAX.into()) as u32,
        };
        self.ask_notify(job, Waiting::Told { ticket });
    }

    pub(super) fn take_notify_outcome(
        &mut self,
        waiting: Waiting,
        outcome: NotifyOutcome,
        now: Now,
    ) {
        match (waiting, outcome) {
            (Waiting::Accepted { ticket, new }, NotifyOutcome::Accepted(accepted)) => {
                self.take_accepted(ticket, &new, accepted, now);
            }
            (Waiting::Reached { call }, NotifyOutcome::Reached(standings)) => {
                self.take_reached(call, &standings);
            }
            (Waiting::Acknowledged { ticket }, NotifyOutcome::Changed(count)) => {
                self.counters.notifications_acknowledged += 1;
                self.answer_call(ticket, 200, &format!("{{\"cancelled\":{count}}}"));
            }
            (Waiting::Changed { by, what }, NotifyOutcome::Changed(count)) => {
                self.look_by(now.moment);
                let (app, key, notification) = (&*by.app_id, &*by.key, &*by.id);
                log::info!(app, key, notification, deliveries = count; "notification {what}");
                self.answer_call(by.ticket, 200, &format!("{{\"{what}\":{count}}}"));
            }
            (Waiting::Told { ticket }, NotifyOutcome::Shown(shown)) => {
                self.answer_call(ticket, 200, &answers::shown(&shown));
            }
            (Waiting::Told { ticket }, NotifyOutcome::Listed(rows)) => {
                self.answer_call(ticket, 200, &answers::listed(&rows));
            }
            (Waiting::Due, NotifyOutcome::Due(due)) => self.take_due(due, now),
            (Waiting::Tidied, NotifyOutcome::Tidied { after, .. }) => {
                self.take_tidied(after, now);
            }
            (waiting, NotifyOutcome::Impossible(why)) => self.take_impossible(waiting, &why, now),
            (
                Waiting::Acknowledged { ticket }
                | Waiting::Changed {
                    by: Changer { ticket, .. },
                    ..
                }
                | Waiting::Told { ticket },
                _,
            ) => self.refuse_call(
                ticket,
                404,
                "There is no such notification, or not for this user",
            ),
            _ => {}
        }
    }

    fn take_impossible(&mut self, waiting: Waiting, why: &str, now: Now) {
        log::error!("notifications: the store could not do what was asked: {why}");
        match waiting {
            Waiting::Due => self.take_no_due(now),
            Waiting::Tidied => self.take_tidied(None, now),
            Waiting::Accepted { ticket, .. }
            | Waiting::Acknowledged { ticket }
            | Waiting::Changed {
                by: Changer { ticket, .. },
                ..
            }
            | Waiting::Told { ticket } => {
                self.refuse_call(ticket, 500, "The store cannot keep or find this");
            }
            Waiting::Reached { .. } | Waiting::Nothing => {}
        }
    }

    fn take_accepted(&mut self, ticket: u64, new: &Arc<New>, accepted: Accepted, now: Now) {
        let standings = match accepted {
            Accepted::Fresh(standings) => standings,
            Accepted::Again(id, answer) => {
                let answer = answer.unwrap_or_else(|| answers::known(&id));
                return self.answer_call(ticket, 202, &answer);
            }
            Accepted::Conflict => {
                let why = "idempotency_key: another notification was accepted with it";
                return self.refuse_call(ticket, 409, why);
            }
        };
        self.counters.notifications_accepted += 1;
        let (app, key, notification) = (&*new.app_id, &*new.sender, &*new.id);
        log::info!(app, key, notification; "notification accepted");
        self.tidy_later(now);
        let call = Call {
            ticket,
            id: new.id.clone(),
            keeps: new.idempotency.is_some(),
            state: state_of(new),
            standings,
        };
        if call.state != "open" {
            // The store may have taken longer than that.
            let wait = new.send_at_ms.saturating_sub(now.unix_ms);
            self.look_by(now.moment + std::time::Duration::from_millis(wait));
        }
        let queued = call.standings.iter().map(|(_, it)| u64::from(it.queued));
        self.counters.notifications_queued += queued.sum::<u64>();
        let is_live = new.spec.deliver.is_live() && !call.standings.is_empty();
        if !is_live {
            return self.answer_accepted(&call);
        }
        let again = std::time::Duration::from_millis(ORDER_AGAIN_MS);
        self.look_by(now.moment + again);
        let whom = call
            .standings
            .iter()
            .map(|(whom, _)| whom.clone())
            .collect();
        let order = LiveOrder::new(&new.id, &new.app_id, &new.spec, whom);
        self.order(&order, new.spec.ack_ms, Some(call), now);
    }

    /// The answer to who asked for a notification; it is kept if it may be asked for again.
    fn answer_accepted(&mut self, call: &Call) {
        let answer = answers::accepted(&call.id, call.state, &call.standings);
        self.answer_call(call.ticket, 202, &answer);
        if call.keeps {
            let id = call.id.clone();
            self.ask_notify(NotifyJob::Answered { id, answer }, Waiting::Nothing);
        }
    }

    fn take_reached(&mut self, call: Option<Call>, standings: &[(Whom, Standing)]) {
        let Some(mut call) = call else {
            return;
        };
        call.standings = standings.to_vec();
        self.answer_accepted(&call);
    }
}

/// As it is after the commit that accepted it.
fn state_of(new: &New) -> &'static str {
    match new.send_at_ms > new.now_ms {
        true => "scheduled",
        false if !new.spec.to.steps().is_empty() => "expanding",
        false => "open",
    }
}

fn number(
    call: &GatewayCall<'_>,
    name: &str,
    default: u64,
) -> Result<u64, std::num::ParseIntError> {
    call.parameter(name).map_or(Ok(default), str::parse)
}
