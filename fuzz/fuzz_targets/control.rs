//! Orders of the master and reports to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::wire::bus_codec::{Extent, measure};
use lineman::wire::control::{Order, Report};

fuzz_target!(|data: &[u8]| {
    let Ok(Extent::Whole(length)) = measure(data, 1 << 16) else {
        return;
    };
    let frame = &data[..length];
    let _ = Order::decode(frame);
    if let Ok(report) = Report::decode(frame) {
        assert_eq!(Report::decode(&report.encode()), Ok(report));
    }
});
