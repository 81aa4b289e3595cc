//! Queries and paths of the HTTP API, and the lists of origins.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::wire::{origin, query};

fuzz_target!(|text: &str| {
    let _ = query::parse_query(text);
    let _ = query::decode_path(text);
    let list = ["https://*.a.example".to_string(), text.to_string()];
    let _ = origin::is_listed(&list, text);
    let _ = origin::is_valid_entry(text);
});
