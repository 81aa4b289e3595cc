//! The operating system's side of a role: sockets, readiness, time. It moves bytes and knows no
//! protocol; of the node it knows the trait.

mod acceptor;
mod acceptors;
pub mod admission;
mod client_tls;
pub mod clock;
mod connections;
mod deadlines;
mod dialler;
pub mod files;
pub mod reactor;
mod resolver;
mod secured;
pub mod sockets;
mod stream;
pub mod tickets;
pub mod tls;
mod transport;
