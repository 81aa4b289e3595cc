//! Who the clients of `tests/world` are to the app that is played here.

#![allow(dead_code)] // clients can do more than is counted

pub const KEY: &str = "demo-key";
pub const SECRET: &str = "demo-secret";

#[path = "../../tests/world/client.rs"]
pub mod client;
