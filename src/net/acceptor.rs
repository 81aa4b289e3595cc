//! A listening socket: who comes out of it, and whether it is left alone for now.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use crate::base::networks::Networks;
use crate::base::now::Moment;
use crate::net::admission::{Permit, Resting};
use crate::net::arrival::Arriving;
use crate::net::sockets::Listening;
use crate::net::stream::Stream;
use crate::net::tls::ServerTls;
use crate::net::transport::Transport;
use crate::node::Origin;

/// How long to leave listeners alone when descriptors run out or one is full, unless a connection
/// of this reactor closes.
pub const PAUSE: Duration = Duration::from_millis(250);

enum Listener {
    Clients {
        index: usize,
        listener: TcpListener,
    },
    LocalClients {
        index: usize,
        listener: UnixListener,
    },
    Links {
        listener: UnixListener,
        admit: fn(&StdUnixStream) -> bool,
    },
}

pub struct Acceptor {
    /// `None` once closed.
    listener: Option<Listener>,
    /// What the connections to come are secured with.
    tls: Option<ServerTls>,
    /// Only they may come, and say for whom.
    proxies: Option<Networks>,
    /// There may be connections in the queue.
    ready: bool,
    /// Not asked until then.
    rests: Option<Moment>,
    /// Rests because it is full, and nobody was accepted since.
    full: bool,
}

/// What accepting brought.
pub enum Accepting {
    /// With what it was admitted by, if it is a client.
    Accepted(Transport, Origin, Option<Permit>),
    /// The same from a proxy, which is to say for whom it is.
    Arriving(Transport, Arriving, Option<Permit>),
    /// It came from elsewhere than the listener's proxies and was turned away.
    Untrusted(Option<SocketAddr>),
    /// The queue is empty; an event will tell.
    Nothing,
    /// The listener was asked for none and rests from now on; others may have some.
    Rests(Resting),
    /// This one was lost or turned away; there may be others.
    Lost,
    /// The process or the system is out of what a connection needs.
    Exhausted(io::Error),
}

impl Acceptor {
    pub fn new(
        listening: Listening,
        admit: fn(&StdUnixStream) -> bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Acceptor> {
        let (mut listener, proxies) = match listening {
            Listening::Clients {
                index,
                listener,
                proxies,
            } => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener);
                (Listener::Clients { index, listener }, proxies)
            }
            Listening::LocalClients {
                index,
                listener,
                proxies,
            } => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener);
                (Listener::LocalClients { index, listener }, proxies)
            }
            Listening::Links { listener } => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener);
                (Listener::Links { listener, admit }, None)
            }
        };
        match &mut listener {
            Listener::Clients { listener, .. } => {
                listener.register(registry, token, Interest::READABLE)?;
            }
            Listener::LocalClients { listener, .. } | Listener::Links { listener, .. } => {
                listener.register(registry, token, Interest::READABLE)?;
            }
        }
        // What queued before we registered gives no event.
        Ok(Acceptor {
            listener: Some(listener),
            tls: None,
            proxies,
            ready: true,
            rests: None,
            full: false,
        })
    }

    /// The place of the listener in the configuration; `None` when it is not for clients.
    pub fn index(&self) -> Option<usize> {
        match &self.listener {
            Some(Listener::Clients { index, .. } | Listener::LocalClients { index, .. }) => {
                Some(*index)
            }
            Some(Listener::Links { .. }) | None => None,
        }
    }

    /// Leaves the listener alone for a while; whether that is news.
    pub fn rest(&mut self, resting: Resting, now: Moment) -> bool {
        let (pause, begins) = match resting {
            Resting::Full => (PAUSE, !std::mem::replace(&mut self.full, true)),
            Resting::Paced(wait) => (wait, true),
        };
        self.rests = Some(now + pause);
        begins
    }

    /// Until when it rests with connections that wait.
    pub fn rests(&self) -> Option<Moment> {
        self.rests.filter(|_| self.ready)
    }

    /// Somebody left.
    pub fn resume(&mut self) {
        self.rests = None;
    }

    /// From now on, connections are secured with what `all` has for this listener. Those that
    /// stand keep what they began with.
    pub fn secure(&mut self, all: &[Option<ServerTls>]) {
        match &self.listener {
            Some(Listener::Clients { index, .. } | Listener::LocalClients { index, .. }) => {
                self.tls = all.get(*index).cloned().flatten();
            }
            Some(Listener::Links { .. }) | None => {}
        }
    }

    /// An event came.
    pub fn wake(&mut self) {
        self.ready = self.listener.is_some();
    }

    pub fn is_ready(&self, now: Moment) -> bool {
        self.ready && self.rests.is_none_or(|until| until <= now)
    }

    pub fn accept(&mut self) -> Accepting {
        let Some(listener) = &self.listener else {
            return Accepting::Nothing;
        };
        let accepted = match listener {
            Listener::Clients { index, listener } => listener
                .accept()
                .and_then(|(stream, address)| tcp(stream, *index, address)),
            Listener::LocalClients { index, listener } => {
                let origin = Origin::client(*index, None);
                let accepted = listener.accept();
                accepted.map(|(stream, _)| (Stream::Unix(stream), origin))
            }
            Listener::Links { listener, admit } => match listener.accept() {
                Ok((stream, _)) => match admitted(stream, *admit) {
                    Some(stream) => Ok((Stream::Unix(stream), Origin::Link)),
                    None => return Accepting::Lost,
                },
                Err(error) => Err(error),
            },
        };
        match accepted {
            Ok((stream, origin)) => {
                self.full = false;
                self.welcome(stream, origin)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    self.ready = false;
                    Accepting::Nothing
                }
                ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::NotConnected => Accepting::Lost,
                _ => Accepting::Exhausted(error),
            },
        }
    }

    fn welcome(&self, stream: Stream, origin: Origin) -> Accepting {
        if let (Some(proxies), Origin::Client { peer, .. }) = (&self.proxies, origin)
            && !proxies.contains(peer.map(|peer| peer.ip()))
        {
            return Accepting::Untrusted(peer);
        }
        match (Transport::accepted(stream, self.tls.as_ref()), origin) {
            (Ok(transport), Origin::Client { listener, peer, .. }) if self.proxies.is_some() => {
                Accepting::Arriving(transport, Arriving::new(listener, peer), None)
            }
            (Ok(transport), origin) => Accepting::Accepted(transport, origin, None),
            (Err(_), _) => Accepting::Lost,
        }
    }

    pub fn close(&mut self, registry: &Registry) {
        self.ready = false;
        // The master keeps the socket open unless nobody is to come any more; then it ends with
        // ours, and whoever tries is refused instead of left waiting.
        let _ = match self.listener.take() {
            Some(Listener::Clients { mut listener, .. }) => listener.deregister(registry),
            Some(
                Listener::LocalClients { mut listener, .. } | Listener::Links { mut listener, .. },
            ) => listener.deregister(registry),
            None => Ok(()),
        };
    }
}

fn tcp(
    stream: mio::net::TcpStream,
    listener: usize,
    address: SocketAddr,
) -> io::Result<(Stream, Origin)> {
    stream
        .set_nodelay(true)
        .map_err(|_| io::Error::from(ErrorKind::ConnectionAborted))?;
    Ok((Stream::Tcp(stream), Origin::client(listener, Some(address))))
}

/// Only our own processes may link up.
fn admitted(stream: UnixStream, admit: fn(&StdUnixStream) -> bool) -> Option<UnixStream> {
    let stream = StdUnixStream::from(std::os::fd::OwnedFd::from(stream));
    if admit(&stream) {
        Some(UnixStream::from_std(stream))
    } else {
        log::warn!("a process of another user tried to link up and was turned away");
        None
    }
}
