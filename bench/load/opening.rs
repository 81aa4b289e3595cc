//! Bringing a connection to the point where it can be measured: connected,
//! upgraded and, for a Pusher client, greeted and subscribed. Every answer on
//! the way is checked.
//!
//! `Opening` is the state of one connection on this way; `open_all` walks many
//! of them, a bounded number at a time so that no accept queue overflows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::pusher::{self, App};
use crate::requests::{self, Answers};
use crate::secure::Security;
use crate::target::Target;
use crate::websocket;
use crate::wire::{Scratch, Wire};

/// How long nothing may happen before a run is given up.
pub const STALL: Duration = Duration::from_secs(15);

/// Connections per source address. The kernel searches for a free port one by
/// one: with most of an address's 28,000 ports taken, every further connection
/// takes a millisecond.
pub const PER_ADDRESS: usize = 8_000;

/// What the connections of a run have in common.
pub struct Plan {
    pub address: SocketAddr,
    pub security: Option<Security>,
    /// The first of this process's own source addresses.
    pub source: Option<Ipv4Addr>,
    pub request: Vec<u8>,
    pub answer: Answer,
    pub pusher: Option<Membership>,
}

/// What makes a connection one of use.
pub enum Answer {
    /// To the upgrade, with this Sec-WebSocket-Accept.
    Upgrade(String),
    /// A page.
    Page,
}

/// How a Pusher client takes part.
pub struct Membership {
    pub app: App,
    pub channels: Channels,
}

/// Which channel a subscriber belongs to.
#[derive(Clone)]
pub struct Channels {
    pub prefix: String,
    /// 0: greeted only, subscribed to nothing.
    pub count: usize,
    /// Added to a subscriber's number, when several processes share the work.
    pub offset: usize,
}

impl Channels {
    pub fn name(&self, channel: usize) -> String {
        format!("{}{channel}", self.prefix)
    }

    pub fn of_subscriber(&self, index: usize) -> usize {
        (index + self.offset) % self.count
    }
}

impl Plan {
    /// Up to a WebSocket, and a Pusher client where there is a membership.
    pub fn new(
        address: SocketAddr,
        security: Option<Security>,
        path: &str,
        pusher: Option<Membership>,
    ) -> Plan {
        let accept = websocket::accept_for(websocket::KEY.as_bytes());
        Plan {
            address,
            security,
            source: None,
            request: websocket::upgrade_request(path, &address.to_string()),
            answer: Answer::Upgrade(accept),
            pusher,
        }
    }

    /// Up to a page that was got.
    pub fn of_page(target: &Target, path: &str) -> Plan {
        Plan {
            address: target.address,
            security: target.security.clone(),
            source: None,
            request: requests::get_request(path, target.address),
            answer: Answer::Page,
            pusher: None,
        }
    }

    pub fn connect(&self, index: usize) -> io::Result<Wire> {
        Wire::connect(self.address, self.source_of(index), self.security.as_ref())
    }

    fn source_of(&self, index: usize) -> Option<IpAddr> {
        let first = u32::from(self.source?);
        let number = u32::try_from(index / PER_ADDRESS).ok()?;
        Some(Ipv4Addr::from(first + number).into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Ready,
}

/// One connection on its way.
pub struct Opening {
    index: usize,
    stage: Stage,
    /// Once greeted; a subscription that comes later is signed with it.
    socket_id: String,
}

impl Opening {
    pub fn new(index: usize) -> Opening {
        Opening {
            index,
            stage: Stage::Connecting,
            socket_id: String::new(),
        }
    }

    /// Goes on as far as the socket allows; true once the connection is ready.
    pub fn advance(
        &mut self,
        wire: &mut Wire,
        plan: &Plan,
        scratch: &mut Scratch,
    ) -> Fallible<bool> {
        if self.stage == Stage::Connecting {
            if !wire.connected()? {
                return Ok(false);
            }
            wire.send(&plan.request)?;
            self.stage = Stage::Upgrading;
            return Ok(false);
        }
        wire.flush()?;
        loop {
            let filled = wire.fill(scratch)?;
            if filled.closed {
                return Err("the server closed a connection that was being opened".into());
            }
            let bytes = scratch.bytes(&filled);
            let mut used = 0;
            while let Some((length, reply)) = self.step(&bytes[used..], plan)? {
                used += length;
                if let Some(message) = reply {
                    wire.send(&message)?;
                }
            }
            wire.keep(&bytes[used..]);
            if self.stage == Stage::Ready || !filled.more {
                return Ok(self.stage == Stage::Ready);
            }
        }
    }

    /// Takes one answer from `bytes`; gives its length and what to send next.
    fn step(&mut self, bytes: &[u8], plan: &Plan) -> Fallible<Option<(usize, Option<Vec<u8>>)>> {
        if self.stage == Stage::Ready || bytes.is_empty() {
            return Ok(None);
        }
        if self.stage == Stage::Upgrading {
            let length = match &plan.answer {
                Answer::Upgrade(accept) => websocket::check_upgrade(bytes, accept)?,
                Answer::Page => Answers::default().take_whole(bytes)?,
            };
            let next = if plan.pusher.is_some() {
                Stage::Greeting
            } else {
                Stage::Ready
            };
            return Ok(length.map(|length| {
                self.stage = next;
                (length, None)
            }));
        }
        let Some(frame) = websocket::parse_frame(bytes)? else {
            return Ok(None);
        };
        let payload = &bytes[frame.payload.clone()];
        let member = plan
            .pusher
            .as_ref()
            .ok_or("a greeting stage without a membership")?;
        match frame.opcode {
            websocket::TEXT => {}
            websocket::CLOSE => return Err(closed_while("being opened", payload)),
            _ => return Ok(Some((frame.len(), None))),
        }
        let reply = self.converse(payload, member)?;
        Ok(Some((frame.len(), reply)))
    }

    fn converse(&mut self, payload: &[u8], member: &Membership) -> Fallible<Option<Vec<u8>>> {
        if self.stage == Stage::Greeting {
            self.socket_id = pusher::read_greeting(payload)?;
            if member.channels.count == 0 {
                self.stage = Stage::Ready;
                return Ok(None);
            }
            let message = member.app.subscribe(&self.socket_id, &self.channel(member));
            let mut frame = Vec::new();
            let key = [0x3d, 0x52, 0xa1, self.index as u8];
            websocket::write_masked(&mut frame, websocket::TEXT, &[message.as_bytes()], key);
            self.stage = Stage::Subscribing;
            return Ok(Some(frame));
        }
        pusher::check_subscribed(payload, &self.channel(member))?;
        self.stage = Stage::Ready;
        Ok(None)
    }

    fn channel(&self, member: &Membership) -> String {
        member
            .channels
            .name(member.channels.of_subscriber(self.index))
    }
}

/// An error that tells the close code and reason a server gave.
pub fn closed_while(doing: &str, payload: &[u8]) -> Box<dyn std::error::Error> {
    let code = payload
        .get(..2)
        .map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let reason = pusher::excerpt(payload.get(2..).unwrap_or_default());
    format!("the server closed a connection {doing}: {code} {reason}").into()
}

/// Opens `count` connections, `window` at a time; tokens count from 0.
pub fn open_all(
    poll: &mut Poll,
    scratch: &mut Scratch,
    plan: &Plan,
    count: usize,
    window: usize,
) -> Fallible<Vec<Wire>> {
    let (wires, _) = open_greeted(poll, scratch, plan, count, window)?;
    Ok(wires)
}

/// The same; with each connection's socket id, if it is a Pusher client's.
pub fn open_greeted(
    poll: &mut Poll,
    scratch: &mut Scratch,
    plan: &Plan,
    count: usize,
    window: usize,
) -> Fallible<(Vec<Wire>, Vec<String>)> {
    let mut wires: Vec<Wire> = Vec::with_capacity(count);
    let mut states: Vec<Opening> = Vec::with_capacity(count);
    let mut events = Events::with_capacity(1024);
    let mut ready = 0;
    let mut progress = Instant::now();
    while ready < count {
        while wires.len() < count && wires.len() - ready < window {
            let index = wires.len();
            let mut wire = plan
                .connect(index)
                .map_err(|error| format!("connection {index}: {error}"))?;
            wire.register(poll.registry(), Token(index))?;
            wires.push(wire);
            states.push(Opening::new(index));
        }
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let index = event.token().0;
            // The poll is shared: a token beyond belongs to somebody else.
            let Some(state) = states
                .get_mut(index)
                .filter(|state| state.stage != Stage::Ready)
            else {
                continue;
            };
            if state
                .advance(&mut wires[index], plan, scratch)
                .map_err(|error| format!("connection {index}: {error}"))?
            {
                ready += 1;
            }
            progress = Instant::now();
        }
        if progress.elapsed() > STALL {
            return Err(format!("only {ready} of {count} connections were opened").into());
        }
    }
    let socket_ids = states.into_iter().map(|state| state.socket_id);
    Ok((wires, socket_ids.collect()))
}
