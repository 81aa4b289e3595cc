//! Lineman: a connection server. The modules in reading order, lowest layer first; imports point
//! up this list only (`tests/tidy.rs` holds us to it).
//!
//! - [`base`]: time, chance, ids, names, byte queues, limits, endings, counts
//! - [`wire`]: bytes to values and back
//! - [`realtime`]: channels and who is in them
//! - [`session`]: one state machine per protocol
//! - [`app`]: what a message means
//! - [`node`]: a whole role without its sockets
//! - [`net`]: the reactor: sockets, readiness, time
//! - [`config`]: one file to one checked value
//! - [`run`]: processes, signals, the command line's verbs

pub mod app;
pub mod base;
pub mod config;
pub mod net;
pub mod node;
pub mod realtime;
pub mod run;
pub mod session;
pub mod wire;
