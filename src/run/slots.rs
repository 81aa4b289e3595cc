//! The client listeners: one for each reactor and `[[listen]]` table (one for all where the kernel
//! cannot spread clients over several), opened once and kept by the
//! master, so that a worker that replaces a dead one finds the connections that waited meanwhile.
//! Does not know what is spoken on them. Invariant: all listeners of a table share one port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;
use crate::config::url::{ListenUrl, Place};
use crate::run::exit::{Exit, Failure};
use crate::run::inheritance::{Keep, Listeners};
use crate::run::socket_file::SocketFile;

/// Connections the kernel completes for one slot while its reactor is busy or being replaced. The
/// kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// The listeners of one `[[listen]]` table.
#[derive(Debug)]
pub struct Slots {
    /// With the real port.
    pub url: ListenUrl,
    /// How many slots accept from it, counted from the first.
    count: u32,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One for each slot; the kernel spreads clients over them.
    /// `None` while the slot rests.
    Own(Vec<Option<TcpListener>>),
    /// Unix sockets cannot share an address: all slots accept from one.
    Shared(SocketFile),
    /// A service manager opened it, and all slots accept from it. It outlives us: connections made
    /// while no server runs wait in it.
    Activated(TcpListener),
    Closed,
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
        Ok(Slots {
            url,
            count,
            sockets,
        })
    }

    /// The same with a socket that somebody else opened.
    pub fn activated(listen: &Listen, listener: TcpListener, count: u32) -> Result<Slots, Failure> {
        listener
            .set_nonblocking(true)
            .map_err(|error| Failure::io("a socket that was handed over", &error))?;
        Ok(Slots {
            url: listen.url.clone(),
            count,
            sockets: Sockets::Activated(listener),
        })
    }

    /// Goes on with the sockets that the program before left open for `count` reactors. `fd` takes
    /// each of them.
    pub fn resume(
        listen: &Listen,
        left: &Listeners,
        count: u32,
        fd: &mut dyn FnMut(RawFd) -> Result<OwnedFd, String>,
    ) -> Result<Slots, String> {
        let mut url = listen.url.clone();
        let sockets = match (left, &mut url.place) {
            (Listeners::Own(fds), Place::Inet(address)) => {
                let mut listeners = Vec::new();
                for left in fds {
                    let listener = left.map(&mut *fd).transpose()?.map(TcpListener::from);
                    if let Some(Ok(real)) = listener.as_ref().map(TcpListener::local_addr) {
                        *address = real;
                    }
                    listeners.push(listener);
                }
                Sockets::Own(listeners)
            }
            (Listeners::Shared(left, identity), Place::Unix(path)) => {
                Sockets::Shared(SocketFile::adopt(fd(*left)?, path, *identity))
            }
            (Listeners::Activated(left), Place::Inet(_)) => {
                Sockets::Activated(TcpListener::from(fd(*left)?))
            }
            _ => return Err(format!("what was left open is not for {url}")),
        };
        Ok(Slots {
            url,
            count,
            sockets,
        })
    }

    /// For the program that takes over; `None` once they are closed.
    pub fn leave(&self, keep: &mut Keep) -> Option<Listeners> {
        match &self.sockets {
            Sockets::Own(listeners) => {
                let fds = listeners
                    .iter()
                    .map(|it| it.as_ref().map(|it| keep.note(it)));
                Some(Listeners::Own(fds.collect()))
            }
            Sockets::Shared(file) => Some(Listeners::Shared(keep.note(file), file.identity())),
            Sockets::Activated(listener) => Some(Listeners::Activated(keep.note(listener))),
            Sockets::Closed => None,
        }
    }

    /// Takes the slot out of those among which the kernel spreads connections. What it had queued
    /// for the slot is reset, unless net.ipv4.tcp_migrate_req moves it to another. One socket for
    /// all gives nobody a share of its own, and stays; so does the last one, as nobody else could
    /// take over what comes.
    pub fn close(&mut self, slot: u32) {
        if let Sockets::Own(listeners) = &mut self.sockets
            && listeners.iter().flatten().count() > 1
            && let Some(listener) = listeners.get_mut(slot as usize)
        {
            *listener = None;
        }
    }

    pub fn close_all(&mut self) {
        self.sockets = Sockets::Closed;
    }

    /// Undoes `close`.
    pub fn reopen(&mut self, slot: u32) -> io::Result<()> {
        if let (Sockets::Own(listeners), Place::Inet(address)) =
            (&mut self.sockets, &self.url.place)
            && let Some(listener @ None) = listeners.get_mut(slot as usize)
        {
            let socket = bind(*address, true)?;
            socket.listen(BACKLOG)?;
            *listener = Some(TcpListener::from(socket));
        }
        Ok(())
    }

    /// Whether the slot is one of those that accept from it.
    pub fn serves(&self, slot: u32) -> bool {
        slot < self.count
    }

    /// `None` for a slot that was not opened.
    pub fn socket(&self, slot: u32) -> Option<BorrowedFd<'_>> {
        match &self.sockets {
            Sockets::Own(listeners) => listeners.get(slot as usize)?.as_ref().map(AsFd::as_fd),
            Sockets::Shared(file) => Some(file.as_fd()),
            Sockets::Activated(listener) => Some(listener.as_fd()),
            Sockets::Closed => None,
        }
    }
}

/// Opens `count` listeners and puts the real port into `address`.
fn open_ports(address: &mut SocketAddr, count: u32) -> io::Result<Vec<Option<TcpListener>>> {
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
        listeners.push(Some(listener));
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
    use crate::config::proxies::Proxies;
    use crate::config::url;

    fn open(url: &str, count: u32) -> Result<Slots, Failure> {
        let listen = Listen {
            url: url::parse(url).expect("a URL"),
            handler: Handler::Echo,
            word: "echo".into(),
            tls: None,
            proxies: Proxies::default(),
            workers: count,
            connections: 0,
            accepts_per_second: 0,
            root: None,
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
    fn a_slot_that_rests_gets_nobody_and_is_back_on_the_same_port() {
        let mut slots = open("http://127.0.0.1:0", 2).unwrap();
        let Place::Inet(address) = slots.url.place else {
            panic!("an address");
        };
        let listener = |slots: &Slots, slot| {
            let socket = slots.socket(slot)?.try_clone_to_owned().unwrap();
            Some(TcpListener::from(socket))
        };
        slots.close(0);
        assert!(slots.socket(0).is_none());
        for _ in 0..20 {
            let _client = std::net::TcpStream::connect(address).unwrap();
            let accepted = listener(&slots, 1).unwrap().accept();
            assert!(accepted.is_ok(), "the one that is left gets all");
        }
        slots.close(1);
        assert!(slots.socket(1).is_some(), "the last one stays");
        slots.reopen(0).unwrap();
        let again = listener(&slots, 0).unwrap().local_addr().unwrap();
        assert_eq!(again, address);
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
