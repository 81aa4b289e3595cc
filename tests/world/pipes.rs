//! The pipes of a world: what is on its way between processes, clients and receivers, and how it
//! moves, in pieces and an order as chance has it.

use std::collections::VecDeque;

use lineman::base::ids::ConnId;

use super::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Process(usize, ConnId),
    /// In the queue of a dead process's listener, which outlives it.
    Backlog(usize),
    Client(usize),
    /// A connection of a server outside.
    Receiver(usize),
}

/// One direction of a pipe.
#[derive(Default)]
pub(super) struct Way {
    pub(super) bytes: VecDeque<u8>,
    /// The sender will send nothing more.
    pub(super) shut: bool,
    /// The receiver was told so.
    pub(super) told: bool,
}

pub(super) struct Pipe {
    pub(super) ends: [End; 2],
    /// `ways[i]` carries what `ends[i]` sent.
    pub(super) ways: [Way; 2],
    pub(super) closed: [bool; 2],
}

impl World {
    pub(super) fn close_end(&mut self, pipe: usize, is_own: impl Fn(&End) -> bool) {
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            let side = pipe
                .ends
                .iter()
                .position(is_own)
                .expect("an end of the pipe");
            pipe.closed[side] = true;
            pipe.ways[side].shut = true;
            pipe.ways[1 - side].bytes.clear();
        }
    }

    pub(super) fn own_pipe(&self, index: usize, conn: ConnId) -> Option<(usize, usize)> {
        let (generation, pipe) = *self.processes[index].as_ref()?.pipes.get(&conn.slot)?;
        let side = self
            .pipes
            .get(&pipe)?
            .ends
            .iter()
            .position(|end| *end == End::Process(index, conn))?;
        (generation == conn.generation).then_some((pipe, side))
    }

    /// Moves from the outbox into the kernel's buffer what that takes.
    pub(super) fn flush(&mut self, index: usize, conn: ConnId) {
        self.flush_up_to(index, conn, self.kernel_bytes);
    }

    pub(super) fn flush_all(&mut self, index: usize, conn: ConnId) {
        self.flush_up_to(index, conn, usize::MAX);
    }

    fn flush_up_to(&mut self, index: usize, conn: ConnId, bytes_max: usize) {
        let Some((pipe, side)) = self.own_pipe(index, conn) else {
            return;
        };
        let pipe = self.pipes.get_mut(&pipe).expect("found");
        let process = self.processes[index].as_mut().expect("found");
        let Some(outbox) = process.node.outbox(conn) else {
            return;
        };
        let way = &mut pipe.ways[side];
        while !outbox.is_empty() && way.bytes.len() < bytes_max {
            let mut slices = [std::io::IoSlice::new(&[])];
            outbox.slices(&mut slices);
            let count = slices[0].len().min(bytes_max - way.bytes.len());
            if !pipe.closed[1 - side] {
                way.bytes.extend(&slices[0][..count]);
            }
            outbox.advance(count);
        }
        if outbox.take_awaited() {
            process.node.drained(conn, self.now);
        }
    }

    pub(super) fn close_conn(&mut self, index: usize, conn: ConnId) {
        let Some((pipe, _)) = self.own_pipe(index, conn) else {
            return;
        };
        self.close_end(pipe, |end| *end == End::Process(index, conn));
        let now = self.now;
        let process = self.processes[index].as_mut().expect("found");
        process.pipes.remove(&conn.slot);
        process.node.closed(conn, now);
    }

    /// Ways with something to carry: the pipe and the sending side.
    fn busy_ways(&self) -> Vec<(usize, usize)> {
        let mut busy = Vec::new();
        for (index, pipe) in &self.pipes {
            for side in 0..2 {
                let way = &pipe.ways[side];
                let something = !way.bytes.is_empty() || (way.shut && !way.told);
                if something && !pipe.closed[1 - side] && self.is_willing(pipe.ends[1 - side]) {
                    busy.push((*index, side));
                }
            }
        }
        busy
    }

    fn is_willing(&self, end: End) -> bool {
        match end {
            End::Client(client) => !self.clients[client].stalled,
            End::Backlog(_) => false,
            End::Receiver(_) => true,
            End::Process(index, conn) => self.processes[index]
                .as_ref()
                .is_some_and(|p| p.node.wants_input(conn)),
        }
    }

    /// Carries some bytes over one pipe; false when there is nothing to carry.
    pub fn carry(&mut self) -> bool {
        let busy = self.busy_ways();
        if busy.is_empty() {
            return self.turn_disk();
        }
        // A disk is slower than a socket, mostly.
        if self.random_cuts && self.outside.is_some() && self.dice.below(8) == 0 {
            self.turn_disk();
        }
        let choice = if self.random_cuts {
            self.dice.below(busy.len() as u64) as usize
        } else {
            0
        };
        let (index, side) = busy[choice];
        let pipe = self.pipes.get_mut(&index).expect("busy");
        let way = &mut pipe.ways[side];
        let all = way.bytes.len();
        let count = if self.random_cuts && self.dice.below(3) > 0 {
            1 + self.dice.below(all.max(1) as u64) as usize
        } else {
            all
        };
        let mut bytes: Vec<u8> = way.bytes.drain(..count.min(all)).collect();
        let ended = way.shut && way.bytes.is_empty();
        way.told |= ended;
        let (sender, receiver) = (pipe.ends[side], pipe.ends[1 - side]);
        self.hand_over(receiver, &mut bytes, ended);
        if let End::Process(process, conn) = sender {
            self.flush(process, conn);
            self.drain(process);
        }
        self.forget_finished(index);
        true
    }

    fn hand_over(&mut self, receiver: End, bytes: &mut [u8], ended: bool) {
        let now = self.now;
        match receiver {
            End::Client(client) => {
                self.clients[client].receive(bytes, ended);
                let reply = std::mem::take(&mut self.clients[client].reply);
                self.send(client, &reply);
            }
            End::Backlog(_) => unreachable!("nobody reads there"),
            End::Receiver(conn) => self.receive_outside(conn, bytes, ended),
            End::Process(index, conn) => {
                if let Some(process) = self.processes[index].as_mut()
                    && !bytes.is_empty()
                {
                    process.node.received(conn, bytes, now);
                    self.drain(index);
                }
                if ended && self.own_pipe(index, conn).is_some() {
                    let process = self.processes[index].as_mut().expect("found");
                    process.node.hung_up(conn, now);
                    self.drain(index);
                }
            }
        }
    }

    fn forget_finished(&mut self, index: usize) {
        if self
            .pipes
            .get(&index)
            .is_some_and(|pipe| pipe.closed == [true; 2])
        {
            self.pipes.remove(&index);
        }
    }

    /// Carries until nothing is on its way.
    pub fn carry_all(&mut self) {
        for _ in 0..1_000_000 {
            if !self.carry() {
                return;
            }
        }
        panic!("the bytes never come to rest");
    }
}
