//! The worker role: clients on one side, the switchboard and the master on the other. It moves
//! bytes from connections through their sessions to the applications, carries out what those wish,
//! and fans out what the switchboard delivers (`worker_link.rs`).
//!
//! Invariant: after every call, each wish has been carried out, each connection with bytes to
//! write is on the dirty list, and each with a deadline is on the wheel.

use std::collections::VecDeque;
use std::time::Duration;

use crate::app::application::{Application, Cx, Message};
use crate::app::apps::Apps;
use crate::app::channels::Channels;
use crate::app::echo::Echo;
use crate::app::handler::Handler;
use crate::base::bytes::{Inbox, Outbox};
use crate::base::close::Close;
use crate::base::counters::Counters;
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::base::wheel::Wheel;
use crate::node::lines::Lines;
use crate::node::outgoing::{Outgoing, Wish};
use crate::node::seats::Seats;
use crate::node::uplink::Uplink;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::realtime::hub::Hub;
use crate::session::Session;
use crate::session::http::{AfterAnswer, Http, HttpStep};
use crate::session::websocket::{Shut, WebSocket, WebSocketOptions, WebSocketStep};

/// A client whose outbox holds more than this is not read from until it has drained: answers to
/// what it asks do not pile up because it asks fast and reads slowly.
const UNREAD_BYTES: usize = 64 * 1024;
/// Pipelined input kept while a request is being answered.
const PIPELINED_BYTES: usize = 64 * 1024;
/// How long connections get to take their Close frames when the worker stops.
const FAREWELL: Duration = Duration::from_millis(500);
/// A client checks its connection after `activity_seconds`; we do so this much later, so that
/// usually it is the client's ping that settles it.
const PING_AFTER_CLIENT: Duration = Duration::from_secs(10);

/// What a worker's reactor is made of.
pub struct WorkerOptions {
    /// Its place among all reactors of the server.
    pub slot: u32,
    /// By listener.
    pub handlers: Vec<Handler>,
    pub apps: Apps,
    /// Served at `/` by `channels` listeners.
    pub demo_page: Option<&'static str>,
    pub limits: Limits,
    /// From the operating system's entropy.
    pub seed: [u8; 16],
}

pub(super) struct Handlers {
    channels: Channels,
    echo: Echo,
}

impl Handlers {
    pub(super) fn of(&mut self, handler: Handler) -> &mut dyn Application {
        match handler {
            Handler::Channels => &mut self.channels,
            Handler::Echo => &mut self.echo,
        }
    }
}

/// What every application call is lent.
pub(super) struct Shared {
    pub(super) hub: Hub,
    pub(super) dice: Dice,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) outgoing: Outgoing,
}

impl Shared {
    pub(super) fn cx(&mut self, now: Now) -> Cx<'_> {
        Cx {
            now,
            dice: &mut self.dice,
            hub: &mut self.hub,
            limits: &self.limits,
            counters: &mut self.counters,
            outlet: &mut self.outgoing,
        }
    }
}

/// See the file's head.
pub struct Worker {
    listeners: Vec<Handler>,
    websocket: WebSocketOptions,
    pub(super) handlers: Handlers,
    pub(super) shared: Shared,
    pub(super) seats: Seats,
    wheel: Wheel,
    pub(super) outputs: VecDeque<Output>,
    /// The connection whose input is being taken up.
    advancing: Option<ConnId>,
    /// Answered meanwhile, with pipelined input to take up.
    resumed: Vec<ConnId>,
    pub(super) master: Option<ConnId>,
    /// Ready was reported.
    pub(super) ready: bool,
    /// Set by Stop: when to end whatever is still open.
    farewell: Option<Moment>,
}

impl Worker {
    pub fn new(options: WorkerOptions, now: Now) -> Worker {
        let WorkerOptions {
            slot,
            handlers,
            apps,
            demo_page,
            limits,
            seed,
        } = options;
        let mut dice = Dice::new(seed);
        let websocket = WebSocketOptions {
            message_bytes: limits.message_bytes,
            ping_after: Duration::from_secs(limits.activity_seconds) + PING_AFTER_CLIENT,
            pong_within: Duration::from_secs(limits.pong_seconds),
            close_within: Duration::from_secs(limits.close_seconds),
        };
        let outgoing = Outgoing {
            lines: Lines::new(),
            uplink: Uplink::new(slot, &limits, now),
            wishes: VecDeque::new(),
            messages: 0,
        };
        let mut worker = Worker {
            listeners: handlers,
            websocket,
            handlers: Handlers {
                channels: Channels::new(apps, demo_page, &mut dice),
                echo: Echo,
            },
            shared: Shared {
                hub: Hub::new(limits.channels_per_connection, &mut dice),
                dice,
                limits,
                counters: Counters::default(),
                outgoing,
            },
            seats: Seats::default(),
            wheel: Wheel::new(now.moment),
            outputs: VecDeque::new(),
            advancing: None,
            resumed: Vec::new(),
            master: None,
            ready: false,
            farewell: None,
        };
        worker.dial_if_due(now);
        worker
    }

    pub(super) fn dial_if_due(&mut self, now: Now) {
        if self.shared.outgoing.uplink.dial(now) {
            self.outputs.push_back(Output::Dial(Peer::Switchboard));
        }
    }

    /// Numbers as of now.
    pub(super) fn stats(&mut self) -> Counters {
        let uplink = self.shared.outgoing.uplink.conn();
        let links = u64::from(uplink.is_some());
        let own_bytes: u64 = [uplink, self.master]
            .into_iter()
            .flatten()
            .map(|conn| self.shared.outgoing.lines.written(conn))
            .sum();
        let open_bytes = self.shared.outgoing.lines.written_in_all() - own_bytes;
        let counters = &mut self.shared.counters;
        let own = links + u64::from(self.master.is_some());
        counters.connections = (self.seats.count() as u64).saturating_sub(own);
        counters.subscriptions = self.shared.hub.len();
        counters.messages_out = self.shared.outgoing.messages;
        counters.links = links;
        let mut counters = counters.clone();
        counters.bytes_out += open_bytes;
        counters
    }

    /// Takes up `bytes` after what was left over.
    fn take_up(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        let Some(seat) = self.seats.get_mut(conn) else {
            return;
        };
        if seat.leftover.is_empty() {
            let mut inbox = Inbox::new(bytes);
            self.advance(conn, &mut inbox, now);
            if let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) {
                seat.leftover = inbox.rest().to_vec();
            }
        } else {
            let mut held = std::mem::take(&mut seat.leftover);
            held.extend_from_slice(bytes);
            let mut inbox = Inbox::new(&mut held);
            self.advance(conn, &mut inbox, now);
            let taken = inbox.taken();
            let rest = taken < held.len();
            if let Some(seat) = self.seats.get_mut(conn).filter(|seat| rest && !seat.ended) {
                held.drain(..taken);
                seat.leftover = held;
            }
        }
        self.shared.outgoing.lines.touch(conn);
        self.arm(conn);
    }

    /// Lets the connection's session take what it can from `inbox`, step by step.
    fn advance(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) {
        let outer = self.advancing.replace(conn);
        while self.step(conn, inbox, now) {
            self.carry_out(now);
        }
        self.carry_out(now);
        self.advancing = outer;
    }

    /// One step; whether there may be another.
    fn step(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) -> bool {
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return false;
        };
        let shared = &mut self.shared;
        let Some(out) = shared.outgoing.lines.outbox(conn) else {
            return false;
        };
        match &mut seat.session {
            Session::Http(http) => match http.next(inbox, out, now, &shared.limits) {
                HttpStep::Idle => return false,
                HttpStep::Request(request) => {
                    shared.counters.http_requests += 1;
                    seat.known = true;
                    let application = self.handlers.of(seat.handler);
                    application.request(conn, &request, &mut shared.cx(now));
                }
                HttpStep::Close(close) => self.end(conn, close, now),
            },
            Session::WebSocket(websocket) => {
                let message = match websocket.next(inbox, out, now, &self.websocket) {
                    WebSocketStep::Idle => return false,
                    WebSocketStep::Close(close) => {
                        self.end(conn, close, now);
                        return false;
                    }
                    WebSocketStep::Text(text) => &Received::Text(text),
                    WebSocketStep::Binary(bytes) => &Received::Binary(bytes),
                };
                if seat.known {
                    shared.counters.messages_in += 1;
                    let application = self.handlers.of(seat.handler);
                    application.message(conn, message.as_message(), &mut shared.cx(now));
                }
            }
            Session::Uplink => return self.step_uplink(conn, inbox, now),
            Session::Master => return self.step_master(conn, inbox, now),
        }
        true
    }

    /// Does what applications wished for.
    pub(super) fn carry_out(&mut self, now: Now) {
        while let Some(wish) = self.shared.outgoing.wishes.pop_front() {
            match wish {
                Wish::Reply(conn, response) => self.reply(conn, &response, now),
                Wish::Upgrade(conn) => self.upgrade(conn, now),
                Wish::Close(conn, close) => self.shut(conn, close, now),
            }
        }
    }

    fn reply(&mut self, conn: ConnId, response: &crate::wire::http::Response, now: Now) {
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        let (Session::Http(http), Some(out)) =
            (&mut seat.session, self.shared.outgoing.lines.outbox(conn))
        else {
            return;
        };
        match http.respond(response, out, now) {
            Ok(AfterAnswer::KeepAlive) => {
                self.shared.outgoing.lines.touch(conn);
                if self.advancing != Some(conn) {
                    self.resumed.push(conn);
                }
            }
            Ok(AfterAnswer::Close) => self.end(conn, Close::Done, now),
            Err(_) => self.end(conn, Close::TooSlow, now),
        }
    }

    fn upgrade(&mut self, conn: ConnId, now: Now) {
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        let (Session::Http(http), Some(out)) =
            (&mut seat.session, self.shared.outgoing.lines.outbox(conn))
        else {
            return;
        };
        if http.upgrade(out).is_err() {
            return self.end(conn, Close::TooSlow, now);
        }
        seat.session = Session::WebSocket(WebSocket::new(now));
        let application = self.handlers.of(seat.handler);
        application.opened(conn, &mut self.shared.cx(now));
        self.shared.outgoing.lines.touch(conn);
    }

    /// Ends a connection as its protocol wants it; the application hears of it at once.
    fn shut(&mut self, conn: ConnId, close: Close, now: Now) {
        self.retire(conn, now);
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        let Some(out) = self.shared.outgoing.lines.outbox(conn) else {
            return;
        };
        match &mut seat.session {
            Session::WebSocket(websocket) => match websocket.shut(&close, out, now) {
                Shut::Wait => {
                    self.count(&close);
                    self.shared.outgoing.lines.touch(conn);
                    self.arm(conn);
                }
                Shut::Cut => self.end(conn, close, now),
            },
            _ => self.end(conn, close, now),
        }
    }

    /// Nothing more is taken from the connection; what is queued is still written unless the
    /// peer would not take it.
    pub(super) fn end(&mut self, conn: ConnId, close: Close, now: Now) {
        self.retire(conn, now);
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        seat.ended = true;
        seat.leftover = Vec::new();
        self.count(&close);
        let ending = match close {
            Close::TooSlow => Ending::Cut,
            _ => Ending::Flushed,
        };
        self.shared.outgoing.lines.touch(conn);
        self.outputs.push_back(Output::Close(conn, ending));
    }

    fn count(&mut self, close: &Close) {
        let counters = &mut self.shared.counters;
        match close {
            Close::TooSlow => counters.closed_slow += 1,
            Close::Violation(_) => counters.closed_violation += 1,
            Close::Unheard => counters.closed_unheard += 1,
            _ => {}
        }
    }

    /// The application forgets the connection, and so does every channel.
    fn retire(&mut self, conn: ConnId, now: Now) {
        if let Some(seat) = self.seats.get_mut(conn).filter(|seat| seat.known) {
            seat.known = false;
            let application = self.handlers.of(seat.handler);
            let cx = &mut self.shared.cx(now);
            application.closed(conn, cx);
            cx.unsubscribe_all(conn);
        }
    }

    /// Makes sure the wheel fires by the session's deadline.
    fn arm(&mut self, conn: ConnId) {
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        let deadline = match &seat.session {
            Session::Http(http) => http.deadline(&self.shared.limits),
            Session::WebSocket(websocket) => websocket.deadline(&self.websocket),
            Session::Uplink | Session::Master => None,
        };
        if let Some(deadline) = deadline
            && seat
                .armed
                .is_none_or(|armed| self.wheel.fires_at(deadline) < armed)
        {
            seat.armed = Some(self.wheel.fires_at(deadline));
            self.wheel.arm(conn, deadline);
        }
    }

    /// The wheel fired for the connection.
    fn fired(&mut self, conn: ConnId, now: Now) {
        let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.ended) else {
            return;
        };
        if seat.armed.is_some_and(|armed| armed > now.moment) {
            // An entry from before the deadline moved; the one that counts is still to come.
            return;
        }
        seat.armed = None;
        let Some(out) = self.shared.outgoing.lines.outbox(conn) else {
            return;
        };
        let close = match &mut seat.session {
            Session::Http(http) => http.elapsed(out, now, &self.shared.limits),
            Session::WebSocket(websocket) => websocket.elapsed(out, now, &self.websocket),
            Session::Uplink | Session::Master => None,
        };
        match close {
            Some(close) => self.end(conn, close, now),
            None => {
                self.shared.outgoing.lines.touch(conn);
                self.arm(conn);
            }
        }
    }

    /// Says goodbye to every client.
    pub(super) fn stop(&mut self, now: Now) {
        if self.farewell.is_some() {
            return;
        }
        self.farewell = Some(now.moment + FAREWELL);
        self.outputs.push_back(Output::StopAccepting);
        for conn in self.seats.ids() {
            let client = self.seats.get(conn).is_some_and(|seat| {
                matches!(seat.session, Session::Http(_) | Session::WebSocket(_))
            });
            if client {
                self.shut(conn, Close::GoingAway, now);
            }
        }
        self.quit_if_empty();
    }

    fn quit_if_empty(&mut self) {
        let own = usize::from(self.shared.outgoing.uplink.conn().is_some())
            + usize::from(self.master.is_some());
        if self.farewell.is_some() && self.seats.count() <= own {
            self.outputs.push_back(Output::Quit);
        }
    }
}

/// A message as its session gave it, so that both kinds are passed on in one place.
enum Received<'a> {
    Text(std::borrow::Cow<'a, str>),
    Binary(std::borrow::Cow<'a, [u8]>),
}

impl Received<'_> {
    fn as_message(&self) -> Message<'_> {
        match self {
            Received::Text(text) => Message::Text(text),
            Received::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

impl Node for Worker {
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now) {
        let lines = &mut self.shared.outgoing.lines;
        match origin {
            Origin::Client { listener, .. } => {
                lines.open(conn, self.shared.limits.outbox_bytes);
                let handler = self
                    .listeners
                    .get(listener)
                    .copied()
                    .unwrap_or(Handler::Channels);
                let http = Session::Http(Box::new(Http::new(now)));
                self.seats.open(conn, handler, http);
                self.shared.counters.accepted += 1;
                self.arm(conn);
            }
            Origin::Dialled(Peer::Switchboard) => {
                lines.open(conn, usize::MAX);
                self.seats.open(conn, Handler::Channels, Session::Uplink);
                self.greet_switchboard(conn);
            }
            Origin::Master => {
                lines.open(conn, usize::MAX);
                self.seats.open(conn, Handler::Channels, Session::Master);
                self.master = Some(conn);
                self.report_ready();
            }
            Origin::Link => self.outputs.push_back(Output::Close(conn, Ending::Cut)),
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        let client = self
            .seats
            .get(conn)
            .is_some_and(|seat| matches!(seat.session, Session::Http(_) | Session::WebSocket(_)));
        if client {
            self.shared.counters.bytes_in += bytes.len() as u64;
        }
        self.take_up(conn, bytes, now);
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        let Some(seat) = self.seats.get_mut(conn) else {
            return;
        };
        match &mut seat.session {
            Session::Http(http) => {
                if http.hung_up() {
                    self.end(conn, Close::PeerGone, now);
                }
            }
            Session::WebSocket(_) => self.end(conn, Close::PeerGone, now),
            Session::Uplink | Session::Master => {
                self.outputs.push_back(Output::Close(conn, Ending::Cut));
            }
        }
        self.carry_out(now);
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        self.retire(conn, now);
        let session = self.seats.get(conn).map(|seat| match seat.session {
            Session::Uplink => Some(Peer::Switchboard),
            _ => None,
        });
        let is_client = session == Some(None) && self.master != Some(conn);
        self.seats.close(conn);
        if let Some(outbox) = self
            .shared
            .outgoing
            .lines
            .outbox(conn)
            .filter(|_| is_client)
        {
            self.shared.counters.bytes_out += outbox.written();
            self.shared.counters.closed += 1;
        }
        self.shared.outgoing.lines.close(conn);
        if session == Some(Some(Peer::Switchboard)) {
            self.link_lost(conn, now);
        } else if self.master == Some(conn) {
            // A worker without its master is of no use to anybody.
            self.outputs.push_back(Output::Quit);
        }
        self.carry_out(now);
        self.quit_if_empty();
    }

    fn unreachable(&mut self, _peer: Peer, now: Now) {
        self.shared.outgoing.uplink.down(&mut self.shared.dice, now);
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
        self.carry_out(now);
        self.dial_if_due(now);
        if self.farewell.is_some_and(|until| until <= now.moment) {
            self.outputs.push_back(Output::Quit);
        }
    }

    fn wants_input(&self, conn: ConnId) -> bool {
        let Some(seat) = self.seats.get(conn) else {
            return false;
        };
        let outgoing = &self.shared.outgoing;
        match &seat.session {
            Session::Uplink | Session::Master => true,
            _ if outgoing.uplink.is_congested(&outgoing.lines) => false,
            Session::WebSocket(_) => outgoing.lines.waiting(conn) <= UNREAD_BYTES,
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
            self.take_up(conn, &mut [], now);
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.shared.outgoing.lines.next_dirty().map(Output::Flush)
    }

    fn deadline(&self) -> Option<Moment> {
        let uplink = self.shared.outgoing.uplink.deadline();
        [self.wheel.deadline(), uplink, self.farewell]
            .into_iter()
            .flatten()
            .min()
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.shared.counters
    }
}
