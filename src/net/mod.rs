//! The operating system's side of a role: sockets, readiness, time. It moves bytes and knows no
//! protocol; of the node it knows the trait.

mod acceptor;
pub mod clock;
pub mod reactor;
mod secured;
pub mod sockets;
mod stream;
pub mod tickets;
pub mod tls;
mod transport;
