//! How the switchboard passes calls of workers on to the courier, answers back, and live events of
//! notifications to users, over a link of its own, which stands on every server of a cluster. Does
//! not know what a call says. Invariant: every call with a ticket is answered once: by the courier, or
//! as soon as it is clear that it will not.

use std::collections::BTreeMap;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::switchboard::Switchboard;
use crate::node::switchboard::courier::{DIAL_FIRST, DIAL_LONGEST};
use crate::node::switchboard::publishing::Asker;
use crate::node::{Output, Peer};
use crate::wire::bus::{Answer, Content, InfoWanted, Item, RefusalReason};
use crate::wire::bus_codec::Garbled;
use crate::wire::courier_bus::{Receipt, Report, VERSION};
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// Calls that nobody waits for and that are kept, and the body of each; more are lost when the courier
/// dies.
const KEPT_MAX: usize = 5_000;
const KEPT_BYTES: usize = 1_024;

/// Calls that wait for the courier, and the link to it.
pub(super) struct Calls {
    link: Link,
    backoff: Backoff,
    dice: Dice,
    last: u64,
    /// Whose they are: the worker's connection and its own ticket.
    waiting: BTreeMap<u64, (ConnId, u64)>,
    /// Those that nobody waits for, as frames, until the courier has done them.
    kept: BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Without a gateway.
    Off,
    Resting(Moment),
    /// Dialled, and not ready yet.
    Coming,
    Ready(ConnId),
}

impl Calls {
    /// The tickets of two switchboards are not the same: the courier may still answer calls of the
    /// one before. The highest bit is left to others who call.
    pub fn new(gateway: bool, dice: &mut Dice, now: Now) -> Calls {
        Calls {
            link: match gateway {
                true => Link::Resting(now.moment),
                false => Link::Off,
            },
            backoff: Backoff::new(DIAL_FIRST, DIAL_LONGEST),
            dice: dice.branch(),
            last: dice.next_u64() >> 2,
            waiting: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        match self.link {
            Link::Resting(at) => Some(at),
            _ => None,
        }
    }

    fn courier(&self) -> Option<ConnId> {
        match self.link {
            Link::Ready(conn) => Some(conn),
            _ => None,
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
        let courier = self.calls.courier().filter(|courier| {
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

    /// Dials when it is time to.
    pub(super) fn gateway_due(&mut self, now: Now) {
        if let Link::Resting(at) = self.calls.link
            && at <= now.moment
        {
            self.calls.link = Link::Coming;
            self.outputs.push_back(Output::Dial(Peer::Gateway));
        }
    }

    /// The link stands.
    pub(super) fn greet_gateway(&mut self, conn: ConnId) {
        // Calls are bounded where they are taken.
        self.lines.open(conn, usize::MAX / 2);
        let hello = Report::Calls { version: VERSION };
        let _ = self.lines.push(conn, |out| out.push(&hello.encode()));
    }

    pub(super) fn hear_gateway(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Garbled> {
        match Receipt::decode(frame)? {
            Receipt::Ready => self.gateway_ready(conn),
            Receipt::Answer { ticket, answer } => self.pass_answer(ticket, answer, now),
            Receipt::Live {
                ticket,
                channels,
                name,
                data,
            } => {
                let content = Content::Event { name, data };
                self.bring_live(conn, ticket, channels, content, now);
            }
            _ => return Err(Garbled),
        }
        Ok(())
    }

    fn gateway_ready(&mut self, courier: ConnId) {
        self.calls.link = Link::Ready(courier);
        self.calls.backoff.reset();
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

    /// The link is gone, and with it all answers; or it could not be made.
    pub(super) fn lose_gateway(&mut self, now: Now) {
        let calls = &mut self.calls;
        let wait = calls.backoff.next(&mut calls.dice);
        calls.link = Link::Resting(now.moment + wait);
        for (conn, ticket) in std::mem::take(&mut self.calls.waiting).into_values() {
            let answer = Answer::Refused(RefusalReason::NoCourier);
            self.give_answer(conn, ticket, answer, now);
        }
    }
}
