//! Messages between our own processes: what decodes, encodes to what decodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::wire::bus::{Down, Up};
use lineman::wire::bus_codec::{Extent, measure};

fuzz_target!(|data: &[u8]| {
    let Ok(Extent::Whole(length)) = measure(data, 1 << 16) else {
        return;
    };
    let frame = &data[..length];
    if let Ok(message) = Up::decode(frame) {
        let again = message.encode();
        assert_eq!(Up::decode(&again).expect("it was a message").encode(), again);
    }
    if let Ok(message) = Down::decode(frame) {
        let again = message.encode();
        assert_eq!(Down::decode(&again).expect("it was a message").encode(), again);
    }
});
