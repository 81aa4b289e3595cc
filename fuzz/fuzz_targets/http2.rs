//! What a provider may send over HTTP/2 while requests are under way, whole and cut in two: each request
//! is told about once, and the same. The first byte chooses the cut.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::now::{Moment, Now};
use lineman::session::http2::{Http2, Http2Event, Http2Options, PulseOptions, StreamKey};
use lineman::wire::http2::{Http2Origin, Http2Request};

/// The server's first SETTINGS, without which nothing else counts.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const REQUESTS: usize = 3;
const BODY_BYTES: usize = 64 * 1024;

struct Play {
    http2: Http2,
    out: Outbox,
    now: Now,
    fates: BTreeMap<StreamKey, String>,
    over: bool,
}

impl Play {
    fn new() -> Play {
        let now = Now {
            moment: Moment::from_micros(1),
            unix_ms: 1,
        };
        let options = Http2Options {
            origin: Http2Origin::new(true, "push.example").expect("an authority"),
            streams_max: REQUESTS,
            start_with_one: false,
            pulse: PulseOptions::default(),
        };
        Play {
            http2: Http2::new(options, now),
            out: Outbox::new(1 << 20),
            now,
            fates: BTreeMap::new(),
            over: false,
        }
    }

    fn ask(&mut self) {
        let request = Http2Request {
            method: "POST",
            path: "/3/device/00",
            fields: &[("apns-topic", "org.example.app")],
            body: Bytes::from_static(b"{}"),
        };
        let deadline = self.now.moment + Duration::from_secs(20);
        self.http2
            .ask(&request, deadline, self.now)
            .expect("there is room");
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut held = bytes.to_vec();
        self.http2.received(&mut Inbox::new(&mut held), self.now);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(event) = self.http2.poll(&mut self.out, self.now) {
            assert!(!self.over, "nothing comes after the end: {event:?}");
            let (key, fate) = match event {
                Http2Event::Answered { key, answer } => {
                    assert!(answer.body.len() <= BODY_BYTES);
                    (key, format!("{answer:?}"))
                }
                Http2Event::Refused { key } => (key, "refused".to_string()),
                Http2Event::Late { key } => (key, "late".to_string()),
                Http2Event::Lost { key, .. } => (key, "lost".to_string()),
                Http2Event::GoAway(_) => continue,
                Http2Event::Drained | Http2Event::Broken { .. } => {
                    self.over = true;
                    continue;
                }
            };
            let before = self.fates.insert(key, fate);
            assert!(before.is_none(), "{key:?} is told about twice");
        }
        let count = self.out.len();
        self.out.advance(count);
    }
}

fn read(pieces: &[&[u8]]) -> BTreeMap<StreamKey, String> {
    let mut play = Play::new();
    play.receive(SETTINGS);
    (0..REQUESTS).for_each(|_| play.ask());
    play.poll();
    for piece in pieces {
        play.receive(piece);
    }
    // All are late, and the server is gone.
    play.now.moment = play.now.moment + Duration::from_secs(21);
    play.poll();
    play.http2.ended();
    play.poll();
    assert!(play.over);
    assert_eq!(play.fates.len(), REQUESTS, "each is told about");
    play.fates
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let (front, back) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[front, back]));
});
