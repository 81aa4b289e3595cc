//! HTTP over kept-alive connections: a plain GET, of a page or of a file, or
//! signed publishes to a channel that nobody listens to. Every answer has to be
//! 200 with a body of the announced length, and a file the one that was put
//! there.
//!
//! Every publish is signed on its own, as a backend would do it: the server
//! sees no two equal requests.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token};

use crate::Fallible;
use crate::meter::{Meter, Phase, RATE};
use crate::opening::STALL;
use crate::options::RequestOptions;
use crate::pusher::{App, excerpt};
use crate::report::Report;
use crate::target::{self, Target};
use crate::wire::{Scratch, Wire};

/// Length of a publish's data, unless told otherwise.
const PUBLISH_BYTES: usize = 128;

/// Reads answers. One whose head equals the last one byte for byte need not be
/// parsed again, which keeps the generator cheap.
#[derive(Default)]
pub struct Answers {
    /// The last head, and the length of the body it told of.
    known: (Vec<u8>, usize),
    /// What every body has to be, where that is known.
    content: Option<Vec<u8>>,
}

/// Bytes that belong to one answer.
pub struct Taken {
    pub length: usize,
    pub complete: bool,
}

impl Answers {
    /// Those of a server that hands out a file with `content`.
    pub fn of_file(content: Vec<u8>) -> Answers {
        Answers {
            content: Some(content),
            ..Answers::default()
        }
    }

    /// The length of the answer at the start of `bytes`, once it is complete.
    pub fn take_whole(&mut self, bytes: &[u8]) -> Fallible<Option<usize>> {
        let whole = self.head(bytes)?.map(|(head, body)| head + body);
        Ok(whole.filter(|whole| bytes.len() >= *whole))
    }

    /// Takes an answer, or as much of it as there is of a file; `left` is what
    /// is still to come of a body that has begun.
    pub fn take(&mut self, bytes: &[u8], left: &mut usize) -> Fallible<Option<Taken>> {
        if *left > 0 {
            return self.take_body(bytes, left).map(Some);
        }
        let Some(content) = &self.content else {
            let whole = self.take_whole(bytes)?;
            return Ok(whole.map(|length| Taken {
                length,
                complete: true,
            }));
        };
        let wanted = content.len();
        let Some((length, body)) = self.head(bytes)? else {
            return Ok(None);
        };
        if body != wanted {
            return Err(format!("an answer of {body} bytes, not {wanted}").into());
        }
        *left = body;
        Ok(Some(Taken {
            length,
            complete: body == 0,
        }))
    }

    fn take_body(&self, bytes: &[u8], left: &mut usize) -> Fallible<Taken> {
        let content = self.content.as_deref().unwrap_or_default();
        let rest = &content[content.len() - *left..];
        let length = rest.len().min(bytes.len());
        if bytes[..length] != rest[..length] {
            return Err("a file with other contents came".into());
        }
        *left -= length;
        Ok(Taken {
            length,
            complete: *left == 0,
        })
    }

    /// The lengths of head and body, once the head is complete.
    fn head(&mut self, bytes: &[u8]) -> Fallible<Option<(usize, usize)>> {
        let (known, body) = &self.known;
        if !known.is_empty() && bytes.starts_with(known) {
            return Ok(Some((known.len(), *body)));
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
        let body: usize = std::str::from_utf8(length.value)?.trim().parse()?;
        self.known = (bytes[..head].to_vec(), body);
        Ok(Some((head, body)))
    }
}

/// Seconds since 1970, as signatures want them.
pub fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

pub fn get_request(path: &str, host: SocketAddr) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

pub fn get(options: &RequestOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let (usual, answers) = match options.bytes {
        None => ("/healthz", Answers::default()),
        Some(bytes) => (target::FILE_PATH, Answers::of_file(target::content(bytes))),
    };
    let path = options.target.path.as_deref().unwrap_or(usual);
    let burst = get_request(path, target.address).repeat(options.pipeline);
    drive(options, target, report, answers, |out| {
        out.extend_from_slice(&burst);
    })?;
    if let Some(bytes) = options.bytes {
        let rate = report.metrics.iter().find(|metric| metric.name == RATE);
        let rate = rate.map_or(0.0, |metric| metric.value);
        report.add("content", "MB/s", rate * bytes as f64 / 1e6);
    }
    Ok(())
}

pub fn publish(options: &RequestOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let app = App::of(&options.target);
    let host = target.address.to_string();
    let mut number = 0u64;
    let bytes = options.bytes.unwrap_or(PUBLISH_BYTES);
    drive(options, target, report, Answers::default(), |out| {
        let at = unix_time();
        for _ in 0..options.pipeline {
            number += 1;
            let data = format!("{number:0width$}", width = bytes);
            app.write_publish(out, &host, at, "bench-empty", &data);
        }
    })
}

struct Client {
    wire: Wire,
    open: bool,
    missing: usize,
    /// What is still to come of a body that has begun.
    left: usize,
    sent_at: Instant,
}

fn drive(
    options: &RequestOptions,
    target: &Target,
    report: &mut Report,
    mut answers: Answers,
    mut write_burst: impl FnMut(&mut Vec<u8>),
) -> Fallible<()> {
    let mut poll = Poll::new()?;
    let mut clients = connect(&poll, options.connections, target)?;
    let mut meter = Meter::new(target, &options.target);
    let mut scratch = Scratch::new();
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
        let mut wire = target.connect()?;
        wire.register(poll.registry(), Token(index))?;
        clients.push(Client {
            wire,
            open: false,
            missing: 0,
            left: 0,
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
                let Some(taken) = answers.take(&bytes[used..], &mut self.left)? else {
                    break;
                };
                used += taken.length;
                if !taken.complete {
                    continue;
                }
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
