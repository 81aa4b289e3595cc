//! The push gateway's part of the courier: calls of the HTTP API that came by way of the switchboard,
//! and what follows from them. Owns which call waits for which job of the store. Invariant: a call
//! is answered once, and never before what it changed is stored.

mod credentials;
pub(super) mod devices;
mod news;
mod notify;
mod rates;
pub(super) mod sending;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::courier::{Courier, Talk};
use crate::push::jobs::{Job, JobTicket, Outcome};
use crate::wire::bus_codec::Garbled;
use crate::wire::control::Report as ToMaster;
use crate::wire::courier_bus::{Receipt, Report};
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// See the file's head.
#[derive(Default)]
pub(super) struct Gateway {
    /// Where a switchboard's calls come from.
    link: Option<ConnId>,
    /// Whoever wants to send some, and has to wait until memory is there.
    greeted: Option<ConnId>,
    last_job: u64,
    /// Other couriers put devices and notifications into the store, too.
    is_shared: bool,
    /// What is to be done with the outcome of each job that is under way.
    waiting: BTreeMap<JobTicket, Waiting>,
    notify: notify::Notify,
    credentials: credentials::Credentials,
    devices: devices::Devices,
    sending: sending::Sending,
    news: news::News,
}

/// Where several couriers share a store, it is looked at no later than this for what the others have put
/// there, or left behind.
const SHARED_LOOK: Duration = Duration::from_secs(2);
/// In the ticket of a call that came by way of the master.
const OPERATOR: u64 = 1 << 63;

impl Gateway {
    pub fn new(
        devices: Option<devices::DeviceOptions>,
        sending: sending::SendingOptions,
    ) -> Gateway {
        Gateway {
            devices: devices::Devices::new(devices),
            news: news::News::new(sending.courier.clone()),
            sending: sending::Sending::new(sending),
            ..Gateway::default()
        }
    }

    /// How long after a look at the store, which alone would be repeated after `alone`, the next one is.
    fn next_look(&self, alone: Duration) -> Duration {
        match self.is_shared {
            true => SHARED_LOOK,
            false => alone,
        }
    }
}

/// Who waits for a job of the store.
enum Waiting {
    Credentials(credentials::Waiting),
    Devices(devices::Waiting),
    Notify(notify::Waiting),
    Sending(sending::Waiting),
    News(news::Waiting),
}

impl Courier {
    /// Without one nothing about devices and notifications is asked of the store.
    pub(super) fn has_gateway(&self) -> bool {
        self.gateway.devices.vault().is_some()
    }

    /// What was stored is there: it is gone on with.
    pub(super) fn begin_gateway(&mut self, has_notifications: bool, is_shared: bool, now: Now) {
        if !self.has_gateway() {
            return;
        }
        self.gateway.is_shared = is_shared;
        if has_notifications || is_shared {
            self.begin_notifying(now);
        }
        self.begin_sending(now);
        self.begin_credentials(now);
        self.begin_news(now);
    }

    /// A switchboard's link for calls stands.
    pub(super) fn take_calls(&mut self, conn: ConnId) {
        if self.is_overtaken(conn, [self.gateway.link, self.gateway.greeted]) {
            return;
        }
        if let Some(seat) = self.seats.get_mut(&conn) {
            seat.talk = Talk::Switchboard;
        }
        self.gateway.greeted = Some(conn);
    }

    /// Memory is there: calls may come.
    pub(super) fn open_gateway(&mut self) {
        if let Some(conn) = self.gateway.greeted.take() {
            self.gateway.link = Some(conn);
            self.send_to(conn, &Receipt::Ready);
        }
    }

    pub(super) fn forget_gateway(&mut self, conn: ConnId) {
        self.gateway.link.take_if(|it| *it == conn);
        self.gateway.greeted.take_if(|it| *it == conn);
    }

    pub(super) fn hear_call(
        &mut self,
        conn: ConnId,
        report: Report<'_>,
        now: Now,
    ) -> Result<(), Garbled> {
        match report {
            // A former switchboard's last words.
            _ if self.gateway.link != Some(conn) => {}
            Report::Call { ticket, call } => self.take_call(ticket, &call, now),
            Report::Reached {
                ticket,
                connections,
            } => self.reached(ticket, &connections, now),
            _ => return Err(Garbled),
        }
        Ok(())
    }

    /// On the link for calls.
    fn send_on(&mut self, receipt: &Receipt<'_>) {
        if let Some(conn) = self.gateway.link {
            self.send_to(conn, receipt);
        }
    }

    /// A call came; it is answered now or when its jobs are done.
    pub(super) fn take_call(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        match call.segments.first() {
            Some(&"credentials") => self.take_credential_call(ticket, call, now),
            Some(&"devices") => self.take_device_call(ticket, call, now),
            _ => self.take_notify_call(ticket, call, now),
        }
    }

    /// A call of an operator at the machine, who may do all that keys of apps may do.
    pub(super) fn take_operator_call(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        let ticket = ticket | OPERATOR;
        match call.segments.first() {
            Some(&"keys") => self.take_key_call(ticket, call),
            _ if self.apps.by_id(call.app_id).is_none() => {
                self.refuse_call(ticket, 404, "There is no such app");
            }
            _ => self.take_call(ticket, call, now),
        }
    }

    /// What came of the jobs of one commit.
    pub(super) fn take_outcomes(&mut self, outcomes: Vec<(JobTicket, Outcome)>, now: Now) {
        for (ticket, outcome) in outcomes {
            let waiting = self.gateway.waiting.remove(&ticket);
            match (waiting, outcome) {
                (Some(Waiting::Devices(waiting)), Outcome::Devices(outcome)) => {
                    self.take_device_outcome(waiting, outcome, now);
                    self.look_for_news(now);
                }
                (Some(Waiting::Credentials(waiting)), Outcome::Credentials(outcome)) => {
                    self.take_credential_outcome(waiting, outcome, now);
                }
                (Some(Waiting::Notify(waiting)), Outcome::Notify(outcome)) => {
                    self.take_notify_outcome(waiting, outcome, now);
                    self.look_for_deliveries(now);
                }
                (Some(Waiting::Sending(waiting)), Outcome::Delivery(outcome)) => {
                    self.take_delivery_outcome(waiting, outcome, now);
                    self.look_for_news(now);
                }
                (Some(Waiting::News(waiting)), Outcome::News(outcome)) => {
                    self.take_news_outcome(waiting, outcome, now);
                }
                _ => debug_assert!(false, "an outcome is of the kind of its job"),
            }
        }
    }

    /// Has something done in the next commit.
    fn ask_job(&mut self, job: Job, waiting: Waiting) {
        self.gateway.last_job += 1;
        let ticket = JobTicket(self.gateway.last_job);
        self.gateway.waiting.insert(ticket, waiting);
        self.jobs.push((ticket, job));
    }

    /// Answers a call; nobody waits for ticket 0. `body` is JSON.
    fn answer_call(&mut self, ticket: u64, status: u16, body: &str) {
        let answer = GatewayAnswer {
            status,
            body,
            retry_seconds: None,
        };
        self.give_answer(ticket, answer);
    }

    fn give_answer(&mut self, ticket: u64, answer: GatewayAnswer<'_>) {
        if ticket == 0 {
            return;
        }
        if ticket & OPERATOR > 0 {
            let report = ToMaster::Answered {
                ticket: ticket & !OPERATOR,
                status: answer.status,
                body: answer.body.to_string(),
            };
            if let Some(master) = self.master {
                self.tell_master(master, &report);
            }
            return;
        }
        self.send_on(&Receipt::Answer { ticket, answer });
    }

    /// Answers that it was too much; a second later there is room again.
    fn refuse_for_now(&mut self, ticket: u64, why: &str) {
        self.give_error(ticket, 429, why, Some(1));
    }

    fn refuse_call(&mut self, ticket: u64, status: u16, why: &str) {
        self.give_error(ticket, status, why, None);
    }

    /// In the form that all errors of the HTTP API have.
    fn give_error(&mut self, ticket: u64, status: u16, why: &str, retry_seconds: Option<u32>) {
        let why = serde_json::Value::from(why);
        let body = &format!("{{\"error\":{why},\"code\":{status}}}");
        let answer = GatewayAnswer {
            status,
            body,
            retry_seconds,
        };
        self.give_answer(ticket, answer);
    }
}
