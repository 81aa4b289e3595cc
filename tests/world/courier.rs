//! What a courier deals with, as models: a disk that keeps what was committed and loses what was not,
//! and servers that receive webhooks and fail in every way that servers fail.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lineman::app::apps::Apps;
use lineman::base::dice::Dice;
use lineman::base::ids::DialId;
use lineman::base::limits::Limits;
use lineman::node::courier::{Courier, CourierOptions, DeviceOptions};
use lineman::node::switchboard::Watched;
use lineman::node::{Node, Origin, Peer};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::push::facts::{Fact, Letter, Memory, StoreReply, StoreRequest};
use lineman::push::truth::Subject;
use lineman::push::webhook::{Kind, Webhook};
use lineman::store::sqlite::InMemory;
use lineman::wire::target::Target;
use serde_json::Value;

use super::pipes::{End, Pipe};
use super::{APP_ID, World};

/// See the file's head.
pub struct Outside {
    pub disk: Disk,
    pub receivers: Vec<Receiver>,
    /// How many requests have arrived anywhere.
    arrivals: Rc<Cell<u64>>,
    /// Which receiver a connection leads to, and what of a request has come.
    conns: BTreeMap<usize, (usize, Vec<u8>)>,
    next_conn: usize,
}

/// An endpoint, and what it was told.
pub struct Receiver {
    /// How often of a hundred a request goes wrong.
    pub trouble: u64,
    pub requests: Vec<Told>,
}

/// One webhook that arrived whole.
pub struct Told {
    pub body: String,
    /// Whether the sender was told, with a 200, that it has arrived.
    pub fine: bool,
    /// How many had arrived before, wherever they came from.
    pub place: u64,
}

impl Outside {
    /// A server with a push gateway, whose disk is SQLite itself.
    pub fn gateway() -> Outside {
        let mut outside = Outside::new(0);
        outside.disk.gateway = Some(InMemory::open().expect("SQLite"));
        outside
    }

    /// A server with so many endpoints, which want everything about channels and members.
    pub fn new(receivers: usize) -> Outside {
        let receiver = |_| Receiver {
            trouble: 0,
            requests: Vec::new(),
        };
        Outside {
            disk: Disk::default(),
            receivers: (0..receivers).map(receiver).collect(),
            arrivals: Rc::default(),
            conns: BTreeMap::new(),
            next_conn: 0,
        }
    }

    /// The same endpoints as another server has.
    pub fn beside(other: &Outside) -> Outside {
        Outside {
            arrivals: Rc::clone(&other.arrivals),
            ..Outside::new(other.receivers.len())
        }
    }

    fn webhooks(&self) -> Vec<Webhook> {
        let webhook = |index: usize| {
            let url = format!("http://receiver-{index}.example/");
            Webhook {
                app_id: APP_ID.into(),
                target: Target::parse_web(&url).expect("a URL"),
                url,
                kinds: Kind::ALL[..4].iter().map(|(_, kind)| *kind).collect(),
                channel_prefix: String::new(),
                channel_suffix: String::new(),
                batch_events: 10,
                timeout: Duration::from_secs(5),
                // Nothing is given up within a test.
                retry: Duration::from_secs(604_800),
            }
        };
        (0..self.receivers.len()).map(webhook).collect()
    }

    pub fn has_gateway(&self) -> bool {
        self.disk.gateway.is_some()
    }

    pub fn watched(&self) -> Watched {
        if self.receivers.is_empty() {
            return Watched::new();
        }
        let kinds = Kind::ALL[..4].iter().map(|(_, kind)| *kind);
        Watched::from([(APP_ID.to_string(), kinds.collect())])
    }

    pub fn courier(
        &self,
        (apps, limits): (Apps, Limits),
        in_cluster: bool,
        seed: [u8; 16],
    ) -> Box<dyn Node> {
        Box::new(Courier::new(CourierOptions {
            webhooks: self.webhooks(),
            apps,
            limits,
            in_cluster,
            sending: Default::default(),
            devices: self.has_gateway().then(|| DeviceOptions {
                vault: vault(&mut Dice::new(seed)),
                keep_ms: 30 * 24 * 3600 * 1000,
            }),
            seed,
        }))
    }
}

/// That of every courier which has a gateway.
pub fn vault(dice: &mut Dice) -> TokenVault {
    let text = data_encoding::BASE64.encode(b"a key of two and thirty bytes ..");
    let key = TokenKey::parse(KeyId::parse("1").expect("an id"), &text).expect("a key");
    TokenVault::new(key, Vec::new(), Binding::Row, dice).expect("a vault")
}

/// What survives the courier. A commit that was under way when it died is there as a whole or not.
#[derive(Default)]
pub struct Disk {
    told: BTreeMap<(String, Subject), ()>,
    letters: BTreeMap<u64, Letter>,
    heard: Option<(u64, u64)>,
    under_way: Option<StoreRequest>,
    /// Keeps everything, if there is a push gateway.
    pub gateway: Option<InMemory>,
    /// Transactions that were committed.
    pub commits: u64,
}

impl Disk {
    pub fn ask(&mut self, request: StoreRequest) {
        self.under_way = Some(request);
    }

    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// The courier is gone. It may have died before the commit or right after.
    pub fn abandon(&mut self, dice: &mut Dice) {
        if dice.below(2) == 0 {
            self.under_way = None;
        }
        self.finish(dice, 0);
    }

    /// Ends the request that is under way. `trouble`: how often of a hundred a commit fails.
    pub fn finish(&mut self, dice: &mut Dice, trouble: u64) -> Option<StoreReply> {
        let request = self.under_way.take()?;
        if let Some(gateway) = &mut self.gateway {
            let fails = matches!(request, StoreRequest::Commit(_)) && dice.below(100) < trouble;
            self.commits += u64::from(!fails);
            return Some(match fails {
                true => StoreReply::Failed("the disk is full".into()),
                false => gateway.answer(&request),
            });
        }
        match request {
            StoreRequest::Load => Some(StoreReply::Loaded(Memory {
                is_shared: false,
                told: self.told.keys().cloned().collect(),
                letters: self.letters.values().cloned().collect(),
                heard: self.heard,
                token_keys: Vec::new(),
                has_notifications: false,
            })),
            StoreRequest::Commit(_) if dice.below(100) < trouble => {
                Some(StoreReply::Failed("the disk is full".into()))
            }
            StoreRequest::Commit(work) => {
                work.facts.iter().for_each(|fact| self.keep(fact));
                self.commits += 1;
                Some(StoreReply::Committed(Vec::new()))
            }
        }
    }

    fn keep(&mut self, fact: &Fact) {
        match fact.clone() {
            Fact::Anew => {
                self.told.clear();
                self.letters.clear();
                self.heard = None;
            }
            Fact::Told(key, subject) => {
                self.told.insert((key, subject), ());
            }
            Fact::Untold(key, subject) => {
                self.told.remove(&(key, subject));
            }
            Fact::Queued(letter) => {
                self.letters.insert(letter.id, Letter::clone(&letter));
            }
            Fact::Settled(id) => {
                self.letters.remove(&id);
            }
            Fact::Heard { life, sequence } => self.heard = Some((life, sequence)),
        }
    }
}

impl World {
    pub fn outside_mut(&mut self) -> &mut Outside {
        self.outside.as_mut().expect("a world with webhooks")
    }

    /// The disk answers, if it was asked; false when it was not.
    pub fn turn_disk(&mut self) -> bool {
        let Some(outside) = self.outside.as_mut().filter(|it| it.disk.is_busy()) else {
            return false;
        };
        let reply = outside.disk.finish(&mut self.dice, 3).expect("it is busy");
        let (courier, now) = (self.courier(), self.now);
        if let Some(process) = self.processes[courier].as_mut() {
            process.node.stored(reply, now);
            self.drain(courier);
        }
        true
    }

    /// The courier connects to a server outside.
    pub(super) fn dial_outside(&mut self, index: usize, dial: DialId) {
        let now = self.now;
        let process = self.processes[index].as_mut().expect("alive");
        let Some(target) = process.node.target(dial) else {
            return;
        };
        let host = target.host().trim_start_matches("receiver-");
        let receiver: usize = host.trim_end_matches(".example").parse().expect("a number");
        let peer = Peer::Outside(dial);
        let outside = self.outside.as_mut().expect("a world with webhooks");
        if self.dice.below(200) < outside.receivers[receiver].trouble {
            return process.node.unreachable(peer, "refused", now);
        }
        let far = outside.next_conn;
        outside.next_conn += 1;
        outside.conns.insert(far, (receiver, Vec::new()));
        let pipe = self.next_pipe;
        let conn = self.seat(index, pipe);
        self.next_pipe += 1;
        let ends = [End::Process(index, conn), End::Receiver(far)];
        let (ways, closed) = Default::default();
        self.pipes.insert(pipe, Pipe { ends, ways, closed });
        let process = self.processes[index].as_mut().expect("alive");
        process.node.opened(conn, Origin::Dialled(peer), now);
    }

    /// A server outside reads.
    pub(super) fn receive_outside(&mut self, conn: usize, bytes: &[u8], ended: bool) {
        let outside = self.outside.as_mut().expect("a world with webhooks");
        let Some((receiver, held)) = outside.conns.get_mut(&conn) else {
            return;
        };
        held.extend_from_slice(bytes);
        let receiver = *receiver;
        if let Some(body) = whole_body(held) {
            held.clear();
            self.answer_outside(receiver, conn, body);
        }
        if ended {
            self.close_outside(conn);
        }
    }

    /// A request is there: it is answered well, or what goes wrong goes wrong before it was read,
    /// after, or not within any time.
    fn answer_outside(&mut self, receiver: usize, conn: usize, body: String) {
        let outside = self.outside.as_mut().expect("a world with webhooks");
        let receiver = &mut outside.receivers[receiver];
        let trouble = self.dice.below(100) < receiver.trouble;
        let manner = if trouble { self.dice.below(5) } else { 5 };
        if manner >= 2 {
            let fine = manner == 5;
            let place = outside.arrivals.get();
            outside.arrivals.set(place + 1);
            receiver.requests.push(Told { body, fine, place });
        }
        match manner {
            0 => self.write_outside(conn, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            // Cut, before or after it was taken up.
            1 | 2 => self.close_outside(conn),
            // Taken up, and no answer ever comes.
            3 => {}
            4 => {
                self.write_outside(conn, "HTTP/1.1 200 ");
                self.close_outside(conn);
            }
            _ => self.write_outside(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    }

    fn write_outside(&mut self, conn: usize, text: &str) {
        for pipe in self.pipes.values_mut() {
            if pipe.ends[1] == End::Receiver(conn) && !pipe.closed[1] {
                pipe.ways[1].bytes.extend(text.as_bytes());
            }
        }
    }

    fn close_outside(&mut self, conn: usize) {
        let is_it = |(index, pipe): (&usize, &Pipe)| {
            (pipe.ends[1] == End::Receiver(conn)).then_some(*index)
        };
        if let Some(pipe) = self.pipes.iter().find_map(is_it) {
            self.close_end(pipe, |end| *end == End::Receiver(conn));
        }
        self.outside_mut().conns.remove(&conn);
    }
}

impl Told {
    pub fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("a webhook is JSON");
        body["events"].as_array().expect("a list").clone()
    }
}

/// The body of the one request in `held`, when all of it has come.
fn whole_body(held: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(held).expect("webhooks are text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.expect("a length").parse().expect("a number");
    (body.len() == length).then(|| body.to_string())
}
