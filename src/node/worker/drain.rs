//! How a worker is emptied before it ends: everybody is told to go, spread evenly over a window,
//! so that those who come back do not all come at once. Does not know who takes over. Invariants:
//! nobody is taken in any more; an answer that is owed is given first; whoever reconnects at once
//! is never reported as away.

use std::collections::VecDeque;
use std::time::Duration;

use crate::app::application::Application;
use crate::app::handler::Handler;
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::Output;
use crate::node::worker::Worker;
use crate::realtime::hub::Left;
use crate::session::Session;
use crate::wire::bus::Up;

/// How long the switchboard is not told that a client we sent away has left: the time to reconnect
/// and to fetch a signature.
const GRACE: Duration = Duration::from_secs(3);
/// Beyond the window: for the last Close frames to be answered and for the grace.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(6);
/// Who becomes a WebSocket meanwhile may have missed its turn and gets another within this.
const LATE_TURN: Duration = Duration::from_secs(1);

/// See the file's head.
pub(super) struct Draining {
    /// Then the rest is stopped.
    until: Moment,
    /// Whose turn comes when, in order.
    turns: VecDeque<(Moment, ConnId)>,
    /// What is still to be told of those who were sent away, in order.
    partings: VecDeque<(Moment, Left)>,
}

impl Draining {
    pub(super) fn deadline(&self) -> Option<Moment> {
        let turn = self.turns.front().map(|(at, _)| *at);
        let parting = self.partings.front().map(|(at, _)| *at);
        [turn, parting, Some(self.until)]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Worker {
    /// Begins. A second order while one is carried out changes nothing.
    pub(super) fn drain(&mut self, window: Duration, now: Now) {
        if self.farewell.is_some() || self.draining.is_some() {
            return;
        }
        self.outputs.push_back(Output::StopAccepting);
        self.tell_services(Application::draining, now);
        let mut clients: Vec<ConnId> = Vec::new();
        for conn in self.seats.ids() {
            match self.seats.get_mut(conn).map(|seat| &mut seat.session) {
                Some(Session::Uplink | Session::Master) | None => {}
                Some(Session::Http(http)) => {
                    http.leave();
                    clients.push(conn);
                }
                Some(_) => clients.push(conn),
            }
        }
        self.draining = Some(Draining {
            until: now.moment + window + DRAIN_PATIENCE,
            turns: self.turns(clients, window, now),
            partings: VecDeque::new(),
        });
        self.give_up_dials(now);
        self.drain_on(now);
    }

    /// In random order, so that the oldest do not always go first; each somewhere in its own even
    /// share of the window.
    fn turns(
        &mut self,
        mut clients: Vec<ConnId>,
        window: Duration,
        now: Now,
    ) -> VecDeque<(Moment, ConnId)> {
        let dice = &mut self.shared.dice;
        for index in (1..clients.len()).rev() {
            clients.swap(index, dice.below(index as u64 + 1) as usize);
        }
        let count = clients.len() as u64;
        let window = window.as_micros() as u64;
        let turns = clients.into_iter().enumerate().map(|(index, conn)| {
            let begin = window * index as u64 / count;
            let end = window * (index as u64 + 1) / count;
            let at = begin + dice.below((end - begin).max(1));
            (now.moment + Duration::from_micros(at), conn)
        });
        turns.collect()
    }

    /// Does what is due.
    pub(super) fn drain_on(&mut self, now: Now) {
        while let Some(draining) = &mut self.draining
            && let Some(conn) = pop_due(&mut draining.turns, now)
        {
            self.send_away(conn, now);
        }
        while let Some(draining) = &mut self.draining
            && let Some(left) = pop_due(&mut draining.partings, now)
        {
            self.tell_left(&left);
        }
        let over = |draining: &Draining| draining.until <= now.moment;
        if self.farewell.is_none() && self.draining.as_ref().is_some_and(over) {
            self.stop(now);
        }
        self.quit_if_empty();
    }

    fn send_away(&mut self, conn: ConnId, now: Now) {
        let Some(seat) = self.seats.get(conn) else {
            return;
        };
        let handler = seat.handler;
        match &seat.session {
            _ if self.sessions.carries(conn) => self.send_carrier_away(conn, now),
            // Its next answer is the last; one that rests may not come at all.
            Session::Http(http) if http.is_resting() => self.end(conn, Close::Done, now),
            Session::Http(_) | Session::Uplink | Session::Master => {}
            _ if self.dialled.contains_key(&conn) => self.shut(conn, Close::GoingAway, now),
            _ if handler == Handler::Channels => self.shut(conn, Close::Replaced, now),
            _ => self.shut(conn, Close::GoingAway, now),
        }
    }

    /// Somebody became a WebSocket while we drain.
    pub(super) fn schedule_leave(&mut self, conn: ConnId, now: Now) {
        let Some(draining) = &mut self.draining else {
            return;
        };
        let wait = self.shared.dice.below(LATE_TURN.as_micros() as u64);
        let at = now.moment + Duration::from_micros(wait);
        let place = draining.turns.partition_point(|(other, _)| *other <= at);
        draining.turns.insert(place, (at, conn));
    }

    /// The connection's subscriptions end here. While we drain, the switchboard hears of it a
    /// little later: a user who comes back through another worker was never away.
    pub(super) fn part(&mut self, conn: ConnId, now: Now) {
        let graceful = self.farewell.is_none();
        let Some(draining) = self.draining.as_mut().filter(|_| graceful) else {
            return self.shared.cx(now).unsubscribe_all(conn);
        };
        let at = now.moment + GRACE;
        let left = self.shared.hub.unsubscribe_all(conn);
        // While the link is down nobody is to be told: the next one starts without them.
        if self.shared.outgoing.uplink.conn().is_some() {
            let partings = left.into_iter().map(|left| (at, left));
            draining.partings.extend(partings);
        }
    }

    /// The link broke: the next one starts with what we hold, without those who have left.
    pub(super) fn forget_partings(&mut self) {
        if let Some(draining) = &mut self.draining {
            draining.partings.clear();
        }
    }

    /// Nothing new is begun.
    pub(super) fn is_leaving(&self) -> bool {
        self.draining.is_some() || self.farewell.is_some()
    }

    pub(super) fn is_drained(&self) -> bool {
        let done = |it: &Draining| it.partings.is_empty();
        self.draining.as_ref().is_some_and(done)
    }

    fn tell_left(&mut self, left: &Left) {
        let message = Up::Unsubscribe {
            channel: left.key.as_str(),
            user_id: left.user_id.as_deref(),
        };
        let outgoing = &mut self.shared.outgoing;
        outgoing.uplink.tell(&message, &mut outgoing.lines);
    }
}

fn pop_due<T>(queue: &mut VecDeque<(Moment, T)>, now: Now) -> Option<T> {
    let (at, _) = queue.front()?;
    if *at > now.moment {
        return None;
    }
    queue.pop_front().map(|(_, what)| what)
}
