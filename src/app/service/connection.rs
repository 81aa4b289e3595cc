//! One connection, as a service is lent it for one call.

use std::any::Any;
use std::net::SocketAddr;

use crate::app::application::Message;
use crate::app::service::hosted::Pending;
use crate::app::service::{Error, Remote, Worker};
use crate::base::close::Close;
use crate::base::ids::{ConnId, SocketId};
use crate::base::names::ChannelKey;
use crate::realtime::hub::NotSubscribed;
use crate::wire::http::Response;

/// Topics are channels of an app that no configuration can name.
const TOPICS: &str = "~";
/// A longer topic is refused.
const TOPIC_BYTES: usize = 200;

/// See the file's head.
///
/// ```
/// use lineman::{Callbacks, Message};
///
/// let _polite = Callbacks::new().on_message(|conn, message| {
///     let said: &mut u32 = conn.context();
///     *said += 1;
///     match message {
///         Message::Text("bye") => conn.close_with(4000, "see you"),
///         message => conn.send(message),
///     }
/// });
/// ```
pub struct Connection<'a> {
    pub(super) id: ConnId,
    pub(super) worker: Worker<'a>,
}

impl<'a> Connection<'a> {
    /// Its name within this reactor, never used again for another: what to keep when something is
    /// to be sent later, through `Worker::connection`.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The reactor it belongs to.
    pub fn worker(&mut self) -> &mut Worker<'a> {
        &mut self.worker
    }

    /// Where a client is; `None` through a Unix socket, and for a server that was dialled.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.worker.hosted.entry(self.id)?.address
    }

    /// The server at the other end of a connection that this side dialled.
    pub fn remote(&self) -> Option<Remote> {
        self.worker.hosted.entry(self.id)?.remote
    }

    /// The place of its listener in the configuration; `None` for one that was dialled.
    pub fn listener(&self) -> Option<usize> {
        self.worker.hosted.entry(self.id)?.listener
    }

    /// Queues a message. Nothing is lost silently: a connection that does not read is closed when
    /// `limits.outbox_bytes` wait for it.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        self.worker.cx.outlet.send(self.id, message.into());
    }

    /// Bytes that wait for the peer to read.
    pub fn buffered(&self) -> usize {
        self.worker.cx.outlet.waiting(self.id)
    }

    /// Ends it once what is queued was written: a WebSocket with code 1000.
    pub fn close(&mut self) {
        self.worker.cx.outlet.close(self.id, Close::Done);
    }

    /// The same with a WebSocket close code of the program's own (RFC 6455 section 7.4.2: 3000 to
    /// 4999) and a text, cut at 123 bytes. Other protocols just end.
    pub fn close_with(&mut self, code: u16, text: &str) {
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=text.len().min(CLOSE_TEXT_BYTES)).rev().find(fits);
        let close = Close::Chosen(code, text[..end.unwrap_or(0)].to_string());
        self.worker.cx.outlet.close(self.id, close);
    }

    /// Takes nothing more from the peer until `resume`. What it sends waits in the kernel, then at
    /// the peer itself: back-pressure as TCP means it.
    pub fn pause(&mut self) {
        self.worker.cx.outlet.read_from(self.id, false);
    }

    pub fn resume(&mut self) {
        self.worker.cx.outlet.read_from(self.id, true);
    }

    /// Answers a request.
    pub fn respond(&mut self, response: Response) {
        self.worker.cx.outlet.reply(self.id, response);
    }

    /// Accepts the WebSocket that a request asked for; `Service::connect` follows.
    pub fn upgrade(&mut self) {
        self.worker.cx.outlet.upgrade(self.id);
    }

    /// The program's own data of this connection, made by `Default` when first asked for. To ask
    /// for another type drops what was there.
    pub fn context<T: Default + 'static>(&mut self) -> &mut T {
        let slot = self.worker.hosted.context(self.id);
        if !slot.as_ref().is_some_and(|data| data.is::<T>()) {
            *slot = Some(Box::new(T::default()));
        }
        let data: Option<&mut Box<dyn Any>> = slot.as_mut();
        let typed = data.and_then(|data| data.downcast_mut());
        typed.expect("it was just made of this type")
    }

    /// Messages published to the topic, in any worker, arrive here from then on;
    /// `Service::subscribed` says when, `Service::error` if not.
    pub fn subscribe(&mut self, topic: &str) {
        let Some(key) = topic_key(topic) else {
            return self.fail(Error::NotSubscribed(topic.into(), TOPIC_RULE));
        };
        let Some(entry) = self.worker.hosted.entry_mut(self.id) else {
            return;
        };
        if entry.socket_id.is_none() {
            let socket_id = SocketId::random(self.worker.cx.dice);
            entry.socket_id = Some(socket_id);
            self.worker.cx.hub.enter(self.id, socket_id);
        }
        match self.worker.cx.subscribe(self.id, &key, None) {
            Ok(()) | Err(NotSubscribed::Already | NotSubscribed::Asked) => {}
            Err(NotSubscribed::TooMany) => {
                let why = "limits.channels_per_connection is reached";
                self.fail(Error::NotSubscribed(topic.into(), why));
            }
        }
    }

    /// Nothing happens when there is no such subscription.
    pub fn unsubscribe(&mut self, topic: &str) {
        if let Some(key) = topic_key(topic) {
            self.worker.cx.unsubscribe(self.id, &key);
        }
    }

    /// Sends a message to every connection of every worker that is subscribed to the topic, this
    /// one too if it is.
    pub fn publish<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) {
        if self.worker.publish(topic, message).is_err() {
            self.fail(Error::Undelivered);
        }
    }

    /// The same without this connection.
    pub fn publish_to_others<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) {
        let entry = self.worker.hosted.entry(self.id);
        let exclude = entry.and_then(|entry| entry.socket_id);
        let published = self.worker.publish_except(topic, message.into(), exclude);
        if published.is_err() {
            self.fail(Error::Undelivered);
        }
    }

    /// Reported when the current call has returned.
    fn fail(&mut self, error: Error) {
        self.worker.hosted.pending.push_back(Pending {
            conn: self.id,
            error,
        });
    }
}

/// What a Close frame holds besides its code (RFC 6455 section 5.5).
const CLOSE_TEXT_BYTES: usize = 123;

const TOPIC_RULE: &str = "a topic has 1 to 200 bytes and no control characters";

pub(super) fn topic_key(topic: &str) -> Option<ChannelKey> {
    let fits = !topic.is_empty() && topic.len() <= TOPIC_BYTES;
    let plain = fits && !topic.chars().any(char::is_control);
    plain.then(|| ChannelKey::new(TOPICS, topic))
}
