//! The switchboard role: the one place where the events of a channel get their order and where
//! presence and occupancy are known. It hears workers, keeps the registry, and hands every event
//! to each worker that has subscribers.
//!
//! Invariants. A publish is answered when its event is with the kernel on every link that has
//! subscribers, so that neither our death nor a full buffer can lose it afterwards; or it is
//! refused before any link got it. While not settled – freshly started, or a link was cut by us
//! and has not announced itself again – nothing but announcements is taken up: the rest is held,
//! since an incomplete registry would promise too much.

mod cluster;
mod courier;
mod errands;
mod gateway;
mod hear;
mod publishing;
mod remembering;
mod settling;
mod telling;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::base::bytes::{Inbox, Outbox};
use crate::base::counters::Counters;
use crate::base::dice::Dice;
use crate::base::history_rule::HistoryRule;
use crate::base::ids::{ConnId, DialId};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::node::lines::Lines;
use crate::node::switchboard::cluster::Cluster;
pub use crate::node::switchboard::cluster::ClusterOptions;
use crate::node::switchboard::courier::Reporter;
pub use crate::node::switchboard::courier::Watched;
use crate::node::switchboard::gateway::Calls;
use crate::node::switchboard::publishing::Unanswered;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::realtime::cache::Cache;
use crate::realtime::counting::Counting;
use crate::realtime::history::History;
use crate::realtime::registry::{LinkId, Registry};
use crate::realtime::replays::Replays;
use crate::realtime::sessions::Sessions;
use crate::realtime::spending::Spending;
use crate::realtime::watching::Watching;
use crate::session::link::next_frame;
use crate::wire::bus::{Down, Outcome, Up, VERSION};
use crate::wire::bus_codec::Garbled;
use crate::wire::control::{Order, Report};
use crate::wire::courier_bus::FRAME_SURPLUS;
use crate::wire::target::Target;

/// What a switchboard is made of.
pub struct SwitchboardOptions {
    /// Reactors of all workers.
    pub links_expected: u32,
    /// The links of all workers that live already: they may hold something. More than are expected
    /// while slots are handed over.
    pub living: Vec<LinkId>,
    pub limits: Limits,
    /// Whose events are reported to the courier.
    pub watched: Watched,
    /// Whether there is a courier for calls, whoever is watched.
    pub gateway: bool,
    /// `None`: this server is all there is.
    pub cluster: Option<ClusterOptions>,
    /// Which channels keep history.
    pub history: Vec<HistoryRule>,
    /// From the operating system's entropy.
    pub seed: [u8; 16],
}

/// One connection.
pub(super) struct Link {
    generation: u32,
    role: Role,
    /// Apps whose clients are told how many they are, as its Hello said.
    pub(super) counted: Vec<String>,
    /// The start of a frame.
    leftover: Vec<u8>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    /// Before Hello.
    Stranger,
    /// Said Hello; its announcements come.
    Announcing(LinkId),
    Worker(LinkId),
    /// Those that we dialled.
    Courier,
    Gateway,
    Redis,
}

/// See the file's head.
pub struct Switchboard {
    pub(super) limits: Limits,
    pub(super) links_expected: u32,
    pub(super) registry: Registry,
    pub(super) cache: Cache,
    pub(super) history: History,
    pub(super) counting: Counting,
    pub(super) watching: Watching,
    pub(super) spending: Spending,
    pub(super) replays: Replays,
    pub(super) sessions: Sessions,
    pub(super) lines: Lines,
    pub(super) links: Vec<Option<Link>>,
    pub(super) by_id: HashMap<LinkId, ConnId, FixedState>,
    pub(super) outputs: VecDeque<Output>,
    unanswered: VecDeque<Unanswered>,
    pub(super) last_publish: u64,
    /// Until when announcements are waited for; `None` once settled.
    pub(super) settling: Option<Moment>,
    /// While settling: those whose workers live and may hold what we have not heard of yet.
    awaited: BTreeSet<LinkId>,
    reporter: Reporter,
    calls: Calls,
    cluster: Option<Box<Cluster>>,
    /// Frames held while settling, in the order they came.
    held: VecDeque<(ConnId, Vec<u8>)>,
    pub(super) counters: Counters,
}

impl Switchboard {
    pub fn new(options: SwitchboardOptions, now: Now) -> Switchboard {
        let SwitchboardOptions {
            links_expected,
            living,
            limits,
            watched,
            gateway,
            cluster,
            history,
            seed,
        } = options;
        let mut dice = Dice::new(seed);
        let apps = watched.keys().cloned().collect();
        Switchboard {
            links_expected,
            registry: Registry::new(limits.presence_members, &mut dice),
            cache: Cache::new(&limits, &mut dice),
            history: History::new(history, &limits, &mut dice),
            counting: Counting::new(&mut dice),
            watching: Watching::new(&mut dice),
            spending: Spending::default(),
            replays: Replays::default(),
            sessions: Sessions::new(&mut dice),
            lines: Lines::new(usize::MAX),
            links: Vec::new(),
            by_id: HashMap::default(),
            outputs: VecDeque::new(),
            unanswered: VecDeque::new(),
            last_publish: 0,
            settling: Some(now.moment + Duration::from_millis(limits.settle_ms)),
            awaited: living.into_iter().collect(),
            reporter: Reporter::new(watched, cluster.is_none(), &mut dice, now),
            calls: Calls::new(gateway, &mut dice, now),
            cluster: cluster.map(|it| Box::new(Cluster::new(it, apps, &mut dice, now))),
            held: VecDeque::new(),
            counters: Counters::default(),
            limits,
        }
    }

    fn link(&mut self, conn: ConnId) -> Option<&mut Link> {
        let link = self.links.get_mut(conn.slot as usize)?.as_mut()?;
        (link.generation == conn.generation && !link.ended).then_some(link)
    }

    /// Queues one message on a link; one that is hopelessly behind is cut, and told everything
    /// again when it returns.
    pub(super) fn send(&mut self, conn: ConnId, message: &Down<'_>, now: Now) {
        self.send_frame(conn, &message.encode(), now);
    }

    pub(super) fn send_frame(&mut self, conn: ConnId, frame: &[u8], now: Now) {
        if self.lines.push(conn, |out| out.push(frame)).is_err() {
            log::error!("link {conn} is hopelessly behind and starts over");
            self.settle_again(conn, now);
            self.refuse_what_is_lost(conn);
            self.drop_link(conn, now);
        }
    }

    /// Nothing more is promised until the worker whose link we cut has announced itself again.
    fn settle_again(&mut self, conn: ConnId, now: Now) {
        if let Some(Role::Announcing(id) | Role::Worker(id)) = self.link(conn).map(|it| it.role) {
            self.awaited.insert(id);
        }
        let patience = Duration::from_millis(self.limits.settle_ms);
        self.settling.get_or_insert(now.moment + patience);
    }

    fn read_frames(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) {
        if self.link(conn).is_some_and(|link| link.role == Role::Redis) {
            return self.read_redis(conn, inbox, now);
        }
        let bytes_max = self.limits.bus_message_bytes + FRAME_SURPLUS;
        while self.link(conn).is_some() {
            match next_frame(inbox, bytes_max) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if self.take_frame(conn, frame, now).is_err() {
                        self.drop_garbled(conn, now);
                    }
                }
                Err(Garbled) => self.drop_garbled(conn, now),
            }
        }
    }

    fn drop_garbled(&mut self, conn: ConnId, now: Now) {
        log::error!("link {conn} sent what is no message and starts over");
        // A stranger holds nothing that would have to be told again.
        if self
            .link(conn)
            .is_some_and(|link| link.role != Role::Stranger)
        {
            self.settle_again(conn, now);
            self.refuse_what_is_lost(conn);
        }
        self.drop_link(conn, now);
    }

    fn take_frame(&mut self, conn: ConnId, frame: &[u8], now: Now) -> Result<(), Garbled> {
        let Some(link) = self.link(conn) else {
            return Ok(());
        };
        match link.role {
            Role::Master => {
                self.obey(conn, Order::decode(frame)?);
                Ok(())
            }
            Role::Courier => self.hear_courier(conn, frame, now),
            Role::Gateway => self.hear_gateway(conn, frame, now),
            // What it says is no frame; see `read_redis`.
            Role::Redis => Ok(()),
            Role::Stranger => self.greet(conn, Up::decode(frame)?, now),
            Role::Announcing(id) => self.take_announcement(conn, id, Up::decode(frame)?, now),
            Role::Worker(id) => {
                let message = Up::decode(frame)?;
                if self.settling.is_none() {
                    if !self.waits_for_look(conn, &message, now) {
                        self.hear(conn, id, message, now);
                    }
                    return Ok(());
                }
                let full = self.held.len() >= self.limits.held_messages;
                // What tells of a change cannot be refused; there is no more of it than there are
                // subscriptions, users watched and sessions.
                let tells = matches!(
                    message,
                    Up::Unsubscribe { .. }
                        | Up::Watch { .. }
                        | Up::Unwatch { .. }
                        | Up::SessionEnded { .. }
                        | Up::Outcome { .. }
                );
                if full && !tells {
                    self.turn_away(conn, &message, now);
                } else {
                    self.held.push_back((conn, frame.to_vec()));
                }
                Ok(())
            }
        }
    }

    fn obey(&mut self, master: ConnId, order: Order) {
        match order {
            Order::Ask => {
                self.counters.links = self.by_id.len() as u64;
                self.counters.channels = self.registry.len() as u64;
                self.counters.cluster_waiting_bytes = self.waiting_for_redis();
                self.counters.history_events = self.history.len() as u64;
                self.counters.history_bytes = self.history.bytes() as u64;
                self.report(master, &Report::Stats(self.counters.values()));
            }
            Order::Stop => self.outputs.push_back(Output::Quit),
            Order::Beat => self.report(master, &Report::Beat),
            Order::List(_) => {
                let rows = Vec::new();
                self.report(master, &Report::Connections { matched: 0, rows });
            }
            Order::Close { .. } => self.report(master, &Report::Closed(false)),
            // It has no clients to let go; it ends when it is told to stop.
            Order::Drain { .. } => {}
            // Clients do not connect here, so none asks for either, and calls are the courier's.
            Order::ReadCertificates | Order::Gathered(_) | Order::Call(_) => {}
        }
    }

    fn report(&mut self, master: ConnId, report: &Report) {
        let frame = report.encode();
        let pushed = self.lines.push(master, |out| out.push(&frame));
        debug_assert!(pushed.is_ok(), "reports are few");
    }

    fn greet(&mut self, conn: ConnId, message: Up<'_>, now: Now) -> Result<(), Garbled> {
        let Up::Hello {
            version: VERSION,
            slot,
            life,
            shard: 0,
            shards: 1,
            counted,
        } = message
        else {
            return Err(Garbled);
        };
        let id = LinkId::new(slot, life);
        if let Some(former) = self.by_id.get(&id).copied() {
            self.drop_link(former, now);
        }
        if let Some(link) = self.link(conn) {
            link.role = Role::Announcing(id);
            link.counted = counted.into_iter().map(str::to_owned).collect();
        }
        self.by_id.insert(id, conn);
        Ok(())
    }

    /// A link is no more: its subscriptions end, and the users who were nowhere else leave.
    fn drop_link(&mut self, conn: ConnId, now: Now) {
        let Some(link) = self.link(conn) else {
            return;
        };
        link.ended = true;
        let role = link.role;
        self.outputs.push_back(Output::Close(conn, Ending::Cut));
        match role {
            Role::Master => self.outputs.push_back(Output::Quit),
            Role::Stranger => {}
            Role::Courier => self.lose_courier(now),
            Role::Gateway => self.lose_gateway(now),
            Role::Redis => self.lose_redis("the connection has ended", now),
            Role::Announcing(id) | Role::Worker(id) => {
                self.counters.link_losses += 1;
                self.by_id.remove(&id);
                self.held.retain(|(holder, _)| *holder != conn);
                self.mark_link(id);
                self.watching.drop_link(id);
                let dropped = self.registry.drop_link(id);
                self.tell_dropped(&dropped, now);
                for caller in self.sessions.drop_link(id) {
                    self.tell_caller(caller, Outcome::Gone, now);
                }
                self.report_all();
            }
        }
    }
}

impl Node for Switchboard {
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now) {
        let role = match origin {
            Origin::Master => Role::Master,
            Origin::Link => Role::Stranger,
            Origin::Dialled(Peer::Courier) => Role::Courier,
            Origin::Dialled(Peer::Gateway) => Role::Gateway,
            Origin::Dialled(Peer::Outside(dial)) if self.is_redis(dial) => Role::Redis,
            Origin::Client { .. } | Origin::Dialled(_) => {
                return self.outputs.push_back(Output::Close(conn, Ending::Cut));
            }
        };
        // Events stop at `link_bytes`; the changes that must not be lost have as much again.
        self.lines
            .open(conn, self.limits.link_bytes.saturating_mul(2));
        let slot = conn.slot as usize;
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        let generation = conn.generation;
        self.links[slot] = Some(Link {
            generation,
            role,
            counted: Vec::new(),
            leftover: Vec::new(),
            ended: false,
        });
        match role {
            Role::Courier => self.greet_courier(conn, now),
            Role::Gateway => self.greet_gateway(conn),
            Role::Redis => self.greet_redis(conn, now),
            _ => {}
        }
        if role == Role::Master {
            let frame = Report::Ready.encode();
            let pushed = self.lines.push(conn, |out| out.push(&frame));
            debug_assert!(pushed.is_ok(), "the first message fits");
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        let Some(link) = self.link(conn) else {
            return;
        };
        let mut held = std::mem::take(&mut link.leftover);
        let leftover = if held.is_empty() {
            let mut inbox = Inbox::new(bytes);
            self.read_frames(conn, &mut inbox, now);
            inbox.rest().to_vec()
        } else {
            held.extend_from_slice(bytes);
            let mut inbox = Inbox::new(&mut held);
            self.read_frames(conn, &mut inbox, now);
            let taken = inbox.taken();
            held.drain(..taken);
            held
        };
        if let Some(link) = self.link(conn) {
            link.leftover = leftover;
        }
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        self.drop_link(conn, now);
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        self.drop_link(conn, now);
        if self.links.get(conn.slot as usize).is_some_and(|link| {
            link.as_ref()
                .is_some_and(|link| link.generation == conn.generation)
        }) {
            self.links[conn.slot as usize] = None;
        }
        self.lines.close(conn);
    }

    fn target(&mut self, dial: DialId) -> Option<Target> {
        self.cluster.as_ref().and_then(|it| it.target(dial))
    }

    fn unreachable(&mut self, peer: Peer, why: &str, now: Now) {
        match peer {
            Peer::Outside(dial) if self.is_redis(dial) => self.lose_redis(why, now),
            Peer::Outside(_) => {}
            Peer::Gateway => self.lose_gateway(now),
            Peer::Courier | Peer::Switchboard => self.lose_courier(now),
        }
    }

    fn certificates_read(&mut self, _outcome: Result<(), String>) {}

    fn elapsed(&mut self, now: Now) {
        if self.settling.is_some_and(|until| until <= now.moment) {
            log::warn!("settled without {} links", self.missing());
            self.settle(now);
        }
        self.tell_due_counts(now);
        self.report_due(now);
        self.gateway_due(now);
        self.attend_cluster(now);
    }

    /// Always: a link that is not read from could wait for one that waits for it.
    fn wants_input(&self, _conn: ConnId) -> bool {
        true
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.lines.outbox(conn)
    }

    fn poll_output(&mut self, now: Now) -> Option<Output> {
        self.catch_up();
        self.catch_up_cluster(now);
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if let Some(conn) = self.lines.next_prompt() {
                return Some(Output::Flush(conn));
            }
            // Everything queued was offered to the kernel: see what it took.
            if self.unanswered.is_empty() || !self.answer_what_is_out(now) {
                return None;
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let counting = self.counting.deadline();
        let reporting = self.reporter.deadline();
        let due = self.settling.into_iter().chain(counting);
        let cluster = self.cluster.as_ref().and_then(|it| it.deadline());
        let calls = self.calls.deadline();
        due.chain(reporting).chain(calls).chain(cluster).min()
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
