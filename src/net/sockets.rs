//! What a reactor starts with: the sockets that were handed to its process, and how to secure what
//! it accepts. Values only; `reactor` brings them to life.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use crate::base::networks::Networks;
use crate::net::admission::Admission;
use crate::net::files::Root;
use crate::net::tarpit::Tarpit;
use crate::net::tls::ServerTls;
use crate::push::facts::Store;

/// A listening socket to accept from, opened by the master.
pub enum Listening {
    /// `index`: of the listener in the configuration. `proxies`: only they may connect, and begin
    /// with a PROXY header.
    Clients {
        index: usize,
        listener: StdTcpListener,
        proxies: Option<Networks>,
    },
    /// The same through a Unix socket, which other reactors accept from too.
    LocalClients {
        index: usize,
        listener: StdUnixListener,
        proxies: Option<Networks>,
    },
    /// For other processes of ours.
    Links { listener: StdUnixListener },
}

/// The sockets a reactor starts with.
pub struct Sockets {
    pub listening: Vec<Listening>,
    pub master: Option<StdUnixStream>,
    /// Where `Peer::Switchboard` is dialled.
    pub switchboard: Option<PathBuf>,
    /// Where `Peer::Courier` and `Peer::Gateway` are dialled.
    pub courier: Option<PathBuf>,
    /// What `Output::AskStore` asks, for the node that has one.
    pub store: Option<StartStore>,
    /// Whether the peer of an accepted link is a process of ours.
    pub admit: fn(&StdUnixStream) -> bool,
    pub tls: Tls,
    /// Who may come in.
    pub admission: Admission,
    /// Where those wait who may not.
    pub tarpit: Tarpit,
    /// Time for a peer to take what was queued for it before the end.
    pub write: Duration,
    /// Lines of this process that the log could not take, for one of its reactors to tell.
    pub lines_dropped: fn() -> u64,
    /// What each listener serves, by its index; empty when none serves files.
    pub roots: Vec<Option<Root>>,
}

/// Reads what the listeners with TLS are secured with, by their index.
pub type ReadTls = Box<dyn Fn() -> Result<Vec<Option<ServerTls>>, String> + Send>;

/// Opens a store that wakes the reactor when it has a reply.
pub type StartStore = Box<dyn FnOnce(Arc<Waker>) -> io::Result<Box<dyn Store>> + Send>;

/// TLS for some of the listeners.
pub struct Tls {
    /// Called at the start and when the certificates are to be read anew; `None` without TLS.
    pub read: Option<ReadTls>,
    /// Time for a handshake.
    pub handshake: Duration,
}
