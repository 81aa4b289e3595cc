//! A service behind the contract of all handlers: keeps what the server knows of the service's
//! connections, and lends it out for each call.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::app::application::{Application, Cx, Kept, Message, Unavailable};
use crate::app::handler::Handler;
use crate::app::service::remotes::{Remote, Remotes};
use crate::app::service::timers::Timers;
use crate::app::service::{Connection, Error, Service, Worker};
use crate::base::close::Close;
use crate::base::ids::{ConnId, DialId, SocketId};
use crate::base::names::ChannelKey;
use crate::base::now::Moment;
use crate::wire::bus::{Answer, RefusalReason};
use crate::wire::http::Request;
use crate::wire::target::Target;

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Entry {
    pub address: Option<SocketAddr>,
    pub listener: Option<usize>,
    /// The server at the other end, where this side dialled.
    pub remote: Option<Remote>,
    /// Given with the first subscription: by it, publishing can leave this one out.
    pub socket_id: Option<SocketId>,
    /// `Service::connect` was called.
    open: bool,
    /// The program's own.
    data: Option<Box<dyn Any>>,
}

/// An error to report once the service has returned.
pub(super) struct Pending {
    pub conn: ConnId,
    pub error: Error,
}

/// The part of a hosted service that is lent to it.
pub(super) struct Core {
    pub handler: Handler,
    pub number: u32,
    pub timers: Timers,
    pub remotes: Remotes,
    pub pending: VecDeque<Pending>,
    entries: HashMap<ConnId, Entry, FixedState>,
}

impl Core {
    pub fn entry(&self, conn: ConnId) -> Option<&Entry> {
        self.entries.get(&conn)
    }

    pub fn entry_mut(&mut self, conn: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(&conn)
    }

    pub fn context(&mut self, conn: ConnId) -> &mut Option<Box<dyn Any>> {
        &mut self.entries.entry(conn).or_default().data
    }

    pub fn open(&self) -> Vec<ConnId> {
        let open = self.entries.iter().filter(|(_, entry)| entry.open);
        let mut open: Vec<ConnId> = open.map(|(conn, _)| *conn).collect();
        open.sort_unstable();
        open
    }
}

/// See the file's head.
pub struct Hosted {
    service: Box<dyn Service>,
    core: Core,
}

impl Hosted {
    pub fn new(service: Box<dyn Service>, handler: Handler, number: u32) -> Hosted {
        let core = Core {
            handler,
            number,
            timers: Timers::default(),
            remotes: Remotes::default(),
            pending: VecDeque::new(),
            // Connection ids are ours, not a client's, so the hash needs no secret seed.
            entries: HashMap::with_hasher(FixedState::default()),
        };
        Hosted { service, core }
    }

    fn on(
        &mut self,
        conn: ConnId,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut dyn Service, &mut Connection<'_>),
    ) {
        let mut connection = Connection {
            id: conn,
            worker: Worker {
                cx: cx.reborrow(),
                hosted: &mut self.core,
            },
        };
        call(&mut *self.service, &mut connection);
        self.report(cx);
    }

    fn with(&mut self, cx: &mut Cx<'_>, call: impl FnOnce(&mut dyn Service, &mut Worker<'_>)) {
        let mut worker = Worker {
            cx: cx.reborrow(),
            hosted: &mut self.core,
        };
        call(&mut *self.service, &mut worker);
        self.report(cx);
    }

    /// Errors of the call that has just returned. Those that the reports themselves cause wait for
    /// the next call, so that a service that fails whenever it is told of failing does not spin.
    fn report(&mut self, cx: &mut Cx<'_>) {
        for Pending { conn, error } in std::mem::take(&mut self.core.pending) {
            if self.core.entry(conn).is_none() {
                continue;
            }
            let mut connection = Connection {
                id: conn,
                worker: Worker {
                    cx: cx.reborrow(),
                    hosted: &mut self.core,
                },
            };
            self.service.error(&mut connection, &error);
        }
    }

    fn connect(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.core.entries.entry(conn).or_default().open = true;
        self.on(conn, cx, |service, conn| service.connect(conn));
    }
}

impl Application for Hosted {
    fn started(&mut self, cx: &mut Cx<'_>) {
        self.with(cx, |service, worker| service.start(worker));
    }

    fn draining(&mut self, cx: &mut Cx<'_>) {
        self.with(cx, |service, worker| service.reload(worker));
    }

    fn stopping(&mut self, cx: &mut Cx<'_>) {
        self.with(cx, |service, worker| service.stop(worker));
    }

    fn deadline(&self) -> Option<Moment> {
        let deadlines = [self.core.timers.deadline(), self.core.remotes.deadline()];
        deadlines.into_iter().flatten().min()
    }

    fn elapsed(&mut self, cx: &mut Cx<'_>) {
        while let Some(timer) = self.core.timers.expire(cx.now) {
            self.with(cx, |service, worker| service.timer(worker, timer));
        }
        let (handler, outlet) = (self.core.handler, &mut *cx.outlet);
        let mut dial = |target: &Target| outlet.dial(handler, target);
        while self.core.remotes.redial(cx.now, &mut dial) {}
    }

    fn located(
        &mut self,
        conn: ConnId,
        listener: usize,
        address: Option<SocketAddr>,
        _cx: &mut Cx<'_>,
    ) {
        let entry = self.core.entries.entry(conn).or_default();
        entry.listener = Some(listener);
        entry.address = address;
    }

    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) {
        self.on(conn, cx, |service, conn| service.request(conn, request));
    }

    fn connected(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.connect(conn, cx);
    }

    fn opened(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.connect(conn, cx);
    }

    fn reached(&mut self, conn: ConnId, dial: DialId, cx: &mut Cx<'_>) {
        match self.core.remotes.reached(dial, conn, cx.now) {
            Some(remote) => {
                self.core.entries.entry(conn).or_default().remote = Some(remote);
                self.connect(conn, cx);
            }
            None => cx.outlet.close(conn, Close::Done),
        }
    }

    fn unreached(&mut self, dial: DialId, why: &str, cx: &mut Cx<'_>) {
        if let Some(remote) = self.core.remotes.unreached(dial, cx.dice, cx.now) {
            self.with(cx, |service, worker| {
                service.unreached(worker, remote, why);
            });
        }
    }

    fn message(&mut self, conn: ConnId, message: Message<'_>, cx: &mut Cx<'_>) {
        self.on(conn, cx, |service, conn| service.message(conn, message));
    }

    fn congested(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.on(conn, cx, |service, conn| service.buffer_full(conn));
    }

    fn drained(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.on(conn, cx, |service, conn| service.buffer_drained(conn));
    }

    /// A service asks the switchboard nothing.
    fn answered(&mut self, _: ConnId, _: Result<Answer<'_>, Unavailable>, _: &mut Cx<'_>) {}

    fn subscribed(&mut self, conn: ConnId, key: &ChannelKey, _: &Kept<'_>, cx: &mut Cx<'_>) {
        let topic = key.channel();
        self.on(conn, cx, |service, conn| service.subscribed(conn, topic));
    }

    fn refused(&mut self, conn: ConnId, key: &ChannelKey, reason: RefusalReason, cx: &mut Cx<'_>) {
        let why = match reason {
            RefusalReason::Full => "the topic is full",
            RefusalReason::Congested => "a worker does not keep up",
            RefusalReason::Settling => "the switchboard has just come back",
            RefusalReason::TooLong => "the answer would be too long",
            RefusalReason::TooOften => "too much is published",
            RefusalReason::Repeated => "the same was asked before",
            RefusalReason::NoCourier => "the courier is away",
        };
        let error = Error::NotSubscribed(key.channel().to_string(), why);
        self.on(conn, cx, |service, conn| service.error(conn, &error));
    }

    fn undelivered(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        let error = Error::Undelivered;
        self.on(conn, cx, |service, conn| service.error(conn, &error));
    }

    fn closed(&mut self, conn: ConnId, close: &Close, cx: &mut Cx<'_>) {
        let Some(entry) = self.core.entries.get_mut(&conn) else {
            return;
        };
        let (open, socket_id) = (std::mem::take(&mut entry.open), entry.socket_id);
        if open {
            self.on(conn, cx, |service, conn| service.close(conn, close));
        }
        cx.unsubscribe_all(conn);
        if let Some(socket_id) = socket_id {
            cx.hub.leave(socket_id);
        }
        let entry = self.core.entries.remove(&conn);
        if let Some(remote) = entry.and_then(|entry| entry.remote) {
            self.core.remotes.ended(remote, cx.dice, cx.now);
        }
    }
}
