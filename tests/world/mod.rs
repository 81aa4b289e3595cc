//! A server in one thread and in virtual time: real nodes, joined to each other and to clients by
//! pipes that split, delay and cut bytes as chance has it. Nothing here decides for the server.

#![allow(dead_code)] // each test program uses its part

pub mod apps;
pub mod belief;
pub mod client;
pub mod courier;
mod pipes;
pub mod reader;
pub mod redis;
mod streams;
pub mod view;

use std::collections::BTreeMap;
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
use courier::Outside;
use pipes::{End, Pipe};

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

/// Of processes that are no workers.
const NO_SLOT: u32 = u32::MAX;

/// 2026-01-01, so that signatures have a plausible clock.
const START_UNIX_MS: u64 = 1_767_225_600_000;

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
    /// Workers first, then the switchboard, the courier, and those that succeeded workers; `None`
    /// while dead.
    processes: Vec<Option<Process>>,
    /// The slot of each process after the courier.
    successors: Vec<u32>,
    /// The courier's disk and the servers that it calls, in a world with webhooks.
    pub outside: Option<Outside>,
    /// How many processes were started.
    lives: u32,
    pipes: BTreeMap<usize, Pipe>,
    next_pipe: usize,
    pub clients: Vec<Client>,
    /// Processes that were killed for a while, and the step at which each comes back.
    dead: Vec<(usize, u64)>,
    /// What a pipe's kernel buffer takes in one direction.
    kernel_bytes: usize,
    /// Bytes carried per step: everything at once, or as chance has it.
    random_cuts: bool,
    /// Where the cluster meets, and which of its worlds this is.
    redis: Option<redis::Shared>,
    number: usize,
}

impl World {
    /// Starts all processes of a server without webhooks.
    pub fn new(workers: usize, limits: Limits, seed: u64, random_cuts: bool) -> World {
        World::with(workers, limits, seed, random_cuts, None)
    }

    /// With webhooks, if there is an outside.
    pub fn with(
        workers: usize,
        limits: Limits,
        seed: u64,
        random_cuts: bool,
        outside: Option<Outside>,
    ) -> World {
        World::made((workers, limits), seed, random_cuts, outside, None)
    }

    /// One server of a cluster, by its number there.
    pub fn in_cluster(
        server: (usize, Limits),
        seed: u64,
        (redis, number): (redis::Shared, usize),
        outside: Option<Outside>,
    ) -> World {
        World::made(server, seed, true, outside, Some((redis, number)))
    }

    fn made(
        (workers, limits): (usize, Limits),
        seed: u64,
        random_cuts: bool,
        outside: Option<Outside>,
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
            processes: (0..workers + 2).map(|_| None).collect(),
            successors: Vec::new(),
            outside,
            lives: 0,
            pipes: BTreeMap::new(),
            next_pipe: 0,
            clients: Vec::new(),
            dead: Vec::new(),
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
        if world.outside.is_some() {
            world.start(world.courier());
        }
        world
    }

    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    pub fn switchboard(&self) -> usize {
        self.workers
    }

    pub fn courier(&self) -> usize {
        self.workers + 1
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
        let node = self.node(index, id, seed);
        self.processes[index] = Some(Process {
            id,
            node,
            pipes: BTreeMap::new(),
            next_slot: 0,
        });
        self.accept_backlog(index);
        self.drain(index);
    }

    fn node(&self, index: usize, id: LinkId, seed: [u8; 16]) -> Box<dyn Node> {
        if index == self.courier() {
            let outside = self.outside.as_ref().expect("a world with webhooks");
            let in_cluster = self.redis.is_some();
            return outside.courier((self.apps(), self.limits.clone()), in_cluster, seed);
        }
        if index == self.switchboard() {
            let living = self.processes.iter().flatten().map(|it| it.id);
            let options = SwitchboardOptions {
                links_expected: self.workers as u32,
                living: living.filter(|id| id.slot != NO_SLOT).collect(),
                limits: self.limits.clone(),
                watched: self
                    .outside
                    .as_ref()
                    .map(Outside::watched)
                    .unwrap_or_default(),
                cluster: self.redis.is_some().then(redis::options),
                gateway: self.outside.as_ref().is_some_and(Outside::has_gateway),
                history: apps::history(),
                seed,
            };
            return Box::new(Switchboard::new(options, self.now));
        }
        let options = WorkerOptions {
            slot: id.slot,
            life: id.life,
            listeners: LISTENERS.to_vec(),
            apps: self.apps(),
            demo_page: None,
            services: Default::default(),
            limits: self.limits.clone(),
            deflate: None,
            cors: Cors::default(),
            seed,
        };
        Box::new(Worker::new(options, self.now))
    }

    fn apps(&self) -> Apps {
        Apps::new([APP_ID, "quiet", "strict"].map(apps::app).to_vec())
    }

    /// A process is back and finds who dialled meanwhile.
    fn accept_backlog(&mut self, process: usize) {
        let waiting: Vec<usize> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.ends[1] == End::Backlog(process))
            .map(|(index, _)| *index)
            .collect();
        for index in waiting {
            let conn = self.seat(process, index);
            self.next_pipe += 1;
            let pipe = self.pipes.get_mut(&index).expect("listed");
            pipe.ends[1] = End::Process(process, conn);
            let now = self.now;
            let process = self.processes[process].as_mut().expect("alive");
            process.node.opened(conn, Origin::Link, now);
        }
    }

    fn slot_of(&self, index: usize) -> u32 {
        match index.checked_sub(self.workers + 2) {
            None if index >= self.workers => NO_SLOT,
            None => index as u32,
            Some(later) => self.successors[later],
        }
    }

    /// The process that takes new connections of the slot: the youngest.
    pub fn holder(&self, slot: usize) -> usize {
        let later = self.successors.iter().rposition(|it| *it == slot as u32);
        later.map_or(slot, |later| self.workers + 2 + later)
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
        if index == self.courier()
            && let Some(outside) = &mut self.outside
        {
            outside.disk.abandon(&mut self.dice);
        }
    }

    /// Kills a process that lives, to be back within thirty steps of a test.
    pub fn kill_for_a_while(&mut self, index: usize, step: u64) {
        if self.is_alive(index) {
            self.kill(index);
            let back = step + 1 + self.dice.below(30);
            self.dead.push((index, back));
        }
    }

    /// Starts those whose time has come; with `u64::MAX`, all.
    pub fn revive(&mut self, step: u64) {
        let (due, later): (Vec<_>, Vec<_>) = self.dead.iter().partition(|(_, at)| *at <= step);
        self.dead = later;
        for (index, _) in due {
            self.start(index);
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

    /// Carries out everything a process wants done.
    fn drain(&mut self, index: usize) {
        loop {
            let now = self.now;
            let Some(process) = self.processes[index].as_mut() else {
                return;
            };
            let output = process.node.poll_output(now);
            match output.or_else(|| process.node.poll_fan_out(now)) {
                None => return,
                Some(Output::Flush(conn)) => self.flush(index, conn),
                Some(Output::Close(conn, ending)) => {
                    if ending == Ending::Flushed {
                        self.flush_all(index, conn);
                    }
                    self.close_conn(index, conn);
                }
                Some(Output::Dial(Peer::Outside(dial))) if index == self.workers => {
                    self.dial_redis(index, dial);
                }
                Some(Output::Dial(Peer::Outside(dial))) => self.dial_outside(index, dial),
                Some(Output::Dial(peer)) => self.dial(index, peer),
                Some(Output::AskStore) => {
                    let request = process.node.store_request();
                    self.outside_mut()
                        .disk
                        .ask(request.expect("it was announced"));
                }
                Some(Output::OpenFile(conn)) => {
                    process.node.file_opened(conn, Err(NoFile::Absent), now);
                }
                Some(Output::ReadFile(..) | Output::CloseFile(_)) => {}
                Some(Output::StopAccepting | Output::ReadCertificates | Output::HangUp(_)) => {}
                Some(Output::Quit) => {
                    self.kill(index);
                    return;
                }
            }
        }
    }

    /// Connects to another process of ours; the sockets that they listen at outlive them.
    fn dial(&mut self, index: usize, peer: Peer) {
        let target = match peer {
            Peer::Courier | Peer::Gateway => self.courier(),
            _ => self.switchboard(),
        };
        let now = self.now;
        let pipe = self.next_pipe;
        let conn = self.seat(index, pipe);
        let from = End::Process(index, conn);
        if self.is_alive(target) {
            self.join(from, target, Origin::Link);
        } else {
            self.next_pipe += 1;
            let ends = [from, End::Backlog(target)];
            let (ways, closed) = Default::default();
            self.pipes.insert(pipe, Pipe { ends, ways, closed });
        }
        let process = self.processes[index].as_mut().expect("alive");
        process.node.opened(conn, Origin::Dialled(peer), now);
        if self.is_alive(target) {
            self.drain(target);
        }
    }

    /// Lets time pass; deadlines on the way are kept.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now.moment + duration;
        loop {
            let alive = self.processes.iter().flatten();
            let next = alive.filter_map(|p| p.node.deadline()).min();
            let step = next
                .map_or(until, |next| next.min(until))
                .max(self.now.moment);
            self.now.unix_ms += step.since(self.now.moment).as_micros() as u64 / 1000;
            self.now.moment = step;
            self.elapse();
            self.carry_all();
            if step >= until {
                return;
            }
        }
    }

    /// Lets time pass for a server that is stopped.
    pub fn skip(&mut self, duration: Duration) {
        self.now.moment = self.now.moment + duration;
        self.now.unix_ms += duration.as_millis() as u64;
    }

    /// Tells every process whose deadline has come.
    fn elapse(&mut self) {
        for index in 0..self.processes.len() {
            let now = self.now;
            let due = |p: &Process| p.node.deadline().is_some_and(|at| at <= now.moment);
            if let Some(process) = self.processes[index].as_mut().filter(|p| due(p)) {
                process.node.elapsed(now);
                self.drain(index);
            }
        }
    }
}
