//! Requests of sessions that other workers hold, sent to them through the switchboard; and what
//! other workers ask about the sessions held here. Does not know how lines reach a client.

use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::worker::sessions::carrying::{answer, leaving, over_capacity, unavailable};
use crate::node::worker::sessions::holding::ENVELOPE_BYTES;
use crate::node::worker::sessions::{Carrier, Of, Receiver, Sent, What};
use crate::wire::bus::{Caller, Errand, Outcome, Up};
use crate::wire::http::Response;
use crate::wire::sockjs;

impl Worker {
    /// A request wants to receive for a session that is not here; perhaps there is none yet.
    pub(super) fn send_receive(&mut self, conn: ConnId, name: &str, poll: bool, now: Now) {
        if self.sessions.sent.len() >= self.shared.limits.questions {
            return self.reply(conn, answer(over_capacity()), now);
        }
        let carrier = Carrier::new(poll, Of::Errand(self.sessions.next_ticket));
        self.sessions.carriers.insert(conn, carrier);
        self.schedule_leave(conn, now);
        // The holder may have nothing to say for a while.
        if self.begin_carrier(conn, now) {
            let what = What::Receive {
                carrier: conn,
                have: None,
                waits: false,
            };
            self.send_errand(name, what);
        }
    }

    pub(super) fn send_post(&mut self, conn: ConnId, name: &str, messages: Vec<u8>, now: Now) {
        let limits = &self.shared.limits;
        let bytes = self.sessions.sent_bytes + messages.len();
        let too_long = messages.len() + ENVELOPE_BYTES > limits.bus_message_bytes;
        let too_many = self.sessions.sent.len() >= limits.questions;
        if too_long || too_many || bytes > limits.link_bytes {
            return self.lose_post(conn, name, now);
        }
        self.sessions.sent_bytes = bytes;
        let until = now.moment + self.sessions.patience;
        let carrier = conn;
        let ticket = self.send_errand(name, What::Post { carrier, messages });
        self.sessions.deadlines.push_back((until, ticket));
    }

    /// Nobody took it up, or nobody knows. Clients do not look at what a post is answered, so whoever
    /// holds the session has to hear of it.
    fn lose_post(&mut self, conn: ConnId, name: &str, now: Now) {
        self.reply(conn, unavailable(), now);
        let lost = |sent: &Sent| *sent.session == *name && matches!(sent.what, What::Lost);
        if !self.sessions.sent.values().any(lost) {
            self.send_errand(name, What::Lost);
        }
    }

    fn send_errand(&mut self, name: &str, what: What) -> u64 {
        let ticket = self.sessions.next_ticket;
        self.sessions.next_ticket += 1;
        let session = name.into();
        self.sessions.sent.insert(ticket, Sent { session, what });
        self.tell_errand(ticket);
        ticket
    }

    /// While the link is down this does nothing: the next one starts with all that is not answered.
    fn tell_errand(&mut self, ticket: u64) {
        let opens = self.sessions.has_room() && !self.is_leaving();
        let Some(sent) = self.sessions.sent.get(&ticket) else {
            return;
        };
        let errand = match &sent.what {
            What::Receive { waits: true, .. } => return,
            What::Receive { carrier, have, .. } => Errand::Receive {
                have: *have,
                room: self.sessions.room(*carrier),
                opens: opens && have.is_none(),
            },
            What::Post { messages, .. } => Errand::Post(messages),
            What::Lost => Errand::Lost,
        };
        let message = Up::Errand {
            ticket,
            session: &sent.session,
            errand,
        };
        let outgoing = &mut self.shared.outgoing;
        outgoing.uplink.tell(&message, &mut outgoing.lines);
    }

    /// The stream has taken what it was given.
    pub(super) fn ask_on(&mut self, ticket: u64) {
        if let Some(sent) = self.sessions.sent.get_mut(&ticket)
            && let What::Receive { waits, .. } = &mut sent.what
            && std::mem::take(waits)
        {
            self.tell_errand(ticket);
        }
    }

    /// Nobody waits for this errand any more.
    pub(super) fn release(&mut self, ticket: u64, returns: bool) {
        let Some(sent) = self.take_sent(ticket) else {
            return;
        };
        let outgoing = &mut self.shared.outgoing;
        let message = Up::Errand {
            ticket,
            session: &sent.session,
            errand: Errand::Release { returns },
        };
        outgoing.uplink.tell(&message, &mut outgoing.lines);
        // It may have become ours meanwhile.
        let is_new = matches!(sent.what, What::Receive { have: None, .. });
        if is_new && !self.sessions.by_name.contains_key(&sent.session) {
            let name = &sent.session;
            let message = Up::SessionEnded { name };
            outgoing.uplink.tell(&message, &mut outgoing.lines);
        }
    }

    fn take_sent(&mut self, ticket: u64) -> Option<Sent> {
        let sent = self.sessions.sent.remove(&ticket)?;
        if let What::Post { messages, .. } = &sent.what {
            self.sessions.sent_bytes -= messages.len();
        }
        Some(sent)
    }

    /// The link stands and all was announced: errands without an outcome go out again, in their
    /// order.
    pub(in crate::node::worker) fn send_errands_again(&mut self) {
        let tickets: Vec<u64> = self.sessions.sent.keys().copied().collect();
        for ticket in tickets {
            self.tell_errand(ticket);
        }
    }

    /// The link broke. Who received through it asks again through the next.
    pub(in crate::node::worker) fn errands_lost(&mut self, now: Now) {
        let there = |receiver| matches!(receiver, Receiver::There(_) | Receiver::Handed(_));
        let held = self.sessions.held.iter();
        let cut = held.filter(|(_, held)| there(held.receiver) && !held.ended);
        let cut: Vec<ConnId> = cut.map(|(session, _)| *session).collect();
        for session in cut {
            self.detach(session, now);
        }
    }

    /// Gives up posts that nobody answered in time.
    pub(in crate::node::worker) fn give_up_posts(&mut self, now: Now) {
        while let Some((until, ticket)) = self.sessions.deadlines.front().copied() {
            let waits = self.sessions.sent.contains_key(&ticket);
            if waits && until > now.moment {
                return;
            }
            self.sessions.deadlines.pop_front();
            if let Some(Sent { session, what }) = self.take_sent(ticket)
                && let What::Post { carrier, .. } = what
            {
                self.lose_post(carrier, &session, now);
            }
        }
    }

    /// Word from the worker that holds the session, or from the switchboard.
    pub(in crate::node::worker) fn hear_outcome(
        &mut self,
        ticket: u64,
        outcome: Outcome<'_>,
        now: Now,
    ) {
        match (
            self.sessions.sent.get(&ticket).map(|sent| &sent.what),
            outcome,
        ) {
            (None, _) => {}
            (Some(What::Receive { carrier, .. }), Outcome::Lines { .. }) => {
                let carrier = *carrier;
                self.receive_lines(ticket, carrier, outcome, now);
            }
            (Some(_), _) => {
                let Some(Sent { session, what }) = self.take_sent(ticket) else {
                    return;
                };
                match what {
                    What::Receive { carrier, .. } => {
                        self.received_nothing(carrier, &session, outcome, now);
                    }
                    What::Post { carrier, .. } => match outcome {
                        Outcome::Taken => self.reply(carrier, Response::empty(204), now),
                        Outcome::Unknown => {
                            let answer = Response::error(404, "There is no such session");
                            self.reply(carrier, answer, now);
                        }
                        _ => self.lose_post(carrier, &session, now),
                    },
                    What::Lost => {}
                }
            }
        }
        self.carry_out(now);
    }

    fn receive_lines(&mut self, ticket: u64, conn: ConnId, outcome: Outcome<'_>, now: Now) {
        let Outcome::Lines {
            number,
            lines,
            last,
        } = outcome
        else {
            return;
        };
        if let Some(sent) = self.sessions.sent.get_mut(&ticket)
            && let What::Receive { have, waits, .. } = &mut sent.what
        {
            (*have, *waits) = (Some(number), true);
        }
        if self.give_lines(conn, lines, last, now) {
            return;
        }
        // A stream that was given all it takes comes back as another.
        match last {
            true => drop(self.take_sent(ticket)),
            false => self.release(ticket, true),
        }
    }

    /// It is ours, or it is over.
    fn received_nothing(&mut self, conn: ConnId, name: &str, outcome: Outcome<'_>, now: Now) {
        match outcome {
            Outcome::Yours => self.take_session(conn, name, now),
            Outcome::Superseded => self.end_carrier(conn, &sockjs::superseded(), now),
            Outcome::Busy => self.end_carrier(conn, &over_capacity(), now),
            _ => self.end_carrier(conn, &leaving(), now),
        }
    }

    fn take_session(&mut self, conn: ConnId, name: &str, now: Now) {
        let opened = match self.sessions.has_room() && !self.is_leaving() {
            true => self.open_session(name, conn, now),
            false => None,
        };
        let Some(session) = opened else {
            let outgoing = &mut self.shared.outgoing;
            let message = Up::SessionEnded { name };
            outgoing.uplink.tell(&message, &mut outgoing.lines);
            return self.end_carrier(conn, &over_capacity(), now);
        };
        if let Some(carrier) = self.sessions.carriers.get_mut(&conn) {
            carrier.of = Of::Session(session);
        }
        self.carry(session, conn, now);
    }

    /// What another worker asks about a session held here.
    pub(in crate::node::worker) fn hear_errand(
        &mut self,
        from: Caller,
        name: &str,
        errand: Errand<'_>,
        now: Now,
    ) {
        let session = self.sessions.by_name.get(name).copied();
        let outcome = match (session, errand) {
            (None, Errand::Release { .. }) => None,
            (None, _) => Some(Outcome::Unknown),
            (Some(session), Errand::Receive { have, room, .. }) => {
                self.receive_for(session, from, (have, room as usize), now);
                None
            }
            (Some(session), Errand::Release { returns }) => {
                self.released(session, from, returns, now);
                None
            }
            (Some(session), Errand::Post(messages)) => {
                Some(self.post_for(session, from, messages, now))
            }
            (Some(session), Errand::Lost) => {
                self.shut(session, Close::Replaced, now);
                Some(Outcome::Taken)
            }
        };
        if let Some(outcome) = outcome {
            self.tell_outcome(from, name, outcome);
        }
        self.carry_out(now);
    }

    pub(super) fn tell_outcome(&mut self, to: Caller, session: &str, outcome: Outcome<'_>) {
        let outgoing = &mut self.shared.outgoing;
        let message = Up::Outcome {
            to,
            session,
            outcome,
        };
        outgoing.uplink.tell(&message, &mut outgoing.lines);
    }

    /// Lines that were handed to the same caller and did not come are put before all others.
    fn receive_for(
        &mut self,
        session: ConnId,
        from: Caller,
        (have, room): (Option<u32>, usize),
        now: Now,
    ) {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return;
        };
        match &held.unproven {
            Some((caller, lines)) if *caller == from && have != Some(held.number) => {
                held.receiver = Receiver::Handed(from);
                held.since = now.moment;
                let message = Up::Outcome {
                    to: from,
                    session: &held.name,
                    outcome: Outcome::Lines {
                        number: held.number,
                        lines,
                        last: false,
                    },
                };
                let outgoing = &mut self.shared.outgoing;
                outgoing.uplink.tell(&message, &mut outgoing.lines);
                self.arm(session);
            }
            _ => self.attach(session, Receiver::There(from), room, now),
        }
    }

    fn released(&mut self, session: ConnId, from: Caller, returns: bool, now: Now) {
        let Some(held) = self.sessions.held.get(&session) else {
            return;
        };
        let waits = [Receiver::There(from), Receiver::Handed(from)].contains(&held.receiver);
        match (waits, returns || held.ended) {
            (true, true) => self.detach(session, now),
            (true, false) => self.end(session, Close::PeerGone, now),
            (false, _) => {}
        }
    }

    /// Errands that were sent again because a link broke are taken up once.
    fn post_for(
        &mut self,
        session: ConnId,
        from: Caller,
        messages: &[u8],
        now: Now,
    ) -> Outcome<'static> {
        let Some(held) = self.sessions.held.get_mut(&session) else {
            return Outcome::Unknown;
        };
        let latest = held.posts.entry((from.slot, from.life)).or_default();
        if from.ticket <= *latest {
            return Outcome::Taken;
        }
        *latest = from.ticket;
        match self.post(session, messages.to_vec(), now) {
            true => Outcome::Taken,
            false => Outcome::Busy,
        }
    }
}
