//! HTTP over kept-alive connections: a plain GET, or signed publishes to a
//! channel that nobody listens to. Every answer has to be 200 with a body of
//! the announced length.
//!
//! Every publish is signed on its own, as a backend would do it: the server
//! sees no two equal requests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::meter::{Meter, Phase};
use crate::opening::STALL;
use crate::options::RequestOptions;
use crate::pusher::{App, excerpt};
use crate::report::Report;
use crate::target::Target;
use crate::wire::{Scratch, Wire};

/// Reads answers. One that equals the last one byte for byte need not be
/// parsed again, which keeps the generator cheap.
#[derive(Default)]
pub struct Answers {
    known: Vec<u8>,
}

impl Answers {
    /// The length of the answer at the start of `bytes`, once it is complete.
    pub fn take(&mut self, bytes: &[u8]) -> Fallible<Option<usize>> {
        if !self.known.is_empty() && bytes.starts_with(&self.known) {
            return Ok(Some(self.known.len()));
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(bytes)? else {
            return Ok(None);
        };
        if response.code != Some(200) {
            return Err(format!("not answered with 200: {}", excerpt(bytes)).into());
        }
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .ok_or("an answer without Content-Length")?;
        let length: usize = std::str::from_utf8(length.value)?.trim().parse()?;
        if bytes.len() < head + length {
            return Ok(None);
        }
        self.known.clear();
        self.known.extend_from_slice(&bytes[..head + length]);
        Ok(Some(head + length))
    }
}

/// Seconds since 1970, as signatures want them.
pub fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

pub fn get(options: &RequestOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let path = options.target.path.as_deref().unwrap_or("/healthz");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", target.address);
    let burst = request.repeat(options.pipeline).into_bytes();
    drive(options, target, report, |out| out.extend_from_slice(&burst))
}

pub fn publish(options: &RequestOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let app = App::of(&options.target);
    let host = target.address.to_string();
    let mut number = 0u64;
    drive(options, target, report, |out| {
        let at = unix_time();
        for _ in 0..options.pipeline {
            number += 1;
            let data = format!("{number:0width$}", width = options.bytes);
            app.write_publish(out, &host, at, "bench-empty", &data);
        }
    })
}

struct Client {
    wire: Wire,
    open: bool,
    missing: usize,
    sent_at: Instant,
}

fn drive(
    options: &RequestOptions,
    target: &Target,
    report: &mut Report,
    mut write_burst: impl FnMut(&mut Vec<u8>),
) -> Fallible<()> {
    let mut poll = Poll::new()?;
    let mut clients = connect(&poll, options.connections, target)?;
    let mut meter = Meter::new(target, &options.target);
    let mut scratch = Scratch::new();
    let mut answers = Answers::default();
    let mut burst = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut progress = Instant::now();
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        let now = Instant::now();
        let ending = meter.tick(now) == Phase::Done;
        let missing = clients.iter().filter(|client| client.missing > 0);
        if ending && missing.clone().next().is_none() {
            return meter.conclude(report, "requests/s");
        }
        if events.is_empty() && now.duration_since(progress) > STALL {
            return Err(format!("{} connections wait in vain for answers", missing.count()).into());
        }
        progress = if events.is_empty() { progress } else { now };
        for event in &events {
            let Token(index) = event.token();
            let client = &mut clients[index];
            client
                .serve(&mut scratch, &mut answers, &mut meter)
                .map_err(|error| format!("connection {index}: {error}"))?;
            client.open = client.open || client.wire.connected()?;
            if client.missing == 0 && client.open && !ending {
                burst.clear();
                write_burst(&mut burst);
                client.missing = options.pipeline;
                client.sent_at = Instant::now();
                client.wire.send(&burst)?;
            }
        }
    }
}

fn connect(poll: &Poll, count: usize, target: &Target) -> Fallible<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        let mut wire = Wire::connect(target.address, None)?;
        wire.register(poll.registry(), Token(index))?;
        clients.push(Client {
            wire,
            open: false,
            missing: 0,
            sent_at: Instant::now(),
        });
    }
    Ok(clients)
}

impl Client {
    fn serve(
        &mut self,
        scratch: &mut Scratch,
        answers: &mut Answers,
        meter: &mut Meter,
    ) -> Fallible<()> {
        self.wire.flush()?;
        while self.missing > 0 {
            let filled = self.wire.fill(scratch)?;
            if filled.closed {
                return Err("the server closed the connection".into());
            }
            let bytes = scratch.bytes(&filled);
            let now = Instant::now();
            let mut used = 0;
            while used < bytes.len() {
                let Some(length) = answers.take(&bytes[used..])? else {
                    break;
                };
                used += length;
                self.missing = self
                    .missing
                    .checked_sub(1)
                    .ok_or("more answers than requests came")?;
                meter.count();
                meter.record(now - self.sent_at);
            }
            self.wire.keep(&bytes[used..]);
            if !filled.more {
                break;
            }
        }
        Ok(())
    }
}
