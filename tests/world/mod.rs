//! A server in one thread and in virtual time: real nodes, joined to each other and to clients by
//! pipes that split, delay and cut bytes as chance has it. Nothing here decides for the server.

#![allow(dead_code)] // each test program uses its part

pub mod apps;
pub mod client;
pub mod redis;
mod time;
pub mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lineman::app::apps::Apps;
use lineman::app::cors::Cors;
use lineman::app::handler::Handler;
use lineman::base::dice::Dice;
use lineman::base::files::NoFile;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::base::now::{Moment, Now};
use lineman::node::switchboard::{Switchboard, SwitchboardOptions};
use lineman::node::worker::{Listener, Worker, WorkerOptions};
use lineman::node::{Ending, Node, Origin, Output, Peer};
use lineman::realtime::registry::LinkId;
use lineman::wire::control::Order;
use lineman::wire::protocol::Protocol;

use client::{Client, Speech};

pub const APP_ID: &str = "demo";
pub const KEY: &str = "demo-key";
pub const SECRET: &str = "demo-secret";

/// The listeners of every worker.
pub const LISTENERS: [Listener; 5] = [
    listener(Protocol::Http, Handler::Channels),
    listener(Protocol::Http, Handler::Echo),
    listener(Protocol::Lines, Handler::Channels),
    listener(Protocol::Frames, Handler::Channels),
    listener(Protocol::Http, Handler::Metrics),
];

const fn listener(protocol: Protocol, handler: Handler) -> Listener {
    Listener {
        protocol,
        handler,
        forwarding: None,
    }
}

/// 2026-01-01, so that signatures have a plausible clock.
const START_UNIX_MS: u64 = 1_767_225_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Process(usize, ConnId),
    /// In the queue of the switchboard's listener, which outlives it.
    Backlog,
    Client(usize),
    Redis,
}

/// One direction of a pipe.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// The sender will send nothing more.
    shut: bool,
    /// The receiver was told so.
    told: bool,
}

struct Pipe {
    ends: [End; 2],
    /// `ways[i]` carries what `ends[i]` sent.
    ways: [Way; 2],
    closed: [bool; 2],
}

struct Process {
    id: LinkId,
    node: Box<dyn Node>,
    pipes: BTreeMap<u32, (u32, usize)>,
    next_slot: u32,
}

/// See the file's head.
pub struct World {
    pub now: Now,
    dice: Dice,
    limits: Limits,
    workers: usize,
    /// Workers first, then the switchboard, then those that succeeded workers; `None` while dead.
    processes: Vec<Option<Process>>,
    /// The slot of each process after the switchboard.
    successors: Vec<u32>,
    /// How many processes were started.
    lives: u32,
    pipes: BTreeMap<usize, Pipe>,
    next_pipe: usize,
    pub clients: Vec<Client>,
    /// What a pipe's kernel buffer takes in one direction.
    kernel_bytes: usize,
    /// Bytes carried per step: everything at once, or as chance has it.
    random_cuts: bool,
    /// Where the cluster meets, and which of its worlds this is.
    redis: Option<redis::Shared>,
    number: usize,
}

impl World {
    /// Starts all processes.
    pub fn new(workers: usize, limits: Limits, seed: u64, random_cuts: bool) -> World {
        World::made((workers, limits), seed, random_cuts, None)
    }

    /// One server of a cluster, by its number there.
    pub fn in_cluster(
        server: (usize, Limits),
        seed: u64,
        redis: redis::Shared,
        number: usize,
    ) -> World {
        World::made(server, seed, true, Some((redis, number)))
    }

    fn made(
        (workers, limits): (usize, Limits),
        seed: u64,
        random_cuts: bool,
        cluster: Option<(redis::Shared, usize)>,
    ) -> World {
        let (redis, number) = cluster.unzip();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut world = World {
            now: Now {
                moment: Moment::from_micros(1_000_000),
                unix_ms: START_UNIX_MS,
            },
            dice: Dice::new(bytes),
            limits,
            workers,
            processes: (0..=workers).map(|_| None).collect(),
            successors: Vec::new(),
            lives: 0,
            pipes: BTreeMap::new(),
            next_pipe: 0,
            clients: Vec::new(),
            kernel_bytes: 64 * 1024,
            random_cuts,
            redis,
            number: number.unwrap_or(0),
        };
        if random_cuts {
            // Small ones too: what is not with the kernel dies with its process.
            world.kernel_bytes = 16 << world.dice.below(9);
        }
        for index in 0..=workers {
            world.start(index);
        }
        world
    }

    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    pub fn switchboard(&self) -> usize {
        self.workers
    }

    pub fn is_alive(&self, process: usize) -> bool {
        self.processes[process].is_some()
    }

    /// (Re)starts a dead process.
    pub fn start(&mut self, index: usize) {
        assert!(self.processes[index].is_none(), "only the dead are started");
        let seed = self.dice.next_u128().to_le_bytes();
        self.lives += 1;
        let id = LinkId::new(self.slot_of(index), self.lives);
        let node: Box<dyn Node> = if index == self.workers {
            let options = SwitchboardOptions {
                links_expected: self.workers as u32,
                living: self.processes.iter().flatten().map(|it| it.id).collect(),
                limits: self.limits.clone(),
                watched: Default::default(),
                cluster: self.redis.is_some().then(redis::options),
                seed,
            };
            Box::new(Switchboard::new(options, self.now))
        } else {
            let options = WorkerOptions {
                slot: id.slot,
                life: id.life,
                listeners: LISTENERS.to_vec(),
                apps: Apps::new([APP_ID, "quiet", "strict"].map(apps::app).to_vec()),
                demo_page: None,
                services: Default::default(),
                limits: self.limits.clone(),
                deflate: None,
                cors: Cors::default(),
                seed,
            };
            Box::new(Worker::new(options, self.now))
        };
        self.processes[index] = Some(Process {
            id,
            node,
            pipes: BTreeMap::new(),
            next_slot: 0,
        });
        if index == self.workers {
            self.accept_backlog();
        }
        self.drain(index);
    }

    /// The switchboard is back and finds who dialled meanwhile.
    fn accept_backlog(&mut self) {
        let waiting: Vec<usize> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.ends[1] == End::Backlog)
            .map(|(index, _)| *index)
            .collect();
        for index in waiting {
            let conn = self.seat(self.workers, index);
            self.next_pipe += 1;
            let pipe = self.pipes.get_mut(&index).expect("listed");
            pipe.ends[1] = End::Process(self.workers, conn);
            let now = self.now;
            let switchboard = self.processes[self.workers].as_mut().expect("alive");
            switchboard.node.opened(conn, Origin::Link, now);
        }
    }

    fn slot_of(&self, index: usize) -> u32 {
        match index.checked_sub(self.workers + 1) {
            None => index as u32,
            Some(later) => self.successors[later],
        }
    }

    /// The process that takes new connections of the slot: the youngest.
    pub fn holder(&self, slot: usize) -> usize {
        let later = self.successors.iter().rposition(|it| *it == slot as u32);
        later.map_or(slot, |later| self.workers + 1 + later)
    }

    /// Starts another process for the slot, beside the one that holds it.
    pub fn succeed(&mut self, slot: usize) -> usize {
        self.successors.push(slot as u32);
        self.processes.push(None);
        let index = self.processes.len() - 1;
        self.start(index);
        index
    }

    /// The master's order to a worker to let its clients go.
    pub fn order_drain(&mut self, index: usize, window: Duration) {
        if self.processes[index].is_none() {
            return;
        }
        // What it reports goes nowhere.
        self.next_pipe += 1;
        let conn = self.seat(index, usize::MAX);
        let now = self.now;
        let node = &mut self.processes[index].as_mut().expect("alive").node;
        node.opened(conn, Origin::Master, now);
        let mut order = Order::Drain { window }.encode();
        node.received(conn, &mut order, now);
        self.drain(index);
    }

    /// SIGKILL: what it had handed to the kernel still arrives, nothing else does.
    pub fn kill(&mut self, index: usize) {
        let Some(process) = self.processes[index].take() else {
            return;
        };
        for (_, pipe) in process.pipes.into_values() {
            self.close_end(
                pipe,
                |end| matches!(end, End::Process(owner, _) if *owner == index),
            );
        }
    }

    /// A new client, connected to one of a worker's `LISTENERS`.
    pub fn connect(&mut self, worker: usize, listener: usize) -> usize {
        let index = self.clients.len();
        let speech = match LISTENERS[listener].protocol {
            Protocol::Lines => Speech::Lines,
            Protocol::Frames => Speech::Frames,
            _ => Speech::Http,
        };
        self.clients.push(Client::new(index, speech));
        self.join(End::Client(index), worker, Origin::client(listener, None));
        index
    }

    /// The client sends bytes.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        if let Some((pipe, side)) = self.pipe_of(client) {
            self.pipes.get_mut(&pipe).expect("found").ways[side]
                .bytes
                .extend(bytes);
        }
    }

    /// The client sends a message in what it speaks.
    pub fn say(&mut self, client: usize, message: &str) {
        let bytes = self.clients[client].speech.message(message);
        self.send(client, &bytes);
    }

    /// The client closes its socket.
    pub fn disconnect(&mut self, client: usize) {
        if let Some((pipe, _)) = self.pipe_of(client) {
            self.close_end(pipe, |end| *end == End::Client(client));
        }
        self.clients[client].gone = true;
    }

    fn pipe_of(&self, client: usize) -> Option<(usize, usize)> {
        self.pipes.iter().find_map(|(index, pipe)| {
            let side = pipe
                .ends
                .iter()
                .position(|end| *end == End::Client(client))?;
            (!pipe.closed[side]).then_some((*index, side))
        })
    }

    fn join(&mut self, from: End, process: usize, origin: Origin) {
        let pipe = self.next_pipe;
        self.next_pipe += 1;
        let conn = self.seat(process, pipe);
        self.pipes.insert(
            pipe,
            Pipe {
                ends: [from, End::Process(process, conn)],
                ways: Default::default(),
                closed: [false; 2],
            },
        );
        let now = self.now;
        let target = self.processes[process].as_mut().expect("alive");
        target.node.opened(conn, origin, now);
    }

    fn join_redis(&mut self, pipe: usize, from: End) {
        self.next_pipe += 1;
        let ends = [from, End::Redis];
        let (ways, closed) = Default::default();
        self.pipes.insert(pipe, Pipe { ends, ways, closed });
    }

    fn seat(&mut self, process: usize, pipe: usize) -> ConnId {
        let generation = self.next_pipe as u32;
        let process = self.processes[process].as_mut().expect("alive");
        // Slots are reused, as a reactor does.
        let free = (0..process.next_slot).find(|slot| !process.pipes.contains_key(slot));
        let slot = free.unwrap_or(process.next_slot);
        process.next_slot = process.next_slot.max(slot + 1);
        process.pipes.insert(slot, (generation, pipe));
        ConnId::new(slot, generation)
    }

    fn close_end(&mut self, pipe: usize, is_own: impl Fn(&End) -> bool) {
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

    /// Carries out everything a process wants done.
    fn drain(&mut self, index: usize) {
        loop {
            let now = self.now;
            let Some(process) = self.processes[index].as_mut() else {
                return;
            };
            match process.node.poll_output(now) {
                None => return,
                Some(Output::Flush(conn)) => self.flush(index, conn),
                Some(Output::Close(conn, ending)) => {
                    if ending == Ending::Flushed {
                        self.flush_all(index, conn);
                    }
                    self.close_conn(index, conn);
                }
                Some(Output::Dial(Peer::Switchboard)) => self.dial(index),
                Some(Output::OpenFile(conn)) => {
                    process.node.file_opened(conn, Err(NoFile::Absent), now);
                }
                Some(Output::ReadFile(..) | Output::CloseFile(_)) => {}
                Some(Output::Dial(Peer::Outside(dial))) => self.dial_redis(index, dial),
                Some(Output::Dial(Peer::Courier) | Output::HangUp(_) | Output::AskStore) => {
                    unreachable!("no handler of these workers dials")
                }
                Some(Output::StopAccepting | Output::ReadCertificates) => {}
                Some(Output::Quit) => {
                    self.kill(index);
                    return;
                }
            }
        }
    }

    fn dial(&mut self, index: usize) {
        let now = self.now;
        let pipe = self.next_pipe;
        let conn = self.seat(index, pipe);
        let from = End::Process(index, conn);
        if self.is_alive(self.workers) {
            self.join(from, self.workers, Origin::Link);
        } else {
            self.next_pipe += 1;
            let ends = [from, End::Backlog];
            let (ways, closed) = Default::default();
            self.pipes.insert(pipe, Pipe { ends, ways, closed });
        }
        let process = self.processes[index].as_mut().expect("alive");
        process
            .node
            .opened(conn, Origin::Dialled(Peer::Switchboard), now);
        if self.is_alive(self.workers) {
            self.drain(self.workers);
        }
    }

    fn own_pipe(&self, index: usize, conn: ConnId) -> Option<(usize, usize)> {
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
    fn flush(&mut self, index: usize, conn: ConnId) {
        self.flush_up_to(index, conn, self.kernel_bytes);
    }

    fn flush_all(&mut self, index: usize, conn: ConnId) {
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

    fn close_conn(&mut self, index: usize, conn: ConnId) {
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
            End::Backlog => false,
            End::Redis => self.is_redis_awake(),
            End::Process(index, conn) => self.processes[index]
                .as_ref()
                .is_some_and(|p| p.node.wants_input(conn)),
        }
    }

    /// Carries some bytes over one pipe; false when there is nothing to carry.
    pub fn carry(&mut self) -> bool {
        self.hear_from_redis();
        let busy = self.busy_ways();
        if busy.is_empty() {
            return false;
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
        match receiver {
            End::Redis => self.tell_redis(index, &bytes),
            _ => self.hand_over(receiver, &mut bytes, ended),
        }
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
            End::Backlog | End::Redis => unreachable!("nobody reads there"),
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
}
