//! Frames, compressed or not, through the session, whole and cut in two: one reading, and no
//! message over its limit. The first byte chooses what was agreed on, the second the cut.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::close::Close;
use lineman::base::now::Now;
use lineman::session::websocket::{WebSocket, WebSocketOptions, WebSocketStep};
use lineman::wire::deflate::Inflaters;

const SECOND: Duration = Duration::from_secs(1);
const OPTIONS: WebSocketOptions = WebSocketOptions {
    message_bytes: 500,
    ping_after: SECOND,
    pong_within: SECOND,
    close_within: SECOND,
};

fn read(choice: u8, pieces: &[&[u8]]) -> Vec<String> {
    let now = Now::default();
    let mut socket = match choice % 3 {
        0 => WebSocket::new(now),
        1 => WebSocket::new(now).with_deflate(None),
        _ => WebSocket::new(now).with_deflate(Some(9 + choice % 7)),
    };
    let (mut out, mut inflaters) = (Outbox::new(1 << 20), Inflaters::default());
    let (mut held, mut events) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let mut inbox = Inbox::new(&mut held);
            let step = socket.next(&mut inbox, &mut out, now, &OPTIONS, &mut inflaters);
            let event = match step {
                WebSocketStep::Idle => None,
                WebSocketStep::Text(text) => {
                    assert!(text.len() <= OPTIONS.message_bytes);
                    Some(text.into_owned())
                }
                WebSocketStep::Binary(bytes) => {
                    assert!(bytes.len() <= OPTIONS.message_bytes);
                    Some(format!("{bytes:?}"))
                }
                // A compressed message that is wrong in two ways is refused for the one that shows
                // first, which is not the same when it comes in pieces.
                WebSocketStep::Close(Close::Violation(_)) if choice % 3 != 0 => {
                    events.push("Violation".to_string());
                    return events;
                }
                WebSocketStep::Close(close) => {
                    events.push(format!("{close:?}"));
                    return events;
                }
            };
            let taken = inbox.taken();
            held.drain(..taken);
            match event {
                Some(event) => events.push(event),
                None => break,
            }
        }
    }
    events
}

fuzz_target!(|data: &[u8]| {
    let [choice, cut, frames @ ..] = data else {
        return;
    };
    let whole = read(*choice, &[frames]);
    let (front, back) = frames.split_at(usize::from(*cut).min(frames.len()));
    assert_eq!(read(*choice, &[front, back]), whole);
});
