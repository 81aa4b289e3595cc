//! How the switchboard passes calls of workers on to the courier, answers back, and live events of
//! notifications to users. Does not know what a call says. Invariant: every call with a ticket is
//! answered once: by the courier, or as soon as it is clear that it will not.

use std::collections::BTreeMap;

use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::publishing::Asker;
use crate::wire::bus::{Answer, Content, InfoWanted, Item, RefusalReason};
use crate::wire::courier_bus::Report;
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// Calls that nobody waits for and that are kept, and the body of each; more are lost when the courier
/// dies.
const KEPT_MAX: usize = 5_000;
const KEPT_BYTES: usize = 1_024;
/// Calls that wait for the courier.
pub(super) struct Calls {
    last: u64,
    /// Whose they are: the worker's connection and its own ticket.
    waiting: BTreeMap<u64, (ConnId, u64)>,
    /// Those that nobody waits for, as frames, until the courier has done them.
    kept: BTreeMap<u64, Vec<u8>>,
}

impl Calls {
    /// The tickets of two switchboards are not the same: the courier may still answer calls of the
    /// one before. The highest bit is left to others who call.
    pub fn new(dice: &mut Dice) -> Calls {
        Calls {
            last: dice.next_u64() >> 2,
            waiting: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}

impl Switchboard {
    /// A worker's call. One with ticket 0, for which nobody waits, is sent again when the courier died
    /// over it: it is one that may be done twice.
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
        if ticket > 0 && courier.is_none() {
            let answer = Answer::Refused(RefusalReason::NoCourier);
            return self.give_answer(conn, ticket, answer, now);
        }
        self.calls.last += 1;
        let (own, call) = (self.calls.last, call.clone());
        let short = call.body.len() <= KEPT_BYTES;
        let frame = Report::Call { ticket: own, call }.encode();
        if let Some(courier) = courier {
            // The courier's line takes whatever there is; what may wait was checked above.
            let _ = self.lines.push(courier, |out| out.push(&frame));
        }
        if ticket > 0 {
            self.calls.waiting.insert(own, (conn, ticket));
        } else if self.calls.kept.len() < KEPT_MAX && short {
            self.calls.kept.insert(own, frame);
        }
    }

    /// The courier is back.
    pub(super) fn pass_kept_calls(&mut self, courier: ConnId) {
        for frame in self.calls.kept.values() {
            let _ = self.lines.push(courier, |out| out.push(frame));
        }
    }

    /// The courier's answer to a call.
    pub(super) fn pass_answer(&mut self, ticket: u64, answer: GatewayAnswer<'_>, now: Now) {
        match self.calls.waiting.remove(&ticket) {
            Some((conn, ticket)) => {
                self.give_answer(conn, ticket, Answer::Gateway(answer), now);
            }
            None => {
                self.calls.kept.remove(&ticket);
            }
        }
    }

    /// Brings an event of a notification to the connections in these channels, like a publish. The
    /// courier is told how many there are, on all servers; or, while nobody can say or they cannot
    /// take it, nothing of any.
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
            info: InfoWanted {
                subscription_count: true,
                ..InfoWanted::default()
            },
        }];
        if self.settling.is_none() && !self.has_congested_target(courier, &items) {
            return self.publish_for(Asker::Courier(courier), ticket, &items, now);
        }
        let report = Report::Reached {
            ticket,
            connections: Vec::new(),
        };
        self.send_frame(courier, &report.encode(), now);
    }

    /// The courier's link is gone, and with it all answers.
    pub(super) fn refuse_calls(&mut self, now: Now) {
        for (conn, ticket) in std::mem::take(&mut self.calls.waiting).into_values() {
            let answer = Answer::Refused(RefusalReason::NoCourier);
            self.give_answer(conn, ticket, answer, now);
        }
    }
}
