//! What a program that embeds the server says about its own listeners: a `Service` is told what
//! happens to their connections, and acts through the `Connection` and the `Worker` it is lent.
//! `Hosted` joins it to the contract that all handlers keep (`app::application`). Knows no socket
//! and no session. Invariant: a service is called by one thread, one call at a time.

mod callbacks;
mod connection;
mod hosted;
mod remotes;
mod timers;
mod worker;

use std::sync::Arc;

pub use crate::app::application::{Message, Unavailable};
use crate::app::handler::Handler;
pub use crate::app::service::callbacks::Callbacks;
pub use crate::app::service::connection::Connection;
pub use crate::app::service::hosted::Hosted;
pub use crate::app::service::remotes::Remote;
pub use crate::app::service::timers::Timer;
pub use crate::app::service::worker::Worker;
pub use crate::base::close::Close;
pub use crate::base::ids::ConnId;
pub use crate::wire::http::{Request, Response};
use crate::wire::protocol::{OwnFraming, Protocol};
pub use crate::wire::target::Target;

/// What went wrong on one connection without ending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A message it published reached nobody: the switchboard is away or overloaded.
    Undelivered,
    /// It is not subscribed to this topic, for this reason.
    NotSubscribed(String, &'static str),
}

/// What a program's listener does. Each reactor of each worker process has a value of its own, so a
/// service keeps its state in plain fields; what all of them are to hear goes through topics.
///
/// A method must not block: while it runs, no other connection of its reactor is served. A panic
/// ends the worker process, which is replaced; other workers are not touched.
///
/// A counter on a line protocol, with its own state for each connection:
///
/// ```
/// use lineman::{Connection, Message, Service};
///
/// struct Counter;
///
/// impl Service for Counter {
///     fn message(&mut self, conn: &mut Connection<'_>, _message: Message<'_>) {
///         let count: &mut u32 = conn.context();
///         *count += 1;
///         let answer = format!("that was message {count}");
///         conn.send(answer.as_str());
///     }
/// }
///
/// let _server = lineman::Server::new().listen("text://127.0.0.1:0", || Counter);
/// ```
pub trait Service {
    /// The reactor is about to begin; no connection stands yet.
    fn start(&mut self, _worker: &mut Worker<'_>) {}

    /// A reload replaces this worker: no more connections come, and those that stand are told to
    /// go one after the other.
    fn reload(&mut self, _worker: &mut Worker<'_>) {}

    /// The reactor ends. What is sent now is still written if the peer takes it at once.
    fn stop(&mut self, _worker: &mut Worker<'_>) {}

    /// A request came on an `http://` or `websocket://` listener. Exactly one `respond` or
    /// `upgrade` is owed for it, in this call or later. Unless overridden, every WebSocket is
    /// accepted and everything else answered with 426 (RFC 9110 section 15.5.22).
    fn request(&mut self, conn: &mut Connection<'_>, request: &Request<'_>) {
        match request.wants_websocket() {
            true => conn.upgrade(),
            false => conn.respond(only_websocket()),
        }
    }

    /// Messages can be exchanged: a WebSocket was accepted, a raw client connected, or a
    /// connection that this service dialled stands.
    fn connect(&mut self, _conn: &mut Connection<'_>) {}

    /// A whole message, as the listener's protocol delimits them.
    fn message(&mut self, _conn: &mut Connection<'_>, _message: Message<'_>) {}

    /// The subscription to a topic stands: what is published from now on arrives.
    fn subscribed(&mut self, _conn: &mut Connection<'_>, _topic: &str) {}

    /// More than half of `limits.outbox_bytes` waits for this connection to read. At the bound it
    /// is closed, so whoever can slow down does it now.
    fn buffer_full(&mut self, _conn: &mut Connection<'_>) {}

    /// A connection that was reported full has taken everything.
    fn buffer_drained(&mut self, _conn: &mut Connection<'_>) {}

    fn error(&mut self, _conn: &mut Connection<'_>, _error: &Error) {}

    /// Told once for each that was told to `connect`. Nothing can be sent any more.
    fn close(&mut self, _conn: &mut Connection<'_>, _close: &Close) {}

    /// A server that was asked for by `Worker::connect` or `keep_connected` could not be reached, for a
    /// reason in words. One that is kept is dialled again after a pause.
    fn unreached(&mut self, _worker: &mut Worker<'_>, _remote: Remote, _why: &str) {}

    /// A timer of `Worker::after`, `every` or `cron` is due.
    fn timer(&mut self, _worker: &mut Worker<'_>, _timer: Timer) {}
}

fn only_websocket() -> Response {
    Response::text(426, "This address speaks WebSocket.\n").with_header("Upgrade", "websocket")
}

/// Makes the service of one reactor. It is called in the reactor's thread, so what it makes need
/// not be `Send`.
pub type Factory = dyn Fn() -> Box<dyn Service> + Send + Sync;

/// One of the things an embedding program serves.
#[derive(Clone)]
pub struct Served {
    pub factory: Arc<Factory>,
    /// What is spoken where a listener of it says `tcp://`.
    pub framing: Option<&'static OwnFraming>,
}

/// All of them; `Handler::Service` counts in them.
#[derive(Clone, Default)]
pub struct Services(Vec<Served>);

impl Services {
    pub fn new(served: Vec<Served>) -> Services {
        Services(served)
    }

    /// What is spoken on a listener with this handler whose URL means `protocol`.
    pub fn protocol(&self, handler: Handler, protocol: Protocol) -> Protocol {
        let framing = match handler {
            Handler::Service(index) => self.0.get(usize::from(index)).and_then(|it| it.framing),
            _ => None,
        };
        match (protocol, framing) {
            (Protocol::Raw, Some(framing)) => Protocol::Own(framing),
            _ => protocol,
        }
    }

    /// The services of the reactor in `slot`.
    pub fn start(&self, slot: u32) -> Vec<Hosted> {
        let make = |(index, served): (usize, &Served)| {
            Hosted::new((served.factory)(), Handler::Service(index as u16), slot)
        };
        self.0.iter().enumerate().map(make).collect()
    }
}
