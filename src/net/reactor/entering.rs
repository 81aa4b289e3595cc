//! How connections come in: accepted, admitted, arriving through a proxy, told to the node. The
//! rest of the turn knows only those that are in. Invariant: whatever was admitted is given back
//! when it does not stay.

use std::io;

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::net::acceptor::Accepting;
use crate::net::admission::{Permit, Refused, Resting};
use crate::net::arrival::{Arrival, Arriving, shown};
use crate::net::reactor::Reactor;
use crate::net::transport::Transport;
use crate::node::{Node, Origin};

/// Connections accepted per turn, so that a storm does not starve those who are here.
const ACCEPTS: usize = 64;

impl<N: Node> Reactor<N> {
    pub(super) fn accept(&mut self, now: Now) {
        for _ in 0..ACCEPTS {
            match self.acceptors.accept(self.connections.len(), now) {
                Accepting::Accepted(transport, origin, permit) => {
                    self.admit(transport, origin, permit, now);
                }
                Accepting::Arriving(transport, arriving, permit) => {
                    if let Err(error) = self.take_in(transport, Some(arriving), permit, now) {
                        self.pause_accepting(&error, now);
                    }
                }
                Accepting::Untrusted(peer) => {
                    log::debug!("{} is refused: it is no trusted proxy", shown(peer));
                    self.node.counters().proxy_untrusted += 1;
                }
                Accepting::Rests(Resting::Full) => self.node.counters().listener_full += 1,
                Accepting::Rests(Resting::Paced(_)) => self.node.counters().listener_paced += 1,
                Accepting::Lost => {}
                Accepting::Nothing => break,
                Accepting::Exhausted(error) => return self.pause_accepting(&error, now),
            }
        }
    }

    /// Takes in a connection that was accepted, unless its address has had enough.
    fn admit(
        &mut self,
        transport: Transport,
        origin: Origin,
        mut permit: Option<Permit>,
        now: Now,
    ) {
        if let Err(refused) = self.acceptors.identify(permit.as_mut(), &origin, now) {
            self.count_refused(refused);
            self.give_back(permit);
            self.tarpit.hold(transport, now.moment);
        } else if let Err(error) = self.add(transport, origin, permit, now) {
            self.pause_accepting(&error, now);
        }
    }

    fn count_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Connections => self.node.counters().refused_connections += 1,
            Refused::Rate => self.node.counters().refused_rate += 1,
        }
    }

    fn pause_accepting(&mut self, reason: &io::Error, now: Now) {
        let connections = self.connections.len();
        if self.acceptors.pause(reason, connections, now.moment) {
            self.node.counters().accept_pauses += 1;
        }
    }

    pub(super) fn add(
        &mut self,
        transport: Transport,
        origin: Origin,
        permit: Option<Permit>,
        now: Now,
    ) -> io::Result<ConnId> {
        let conn = self.take_in(transport, None, permit, now)?;
        self.node.opened(conn, origin, now);
        Ok(conn)
    }

    /// Takes a connection in, of which the node learns at once or when it has arrived.
    fn take_in(
        &mut self,
        transport: Transport,
        arriving: Option<Arriving>,
        permit: Option<Permit>,
        now: Now,
    ) -> io::Result<ConnId> {
        let arrives = arriving.is_some();
        let handshaking = arrives || transport.is_handshaking();
        let registry = self.poll.registry();
        let conn = match self.connections.add(transport, arriving, registry) {
            Ok(conn) => conn,
            Err(error) => {
                self.give_back(permit);
                return Err(error);
            }
        };
        if let Some(connection) = self.connections.get(conn) {
            connection.permit = permit;
        }
        if arrives {
            self.arriving += 1;
            self.node.arriving(self.arriving);
        }
        if handshaking {
            self.handshakes_due.begin(conn, now.moment);
        }
        Ok(conn)
    }

    /// Reads what there is of a PROXY header. When it is whole, the node learns of the connection.
    pub(super) fn arrive(&mut self, conn: ConnId, now: Now) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let Some(mut arriving) = connection.arriving.take() else {
            return;
        };
        match arriving.read(connection.transport.stream_mut()) {
            Arrival::Waits => connection.arriving = Some(arriving),
            Arrival::Refused(why) => {
                log::debug!("{} is refused: {why}", shown(arriving.peer()));
                connection.arriving = Some(arriving);
                self.node.counters().proxy_failed += 1;
                self.kill(conn, now);
            }
            Arrival::Complete(origin) => {
                let permit = connection.permit.as_mut();
                if let Err(refused) = self.acceptors.identify(permit, &origin, now) {
                    connection.arriving = Some(arriving);
                    self.count_refused(refused);
                    return self.kill(conn, now);
                }
                // What followed in the same packet gives no event of its own.
                connection.unread = true;
                connection.listed = true;
                match connection.transport.is_handshaking() {
                    true => self.handshakes.push_back(conn),
                    false => self.again.push_back(conn),
                }
                self.node.opened(conn, origin, now);
                self.arriving -= 1;
                self.node.arriving(self.arriving);
            }
        }
    }

    pub(super) fn give_back(&self, permit: Option<Permit>) {
        if let Some(permit) = permit {
            self.acceptors.leave(permit);
        }
    }
}
