//! The worker as `net` and the simulation drive it: what each event of a connection sets going.

use crate::app::handler::Handler;
use crate::base::bytes::Outbox;
use crate::base::close::Close;
use crate::base::counters::Counters;
use crate::base::files::{FileFacts, NoFile};
use crate::base::ids::{ConnId, DialId};
use crate::base::now::{Moment, Now};
use crate::node::worker::Worker;
use crate::node::worker::drain::Draining;
use crate::node::worker::seats::Facts;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::session::Session;
use crate::session::framed::Framed;
use crate::session::http::Http;
use crate::wire::control::Report;
use crate::wire::protocol::Protocol;
use crate::wire::target::Target;

/// A client whose outbox holds more than this is not read from until it has drained: answers to
/// what it asks do not pile up because it asks fast and reads slowly.
const UNREAD_BYTES: usize = 64 * 1024;
/// Pipelined input kept while a request is being answered.
const PIPELINED_BYTES: usize = 64 * 1024;

impl Worker {
    /// A client connected; what it is to speak is said by the listener.
    fn welcome(&mut self, conn: ConnId, facts: Facts, now: Now) {
        let found = self.listeners.get(usize::from(facts.listener));
        let (protocol, handler) = found.map_or((Protocol::Http, Handler::Channels), |found| {
            (found.protocol, found.handler)
        });
        self.shared.counters.accepted += 1;
        match protocol.framing() {
            None => {
                let mut http = Http::new(now);
                if self.draining.is_some() {
                    http.leave();
                }
                let http = Session::Http(Box::new(http));
                self.seats.open(conn, handler, http);
                self.locate(conn, facts, now);
            }
            Some(framing) => {
                let framed = Session::Framed(Framed::new(framing, now));
                self.seats.open(conn, handler, framed);
                self.shared.outgoing.lines.speak(conn, protocol);
                self.locate(conn, facts, now);
                let application = self.handlers.of(handler);
                application.connected(conn, &mut self.shared.cx(now));
                self.carry_out(now);
                self.schedule_leave(conn, now);
            }
        }
        self.arm(conn);
    }

    /// Notes where a client comes from, and tells its application.
    fn locate(&mut self, conn: ConnId, facts: Facts, now: Now) {
        let Some(seat) = self.seats.get_mut(conn) else {
            return;
        };
        seat.known = true;
        let (listener, address) = facts.place();
        seat.facts = facts;
        let application = self.handlers.of(seat.handler);
        application.located(conn, listener, address, &mut self.shared.cx(now));
    }

    /// The connection's input is at its end, and taken up.
    pub(super) fn hang_up(&mut self, conn: ConnId, now: Now) {
        let Some(seat) = self.seats.get_mut(conn) else {
            return;
        };
        match &mut seat.session {
            Session::Http(http) => {
                if http.hung_up() || self.sessions.carries(conn) {
                    self.end(conn, Close::PeerGone, now);
                }
            }
            Session::Upgrading(_) => {
                let why = "the server closed before it answered the WebSocket handshake";
                self.upgrade_failed(conn, why, now);
            }
            Session::WebSocket(_) | Session::Framed(_) | Session::Stream(_) => {
                self.end(conn, Close::PeerGone, now);
            }
            Session::Uplink | Session::Master => {
                self.outputs.push_back(Output::Close(conn, Ending::Cut));
            }
        }
        self.carry_out(now);
    }
}

impl Node for Worker {
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now) {
        let lines = &mut self.shared.outgoing.lines;
        match origin {
            Origin::Client {
                listener,
                address,
                peer,
            } => {
                lines.open(conn, self.shared.limits.outbox_bytes);
                self.welcome(conn, Facts::new(listener, address, peer, now), now);
                self.pace(conn, now);
            }
            Origin::Dialled(Peer::Switchboard) => {
                lines.open(conn, usize::MAX);
                self.seats.open(conn, Handler::Channels, Session::Uplink);
                self.greet_switchboard(conn);
            }
            Origin::Dialled(Peer::Outside(dial)) => self.take_over(conn, dial, now),
            Origin::Master => {
                lines.open(conn, usize::MAX);
                self.seats.open(conn, Handler::Channels, Session::Master);
                self.master = Some(conn);
                self.report_ready();
            }
            Origin::Link | Origin::Dialled(Peer::Courier | Peer::Gateway) => {
                self.outputs.push_back(Output::Close(conn, Ending::Cut))
            }
        }
    }

    fn arriving(&mut self, count: usize) {
        self.arriving = count;
        self.quit_if_empty();
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        if let Some(seat) = self.seats.get_mut(conn)
            && seat.session.is_foreign()
        {
            seat.facts.bytes_in += bytes.len() as u64;
            self.shared.counters.bytes_in += bytes.len() as u64;
        }
        self.take_up(conn, bytes, now);
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        let resumes = self.resumed.contains(&conn);
        match self.seats.get_mut(conn) {
            // What it sent before has not been looked at yet.
            Some(seat) if seat.waits() || resumes => seat.hung_up = true,
            _ => self.hang_up(conn, now),
        }
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        self.retire(conn, &Close::PeerGone, now);
        self.lose_carrier(conn, now);
        let session = self.seats.get(conn).map(|seat| &seat.session);
        let is_uplink = matches!(session, Some(Session::Uplink));
        // What never came to stand was not counted when it began either.
        let is_counted =
            session.is_some_and(|it| it.is_foreign() && !matches!(it, Session::Upgrading(_)));
        let undecided = self.seats.get(conn).is_some_and(|seat| !seat.counted);
        self.seats.close(conn);
        self.dialled.remove(&conn);
        if let Some(outbox) = self
            .shared
            .outgoing
            .lines
            .outbox(conn)
            .filter(|_| is_counted)
        {
            self.shared.counters.bytes_out += outbox.written();
            self.shared.counters.closed += 1;
            if undecided {
                self.shared.counters.close(&Close::PeerGone);
            }
        }
        self.shared.outgoing.lines.close(conn);
        self.shared.outgoing.deflating.close(conn);
        self.forget_file(conn);
        if is_uplink {
            self.link_lost(conn, now);
        } else if self.master == Some(conn) {
            // A worker without its master is of no use to anybody.
            self.outputs.push_back(Output::Quit);
        }
        self.carry_out(now);
        self.quit_if_empty();
    }

    fn target(&mut self, dial: DialId) -> Option<Target> {
        let found = self.shared.outgoing.dials.get_mut(dial);
        found.map(|found| found.target.clone())
    }

    fn unreachable(&mut self, peer: Peer, why: &str, now: Now) {
        match peer {
            Peer::Switchboard => self.shared.outgoing.uplink.down(&mut self.shared.dice, now),
            Peer::Courier | Peer::Gateway => {}
            Peer::Outside(dial) => {
                self.dial_failed(dial, why, now);
                self.carry_out(now);
            }
        }
    }

    fn certificates_read(&mut self, outcome: Result<(), String>) {
        if let Err(why) = &outcome {
            log::error!("the certificates in use stay: {why}");
        }
        if let Some(master) = self.master {
            self.report(master, &Report::Certificates(outcome));
        }
    }

    fn file_wanted(&mut self, conn: ConnId) -> Option<(usize, String)> {
        self.wanted_file(conn)
    }

    fn file_opened(&mut self, conn: ConnId, file: Result<FileFacts, NoFile>, now: Now) {
        self.opened_file(conn, file, now);
    }

    fn file_read(&mut self, conn: ConnId, bytes: Option<&[u8]>, now: Now) {
        self.read_file(conn, bytes, now);
    }

    fn elapsed(&mut self, now: Now) {
        let mut fired = Vec::new();
        self.wheel.expire(now.moment, &mut fired);
        for conn in fired {
            self.fired(conn, now);
        }
        for conn in self.shared.outgoing.uplink.overdue(now) {
            self.unanswered(conn, now);
        }
        self.give_up_posts(now);
        self.give_up_gathering(now);
        self.begin_pieces(now);
        self.tell_refusals(now);
        self.drain_on(now);
        self.handlers.elapsed(&mut self.shared, now);
        self.carry_out(now);
        self.dial_if_due(now);
        if self.farewell.is_some_and(|until| until <= now.moment) {
            self.quit();
        }
    }

    fn drained(&mut self, conn: ConnId, now: Now) {
        self.carrier_drained(conn, now);
        if self.shared.outgoing.lines.take_drained(conn)
            && let Some(seat) = self.seats.get(conn).filter(|seat| seat.known)
        {
            let application = self.handlers.of(seat.handler);
            application.drained(conn, &mut self.shared.cx(now));
            self.carry_out(now);
        }
    }

    fn wants_input(&self, conn: ConnId) -> bool {
        let Some(seat) = self.seats.get(conn) else {
            return false;
        };
        let outgoing = &self.shared.outgoing;
        match &seat.session {
            Session::Uplink | Session::Master | Session::Stream(_) => true,
            _ if seat.waits() => false,
            _ if outgoing.uplink.is_congested(&outgoing.lines) => false,
            // A service knows what its messages lead to and pauses whom it must. To wait here for the
            // peer to read would lock up two sides that each wait for the other to be read.
            Session::WebSocket(_) | Session::Framed(_) if seat.handler.is_service() => true,
            Session::WebSocket(_) | Session::Framed(_) | Session::Upgrading(_) => {
                outgoing.lines.waiting(conn) <= UNREAD_BYTES
            }
            Session::Http(http) => {
                let pipelined = http.is_answering() && seat.leftover.len() >= PIPELINED_BYTES;
                !pipelined && outgoing.lines.waiting(conn) <= UNREAD_BYTES
            }
        }
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.shared.outgoing.lines.outbox(conn)
    }

    fn poll_output(&mut self, now: Now) -> Option<Output> {
        while let Some(conn) = self.resumed.pop() {
            self.resume(conn, now);
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(conn) = self.shared.outgoing.lines.next_prompt() {
            if !conn.is_socketless() {
                return Some(Output::Flush(conn));
            }
            self.pump(conn, now);
        }
        // Handing lines over may have asked for something.
        let output = self.outputs.pop_front();
        output.or_else(|| self.next_piece(now))
    }

    fn poll_fan_out(&mut self, now: Now) -> Option<Output> {
        while let Some(conn) = self.shared.outgoing.lines.next_bulk() {
            if !conn.is_socketless() {
                return Some(Output::Flush(conn));
            }
            self.pump(conn, now);
            let output = self.poll_output(now);
            if output.is_some() {
                return output;
            }
        }
        None
    }

    fn fan_out_left(&self) -> usize {
        self.shared.outgoing.lines.bulk()
    }

    fn deadline(&self) -> Option<Moment> {
        let uplink = self.shared.outgoing.uplink.deadline();
        let draining = self.draining.as_ref().and_then(Draining::deadline);
        let gathering = self.gathering.deadline;
        let dials = self.shared.outgoing.dials.deadline();
        let services = self.handlers.deadline();
        [
            self.wheel.deadline(),
            self.sessions.deadline(),
            uplink,
            self.farewell,
            draining,
            gathering,
            self.sending.deadline,
            dials,
            services,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.shared.counters
    }
}
