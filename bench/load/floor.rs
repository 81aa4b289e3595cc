//! The floor: the least a server can do on this kernel with one thread and one
//! event loop. Others are measured as multiples of it.
//!
//! It writes back what it read without looking at it, copies one publish to
//! all subscribers with one write each and turn, and answers HTTP with a fixed
//! text. It checks nothing, signs nothing, limits nothing and understands only
//! this generator: it is a ruler, not a server.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::Fallible;
use crate::options::FloorOptions;
use crate::websocket::{self, CLOSE, PONG, TEXT};

const LISTENER: Token = Token(usize::MAX - 2);
const LEASH: Token = Token(usize::MAX - 3);

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const GREETING: &str = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#;
const PONG_EVENT: &str = r#"{"event":"pusher:pong","data":"{}"}"#;

/// What a connection has become.
enum Role {
    Http,
    Echo,
    Greeted,
    Member(usize),
}

struct Peer {
    stream: TcpStream,
    role: Role,
    rest: Vec<u8>,
    unsent: Vec<u8>,
}

#[derive(Default)]
struct Channel {
    members: Vec<usize>,
    /// Frames published in this turn, written once at its end.
    pending: Vec<u8>,
}

struct Floor {
    poll: Poll,
    peers: Slab<Peer>,
    names: HashMap<Vec<u8>, usize>,
    channels: Vec<Channel>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    reply: Vec<u8>,
}

pub fn run(options: &FloorOptions) -> Fallible<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    if options.leashed {
        poll.registry()
            .register(&mut SourceFd(&0), LEASH, Interest::READABLE)?;
    }
    let mut floor = Floor {
        poll,
        peers: Slab::new(),
        names: HashMap::new(),
        channels: Vec::new(),
        dirty: Vec::new(),
        buffer: vec![0; 512 * 1024],
        reply: Vec::new(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener)?,
                LEASH => return Ok(()),
                Token(index) => {
                    if floor.serve(index, event.is_read_closed()).is_err() {
                        floor.forget(index);
                    }
                }
            }
        }
        floor.deliver();
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> Fallible<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let entry = self.peers.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(entry.key()), both)?;
            entry.insert(Peer {
                stream,
                role: Role::Http,
                rest: Vec::new(),
                unsent: Vec::new(),
            });
        }
    }

    fn serve(&mut self, index: usize, ending: bool) -> Fallible<()> {
        if !self.peers.contains(index) {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read(index, ending, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn read(&mut self, index: usize, ending: bool, buffer: &mut [u8]) -> Fallible<()> {
        self.peers[index].flush()?;
        loop {
            let peer = &mut self.peers[index];
            let read = match peer.stream.read(buffer) {
                Ok(0) => return Err("closed".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if let Role::Echo = peer.role {
                peer.send(&buffer[..read])?;
            } else {
                self.understand(index, &buffer[..read])?;
            }
            // A read that leaves room has emptied the socket; only an end that
            // was announced together with the bytes is still to be read.
            if read < buffer.len() && !ending {
                return Ok(());
            }
        }
    }

    /// Takes whole requests or frames from what has arrived.
    fn understand(&mut self, index: usize, read: &[u8]) -> Fallible<()> {
        let joined: Vec<u8>;
        let rest = std::mem::take(&mut self.peers[index].rest);
        let bytes = if rest.is_empty() {
            read
        } else {
            joined = [&rest[..], read].concat();
            &joined[..]
        };
        let mut used = 0;
        self.reply.clear();
        while used < bytes.len() {
            let taken = match self.peers[index].role {
                Role::Http => self.request(index, &bytes[used..])?,
                Role::Echo => return Err("frames sent before the upgrade was answered".into()),
                Role::Greeted | Role::Member(_) => self.frame(index, &bytes[used..])?,
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        let peer = &mut self.peers[index];
        peer.rest.extend_from_slice(&bytes[used..]);
        let reply = std::mem::take(&mut self.reply);
        let result = peer.send(&reply);
        self.reply = reply;
        Ok(result?)
    }

    fn request(&mut self, index: usize, bytes: &[u8]) -> Fallible<usize> {
        let Some(head) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(0);
        };
        if bytes[0] == b'P' {
            let length = between(&bytes[..head], b"Content-Length: ", b"\r").ok_or("no length")?;
            let length: usize = std::str::from_utf8(&bytes[length])?.parse()?;
            if bytes.len() < head + length {
                return Ok(0);
            }
            self.publish(&bytes[head..head + length])?;
            self.reply.extend_from_slice(OK);
            return Ok(head + length);
        }
        let Some(key) = between(&bytes[..head], b"Sec-WebSocket-Key: ", b"\r") else {
            self.reply.extend_from_slice(OK);
            return Ok(head);
        };
        let accept = websocket::accept_for(&bytes[key]);
        write!(
            self.reply,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )?;
        let greeted = bytes.starts_with(b"GET /app/");
        self.peers[index].role = if greeted { Role::Greeted } else { Role::Echo };
        if greeted {
            websocket::write_unmasked(&mut self.reply, TEXT, GREETING.as_bytes());
        }
        Ok(head)
    }

    /// What a Pusher client says: its subscription, a ping, or goodbye.
    fn frame(&mut self, index: usize, bytes: &[u8]) -> Fallible<usize> {
        let Some(frame) = websocket::parse_frame(bytes)? else {
            return Ok(0);
        };
        let mut text = bytes[frame.payload.clone()].to_vec();
        websocket::apply_mask(&mut text, frame.mask.ok_or("unmasked")?);
        if frame.opcode == CLOSE {
            websocket::write_unmasked(&mut self.reply, CLOSE, &text);
        } else if let Some(name) = between(&text, b"\"channel\":\"", b"\"") {
            let name = &text[name];
            let channel = self.channel(name);
            self.channels[channel].members.push(index);
            self.peers[index].role = Role::Member(channel);
            let name = std::str::from_utf8(name)?;
            let event = "pusher_internal:subscription_succeeded";
            let answer = format!(r#"{{"event":"{event}","channel":"{name}","data":"{{}}"}}"#);
            websocket::write_unmasked(&mut self.reply, TEXT, answer.as_bytes());
        } else if frame.opcode != PONG {
            websocket::write_unmasked(&mut self.reply, TEXT, PONG_EVENT.as_bytes());
        }
        Ok(frame.len())
    }

    /// Encodes an event once, for everybody who hears it.
    fn publish(&mut self, body: &[u8]) -> Fallible<()> {
        let name = between(body, b"\"channels\":[\"", b"\"").ok_or("no channel")?;
        let data = between(body, b"\"data\":\"", b"\"").ok_or("no data")?;
        let channel = self.channel(&body[name.clone()]);
        let parts: [&[u8]; 5] = [
            br#"{"event":"bench","channel":""#,
            &body[name],
            br#"","data":""#,
            &body[data],
            br#""}"#,
        ];
        let pending = &mut self.channels[channel].pending;
        if pending.is_empty() {
            self.dirty.push(channel);
        }
        websocket::write_unmasked(pending, TEXT, &parts.concat());
        Ok(())
    }

    fn deliver(&mut self) {
        for channel in std::mem::take(&mut self.dirty) {
            let Channel { members, pending } = &mut self.channels[channel];
            let mut lost = Vec::new();
            for index in &*members {
                if self.peers[*index].send(pending).is_err() {
                    lost.push(*index);
                }
            }
            pending.clear();
            lost.into_iter().for_each(|index| self.forget(index));
        }
    }

    fn channel(&mut self, name: &[u8]) -> usize {
        if let Some(channel) = self.names.get(name) {
            return *channel;
        }
        self.names.insert(name.to_vec(), self.channels.len());
        self.channels.push(Channel::default());
        self.channels.len() - 1
    }

    fn forget(&mut self, index: usize) {
        if let Some(Peer {
            role: Role::Member(channel),
            ..
        }) = self.peers.try_remove(index)
        {
            let members = &mut self.channels[channel].members;
            if let Some(place) = members.iter().position(|member| *member == index) {
                members.swap_remove(place);
            }
        }
    }
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = if self.unsent.is_empty() {
            self.write(bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let written = self.write(&unsent)?;
            self.unsent.extend_from_slice(&unsent[written..]);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

/// Where the text between `before` and the next `after` lies.
fn between(bytes: &[u8], before: &[u8], after: &[u8]) -> Option<Range<usize>> {
    let start = memmem::find(bytes, before)? + before.len();
    let length = memmem::find(&bytes[start..], after)?;
    Some(start..start + length)
}
