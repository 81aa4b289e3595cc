//! How a reactor reaches others: processes of ours, servers outside, its store. A part of the loop
//! (`reactor.rs`), which says when.

use std::io;

use mio::net::UnixStream;

use crate::base::ids::DialId;
use crate::base::now::Now;
use crate::net::dialler::Outcome;
use crate::net::reactor::Reactor;
use crate::net::stream::Stream;
use crate::net::transport::Transport;
use crate::node::{Node, Origin, Peer};

impl<N: Node> Reactor<N> {
    pub(super) fn take_stored(&mut self, now: Now) {
        while let Some(reply) = self.store.as_mut().and_then(|store| store.next()) {
            self.node.stored(reply, now);
        }
    }

    /// Connects to another process of ours.
    pub(super) fn dial_ours(&mut self, peer: Peer, now: Now) {
        let path = match peer {
            Peer::Courier | Peer::Gateway => self.courier.as_ref(),
            _ => self.switchboard.as_ref(),
        };
        let stream = match path {
            Some(path) => UnixStream::connect(path),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let added = stream.and_then(|stream| {
            let transport = Transport::Plain(Stream::Unix(stream));
            self.add(transport, Origin::Dialled(peer), None, now)
        });
        if let Err(error) = added {
            let why = error.to_string();
            self.node.unreachable(peer, &why, now);
        }
    }

    /// Goes on with what is dialled outside. What an application dials in answer to an outcome is
    /// looked at in the next turn.
    pub(super) fn take_dialled(&mut self, now: Now) {
        let registry = self.poll.registry();
        self.dialler.turn(now.moment, registry, &mut self.buffers);
        for _ in 0..self.dialler.outcomes() {
            if let Some((dial, outcome)) = self.dialler.next() {
                self.dialled(dial, outcome, now);
            }
        }
    }

    fn dialled(&mut self, dial: DialId, outcome: Outcome, now: Now) {
        let peer = Peer::Outside(dial);
        if let Outcome::Reached { protocol, .. } = &outcome {
            self.node.agreed(dial, protocol.as_deref());
        }
        match outcome {
            Outcome::Failed(why) => self.node.unreachable(peer, &why, now),
            Outcome::Reached {
                transport,
                mut early,
                end,
                ..
            } => match self.add(transport, Origin::Dialled(peer), None, now) {
                Err(error) => self.node.unreachable(peer, &error.to_string(), now),
                Ok(conn) => {
                    if !early.is_empty() {
                        self.node.received(conn, &mut early, now);
                    }
                    if end {
                        self.ended(conn, now);
                    }
                }
            },
        }
    }
}
