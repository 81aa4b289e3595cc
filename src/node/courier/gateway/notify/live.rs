//! The live side: an event is ordered from the switchboard, which says how many connections it went
//! to. Orders live in memory alone; one that was lost, on either side, is given again from the store,
//! with the same notification and so the same id. Invariant: the call that waits for an order is
//! answered in a bounded time, whatever becomes of the order.

use std::time::Duration;

use crate::base::names::ChannelKey;
use crate::base::now::{Moment, Now};
use crate::node::courier::Courier;
use crate::node::courier::gateway::notify::Waiting;
use crate::push::notify::jobs::{LiveOrder, NotifyJob, ORDER_AGAIN_MS, Standing, Whom};
use crate::wire::courier_bus::Receipt;

/// A call is answered after this time without the numbers.
const CALL_WAITS: Duration = Duration::from_secs(1);

/// An order under way.
pub(super) struct Order {
    id: String,
    whom: Vec<Whom>,
    ack_ms: u64,
    call: Option<Call>,
    answer_by: Moment,
    /// Then it is given again.
    over_at: Moment,
}

/// A call that waits for its answer.
pub(in crate::node::courier) struct Call {
    pub(super) ticket: u64,
    /// The notification's.
    pub(super) id: String,
    /// The answer is kept.
    pub(super) keeps: bool,
    pub(super) state: &'static str,
    pub(super) standings: Vec<(Whom, Standing)>,
}

impl Courier {
    /// Orders an event; how long an acknowledgement may take from then on.
    pub(super) fn order(&mut self, order: &LiveOrder, ack_ms: u64, call: Option<Call>, now: Now) {
        let key = |whom: &Whom| match whom {
            Whom::User(id) => ChannelKey::of_user(&order.app_id, id),
            Whom::Channel(name) => ChannelKey::new(&order.app_id, name),
        };
        let keys: Vec<ChannelKey> = order.whom.iter().map(key).collect();
        let notify = &mut self.gateway.notify;
        notify.last_order += 1;
        let ticket = notify.last_order;
        notify.orders.insert(
            ticket,
            Order {
                id: order.id.clone(),
                whom: order.whom.clone(),
                ack_ms,
                call,
                answer_by: now.moment + CALL_WAITS,
                over_at: now.moment + Duration::from_millis(ORDER_AGAIN_MS),
            },
        );
        self.send_on(&Receipt::Live {
            ticket,
            channels: keys.iter().map(ChannelKey::as_str).collect(),
            name: &order.name,
            data: &order.data,
        });
    }

    /// The switchboard has done what it was ordered, or cannot now.
    pub(in crate::node::courier) fn reached(&mut self, ticket: u64, connections: &[u32], now: Now) {
        let orders = &mut self.gateway.notify.orders;
        let whole = |order: &Order| order.whom.len() == connections.len();
        if !orders.get(&ticket).is_some_and(whole) {
            return;
        }
        let Some(order) = orders.remove(&ticket) else {
            return;
        };
        self.look_by(now.moment + Duration::from_millis(order.ack_ms));
        let counts = connections.iter().copied();
        let job = NotifyJob::Reached {
            id: order.id,
            reached: order.whom.into_iter().zip(counts).collect(),
            now_ms: now.unix_ms,
        };
        self.ask_notify(job, Waiting::Reached { call: order.call });
    }

    /// Answers calls that have waited long enough, and forgets orders that are given again.
    pub(super) fn end_waits(&mut self, now: Now) {
        let mut late = Vec::new();
        self.gateway.notify.orders.retain(|_, order| {
            if order.answer_by <= now.moment {
                late.extend(order.call.take());
            }
            order.over_at > now.moment
        });
        for call in &late {
            self.answer_accepted(call);
        }
    }

    /// When `end_waits` has something to do.
    pub(super) fn waits_deadline(&self) -> Option<Moment> {
        let orders = self.gateway.notify.orders.values();
        let next = orders.map(|order| match order.call {
            Some(_) => order.answer_by,
            None => order.over_at,
        });
        next.min()
    }
}
