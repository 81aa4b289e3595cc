//! A node whose work is counted, and nothing around it.

use lineman::base::bytes::Outbox;
use lineman::base::counters::Counters;
use lineman::base::ids::{ConnId, DialId};
use lineman::base::now::{Moment, Now};
use lineman::node::{Node, Origin, Output, Peer};
use lineman::push::facts::{StoreReply, StoreRequest};
use lineman::wire::target::Target;

/// Callgrind collects from here until it returns: it knows the name.
#[inline(never)]
pub fn counted_turn<T>(work: impl FnOnce() -> T) -> T {
    // A result that is looked at afterwards keeps this from becoming a jump.
    std::hint::black_box(work())
}

/// What is done for it without being counted: setting up, and what is not of the path.
pub struct Counted<N> {
    pub node: N,
    pub is_counting: bool,
}

impl<N> Counted<N> {
    pub fn new(node: N) -> Counted<N> {
        Counted {
            node,
            is_counting: false,
        }
    }

    fn turn<T>(&mut self, work: impl FnOnce(&mut N) -> T) -> T {
        match self.is_counting {
            true => counted_turn(|| work(&mut self.node)),
            false => work(&mut self.node),
        }
    }
}

impl<N: Node> Node for Counted<N> {
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now) {
        self.turn(|node| node.opened(conn, origin, now));
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        self.turn(|node| node.received(conn, bytes, now));
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        self.turn(|node| node.hung_up(conn, now));
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        self.turn(|node| node.closed(conn, now));
    }

    fn target(&mut self, dial: DialId) -> Option<Target> {
        self.turn(|node| node.target(dial))
    }

    fn agreed(&mut self, dial: DialId, protocol: Option<&[u8]>) {
        self.turn(|node| node.agreed(dial, protocol));
    }

    fn unreachable(&mut self, peer: Peer, why: &str, now: Now) {
        self.turn(|node| node.unreachable(peer, why, now));
    }

    fn certificates_read(&mut self, outcome: Result<(), String>) {
        self.turn(|node| node.certificates_read(outcome));
    }

    fn store_request(&mut self) -> Option<StoreRequest> {
        self.turn(|node| node.store_request())
    }

    fn stored(&mut self, reply: StoreReply, now: Now) {
        self.turn(|node| node.stored(reply, now));
    }

    fn elapsed(&mut self, now: Now) {
        self.turn(|node| node.elapsed(now));
    }

    fn drained(&mut self, conn: ConnId, now: Now) {
        self.turn(|node| node.drained(conn, now));
    }

    fn wants_input(&self, conn: ConnId) -> bool {
        self.node.wants_input(conn)
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.node.outbox(conn)
    }

    fn poll_output(&mut self, now: Now) -> Option<Output> {
        self.turn(|node| node.poll_output(now))
    }

    fn poll_fan_out(&mut self, now: Now) -> Option<Output> {
        self.turn(|node| node.poll_fan_out(now))
    }

    fn fan_out_left(&self) -> usize {
        self.node.fan_out_left()
    }

    fn deadline(&self) -> Option<Moment> {
        self.node.deadline()
    }

    fn counters(&mut self) -> &mut Counters {
        self.node.counters()
    }
}
