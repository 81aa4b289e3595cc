//! Redis as a model, in virtual time: the commands and scripts that a switchboard uses, with the
//! meaning that docs/cluster.md gives them. Shared by the worlds of a cluster. It can be paused, lose
//! its connections, and lose its data.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lineman::base::ids::{ConnId, DialId};
use lineman::base::now::Moment;
use lineman::node::switchboard::ClusterOptions;
use lineman::node::{Origin, Peer};
use lineman::session::redis::Login;
use lineman::wire::cluster::{SCRIPTS, Script};
use lineman::wire::resp::{Scanner, Value, parse};
use lineman::wire::target::Target;

use super::World;
use super::pipes::End;
use super::streams::History;

/// Of a server of the simulation.
pub const LEASE: Duration = Duration::from_secs(6);

pub type Shared = Rc<RefCell<Redis>>;

/// A connection: the world it is of, and the pipe there.
type Peerage = (usize, usize);

#[derive(Default)]
struct Peering {
    leftover: Vec<u8>,
    scanner: Scanner,
    channels: BTreeSet<String>,
    out: Vec<u8>,
    cut: bool,
}

/// What one server holds of a channel.
#[derive(Default)]
struct Holding {
    count: i64,
    users: BTreeMap<String, String>,
}

/// See the file's head.
#[derive(Default)]
pub struct Redis {
    pub now: Moment,
    pub refuses: bool,
    pub paused: bool,
    peers: BTreeMap<Peerage, Peering>,
    leases: BTreeMap<String, Moment>,
    /// Which world a server was that had a lease.
    homes: BTreeMap<String, usize>,
    servers: BTreeSet<String>,
    channels: BTreeMap<String, BTreeMap<String, Holding>>,
    cache: BTreeMap<String, (Vec<u8>, Moment)>,
    pub(super) histories: BTreeMap<String, History>,
    muted: BTreeSet<String>,
    /// Who tells webhooks, and what is remembered of that: names of keys without prefix.
    teller: String,
    told: BTreeSet<String>,
    letters: BTreeMap<String, Vec<u8>>,
    heard: Option<String>,
    /// What waits for whoever tells.
    news: Vec<Vec<u8>>,
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

pub(super) fn list(parts: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat()
}

pub(super) fn int(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

const NIL: &[u8] = b"_\r\n";

/// What those hear who listen to all channels of an app.
fn within(key: &str, message: &[u8]) -> (String, Vec<u8>) {
    let app = key.split_once('/').expect("a key").0;
    let message = [key.as_bytes(), b" ", message].concat();
    (format!("lineman:in:{app}"), message)
}

/// A page of a scan: so many from the cursor on, and the next cursor. A thing may have several parts.
fn page(all: &[Vec<Vec<u8>>], cursor: &str, count: usize) -> Vec<u8> {
    let from: usize = cursor.parse().expect("a cursor");
    let to = (from + count).min(all.len());
    let next = if to < all.len() { to } else { 0 };
    let cursor = bulk(next.to_string().as_bytes());
    list(&[cursor, list(&all[from.min(to)..to].concat())])
}

impl Redis {
    /// Ends all connections.
    pub fn cut_all(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.cut = true);
    }

    /// Forgets everything.
    pub fn empty(&mut self) {
        self.cut_all();
        self.leases.clear();
        self.servers.clear();
        self.channels.clear();
        self.cache.clear();
        self.histories.clear();
        self.teller.clear();
        self.told.clear();
        self.letters.clear();
        self.heard = None;
        self.news.clear();
    }

    /// The id of whoever tells webhooks, and in which world it lives.
    pub fn teller(&self) -> &str {
        &self.teller
    }

    pub fn teller_world(&self) -> Option<usize> {
        self.homes.get(&self.teller).copied()
    }

    /// How many are remembered to be told, and requests that are not settled.
    pub fn remembered(&self) -> (usize, usize) {
        (self.told.len(), self.letters.len())
    }

    /// Channels in which somebody holds something.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    fn received(&mut self, from: Peerage, bytes: &[u8]) {
        let peer = self.peers.entry(from).or_default();
        peer.leftover.extend_from_slice(bytes);
        loop {
            let peer = self.peers.entry(from).or_default();
            let Some(length) = peer.scanner.next(&peer.leftover).expect("RESP") else {
                return;
            };
            let message: Vec<u8> = peer.leftover.drain(..length).collect();
            let value = parse(&message).expect("RESP");
            let parts: Vec<&[u8]> = value.list().iter().filter_map(Value::bytes).collect();
            let (answer, told) = self.obey(from, &parts);
            let peer = self.peers.entry(from).or_default();
            peer.out.extend(answer);
            // What is published comes behind the answer to whoever published it.
            for (on, message) in told {
                let push = [&bulk(b"message")[..], &bulk(on.as_bytes()), &bulk(&message)];
                let push = [b">3\r\n", &push.concat()[..]].concat();
                let all = self.peers.values_mut();
                for peer in all.filter(|peer| peer.channels.contains(&on)) {
                    peer.out.extend_from_slice(&push);
                }
            }
        }
    }

    /// The answer, and what is published by it.
    fn obey(&mut self, from: Peerage, parts: &[&[u8]]) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let text = |index: usize| String::from_utf8(parts[index].to_vec()).expect("text");
        let ok = || b"+OK\r\n".to_vec();
        let answer = match text(0).as_str() {
            "HELLO" => b"%1\r\n+server\r\n+redis\r\n".to_vec(),
            "SCRIPT" => {
                let known = SCRIPTS.iter().position(|it| it.as_bytes() == parts[2]);
                bulk(known.expect("a script of ours").to_string().as_bytes())
            }
            "SUBSCRIBE" | "UNSUBSCRIBE" => {
                let peer = self.peers.entry(from).or_default();
                match text(0).as_str() {
                    "SUBSCRIBE" => peer.channels.insert(text(1)),
                    _ => peer.channels.remove(&text(1)),
                };
                let kind = bulk(text(0).to_lowercase().as_bytes());
                [b">3\r\n", &kind[..], &bulk(parts[1]), &int(1)].concat()
            }
            "SET" if text(1).contains("mute:") => {
                let server = text(1).split_once("mute:").expect("a name").1.to_string();
                self.muted.insert(server);
                ok()
            }
            "SET" => {
                let name = text(1);
                let (_, server) = name.split_once("server:").expect("a lease");
                let until = self.now + Duration::from_millis(text(4).parse().expect("a time"));
                self.homes.insert(server.to_string(), from.0);
                self.leases.insert(server.to_string(), until);
                ok()
            }
            "SADD" => {
                self.servers.insert(text(2));
                int(1)
            }
            "HGETALL" => {
                let app = text(1).split_once("app:").expect("an app").1.to_string() + "/";
                let names = self
                    .channels
                    .keys()
                    .filter_map(|key| key.strip_prefix(&app));
                let names: Vec<&str> = names.filter(|name| !name.starts_with('#')).collect();
                let counted = |name: &&str| self.counted(&format!("{app}{name}")).expect("held");
                let pairs = names
                    .iter()
                    .flat_map(|it| [bulk(it.as_bytes()), counted(it)]);
                list(&pairs.collect::<Vec<_>>())
            }
            "GET" | "SSCAN" | "HSCAN" => self.remember(parts),
            "PUBLISH" => return (int(1), vec![(text(1), parts[2].to_vec())]),
            "EVALSHA" => {
                let script = text(1).parse::<usize>().expect("a digest of ours");
                return self.run(script, &parts[4..]);
            }
            other => panic!("{other} is not modelled"),
        };
        (answer, Vec::new())
    }

    /// A part of what is remembered of webhooks.
    fn remember(&self, parts: &[&[u8]]) -> Vec<u8> {
        let cursor = || std::str::from_utf8(parts[2]).expect("a cursor");
        match (parts[0], &self.heard) {
            (b"SSCAN", _) => {
                let told = self.told.iter().map(|it| vec![bulk(it.as_bytes())]);
                page(&told.collect::<Vec<_>>(), cursor(), 3)
            }
            (b"HSCAN", _) => {
                let letters = self.letters.iter();
                let pairs = letters.map(|(id, it)| vec![bulk(id.as_bytes()), bulk(it)]);
                page(&pairs.collect::<Vec<_>>(), cursor(), 2)
            }
            (_, Some(heard)) => bulk(heard.as_bytes()),
            (_, None) => NIL.to_vec(),
        }
    }

    fn has_lease(&self, server: &str) -> bool {
        self.leases
            .get(server)
            .is_some_and(|until| *until > self.now)
    }

    /// `subscriptions users` as a value, if the channel is occupied.
    fn counted(&self, key: &str) -> Option<Vec<u8>> {
        let holdings = self.channels.get(key)?.values();
        let count: i64 = holdings.clone().map(|it| it.count).sum();
        let users: BTreeSet<&String> = holdings.flat_map(|it| it.users.keys()).collect();
        Some(bulk(format!("{count} {}", users.len()).as_bytes()))
    }

    fn cached(&self, key: &str) -> [Vec<u8>; 2] {
        match self.cache.get(key).filter(|(_, until)| *until > self.now) {
            Some((message, until)) => {
                [bulk(message), int(until.since(self.now).as_millis() as i64)]
            }
            None => [NIL.to_vec(), int(-2)],
        }
    }

    /// `arguments` behind the prefix.
    fn run(&mut self, script: usize, arguments: &[&[u8]]) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let text = |index: usize| String::from_utf8(arguments[index].to_vec()).expect("text");
        let on = |key: &str| format!("lineman:on:{key}");
        let is = |one: Script| script == one as usize;
        let keeps = is(Script::Keep) || is(Script::News);
        let fenced = is(Script::Hold) || is(Script::Tell) || is(Script::Renew) || keeps;
        let deposed = keeps && self.teller != text(0);
        let muted = is(Script::Tell) && self.muted.contains(&text(0));
        if fenced && (deposed || muted || !self.has_lease(&text(0))) {
            return (b"-LOST the lease is gone\r\n".to_vec(), Vec::new());
        }
        let mut told = Vec::new();
        let answer = if is(Script::Hold) {
            self.hold(arguments);
            told.push((on(&text(1)), arguments[2].to_vec()));
            told.push(within(&text(1), arguments[2]));
            int(1)
        } else if is(Script::News) {
            let most = text(1).parse::<usize>().expect("a number");
            let taken = self.news.drain(..most.min(self.news.len()));
            list(&taken.map(|it| bulk(&it)).collect::<Vec<_>>())
        } else if keeps {
            self.keep(&arguments[1..]);
            int(1)
        } else if is(Script::Tell) {
            self.tell(arguments, &mut told)
        } else if is(Script::Renew) {
            let milliseconds = text(1).parse().expect("a time");
            self.leases
                .insert(text(0), self.now + Duration::from_millis(milliseconds));
            let before = self.elect(&text(0), &text(2));
            let mut answer = vec![bulk(self.teller.as_bytes()), bulk(before.as_bytes())];
            let lost = self.servers.iter().filter(|it| !self.has_lease(it));
            answer.extend(lost.map(|it| bulk(it.as_bytes())));
            list(&answer)
        } else if is(Script::Look) {
            self.look(&text(0), &text(1))
        } else if is(Script::Turn) {
            self.turn(&text(0), &text(1), &text(2));
            int(1)
        } else if is(Script::Glance) {
            let counted = self.counted(&text(0)).unwrap_or(NIL.to_vec());
            let [message, left] = self.cached(&text(0));
            list(&[counted, message, left])
        } else {
            return self.bury(&text(0), text(1) == "1", text(2).parse().expect("a number"));
        };
        (answer, told)
    }

    fn tell(&mut self, arguments: &[&[u8]], told: &mut Vec<(String, Vec<u8>)>) -> Vec<u8> {
        let mut positions = Vec::new();
        for part in arguments[4..].chunks_exact(3) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let (key, keep) = (text(part[0]), text(part[1]));
            if keep == "c" || keep == "n" {
                let (on, message) = within(&key, arguments[1]);
                let heard = self.peers.values().any(|it| it.channels.contains(&on));
                if keep == "n" && !heard {
                    self.news.push(message.clone());
                }
                told.push((on, message));
            } else if keep != "0" {
                let keep = keep.parse().expect("milliseconds");
                let until = self.now + Duration::from_millis(keep);
                let event = (arguments[1].to_vec(), until);
                self.cache.insert(key.clone(), event);
            }
            let (position, message) = match part[2].is_empty() {
                true => (String::new(), arguments[1].to_vec()),
                false => self.place(&key, part[2], arguments),
            };
            positions.push(bulk(position.as_bytes()));
            told.push((format!("lineman:on:{key}"), message));
        }
        list(&positions)
    }

    /// `epoch`: of a history that begins now; nothing where none is wanted.
    fn look(&mut self, key: &str, epoch: &str) -> Vec<u8> {
        let holdings = self.channels.get(key).into_iter().flatten();
        let servers = holdings.map(|(server, holding)| {
            let users = holding.users.iter();
            let users = users.flat_map(|(user, info)| [user, info].map(|it| bulk(it.as_bytes())));
            let count = bulk(holding.count.to_string().as_bytes());
            let users = list(&users.collect::<Vec<_>>());
            list(&[bulk(server.as_bytes()), count, users])
        });
        let servers = list(&servers.collect::<Vec<_>>());
        let [message, left] = self.cached(key);
        let mut parts = vec![servers, message, left];
        if !epoch.is_empty() {
            parts.extend(self.past(key, epoch));
        }
        list(&parts)
    }

    /// Whom the teller's key named before.
    fn elect(&mut self, server: &str, stance: &str) -> String {
        let before = self.teller.clone();
        let life = |id: &str| id.split_once('.').map(|(life, _)| life.to_string());
        let free = match before.is_empty() {
            true => stance == "2",
            false => life(&before) == life(server) || !self.has_lease(&before),
        };
        if stance != "0" && free {
            self.teller = server.to_string();
        }
        before
    }

    fn keep(&mut self, arguments: &[&[u8]]) {
        for change in arguments.chunks_exact(3) {
            let about = String::from_utf8(change[1].to_vec()).expect("text");
            match change[0] {
                b"A" => {
                    self.told.clear();
                    self.letters.clear();
                    self.heard = None;
                }
                b"T" => drop(self.told.insert(about)),
                b"U" => drop(self.told.remove(&about)),
                b"Q" => drop(self.letters.insert(about, change[2].to_vec())),
                b"S" => drop(self.letters.remove(&about)),
                b"H" => self.heard = Some(about),
                other => panic!("{other:?} is no change"),
            }
        }
    }

    fn hold(&mut self, arguments: &[&[u8]]) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let (server, key) = (text(arguments[0]), text(arguments[1]));
        let servers = self.channels.entry(key.clone()).or_default();
        let holding = servers.entry(server.clone()).or_default();
        holding.count = text(arguments[3]).parse().expect("a count");
        for pair in arguments[4..].chunks_exact(2) {
            match pair[1].is_empty() {
                true => holding.users.remove(&text(pair[0])),
                false => holding.users.insert(text(pair[0]), text(pair[1])),
            };
        }
        if holding.count == 0 {
            assert!(holding.users.is_empty(), "users without a subscription");
            servers.remove(&server);
        }
        if servers.is_empty() {
            self.channels.remove(&key);
        }
    }

    /// A few channels at a time, so that simulations see burials half done.
    fn bury(
        &mut self,
        server: &str,
        insists: bool,
        _at_once: usize,
    ) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        if insists {
            self.leases.remove(server);
        } else if self.has_lease(server) {
            return (int(-1), Vec::new());
        }
        let holds = |it: &&String| self.channels[*it].contains_key(server);
        let held: Vec<String> = self.channels.keys().filter(holds).cloned().collect();
        let mut told = Vec::new();
        for key in held.iter().take(2) {
            let servers = self.channels.get_mut(key).expect("listed");
            servers.remove(server);
            if servers.is_empty() {
                self.channels.remove(key);
            }
            let message = format!("G{server}").into_bytes();
            told.push(within(key, &message));
            told.push((format!("lineman:on:{key}"), message));
        }
        let left = held.len().saturating_sub(2);
        if left == 0 {
            self.servers.remove(server);
        }
        (int(left as i64), told)
    }
}

/// How a switchboard of the simulation finds it.
pub fn options() -> ClusterOptions {
    ClusterOptions {
        target: Target::parse("tcp://redis.example:6379").expect("a target"),
        login: Login::default(),
        prefix: "lineman:".into(),
        lease: LEASE,
    }
}

impl World {
    pub(super) fn dial_redis(&mut self, index: usize, dial: DialId) {
        let now = self.now;
        let redis = self.redis.clone().expect("a world of a cluster");
        let process = self.processes[index].as_mut().expect("alive");
        if redis.borrow().refuses {
            return process
                .node
                .unreachable(Peer::Outside(dial), "refused", now);
        }
        let pipe = self.next_pipe;
        let conn: ConnId = self.seat(index, pipe);
        self.join_redis(pipe, End::Process(index, conn));
        let process = self.processes[index].as_mut().expect("alive");
        process
            .node
            .opened(conn, Origin::Dialled(Peer::Outside(dial)), now);
    }

    /// Takes over what Redis has for us, as the kernel does.
    pub(super) fn hear_from_redis(&mut self) {
        let Some(redis) = self.redis.clone() else {
            return;
        };
        let mut redis = redis.borrow_mut();
        for (index, pipe) in &mut self.pipes {
            if pipe.ends[1] != End::Redis {
                continue;
            }
            let peer = redis.peers.entry((self.number, *index)).or_default();
            pipe.ways[1].bytes.extend(std::mem::take(&mut peer.out));
            if peer.cut || pipe.closed[0] {
                pipe.closed[1] = true;
                pipe.ways[1].shut = true;
                pipe.ways[0].bytes.clear();
            }
        }
        let (number, pipes) = (self.number, &self.pipes);
        redis.peers.retain(|(world, pipe), peer| {
            *world != number || (pipes.contains_key(pipe) && !peer.cut)
        });
        let done: Vec<usize> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.ends[1] == End::Redis && pipe.closed == [true; 2])
            .map(|(index, _)| *index)
            .collect();
        done.into_iter()
            .for_each(|index| drop(self.pipes.remove(&index)));
    }

    pub(super) fn tell_redis(&mut self, pipe: usize, bytes: &[u8]) {
        let redis = self.redis.clone().expect("a world of a cluster");
        redis.borrow_mut().received((self.number, pipe), bytes);
    }

    pub(super) fn is_redis_awake(&self) -> bool {
        self.redis
            .as_ref()
            .is_some_and(|redis| !redis.borrow().paused)
    }
}
