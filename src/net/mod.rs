//! The operating system's side of a role: sockets, readiness, time. It moves bytes and knows no
//! protocol but those that come before the first byte of a client: the PROXY header, and TLS. Of
//! the node it knows the trait.

mod acceptor;
mod acceptors;
pub mod admission;
mod arrival;
pub mod client_tls;
pub mod clock;
mod connections;
mod deadlines;
mod dialler;
pub mod files;
pub mod one_request;
pub mod reactor;
mod resolver;
mod secured;
pub mod sockets;
mod stream;
pub mod tarpit;
pub mod tickets;
pub mod tls;
mod transport;
mod waves;
