//! The only loop of a role: wait, read, let the node decide, write, sleep. Edge-triggered; every
//! connection is registered once for both directions. No read buffer is held for anybody: one
//! scratch buffer serves all.
//!
//! Invariants: a slot is reused only in a later turn than the one it was freed in. An output is
//! carried out before the next is asked for. What a turn leaves undone (a full read, a full accept
//! queue, a fan-out to many) is on a list, and the next wait does not block.

mod entering;
mod reaching;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mio::net::UnixStream;
use mio::{Events, Poll};

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::net::acceptors::Acceptors;
use crate::net::clock::Clock;
use crate::net::connections::{Connections, Phase};
use crate::net::deadlines::Deadlines;
use crate::net::dialler::Dialler;
use crate::net::files::Files;
use crate::net::secured::Handshake;
use crate::net::sockets::{Sockets, Tls};
use crate::net::stream::Stream;
use crate::net::tarpit::Tarpit;
use crate::net::transport::{Buffers, Reading, Transport};
use crate::net::waves::Waves;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::push::facts::Store;

/// Read at most this much from one connection per turn.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads from a peer that takes nothing more; the kernel holds less.
const LAST_READS: usize = 64;
/// Events taken per wait.
const EVENTS: usize = 1024;
/// Steps of handshakes computed per turn, for the same reason: each costs as much as the messages
/// of a hundred others. The rest wait their turn in the order in which they came.
const HANDSHAKES: usize = 16;
/// Connections that are written their part of a fan-out to many in one turn. The others wait for the
/// next ones, and whoever has something to say meanwhile does not wait for all of them.
const FAN_OUT: usize = 512;
/// So many bytes written count as much as one connection.
const FAN_OUT_BYTES: usize = 4096;
/// How long a peer that was sent everything gets to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// The links to the master and to the switchboard are not clients.
const OWN_CONNECTIONS: usize = 2;

/// See the file's head.
pub struct Reactor<N: Node> {
    node: N,
    poll: Poll,
    clock: Clock,
    connections: Connections,
    /// Of which the node does not know yet.
    arriving: usize,
    acceptors: Acceptors,
    dialler: Dialler,
    switchboard: Option<PathBuf>,
    courier: Option<PathBuf>,
    store: Option<Box<dyn Store>>,
    buffers: Buffers,
    tls: Tls,
    lines_dropped: fn() -> u64,
    files: Files,
    /// To be read from again although no event came.
    again: VecDeque<ConnId>,
    /// The same for those in a handshake or arriving, which are read from a few in each turn.
    handshakes: VecDeque<ConnId>,
    /// When to cut those still in a handshake.
    handshakes_due: Deadlines,
    /// Not read from because the node did not want input.
    unwanted: Vec<ConnId>,
    /// Fan-outs that are not all written.
    waves: Waves,
    /// Those who were refused.
    tarpit: Tarpit,
    /// When to cut those who still drain.
    draining: Deadlines,
    /// When to cut those who linger.
    lingering: Deadlines,
    quit: bool,
}

impl<N: Node> Reactor<N> {
    pub fn new(
        node: N,
        sockets: Sockets,
        connections_max: usize,
        clock: Clock,
    ) -> io::Result<Reactor<N>> {
        let poll = Poll::new()?;
        let acceptors = Acceptors::new(
            sockets.listening,
            sockets.admit,
            sockets.admission,
            connections_max.saturating_add(OWN_CONNECTIONS),
            poll.registry(),
        )?;
        let mut dialler = Dialler::default();
        let store = match sockets.store {
            Some(start) => Some(start(dialler.waker(poll.registry())?)?),
            None => None,
        };
        let mut reactor = Reactor {
            node,
            poll,
            clock,
            connections: Connections::new(),
            arriving: 0,
            acceptors,
            dialler,
            switchboard: sockets.switchboard,
            courier: sockets.courier,
            store,
            buffers: Buffers::new(SCRATCH_BYTES),
            again: VecDeque::new(),
            handshakes: VecDeque::new(),
            handshakes_due: Deadlines::new(sockets.tls.handshake),
            unwanted: Vec::new(),
            waves: Waves::default(),
            tarpit: sockets.tarpit,
            draining: Deadlines::new(sockets.write),
            lingering: Deadlines::new(LINGER),
            tls: sockets.tls,
            lines_dropped: sockets.lines_dropped,
            files: Files::new(sockets.roots),
            quit: false,
        };
        if let Some(master) = sockets.master {
            master.set_nonblocking(true)?;
            let stream = Stream::Unix(UnixStream::from_std(master));
            let now = reactor.clock.now();
            reactor.add(Transport::Plain(stream), Origin::Master, None, now)?;
        }
        reactor.secure().map_err(io::Error::other)?;
        Ok(reactor)
    }

    /// Turns until the node quits.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let now = self.clock.now();
        self.carry_out(now);
        while !self.quit {
            let timeout = self.timeout(self.clock.now());
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.turn(&events);
        }
        Ok(())
    }

    fn turn(&mut self, events: &Events) {
        let now = self.clock.now();
        let deliveries = self.node.counters().deliveries;
        let again = self.again.len();
        for event in events {
            let id = ConnId::from_u64(event.token().0 as u64);
            if self.acceptors.wake(id) || self.dialler.wake(id) {
                continue;
            }
            if event.is_writable() {
                self.flush(id, now);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.mark_unread(id, event.is_read_closed() || event.is_error());
                if self.queue_handshake(id) {
                    continue;
                }
                self.read(id, now);
            }
        }
        for _ in 0..again {
            if let Some(conn) = self.again.pop_front() {
                self.read_again(conn, now);
            }
        }
        for _ in 0..self.handshakes.len().min(HANDSHAKES) {
            if let Some(conn) = self.handshakes.pop_front() {
                self.read_again(conn, now);
            }
        }
        if self
            .node
            .deadline()
            .is_some_and(|deadline| deadline <= now.moment)
        {
            self.node.elapsed(now);
        }
        self.tarpit.release(now.moment);
        self.cut_overdue(now);
        self.cut_handshakes(now);
        // Before anybody is taken in: a node that quits because nobody is left must not get guests.
        self.carry_out(now);
        self.accept(now);
        self.take_dialled(now);
        self.take_stored(now);
        self.carry_out(now);
        self.fan_out(now);
        self.ask_the_unwanted();
        self.free_dead();
        self.measure(now, deliveries);
    }

    /// A turn is over that began at `start`; so many deliveries were made before it.
    fn measure(&mut self, start: Now, deliveries: u64) {
        let left = self.node.fan_out_left();
        let end = self.clock.now().moment;
        let counters = self.node.counters();
        counters.turned(end.since(start.moment));
        counters.log_lines_dropped = (self.lines_dropped)();
        let made = counters.deliveries - deliveries;
        self.waves.rise(start.moment, made, left);
        while let Some((began, deliveries)) = self.waves.next_over() {
            counters.fanned_out(end.since(began), deliveries);
        }
    }

    /// How long to wait: not at all when something was left undone.
    fn timeout(&self, now: Now) -> Option<Duration> {
        let queued = self.acceptors.is_ready(self.connections.len(), now.moment);
        let undone = !self.again.is_empty() || !self.handshakes.is_empty();
        if queued || undone || self.node.fan_out_left() > 0 {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.node.deadline(),
            self.acceptors.paused(),
            self.dialler.deadline(),
            self.draining.earliest(),
            self.lingering.earliest(),
            self.handshakes_due.earliest(),
            self.tarpit.deadline(),
        ];
        let earliest = deadlines.into_iter().flatten().min()?;
        Some(earliest.since(now.moment))
    }

    fn mark_unread(&mut self, conn: ConnId, end_seen: bool) {
        if let Some(connection) = self.connections.get(conn) {
            connection.unread = true;
            connection.end_seen |= end_seen;
        }
    }

    /// Puts a connection in a handshake on the list of those; whether it is in one.
    fn queue_handshake(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get(conn) else {
            return false;
        };
        if !connection.is_handshaking() {
            return false;
        }
        if !connection.listed {
            connection.listed = true;
            self.handshakes.push_back(conn);
        }
        true
    }

    /// Reads once into the reactor's buffer and hands it on. A short read has emptied the kernel's
    /// queue, and what comes later is a new event; except for an end that was seen already.
    fn read(&mut self, conn: ConnId, now: Now) {
        let wanted = self.node.wants_input(conn);
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let open = connection.phase == Phase::Open;
        if (open && !wanted) || !connection.transport.wants_input() {
            if !connection.listed {
                connection.listed = true;
                self.unwanted.push(conn);
            }
            return;
        }
        match connection.transport.read(&mut self.buffers) {
            Reading::Bytes {
                bytes,
                more,
                end,
                handshake,
            } => {
                let more = more || connection.end_seen;
                connection.unread = more;
                if more && !connection.listed {
                    connection.listed = true;
                    match connection.transport.is_handshaking() {
                        true => self.handshakes.push_back(conn),
                        false => self.again.push_back(conn),
                    }
                }
                if open && !bytes.is_empty() {
                    self.node.received(conn, bytes, now);
                }
                if let Some(handshake) = handshake {
                    handshake.count(self.node.counters());
                    // What was to be said meanwhile.
                    self.flush(conn, now);
                }
                if end {
                    self.ended(conn, now);
                }
            }
            Reading::Nothing => connection.unread = false,
            Reading::End => {
                connection.unread = false;
                self.ended(conn, now);
            }
            Reading::Broken => self.kill(conn, now),
        }
    }

    /// The peer will send nothing more.
    fn ended(&mut self, conn: ConnId, now: Now) {
        match self
            .connections
            .get(conn)
            .map(|connection| connection.phase)
        {
            Some(Phase::Open) => self.node.hung_up(conn, now),
            Some(Phase::Lingering) => self.kill(conn, now),
            _ => {}
        }
    }

    fn read_again(&mut self, conn: ConnId, now: Now) {
        if let Some(connection) = self.connections.get(conn) {
            connection.listed = false;
            if connection.arriving.is_some() {
                self.arrive(conn, now);
            } else if connection.unread {
                self.read(conn, now);
            }
        }
    }

    /// Those whose input was not wanted may be read from again once it is.
    fn ask_the_unwanted(&mut self) {
        let waiting = std::mem::take(&mut self.unwanted);
        for conn in waiting {
            let wanted = self.node.wants_input(conn);
            let Some(connection) = self.connections.get(conn) else {
                continue;
            };
            let wanted = wanted && connection.transport.wants_input();
            if wanted || connection.phase != Phase::Open {
                self.again.push_back(conn);
            } else {
                self.unwanted.push(conn);
            }
        }
    }

    /// Writes what waits; ends the connection if that was all it was kept for.
    fn flush(&mut self, conn: ConnId, now: Now) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        let Some(outbox) = self.node.outbox(conn) else {
            return;
        };
        let (transport, buffers) = (&mut connection.transport, &mut self.buffers);
        let finished = match connection.phase {
            Phase::Draining => transport.finish(outbox, buffers),
            _ => transport.flush(outbox, buffers).map(|()| false),
        };
        let Ok(finished) = finished else {
            return self.lose(conn, now);
        };
        let drained = outbox.take_awaited();
        if finished {
            self.linger(conn, now);
        }
        if drained {
            self.node.drained(conn, now);
        }
    }

    /// The peer takes nothing more. What it said before is heard all the same: events of a link
    /// that broke were promised to somebody.
    fn lose(&mut self, conn: ConnId, now: Now) {
        self.mark_unread(conn, true);
        for _ in 0..LAST_READS {
            let connection = self.connections.get(conn);
            if !connection.is_some_and(|connection| connection.unread) {
                break;
            }
            self.read(conn, now);
        }
        self.kill(conn, now);
    }

    /// Everything was written: ends our side and waits for the peer to do the same, so that no
    /// reset overtakes the last bytes (RFC 9112 section 9.6).
    fn linger(&mut self, conn: ConnId, now: Now) {
        let Some(connection) = self.connections.get(conn) else {
            return;
        };
        connection.phase = Phase::Lingering;
        let shut = connection.transport.shut_sending();
        if shut.is_err() {
            return self.kill(conn, now);
        }
        self.lingering.begin(conn, now.moment);
        self.mark_unread(conn, true);
        self.read(conn, now);
    }

    /// Writes some of what is left of fan-outs to many.
    fn fan_out(&mut self, now: Now) {
        let waited = self.node.fan_out_left();
        let mut room = FAN_OUT;
        while room > 0
            && let Some(output) = self.node.poll_fan_out(now)
        {
            let waiting = self.waiting(output);
            self.perform(output, now);
            let written = waiting.saturating_sub(self.waiting(output));
            room = room.saturating_sub(1 + written / FAN_OUT_BYTES);
        }
        if room < FAN_OUT {
            let left = self.node.fan_out_left();
            self.waves.roll(waited.saturating_sub(left));
            self.carry_out(now);
        }
    }

    /// Bytes that an output would have written.
    fn waiting(&mut self, output: Output) -> usize {
        match output {
            Output::Flush(conn) => self.node.outbox(conn).map_or(0, |outbox| outbox.len()),
            _ => 0,
        }
    }

    fn carry_out(&mut self, now: Now) {
        while let Some(output) = self.node.poll_output(now) {
            self.perform(output, now);
        }
    }

    fn perform(&mut self, output: Output, now: Now) {
        match output {
            Output::Flush(conn) => self.flush(conn, now),
            Output::Close(conn, Ending::Cut) => self.kill(conn, now),
            Output::Close(conn, Ending::Flushed) => {
                if let Some(connection) = self.connections.get(conn) {
                    connection.phase = Phase::Draining;
                    self.draining.begin(conn, now.moment);
                    self.flush(conn, now);
                }
            }
            Output::Dial(peer @ (Peer::Switchboard | Peer::Courier | Peer::Gateway)) => {
                self.dial_ours(peer, now);
            }
            Output::Dial(Peer::Outside(dial)) => {
                if let Some(target) = self.node.target(dial) {
                    let client = self.node.client_tls(dial);
                    let registry = self.poll.registry();
                    let to = (target, &client);
                    self.dialler.begin(dial, to, now.moment, registry);
                }
            }
            Output::HangUp(dial) => self.dialler.give_up(dial),
            Output::StopAccepting => {
                self.acceptors.close(self.poll.registry());
            }
            Output::ReadCertificates => {
                let outcome = self.secure();
                self.node.certificates_read(outcome);
            }
            Output::OpenFile(conn) => {
                if let Some((listener, path)) = self.node.file_wanted(conn) {
                    let opened = self.files.open(conn, listener, &path);
                    self.node.file_opened(conn, opened, now);
                }
            }
            Output::ReadFile(conn, part) => {
                self.node.file_read(conn, self.files.read(conn, part), now);
            }
            Output::CloseFile(conn) => self.files.close(conn),
            Output::AskStore => {
                if let (Some(store), Some(request)) = (&mut self.store, self.node.store_request()) {
                    store.ask(request);
                }
            }
            Output::Quit => self.quit = true,
        }
    }

    /// Reads what new connections are secured with. When that fails, what there was stays.
    fn secure(&mut self) -> Result<(), String> {
        if let Some(read) = &self.tls.read {
            let all = read()?;
            self.acceptors.secure(&all);
        }
        Ok(())
    }

    /// Ends a connection now.
    fn kill(&mut self, conn: ConnId, now: Now) {
        let Some(killed) = self.connections.kill(conn, self.poll.registry()) else {
            return;
        };
        self.give_back(killed.permit);
        self.files.close(conn);
        match killed.known {
            true => self.node.closed(conn, now),
            false => {
                self.arriving -= 1;
                self.node.arriving(self.arriving);
            }
        }
    }

    /// Ends those whose time to take the last bytes is up.
    fn cut_overdue(&mut self, now: Now) {
        while let Some(conn) = self.draining.overdue(now.moment, |conn| {
            let connection = self.connections.get(conn);
            connection.is_some_and(|connection| connection.phase == Phase::Draining)
        }) {
            self.node.counters().closed_unread += 1;
            self.kill(conn, now);
        }
        while let Some(conn) = self
            .lingering
            .overdue(now.moment, |conn| self.connections.get(conn).is_some())
        {
            self.kill(conn, now);
        }
    }

    /// Ends handshakes and arrivals that take too long, and forgets those that are over.
    fn cut_handshakes(&mut self, now: Now) {
        while let Some(conn) = self.handshakes_due.overdue(now.moment, |conn| {
            let connection = self.connections.get(conn);
            connection.is_some_and(|connection| connection.is_handshaking())
        }) {
            let connection = self.connections.get(conn);
            match connection.is_some_and(|connection| connection.arriving.is_some()) {
                true => self.node.counters().proxy_failed += 1,
                false => Handshake::Late.count(self.node.counters()),
            }
            self.kill(conn, now);
        }
    }

    fn free_dead(&mut self) {
        if self.connections.free_dead() {
            self.acceptors.resume();
        }
    }
}
