//! The courier role: takes up what the switchboard reports, stores what endpoints are to be told,
//! and tells them. It hears one switchboard at a time, and sends requests to servers outside.
//!
//! Invariants. Nothing is sent that was not stored before, nor a receipt given for it. Each event is
//! stored once with the mark that it was; so a crash of whoever is in this line repeats no event,
//! though a request whose answer was lost is sent again, the same to the byte. An endpoint that
//! fails keeps nobody waiting but its own lane.

mod calls;
mod gateway;
mod memory;
mod reports;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::app::apps::Apps;
use crate::base::bytes::{Inbox, Outbox};
use crate::base::counters::Counters;
use crate::base::dice::Dice;
use crate::base::ids::{ConnId, DialId};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::node::courier::gateway::Gateway;
pub use crate::node::courier::gateway::devices::DeviceOptions;
use crate::node::courier::gateway::sending::Provider;
pub use crate::node::courier::gateway::sending::SendingOptions;
use crate::node::courier::memory::{Batch, Offer, Office};
use crate::node::lines::Lines;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::push::facts::{Fact, Memory, StoreReply, StoreRequest};
use crate::push::jobs::{Job, JobTicket};
use crate::push::lanes::{LaneId, Lanes};
use crate::push::truth::Truth;
use crate::push::webhook::Webhook;
use crate::session::caller::Caller;
use crate::session::link::next_frame;
use crate::wire::bus_codec::Garbled;
use crate::wire::control::{Order, Report as ToMaster};
use crate::wire::courier_bus::{FRAME_SURPLUS, Report};
use crate::wire::target::{ClientTls, Target};

/// After the store has failed.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// What may wait for the master or the switchboard; receipts are small.
const LINK_BYTES: usize = 4 * 1024 * 1024;

/// What a courier is made of.
pub struct CourierOptions {
    pub webhooks: Vec<Webhook>,
    pub apps: Apps,
    pub limits: Limits,
    /// What is to be told stands in the cluster too, and is told while that wants it.
    pub in_cluster: bool,
    /// Set for a push gateway.
    pub devices: Option<DeviceOptions>,
    pub sending: SendingOptions,
    /// From the operating system's entropy.
    pub seed: [u8; 16],
}

/// One connection.
struct Seat {
    talk: Talk,
    /// How many came before it.
    place: u64,
    /// Input that is not whole yet.
    leftover: Vec<u8>,
}

enum Talk {
    Master,
    /// A link, before Hello.
    Stranger,
    Switchboard,
    Endpoint(LaneId, Caller),
    Provider(Box<Provider>),
}

/// How far the store is.
enum Storing {
    /// `Load` is under way.
    Loading,
    Idle,
    /// These facts are.
    Busy(Batch),
    /// They could not be kept; when to try again.
    Failed(Batch, Moment),
    /// They are on the disk; the cluster is to keep them too.
    Keeping(Batch),
}

/// What the present switchboard has reported.
#[derive(Clone, Copy, Default)]
struct Heard {
    life: u64,
    /// Taken up, in the commit under way, and receipted.
    taken: u64,
    committing: u64,
    receipted: u64,
}

/// See the file's head.
pub struct Courier {
    webhooks: Vec<Webhook>,
    apps: Apps,
    limits: Limits,
    dice: Dice,
    lines: Lines,
    seats: BTreeMap<ConnId, Seat>,
    /// How many connections there were.
    places: u64,
    outputs: VecDeque<Output>,
    /// The link that is heard.
    switchboard: Option<ConnId>,
    /// The one that is to be heard as soon as it can be.
    offer: Option<Offer>,
    office: Office,
    master: Option<ConnId>,
    heard: Heard,
    truth: Truth,
    lanes: Lanes,
    /// The connection of a lane, when it has one.
    calls: BTreeMap<LaneId, ConnId>,
    dials: BTreeMap<DialId, LaneId>,
    last_dial: u64,
    last_letter: u64,
    /// To be stored with the next commit: facts, and events by lane, not in letters yet.
    facts: Vec<Fact>,
    /// To be done with it.
    jobs: Vec<(JobTicket, Job)>,
    gateway: Gateway,
    events: BTreeMap<LaneId, Vec<String>>,
    storing: Storing,
    /// What it has loaded cannot be served as it is configured, so it stays at loading.
    unfit: Option<String>,
    request: Option<StoreRequest>,
    counters: Counters,
}

impl Courier {
    pub fn new(options: CourierOptions) -> Courier {
        let CourierOptions {
            webhooks,
            apps,
            limits,
            in_cluster,
            devices,
            sending,
            seed,
        } = options;
        Courier {
            lanes: Lanes::new(webhooks.len()),
            webhooks,
            apps,
            limits,
            dice: Dice::new(seed),
            lines: Lines::new(usize::MAX),
            seats: BTreeMap::new(),
            places: 0,
            outputs: VecDeque::from([Output::AskStore]),
            switchboard: None,
            offer: None,
            office: Office::new(in_cluster),
            master: None,
            heard: Heard::default(),
            truth: Truth::default(),
            calls: BTreeMap::new(),
            dials: BTreeMap::new(),
            last_dial: 0,
            last_letter: 0,
            facts: Vec::new(),
            jobs: Vec::new(),
            gateway: Gateway::new(devices, sending),
            events: BTreeMap::new(),
            storing: Storing::Loading,
            unfit: None,
            request: Some(StoreRequest::Load),
            counters: Counters::default(),
        }
    }

    fn take_frame(&mut self, conn: ConnId, frame: &[u8], now: Now) -> Result<(), Garbled> {
        match self.seats.get(&conn).map(|seat| &seat.talk) {
            Some(Talk::Master) => self.obey(conn, Order::decode(frame)?, now),
            Some(Talk::Stranger | Talk::Switchboard) => self.hear(conn, frame, now),
            Some(Talk::Endpoint(..) | Talk::Provider(_)) | None => Ok(()),
        }
    }

    fn obey(&mut self, master: ConnId, order: Order, now: Now) -> Result<(), Garbled> {
        match order {
            Order::Ask => {
                self.counters.webhooks_waiting = self.lanes.waiting() as u64;
                self.count_sending();
                self.tell_master(master, &ToMaster::Stats(self.counters.values()));
            }
            Order::Stop => self.stop_sending(now),
            Order::Beat => self.tell_master(master, &ToMaster::Beat),
            Order::List(_) => {
                let rows = Vec::new();
                self.tell_master(master, &ToMaster::Connections { matched: 0, rows });
            }
            Order::Close { .. } => self.tell_master(master, &ToMaster::Closed(false)),
            Order::Call(frame) => match Report::decode(&frame)? {
                Report::Call { ticket, call } => self.take_operator_call(ticket, &call, now),
                _ => return Err(Garbled),
            },
            // It has no clients.
            Order::Drain { .. } | Order::ReadCertificates | Order::Gathered(_) => {}
        }
        Ok(())
    }

    pub(super) fn tell_master(&mut self, master: ConnId, report: &ToMaster) {
        let frame = report.encode();
        let pushed = self.lines.push(master, |out| out.push(&frame));
        debug_assert!(pushed.is_ok(), "reports are few");
    }

    /// What was kept is there: from now on it serves.
    fn loaded(&mut self, memory: Memory, now: Now) {
        if let Err(why) = self.take_up_devices(&memory.token_keys, now) {
            // The master is told that there is no use in trying again, and ends this process.
            self.unfit = Some(why);
            // Nothing more is asked of the store.
            self.storing = Storing::Loading;
            return self.tell_unfit();
        }
        self.storing = Storing::Idle;
        self.truth = Truth::new(memory.told);
        self.take_heard(memory.heard);
        for letter in memory.letters {
            self.place(Arc::new(letter));
        }
        log::info!(waiting = self.lanes.waiting(); "what was stored is there");
        self.begin_gateway(memory.has_notifications, memory.is_shared, now);
        if let Some(master) = self.master {
            self.tell_master(master, &ToMaster::Ready);
        }
        self.go_on(now);
    }

    fn tell_unfit(&mut self) {
        if let (Some(master), Some(why)) = (self.master, self.unfit.clone()) {
            self.tell_master(master, &ToMaster::Unfit(why));
        }
    }

    /// Begins whatever can begin: a commit, receipts, requests.
    fn go_on(&mut self, now: Now) {
        self.take_up();
        while self.is_in_office()
            && let Some((key, subject)) = self.truth.next_due(now.moment)
        {
            self.tell_gone(&key, subject);
        }
        if !matches!(self.storing, Storing::Loading) && self.has_gateway() {
            self.open_gateway();
            self.notify_elapsed(now);
            self.look_for_credentials(now);
            self.go_on_sending(now);
            self.take_news(now);
        }
        self.commit(now);
        while self.may_send(now)
            && let Some(lane) = self.lanes.next_ready(now.moment)
        {
            self.call(lane, now);
        }
    }

    fn read(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) {
        loop {
            match self.seats.get(&conn).map(|seat| &seat.talk) {
                None => return,
                Some(Talk::Endpoint(..)) => return self.read_answer(conn, inbox, now),
                Some(Talk::Provider(_)) => return self.read_provider(conn, inbox, now),
                Some(_) => {}
            }
            let bytes_max = self.limits.bus_message_bytes + FRAME_SURPLUS;
            let taken = match next_frame(inbox, bytes_max) {
                Ok(None) => return,
                Ok(Some(frame)) => self.take_frame(conn, frame, now),
                Err(garbled) => Err(garbled),
            };
            if taken.is_err() {
                log::error!("link {conn} sent what is no message and starts over");
                return self.leave(conn, now);
            }
        }
    }

    /// Ends a connection from our side.
    fn leave(&mut self, conn: ConnId, now: Now) {
        if self.forget(conn, now) {
            self.outputs.push_back(Output::Close(conn, Ending::Cut));
        }
    }

    /// Whether the connection was known.
    fn forget(&mut self, conn: ConnId, now: Now) -> bool {
        if matches!(
            self.seats.get(&conn).map(|it| &it.talk),
            Some(Talk::Provider(_))
        ) {
            self.provider_ended(conn, now);
            return false;
        }
        let Some(seat) = self.seats.remove(&conn) else {
            return false;
        };
        match seat.talk {
            // Whoever has no master any more has nobody who would end it.
            Talk::Master => self.outputs.push_back(Output::Quit),
            Talk::Stranger | Talk::Provider(_) => {}
            Talk::Switchboard => {
                if self.switchboard == Some(conn) {
                    self.leave_office();
                }
                self.forget_gateway(conn);
            }
            Talk::Endpoint(lane, mut caller) => {
                if self.calls.get(&lane) == Some(&conn) {
                    self.calls.remove(&lane);
                }
                let step = caller.ended();
                self.take_step(lane, &step, now);
            }
        }
        self.offer.take_if(|offer| offer.conn == conn);
        true
    }
}

impl Node for Courier {
    fn opened(&mut self, conn: ConnId, origin: Origin, now: Now) {
        let talk = match origin {
            Origin::Master => Talk::Master,
            Origin::Link => Talk::Stranger,
            Origin::Dialled(Peer::Outside(dial)) => match self.dials.remove(&dial) {
                Some(lane) => Talk::Endpoint(lane, Caller::default()),
                None => match self.provider_stands(conn, dial, now) {
                    Some(provider) => Talk::Provider(Box::new(provider)),
                    None => return self.outputs.push_back(Output::Close(conn, Ending::Cut)),
                },
            },
            Origin::Client { .. } | Origin::Dialled(_) => {
                return self.outputs.push_back(Output::Close(conn, Ending::Cut));
            }
        };
        let (lane, bytes_max) = match &talk {
            // One letter at a time, and that is bounded.
            Talk::Endpoint(lane, _) => (Some(*lane), usize::MAX / 2),
            Talk::Provider(_) => (None, Provider::outbox_bytes()),
            _ => {
                let keep = self.limits.bus_message_bytes + FRAME_SURPLUS;
                (None, LINK_BYTES + keep)
            }
        };
        let leftover = Vec::new();
        let place = self.places;
        self.places += 1;
        let seat = Seat {
            talk,
            place,
            leftover,
        };
        self.seats.insert(conn, seat);
        self.lines.open(conn, bytes_max);
        match (lane, origin) {
            (Some(lane), _) => {
                self.calls.insert(lane, conn);
                self.ask(lane, conn, now);
            }
            (None, Origin::Master) => {
                self.master = Some(conn);
                if !matches!(self.storing, Storing::Loading) {
                    self.tell_master(conn, &ToMaster::Ready);
                }
                self.tell_unfit();
            }
            (None, Origin::Dialled(_)) => {
                self.poll_provider(conn, now);
                self.go_on(now);
            }
            _ => {}
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        let Some(seat) = self.seats.get_mut(&conn) else {
            return;
        };
        let mut held = std::mem::take(&mut seat.leftover);
        held.extend_from_slice(bytes);
        let mut inbox = Inbox::new(&mut held);
        self.read(conn, &mut inbox, now);
        let taken = inbox.taken();
        held.drain(..taken);
        if let Some(seat) = self.seats.get_mut(&conn) {
            seat.leftover = held;
        }
        self.go_on(now);
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        self.leave(conn, now);
        self.go_on(now);
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        self.forget(conn, now);
        self.lines.close(conn);
        self.go_on(now);
    }

    fn target(&mut self, dial: DialId) -> Option<Target> {
        match self.dials.get(&dial) {
            Some(lane) => Some(self.webhooks.get(lane.hook)?.target.clone()),
            None => self.provider_target(dial),
        }
    }

    fn client_tls(&mut self, dial: DialId) -> ClientTls {
        self.provider_tls(dial)
    }

    fn agreed(&mut self, dial: DialId, protocol: Option<&[u8]>) {
        self.provider_agreed(dial, protocol == Some(b"h2"));
    }

    fn unreachable(&mut self, peer: Peer, why: &str, now: Now) {
        if let Peer::Outside(dial) = peer
            && let Some(lane) = self.dials.remove(&dial)
        {
            self.failed(lane, why, now);
            self.go_on(now);
        } else if let Peer::Outside(dial) = peer
            && self.provider_dial_failed(dial, why, now)
        {
            self.go_on(now);
        }
    }

    fn certificates_read(&mut self, _outcome: Result<(), String>) {}

    fn store_request(&mut self) -> Option<StoreRequest> {
        self.request.take()
    }

    fn stored(&mut self, reply: StoreReply, now: Now) {
        match (reply, std::mem::replace(&mut self.storing, Storing::Idle)) {
            (StoreReply::Loaded(memory), _) => self.loaded(memory, now),
            (StoreReply::Committed(outcomes), Storing::Busy(batch)) => {
                if batch.pieces.is_empty() {
                    self.committed(&batch);
                } else {
                    self.storing = Storing::Keeping(batch);
                    self.keep();
                }
                self.take_outcomes(outcomes, now);
                self.go_on(now);
            }
            (StoreReply::Failed(why), Storing::Busy(batch)) => {
                log::error!("cannot store, and tells nobody until it can: {why}");
                self.storing = Storing::Failed(batch, now.moment + STORE_AGAIN);
            }
            (StoreReply::Failed(why), _) => {
                log::error!("the store cannot be opened: {why}");
                self.outputs.push_back(Output::Quit);
            }
            (StoreReply::Committed(_), storing) => self.storing = storing,
        }
    }

    fn elapsed(&mut self, now: Now) {
        self.cut_late_answers(now);
        self.devices_elapsed(now);
        self.poll_due_providers(now);
        self.go_on(now);
    }

    fn drained(&mut self, conn: ConnId, now: Now) {
        self.poll_provider(conn, now);
        self.go_on(now);
    }

    fn wants_input(&self, conn: ConnId) -> bool {
        match self.seats.get(&conn).map(|seat| &seat.talk) {
            Some(Talk::Provider(provider)) => provider.wants_input(),
            _ => true,
        }
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.lines.outbox(conn)
    }

    fn poll_output(&mut self, _now: Now) -> Option<Output> {
        let output = self.outputs.pop_front();
        output.or_else(|| self.lines.next_prompt().map(Output::Flush))
    }

    fn deadline(&self) -> Option<Moment> {
        let again = match &self.storing {
            Storing::Failed(_, at) => Some(*at),
            _ => None,
        };
        let answers = self.seats.values().filter_map(|seat| match &seat.talk {
            Talk::Endpoint(_, caller) => caller.deadline(),
            Talk::Provider(provider) => provider.deadline(),
            _ => None,
        });
        let loaded = !matches!(self.storing, Storing::Loading);
        let due = self.truth.deadline();
        let due = due.filter(|_| loaded && self.is_in_office());
        let lanes = self.lanes.deadline();
        let lanes = lanes.filter(|at| self.may_begin_at(*at));
        let (devices, notify) = (self.devices_deadline(), self.notify_deadline());
        let (sending, news) = (self.sending_deadline(), self.news_deadline());
        let credentials = self.credentials_deadline();
        let own = [
            again,
            due,
            lanes,
            devices,
            notify,
            sending,
            news,
            credentials,
        ];
        let own = own.into_iter().flatten();
        own.chain(answers).min()
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
