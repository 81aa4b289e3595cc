//! A connection on which we ask a server that speaks HTTP/2 or HTTP/1.1, as it chose when the
//! connection was made. Owns nothing: each call goes to the session of that version, and what is told
//! is the same for both (`http2`).

use crate::base::bytes::{Inbox, Outbox};
use crate::base::now::{Moment, Now};
use crate::session::http1::Http1;
use crate::session::http2::{Http2, Http2Event, NotAsked, StreamKey};
use crate::wire::http2::Http2Request;

/// See the file's head.
pub enum Asker {
    /// One request at a time.
    Http1(Box<Http1>),
    /// Many.
    Http2(Box<Http2>),
}

impl Asker {
    /// How many requests would be taken now.
    pub fn room(&self) -> usize {
        match self {
            Asker::Http1(http1) => http1.room(),
            Asker::Http2(http2) => http2.room(),
        }
    }

    /// Takes a request; its answer is due at `deadline`. Written by the next `poll`.
    pub fn ask(
        &mut self,
        request: &Http2Request<'_>,
        deadline: Moment,
        now: Now,
    ) -> Result<StreamKey, NotAsked> {
        match self {
            Asker::Http1(http1) => http1.ask(request, deadline),
            Asker::Http2(http2) => http2.ask(request, deadline, now),
        }
    }

    /// Takes no more requests; those under way go on.
    pub fn retire(&mut self) {
        match self {
            Asker::Http1(http1) => http1.retire(),
            Asker::Http2(http2) => http2.retire(),
        }
    }

    pub fn received(&mut self, inbox: &mut Inbox<'_>, now: Now) {
        match self {
            Asker::Http1(http1) => http1.received(inbox, now),
            Asker::Http2(http2) => http2.received(inbox, now),
        }
    }

    /// The server ended the connection, or it was lost.
    pub fn ended(&mut self) {
        match self {
            Asker::Http1(http1) => http1.ended(),
            Asker::Http2(http2) => http2.ended(),
        }
    }

    /// Whether more may come; without, what came waits until the outbox is emptier.
    pub fn wants_input(&self) -> bool {
        match self {
            Asker::Http1(_) => true,
            Asker::Http2(http2) => http2.wants_input(),
        }
    }

    /// When `poll` has something to do even if nothing comes.
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Asker::Http1(http1) => http1.deadline(),
            Asker::Http2(http2) => http2.deadline(),
        }
    }

    /// Writes what there is to write, and tells one thing; to be called until there is none.
    pub fn poll(&mut self, out: &mut Outbox, now: Now) -> Option<Http2Event> {
        match self {
            Asker::Http1(http1) => http1.poll(out, now),
            Asker::Http2(http2) => http2.poll(out, now),
        }
    }
}
