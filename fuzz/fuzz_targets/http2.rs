//! What a provider may send over HTTP/2 while requests are under way, whole and cut in two: each request
//! is told about once, and the same. The first byte chooses the cut.
#![no_main]

mod asked;

use std::collections::BTreeMap;
use std::time::Duration;

use asked::Asked;
use libfuzzer_sys::fuzz_target;
use lineman::session::asker::Asker;
use lineman::session::http2::{Http2, Http2Options, PulseOptions, StreamKey};
use lineman::wire::http2::Http2Origin;

/// The server's first SETTINGS, without which nothing else counts.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const REQUESTS: usize = 3;

fn read(pieces: &[&[u8]]) -> BTreeMap<StreamKey, String> {
    let options = Http2Options {
        origin: Http2Origin::new(true, "push.example").expect("an authority"),
        streams_max: REQUESTS,
        start_with_one: false,
        pulse: PulseOptions::default(),
    };
    let mut play = Asked::new(|now| Asker::Http2(Box::new(Http2::new(options, now))));
    play.receive(SETTINGS);
    (0..REQUESTS).for_each(|_| play.ask());
    play.poll();
    for piece in pieces {
        play.receive(piece);
    }
    // All are late.
    play.now.moment = play.now.moment + Duration::from_secs(21);
    play.poll();
    let mut fates = BTreeMap::new();
    for (key, fate) in play.end() {
        let before = fates.insert(key, fate);
        assert!(before.is_none(), "{key:?} is told about twice");
    }
    assert_eq!(fates.len(), REQUESTS, "each is told about");
    fates
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let (front, back) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[front, back]));
});
