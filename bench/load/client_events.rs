//! Client events: on each private channel one Pusher client sends, and others
//! hear it. The server's worker of the sender hands every event to the
//! switchboard, and that to the workers of the receivers.
//!
//! A sender writes a burst and waits until all of it is heard before it writes
//! the next one. An operation is one event that all receivers of its channel
//! have heard; each hears every event once and in order, and is compared.

use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::Fallible;
use crate::echo::answer_ping;
use crate::ledger::Ledger;
use crate::meter::{Meter, Phase};
use crate::opening::{Channels, Membership, Plan, STALL, closed_while, open_greeted};
use crate::options::ClientEventsOptions;
use crate::placing;
use crate::pusher::{self, App};
use crate::report::Report;
use crate::target::Target;
use crate::websocket::{self, CLOSE, PING, TEXT};
use crate::wire::{Scratch, Wire};

/// What a connection is there for.
#[derive(Clone, Copy)]
enum Part {
    Sender {
        channel: usize,
    },
    /// Hears the channel that `Channels::of_subscriber` says.
    Receiver {
        number: usize,
    },
}

struct Conversation<'a> {
    options: &'a ClientEventsOptions,
    channels: Channels,
    wires: Vec<Wire>,
    parts: Vec<Part>,
    /// The connection that sends, by channel.
    senders: Vec<usize>,
    /// Events of its last burst that are not heard yet, by channel.
    unheard: Vec<usize>,
    unconfirmed: usize,
    ledger: Ledger,
    meter: Meter,
    burst: Vec<u8>,
    ending: bool,
}

pub fn run(options: &ClientEventsOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    if options.channels == 0 || options.receivers == 0 || options.in_flight == 0 {
        return Err("at least one channel, receiver and event in flight are needed".into());
    }
    let mut poll = Poll::new()?;
    let mut scratch = Scratch::new();
    let (mut conversation, crossing) =
        Conversation::open(options, target, &mut poll, &mut scratch)?;
    let mut events = Events::with_capacity(1024);
    let mut progress = Instant::now();
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        let now = Instant::now();
        if !events.is_empty() {
            progress = now;
        } else if now.duration_since(progress) > STALL {
            return Err(conversation.ledger.describe_stall().into());
        }
        for event in &events {
            let index = event.token().0;
            conversation
                .hear(index, &mut scratch)
                .map_err(|error| format!("connection {index}: {error}"))?;
        }
        if conversation.unconfirmed > 0 {
            continue;
        }
        conversation.ending = conversation.meter.tick(now) == Phase::Done;
        if conversation.ending && conversation.ledger.is_settled() {
            conversation.meter.conclude(report, "events/s")?;
            report.add(
                "receivers on another process than the sender",
                "%",
                crossing,
            );
            return Ok(());
        }
    }
}

impl<'a> Conversation<'a> {
    /// Connects everybody, sees where they are, and only then subscribes; also
    /// the percentage of receivers whose sender is on another process.
    fn open(
        options: &'a ClientEventsOptions,
        target: &Target,
        poll: &mut Poll,
        scratch: &mut Scratch,
    ) -> Fallible<(Conversation<'a>, f64)> {
        let app = App::of(&options.target);
        let usual = app.socket_path();
        let path = options.target.path.as_ref().unwrap_or(&usual);
        let channels = Channels {
            prefix: "private-bench-".into(),
            count: options.channels,
            offset: 0,
        };
        let greeted = Channels {
            count: 0,
            ..channels.clone()
        };
        let member = Membership {
            app: App::of(&options.target),
            channels: greeted,
        };
        let plan = Plan::new(target.address, target.security.clone(), path, Some(member));
        let count = options.channels * (1 + options.receivers);
        let (wires, socket_ids) = open_greeted(poll, scratch, &plan, count, 128)?;
        let holders = placing::holders(&wires, target);
        let (parts, senders) = parts_of(&holders, options);
        let subscribers = options.channels * options.receivers;
        let event = (channels.clone(), pusher::CLIENT_EVENT);
        let mut conversation = Conversation {
            ledger: Ledger::new(event, subscribers, 1, options.bytes)?,
            meter: Meter::new(target, &options.target),
            unheard: vec![0; options.channels],
            unconfirmed: wires.len(),
            burst: Vec::new(),
            ending: false,
            options,
            channels,
            wires,
            parts,
            senders,
        };
        let crossing = conversation.crossing(&holders);
        for (index, socket_id) in socket_ids.iter().enumerate() {
            conversation.subscribe(index, &app, socket_id)?;
        }
        Ok((conversation, crossing))
    }

    fn channel_of(&self, index: usize) -> usize {
        match self.parts[index] {
            Part::Sender { channel } => channel,
            Part::Receiver { number } => self.channels.of_subscriber(number),
        }
    }

    fn crossing(&self, holders: &[Option<u32>]) -> f64 {
        let receivers = (0..self.parts.len()).filter(|index| self.receives(*index));
        let crossing = receivers.filter(|index| {
            let sender = self.senders[self.channel_of(*index)];
            holders[*index].is_some() && holders[*index] != holders[sender]
        });
        let receivers = self.options.channels * self.options.receivers;
        crossing.count() as f64 / receivers as f64 * 100.0
    }

    fn receives(&self, index: usize) -> bool {
        matches!(self.parts[index], Part::Receiver { .. })
    }

    fn subscribe(&mut self, index: usize, app: &App, socket_id: &str) -> Fallible<()> {
        let channel = self.channels.name(self.channel_of(index));
        let message = app.subscribe(socket_id, &channel);
        let mut frame = Vec::new();
        websocket::write_masked(&mut frame, TEXT, &[message.as_bytes()], [1, 9, 8, 4]);
        Ok(self.wires[index].send(&frame)?)
    }

    fn send_burst(&mut self, channel: usize) -> Fallible<()> {
        let (now, name) = (Instant::now(), self.channels.name(channel));
        self.burst.clear();
        for _ in 0..self.options.in_flight {
            let data = self.ledger.enter(0, channel, now);
            pusher::write_client_event(&mut self.burst, &name, &data);
        }
        self.unheard[channel] = self.options.in_flight;
        let sender = self.senders[channel];
        Ok(self.wires[sender].send(&self.burst)?)
    }

    fn hear(&mut self, index: usize, scratch: &mut Scratch) -> Fallible<()> {
        self.wires[index].flush()?;
        loop {
            let filled = self.wires[index].fill(scratch)?;
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
                    TEXT => self.take(index, payload, now)?,
                    PING => answer_ping(&mut self.wires[index], payload)?,
                    CLOSE => return Err(closed_while("under load", payload)),
                    _ => {}
                }
            }
            self.wires[index].keep(&bytes[used..]);
            if !filled.more {
                return Ok(());
            }
        }
    }

    fn take(&mut self, index: usize, payload: &[u8], now: Instant) -> Fallible<()> {
        if pusher::is_ping(payload) {
            return pusher::answer_ping(&mut self.wires[index]);
        }
        let channel = self.channel_of(index);
        if self.unconfirmed > 0 {
            pusher::check_subscribed(payload, &self.channels.name(channel))?;
            self.unconfirmed -= 1;
            if self.unconfirmed == 0 {
                (0..self.options.channels).try_for_each(|channel| self.send_burst(channel))?;
            }
            return Ok(());
        }
        let Part::Receiver { number } = self.parts[index] else {
            let text = pusher::excerpt(payload);
            return Err(format!("a sender is told something: {text}").into());
        };
        if let Some(since) = self.ledger.deliver(number, payload)? {
            self.meter.record(now.saturating_duration_since(since));
            self.meter.count();
            self.unheard[channel] -= 1;
            if self.unheard[channel] == 0 && !self.ending {
                self.send_burst(channel)?;
            }
        }
        Ok(())
    }
}

/// Who does what, and who sends in each channel. Connections are sorted by
/// their process and each channel takes one out of every equal part of them: so
/// its members are on different processes unless one process holds too many.
fn parts_of(holders: &[Option<u32>], options: &ClientEventsOptions) -> (Vec<Part>, Vec<usize>) {
    let mut order: Vec<usize> = (0..holders.len()).collect();
    order.sort_by_key(|index| holders[*index]);
    let (senders, receivers) = order.split_at(options.channels);
    let mut parts = vec![Part::Receiver { number: 0 }; holders.len()];
    for (channel, index) in senders.iter().enumerate() {
        parts[*index] = Part::Sender { channel };
    }
    for (number, index) in receivers.iter().enumerate() {
        parts[*index] = Part::Receiver { number };
    }
    (parts, senders.to_vec())
}
