//! Redis as a model, in virtual time: the commands and scripts that a switchboard uses, with the
//! meaning that docs/cluster.md gives them. Shared by the worlds of a cluster. It can be paused, lose
//! its connections, and lose its data.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    servers: BTreeSet<String>,
    channels: BTreeMap<String, BTreeMap<String, Holding>>,
    cache: BTreeMap<String, (Vec<u8>, Moment)>,
    histories: BTreeMap<String, History>,
    muted: BTreeSet<String>,
}

/// Of one channel.
#[derive(Default)]
struct History {
    epoch: String,
    offset: u64,
    /// When, in milliseconds, and the message.
    events: VecDeque<(u128, Vec<u8>)>,
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn list(parts: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat()
}

fn int(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

const NIL: &[u8] = b"_\r\n";

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
                let server = text(1)
                    .split_once("server:")
                    .expect("a lease")
                    .1
                    .to_string();
                let until = self.now + Duration::from_millis(text(4).parse().expect("a time"));
                self.leases.insert(server, until);
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
            "EVALSHA" => {
                let script = text(1).parse::<usize>().expect("a digest of ours");
                return self.run(script, &parts[4..]);
            }
            other => panic!("{other} is not modelled"),
        };
        (answer, Vec::new())
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
        let fenced = is(Script::Hold) || is(Script::Tell) || is(Script::Renew);
        let muted = is(Script::Tell) && self.muted.contains(&text(0));
        if fenced && (muted || !self.has_lease(&text(0))) {
            return (b"-LOST the lease is gone\r\n".to_vec(), Vec::new());
        }
        let mut told = Vec::new();
        let answer = if is(Script::Hold) {
            self.hold(arguments);
            told.push((on(&text(1)), arguments[2].to_vec()));
            int(1)
        } else if is(Script::Tell) {
            self.tell(arguments, &mut told)
        } else if is(Script::Renew) {
            let milliseconds = text(1).parse().expect("a time");
            self.leases
                .insert(text(0), self.now + Duration::from_millis(milliseconds));
            let lost = self.servers.iter().filter(|it| !self.has_lease(it));
            list(&lost.map(|it| bulk(it.as_bytes())).collect::<Vec<_>>())
        } else if is(Script::Look) {
            self.look(&text(0), &text(1))
        } else if is(Script::Turn) {
            let history = self.histories.get_mut(&text(0));
            if let Some(history) = history.filter(|it| it.epoch == text(1)) {
                history.epoch = text(2);
            }
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
            let key = String::from_utf8(part[0].to_vec()).expect("a key");
            // What a client sent is not kept.
            let keep = std::str::from_utf8(part[1]).expect("text");
            let keep: u64 = match keep {
                "c" => 0,
                time => time.parse().expect("a time"),
            };
            if keep > 0 {
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
            parts.extend(self.remembered(key, epoch));
        }
        list(&parts)
    }

    fn history(&mut self, key: &str, epoch: &str) -> &mut History {
        let history = self.histories.entry(key.to_string()).or_default();
        if history.epoch.is_empty() {
            history.epoch = epoch.to_string();
        }
        history
    }

    /// The event's position as it is answered, and the message with it.
    fn place(&mut self, key: &str, rule: &[u8], arguments: &[&[u8]]) -> (String, Vec<u8>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let (message, number, epoch) = (arguments[1], text(arguments[2]), text(arguments[3]));
        let rule: Vec<u128> = text(rule)
            .split(' ')
            .map(|it| it.parse().expect("a number"))
            .collect();
        let now = u128::from(self.now.as_micros() / 1000);
        let history = self.history(key, &epoch);
        history.offset += 1;
        let position = format!("{}{:016x}", history.epoch, history.offset);
        let place = format!("P{}{position}{number}", text(&message[1..26]));
        let placed = [place.as_bytes(), &message[26..]].concat();
        history.events.push_back((now, placed.clone()));
        let is_over = |history: &History| {
            let bytes: usize = history.events.iter().map(|(_, event)| event.len()).sum();
            let old = history
                .events
                .front()
                .is_some_and(|(at, _)| at + rule[1] <= now);
            old || history.events.len() as u128 > rule[0] || bytes as u128 > rule[2]
        };
        while history.events.len() > 1 && is_over(history) {
            history.events.pop_front();
        }
        (position, placed)
    }

    /// The last four parts of a look.
    fn remembered(&mut self, key: &str, epoch: &str) -> [Vec<u8>; 4] {
        let now = self.now.as_micros() / 1000;
        let history = self.history(key, epoch);
        let events = history.events.iter();
        let events =
            events.map(|(at, event)| list(&[bulk(at.to_string().as_bytes()), bulk(event)]));
        [
            bulk(history.epoch.as_bytes()),
            int(history.offset as i64),
            bulk(now.to_string().as_bytes()),
            list(&events.collect::<Vec<_>>()),
        ]
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
