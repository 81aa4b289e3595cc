//! Outgoing connections until they stand: name, TCP, TLS. Knows no node and no protocol that is
//! spoken then. Addresses are tried in the system's order; the next one begins when one fails or
//! gives no answer for a moment, and the first that connects is taken (RFC 8305 section 5, in
//! small). Once TCP stands there is no other try: a certificate that is wrong stays wrong.
//!
//! Invariant: every dial that was begun ends with one outcome, within the time of its target, or is
//! given up. Bounds: dials are as many as the node begins; of one turn's events a few are looked at
//! in that turn, since each may cost a handshake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::{Registry, Waker};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use slab::Slab;

use crate::base::addresses::is_public;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::Moment;
use crate::net::client_tls;
use crate::net::connections::token;
use crate::net::resolver::{Resolved, Resolver, Wanted};
use crate::net::secured::{Handshake, Secured};
use crate::net::stream::Stream;
use crate::net::transport::{Buffers, Reading, Transport};
use crate::wire::target::{ClientTls, Target, TargetScheme};

/// After so long without an answer the next address is tried beside (RFC 8305 section 8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Attempts looked at in one turn.
const STEPS: usize = 16;
/// Events for ids from this slot on are ours; no slab of connections grows that far.
const FIRST_SLOT: u32 = 1 << 31;
/// The resolver's; attempts come behind it.
const RESOLVER: ConnId = ConnId {
    slot: FIRST_SLOT,
    generation: 0,
};

/// See the file's head.
#[derive(Default)]
pub struct Dialler {
    dials: BTreeMap<DialId, Dial>,
    /// When each dial is to be looked at though nothing came.
    due: BTreeSet<(Moment, DialId)>,
    attempts: Slab<Attempt>,
    generation: u32,
    /// Attempts that something came for.
    ready: VecDeque<ConnId>,
    /// Started with the first name.
    resolver: Option<Resolver>,
    /// Made with the first who needs it.
    waker: Option<Arc<Waker>>,
    outcomes: VecDeque<(DialId, Outcome)>,
}

/// What became of a dial.
pub enum Outcome {
    Reached {
        transport: Transport,
        /// What came with the end of the TLS handshake.
        early: Vec<u8>,
        /// The peer will send nothing more.
        end: bool,
        /// What TLS agreed on (ALPN).
        protocol: Option<Vec<u8>>,
    },
    /// Why, for people.
    Failed(String),
}

struct Dial {
    target: Target,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    deadline: Moment,
    /// Its entry among those due.
    due: Moment,
    /// While its name is looked up.
    wanted: Option<Wanted>,
    /// Not tried yet.
    addresses: VecDeque<SocketAddr>,
    attempts: Vec<ConnId>,
}

struct Attempt {
    dial: DialId,
    generation: u32,
    place: String,
    stage: Stage,
    /// Among those that something came for.
    listed: bool,
}

enum Stage {
    Connecting(Stream),
    Securing(Box<Secured>),
    Over,
}

impl Dialler {
    /// Begins; the outcome comes through `next`.
    pub fn begin(
        &mut self,
        dial: DialId,
        (target, client): (Target, &ClientTls),
        now: Moment,
        registry: &Registry,
    ) {
        let tls = match target.scheme().is_secured() {
            false => Ok(None),
            true => client_tls::prepare(&target, client).map(Some),
        };
        let tls = match tls {
            Ok(tls) => tls,
            Err(why) => return self.outcomes.push_back((dial, Outcome::Failed(why))),
        };
        let deadline = now + target.connect_within();
        self.due.insert((deadline, dial));
        let entry = Dial {
            target,
            tls,
            deadline,
            due: deadline,
            wanted: None,
            addresses: VecDeque::new(),
            attempts: Vec::new(),
        };
        let target = entry.target.clone();
        self.dials.insert(dial, entry);
        if target.scheme() == TargetScheme::Unix {
            let path = target.place();
            return match UnixStream::connect(&path) {
                Ok(stream) => self.attempt(dial, path, Stream::Unix(stream), registry),
                Err(error) => self.fail(dial, format!("{path}: {}", words(&error))),
            };
        }
        let (host, port) = (target.host(), target.port());
        match host.parse::<IpAddr>() {
            Ok(address) => self.try_all(dial, [SocketAddr::new(address, port)], now, registry),
            Err(_) => self.resolve(dial, host, port, registry),
        }
    }

    /// Forgets a dial; there will be no outcome.
    pub fn give_up(&mut self, dial: DialId) {
        self.forget(dial);
        self.outcomes.retain(|(other, _)| *other != dial);
    }

    /// An event came for `id`; whether that is one of ours.
    pub fn wake(&mut self, id: ConnId) -> bool {
        if id.slot < FIRST_SLOT {
            return false;
        }
        if let Some(attempt) = self.get(id)
            && !mem::replace(&mut attempt.listed, true)
        {
            self.ready.push_back(id);
        }
        true
    }

    /// Goes on with what something came for, and with what is due.
    pub fn turn(&mut self, now: Moment, registry: &Registry, buffers: &mut Buffers) {
        while let Some(resolved) = self.resolver.as_ref().and_then(Resolver::next) {
            self.resolved(resolved, now, registry);
        }
        for _ in 0..self.ready.len().min(STEPS) {
            if let Some(id) = self.ready.pop_front() {
                self.step(id, now, registry, buffers);
            }
        }
        while let Some(&(at, dial)) = self.due.first()
            && at <= now
        {
            self.elapsed(dial, now, registry);
        }
    }

    /// The next outcome.
    pub fn next(&mut self) -> Option<(DialId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// How many outcomes wait.
    pub fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    /// When to turn though no event came; in the past when something was left undone.
    pub fn deadline(&self) -> Option<Moment> {
        if !self.ready.is_empty() || !self.outcomes.is_empty() {
            return Some(Moment::default());
        }
        self.due.first().map(|(at, _)| *at)
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Attempt> {
        let key = id.slot.checked_sub(FIRST_SLOT + 1)?;
        let attempt = self.attempts.get_mut(key as usize)?;
        (attempt.generation == id.generation).then_some(attempt)
    }

    fn resolve(&mut self, dial: DialId, host: &str, port: u16, registry: &Registry) {
        let started = match self.resolver.take() {
            Some(resolver) => Ok(resolver),
            None => self.waker(registry).and_then(Resolver::start),
        };
        let resolver = match started {
            Ok(resolver) => self.resolver.insert(resolver),
            Err(error) => {
                return self.fail(dial, format!("names cannot be resolved: {}", words(&error)));
            }
        };
        match (resolver.ask(dial, host, port), self.dials.get_mut(&dial)) {
            (Ok(wanted), Some(found)) => found.wanted = Some(wanted),
            (Err(why), _) => self.fail(dial, why.to_string()),
            (Ok(_), None) => {}
        }
    }

    /// There may be one waker for each poll, so others may share it.
    pub fn waker(&mut self, registry: &Registry) -> io::Result<Arc<Waker>> {
        let waker = match self.waker.take() {
            Some(waker) => waker,
            None => Arc::new(Waker::new(registry, token(RESOLVER))?),
        };
        Ok(Arc::clone(self.waker.insert(waker)))
    }

    fn resolved(&mut self, resolved: Resolved, now: Moment, registry: &Registry) {
        let dial = resolved.dial;
        let Some(found) = self.dials.get_mut(&dial) else {
            return;
        };
        found.wanted = None;
        match resolved.addresses {
            Ok(addresses) => self.try_all(dial, addresses, now, registry),
            Err(error) => {
                let host = found.target.host();
                let why = format!("the name {host} could not be resolved: {}", words(&error));
                self.fail(dial, why);
            }
        }
    }

    fn try_all(
        &mut self,
        dial: DialId,
        addresses: impl IntoIterator<Item = SocketAddr>,
        now: Moment,
        registry: &Registry,
    ) {
        if let Some(found) = self.dials.get_mut(&dial) {
            let any = !found.target.is_public_only();
            let mut why = "its name has no address";
            let mut allowed = |address: &SocketAddr| {
                let allowed = any || is_public(address.ip());
                if !allowed {
                    why = "it is a private address, which is not allowed here";
                }
                allowed
            };
            found.addresses = addresses.into_iter().filter(&mut allowed).collect();
            self.try_next(dial, why, now, registry);
        }
    }

    /// Begins with the next address; without one the dial has failed unless others still try.
    /// `why` is what the last one came to.
    fn try_next(&mut self, dial: DialId, why: &str, now: Moment, registry: &Registry) {
        let mut why = why.to_string();
        loop {
            let Some(found) = self.dials.get_mut(&dial) else {
                return;
            };
            let Some(address) = found.addresses.pop_front() else {
                if found.attempts.is_empty() {
                    self.fail(dial, why);
                }
                return;
            };
            if !found.addresses.is_empty() {
                self.look_again(dial, now + NEXT_ADDRESS);
            }
            match TcpStream::connect(address) {
                Ok(stream) => {
                    let stream = Stream::Tcp(stream);
                    return self.attempt(dial, address.to_string(), stream, registry);
                }
                Err(error) => why = format!("{address}: {}", words(&error)),
            }
        }
    }

    fn attempt(&mut self, dial: DialId, place: String, mut stream: Stream, registry: &Registry) {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.attempts.vacant_entry();
        let id = ConnId::new(FIRST_SLOT + 1 + entry.key() as u32, self.generation);
        if let Err(error) = stream.register(registry, token(id)) {
            return self.fail(dial, format!("{place}: {}", words(&error)));
        }
        entry.insert(Attempt {
            dial,
            generation: self.generation,
            place,
            stage: Stage::Connecting(stream),
            listed: false,
        });
        if let Some(found) = self.dials.get_mut(&dial) {
            found.attempts.push(id);
        }
        // A connection that stands at once gives no event on every system.
        self.wake(id);
    }

    /// Looks at an attempt that something came for.
    fn step(&mut self, id: ConnId, now: Moment, registry: &Registry, buffers: &mut Buffers) {
        let Some(attempt) = self.get(id) else {
            return;
        };
        attempt.listed = false;
        match &mut attempt.stage {
            Stage::Connecting(stream) => match stream.is_connected() {
                Ok(false) => {}
                Ok(true) => self.connected(id, registry),
                Err(error) => self.refused(id, &error, now, registry),
            },
            Stage::Securing(secured) => {
                let reading = match secured.send_on() {
                    Ok(()) => secured.read(buffers),
                    Err(_) => Reading::Broken,
                };
                self.secure(id, reading, registry);
            }
            Stage::Over => {}
        }
    }

    /// This address gives no connection.
    fn refused(&mut self, id: ConnId, error: &io::Error, now: Moment, registry: &Registry) {
        if let Some(attempt) = self.remove(id) {
            let why = format!("{}: {}", attempt.place, words(error));
            self.try_next(attempt.dial, &why, now, registry);
        }
    }

    /// TCP stands: nobody else is needed.
    fn connected(&mut self, id: ConnId, registry: &Registry) {
        let Some(attempt) = self.get(id) else {
            return;
        };
        let dial = attempt.dial;
        let stage = mem::replace(&mut attempt.stage, Stage::Over);
        let (Stage::Connecting(stream), Some(found)) = (stage, self.dials.get_mut(&dial)) else {
            return;
        };
        found.addresses.clear();
        let (tls, deadline) = (found.tls.clone(), found.deadline);
        let attempts = found.attempts.clone();
        self.look_again(dial, deadline);
        for other in attempts.into_iter().filter(|other| *other != id) {
            self.remove(other);
        }
        if let Stream::Tcp(stream) = &stream {
            // Without it small messages wait for each other; the connection is good all the same.
            let _ = stream.set_nodelay(true);
        }
        let Some((config, name)) = tls else {
            let transport = Transport::Plain(stream);
            return self.reached(dial, transport, Vec::new(), false, registry);
        };
        match (Secured::connect(stream, config, name), self.get(id)) {
            (Ok(secured), Some(attempt)) => {
                attempt.stage = Stage::Securing(Box::new(secured));
                self.wake(id);
            }
            _ => self.fail(dial, BROKEN.to_string()),
        }
    }

    /// What came during the TLS handshake.
    fn secure(&mut self, id: ConnId, reading: Reading<'_>, registry: &Registry) {
        let Some(attempt) = self.get(id) else {
            return;
        };
        let dial = attempt.dial;
        match reading {
            Reading::Nothing => {}
            Reading::End | Reading::Broken => self.fail(dial, BROKEN.to_string()),
            Reading::Bytes {
                handshake: None,
                more,
                end,
                ..
            } => match (end, more) {
                (true, _) => self.fail(dial, BROKEN.to_string()),
                (false, true) => _ = self.wake(id),
                (false, false) => {}
            },
            Reading::Bytes {
                handshake: Some(Handshake::Failed),
                ..
            } => {
                let stage = mem::replace(&mut attempt.stage, Stage::Over);
                self.handshake_failed(dial, &stage);
            }
            Reading::Bytes { bytes, end, .. } => {
                let stage = mem::replace(&mut attempt.stage, Stage::Over);
                if let Stage::Securing(secured) = stage {
                    self.reached(dial, Transport::Tls(secured), bytes.to_vec(), end, registry);
                }
            }
        }
    }

    fn handshake_failed(&mut self, dial: DialId, stage: &Stage) {
        let fault = match stage {
            Stage::Securing(secured) => secured.fault(),
            _ => None,
        };
        let target = self.dials.get(&dial).map(|found| &found.target);
        let why = match (fault, target) {
            (Some(fault), Some(target)) => client_tls::explain(fault, target),
            _ => BROKEN.to_string(),
        };
        self.fail(dial, why);
    }

    fn reached(
        &mut self,
        dial: DialId,
        mut transport: Transport,
        early: Vec<u8>,
        end: bool,
        registry: &Registry,
    ) {
        // Whoever takes it registers it anew, under another id, and hears of what came meanwhile.
        transport.deregister(registry);
        self.forget(dial);
        let protocol = match &transport {
            Transport::Tls(secured) => secured.protocol().map(<[u8]>::to_vec),
            Transport::Plain(_) => None,
        };
        let reached = Outcome::Reached {
            transport,
            early,
            end,
            protocol,
        };
        self.outcomes.push_back((dial, reached));
    }

    fn fail(&mut self, dial: DialId, why: String) {
        if self.forget(dial) {
            self.outcomes.push_back((dial, Outcome::Failed(why)));
        }
    }

    /// Ends all attempts of a dial; whether it was there.
    fn forget(&mut self, dial: DialId) -> bool {
        let Some(found) = self.dials.remove(&dial) else {
            return false;
        };
        self.due.remove(&(found.due, dial));
        for id in found.attempts {
            self.remove(id);
        }
        true
    }

    /// Closes one attempt; the kernel forgets a socket that is closed.
    fn remove(&mut self, id: ConnId) -> Option<Attempt> {
        let dial = self.get(id)?.dial;
        if let Some(found) = self.dials.get_mut(&dial) {
            found.attempts.retain(|other| *other != id);
        }
        let key = (id.slot - FIRST_SLOT - 1) as usize;
        Some(self.attempts.remove(key))
    }

    fn look_again(&mut self, dial: DialId, at: Moment) {
        if let Some(found) = self.dials.get_mut(&dial) {
            self.due.remove(&(found.due, dial));
            found.due = at.min(found.deadline);
            self.due.insert((found.due, dial));
        }
    }

    /// A dial is due: its time is up, or the next address is to be tried.
    fn elapsed(&mut self, dial: DialId, now: Moment, registry: &Registry) {
        let Some(found) = self.dials.get(&dial) else {
            return;
        };
        if found.deadline <= now {
            let why = self.overdue(found);
            return self.fail(dial, why);
        }
        self.look_again(dial, found.deadline);
        self.try_next(dial, "", now, registry);
    }

    /// What a dial was waiting for in vain.
    fn overdue(&self, dial: &Dial) -> String {
        let time = dial.target.connect_within();
        let key = |id: &ConnId| (id.slot - FIRST_SLOT - 1) as usize;
        let mut attempts = dial.attempts.iter().map(|id| &self.attempts[key(id)]);
        if dial.wanted.is_some() {
            let host = dial.target.host();
            return format!("the name {host} was not resolved within {time:?}");
        }
        match attempts.any(|attempt| matches!(attempt.stage, Stage::Securing(_))) {
            true => format!("the TLS handshake was not done within {time:?}"),
            false => format!("no answer from {} within {time:?}", dial.target.place()),
        }
    }
}

const BROKEN: &str = "the server closed the connection during the TLS handshake";

/// What the system says, without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_string(),
        None => text,
    }
}

#[cfg(test)]
#[path = "dialler_tests.rs"]
mod tests;
