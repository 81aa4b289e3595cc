//! The sockets of one reactor by id. Invariant: a slot is reused only after `free_dead`, with
//! another generation, so that a stale event finds nobody.

use std::io;

use mio::{Registry, Token};
use slab::Slab;

use crate::base::ids::ConnId;
use crate::net::admission::Permit;
use crate::net::arrival::Arriving;
use crate::net::transport::Transport;

pub struct Connection {
    pub transport: Transport,
    generation: u32,
    /// The kernel may have bytes that were not read: no event will tell again.
    pub unread: bool,
    /// An event told that the peer sends no more, or of an error: it is read from until the kernel
    /// says so as well, since no other event will come.
    pub end_seen: bool,
    /// On the list of those to read from in the next turn.
    pub listed: bool,
    pub phase: Phase,
    /// Of one that was accepted, until it is gone.
    pub permit: Option<Permit>,
    /// The node does not know of it yet. Apart, because few connections are so for long.
    pub arriving: Option<Box<Arriving>>,
}

impl Connection {
    /// Whether something is to come before the first byte for the node.
    pub fn is_handshaking(&self) -> bool {
        self.arriving.is_some() || self.transport.is_handshaking()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// The node wants it ended once its outbox is written.
    Draining,
    /// Everything was written; waits for the peer to close.
    Lingering,
    /// Gone; its slot is freed at the end of the turn.
    Dead,
}

/// What is left of a connection that was ended.
pub struct Killed {
    /// What it was admitted with.
    pub permit: Option<Permit>,
    /// The node knew of it.
    pub known: bool,
}

pub struct Connections {
    slots: Slab<Connection>,
    generation: u32,
    dead: Vec<ConnId>,
}

impl Connections {
    pub fn new() -> Connections {
        Connections {
            slots: Slab::new(),
            generation: 0,
            dead: Vec::new(),
        }
    }

    /// With those that are dead and not freed yet.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// A living one.
    pub fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(conn.slot as usize)?;
        (connection.generation == conn.generation && connection.phase != Phase::Dead)
            .then_some(connection)
    }

    /// Takes one in and lets `registry` tell of it.
    pub fn add(
        &mut self,
        mut transport: Transport,
        arriving: Option<Arriving>,
        registry: &Registry,
    ) -> io::Result<ConnId> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let conn = ConnId::new(entry.key() as u32, self.generation);
        transport.register(registry, token(conn))?;
        entry.insert(Connection {
            transport,
            generation: self.generation,
            unread: false,
            end_seen: false,
            listed: false,
            phase: Phase::Open,
            permit: None,
            arriving: arriving.map(Box::new),
        });
        Ok(conn)
    }

    /// Ends one now, if it lives; its slot stays taken until `free_dead`.
    pub fn kill(&mut self, conn: ConnId, registry: &Registry) -> Option<Killed> {
        let connection = self.get(conn)?;
        connection.phase = Phase::Dead;
        connection.transport.deregister(registry);
        let killed = Killed {
            permit: connection.permit.take(),
            known: connection.arriving.is_none(),
        };
        self.dead.push(conn);
        Some(killed)
    }

    /// Whether there were any.
    pub fn free_dead(&mut self) -> bool {
        let freed = !self.dead.is_empty();
        for conn in self.dead.drain(..) {
            self.slots.remove(conn.slot as usize);
        }
        freed
    }
}

/// How the poll calls a connection.
pub fn token(conn: ConnId) -> Token {
    Token(conn.to_u64() as usize)
}
