//! Requests through the session, whole and cut in two: one reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::limits::Limits;
use lineman::base::now::Now;
use lineman::session::http::{AfterAnswer, Http, HttpStep};
use lineman::wire::deflate_offer::{DeflateOptions, negotiate};
use lineman::wire::http::Response;

const DEFLATE: DeflateOptions = DeflateOptions {
    client_context: true,
    server_context: true,
    min_bytes: 0,
    window_bits: 12,
};

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let limits = Limits {
        http_head_bytes: 1024,
        http_body_bytes: 256,
        ..Limits::default()
    };
    let now = Now::default();
    let (mut http, mut out) = (Http::new(now), Outbox::new(1 << 20));
    let (mut held, mut events) = (Vec::new(), Vec::new());
    'pieces: for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let mut inbox = Inbox::new(&mut held);
            let step = http.next(&mut inbox, &mut out, now, &limits);
            let taken = inbox.taken();
            let answer = match step {
                HttpStep::Idle => None,
                HttpStep::Close(close) => {
                    events.push(format!("{close:?}"));
                    break 'pieces;
                }
                HttpStep::Request(request) => {
                    assert!(request.body.len() <= limits.http_body_bytes);
                    let _ = request.header("host");
                    negotiate(request.headers("sec-websocket-extensions"), &DEFLATE);
                    events.push(format!("{request:?}"));
                    Some(())
                }
            };
            held.drain(..taken);
            match answer {
                None => break,
                Some(()) => match http.respond(&Response::text(200, "a"), &mut out, now) {
                    Ok(AfterAnswer::KeepAlive) => {}
                    _ => break 'pieces,
                },
            }
        }
    }
    events
}

fuzz_target!(|data: &[u8]| {
    let whole = read(&[data]);
    if let Some(cut) = data.first().map(|cut| usize::from(*cut) % data.len()) {
        let (front, back) = data.split_at(cut);
        assert_eq!(read(&[front, back]), whole);
    }
});
