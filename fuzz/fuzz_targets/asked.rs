//! A connection on which a provider is asked, and what is told of the requests. For `http1` and `http2`.

use std::time::Duration;

use bytes::Bytes;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::now::{Moment, Now};
use lineman::session::asker::Asker;
use lineman::session::http2::{Http2Event, StreamKey};
use lineman::wire::http2::Http2Request;

const BODY_BYTES: usize = 64 * 1024;

pub struct Asked {
    pub asker: Asker,
    pub now: Now,
    /// What came and was not taken.
    held: Vec<u8>,
    out: Outbox,
    pub keys: Vec<StreamKey>,
    /// All but the end.
    pub told: Vec<Http2Event>,
    over: bool,
}

impl Asked {
    pub fn new(asker: impl FnOnce(Now) -> Asker) -> Asked {
        let now = Now {
            moment: Moment::from_micros(1),
            unix_ms: 1,
        };
        Asked {
            asker: asker(now),
            now,
            held: Vec::new(),
            out: Outbox::new(1 << 20),
            keys: Vec::new(),
            told: Vec::new(),
            over: false,
        }
    }

    pub fn ask(&mut self) {
        let request = Http2Request {
            method: "POST",
            path: "/3/device/00",
            common: None,
            fields: &[("apns-topic", "org.example.app")],
            body: Bytes::from_static(b"{}"),
        };
        let deadline = self.now.moment + Duration::from_secs(20);
        let key = self.asker.ask(&request, deadline, self.now);
        self.keys.push(key.expect("there is room"));
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut inbox = Inbox::new(&mut self.held);
        self.asker.received(&mut inbox, self.now);
        let taken = inbox.taken();
        self.held.drain(..taken);
        self.poll();
    }

    pub fn poll(&mut self) {
        while let Some(event) = self.asker.poll(&mut self.out, self.now) {
            assert!(!self.over, "nothing comes after the end: {event:?}");
            match event {
                Http2Event::Drained | Http2Event::Broken { .. } => self.over = true,
                event => self.told.push(event),
            }
        }
        let count = self.out.len();
        self.out.advance(count);
    }

    /// The server is gone. What became of each request, in the order in which that was told.
    pub fn end(&mut self) -> Vec<(StreamKey, String)> {
        self.asker.ended();
        self.poll();
        assert!(self.over);
        self.told.iter().filter_map(fate).collect()
    }
}

fn fate(event: &Http2Event) -> Option<(StreamKey, String)> {
    match event {
        Http2Event::Answered { key, answer } => {
            assert!(answer.body.len() <= BODY_BYTES);
            Some((*key, format!("{answer:?}")))
        }
        Http2Event::Refused { key } => Some((*key, "refused".to_string())),
        Http2Event::Late { key } => Some((*key, "late".to_string())),
        Http2Event::Lost { key, .. } => Some((*key, "lost".to_string())),
        Http2Event::GoAway(_) | Http2Event::Drained | Http2Event::Broken { .. } => None,
    }
}
