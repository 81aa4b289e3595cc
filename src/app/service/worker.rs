//! The reactor a service runs in, as the service is lent it for one call.

use std::time::Duration;

use crate::app::application::{Cx, Message, Unavailable};
use crate::app::service::connection::topic_key;
use crate::app::service::hosted::Core;
use crate::app::service::remotes::Left;
use crate::app::service::timers::Schedule;
use crate::app::service::{Connection, Remote, Timer};
use crate::base::close::Close;
use crate::base::ids::{ConnId, SocketId};
use crate::wire::bus::{Content, InfoWanted, Item};
use crate::wire::target::Target;

/// See the file's head.
///
/// ```
/// use std::time::Duration;
///
/// use lineman::{Callbacks, Target};
///
/// let _news = Callbacks::new()
///     .on_start(|worker| {
///         let feed = Target::parse("wss://example.org/feed").expect("a URL");
///         worker.keep_connected(&feed);
///     })
///     .on_message(|conn, message| conn.publish("news", message))
///     .every(Duration::from_secs(30), |worker| {
///         let beat = format!("still on the line at {}", worker.unix_ms());
///         let _ = worker.publish("news", &beat);
///     });
/// ```
pub struct Worker<'a> {
    pub(super) cx: Cx<'a>,
    pub(super) hosted: &'a mut Core,
}

impl<'a> Worker<'a> {
    /// The number of this reactor among all of the server, from 0. With the same configuration, a
    /// replaced worker has the numbers of its predecessor.
    pub fn number(&self) -> u32 {
        self.hosted.number
    }

    /// The wall clock in milliseconds since 1970-01-01 UTC, read once for everything that happens in
    /// one turn.
    pub fn unix_ms(&self) -> u64 {
        self.cx.now.unix_ms
    }

    /// 64 random bits, good enough for secrets.
    pub fn random(&mut self) -> u64 {
        self.cx.dice.next_u64()
    }

    /// A connection of this service that still stands.
    pub fn connection(&mut self, id: ConnId) -> Option<Connection<'_>> {
        self.hosted.entry(id)?;
        Some(Connection {
            id,
            worker: self.reborrow(),
        })
    }

    /// The connections of this service in this reactor with which messages can be exchanged.
    pub fn connections(&self) -> Vec<ConnId> {
        self.hosted.open()
    }

    /// Sends a message to every connection of every worker that is subscribed to the topic.
    /// Refused when the switchboard is away, or so much is on its way to it that nothing may be
    /// added; nobody gets it then.
    pub fn publish<'m>(
        &mut self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<(), Unavailable> {
        self.publish_except(topic, message.into(), None)
    }

    pub(super) fn publish_except(
        &mut self,
        topic: &str,
        message: Message<'_>,
        exclude: Option<SocketId>,
    ) -> Result<(), Unavailable> {
        let Some(key) = topic_key(topic) else {
            // Nobody can be subscribed to it.
            return Ok(());
        };
        self.cx.outlet.publish(Item {
            channels: vec![key.as_str()],
            content: match message {
                Message::Text(text) => Content::Text(text),
                Message::Binary(bytes) => Content::Binary(bytes),
            },
            user_id: None,
            exclude,
            info: InfoWanted::default(),
        })
    }

    /// Connects to a server. `Service::connect` follows, with a connection whose `remote` is what
    /// this returned, or `Service::unreached`; never during this call. Everything else is as with a
    /// client: `message`, `close`, back-pressure.
    pub fn connect(&mut self, target: &Target) -> Remote {
        self.dial(target, false)
    }

    /// The same for a server that is always wanted: whenever it was not reached, or the connection
    /// ended, it is dialled again after a pause that grows from 0.1 to 30 seconds, with jitter, until
    /// `disconnect`.
    pub fn keep_connected(&mut self, target: &Target) -> Remote {
        self.dial(target, true)
    }

    fn dial(&mut self, target: &Target, keep: bool) -> Remote {
        let dial = self.cx.outlet.dial(self.hosted.handler, target);
        self.hosted.remotes.add(target, dial, keep)
    }

    /// The connection to a server, if it stands.
    pub fn remote(&mut self, remote: Remote) -> Option<Connection<'_>> {
        let conn = self.hosted.remotes.conn(remote)?;
        self.connection(conn)
    }

    /// Ends the connection to a server, or the attempt, and does not dial it again.
    pub fn disconnect(&mut self, remote: Remote) {
        match self.hosted.remotes.forget(remote) {
            Some(Left::HangUp(dial)) => self.cx.outlet.hang_up(dial),
            Some(Left::Close(conn)) => self.cx.outlet.close(conn, Close::Done),
            None => {}
        }
    }

    /// Calls `Service::timer` once, after `wait`.
    pub fn after(&mut self, wait: Duration) -> Timer {
        let due = self.cx.now.moment + wait;
        self.hosted.timers.add(due, Schedule::Once)
    }

    /// Calls `Service::timer` again and again. Times that passed while the reactor was busy are
    /// left out, so that a slow turn is not followed by a burst. A period of zero counts as 1 ms.
    pub fn every(&mut self, period: Duration) -> Timer {
        let period = period.max(Duration::from_millis(1));
        let due = self.cx.now.moment + period;
        self.hosted.timers.add(due, Schedule::Every(period))
    }

    /// Calls `Service::timer` at the times of a cron expression, in UTC. Five fields, or six with
    /// seconds in front: `"*/10 * * * * *"` is every ten seconds, `"30 4 * * MON"` every Monday at
    /// half past four. A wrong expression is explained.
    pub fn cron(&mut self, expression: &str) -> Result<Timer, String> {
        self.hosted.timers.add_cron(expression, self.cx.now)
    }

    /// A timer that is due no more.
    pub fn cancel(&mut self, timer: Timer) {
        self.hosted.timers.cancel(timer);
    }

    pub(super) fn reborrow(&mut self) -> Worker<'_> {
        Worker {
            cx: self.cx.reborrow(),
            hosted: self.hosted,
        }
    }
}
