//! The client listeners: one for each reactor and `[[listen]]` table, opened once and kept by the
//! master, so that a worker that replaces a dead one finds the connections that waited meanwhile.
//! Does not know what is spoken on them. Invariant: all listeners of a table share one port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;
use crate::run::exit::{Exit, Failure};

/// Connections the kernel completes for one slot while its reactor is busy or being replaced. The
/// kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// The listeners of one `[[listen]]` table.
#[derive(Debug)]
pub struct Slots {
    /// With the real port.
    pub address: SocketAddr,
    listeners: Vec<TcpListener>,
}

impl Slots {
    /// Opens one listener for each of `count` reactors.
    pub fn open(listen: &Listen, count: u32) -> Result<Slots, Failure> {
        let explain = |error: io::Error| explain(listen, &error);
        let mut address = listen.address;
        if address.port() != 0 {
            // Sockets that share a port do not notice other servers that share theirs: another
            // server of the same user would silently get half of the clients. A socket that does
            // not share does notice.
            bind(address, false).map_err(explain)?;
        }
        let mut listeners = Vec::new();
        for _ in 0..count {
            let socket = bind(address, true).map_err(explain)?;
            socket.listen(BACKLOG).map_err(explain)?;
            let listener = TcpListener::from(socket);
            address = listener.local_addr().map_err(explain)?;
            listeners.push(listener);
        }
        Ok(Slots { address, listeners })
    }

    pub fn listener(&self, slot: u32) -> Option<&TcpListener> {
        self.listeners.get(slot as usize)
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // [::] means IPv6; IPv4 is a table of its own. The system's default differs by machine.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn explain(listen: &Listen, error: &io::Error) -> Failure {
    let url = listen.url(listen.address);
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Exit::Failed,
            format!(
                "cannot listen on {url}: another program listens there; stop it, or change url in \
                 the configuration"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => Failure::new(
            Exit::Failed,
            format!("cannot listen on {url}: this machine does not have that address"),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::NotPermitted,
            format!("cannot listen on {url}: ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        ),
        _ => Failure::io(format!("cannot listen on {url}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::handler::Handler;

    fn listen(port: u16) -> Listen {
        Listen {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            handler: Handler::Echo,
            tls: None,
        }
    }

    #[test]
    fn all_slots_share_the_port_that_the_first_one_got() {
        let slots = Slots::open(&listen(0), 3).unwrap();
        assert_ne!(slots.address.port(), 0);
        for slot in 0..3 {
            assert_eq!(
                slots.listener(slot).unwrap().local_addr().unwrap(),
                slots.address
            );
        }
        assert!(slots.listener(3).is_none());
    }

    #[test]
    fn a_port_that_another_server_shares_is_still_taken() {
        let first = Slots::open(&listen(0), 1).unwrap();
        let failure = Slots::open(&listen(first.address.port()), 1).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure.message.contains("another program"),
            "{}",
            failure.message
        );
    }
}
