//! The client listeners: one for each reactor and `[[listen]]` table (one for all where the kernel
//! cannot spread clients over several), opened once and kept by the
//! master, so that a worker that replaces a dead one finds the connections that waited meanwhile.
//! Does not know what is spoken on them. Invariant: all listeners of a table share one port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;
use crate::config::url::{ListenUrl, Place};
use crate::run::exit::{Exit, Failure};
use crate::run::socket_file::SocketFile;

/// Connections the kernel completes for one slot while its reactor is busy or being replaced. The
/// kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// The listeners of one `[[listen]]` table.
#[derive(Debug)]
pub struct Slots {
    /// With the real port.
    pub url: ListenUrl,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One for each slot; the kernel spreads clients over them.
    Own(Vec<TcpListener>),
    /// Unix sockets cannot share an address: all slots accept from one.
    Shared(SocketFile),
}

impl Slots {
    /// Opens what `count` reactors accept from.
    pub fn open(listen: &Listen, count: u32) -> Result<Slots, Failure> {
        let mut url = listen.url.clone();
        let sockets = match &mut url.place {
            Place::Unix(path) => Sockets::Shared(SocketFile::listen(path, BACKLOG)?),
            Place::Inet(address) => {
                let opened = open_ports(address, count);
                Sockets::Own(opened.map_err(|error| explain(&listen.url, &error))?)
            }
        };
        Ok(Slots { url, sockets })
    }

    /// `None` for a slot that was not opened.
    pub fn socket(&self, slot: u32) -> Option<BorrowedFd<'_>> {
        match &self.sockets {
            Sockets::Own(listeners) => listeners.get(slot as usize).map(AsFd::as_fd),
            Sockets::Shared(file) => Some(file.as_fd()),
        }
    }
}

/// Opens `count` listeners and puts the real port into `address`.
fn open_ports(address: &mut SocketAddr, count: u32) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Sockets that share a port do not notice other servers that share theirs: another
        // server of the same user would silently get half of the clients. A socket that does
        // not share does notice.
        bind(*address, false)?;
    }
    let mut listeners = Vec::new();
    for _ in 0..count {
        let socket = bind(*address, true)?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
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

fn explain(url: &ListenUrl, error: &io::Error) -> Failure {
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
    use crate::config::url;

    fn open(url: &str, count: u32) -> Result<Slots, Failure> {
        let listen = Listen {
            url: url::parse(url).expect("a URL"),
            handler: Handler::Echo,
            tls: None,
        };
        Slots::open(&listen, count)
    }

    #[test]
    fn all_slots_share_the_port_that_the_first_one_got() {
        for url in ["text://127.0.0.1:0", "http://[::1]:0"] {
            let slots = open(url, 3).unwrap();
            let Place::Inet(address) = slots.url.place else {
                panic!("an address");
            };
            assert_ne!(address.port(), 0);
            for slot in 0..3 {
                let socket = slots.socket(slot).unwrap().try_clone_to_owned().unwrap();
                assert_eq!(TcpListener::from(socket).local_addr().unwrap(), address);
            }
            assert!(slots.socket(3).is_none());
        }
    }

    #[test]
    fn a_port_that_another_server_shares_is_still_taken() {
        let first = open("http://127.0.0.1:0", 1).unwrap();
        let failure = open(&first.url.to_string(), 1).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure.message.contains("another program"),
            "{}",
            failure.message
        );
    }
}
