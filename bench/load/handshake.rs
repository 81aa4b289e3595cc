//! Connections that live for a moment: connect, upgrade, with the Pusher
//! greeting and a subscription if asked for, then the closing handshake; or
//! connect and get one page. A fixed number is under way at any time; each that
//! ends is followed by a new one.
//!
//! An operation is one such life. The latency is the time from `connect` to
//! the point where the connection is of use.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::meter::{Meter, Phase};
use crate::opening::{Answer, Channels, Membership, Opening, Plan, STALL};
use crate::options::HandshakeOptions;
use crate::pusher::App;
use crate::report::Report;
use crate::target::Target;
use crate::websocket::{self, CLOSE};
use crate::wire::{Scratch, Wire};

struct Visit {
    wire: Wire,
    opening: Opening,
    started: Instant,
    leaving: bool,
    /// Begun in the measured time, when there is a ticket for everybody.
    measured: bool,
}

struct Visits {
    poll: Poll,
    plan: Plan,
    farewell: Vec<u8>,
    meter: Meter,
    phase: Phase,
    /// With tickets.
    resuming: bool,
    scratch: Scratch,
}

pub fn run(options: &HandshakeOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let mut farewell = Vec::new();
    let code = 1000u16.to_be_bytes();
    websocket::write_masked(&mut farewell, CLOSE, &[&code], [1, 2, 3, 4]);
    let mut visits = Visits {
        poll: Poll::new()?,
        plan: plan(options, target),
        farewell,
        meter: Meter::new(target, &options.target),
        phase: Phase::Warming,
        resuming: options.target.tls.resume,
        scratch: Scratch::new(),
    };
    let mut slots = Vec::new();
    for index in 0..options.connections {
        slots.push(Some(visits.begin(index)?));
    }
    let mut events = Events::with_capacity(1024);
    let mut progress = Instant::now();
    loop {
        visits
            .poll
            .poll(&mut events, Some(Duration::from_secs(1)))?;
        let now = Instant::now();
        visits.phase = visits.meter.tick(now);
        let ending = visits.phase == Phase::Done;
        if ending && slots.iter().all(Option::is_none) {
            return visits.meter.conclude(report, "connections/s");
        }
        if events.is_empty() && now.duration_since(progress) > STALL {
            return Err(format!(
                "{} connections get no further",
                slots.iter().flatten().count()
            )
            .into());
        }
        progress = if events.is_empty() { progress } else { now };
        for event in &events {
            let Token(index) = event.token();
            let Some(visit) = &mut slots[index] else {
                continue;
            };
            if visits.attend(visit)? {
                slots[index] = None;
                if !ending {
                    slots[index] = Some(visits.begin(index)?);
                }
            }
        }
    }
}

fn plan(options: &HandshakeOptions, target: &Target) -> Plan {
    if options.get {
        let path = options.target.path.as_deref().unwrap_or("/healthz");
        return Plan::of_page(target, path);
    }
    let app = App::of(&options.target);
    let usual = if options.subscribe {
        app.socket_path()
    } else {
        "/".to_owned()
    };
    let path = options.target.path.as_ref().unwrap_or(&usual);
    let channels = Channels {
        prefix: "bench-".into(),
        count: options.channels,
        offset: 0,
    };
    let member = Membership { app, channels };
    let member = options.subscribe.then_some(member);
    Plan::new(target.address, target.security.clone(), path, member)
}

impl Visits {
    fn begin(&self, index: usize) -> Fallible<Visit> {
        let started = Instant::now();
        let mut wire = self.plan.connect(index)?;
        wire.register(self.poll.registry(), Token(index))?;
        Ok(Visit {
            wire,
            opening: Opening::new(index),
            started,
            leaving: false,
            measured: self.phase == Phase::Measuring,
        })
    }

    /// True when the visit is over.
    fn attend(&mut self, visit: &mut Visit) -> Fallible<bool> {
        let Visits {
            plan,
            scratch,
            farewell,
            meter,
            resuming,
            ..
        } = self;
        if !visit.leaving {
            if visit.opening.advance(&mut visit.wire, plan, scratch)? {
                meter.record(visit.started.elapsed());
                if *resuming && visit.measured && !visit.wire.resumed() {
                    return Err("the server did not take a ticket of its own".into());
                }
                if matches!(plan.answer, Answer::Page) {
                    meter.count();
                    return Ok(true);
                }
                visit.wire.send(farewell)?;
                visit.leaving = true;
            }
            return Ok(false);
        }
        // The next event may still be the one that said "writable".
        let filled = visit.wire.fill(scratch)?;
        let bytes = scratch.bytes(&filled);
        match websocket::parse_frame(bytes)? {
            Some(frame) if frame.opcode == CLOSE => {
                meter.count();
                Ok(true)
            }
            _ if filled.closed => Err("closed without an answer to the Close frame".into()),
            Some(_) => Err("a message between the Close frame and its answer".into()),
            None => {
                visit.wire.keep(bytes);
                Ok(false)
            }
        }
    }
}
