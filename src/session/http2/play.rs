//! A client connection for tests: against a server of the h2 crate in the same memory, or against
//! frames written by hand. Virtual time; bytes arrive in pieces of any size.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{Request, Response};

use super::pipe::Pipe;
use super::*;
use crate::base::bytes::Outbox;

pub type Frame = (u8, u8, u32, Vec<u8>);

pub fn at(millis: u64) -> Now {
    Now {
        moment: Moment::from_micros(millis * 1000),
        unix_ms: millis,
    }
}

pub fn options() -> Http2Options {
    Http2Options {
        origin: Http2Origin::new(true, "push.example").expect("an authority"),
        streams_max: 1000,
        start_with_one: false,
        pulse: PulseOptions::default(),
    }
}

/// What happened, short enough to compare: `1: 200 hello`, `3: refused`.
pub fn show(event: &Http2Event) -> String {
    match event {
        Http2Event::Answered { key, answer } => {
            let body = String::from_utf8_lossy(&answer.body);
            let body = match body.len() {
                0..=40 => body.into_owned(),
                len => format!("{len} bytes"),
            };
            let cut = if answer.whole { "" } else { " (cut)" };
            format!("{}: {} {body}{cut}", key.0, answer.status)
        }
        Http2Event::Refused { key } => format!("{}: refused", key.0),
        Http2Event::Late { key } => format!("{}: late", key.0),
        Http2Event::Lost { key, .. } => format!("{}: lost", key.0),
        Http2Event::GoAway(goaway) => {
            let debug = String::from_utf8_lossy(&goaway.debug);
            format!("goaway {} {} {debug}", goaway.last, goaway.code)
        }
        Http2Event::Drained => "drained".to_string(),
        Http2Event::Broken { .. } => "broken".to_string(),
    }
}

/// The client, and its side of the wire.
pub struct Client {
    pub http2: Http2,
    pub out: Outbox,
    pub now: u64,
    /// All that it wrote.
    pub wrote: Vec<u8>,
    /// What it told and nobody has taken yet.
    pub told: Vec<Http2Event>,
}

impl Client {
    pub fn new(options: Http2Options) -> Client {
        let mut client = Client {
            http2: Http2::new(options, at(0)),
            out: Outbox::new(usize::MAX),
            now: 0,
            wrote: Vec::new(),
            told: Vec::new(),
        };
        client.poll();
        client
    }

    pub fn poll(&mut self) {
        while let Some(event) = self.http2.poll(&mut self.out, at(self.now)) {
            self.told.push(event);
        }
    }

    /// Asks for `/`; the answer has 20 seconds.
    pub fn ask(&mut self, body: &[u8]) -> Result<StreamKey, NotAsked> {
        self.ask_path("/", body)
    }

    pub fn ask_path(&mut self, path: &str, body: &[u8]) -> Result<StreamKey, NotAsked> {
        let request = Http2Request {
            method: "POST",
            path,
            common: None,
            fields: &[("apns-topic", "example")],
            body: Bytes::copy_from_slice(body),
        };
        let deadline = at(self.now + 20_000).moment;
        self.http2.ask(&request, deadline, at(self.now))
    }

    pub fn asks(&mut self, count: usize) {
        for _ in 0..count {
            self.ask(b"{}").expect("room");
        }
        self.poll();
    }

    /// What the client has written since: the socket takes it.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = self.out.slices(&mut slices);
            let count = slices[..filled].iter().map(|slice| slice.len()).sum();
            all.extend(slices[..filled].iter().flat_map(|slice| slice.to_vec()));
            self.out.advance(count);
            if count == 0 {
                break;
            }
        }
        self.wrote.extend_from_slice(&all);
        all
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut inbox = Inbox::new(&mut bytes);
        self.http2.received(&mut inbox, at(self.now));
        assert!(inbox.is_empty());
        self.poll();
    }

    pub fn end(&mut self) {
        self.http2.ended();
        self.poll();
    }

    /// Time passes, with a poll at each deadline.
    pub fn wait(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(deadline) = self.http2.deadline() {
            let due = deadline.as_micros() / 1000;
            if due > end {
                break;
            }
            self.now = due.max(self.now + 1).min(end);
            self.poll();
        }
        self.now = end;
        self.poll();
    }

    pub fn told(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told);
        told.iter().map(show).collect()
    }

    /// The frames that were written since: kind, flags, stream, payload.
    pub fn frames(&mut self) -> Vec<Frame> {
        let bytes = self.take_output();
        let mut rest = bytes
            .strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap_or(&bytes);
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
            frames.push((rest[3], rest[4], stream, rest[9..9 + length].to_vec()));
            rest = &rest[9 + length..];
        }
        frames
    }
}

/// A request that the server has.
pub struct Taken {
    pub body: Vec<u8>,
    rest: Option<RecvStream>,
    pub reply: SendResponse<Bytes>,
}

impl Taken {
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Says nothing if the client has reset the stream.
    pub fn answer(mut self, status: u16, body: &[u8]) {
        let answer = Response::builder().status(status).body(());
        let answer = answer.expect("an answer");
        if let Ok(mut stream) = self.reply.send_response(answer, body.is_empty())
            && !body.is_empty()
        {
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        }
    }
}

type Connection = server::Connection<Pipe, Bytes>;

enum Standing {
    Handshake(Pin<Box<dyn Future<Output = Result<Connection, h2::Error>>>>),
    Open(Box<Connection>),
    Over,
}

/// A server of the h2 crate.
pub struct Server {
    pipe: Pipe,
    standing: Standing,
    pub taken: Vec<Taken>,
}

impl Server {
    pub fn new(streams_max: u32) -> Server {
        let pipe = Pipe::new();
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(streams_max);
        let handshake = builder.handshake::<_, Bytes>(pipe.clone());
        Server {
            standing: Standing::Handshake(Box::pin(handshake)),
            pipe,
            taken: Vec::new(),
        }
    }

    /// Takes bytes and requests; what it wrote.
    pub fn turn(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut cx = Context::from_waker(Waker::noop());
        self.pipe.wires().feed(bytes);
        if let Standing::Handshake(handshake) = &mut self.standing
            && let Poll::Ready(connection) = handshake.as_mut().poll(&mut cx)
        {
            self.standing = Standing::Open(Box::new(connection.expect("a client")));
        }
        // Twice, since reading a body makes more to write.
        for _ in 0..2 {
            self.accept(&mut cx);
            self.taken.iter_mut().for_each(|taken| read(taken, &mut cx));
        }
        std::mem::take(&mut self.pipe.wires().output)
    }

    fn accept(&mut self, cx: &mut Context<'_>) {
        while let Standing::Open(connection) = &mut self.standing {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, reply)))) => self.taken.push(take(request, reply)),
                Poll::Ready(_) => self.standing = Standing::Over,
                Poll::Pending => return,
            }
        }
    }

    pub fn shut_down(&mut self) {
        if let Standing::Open(connection) = &mut self.standing {
            connection.graceful_shutdown();
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.standing, Standing::Over)
    }
}

fn take(request: Request<RecvStream>, reply: SendResponse<Bytes>) -> Taken {
    Taken {
        body: Vec::new(),
        rest: Some(request.into_body()),
        reply,
    }
}

fn read(taken: &mut Taken, cx: &mut Context<'_>) {
    while let Some(rest) = &mut taken.rest {
        match rest.poll_data(cx) {
            Poll::Pending => return,
            Poll::Ready(Some(Ok(bytes))) => {
                taken.body.extend_from_slice(&bytes);
                rest.flow_control()
                    .release_capacity(bytes.len())
                    .expect("it was received");
            }
            Poll::Ready(_) => taken.rest = None,
        }
    }
}

/// Both of them.
pub struct Pair {
    pub client: Client,
    pub server: Server,
    /// So many bytes arrive at a time.
    pub piece: usize,
}

impl Pair {
    pub fn new(options: Http2Options, streams_max: u32) -> Pair {
        let (client, server) = (Client::new(options), Server::new(streams_max));
        let mut pair = Pair {
            client,
            server,
            piece: usize::MAX,
        };
        pair.run();
        pair
    }

    /// Until nobody has anything to say. The server takes requests and answers none.
    pub fn run(&mut self) {
        while self.step() {}
    }

    pub fn step(&mut self) -> bool {
        self.client.poll();
        let up = self.client.take_output();
        let down = self.server.turn(&up);
        for piece in down.chunks(self.piece.min(down.len().max(1))) {
            self.client.feed(piece);
        }
        !up.is_empty() || !down.is_empty()
    }

    /// The server answers all it has: `200` with the request's body.
    pub fn echo(&mut self) {
        self.run();
        for taken in std::mem::take(&mut self.server.taken) {
            let body = taken.body.clone();
            taken.answer(200, &body);
        }
        self.run();
    }

    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.client.wait(1000);
            self.run();
        }
    }
}
