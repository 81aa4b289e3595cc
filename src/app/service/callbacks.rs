//! A service put together from closures, for programs that need no type of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::app::application::Message;
use crate::app::service::{
    Close, Connection, Error, Request, Response, Service, Timer, Worker, only_websocket,
};

type OnWorker = Box<dyn FnMut(&mut Worker<'_>)>;
type OnConnection = Box<dyn FnMut(&mut Connection<'_>)>;
type OnMessage = Box<dyn FnMut(&mut Connection<'_>, Message<'_>)>;
type OnRequest = Box<dyn FnMut(&mut Connection<'_>, &Request<'_>) -> Response>;
type OnError = Box<dyn FnMut(&mut Connection<'_>, &Error)>;
type OnClose = Box<dyn FnMut(&mut Connection<'_>, &Close)>;

/// When a closure of its own is called.
enum Interval {
    Every(Duration),
    Cron(String),
}

/// Each `on_…` says what happens; what nobody set does nothing. State that several closures share
/// is shared as in any single-threaded program, with `Rc` and `Cell`.
///
/// ```
/// use lineman::{Callbacks, Server};
///
/// let _chat = Server::new().listen("websocket://127.0.0.1:0", || {
///     Callbacks::new()
///         .on_connect(|conn| conn.subscribe("room"))
///         .on_message(|conn, message| conn.publish("room", message))
/// });
/// ```
#[derive(Default)]
pub struct Callbacks {
    start: Option<OnWorker>,
    reload: Option<OnWorker>,
    stop: Option<OnWorker>,
    connect: Option<OnConnection>,
    message: Option<OnMessage>,
    request: Option<OnRequest>,
    buffer_full: Option<OnConnection>,
    buffer_drained: Option<OnConnection>,
    error: Option<OnError>,
    close: Option<OnClose>,
    intervals: Vec<(Interval, OnWorker)>,
    timers: BTreeMap<Timer, OnWorker>,
}

impl Callbacks {
    pub fn new() -> Callbacks {
        Callbacks::default()
    }

    /// The reactor is about to begin.
    pub fn on_start(mut self, call: impl FnMut(&mut Worker<'_>) + 'static) -> Callbacks {
        self.start = Some(Box::new(call));
        self
    }

    /// The worker is being replaced.
    pub fn on_reload(mut self, call: impl FnMut(&mut Worker<'_>) + 'static) -> Callbacks {
        self.reload = Some(Box::new(call));
        self
    }

    /// The reactor ends.
    pub fn on_stop(mut self, call: impl FnMut(&mut Worker<'_>) + 'static) -> Callbacks {
        self.stop = Some(Box::new(call));
        self
    }

    /// A client can be talked to.
    pub fn on_connect(mut self, call: impl FnMut(&mut Connection<'_>) + 'static) -> Callbacks {
        self.connect = Some(Box::new(call));
        self
    }

    /// A client sent a message.
    pub fn on_message(
        mut self,
        call: impl FnMut(&mut Connection<'_>, Message<'_>) + 'static,
    ) -> Callbacks {
        self.message = Some(Box::new(call));
        self
    }

    /// Answers HTTP requests. WebSockets are still accepted if `on_message` or `on_connect` is set.
    pub fn on_request(
        mut self,
        call: impl FnMut(&mut Connection<'_>, &Request<'_>) -> Response + 'static,
    ) -> Callbacks {
        self.request = Some(Box::new(call));
        self
    }

    /// A client reads too slowly.
    pub fn on_buffer_full(mut self, call: impl FnMut(&mut Connection<'_>) + 'static) -> Callbacks {
        self.buffer_full = Some(Box::new(call));
        self
    }

    /// It has read everything.
    pub fn on_buffer_drained(
        mut self,
        call: impl FnMut(&mut Connection<'_>) + 'static,
    ) -> Callbacks {
        self.buffer_drained = Some(Box::new(call));
        self
    }

    /// Something failed without ending the connection.
    pub fn on_error(
        mut self,
        call: impl FnMut(&mut Connection<'_>, &Error) + 'static,
    ) -> Callbacks {
        self.error = Some(Box::new(call));
        self
    }

    /// A client left, or was closed.
    pub fn on_close(
        mut self,
        call: impl FnMut(&mut Connection<'_>, &Close) + 'static,
    ) -> Callbacks {
        self.close = Some(Box::new(call));
        self
    }

    /// Called again and again, in every reactor (`Worker::every`).
    pub fn every(
        mut self,
        period: Duration,
        call: impl FnMut(&mut Worker<'_>) + 'static,
    ) -> Callbacks {
        let interval = (Interval::Every(period), Box::new(call) as OnWorker);
        self.intervals.push(interval);
        self
    }

    /// Called at the times of a cron expression, in every reactor (`Worker::cron`).
    ///
    /// # Panics
    /// When the reactor starts, if the expression is wrong.
    pub fn cron(
        mut self,
        expression: &str,
        call: impl FnMut(&mut Worker<'_>) + 'static,
    ) -> Callbacks {
        let interval = Interval::Cron(expression.to_string());
        self.intervals.push((interval, Box::new(call)));
        self
    }
}

impl Service for Callbacks {
    fn start(&mut self, worker: &mut Worker<'_>) {
        for (interval, call) in std::mem::take(&mut self.intervals) {
            let timer = match interval {
                Interval::Every(period) => worker.every(period),
                Interval::Cron(expression) => match worker.cron(&expression) {
                    Ok(timer) => timer,
                    Err(why) => panic!("{why}"),
                },
            };
            self.timers.insert(timer, call);
        }
        if let Some(call) = &mut self.start {
            call(worker);
        }
    }

    fn reload(&mut self, worker: &mut Worker<'_>) {
        if let Some(call) = &mut self.reload {
            call(worker);
        }
    }

    fn stop(&mut self, worker: &mut Worker<'_>) {
        if let Some(call) = &mut self.stop {
            call(worker);
        }
    }

    fn request(&mut self, conn: &mut Connection<'_>, request: &Request<'_>) {
        let talks = self.message.is_some() || self.connect.is_some();
        match &mut self.request {
            _ if talks && request.wants_websocket() => conn.upgrade(),
            Some(call) => {
                let response = call(conn, request);
                conn.respond(response);
            }
            None => conn.respond(only_websocket()),
        }
    }

    fn connect(&mut self, conn: &mut Connection<'_>) {
        if let Some(call) = &mut self.connect {
            call(conn);
        }
    }

    fn message(&mut self, conn: &mut Connection<'_>, message: Message<'_>) {
        if let Some(call) = &mut self.message {
            call(conn, message);
        }
    }

    fn buffer_full(&mut self, conn: &mut Connection<'_>) {
        if let Some(call) = &mut self.buffer_full {
            call(conn);
        }
    }

    fn buffer_drained(&mut self, conn: &mut Connection<'_>) {
        if let Some(call) = &mut self.buffer_drained {
            call(conn);
        }
    }

    fn error(&mut self, conn: &mut Connection<'_>, error: &Error) {
        if let Some(call) = &mut self.error {
            call(conn, error);
        }
    }

    fn close(&mut self, conn: &mut Connection<'_>, close: &Close) {
        if let Some(call) = &mut self.close {
            call(conn, close);
        }
    }

    fn timer(&mut self, worker: &mut Worker<'_>, timer: Timer) {
        if let Some(call) = self.timers.get_mut(&timer) {
            call(worker);
        }
    }
}
