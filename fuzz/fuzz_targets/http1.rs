//! What a provider may answer over HTTP/1.1, whole and cut in two: the request is told about once, and
//! the same. The first byte chooses the cut. As long as the connection takes one, there is another
//! request, so that no answer counts for two.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::now::{Moment, Now};
use lineman::session::http1::Http1;
use lineman::session::http2::{Http2Event, StreamKey};
use lineman::wire::http2::{Http2Origin, Http2Request};

const BODY_BYTES: usize = 64 * 1024;

struct Play {
    http1: Http1,
    out: Outbox,
    now: Now,
    held: Vec<u8>,
    asked: Vec<StreamKey>,
    fates: Vec<(StreamKey, String)>,
    over: bool,
}

impl Play {
    fn new() -> Play {
        let now = Now {
            moment: Moment::from_micros(1),
            unix_ms: 1,
        };
        let origin = Http2Origin::new(false, "hub.example").expect("an authority");
        let mut play = Play {
            http1: Http1::new(origin, now),
            out: Outbox::new(1 << 20),
            now,
            held: Vec::new(),
            asked: Vec::new(),
            fates: Vec::new(),
            over: false,
        };
        play.ask();
        play
    }

    fn ask(&mut self) {
        let request = Http2Request {
            method: "POST",
            path: "/hub/messages",
            fields: &[],
            body: Bytes::from_static(b"{}"),
        };
        if self.http1.room() > 0 {
            let deadline = self.now.moment + Duration::from_secs(20);
            let key = self.http1.ask(&request, deadline);
            self.asked.push(key.expect("there is room"));
        }
        self.poll();
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut inbox = Inbox::new(&mut self.held);
        self.http1.received(&mut inbox, self.now);
        let taken = inbox.taken();
        self.held.drain(..taken);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(event) = self.http1.poll(&mut self.out, self.now) {
            assert!(!self.over, "nothing comes after the end: {event:?}");
            let (key, fate) = match event {
                Http2Event::Answered { key, answer } => {
                    assert!((200..600).contains(&answer.status));
                    assert!(answer.body.len() <= BODY_BYTES);
                    (key, format!("{answer:?}"))
                }
                Http2Event::Refused { key } => (key, "refused".to_string()),
                Http2Event::Late { key } => (key, "late".to_string()),
                Http2Event::Lost { key, .. } => (key, "lost".to_string()),
                Http2Event::GoAway(_) => panic!("HTTP/1.1 has none"),
                Http2Event::Drained | Http2Event::Broken { .. } => {
                    self.over = true;
                    continue;
                }
            };
            self.fates.push((key, fate));
        }
        let count = self.out.len();
        self.out.advance(count);
    }
}

/// What the first answer was.
fn read(pieces: &[&[u8]]) -> String {
    let mut play = Play::new();
    for piece in pieces {
        play.receive(piece);
        if !play.fates.is_empty() {
            play.ask();
        }
    }
    play.http1.ended();
    play.poll();
    assert!(play.over);
    let told: Vec<StreamKey> = play.fates.iter().map(|(key, _)| *key).collect();
    assert_eq!(told, play.asked, "each is told about once");
    play.fates.remove(0).1
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let (front, back) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[front, back]));
});
