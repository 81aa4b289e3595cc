//! Lineman: a connection server, and the parts to build one's own.
//!
//! A program begins with a [`Server`], gives each listener a [`Service`] (or [`Callbacks`], for a
//! service put together from closures), and ends with [`Server::run`]. What happens to a
//! [`Connection`] is told by one call each; the [`Worker`] it belongs to has timers and topics.
//!
//! The server is made of modules that programs seldom need by name. In reading order, lowest layer
//! first; imports point up this list only (`tests/tidy.rs` holds us to it):
//!
//! - [`base`]: time, chance, ids, names, byte queues, limits, endings, counts
//! - [`wire`]: bytes to values and back
//! - [`realtime`]: channels and who is in them
//! - [`push`]: what the customer's servers are told
//! - [`mock`]: push providers that are none, for trials and tests
//! - [`session`]: one state machine per protocol
//! - [`app`]: what a message means
//! - [`node`]: a whole role without its sockets
//! - [`net`]: the reactor: sockets, readiness, time
//! - [`store`]: what must survive a crash
//! - [`config`]: one file to one checked value
//! - [`run`]: processes, signals, what each verb of the command line does
//! - [`cli`]: the command line
//! - [`server`]: all of it as a part of another program

pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod mock;
pub mod net;
pub mod node;
pub mod push;
pub mod realtime;
pub mod run;
pub mod server;
pub mod session;
pub mod store;
pub mod wire;

pub use app::service::{
    Callbacks, Close, ConnId, Connection, Error, Message, Remote, Request, Response, Service,
    Target, Timer, Unavailable, Worker,
};
pub use server::{Listen, Server};
