//! One publish over HTTP, many deliveries over WebSocket: subscribers are
//! Pusher clients, publishers are backends that sign what they post.
//!
//! Every delivery is checked: its channel, its text, and that each subscriber
//! hears each publisher's events once and in order. The first copy of an event
//! is parsed as JSON; the others have to equal it byte for byte, or are parsed
//! too.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::echo::answer_ping;
use crate::ledger::Ledger;
use crate::meter::{Meter, Phase};
use crate::opening::{Channels, Membership, Plan, STALL, closed_while, open_all};
use crate::options::FanoutOptions;
use crate::placing;
use crate::pusher::{self, App};
use crate::report::Report;
use crate::requests::{Answers, unix_time};
use crate::target::Target;
use crate::websocket::{self, CLOSE, PING, TEXT};
use crate::wire::{Scratch, Wire};

struct Publisher {
    wire: Wire,
    open: bool,
    unanswered: usize,
    batch: Vec<u8>,
}

struct Fanout<'a> {
    options: &'a FanoutOptions,
    host: String,
    plan: Plan,
    subscribers: Vec<Wire>,
    publishers: Vec<Publisher>,
    ledger: Ledger,
    answers: Answers,
    meter: Meter,
    /// Publishes made so far; chooses publisher and channel in turn.
    published: usize,
    started: Instant,
    /// The window is over: wait for what is under way, publish nothing more.
    ending: bool,
}

pub fn run(options: &FanoutOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    if options.channels == 0 || options.subscribers < options.channels || options.publishers == 0 {
        return Err("at least one publisher, and one subscriber per channel, are needed".into());
    }
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    let mut fanout = Fanout::open(options, target, &mut poll, &mut scratch)?;
    let mut events = Events::with_capacity(1024);
    let mut progress = Instant::now();
    loop {
        let wait = fanout.publish_due()?;
        poll.poll(&mut events, Some(wait))?;
        let now = Instant::now();
        if !events.is_empty() {
            progress = now;
        } else if now.duration_since(progress) > STALL {
            return Err(fanout.ledger.describe_stall().into());
        }
        for event in &events {
            fanout.serve(event.token().0, &mut scratch)?;
        }
        // In a closed loop the window begins and ends between two bursts, so
        // that processor time and deliveries cover the same work.
        if options.rate.is_some() || fanout.is_quiet() {
            fanout.ending = fanout.meter.tick(now) == Phase::Done;
        }
        if fanout.ending && fanout.is_quiet() {
            report.add("subscribers", "connections", options.subscribers as f64);
            fanout.meter.conclude(report, "deliveries/s")?;
            placing::add_spread(&placing::holders(&fanout.subscribers, target), report);
            return Ok(());
        }
    }
}

impl<'a> Fanout<'a> {
    fn open(
        options: &'a FanoutOptions,
        target: &Target,
        poll: &mut Poll,
        scratch: &mut Scratch,
    ) -> Fallible<Fanout<'a>> {
        let app = App::of(&options.target);
        let usual = app.socket_path();
        let path = options.target.path.as_ref().unwrap_or(&usual);
        let (prefix, count) = (options.channel_prefix.clone(), options.channels);
        let channels = Channels {
            prefix,
            count,
            offset: 0,
        };
        let member = Membership {
            app,
            channels: channels.clone(),
        };
        let plan = Plan::new(target.address, target.security.clone(), path, Some(member));
        let subscribers = open_all(poll, scratch, &plan, options.subscribers, 128)?;
        let mut publishers = Vec::new();
        for index in 0..options.publishers {
            let mut wire = target.connect()?;
            wire.register(poll.registry(), Token(options.subscribers + index))?;
            publishers.push(Publisher {
                wire,
                open: false,
                unanswered: 0,
                batch: Vec::new(),
            });
        }
        let ledger = Ledger::new(
            (channels, pusher::EVENT),
            options.subscribers,
            options.publishers,
            options.bytes,
        )?;
        Ok(Fanout {
            options,
            host: target.address.to_string(),
            plan,
            subscribers,
            publishers,
            ledger,
            answers: Answers::default(),
            meter: Meter::new(target, &options.target),
            published: 0,
            started: Instant::now(),
            ending: false,
        })
    }

    /// Everything published has been answered and delivered.
    fn is_quiet(&self) -> bool {
        self.ledger.is_settled() && self.publishers.iter().all(|one| one.unanswered == 0)
    }

    /// Publishes what is due and tells how long nothing else will be.
    fn publish_due(&mut self) -> Fallible<Duration> {
        let second = Duration::from_secs(1);
        if self.ending {
            return Ok(second);
        }
        if !self.publishers.iter().all(|publisher| publisher.open) {
            self.started = Instant::now();
            return Ok(second);
        }
        let Some(rate) = self.options.rate else {
            if self.is_quiet() {
                let now = Instant::now();
                (0..self.options.in_flight).try_for_each(|_| self.write_one(now))?;
                self.send_batches()?;
            }
            return Ok(second);
        };
        // At a fixed rate an event's time starts when it was due, not when the
        // generator got round to it: a server that stalls must not be spared.
        let audience = self.options.subscribers as f64 / self.options.channels as f64;
        let interval = Duration::from_secs_f64(audience / rate);
        loop {
            let due = self.started + interval.mul_f64(self.published as f64);
            let left = due.saturating_duration_since(Instant::now());
            if left > Duration::ZERO {
                self.send_batches()?;
                // A poll only waits whole milliseconds: the last one is spun
                // away, or every latency would carry it.
                return Ok(left.saturating_sub(Duration::from_millis(1)).min(second));
            }
            self.write_one(due)?;
        }
    }

    fn write_one(&mut self, since: Instant) -> Fallible<()> {
        let index = self.published % self.options.publishers;
        let channel = self.published / self.options.publishers % self.options.channels;
        self.published += 1;
        let data = self.ledger.enter(index, channel, since);
        let publisher = &mut self.publishers[index];
        publisher.unanswered += 1;
        let member = self
            .plan
            .pusher
            .as_ref()
            .ok_or("a publisher without an application")?;
        let name = member.channels.name(channel);
        member
            .app
            .write_publish(&mut publisher.batch, &self.host, unix_time(), &name, &data);
        Ok(())
    }

    fn send_batches(&mut self) -> Fallible<()> {
        for publisher in &mut self.publishers {
            if !publisher.batch.is_empty() {
                publisher.wire.send(&publisher.batch)?;
                publisher.batch.clear();
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        let subscribers = self.subscribers.len();
        if index < subscribers {
            return self
                .hear(index, scratch)
                .map_err(|e| format!("subscriber {index}: {e}").into());
        }
        let index = index - subscribers;
        self.answered(index, scratch)
            .map_err(|e| format!("publisher {index}: {e}").into())
    }

    fn answered(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        let publisher = &mut self.publishers[index];
        if !publisher.open {
            publisher.open = publisher.wire.connected()?;
            return Ok(());
        }
        publisher.wire.flush()?;
        loop {
            let filled = publisher.wire.fill(scratch)?;
            if filled.closed {
                return Err("the server closed the connection".into());
            }
            let bytes = scratch.bytes(&filled);
            let mut used = 0;
            while used < bytes.len() {
                let Some(length) = self.answers.take_whole(&bytes[used..])? else {
                    break;
                };
                used += length;
                let left = publisher.unanswered.checked_sub(1);
                publisher.unanswered = left.ok_or("more answers than publishes")?;
            }
            publisher.wire.keep(&bytes[used..]);
            if !filled.more {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        let wire = &mut self.subscribers[index];
        wire.flush()?;
        loop {
            let filled = wire.fill(scratch)?;
            if filled.closed {
                return Err("the server closed the connection".into());
            }
            let bytes = scratch.bytes(&filled);
            let now = Instant::now();
            let mut used = 0;
            while let Some(frame) = websocket::parse_frame(&bytes[used..])? {
                let payload = &bytes[used..][frame.payload.clone()];
                used += frame.len();
                match frame.opcode {
                    TEXT if self.ledger.is_event(payload) || !pusher::is_ping(payload) => {
                        if let Some(since) = self.ledger.deliver(index, payload)? {
                            self.meter.record(now.saturating_duration_since(since));
                        }
                        self.meter.count();
                    }
                    TEXT => pusher::answer_ping(wire)?,
                    PING => answer_ping(wire, payload)?,
                    CLOSE => return Err(closed_while("under load", payload)),
                    _ => {}
                }
            }
            wire.keep(&bytes[used..]);
            if !filled.more {
                return Ok(());
            }
        }
    }
}
