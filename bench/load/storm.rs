//! How long client events take while everything else goes on: visitors come
//! and go at a fixed rate, events are published to thousands of subscribers,
//! and, if asked for, all workers are replaced.
//!
//! Client events are due at fixed times, and how long one took is counted from
//! then on, so that what waits behind a stall is counted, too. A client that
//! the server sends away comes back at once; events between two clients of
//! which one is just changing workers may be lost, and are told of. Any other
//! loss, and any visitor or subscriber who is refused, ends the run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::echo::answer_ping;
use crate::histogram::Histogram;
use crate::holders::{Held, Holders};
use crate::idle::publish_news;
use crate::opening::{Channels, Membership, Opening, Plan, STALL};
use crate::options::StormOptions;
use crate::pusher::{self, App};
use crate::report::Report;
use crate::target::Target;
use crate::visiting;
use crate::websocket::{self, CLOSE, PING, TEXT};
use crate::wire::{Scratch, Wire};

const SLOW_TURNS: &str = "lineman_slow_turns_total";

pub fn run(options: &StormOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let rates = [options.rate, options.handshakes, options.fanouts];
    if options.pairs == 0 || rates.iter().any(|rate| *rate <= 0.0) {
        return Err(
            "one pair, and more than no event, handshake and fan-out a second, are needed".into(),
        );
    }
    let held = Held {
        connections: options.subscribers,
        per_process: 18_000,
        channels: 1,
        pusher: true,
    };
    let mut holders = Holders::start(&held, &options.target, target)?;
    holders.expect("ready")?;
    holders.tell("open")?;
    holders.expect("open")?;
    holders.tell("follow")?;
    holders.expect("following")?;
    let slow_before = target.metric(SLOW_TURNS)?;
    let (over, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let app = App::of(&options.target);
    let path = app.socket_path();
    let greeted = Membership {
        app: App::of(&options.target),
        channels: channels(0),
    };
    let plan = Plan::new(
        target.address,
        target.security.clone(),
        &path,
        Some(greeted),
    );
    let (visits, pairs) = thread::scope(|threads| {
        let visitors = threads.spawn(|| {
            let done = visiting::run(&plan, options.handshakes, &over);
            done.map_err(|error| error.to_string())
        });
        let publisher = threads.spawn(|| {
            let done = publish(options, target, &app, (&over, &published));
            done.map_err(|error| error.to_string())
        });
        let pairs = Pairs::run(options, target);
        over.store(true, Ordering::Relaxed);
        let visits = visitors.join().unwrap_or(Err("a panic".into()));
        let published = publisher.join().unwrap_or(Err("a panic".into()));
        published?;
        Fallible::Ok((visits?, pairs?))
    })?;
    // Whoever lost a subscriber has given up by now, and says nothing any more.
    holders.tell("count")?;
    holders.expect("counted")?;
    let slow = target.metric(SLOW_TURNS)? - slow_before;
    tell(report, &pairs, &visits);
    let published = published.load(Ordering::Relaxed);
    report.add("events for all subscribers", "published", published as f64);
    report.add("reactor turns over 20 ms", "", slow);
    Ok(())
}

fn tell(report: &mut Report, pairs: &Pairs<'_>, visits: &Histogram) {
    add(report, "client events: latency", &pairs.waits);
    report.add("client events", "heard", pairs.heard as f64);
    let excused = pairs.excused as f64;
    report.add("of clients who changed workers", "lost", excused);
    report.add("clients sent away and back", "", pairs.returns as f64);
    add(report, "visitors: due to greeted", visits);
}

fn add(report: &mut Report, what: &'static str, waits: &Histogram) {
    let millis = |nanos: u64| nanos as f64 / 1e6;
    report.add(what, "p50, ms", millis(waits.quantile(0.5)));
    report.add(what, "p99, ms", millis(waits.quantile(0.99)));
    report.add(what, "p99.9, ms", millis(waits.quantile(0.999)));
    report.add(what, "longest, ms", millis(waits.highest()));
}

/// An event for all subscribers at fixed times, each over a connection of its
/// own, as a backend that is reloaded itself would send it.
fn publish(
    options: &StormOptions,
    target: &Target,
    app: &App,
    (over, published): (&AtomicBool, &AtomicU64),
) -> Fallible<()> {
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        publish_news(target, app)?;
        published.fetch_add(1, Ordering::Relaxed);
        due += Duration::from_secs_f64(1.0 / options.fanouts);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn channels(count: usize) -> Channels {
    Channels {
        prefix: "private-bench-".into(),
        count,
        offset: 0,
    }
}

/// Two clients of one channel; one sends, the other hears.
#[derive(Default)]
struct Pair {
    next: u32,
    /// Sent and not heard: number, and when it was due.
    unheard: VecDeque<(u32, Instant)>,
}

/// The first half of the connections sends, the second hears.
struct Pairs<'a> {
    options: &'a StormOptions,
    plan: Plan,
    poll: Poll,
    wires: Vec<Wire>,
    opening: Vec<Option<Opening>>,
    pairs: Vec<Pair>,
    reloading: bool,
    waits: Histogram,
    heard: u64,
    excused: u64,
    returns: u64,
}

impl<'a> Pairs<'a> {
    fn run(options: &'a StormOptions, target: &Target) -> Fallible<Pairs<'a>> {
        let member = Membership {
            app: App::of(&options.target),
            channels: channels(options.pairs),
        };
        let path = member.app.socket_path();
        let plan = Plan::new(target.address, target.security.clone(), &path, Some(member));
        let mut pairs = Pairs {
            options,
            plan,
            poll: Poll::new()?,
            wires: Vec::new(),
            opening: Vec::new(),
            pairs: Vec::new(),
            reloading: false,
            waits: Histogram::new(),
            heard: 0,
            excused: 0,
            returns: 0,
        };
        pairs.pairs.resize_with(options.pairs, Pair::default);
        for index in 0..options.pairs * 2 {
            let wire = pairs.connect(index)?;
            pairs.wires.push(wire);
            pairs.opening.push(Some(Opening::new(index)));
        }
        let mut scratch = Scratch::new();
        pairs.turn(Duration::ZERO, STALL, &mut scratch, |pairs| {
            pairs.opening.iter().all(Option::is_none)
        })?;
        pairs.measure(target, &mut scratch)?;
        Ok(pairs)
    }

    fn measure(&mut self, target: &Target, scratch: &mut Scratch) -> Fallible<()> {
        let window = Duration::from_secs_f64(self.options.target.seconds);
        let (begun, mut count) = (Instant::now(), 0usize);
        let every = 1.0 / self.options.rate;
        while begun.elapsed() < window {
            if self.options.reload && !self.reloading && begun.elapsed() * 3 > window {
                self.reloading = true;
                target.reload()?;
            }
            let due = begun + Duration::from_secs_f64(count as f64 * every);
            if due <= Instant::now() {
                self.send(count % self.pairs.len(), due)?;
                count += 1;
                continue;
            }
            self.poll_once(due.saturating_duration_since(Instant::now()), scratch)?;
        }
        // What is under way is waited for.
        self.turn(Duration::from_millis(10), STALL, scratch, |pairs| {
            pairs.pairs.iter().all(|pair| pair.unheard.is_empty())
        })
    }

    /// Goes on until `done`, which has to come within `patience`.
    fn turn(
        &mut self,
        wait: Duration,
        patience: Duration,
        scratch: &mut Scratch,
        done: impl Fn(&Pairs<'_>) -> bool,
    ) -> Fallible<()> {
        let begun = Instant::now();
        while !done(self) {
            if begun.elapsed() > patience {
                return Err("clients wait for what does not come".into());
            }
            self.poll_once(wait.max(Duration::from_millis(1)), scratch)?;
        }
        Ok(())
    }

    fn poll_once(&mut self, wait: Duration, scratch: &mut Scratch) -> Fallible<()> {
        let mut events = Events::with_capacity(256);
        self.poll.poll(&mut events, Some(wait))?;
        for event in &events {
            let Token(index) = event.token();
            self.serve(index, scratch)
                .map_err(|error| format!("client {index}: {error}"))?;
        }
        Ok(())
    }

    fn connect(&self, index: usize) -> Fallible<Wire> {
        let mut wire = self.plan.connect(0)?;
        wire.register(self.poll.registry(), Token(index))?;
        Ok(wire)
    }

    fn send(&mut self, number: usize, due: Instant) -> Fallible<()> {
        let hears = number + self.pairs.len();
        if self.opening[number].is_some() || self.opening[hears].is_some() {
            // Nobody sends to one who is not there.
            self.excused += 1;
            return Ok(());
        }
        let pair = &mut self.pairs[number];
        pair.unheard.push_back((pair.next, due));
        let mut frame = Vec::new();
        let channel = channels(self.options.pairs).name(number);
        pusher::write_client_event(&mut frame, &channel, &format!("{:08x}", pair.next));
        pair.next += 1;
        Ok(self.wires[number].send(&frame)?)
    }

    fn serve(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        if let Some(opening) = &mut self.opening[index] {
            if opening.advance(&mut self.wires[index], &self.plan, scratch)? {
                self.opening[index] = None;
            }
            return Ok(());
        }
        self.wires[index].flush()?;
        loop {
            let filled = self.wires[index].fill(scratch)?;
            if filled.closed {
                return self.come_back(index);
            }
            let bytes = scratch.bytes(&filled);
            let mut used = 0;
            while let Some(frame) = websocket::parse_frame(&bytes[used..])? {
                let payload = &bytes[used..][frame.payload.clone()];
                used += frame.len();
                match frame.opcode {
                    TEXT if pusher::is_ping(payload) => {
                        pusher::answer_ping(&mut self.wires[index])?;
                    }
                    TEXT => self.hear(index, payload)?,
                    PING => answer_ping(&mut self.wires[index], payload)?,
                    CLOSE => return self.come_back(index),
                    _ => {}
                }
            }
            self.wires[index].keep(&bytes[used..]);
            if !filled.more {
                return Ok(());
            }
        }
    }

    /// The server has sent this one away.
    fn come_back(&mut self, index: usize) -> Fallible<()> {
        if !self.reloading {
            return Err("the server closed its connection".into());
        }
        let count = self.pairs.len();
        let pair = &mut self.pairs[index % count];
        self.excused += pair.unheard.len() as u64;
        pair.unheard.clear();
        self.returns += 1;
        self.wires[index] = self.connect(index)?;
        self.opening[index] = Some(Opening::new(index));
        Ok(())
    }

    fn hear(&mut self, index: usize, payload: &[u8]) -> Fallible<()> {
        let count = self.pairs.len();
        let number = index.checked_sub(count);
        let number = number.ok_or("one who sends is told something")?;
        let channel = channels(count).name(number);
        let data = pusher::read_event(payload, pusher::CLIENT_EVENT, Some(&channel))?;
        let stamp = u32::from_str_radix(&data, 16)?;
        let pair = &mut self.pairs[number];
        match pair.unheard.front() {
            Some((next, due)) if *next == stamp => {
                self.waits.record(due.elapsed().as_nanos() as u64);
                self.heard += 1;
                pair.unheard.pop_front();
                Ok(())
            }
            // Given up for lost when its sender was sent away.
            front if front.is_none_or(|(next, _)| stamp < *next) && self.reloading => {
                self.excused -= 1;
                Ok(())
            }
            _ => Err(format!("event {stamp:x} is repeated or out of order").into()),
        }
    }
}
