//! How the switchboard passes calls of workers on to the courier, answers back, and live events of
//! notifications to users. Does not know what a call says. Invariant: every call with a ticket is
//! answered once: by the courier, or as soon as it is clear that it will not.

use std::collections::BTreeMap;

use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::wire::bus::{Answer, Content, InfoWanted, Item, RefusalReason};
use crate::wire::courier_bus::Report;
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// Calls that are kept while the courier is away, and the body of each; more are lost.
const KEPT_MAX: usize = 5_000;
const KEPT_BYTES: usize = 1_024;
/// The number of no publish.
const NOBODY_WAITS: u64 = 0;

/// Calls that wait for the courier.
pub(super) struct Calls {
    last: u64,
    /// Whose they are: the worker's connection and its own ticket.
    waiting: BTreeMap<u64, (ConnId, u64)>,
    /// Those that nobody waits for, as frames, while the courier is away.
    kept: Vec<Vec<u8>>,
}

impl Calls {
    /// The tickets of two switchboards are not the same: the courier may still answer calls of the
    /// one before. The highest bit is left to others who call.
    pub fn new(dice: &mut Dice) -> Calls {
        Calls {
            last: dice.next_u64() >> 2,
            waiting: BTreeMap::new(),
            kept: Vec::new(),
        }
    }
}

impl Switchboard {
    /// A worker's call; with ticket 0 nobody waits.
    pub(super) fn pass_call(
        &mut self,
        conn: ConnId,
        ticket: u64,
        call: &GatewayCall<'_>,
        now: Now,
    ) {
        let courier = self.courier_link().filter(|courier| {
            let waits = self.lines.waiting(*courier) + call.body.len();
            waits <= self.limits.link_bytes && self.calls.waiting.len() < self.limits.held_messages
        });
        let Some(courier) = courier else {
            if ticket > 0 {
                let answer = Answer::Refused(RefusalReason::NoCourier);
                self.give_answer(conn, ticket, answer, now);
            } else if self.calls.kept.len() < KEPT_MAX && call.body.len() <= KEPT_BYTES {
                let call = call.clone();
                self.calls.kept.push(Report::Call { ticket, call }.encode());
            }
            return;
        };
        let mut own = 0;
        if ticket > 0 {
            self.calls.last += 1;
            own = self.calls.last;
            self.calls.waiting.insert(own, (conn, ticket));
        }
        let call = call.clone();
        let report = Report::Call { ticket: own, call };
        // The courier's line takes whatever there is; what may wait was checked above.
        let _ = self.lines.push(courier, |out| out.push(&report.encode()));
    }

    /// The courier is back.
    pub(super) fn pass_kept_calls(&mut self, courier: ConnId) {
        for frame in std::mem::take(&mut self.calls.kept) {
            let _ = self.lines.push(courier, |out| out.push(&frame));
        }
    }

    /// The courier's answer to a call.
    pub(super) fn pass_answer(&mut self, ticket: u64, answer: GatewayAnswer<'_>, now: Now) {
        if let Some((conn, ticket)) = self.calls.waiting.remove(&ticket) {
            self.give_answer(conn, ticket, Answer::Gateway(answer), now);
        }
    }

    /// Brings an event of a notification to the connections in these channels, and says how many these
    /// are: all of them or, while they are not known or cannot take it, none.
    pub(super) fn bring_live(
        &mut self,
        courier: ConnId,
        ticket: u64,
        channels: Vec<&str>,
        content: Content<'_>,
        now: Now,
    ) {
        let items = [Item {
            channels,
            content,
            user_id: None,
            exclude: None,
            info: InfoWanted::default(),
        }];
        let knows = self.settling.is_none() && !self.is_blind();
        let mut connections = Vec::new();
        if knows && !self.has_congested_target(courier, &items) {
            let [item] = &items;
            let counts = item.channels.iter().map(|key| self.registry.counts(key));
            connections = counts
                .map(|counts| u32::try_from(counts.subscriptions).unwrap_or(u32::MAX))
                .collect();
            let positions = self.remember(item, now);
            self.deliver(item, &positions, &mut Vec::new(), now);
            self.tell_others(&items, NOBODY_WAITS, true, now);
            self.keep(item, now);
        }
        let report = Report::Reached {
            ticket,
            connections,
        };
        // As above.
        let _ = self.lines.push(courier, |out| out.push(&report.encode()));
    }

    /// The courier's link is gone, and with it all answers.
    pub(super) fn refuse_calls(&mut self, now: Now) {
        for (conn, ticket) in std::mem::take(&mut self.calls.waiting).into_values() {
            let answer = Answer::Refused(RefusalReason::NoCourier);
            self.give_answer(conn, ticket, answer, now);
        }
    }
}
