//! All listeners of a reactor, and when none of them is asked: at the connection limit, or when
//! descriptors ran out.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use mio::Registry;

use crate::base::ids::ConnId;
use crate::base::now::Moment;
use crate::net::acceptor::{Accepting, Acceptor};
use crate::net::connections::token;
use crate::net::sockets::Listening;
use crate::net::tls::ServerTls;

/// How long to leave the listeners alone when descriptors run out, unless a connection closes.
const PAUSE: Duration = Duration::from_millis(250);

/// Ids from this slot on are listeners; no slab grows that far.
const FIRST_SLOT: u32 = u32::MAX - 1024;

pub struct Acceptors {
    acceptors: Vec<Acceptor>,
    connections_max: usize,
    /// Accepting rests until then, or until a connection closes.
    paused: Option<Moment>,
    /// Said in the log already; not again until one was accepted.
    rests: bool,
}

impl Acceptors {
    pub fn new(
        listening: Vec<Listening>,
        admit: fn(&StdUnixStream) -> bool,
        connections_max: usize,
        registry: &Registry,
    ) -> io::Result<Acceptors> {
        let mut acceptors = Vec::new();
        for (index, listening) in listening.into_iter().enumerate() {
            let token = token(ConnId::new(FIRST_SLOT + index as u32, 0));
            acceptors.push(Acceptor::new(listening, admit, registry, token)?);
        }
        Ok(Acceptors {
            acceptors,
            connections_max,
            paused: None,
            rests: false,
        })
    }

    /// An event came for `id`; whether that is a listener.
    pub fn wake(&mut self, id: ConnId) -> bool {
        let index = id.slot.checked_sub(FIRST_SLOT);
        let acceptor = index.and_then(|index| self.acceptors.get_mut(index as usize));
        acceptor.map(Acceptor::wake).is_some()
    }

    /// Whether the next turn, which begins with so many connections, could accept at once.
    pub fn is_ready(&self, connections: usize) -> bool {
        let may_accept = self.paused.is_none() && connections < self.connections_max;
        may_accept && self.acceptors.iter().any(Acceptor::is_ready)
    }

    /// Until when accepting rests.
    pub fn paused(&self) -> Option<Moment> {
        self.paused
    }

    /// The next connection that waits, while there are `connections`.
    pub fn accept(&mut self, connections: usize, now: Moment) -> Accepting {
        if self.paused.is_some_and(|until| until > now) {
            return Accepting::Nothing;
        }
        self.paused = None;
        while let Some(acceptor) = self.acceptors.iter_mut().find(|one| one.is_ready()) {
            if connections >= self.connections_max {
                // Those who wait in the kernel's queue are served when somebody leaves.
                return Accepting::Exhausted(io::Error::other("the connection limit is reached"));
            }
            match acceptor.accept() {
                Accepting::Nothing => {}
                accepting => {
                    let come =
                        matches!(accepting, Accepting::Accepted(..) | Accepting::Arriving(..));
                    self.rests &= !come;
                    return accepting;
                }
            }
        }
        Accepting::Nothing
    }

    /// Accepting is to rest; whether it did not already.
    pub fn pause(&mut self, reason: &io::Error, connections: usize, now: Moment) -> bool {
        self.paused = Some(now + PAUSE);
        let begins = !std::mem::replace(&mut self.rests, true);
        if begins {
            log::warn!("accepting rests with {connections} connections: {reason}");
        }
        begins
    }

    /// A connection closed, which makes room.
    pub fn resume(&mut self) {
        self.paused = None;
    }

    /// See `Acceptor::secure`.
    pub fn secure(&mut self, all: &[Option<ServerTls>]) {
        for acceptor in &mut self.acceptors {
            acceptor.secure(all);
        }
    }

    pub fn close(&mut self, registry: &Registry) {
        for acceptor in &mut self.acceptors {
            acceptor.close(registry);
        }
    }
}
