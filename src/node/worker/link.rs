//! The worker's conversations with the switchboard and the master: what it tells them, what they
//! tell it, and the fan-out of what was delivered.

use crate::app::application::{Kept, Message, Outlet, Parcel, Unavailable};
use crate::app::users;
use crate::base::bytes::Inbox;
use crate::base::close::Close;
use crate::base::ids::{ConnId, SocketId};
use crate::base::names::ChannelKey;
use crate::base::now::Now;
use crate::node::lines::Urgency;
use crate::node::worker::Worker;
use crate::node::{Ending, Output};
use crate::session::link::next_frame;
use crate::wire::bus::{Beginning, Content, Down, Item, Member, Position, Up};
use crate::wire::control::{Order, Report};
use crate::wire::pusher;

/// Why the connections of a user are closed when the app's backend asks for it.
const DISMISSED: &str = "Connections of this user were terminated";

/// In one message, which is far from `limits.bus_message_bytes` then.
const WATCHED_AT_ONCE: usize = 256;

/// A message for more than these waits until everybody else has got what is theirs.
const FEW: usize = 64;

fn urgency(subscribers: usize) -> Urgency {
    match subscribers > FEW {
        true => Urgency::Bulk,
        false => Urgency::Prompt,
    }
}

impl Worker {
    /// The link stands: says who we are and everything we hold, then asks again what was not
    /// answered.
    pub(super) fn greet_switchboard(&mut self, conn: ConnId) {
        let outgoing = &mut self.shared.outgoing;
        let (uplink, lines) = (&mut outgoing.uplink, &mut outgoing.lines);
        uplink.open(conn, lines);
        let hub = &self.shared.hub;
        hub.announce(|holding| uplink.tell(&Up::Announce(holding), lines));
        for names in self.sessions.names() {
            uplink.tell(&Up::Sessions { names }, lines);
        }
        uplink.tell(&Up::Announced, lines);
        hub.pending(|ticket, key, member, recover| {
            uplink.tell(
                &Up::Subscribe {
                    ticket,
                    channel: key.as_str(),
                    member,
                    recover,
                },
                lines,
            );
        });
        let watched: Vec<&str> = hub.watchlists.users().map(ChannelKey::as_str).collect();
        for users in watched.chunks(WATCHED_AT_ONCE) {
            let users = users.to_vec();
            uplink.tell(&Up::Watch { users }, lines);
        }
        self.send_errands_again();
    }

    /// Whoever waits for an answer gets none.
    pub(super) fn link_lost(&mut self, conn: ConnId, now: Now) {
        if self.shared.outgoing.uplink.conn() != Some(conn) {
            return;
        }
        log::warn!("the link to the switchboard broke");
        self.shared.outgoing.uplink.down(&mut self.shared.dice, now);
        self.forget_partings();
        self.errands_lost(now);
        for asker in self.shared.outgoing.uplink.give_up() {
            self.unanswered(asker, now);
        }
        self.dial_if_due(now);
    }

    pub(super) fn unanswered(&mut self, conn: ConnId, now: Now) {
        if let Some(seat) = self.seats.get(conn).filter(|seat| seat.known) {
            let application = self.handlers.of(seat.handler);
            application.answered(conn, Err(Unavailable), &mut self.shared.cx(now));
        }
    }

    pub(super) fn report_ready(&mut self) {
        let ready = self.ready || self.shared.outgoing.uplink.is_open();
        if let Some(master) = self.master.filter(|_| ready && !self.ready) {
            self.ready = true;
            self.report(master, &Report::Ready);
        }
    }

    pub(super) fn report(&mut self, master: ConnId, report: &Report) {
        let frame = report.encode();
        let pushed = self
            .shared
            .outgoing
            .lines
            .push(master, |out| out.push(&frame));
        debug_assert!(pushed.is_ok(), "reports are few");
    }

    /// One frame of the master; whether there may be another.
    pub(super) fn step_master(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) -> bool {
        let frame = next_frame(inbox, self.shared.limits.bus_message_bytes);
        let order = match frame {
            Ok(None) => return false,
            Ok(Some(frame)) => Order::decode(frame),
            Err(garbled) => Err(garbled),
        };
        match order {
            Ok(Order::Ask) => {
                let values = self.stats().values();
                self.report(conn, &Report::Stats(values));
            }
            Ok(Order::Stop) => self.stop(now),
            Ok(Order::Drain { window }) => self.drain(window, now),
            Ok(Order::Beat) => self.report(conn, &Report::Beat),
            Ok(Order::List(wanted)) => {
                let report = self.list(&wanted, now);
                self.report(conn, &report);
            }
            Ok(Order::Close { conn: id }) => {
                let found = self.close_one(ConnId::from_u64(id), now);
                self.report(conn, &Report::Closed(found));
            }
            Ok(Order::Gathered(numbers)) => self.gathered(&numbers, now),
            Ok(Order::ReadCertificates) => self.outputs.push_back(Output::ReadCertificates),
            // The courier's.
            Ok(Order::Call(_)) => {}
            Err(_) => self.outputs.push_back(Output::Quit),
        }
        true
    }

    /// One frame of the switchboard; whether there may be another.
    pub(super) fn step_uplink(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) -> bool {
        let frame = next_frame(inbox, self.shared.limits.bus_message_bytes);
        let message = match frame {
            Ok(None) => return false,
            Ok(Some(frame)) => Down::decode(frame),
            Err(garbled) => Err(garbled),
        };
        match message {
            Ok(message) => {
                self.hear(message, now);
                true
            }
            Err(_) => {
                log::error!("the switchboard sent what is no message; the link starts over");
                self.outputs.push_back(Output::Close(conn, Ending::Cut));
                false
            }
        }
    }

    fn hear(&mut self, message: Down<'_>, now: Now) {
        match message {
            Down::Welcome => {
                self.shared.outgoing.uplink.welcomed();
                self.report_ready();
            }
            Down::Subscribed {
                ticket,
                channel,
                roster,
                cached,
                beginning,
            } => {
                let confirmed = self.confirm((ticket, channel), roster.as_deref(), &beginning);
                if let Some((conn, key)) = confirmed
                    && let Some(seat) = self.seats.get(conn)
                {
                    let application = self.handlers.of(seat.handler);
                    let last = cached;
                    let kept = Kept { last, beginning };
                    application.subscribed(conn, &key, &kept, &mut self.shared.cx(now));
                }
            }
            Down::Refused { ticket, reason, .. } => {
                if let Some((conn, key)) = self.shared.hub.refuse(ticket)
                    && let Some(seat) = self.seats.get(conn)
                {
                    let application = self.handlers.of(seat.handler);
                    application.refused(conn, &key, reason, &mut self.shared.cx(now));
                }
            }
            Down::Deliver { item, positions } => self.fan_out(&item, &positions),
            Down::MemberAdded { channel, member } => self.member_added(channel, member),
            Down::MemberRemoved { channel, user_id } => self.member_removed(channel, user_id),
            Down::Roster { channel, members } => self.correct_roster(channel, &members),
            Down::Answer { ticket, answer } => {
                let asker = self.shared.outgoing.uplink.answered(ticket);
                if let Some(conn) = asker
                    && let Some(seat) = self.seats.get(conn).filter(|seat| seat.known)
                {
                    let application = self.handlers.of(seat.handler);
                    application.answered(conn, Ok(answer), &mut self.shared.cx(now));
                }
            }
            Down::Undelivered { sender } => self.tell_undelivered(sender, now),
            Down::Counted {
                channel,
                subscriptions,
            } => self.told_count(channel, subscriptions),
            Down::Standings { users } => self.told_standings(&users, now),
            Down::Errand {
                from,
                session,
                errand,
            } => self.hear_errand(from, session, errand, now),
            Down::Outcome { ticket, outcome } => self.hear_outcome(ticket, outcome, now),
        }
    }

    /// Whose subscription that was; `None` when the connection has left.
    fn confirm(
        &mut self,
        (ticket, channel): (u64, &str),
        roster: Option<&[Member<'_>]>,
        beginning: &Option<Beginning<'_>>,
    ) -> Option<(ConnId, ChannelKey)> {
        let hub = &mut self.shared.hub;
        if let Some(beginning) = beginning {
            hub.sent(channel, beginning.position);
        }
        hub.confirm(ticket, channel, roster)
    }

    fn tell_undelivered(&mut self, sender: SocketId, now: Now) {
        if let Some(conn) = self.shared.hub.find(sender)
            && let Some(seat) = self.seats.get(conn).filter(|seat| seat.known)
        {
            let application = self.handlers.of(seat.handler);
            application.undelivered(conn, &mut self.shared.cx(now));
        }
    }

    fn told_count(&mut self, key: &str, subscriptions: u64) {
        let news = self.shared.hub.count(key, subscriptions);
        if let Some((_, channel)) = key.split_once('/').filter(|_| news) {
            let text = pusher::subscription_count(channel, subscriptions);
            self.tell_subscribers(key, &text);
        }
    }

    fn told_standings(&mut self, standings: &[(&str, bool)], now: Now) {
        let told = self.shared.hub.watchlists.learn(standings);
        for (conn, changes) in told {
            users::tell_changes(conn, &changes, &mut self.shared.cx(now));
        }
    }

    /// Encodes once per channel and queues for every confirmed subscriber but the sender.
    fn fan_out(&mut self, item: &Item<'_>, positions: &[Option<Position>]) {
        let shared = &mut self.shared;
        let excluded = item
            .exclude
            .and_then(|socket_id| shared.hub.find(socket_id));
        for (place, key) in item.channels.iter().enumerate() {
            let position = positions.get(place).copied().flatten();
            if let Some(position) = position {
                shared.hub.sent(key, position);
            }
            let subscribers = shared.hub.subscribers(key);
            let Some((_, channel)) = key.split_once('/').filter(|_| !subscribers.is_empty()) else {
                continue;
            };
            let text;
            let parcel = match item.content {
                Content::Event { name, data } => {
                    text = pusher::event_at(channel, name, data, item.user_id, position);
                    Parcel::text(&text)
                }
                Content::Text(text) => Parcel::text(text),
                Content::Binary(bytes) => Parcel::new(Message::Binary(bytes)),
                Content::Dismissal => {
                    for conn in subscribers {
                        shared.outgoing.close(*conn, Close::Unauthorised(DISMISSED));
                    }
                    continue;
                }
            };
            let urgency = urgency(subscribers.len());
            for conn in subscribers.iter().filter(|conn| Some(**conn) != excluded) {
                shared.outgoing.broadcast(*conn, &parcel, urgency);
                shared.counters.deliveries += 1;
            }
        }
    }

    fn member_added(&mut self, key: &str, member: Member<'_>) {
        let added = self
            .shared
            .hub
            .roster_mut(key)
            .is_some_and(|roster| roster.add(member));
        if let Some((_, channel)) = key.split_once('/').filter(|_| added) {
            self.tell_subscribers(key, &pusher::member_added(channel, member));
        }
    }

    fn member_removed(&mut self, key: &str, user_id: &str) {
        let removed = self
            .shared
            .hub
            .roster_mut(key)
            .is_some_and(|roster| roster.remove(user_id));
        if let Some((_, channel)) = key.split_once('/').filter(|_| removed) {
            self.tell_subscribers(key, &pusher::member_removed(channel, user_id));
        }
    }

    /// A switchboard that has just come to know the truth tells it; the difference to what our
    /// clients were told is told now.
    fn correct_roster(&mut self, key: &str, members: &[Member<'_>]) {
        let Some(roster) = self.shared.hub.roster_mut(key) else {
            return;
        };
        let change = roster.replace(members);
        let Some(key) = ChannelKey::parse(key) else {
            return;
        };
        for user_id in &change.removed {
            let text = pusher::member_removed(key.channel(), user_id);
            self.tell_subscribers(key.as_str(), &text);
        }
        for (user_id, user_info) in &change.added {
            let text = pusher::member_added(key.channel(), Member { user_id, user_info });
            self.tell_subscribers(key.as_str(), &text);
        }
    }

    fn tell_subscribers(&mut self, key: &str, text: &str) {
        let shared = &mut self.shared;
        let parcel = Parcel::text(text);
        let subscribers = shared.hub.subscribers(key);
        let urgency = urgency(subscribers.len());
        for conn in subscribers {
            shared.outgoing.queue(*conn, &parcel, urgency);
        }
    }
}
