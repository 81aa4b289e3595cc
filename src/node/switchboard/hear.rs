//! What the switchboard does with each message of a settled worker: subscriptions, events,
//! questions.

use crate::base::ids::ConnId;
use crate::base::names::is_cache;
use crate::base::now::Now;
use crate::node::switchboard::{Switchboard, Unanswered};
use crate::realtime::registry::LinkId;
use crate::wire::bus::{
    Answer, Content, Down, Item, Member, Outcome, Position, Question, Recover, RefusalReason,
    Terms, Up,
};

impl Switchboard {
    pub(super) fn hear(&mut self, conn: ConnId, id: LinkId, message: Up<'_>, now: Now) {
        match message {
            Up::Subscribe {
                ticket,
                channel,
                member,
                recover,
            } => {
                self.subscribe(conn, id, (ticket, channel), (member, recover), now);
            }
            Up::Unsubscribe { channel, user_id } => {
                let was_occupied = self.registry.is_occupied(channel);
                let left = self.registry.unsubscribe(id, channel, user_id);
                let user_id = user_id.filter(|_| left);
                if let Some(user_id) = user_id {
                    self.tell_member_removed(channel, user_id, now);
                }
                self.tell_occupancy(channel, was_occupied, now);
                self.report_left(channel, user_id, now);
            }
            Up::Publish {
                ticket,
                terms,
                items,
            } => match self.agree(conn, &terms, &items, now) {
                Ok(()) => self.publish(conn, ticket, &items, now),
                Err(reason) => self.refuse(conn, ticket, &items, reason, now),
            },
            Up::Ask { ticket, question } => self.answer(conn, ticket, &question, now),
            Up::Watch { users } => self.watch(conn, id, &users, now),
            Up::Unwatch { users } => {
                for user in users {
                    self.watching.unwatch(id, user);
                }
            }
            Up::SessionEnded { name } => self.sessions.end(name, id),
            Up::Errand {
                ticket,
                session,
                errand,
            } => self.pass_errand((conn, id), (ticket, session), errand, now),
            Up::Outcome {
                to,
                session,
                outcome,
            } => self.pass_outcome(to, session, outcome, now),
            // A worker greets and announces once per link.
            Up::Hello { .. } | Up::Announce(_) | Up::Announced | Up::Sessions { .. } => {}
        }
    }

    fn subscribe(
        &mut self,
        conn: ConnId,
        id: LinkId,
        (ticket, channel): (u64, &str),
        (member, recover): (Option<Member<'_>>, Option<Recover>),
        now: Now,
    ) {
        let was_occupied = self.registry.is_occupied(channel);
        let Ok(joined) = self.registry.subscribe(id, channel, member) else {
            let reason = RefusalReason::Full;
            return self.refuse_subscription(conn, ticket, channel, reason, now);
        };
        if let Some(member) = member.filter(|_| joined.first_of_user) {
            // A link that is new to the channel gets the newcomer with the roster.
            self.tell_links(
                channel,
                joined.first_of_link.then_some(id),
                now,
                |channel| Down::MemberAdded { channel, member },
            );
        }
        let wants_roster = member.is_some() && joined.first_of_link;
        let roster = self.registry.members(channel).filter(|_| wants_roster);
        let roster = roster.map(|members| members.iter().collect());
        let frame = Down::Subscribed {
            ticket,
            channel,
            roster,
            cached: self.cache.get(channel, now.moment),
            beginning: self.beginning(conn, channel, recover, now),
        }
        .encode();
        self.send_frame(conn, &frame, now);
        // After it, so that the newcomer is told too.
        self.tell_occupancy(channel, was_occupied, now);
        let newcomer = member.filter(|_| joined.first_of_user);
        self.report_joined(channel, newcomer.map(|member| member.user_id), now);
    }

    /// Whether the events may be published. What cannot be delivered does not count against a rate,
    /// and a request that was refused may be made again.
    fn agree(
        &mut self,
        conn: ConnId,
        terms: &Terms,
        items: &[Item<'_>],
        now: Now,
    ) -> Result<(), RefusalReason> {
        if self.has_congested_target(conn, items) {
            return Err(RefusalReason::Congested);
        }
        if let Some(once) = &terms.once {
            self.replays.check(once, now.unix_seconds())?;
        }
        if !self.spending.spend(&terms.rates, items.len(), now.moment) {
            return Err(RefusalReason::TooOften);
        }
        if let Some(once) = &terms.once {
            self.replays.remember(once);
        }
        Ok(())
    }

    /// All events of the call, or none.
    fn publish(&mut self, conn: ConnId, ticket: u64, items: &[Item<'_>], now: Now) {
        let mut marks: Vec<(ConnId, u64)> = Vec::new();
        let mut counts = Vec::new();
        for item in items {
            let positions = self.remember(item, now);
            if item.info.any() {
                counts.extend(item.channels.iter().enumerate().map(|(index, channel)| {
                    let position = positions.get(index).copied().flatten();
                    (self.registry.counts(channel), position)
                }));
            }
            self.deliver(item, &positions, &mut marks, now);
        }
        // Clients publish without a ticket, and what they say is not kept (Pusher: events that
        // were triggered through the HTTP API only).
        if ticket == 0 {
            return self.report_client_events(items);
        }
        items.iter().for_each(|item| self.keep(item, now));
        let frame = Down::Answer {
            ticket,
            answer: Answer::Published(counts),
        }
        .encode();
        // What goes over the asker's own link stays ahead of the answer by itself.
        marks.retain(|(target, _)| *target != conn);
        if marks.is_empty() {
            self.send_frame(conn, &frame, now);
        } else {
            self.unanswered.push_back(Unanswered {
                asker: conn,
                ticket,
                frame,
                marks,
            });
        }
    }

    /// Keeps the event for those who subscribe to its cache channels later.
    fn keep(&mut self, item: &Item<'_>, now: Now) {
        let Content::Event { name, data } = item.content else {
            return;
        };
        for key in &item.channels {
            if key.split_once('/').is_some_and(|(_, it)| is_cache(it)) {
                self.cache.put(key, name, data, now.moment);
            }
        }
    }

    /// Queues an event on every link with subscribers, each channel with the links it needs.
    fn deliver(
        &mut self,
        item: &Item<'_>,
        positions: &[Option<Position>],
        marks: &mut Vec<(ConnId, u64)>,
        now: Now,
    ) {
        for (conn, places) in self.targets(item) {
            let part = Item {
                channels: places.iter().map(|place| item.channels[*place]).collect(),
                info: Default::default(),
                ..item.clone()
            };
            let positions = match positions {
                [] => Vec::new(),
                _ => places.iter().map(|place| positions[*place]).collect(),
            };
            let item = part;
            self.send(conn, &Down::Deliver { item, positions }, now);
            let Some(position) = self.lines.outbox(conn).map(|out| out.position()) else {
                continue;
            };
            match marks.iter_mut().find(|(target, _)| *target == conn) {
                Some((_, mark)) => *mark = position,
                None => marks.push((conn, position)),
            }
        }
    }

    /// The links with subscribers, and of which of the event's channels by their place in it.
    fn targets(&self, item: &Item<'_>) -> Vec<(ConnId, Vec<usize>)> {
        let mut targets: Vec<(ConnId, Vec<usize>)> = Vec::new();
        for (place, channel) in item.channels.iter().enumerate() {
            for conn in self
                .registry
                .interested(channel)
                .filter_map(|id| self.by_id.get(&id))
            {
                match targets.iter_mut().find(|(target, _)| target == conn) {
                    Some((_, places)) => places.push(place),
                    None => targets.push((*conn, vec![place])),
                }
            }
        }
        targets
    }

    /// Whether some link could not take all events of the call within its bound.
    fn has_congested_target(&self, asker: ConnId, items: &[Item<'_>]) -> bool {
        let bytes: usize = items.iter().map(item_bytes).sum();
        let mut targets = items.iter().flat_map(|item| self.targets(item));
        let full = |conn| self.lines.waiting(conn) + bytes > self.limits.link_bytes;
        self.unanswered.len() >= self.limits.held_messages
            || full(asker)
            || targets.any(|(conn, _)| full(conn))
    }

    fn refuse_subscription(
        &mut self,
        conn: ConnId,
        ticket: u64,
        channel: &str,
        reason: RefusalReason,
        now: Now,
    ) {
        let refused = Down::Refused {
            ticket,
            channel,
            reason,
        };
        self.send(conn, &refused, now);
    }

    /// Too much is held already: says so instead of keeping this as well.
    pub(super) fn turn_away(&mut self, conn: ConnId, message: &Up<'_>, now: Now) {
        let reason = RefusalReason::Settling;
        match message {
            Up::Subscribe {
                ticket, channel, ..
            } => {
                self.refuse_subscription(conn, *ticket, channel, reason, now);
            }
            Up::Publish { ticket, items, .. } => self.refuse(conn, *ticket, items, reason, now),
            Up::Ask { ticket, .. } => {
                let answer = Answer::Refused(reason);
                self.send(
                    conn,
                    &Down::Answer {
                        ticket: *ticket,
                        answer,
                    },
                    now,
                );
            }
            Up::Errand { ticket, .. } => {
                let (ticket, outcome) = (*ticket, Outcome::Busy);
                self.send(conn, &Down::Outcome { ticket, outcome }, now);
            }
            Up::Hello { .. }
            | Up::Announce(_)
            | Up::Announced
            | Up::Sessions { .. }
            | Up::SessionEnded { .. }
            | Up::Outcome { .. }
            | Up::Unsubscribe { .. }
            | Up::Watch { .. }
            | Up::Unwatch { .. } => {}
        }
    }

    fn refuse(
        &mut self,
        conn: ConnId,
        ticket: u64,
        items: &[Item<'_>],
        reason: RefusalReason,
        now: Now,
    ) {
        if ticket > 0 {
            let answer = Answer::Refused(reason);
            self.send(conn, &Down::Answer { ticket, answer }, now);
        } else if let Some(sender) = items.first().and_then(|item| item.exclude) {
            self.send(conn, &Down::Undelivered { sender }, now);
        }
    }

    fn answer(&mut self, conn: ConnId, ticket: u64, question: &Question<'_>, now: Now) {
        let answer = match question {
            Question::Channels { app_id, prefix } => {
                Answer::Channels(self.registry.list(app_id, prefix))
            }
            Question::Channel { channel } => Answer::Channel {
                counts: self.registry.counts(channel),
                cached: self.cache.get(channel, now.moment),
            },
            Question::Users { channel } => {
                let members = self.registry.members(channel);
                Answer::Users(
                    members
                        .iter()
                        .flat_map(|m| m.iter())
                        .map(|m| m.user_id)
                        .collect(),
                )
            }
            Question::Ready => Answer::Ready {
                linked: self.announced(),
                expected: self.links_expected,
            },
            Question::History {
                channel,
                after,
                count,
            } => self.past(channel, *after, *count as usize, now),
        };
        let mut frame = Down::Answer { ticket, answer }.encode();
        if frame.len() > self.limits.bus_message_bytes {
            let answer = Answer::Refused(RefusalReason::TooLong);
            frame = Down::Answer { ticket, answer }.encode();
        }
        self.send_frame(conn, &frame, now);
    }
}

/// At least what the event takes on a link.
fn item_bytes(item: &Item<'_>) -> usize {
    let channels: usize = item.channels.iter().map(|channel| channel.len() + 21).sum();
    channels + item.content.len() + item.user_id.map_or(0, str::len) + 64
}
