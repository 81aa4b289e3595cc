//! All listeners of a reactor, and when they are not asked: one of them while it is full or its
//! clients come too fast, none of them at the connection limit or when descriptors ran out.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use mio::Registry;

use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::net::acceptor::{Accepting, Acceptor, PAUSE};
use crate::net::admission::{Admission, Permit, Refused, Resting};
use crate::net::connections::token;
use crate::net::sockets::Listening;
use crate::net::tls::ServerTls;
use crate::node::Origin;

/// Ids from this slot on are listeners; no slab grows that far.
const FIRST_SLOT: u32 = u32::MAX - 1024;

pub struct Acceptors {
    acceptors: Vec<Acceptor>,
    connections_max: usize,
    /// Accepting rests until then, or until a connection closes.
    paused: Option<Moment>,
    /// Said in the log already; not again until one was accepted.
    rests: bool,
    admission: Admission,
}

impl Acceptors {
    pub fn new(
        listening: Vec<Listening>,
        admit: fn(&StdUnixStream) -> bool,
        admission: Admission,
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
            admission,
        })
    }

    /// An event came for `id`; whether that is a listener.
    pub fn wake(&mut self, id: ConnId) -> bool {
        let index = id.slot.checked_sub(FIRST_SLOT);
        let acceptor = index.and_then(|index| self.acceptors.get_mut(index as usize));
        acceptor.map(Acceptor::wake).is_some()
    }

    /// Whether the next turn, which begins with so many connections, could accept at once.
    pub fn is_ready(&self, connections: usize, now: Moment) -> bool {
        let may_accept = self.paused.is_none() && connections < self.connections_max;
        may_accept && self.acceptors.iter().any(|one| one.is_ready(now))
    }

    /// Until when accepting rests, at all or at one of the listeners.
    pub fn paused(&self) -> Option<Moment> {
        let rests = self.acceptors.iter().filter_map(Acceptor::rests).min();
        self.paused.or(rests)
    }

    /// The connection's address is known: whether it may stay. One that may not is to be closed,
    /// with the permit given back as ever.
    pub fn identify(
        &self,
        permit: Option<&mut Permit>,
        origin: &Origin,
        now: Now,
    ) -> Result<(), Refused> {
        match (permit, origin.address()) {
            (Some(permit), Some(address)) => self.admission.identify(permit, address.ip(), now),
            _ => Ok(()),
        }
    }

    /// An accepted connection is gone.
    pub fn leave(&self, permit: Permit) {
        self.admission.leave(permit);
    }

    /// The next connection that waits, while there are `connections`.
    pub fn accept(&mut self, connections: usize, now: Now) -> Accepting {
        if self.paused.is_some_and(|until| until > now.moment) {
            return Accepting::Nothing;
        }
        self.paused = None;
        while let Some(acceptor) = self
            .acceptors
            .iter_mut()
            .find(|one| one.is_ready(now.moment))
        {
            if connections >= self.connections_max {
                // Those who wait in the kernel's queue are served when somebody leaves.
                return Accepting::Exhausted(io::Error::other("the connection limit is reached"));
            }
            match admitted(acceptor, &self.admission, now) {
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
        self.acceptors.iter_mut().for_each(Acceptor::resume);
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

/// Accepts one connection, if its listener may have one more.
fn admitted(acceptor: &mut Acceptor, admission: &Admission, now: Now) -> Accepting {
    let Some(index) = acceptor.index() else {
        return acceptor.accept();
    };
    let permit = match admission.enter(index, now) {
        Ok(permit) => permit,
        Err(resting) => {
            if !acceptor.rest(resting, now.moment) {
                return Accepting::Nothing;
            }
            if resting == Resting::Full {
                log::warn!("listener {index} rests: it has as many connections as it may");
            }
            return Accepting::Rests(resting);
        }
    };
    match acceptor.accept() {
        Accepting::Accepted(transport, origin, _) => {
            admission.accepted(index, now);
            Accepting::Accepted(transport, origin, Some(permit))
        }
        Accepting::Arriving(transport, arriving, _) => {
            admission.accepted(index, now);
            Accepting::Arriving(transport, arriving, Some(permit))
        }
        other => {
            admission.leave(permit);
            other
        }
    }
}
