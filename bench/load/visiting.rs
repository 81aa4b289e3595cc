//! Visitors at a fixed rate, in a thread of their own: connect, upgrade, hear
//! the Pusher greeting, leave. Whoever is not greeted ends the run; to be sent
//! away after the greeting is all right, as when workers are replaced.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::histogram::Histogram;
use crate::opening::{Opening, Plan};
use crate::websocket::{self, CLOSE};
use crate::wire::{Scratch, Wire};

/// Under way at once; more means that the server does not keep up.
const VISITS_MAX: usize = 10_000;

struct Visit {
    wire: Wire,
    opening: Opening,
    /// When it was due, which may be before it was begun.
    since: Instant,
    greeted: bool,
}

/// Visits until `over`; how long each took from when it was due to its
/// greeting.
pub fn run(plan: &Plan, per_second: f64, over: &AtomicBool) -> Fallible<Histogram> {
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    let mut events = Events::with_capacity(1024);
    let mut visits: HashMap<usize, Visit> = HashMap::new();
    let mut waits = Histogram::new();
    let farewell = farewell();
    let (begun, mut count) = (Instant::now(), 0usize);
    while !over.load(Ordering::Relaxed) {
        let due = |count: usize| begun + Duration::from_secs_f64(count as f64 / per_second);
        while due(count) <= Instant::now() {
            if visits.len() >= VISITS_MAX {
                return Err(format!("{VISITS_MAX} visitors wait at once").into());
            }
            let mut wire = plan.connect(0)?;
            wire.register(poll.registry(), Token(count))?;
            let visit = Visit {
                wire,
                opening: Opening::new(count),
                since: due(count),
                greeted: false,
            };
            visits.insert(count, visit);
            count += 1;
        }
        let wait = due(count).saturating_duration_since(Instant::now());
        poll.poll(&mut events, Some(wait))?;
        for event in &events {
            let Token(number) = event.token();
            let Some(visit) = visits.get_mut(&number) else {
                continue;
            };
            let was_greeted = visit.greeted;
            let is_over = visit
                .attend(plan, &farewell, &mut scratch)
                .map_err(|error| format!("visitor {number}: {error}"))?;
            if visit.greeted && !was_greeted {
                waits.record(visit.since.elapsed().as_nanos() as u64);
            }
            if is_over {
                visits.remove(&number);
            }
        }
    }
    Ok(waits)
}

fn farewell() -> Vec<u8> {
    let mut farewell = Vec::new();
    websocket::write_masked(
        &mut farewell,
        CLOSE,
        &[&1000u16.to_be_bytes()],
        [1, 2, 3, 4],
    );
    farewell
}

impl Visit {
    /// True when it is over.
    fn attend(&mut self, plan: &Plan, farewell: &[u8], scratch: &mut Scratch) -> Fallible<bool> {
        if !self.greeted {
            self.greeted = self.opening.advance(&mut self.wire, plan, scratch)?;
            if self.greeted {
                self.wire.send(farewell)?;
            }
            return Ok(false);
        }
        let filled = self.wire.fill(scratch)?;
        let bytes = scratch.bytes(&filled);
        let answer = websocket::parse_frame(bytes)?;
        if filled.closed || answer.is_some_and(|frame| frame.opcode == CLOSE) {
            return Ok(true);
        }
        self.wire.keep(bytes);
        Ok(false)
    }
}
