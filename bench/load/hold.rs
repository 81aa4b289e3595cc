//! A process that holds idle connections for the idle scenario, which starts
//! as many as the limit of descriptors per process demands.
//!
//! It says `ready` and is then told what to do by lines on its standard input,
//! each answered with one line: at the first it opens its connections and says
//! `open`; at every other it sends one message on each connection, waits for
//! all the answers, and says `answered`. It ends when its input ends. Pings are
//! answered at any time.

use std::io::Read;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::Fallible;
use crate::echo::answer_ping;
use crate::opening::{Channels, Membership, Plan, STALL, closed_while, open_all};
use crate::options::HoldOptions;
use crate::pusher::{App, excerpt, is_ping};
use crate::secure::Security;
use crate::websocket::{self, CLOSE, PING, PONG, TEXT};
use crate::wire::{Scratch, Wire};

const LEASH: Token = Token(usize::MAX - 3);
const HELLO: &[u8] = b"a message of an idle client";
const PUSHER_PING: &[u8] = br#"{"event":"pusher:ping","data":{}}"#;
const PUSHER_PONG: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;

struct Holder {
    wires: Vec<Wire>,
    awaiting: Vec<bool>,
    missing: usize,
    pusher: bool,
    asked_at: Instant,
}

pub fn run(options: &HoldOptions) -> Fallible<()> {
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
        awaiting: vec![false; wires.len()],
        wires,
        missing: 0,
        pusher: options.pusher,
        asked_at: Instant::now(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            if event.token() == LEASH {
                let mut line = [0; 64];
                if std::io::stdin().read(&mut line)? == 0 {
                    return Ok(());
                }
                holder.speak()?;
                continue;
            }
            let Token(index) = event.token();
            holder
                .listen(index, &mut scratch)
                .map_err(|e| format!("connection {index}: {e}"))?;
        }
        if holder.missing > 0 && holder.asked_at.elapsed() > STALL {
            return Err(format!("{} messages were not answered", holder.missing).into());
        }
    }
}

impl Holder {
    fn speak(&mut self) -> Fallible<()> {
        let text = if self.pusher { PUSHER_PING } else { HELLO };
        let mut frame = Vec::new();
        websocket::write_masked(&mut frame, TEXT, &[text], [9, 8, 7, 6]);
        for (wire, awaiting) in self.wires.iter_mut().zip(&mut self.awaiting) {
            wire.send(&frame)?;
            *awaiting = true;
        }
        self.missing = self.wires.len();
        self.asked_at = Instant::now();
        Ok(())
    }

    fn listen(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        self.wires[index].flush()?;
        loop {
            let filled = self.wires[index].fill(scratch)?;
            if filled.closed {
                return Err("the server closed an idle connection".into());
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
            _ if self.pusher && is_ping(payload) => {
                let mut frame = Vec::new();
                websocket::write_masked(&mut frame, TEXT, &[PUSHER_PONG], [9, 8, 7, 6]);
                return Ok(self.wires[index].send(&frame)?);
            }
            _ => {}
        }
        let right = if self.pusher {
            memchr::memmem::find(payload, b"\"pusher:pong\"").is_some()
        } else {
            payload == HELLO
        };
        if !right || !self.awaiting[index] {
            return Err(format!("an unexpected message: {}", excerpt(payload)).into());
        }
        self.awaiting[index] = false;
        self.missing -= 1;
        if self.missing == 0 {
            println!("answered");
        }
        Ok(())
    }
}
