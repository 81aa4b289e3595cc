//! A process that holds idle connections for the idle scenario, which starts
//! as many as the limit of descriptors per process demands.
//!
//! It says `ready` and is then told what to do by lines on its standard input,
//! each answered with one line:
//!
//! * `open`, the first: it opens its connections and says `open`.
//! * `message`: it sends one on each connection, waits for all the answers, and
//!   says `answered`.
//! * `listen`: it says `listening`, waits until each connection has heard an
//!   event of the name `bench`, and says `heard`.
//! * `return`: it says `returning`; from now on, connections that the server
//!   closes are opened again at once. When that has happened to each, it says
//!   `returned`.
//!
//! * `follow`: it says `following`; from now on, each connection hears any
//!   number of such events, and those that the server closes are opened again.
//! * `count`: it says `counted`, if no connection was refused before.
//!
//! It ends when its input ends, and with an error when a connection is closed
//! or refused otherwise. Pings are answered at any time.

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::Fallible;
use crate::echo::answer_ping;
use crate::opening::{Channels, Membership, Opening, Plan, STALL, closed_while, open_all};
use crate::options::HoldOptions;
use crate::pusher::{self, App, excerpt, is_ping};
use crate::secure::Security;
use crate::websocket::{self, CLOSE, PING, PONG, TEXT};
use crate::wire::{Scratch, Wire};

const LEASH: Token = Token(usize::MAX - 3);
const HELLO: &[u8] = b"a message of an idle client";
const PUSHER_PING: &[u8] = br#"{"event":"pusher:ping","data":{}}"#;

/// Data of the event that all are to hear.
pub const NEWS: &str = "news.for.all";

/// What each connection is to get or do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Answer,
    Hear,
    Return,
    Follow,
}

impl Task {
    /// Whether the server may close connections, which are opened again.
    fn takes_back(self) -> bool {
        matches!(self, Task::Return | Task::Follow)
    }

    /// What is said once it is done.
    fn done(self) -> &'static str {
        match self {
            Task::Answer => "answered",
            Task::Hear => "heard",
            Task::Return => "returned",
            Task::Follow => "followed",
        }
    }
}

struct Holder {
    plan: Plan,
    poll: Poll,
    wires: Vec<Wire>,
    /// Connections that are being opened again.
    opening: HashMap<usize, Opening>,
    task: Task,
    awaiting: Vec<bool>,
    missing: usize,
    progress: Instant,
}

pub fn run(options: &HoldOptions) -> Fallible<()> {
    let plan = plan(options)?;
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    println!("ready");
    if std::io::stdin().read(&mut [0; 64])? == 0 {
        return Ok(());
    }
    let wires = open_all(&mut poll, &mut scratch, &plan, options.connections, 128)?;
    println!("open");
    poll.registry()
        .register(&mut SourceFd(&0), LEASH, Interest::READABLE)?;
    let mut holder = Holder {
        plan,
        poll,
        awaiting: vec![false; wires.len()],
        wires,
        opening: HashMap::new(),
        task: Task::Answer,
        missing: 0,
        progress: Instant::now(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        holder
            .poll
            .poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            if event.token() == LEASH {
                let mut line = [0; 64];
                let length = std::io::stdin().read(&mut line)?;
                if length == 0 {
                    return Ok(());
                }
                holder.obey(&line[..length])?;
                continue;
            }
            let Token(index) = event.token();
            holder
                .serve(index, &mut scratch)
                .map_err(|e| format!("connection {index}: {e}"))?;
        }
        // For how long nothing may happen while clients are let go is up to who asked for it.
        let waits = holder.missing > 0 && !holder.task.takes_back();
        if waits && holder.progress.elapsed() > STALL {
            let what = holder.task.done();
            return Err(format!("{} connections have not {what}", holder.missing).into());
        }
    }
}

/// What all of its clients have in common.
fn plan(options: &HoldOptions) -> Fallible<Plan> {
    let app = App::new(&options.app_id, &options.app_key, &options.app_secret);
    let channels = Channels {
        prefix: "bench-".into(),
        count: options.channels,
        offset: options.offset,
    };
    let member = options.pusher.then_some(Membership { app, channels });
    let security = match &options.tls.authority {
        Some(authority) => Some(Security::new(&options.tls, authority)?),
        None => None,
    };
    let mut plan = Plan::new(options.address, security, &options.path, member);
    plan.source = options.source;
    Ok(plan)
}

impl Holder {
    fn obey(&mut self, line: &[u8]) -> Fallible<()> {
        if line.trim_ascii() == b"count" {
            println!("counted");
            return Ok(());
        }
        self.awaiting.fill(true);
        self.missing = self.wires.len();
        self.progress = Instant::now();
        match line.trim_ascii() {
            b"listen" => {
                self.task = Task::Hear;
                println!("listening");
                Ok(())
            }
            b"follow" => {
                self.task = Task::Follow;
                self.awaiting.fill(false);
                self.missing = 0;
                println!("following");
                Ok(())
            }
            b"return" => {
                self.task = Task::Return;
                println!("returning");
                Ok(())
            }
            _ => {
                self.task = Task::Answer;
                self.speak()
            }
        }
    }

    fn speak(&mut self) -> Fallible<()> {
        let text = match self.plan.pusher {
            Some(_) => PUSHER_PING,
            None => HELLO,
        };
        let mut frame = Vec::new();
        websocket::write_masked(&mut frame, TEXT, &[text], [9, 8, 7, 6]);
        for wire in &mut self.wires {
            wire.send(&frame)?;
        }
        // With sixty of us on two processors this alone takes long, and nobody was heard meanwhile.
        self.progress = Instant::now();
        Ok(())
    }

    fn serve(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        let Some(opening) = self.opening.get_mut(&index) else {
            return self.listen(index, scratch);
        };
        if opening.advance(&mut self.wires[index], &self.plan, scratch)? {
            self.opening.remove(&index);
            if self.awaiting[index] {
                self.did(index);
            }
        }
        Ok(())
    }

    /// The server has closed this one: opens it again, if that was to be expected.
    fn reopen(&mut self, index: usize) -> Fallible<()> {
        // More than once, if it came to a worker that is replaced later.
        if !self.task.takes_back() {
            return Err("the server closed an idle connection".into());
        }
        let mut wire = self.plan.connect(index)?;
        wire.register(self.poll.registry(), Token(index))?;
        self.wires[index] = wire;
        self.opening.insert(index, Opening::new(index));
        Ok(())
    }

    fn did(&mut self, index: usize) {
        self.awaiting[index] = false;
        self.missing -= 1;
        self.progress = Instant::now();
        if self.missing == 0 {
            println!("{}", self.task.done());
        }
    }

    fn listen(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        self.wires[index].flush()?;
        loop {
            let filled = self.wires[index].fill(scratch)?;
            if filled.closed {
                return self.reopen(index);
            }
            let bytes = scratch.bytes_mut(&filled);
            let mut used = 0;
            while let Some(frame) = websocket::parse_frame(&bytes[used..])? {
                let payload = &mut bytes[used..][frame.payload.clone()];
                frame
                    .mask
                    .into_iter()
                    .for_each(|key| websocket::apply_mask(payload, key));
                used += frame.len();
                if frame.opcode == CLOSE && self.task.takes_back() {
                    return self.reopen(index);
                }
                self.take(index, frame.opcode, payload)?;
            }
            self.wires[index].keep(&bytes[used..]);
            if !filled.more {
                return Ok(());
            }
        }
    }

    fn take(&mut self, index: usize, opcode: u8, payload: &[u8]) -> Fallible<()> {
        match opcode {
            CLOSE => return Err(closed_while("that was idle", payload)),
            PING => return answer_ping(&mut self.wires[index], payload),
            PONG => return Ok(()),
            _ if self.plan.pusher.is_some() && is_ping(payload) => {
                return pusher::answer_ping(&mut self.wires[index]);
            }
            _ => {}
        }
        if self.task == Task::Follow {
            let heard = self.is_news(index, payload)?;
            return heard.then_some(()).ok_or_else(|| "no news".into());
        }
        if !self.awaiting[index] || !self.is_awaited(index, payload)? {
            return Err(format!("an unexpected message: {}", excerpt(payload)).into());
        }
        self.did(index);
        Ok(())
    }

    /// Whether it is the event for all; another one is an error.
    fn is_news(&self, index: usize, payload: &[u8]) -> Fallible<bool> {
        let Some(member) = &self.plan.pusher else {
            return Ok(false);
        };
        let channel = member.channels.name(member.channels.of_subscriber(index));
        pusher::check_event(payload, pusher::EVENT, &channel, NEWS)?;
        Ok(true)
    }

    fn is_awaited(&self, index: usize, payload: &[u8]) -> Fallible<bool> {
        match (self.task, &self.plan.pusher) {
            (Task::Hear, Some(_)) => self.is_news(index, payload),
            (Task::Answer, Some(_)) => {
                Ok(memchr::memmem::find(payload, b"\"pusher:pong\"").is_some())
            }
            (Task::Answer, None) => Ok(payload == HELLO),
            _ => Ok(false),
        }
    }
}
