//! The worker role: clients on one side, the switchboard and the master on the other. It moves
//! bytes from connections through their sessions to the applications, carries out what those wish,
//! and fans out what the switchboard delivers (`link.rs`).
//!
//! Invariant: after every call, each wish has been carried out, each connection with bytes to
//! write is on the dirty list, and each with a deadline is on the wheel.

mod auditing;
mod deflating;
mod dialling;
mod dials;
mod drain;
mod driven;
mod ending;
mod files;
mod gathering;
mod link;
mod listing;
mod outgoing;
mod pacing;
mod seats;
mod sessions;
mod uplink;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::app::application::{Application, Cx, Message};
use crate::app::apps::Apps;
use crate::app::channels::Channels;
use crate::app::cors::{self, Cors};
use crate::app::echo::Echo;
use crate::app::files::Files;
use crate::app::handler::Handler;
use crate::app::metrics::Metrics;
use crate::app::service::{Hosted, Services};
use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::close::Close;
use crate::base::counters::Counters;
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::limits::Limits;
use crate::base::networks::Networks;
use crate::base::now::{Moment, Now};
use crate::base::wheel::Wheel;
use crate::node::worker::deflating::Deflating;
use crate::node::worker::dialling::Dialled;
use crate::node::worker::drain::Draining;
use crate::node::worker::files::Sending;
use crate::node::worker::gathering::Gathering;
use crate::node::worker::outgoing::{Outgoing, Wish};
use crate::node::worker::seats::Seats;
use crate::node::worker::sessions::Sessions;
use crate::node::worker::uplink::Uplink;
use crate::node::{Output, Peer};
use crate::realtime::hub::Hub;
use crate::session::Session;
use crate::session::framed::{FramedOptions, FramedStep};
use crate::session::http::{AfterAnswer, Http, HttpStep};
use crate::session::websocket::{WebSocket, WebSocketOptions, WebSocketStep};
use crate::wire::deflate::Inflaters;
use crate::wire::deflate_offer::DeflateOptions;
use crate::wire::forwarded::ForwardingHeader;
use crate::wire::http::{Request, Response};
use crate::wire::protocol::Protocol;

/// A client checks its connection after `activity_seconds`; we do so this much later, so that
/// usually it is the client's ping that settles it.
const PING_AFTER_CLIENT: Duration = Duration::from_secs(10);

/// What clients get on one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub protocol: Protocol,
    pub handler: Handler,
    pub forwarding: Option<Forwarding>,
}

/// Who is believed about where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    pub header: ForwardingHeader,
    pub trusted: Networks,
}

/// What a worker's reactor is made of.
pub struct WorkerOptions {
    /// Its place among all reactors of the server.
    pub slot: u32,
    /// Tells apart the processes that hold the slot, even at the same time.
    pub life: u32,
    pub listeners: Vec<Listener>,
    pub apps: Apps,
    /// Served at `/` by `channels` listeners.
    pub demo_page: Option<&'static str>,
    /// What the embedding program serves; `Handler::Service` counts in it.
    pub services: Services,
    pub limits: Limits,
    /// Whether and how WebSocket messages are compressed.
    pub deflate: Option<DeflateOptions>,
    /// The pages that may read what this server answers.
    pub cors: Cors,
    /// From the operating system's entropy.
    pub seed: [u8; 16],
}

pub(super) struct Handlers {
    channels: Channels,
    echo: Box<dyn Application>,
    metrics: Metrics,
    files: Files,
    services: Vec<Hosted>,
}

impl Handlers {
    fn new(
        apps: Apps,
        demo_page: Option<&'static str>,
        services: Vec<Hosted>,
        dice: &mut Dice,
    ) -> Handlers {
        Handlers {
            channels: Channels::new(apps, demo_page, dice),
            echo: Box::new(Echo),
            metrics: Metrics,
            files: Files::default(),
            services,
        }
    }

    pub(super) fn of(&mut self, handler: Handler) -> &mut dyn Application {
        match handler {
            Handler::Channels => &mut self.channels,
            Handler::Echo => &mut *self.echo,
            Handler::Metrics => &mut self.metrics,
            Handler::Files => &mut self.files,
            Handler::Service(index) => &mut self.services[usize::from(index)],
        }
    }

    /// When an application has something to do.
    fn deadline(&self) -> Option<Moment> {
        let services = self.services.iter().filter_map(Hosted::deadline);
        services.chain(self.channels.deadline()).min()
    }

    fn elapsed(&mut self, shared: &mut Shared, now: Now) {
        self.channels.elapsed(&mut shared.cx(now));
        let due = |service: &&mut Hosted| service.deadline().is_some_and(|at| at <= now.moment);
        for service in self.services.iter_mut().filter(due) {
            service.elapsed(&mut shared.cx(now));
        }
    }
}

fn websocket_options(limits: &Limits) -> WebSocketOptions {
    WebSocketOptions {
        message_bytes: limits.message_bytes,
        ping_after: Duration::from_secs(limits.activity_seconds) + PING_AFTER_CLIENT,
        // A dead peer is found within twice the interval.
        pong_within: Duration::from_secs(limits.pong_seconds.min(limits.activity_seconds)),
        close_within: Duration::from_secs(limits.close_seconds),
    }
}

/// The bounds of framed connections: where clients have to introduce themselves, and elsewhere.
struct FramedBounds {
    channels: FramedOptions,
    others: FramedOptions,
}

impl FramedBounds {
    fn new(limits: &Limits) -> FramedBounds {
        let activity = Duration::from_secs(limits.activity_seconds);
        let others = FramedOptions {
            message_bytes: limits.message_bytes,
            first_within: None,
            // Simple clients have no timer of their own, so there is none to wait for.
            doubt_after: activity,
            // A dead peer is found within twice the interval.
            heard_within: activity.min(Duration::from_secs(limits.pong_seconds)),
        };
        FramedBounds {
            channels: FramedOptions {
                first_within: Some(Duration::from_secs(limits.connect_seconds)),
                ..others
            },
            others,
        }
    }

    fn of(&self, handler: Handler) -> &FramedOptions {
        match handler {
            Handler::Channels => &self.channels,
            _ => &self.others,
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
    listeners: Vec<Listener>,
    websocket: WebSocketOptions,
    inflaters: Inflaters,
    cors: Cors,
    framed: FramedBounds,
    pub(super) handlers: Handlers,
    pub(super) shared: Shared,
    pub(super) seats: Seats,
    /// Of the seats, those that we dialled ourselves, servers of others.
    dialled: BTreeMap<ConnId, Dialled>,
    wheel: Wheel,
    pub(super) outputs: VecDeque<Output>,
    /// The connection whose input is being taken up.
    advancing: Option<ConnId>,
    /// Answered meanwhile or held back no longer, with input to take up.
    resumed: Vec<ConnId>,
    pub(super) master: Option<ConnId>,
    /// Ready was reported.
    pub(super) ready: bool,
    /// Set by Stop: when to end whatever is still open.
    farewell: Option<Moment>,
    /// Set by Drain.
    draining: Option<Draining>,
    /// Connections that are to be opened soon.
    arriving: usize,
    gathering: Gathering,
    sending: Sending,
    sessions: Sessions,
}

impl Worker {
    pub fn new(options: WorkerOptions, now: Now) -> Worker {
        let WorkerOptions {
            slot,
            life,
            listeners,
            apps,
            demo_page,
            services,
            limits,
            deflate,
            cors,
            seed,
        } = options;
        let mut dice = Dice::new(seed);
        let counted = apps.iter().filter(|app| app.subscription_counts);
        let counted = counted.map(|app| app.id.clone()).collect();
        let uplink = Uplink::new((slot, life), &limits, counted, now);
        let outgoing = Outgoing::new(&limits, uplink, Deflating::new(deflate), now);
        let mut worker = Worker {
            sessions: Sessions::new(&limits),
            listeners,
            websocket: websocket_options(&limits),
            inflaters: Inflaters::default(),
            cors,
            framed: FramedBounds::new(&limits),
            handlers: Handlers::new(apps, demo_page, services.start(slot), &mut dice),
            shared: Shared {
                hub: Hub::new(limits.channels_per_connection, &mut dice),
                dice,
                limits,
                counters: Counters::default(),
                outgoing,
            },
            seats: Seats::default(),
            dialled: BTreeMap::new(),
            wheel: Wheel::new(now.moment),
            outputs: VecDeque::new(),
            advancing: None,
            resumed: Vec::new(),
            master: None,
            ready: false,
            farewell: None,
            draining: None,
            arriving: 0,
            gathering: Gathering::default(),
            sending: Sending::default(),
        };
        worker.tell_services(Application::started, now);
        worker.dial_if_due(now);
        worker
    }

    /// Calls every service of the embedding program.
    pub(super) fn tell_services(&mut self, tell: fn(&mut Hosted, &mut Cx<'_>), now: Now) {
        for service in &mut self.handlers.services {
            tell(service, &mut self.shared.cx(now));
        }
        self.carry_out(now);
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
        let own_waiting: usize = [uplink, self.master]
            .into_iter()
            .flatten()
            .map(|conn| self.shared.outgoing.lines.waiting(conn))
            .sum();
        let lines = &self.shared.outgoing.lines;
        let open_bytes = lines.written_in_all() - own_bytes;
        let counters = &mut self.shared.counters;
        counters.outbox_bytes = (lines.waiting_in_all() - own_waiting) as u64;
        counters.questions = self.shared.outgoing.uplink.questions() as u64;
        self.shared.outgoing.deflating.count(counters);
        let own = links + u64::from(self.master.is_some());
        counters.connections = (self.seats.count() as u64).saturating_sub(own);
        counters.http_sessions = self.sessions.count() as u64;
        counters.subscriptions = self.shared.hub.len();
        counters.messages_out = self.shared.outgoing.messages;
        counters.events_dropped = self.shared.outgoing.dropped;
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
            if let Some(seat) = self.seats.live(conn) {
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
        while !self.holds_back(conn, inbox, now) && self.step(conn, inbox, now) {
            self.carry_out(now);
        }
        self.carry_out(now);
        self.advancing = outer;
    }

    /// One step; whether there may be another.
    fn step(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) -> bool {
        let shared = &mut self.shared;
        let out = shared.outgoing.lines.outbox(conn);
        let seat = self.seats.live(conn).filter(|seat| !seat.paused);
        let (Some(seat), Some(out)) = (seat, out) else {
            return false;
        };
        let application = self.handlers.of(seat.handler);
        match &mut seat.session {
            Session::Http(http) => match http.next(inbox, out, now, &shared.limits) {
                HttpStep::Idle => return false,
                HttpStep::Request(request) => self.take_request(conn, &request, now),
                HttpStep::Close(close) => self.end(conn, close, now),
            },
            Session::WebSocket(websocket) => {
                let inflaters = &mut self.inflaters;
                let step = websocket.next(inbox, out, now, &self.websocket, inflaters);
                let message = match step {
                    WebSocketStep::Idle => return false,
                    WebSocketStep::Close(close) => {
                        self.end(conn, close, now);
                        return false;
                    }
                    WebSocketStep::Text(text) => &Received::Text(text),
                    WebSocketStep::Binary(bytes) => &Received::Binary(bytes),
                };
                if seat.known {
                    seat.spend(now);
                    shared.counters.messages_in += 1;
                    application.message(conn, message.as_message(), &mut shared.cx(now));
                }
            }
            Session::Stream(stream) => {
                stream.next(inbox);
                return false;
            }
            Session::Upgrading(_) => return self.step_upgrade(conn, inbox, now),
            Session::Framed(framed) => {
                let payload = match framed.next(inbox, now, self.framed.of(seat.handler)) {
                    FramedStep::Idle => return false,
                    FramedStep::Close(close) => {
                        self.end(conn, close, now);
                        return false;
                    }
                    FramedStep::Message(payload) => payload,
                };
                seat.spend(now);
                shared.counters.messages_in += 1;
                application.message(conn, payload.into(), &mut shared.cx(now));
            }
            Session::Uplink => return self.step_uplink(conn, inbox, now),
            Session::Master => return self.step_master(conn, inbox, now),
        }
        true
    }

    fn take_request(&mut self, conn: ConnId, request: &Request<'_>, now: Now) {
        let shared = &mut self.shared;
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        let application = self.handlers.of(seat.handler);
        shared.counters.http_requests += 1;
        if let Some((listener, address)) = seat.facts.hear(request, &self.listeners) {
            application.located(conn, listener, address, &mut shared.cx(now));
        }
        if let Session::Http(http) = &mut seat.session {
            http.allow_origin(self.cors.allowed(request));
            http.agree(shared.outgoing.deflating.negotiate(request));
        }
        seat.spend(now);
        application.request(conn, request, &mut shared.cx(now));
    }

    /// Does what applications wished for.
    pub(super) fn carry_out(&mut self, now: Now) {
        loop {
            while let Some(wish) = self.shared.outgoing.wishes.pop_front() {
                match wish {
                    Wish::Reply(conn, response) => self.reply(conn, response, now),
                    Wish::Upgrade(conn) => self.upgrade(conn, now),
                    Wish::AllowOrigin(conn, origin) => {
                        if let Some((http, _)) = self.http(conn) {
                            http.allow_origin(Some(origin));
                        }
                    }
                    Wish::Stream(conn, head, protocol) => {
                        self.open_stream(conn, head, protocol, now);
                    }
                    Wish::Session(conn, name, call) => self.call_session(conn, &name, call, now),
                    Wish::Close(conn, close) => self.shut(conn, close, now),
                    Wish::Gather(conn) => self.gather(conn, now),
                    Wish::OpenFile(conn, path) => self.open_file(conn, path),
                    Wish::ReadFrom(conn, wanted) => self.read_from(conn, wanted),
                    Wish::Dial(dial) => self.begin_dial(dial, now),
                    Wish::HangUp(dial) => self.hang_up_dial(dial),
                    Wish::Audit(conn, entry) => self.audit(conn, &entry),
                }
            }
            let filled = self.shared.outgoing.lines.take_filled();
            if filled.is_empty() {
                return;
            }
            for conn in filled {
                if let Some(seat) = self.seats.get(conn).filter(|seat| seat.known) {
                    let application = self.handlers.of(seat.handler);
                    application.congested(conn, &mut self.shared.cx(now));
                }
            }
        }
    }

    fn read_from(&mut self, conn: ConnId, wanted: bool) {
        if let Some(seat) = self.seats.get_mut(conn) {
            seat.paused = !wanted;
            self.resumed.push(conn);
        }
    }

    /// A connection that speaks HTTP, with its outbox.
    pub(super) fn http(&mut self, conn: ConnId) -> Option<(&mut Http, &mut Outbox)> {
        let out = self.shared.outgoing.lines.outbox(conn)?;
        match &mut self.seats.live(conn)?.session {
            Session::Http(http) => Some((http, out)),
            _ => None,
        }
    }

    fn reply(&mut self, conn: ConnId, mut response: Response, now: Now) {
        let Some((http, out)) = self.http(conn) else {
            return;
        };
        if let Some(origin) = http.allowed_origin() {
            cors::allow(&mut response, origin);
        }
        let after = http.respond(&response, out, now);
        self.settle_file(conn, &response, after == Ok(AfterAnswer::Body));
        self.answered(conn, after, now);
    }

    /// An answer, or a piece of one, was given.
    fn answered(&mut self, conn: ConnId, after: Result<AfterAnswer, Full>, now: Now) {
        match after {
            Ok(AfterAnswer::KeepAlive) => {
                self.shared.outgoing.lines.touch(conn);
                if self.advancing != Some(conn) {
                    self.resumed.push(conn);
                }
            }
            Ok(AfterAnswer::Body) => {
                self.shared.outgoing.lines.touch(conn);
                self.arm(conn);
            }
            Ok(AfterAnswer::Close) => self.end(conn, Close::Done, now),
            Err(Full) => self.end(conn, Close::TooSlow, now),
        }
    }

    fn upgrade(&mut self, conn: ConnId, now: Now) {
        let Some((http, out)) = self.http(conn) else {
            return;
        };
        let Ok(deflate) = http.upgrade(out) else {
            return self.end(conn, Close::TooSlow, now);
        };
        let mut websocket = WebSocket::new(now);
        if let Some(agreed) = deflate {
            websocket = websocket.with_deflate(agreed.client_context_bits);
            self.shared.outgoing.deflating.open(conn, agreed);
        }
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        seat.session = Session::WebSocket(websocket);
        let application = self.handlers.of(seat.handler);
        application.opened(conn, &mut self.shared.cx(now));
        self.shared.outgoing.lines.touch(conn);
        self.schedule_leave(conn, now);
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
