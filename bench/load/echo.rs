//! WebSocket echo: every connection sends a burst of messages in one write,
//! waits for all of them to come back, compares each with what was sent, and
//! sends the next burst.
//!
//! Each message starts with a stamp that no other message of the run carries,
//! so a server that mixes connections up or repeats a message is found out.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::meter::{Meter, Phase};
use crate::opening::{Plan, STALL, closed_while, open_all};
use crate::options::EchoOptions;
use crate::pusher::excerpt;
use crate::report::Report;
use crate::target::Target;
use crate::websocket::{self, CLOSE, PING, PONG};
use crate::wire::{Scratch, Wire};

const STAMP: usize = 16;

struct Client {
    wire: Wire,
    number: u32,
    /// Sequence number of the next echo to arrive.
    awaited: u32,
    missing: usize,
    sent_at: Instant,
}

struct Echo<'a> {
    options: &'a EchoOptions,
    masked: bool,
    filler: Vec<u8>,
    burst: Vec<u8>,
    chance: u64,
    /// The window is over: wait for what is under way, send nothing more.
    ending: bool,
}

pub fn run(options: &EchoOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    let path = options.target.path.as_deref().unwrap_or("/");
    let plan = Plan::new(target.address, target.security.clone(), path, None);
    let wires = open_all(&mut poll, &mut scratch, &plan, options.connections, 128)?;
    let mut echo = Echo::new(options, target.masked);
    let mut meter = Meter::new(target, &options.target);
    let mut clients = Vec::with_capacity(wires.len());
    for (number, wire) in wires.into_iter().enumerate() {
        let sent_at = Instant::now();
        let mut client = Client {
            wire,
            number: number as u32,
            awaited: 0,
            missing: 0,
            sent_at,
        };
        echo.send_burst(&mut client, sent_at)?;
        clients.push(client);
    }
    let mut events = Events::with_capacity(1024);
    let mut progress = Instant::now();
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        let now = Instant::now();
        echo.ending = meter.tick(now) == Phase::Done;
        let missing = clients.iter().filter(|client| client.missing > 0);
        if echo.ending && missing.clone().next().is_none() {
            return meter.conclude(report, "messages/s");
        }
        if events.is_empty() && now.duration_since(progress) > STALL {
            return Err(format!("{} connections wait in vain for an echo", missing.count()).into());
        }
        progress = if events.is_empty() { progress } else { now };
        for event in &events {
            let Token(index) = event.token();
            echo.serve(&mut clients[index], &mut scratch, &mut meter)
                .map_err(|error| format!("connection {index}: {error}"))?;
        }
    }
}

impl<'a> Echo<'a> {
    fn new(options: &'a EchoOptions, masked: bool) -> Echo<'a> {
        let filler = (0..options.bytes)
            .map(|index| b'a' + (index % 26) as u8)
            .collect();
        Echo {
            options,
            masked,
            filler,
            burst: Vec::new(),
            chance: 0x9e37_79b9_7f4a_7c15,
            ending: false,
        }
    }

    fn send_burst(&mut self, client: &mut Client, now: Instant) -> Fallible<()> {
        self.burst.clear();
        let opcode = if self.options.binary {
            websocket::BINARY
        } else {
            websocket::TEXT
        };
        let length = STAMP.min(self.options.bytes);
        for offset in 0..self.options.pipeline {
            let stamp = stamp(client.number, client.awaited.wrapping_add(offset as u32));
            let key = self.next_key();
            let parts = [&stamp[STAMP - length..], &self.filler[length..]];
            websocket::write_masked(&mut self.burst, opcode, &parts, key);
        }
        client.missing = self.options.pipeline;
        client.sent_at = now;
        client.wire.send(&self.burst)?;
        Ok(())
    }

    fn serve(
        &mut self,
        client: &mut Client,
        scratch: &mut Scratch,
        meter: &mut Meter,
    ) -> Fallible<()> {
        client.wire.flush()?;
        loop {
            let filled = client.wire.fill(scratch)?;
            if filled.closed {
                return Err("the server closed the connection".into());
            }
            let bytes = scratch.bytes_mut(&filled);
            let mut used = 0;
            let now = Instant::now();
            while let Some(frame) = websocket::parse_frame(&bytes[used..])? {
                let payload = &mut bytes[used..][frame.payload.clone()];
                if let Some(key) = frame.mask {
                    if !self.masked {
                        return Err("a masked frame from the server".into());
                    }
                    websocket::apply_mask(payload, key);
                }
                used += frame.len();
                match frame.opcode {
                    PING => answer_ping(&mut client.wire, payload)?,
                    PONG => {}
                    CLOSE => return Err(closed_while("under load", payload)),
                    opcode => {
                        self.check(client, opcode, payload)?;
                        meter.count();
                        meter.record(now - client.sent_at);
                    }
                }
            }
            client.wire.keep(&bytes[used..]);
            if client.missing == 0 && !self.ending {
                self.send_burst(client, Instant::now())?;
            }
            if !filled.more {
                return Ok(());
            }
        }
    }

    fn check(&self, client: &mut Client, opcode: u8, payload: &[u8]) -> Fallible<()> {
        let wanted = if self.options.binary {
            websocket::BINARY
        } else {
            websocket::TEXT
        };
        let stamp = stamp(client.number, client.awaited);
        let length = STAMP.min(self.options.bytes);
        let same = client.missing > 0
            && opcode == wanted
            && payload.len() == self.options.bytes
            && payload[..length] == stamp[STAMP - length..]
            && payload[length..] == self.filler[length..];
        if !same {
            let stamp = excerpt(&stamp[STAMP - length..]);
            let got = excerpt(payload);
            return Err(format!("wrong echo: expected one starting {stamp:?}, got {got:?}").into());
        }
        client.awaited = client.awaited.wrapping_add(1);
        client.missing -= 1;
        Ok(())
    }

    /// Masking keys only have to differ; xorshift costs nothing.
    fn next_key(&mut self) -> [u8; 4] {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance as u32).to_ne_bytes()
    }
}

pub fn answer_ping(wire: &mut Wire, payload: &[u8]) -> Fallible<()> {
    let mut frame = Vec::new();
    websocket::write_masked(&mut frame, PONG, &[payload], [7, 11, 13, 17]);
    wire.send(&frame)?;
    Ok(())
}

/// Connection and sequence number as hexadecimal digits, the digits that
/// change fastest last.
fn stamp(number: u32, sequence: u32) -> [u8; STAMP] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let value = u64::from(number) << 32 | u64::from(sequence);
    let mut digits = [0; STAMP];
    for (index, digit) in digits.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - 4 * index) & 0xf) as usize];
    }
    digits
}
