//! What the switchboard does with each message of a settled worker: subscriptions, questions. Events
//! are the matter of `publishing`.

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::Switchboard;
use crate::realtime::registry::LinkId;
use crate::wire::bus::{
    Answer, Down, Item, Member, Outcome, Question, Recover, RefusalReason, Terms, Up,
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
                let holder = user_id;
                let user_id = user_id.filter(|_| left);
                if let Some(user_id) = user_id {
                    self.tell_member_removed(channel, user_id, now);
                }
                self.tell_occupancy(channel, was_occupied, now);
                self.report_left(channel, user_id, now);
                self.mark(channel, holder);
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
                    self.mark(user, None);
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
        self.mark(channel, member.map(|member| member.user_id));
        let newcomer = member.filter(|_| joined.first_of_user);
        self.tell_miss(channel, now);
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

    pub(super) fn refuse(
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
        if let Question::Gateway(call) = question {
            return self.pass_call(conn, ticket, call, now);
        }
        if !self.ask_afar(conn, ticket, question, now) {
            self.answer_here(conn, ticket, question, now);
        }
    }

    /// By what this server knows.
    pub(super) fn answer_here(
        &mut self,
        conn: ConnId,
        ticket: u64,
        question: &Question<'_>,
        now: Now,
    ) {
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
                joined: self.cluster.as_ref().map(|it| it.is_joined()),
            },
            Question::History {
                channel,
                after,
                count,
            } => self.past(channel, *after, *count as usize, now),
            Question::Gateway(_) => Answer::Refused(RefusalReason::NoCourier),
        };
        let frame = self.answer_frame(ticket, answer);
        self.send_frame(conn, &frame, now);
    }

    pub(super) fn give_answer(&mut self, conn: ConnId, ticket: u64, answer: Answer<'_>, now: Now) {
        let frame = self.answer_frame(ticket, answer);
        self.send_frame(conn, &frame, now);
    }

    fn answer_frame(&self, ticket: u64, answer: Answer<'_>) -> Vec<u8> {
        let mut frame = Down::Answer { ticket, answer }.encode();
        if frame.len() > self.limits.bus_message_bytes {
            let answer = Answer::Refused(RefusalReason::TooLong);
            frame = Down::Answer { ticket, answer }.encode();
        }
        frame
    }
}
