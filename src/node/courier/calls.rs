//! The courier's requests: a lane's connection is dialled when it has something to send, kept as
//! long as the server keeps it, and used for one request at a time. Invariant: for every lane that
//! is under way there is a dial or a request, and its outcome is told to the lane once.

use crate::base::bytes::Inbox;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::Now;
use crate::node::courier::{Courier, Talk};
use crate::node::{Ending, Output, Peer};
use crate::push::facts::Fact;
use crate::push::lanes::{Fate, LaneId};
use crate::push::webhook;
use crate::session::caller::CallerStep;
use crate::wire::http_answer::post;

impl Courier {
    /// A lane's letter is to go: over the connection it has, or over one that is dialled.
    pub(super) fn call(&mut self, lane: LaneId, now: Now) {
        match self.calls.get(&lane).copied() {
            Some(conn) => self.ask(lane, conn, now),
            None => self.dial(lane),
        }
    }

    fn dial(&mut self, lane: LaneId) {
        self.last_dial += 1;
        let dial = DialId(self.last_dial);
        self.dials.insert(dial, lane);
        self.outputs.push_back(Output::Dial(Peer::Outside(dial)));
    }

    /// Sends the lane's first letter.
    pub(super) fn ask(&mut self, lane: LaneId, conn: ConnId, now: Now) {
        let hook = &self.webhooks[lane.hook];
        let (Some(letter), Some(app)) = (self.lanes.front(lane), self.apps.by_id(&hook.app_id))
        else {
            return;
        };
        // Pusher: the oldest of the app's keys.
        let Some(key) = app.keys.first() else {
            return;
        };
        let fields = webhook::fields(&key.key, key.secret.expose(), &letter.body);
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let request = post(&hook.target, &fields, letter.body.as_bytes());
        let timeout = hook.timeout;
        let Some(Talk::Endpoint(_, caller)) = self.seats.get_mut(&conn).map(|it| &mut it.talk)
        else {
            return;
        };
        let asked = self
            .lines
            .push(conn, |out| caller.ask(&request, timeout, out, now));
        debug_assert!(asked.is_ok(), "a request is shorter than its outbox");
    }

    pub(super) fn read_answer(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) {
        let Some(Talk::Endpoint(lane, caller)) = self.seats.get_mut(&conn).map(|it| &mut it.talk)
        else {
            return;
        };
        let (lane, step) = (*lane, caller.next(inbox));
        self.take_outcome(conn, lane, &step, now);
    }

    /// What came of a request, on a connection that stands.
    fn take_outcome(&mut self, conn: ConnId, lane: LaneId, step: &CallerStep, now: Now) {
        match step {
            CallerStep::Idle | CallerStep::Answered { keeps: true, .. } => {}
            CallerStep::Answered { keeps: false, .. } | CallerStep::Broken { .. } => {
                // The outcome is told below: the connection must not tell another.
                self.seats.remove(&conn);
                self.calls.remove(&lane);
                self.outputs.push_back(Output::Close(conn, Ending::Cut));
            }
        }
        self.take_step(lane, step, now);
    }

    pub(super) fn take_step(&mut self, lane: LaneId, step: &CallerStep, now: Now) {
        match step {
            CallerStep::Idle => {}
            CallerStep::Answered { status, .. } if (200..300).contains(status) => {
                self.counters.webhooks_sent += 1;
                self.settle(lane, true, now);
            }
            CallerStep::Answered { status, .. } => {
                let redirect = if (300..400).contains(status) {
                    "; redirects are not followed"
                } else {
                    ""
                };
                self.failed(lane, &format!("status {status}{redirect}"), now);
            }
            CallerStep::Broken { stale: true, .. } => self.dial(lane),
            CallerStep::Broken { why, .. } => self.failed(lane, why, now),
        }
    }

    pub(super) fn failed(&mut self, lane: LaneId, why: &str, now: Now) {
        self.counters.webhooks_failed += 1;
        let target = self.webhooks[lane.hook].target.to_string();
        log::warn!(url = target.as_str(); "a webhook did not arrive: {why}");
        self.settle(lane, false, now);
    }

    fn settle(&mut self, lane: LaneId, arrived: bool, now: Now) {
        let hook = &self.webhooks[lane.hook];
        let dice = &mut self.dice;
        match self.lanes.settle(lane, hook, arrived, dice, now) {
            Some(Fate::Settled(id)) => self.facts.push(Fact::Settled(id)),
            Some(Fate::GivenUp(id)) => {
                let target = hook.target.to_string();
                log::error!(url = target.as_str(); "a webhook is given up");
                self.counters.webhooks_given_up += 1;
                self.facts.push(Fact::Settled(id));
            }
            Some(Fate::Again) | None => {}
        }
    }

    /// Ends the requests whose time is up.
    pub(super) fn cut_late_answers(&mut self, now: Now) {
        let mut late = Vec::new();
        for (conn, seat) in &mut self.seats {
            if let Talk::Endpoint(lane, caller) = &mut seat.talk {
                let step = caller.elapsed(now);
                if step != CallerStep::Idle {
                    late.push((*conn, *lane, step));
                }
            }
        }
        for (conn, lane, step) in late {
            self.take_outcome(conn, lane, &step, now);
        }
    }
}
