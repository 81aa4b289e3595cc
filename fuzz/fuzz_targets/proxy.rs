//! What proxies say: PROXY headers, whose reading may not depend on the cut nor ask for a byte beyond
//! the end, and the headers of requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::base::networks::{Network, Networks};
use lineman::wire::forwarded::ForwardingHeader;
use lineman::wire::http::Request;
use lineman::wire::proxy::{Parsed, parse};

/// Reads as the server does: only as much as is missing for certain.
fn arrive(data: &[u8]) {
    let mut held = 0;
    loop {
        match parse(&data[..held]) {
            Ok(Parsed::Partial(missing)) => {
                assert!(missing > 0);
                if held + missing > data.len() {
                    return;
                }
                held += missing;
            }
            Ok(whole @ Parsed::Whole { bytes, .. }) => {
                assert_eq!(bytes, held);
                assert_eq!(parse(data), Ok(whole));
                for cut in 0..bytes {
                    assert!(matches!(parse(&data[..cut]), Ok(Parsed::Partial(_))));
                }
                return;
            }
            Err(refusal) => return assert_eq!(parse(data), Err(refusal)),
        }
    }
}

fn request(data: &[u8]) {
    let line: Vec<u8> = data.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
    let trusted = Networks::new(Network::parse("10.0.0.0/8").into_iter().collect(), false);
    for header in ForwardingHeader::ALL {
        let lines = [header.name().as_bytes(), b": ", &line, b"\r\n"].concat();
        let name = header.name().as_bytes();
        // What a trusted proxy adds in a line of its own counts, whatever stands before it.
        let added: &[u8] = match header {
            ForwardingHeader::XForwardedFor => b": 203.0.113.9\r\n",
            ForwardingHeader::Forwarded => b": for=203.0.113.9\r\n",
        };
        let with_ours = [&lines, name, added].concat();
        let mut request = Request {
            method: "GET",
            target: "/",
            body: b"",
            lines: &lines,
            websocket: false,
        };
        let _ = header.client(&request, &trusted);
        request.lines = &with_ours;
        let client = header.client(&request, &trusted).expect("it was told");
        assert_eq!(client.ip().to_string(), "203.0.113.9");
    }
}

fuzz_target!(|data: &[u8]| {
    arrive(data);
    request(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Network::parse(text);
    }
});
