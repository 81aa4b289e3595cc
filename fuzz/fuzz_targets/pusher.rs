//! What Pusher clients say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::wire::pusher;

fuzz_target!(|text: &str| {
    let _ = pusher::parse(text);
    let _ = pusher::parse_channel_data(text);
    let _ = pusher::event("channel", text, text, Some(text));
});
