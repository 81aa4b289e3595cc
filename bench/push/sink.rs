//! The least that can take notifications over HTTP/2: TLS, frames, and the same answer to every
//! request, at once or after a delay, in one thread. It reads no header field; of each body it wants to
//! see an `aps`. Invariant: a request is counted when its answer is written.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection};

use crate::Fallible;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LISTENER: Token = Token(usize::MAX);
const HEAD: usize = 9;
/// Kinds of frames and their flags (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// What a connection may send in all before the window is opened anew.
const WINDOW: u32 = 1 << 30;
/// `:status: 200`, and an `apns-id` that is always the same (RFC 7541 sections 6.1 and 6.2.2).
const ANSWER: &[u8] = b"\x88\x00\x07apns-id\x2400000000-0000-4000-8000-000000000000";

/// How it answers.
#[derive(Clone, Copy)]
pub struct Manner {
    /// How many requests a connection may have under way.
    pub streams: u32,
    pub delay: Duration,
}

/// What came so far.
#[derive(Default)]
pub struct Tally {
    pub answered: AtomicU64,
    /// Bodies that are no notification.
    pub strange: AtomicU64,
    /// Answers on each connection, in the order in which these came.
    pub connections: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Tally {
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    pub fn by_connection(&self) -> Vec<u64> {
        let connections = self.connections.lock().expect("nobody died");
        connections.iter().map(|it| it.load(Relaxed)).collect()
    }
}

/// Starts it on a free port. It ends with the process.
pub fn start(manner: Manner, certificate: &str, key: &str) -> Fallible<(u16, Arc<Tally>)> {
    let chain = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![chain], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let port = listener.local_addr()?.port();
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let tally = Arc::new(Tally::default());
    let sink = Sink {
        manner,
        config: Arc::new(config),
        poll,
        listener,
        visitors: Vec::new(),
        due: VecDeque::new(),
        tally: Arc::clone(&tally),
    };
    thread::Builder::new()
        .name("sink".into())
        .spawn(move || sink.run())?;
    Ok((port, tally))
}

struct Sink {
    manner: Manner,
    config: Arc<ServerConfig>,
    poll: Poll,
    listener: TcpListener,
    /// By token; `None`: it has left.
    visitors: Vec<Option<Visitor>>,
    /// When which stream of whom is to be answered. The delay is one for all, so this is in order.
    due: VecDeque<(Instant, usize, u32)>,
    tally: Arc<Tally>,
}

struct Visitor {
    socket: TcpStream,
    tls: ServerConnection,
    /// What came of a frame that is not whole yet.
    rest: Vec<u8>,
    greeted: bool,
    /// Frames that were not given to TLS yet: a record of its own for each would be dear.
    out: Vec<u8>,
    /// Bytes of bodies since the window was opened.
    eaten: u32,
    count: Arc<AtomicU64>,
}

impl Sink {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let now = Instant::now();
            let next = self.due.front().map(|(at, ..)| at.duration_since(now));
            self.poll.poll(&mut events, next).expect("a wait");
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(nth) => self.serve(nth),
                }
            }
            self.answer_due();
        }
    }

    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            let token = Token(self.visitors.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            registry
                .register(&mut socket, token, both)
                .expect("a place in the poll");
            socket.set_nodelay(true).expect("a socket of TCP");
            let mut tls = ServerConnection::new(Arc::clone(&self.config)).expect("a session");
            tls.set_buffer_limit(None);
            let count = Arc::<AtomicU64>::default();
            let mut connections = self.tally.connections.lock().expect("nobody died");
            connections.push(Arc::clone(&count));
            self.visitors.push(Some(Visitor {
                socket,
                tls,
                rest: Vec::new(),
                greeted: false,
                out: Vec::new(),
                eaten: 0,
                count,
            }));
        }
    }

    /// Reads what there is, and answers what is to be answered at once.
    fn serve(&mut self, nth: usize) {
        let Some(visitor) = self.visitors.get_mut(nth).and_then(Option::as_mut) else {
            return;
        };
        let mut asked = Vec::new();
        let stays = visitor.read(&self.manner, &self.tally, &mut asked);
        if self.manner.delay.is_zero() {
            visitor.answer(&asked, &self.tally);
        } else {
            let at = Instant::now() + self.manner.delay;
            let asked = asked.into_iter().map(|stream| (at, nth, stream));
            self.due.extend(asked);
        }
        if !(stays && visitor.flush()) {
            self.visitors[nth] = None;
        }
    }

    fn answer_due(&mut self) {
        let now = Instant::now();
        while let Some((at, nth, _)) = self.due.front().copied() {
            if at > now {
                return;
            }
            // Those of one connection that are due together leave together.
            let ripe = self.due.iter();
            let ripe = ripe.take_while(|(at, of, _)| *at <= now && *of == nth);
            let streams: Vec<u32> = ripe.map(|(.., stream)| *stream).collect();
            self.due.drain(..streams.len());
            if let Some(Some(visitor)) = self.visitors.get_mut(nth) {
                visitor.answer(&streams, &self.tally);
                if !visitor.flush() {
                    self.visitors[nth] = None;
                }
            }
        }
    }
}

impl Visitor {
    /// Whether it stays; into `asked` go the streams whose requests are whole.
    fn read(&mut self, manner: &Manner, tally: &Tally, asked: &mut Vec<u32>) -> bool {
        let mut plain = [0; 64 * 1024];
        loop {
            let is_over = match self.tls.read_tls(&mut self.socket) {
                Ok(count) => count == 0,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(_) => true,
            };
            if is_over || self.tls.process_new_packets().is_err() {
                return false;
            }
            while let Ok(count @ 1..) = self.tls.reader().read(&mut plain) {
                self.rest.extend_from_slice(&plain[..count]);
            }
            self.take_frames(manner, tally, asked);
        }
    }

    fn take_frames(&mut self, manner: &Manner, tally: &Tally, asked: &mut Vec<u32>) {
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        if !self.greeted && rest.starts_with(PREFACE) {
            self.greeted = true;
            at = PREFACE.len();
            self.greet(manner);
        }
        while self.greeted && rest.len() >= at + HEAD {
            let head = &rest[at..at + HEAD];
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = rest.get(at + HEAD..at + HEAD + length) else {
                break;
            };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take_frame((head[3], head[4]), stream, payload, tally, asked);
            at += HEAD + length;
        }
        self.rest = rest[at..].to_vec();
    }

    fn take_frame(
        &mut self,
        (kind, flags): (u8, u8),
        stream: u32,
        payload: &[u8],
        tally: &Tally,
        asked: &mut Vec<u32>,
    ) {
        match kind {
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            DATA => {
                self.eaten += payload.len() as u32;
                if self.eaten > WINDOW / 2 {
                    self.frame(WINDOW_UPDATE, 0, 0, &self.eaten.to_be_bytes());
                    self.eaten = 0;
                }
                let is_note =
                    payload.is_empty() || memchr::memmem::find(payload, b"\"aps\"").is_some();
                tally.strange.fetch_add(u64::from(!is_note), Relaxed);
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            asked.push(stream);
        }
    }

    fn greet(&mut self, manner: &Manner) {
        let mut settings = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
        settings.extend(manner.streams.to_be_bytes());
        self.frame(SETTINGS, 0, 0, &settings);
        self.frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    }

    fn answer(&mut self, streams: &[u32], tally: &Tally) {
        for stream in streams {
            self.frame(HEADERS, END_HEADERS | END_STREAM, *stream, ANSWER);
        }
        self.count.fetch_add(streams.len() as u64, Relaxed);
        tally.answered.fetch_add(streams.len() as u64, Relaxed);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        self.out
            .extend([length[1], length[2], length[3], kind, flags]);
        self.out.extend(stream.to_be_bytes());
        self.out.extend(payload);
    }

    /// Whether the peer is still there.
    fn flush(&mut self) -> bool {
        self.tls.writer().write_all(&self.out).expect("no limit");
        self.out.clear();
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
