//! A whole role without its sockets. `net` drives a node with what sockets do, a simulation drives
//! the same node with what it imagines; the node decides everything and performs nothing.

pub mod courier;
mod lines;
pub mod mock;
pub mod switchboard;
pub mod worker;

use std::net::SocketAddr;

use crate::base::bytes::Outbox;
use crate::base::counters::Counters;
use crate::base::files::{FileFacts, FilePart, NoFile};
use crate::base::ids::{ConnId, DialId};
use crate::base::now::{Moment, Now};
use crate::push::facts::{StoreReply, StoreRequest};
use crate::wire::target::{ClientTls, Target};

/// Whom a node may dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Switchboard,
    /// The courier, about webhooks.
    Courier,
    /// The courier, about calls of the push gateway.
    Gateway,
    /// A server of somebody else's; `Node::target` tells where.
    Outside(DialId),
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Accepted from a client on the listener with this index in the configuration.
    Client {
        listener: usize,
        /// The client's own address, as far as it is known.
        address: Option<SocketAddr>,
        /// The other end of the socket: the same, or a proxy that said so. `None` through a Unix
        /// socket.
        peer: Option<SocketAddr>,
    },
    /// Accepted from another process of ours.
    Link,
    /// The node asked for it with `Output::Dial`.
    Dialled(Peer),
    /// The pair that joins this reactor to the master.
    Master,
}

impl Origin {
    /// A client without a proxy, or with one that says nothing.
    pub fn client(listener: usize, peer: Option<SocketAddr>) -> Origin {
        Origin::Client {
            listener,
            address: peer,
            peer,
        }
    }

    /// Of a client, as far as it is known.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Origin::Client { address, .. } => *address,
            Origin::Link | Origin::Dialled(_) | Origin::Master => None,
        }
    }
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Write what is queued, say goodbye, give the peer a moment to take it.
    Flushed,
    /// Now, with whatever is queued lost.
    Cut,
}

/// What a node wants done. The driver does it before it asks for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The outbox has bytes.
    Flush(ConnId),
    /// The driver answers with `closed`, at once or after flushing.
    Close(ConnId, Ending),
    /// The driver answers with `opened`, once the connection stands with TLS and all, or with
    /// `unreachable`; for one outside within the time that its target allows.
    Dial(Peer),
    /// Forget this dial; no answer is wanted.
    HangUp(DialId),
    /// Take in no more clients; the others stay.
    StopAccepting,
    /// Read the certificates anew, for connections to come; the driver answers with
    /// `certificates_read`.
    ReadCertificates,
    /// Open what `file_wanted` tells; the driver answers with `file_opened`.
    OpenFile(ConnId),
    /// Read these bytes of the connection's file; the driver answers with `file_read`.
    ReadFile(ConnId, FilePart),
    /// The connection's file is not needed any more.
    CloseFile(ConnId),
    /// Hand what `store_request` tells to the store; the driver answers with `stored`.
    AskStore,
    /// End the reactor.
    Quit,
}

/// One role: a worker, the switchboard or the courier.
///
/// Every call may produce outputs; the driver drains them with `poll_output` before it waits.
pub trait Node {
    /// A connection stands. Its id stays valid until `closed`.
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now);

    /// So many connections are accepted and will be `opened` once a proxy has said for whom they
    /// are, unless they break off before.
    fn arriving(&mut self, _count: usize) {}

    /// `bytes` arrived. The node may change them in place and keeps what it could not use yet.
    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now);

    /// The peer will send nothing more; it may still read.
    fn hung_up(&mut self, conn: ConnId, now: Now);

    /// The connection is gone, for whatever reason; called exactly once.
    fn closed(&mut self, conn: ConnId, now: Now);

    /// Where this dial leads; `None` when it was given up. Asked once, on `Output::Dial`.
    fn target(&mut self, _dial: DialId) -> Option<Target> {
        None
    }

    /// What is said of ourselves on the way there, if that is over TLS.
    fn client_tls(&mut self, _dial: DialId) -> ClientTls {
        ClientTls::default()
    }

    /// The protocol that TLS agreed on (ALPN), before `opened`.
    fn agreed(&mut self, _dial: DialId, _protocol: Option<&[u8]>) {}

    /// Dialling failed; `why` is for people.
    fn unreachable(&mut self, peer: Peer, why: &str, now: Now);

    /// Certificates were read anew, or could not be and the old ones stay.
    fn certificates_read(&mut self, outcome: Result<(), String>);

    /// The listener of a connection, by its place in the configuration, and the path below its root
    /// that `Output::OpenFile` is about.
    fn file_wanted(&mut self, _conn: ConnId) -> Option<(usize, String)> {
        None
    }

    /// What came of `Output::OpenFile`.
    fn file_opened(&mut self, _conn: ConnId, _file: Result<FileFacts, NoFile>, _now: Now) {}

    /// The bytes that `Output::ReadFile` asked for; `None`: the file is not what it was.
    fn file_read(&mut self, _conn: ConnId, _bytes: Option<&[u8]>, _now: Now) {}

    /// What the store is asked. Asked once, on `Output::AskStore`.
    fn store_request(&mut self) -> Option<StoreRequest> {
        None
    }

    /// What came of it.
    fn stored(&mut self, _reply: StoreReply, _now: Now) {}

    /// `deadline` has passed.
    fn elapsed(&mut self, now: Now);

    /// An outbox for which `take_awaited` was true.
    fn drained(&mut self, _conn: ConnId, _now: Now) {}

    /// Whether more bytes of this connection are welcome now. While not, the driver leaves them
    /// in the kernel and asks again after the outbox moved or an output was drained.
    fn wants_input(&self, conn: ConnId) -> bool;

    /// The bytes to write; `None` for an unknown connection.
    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox>;

    /// The next thing to do, until `None`. Called again after outputs were carried out, so that
    /// a node may wait for bytes to be with the kernel.
    fn poll_output(&mut self, now: Now) -> Option<Output>;

    /// The same for what is left of fan-outs to many. The driver asks when `poll_output` has nothing,
    /// and only so often in a turn that whoever has something to say meanwhile is heard; then
    /// `poll_output` first, again.
    fn poll_fan_out(&mut self, _now: Now) -> Option<Output> {
        None
    }

    /// How many connections wait for `poll_fan_out`, at most. While there are any, the driver goes
    /// on without waiting.
    fn fan_out_left(&self) -> usize {
        0
    }

    /// When `elapsed` is due.
    fn deadline(&self) -> Option<Moment>;

    /// The driver's own observations go here.
    fn counters(&mut self) -> &mut Counters;
}
