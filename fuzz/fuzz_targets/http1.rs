//! What a provider may answer over HTTP/1.1, whole and cut in two: the request is told about once, and
//! the same. The first byte chooses the cut. As long as the connection takes one, there is another
//! request, so that no answer counts for two.
#![no_main]

mod asked;

use asked::Asked;
use libfuzzer_sys::fuzz_target;
use lineman::session::asker::Asker;
use lineman::session::http1::Http1;
use lineman::session::http2::{Http2Event, StreamKey};
use lineman::wire::http2::Http2Origin;

fn ask(play: &mut Asked) {
    if play.asker.room() > 0 {
        play.ask();
    }
    play.poll();
}

/// What the first answer was.
fn read(pieces: &[&[u8]]) -> String {
    let origin = Http2Origin::new(false, "hub.example").expect("an authority");
    let mut play = Asked::new(|now| Asker::Http1(Box::new(Http1::new(origin, now))));
    ask(&mut play);
    for piece in pieces {
        play.receive(piece);
        if !play.told.is_empty() {
            ask(&mut play);
        }
    }
    let mut fates = play.end();
    for event in &play.told {
        match event {
            Http2Event::Answered { answer, .. } => assert!((200..600).contains(&answer.status)),
            Http2Event::GoAway(_) => panic!("HTTP/1.1 has none"),
            _ => {}
        }
    }
    let told: Vec<StreamKey> = fates.iter().map(|(key, _)| *key).collect();
    assert_eq!(told, play.keys, "each is told about once");
    fates.remove(0).1
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let (front, back) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[front, back]));
});
