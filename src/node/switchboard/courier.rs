//! The switchboard's side of the link to the courier about webhooks: what happens in channels of apps that have
//! webhooks is reported with rising numbers, and kept until the courier has stored it. Does not
//! know endpoints. Only a switchboard whose configuration has webhooks dials at all.
//!
//! Invariants: after a link came to stand the courier gets what it has not stored yet, in order,
//! and then a snapshot; so whatever was lost on either side, it ends with the truth. What is kept is
//! bounded: beyond, a report is not kept and counted, and a snapshot follows as soon as there is
//! room, so that of occupancy and presence nothing is lost but what came and went meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::names::{ChannelKind, is_cache, user_of};
use crate::base::now::{Moment, Now};
use crate::node::switchboard::Switchboard;
use crate::node::{Output, Peer};
use crate::push::webhook::{Event, Kind};
use crate::realtime::counting::Counting;
use crate::realtime::registry::{Moved, Registry};
use crate::wire::bus::{Content, Item};
use crate::wire::bus_codec::Garbled;
use crate::wire::courier_bus::{Receipt, Report, VERSION};

/// Reports that were not stored yet.
const REPORTS_MAX: usize = 20_000;
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Users in one piece of a snapshot.
const PIECE: usize = 256;
/// The wait after a dial that failed; it doubles from there.
pub(super) const DIAL_FIRST: Duration = Duration::from_millis(50);
pub(super) const DIAL_LONGEST: Duration = Duration::from_secs(1);
/// An empty cache channel is told this often; of more channels than this, each time.
const MISS_EVERY: Duration = Duration::from_secs(3);
const MISSES_MAX: usize = 4096;

/// Apps with webhooks, and what their endpoints want that happens often.
pub type Watched = BTreeMap<String, Vec<Kind>>;

/// See the file's head.
pub(super) struct Reporter {
    watched: Watched,
    life: u64,
    dice: Dice,
    duty: Duty,
    link: Link,
    backoff: Backoff,
    sequence: u64,
    /// Not stored yet: number and frame.
    kept: VecDeque<(u64, Vec<u8>)>,
    kept_bytes: usize,
    /// A snapshot is due.
    behind: bool,
    counting: Counting,
    /// Cache channels that were told to be empty, and until when that is not told again.
    misses: BTreeMap<String, Moment>,
}

/// Whether this server tells, which on one machine it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Duty {
    Active,
    /// It is not known who does. What merely happens is kept.
    Unknown,
    /// Another server does.
    Elsewhere,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nobody to be reported to.
    Off,
    Resting(Moment),
    Dialling,
    /// Said Hello.
    Greeting(ConnId),
    Open(ConnId),
}

impl Reporter {
    /// `alone`: there is no cluster.
    pub(super) fn new(watched: Watched, alone: bool, dice: &mut Dice, now: Now) -> Reporter {
        let link = match watched.is_empty() {
            true => Link::Off,
            false => Link::Resting(now.moment),
        };
        Reporter {
            watched,
            // The store has signed numbers.
            life: dice.next_u64() >> 1,
            dice: dice.branch(),
            duty: match alone {
                true => Duty::Active,
                false => Duty::Unknown,
            },
            link,
            backoff: Backoff::new(DIAL_FIRST, DIAL_LONGEST),
            sequence: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            behind: true,
            counting: Counting::new(dice),
            misses: BTreeMap::new(),
        }
    }

    /// Whether there is anything to be reported to the courier here.
    fn is_asked(&self) -> bool {
        self.link != Link::Off && self.duty != Duty::Elsewhere
    }

    /// What endpoints want of that which happens often.
    fn kinds(&self, key: &str) -> Option<&Vec<Kind>> {
        let (app_id, _) = key.split_once('/')?;
        self.watched.get(app_id)
    }

    fn wants(&self, key: &str, kind: Kind) -> bool {
        let kinds = self.kinds(key).filter(|_| self.is_asked());
        kinds.is_some_and(|kinds| kinds.contains(&kind))
    }

    /// Of an app that has webhooks. What is sent to one user is no channel to others (Pusher).
    fn watches(&self, key: &str) -> bool {
        let parts = key.split_once('/').filter(|_| self.is_asked());
        parts.is_some_and(|(app, channel)| {
            self.watched.contains_key(app) && user_of(channel).is_none()
        })
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let dial = match self.link {
            Link::Resting(at) if self.duty == Duty::Active => Some(at),
            _ => None,
        };
        self.counting.deadline().into_iter().chain(dial).min()
    }

    /// The snapshot as frames.
    fn snapshot(&self, registry: &Registry) -> Vec<u8> {
        let mut frames = Report::SnapshotBegins.encode();
        for (key, members) in registry.all().filter(|(key, _)| self.watches(key.as_str())) {
            let channel = key.as_str();
            let users: Vec<&str> = members
                .iter()
                .flat_map(|members| members.iter())
                .map(|member| member.user_id)
                .collect();
            let mut pieces = users.chunks(PIECE);
            let mut piece = Some(pieces.next().unwrap_or_default());
            while let Some(users) = piece {
                let users = users.to_vec();
                frames.extend(Report::Present { channel, users }.encode());
                piece = pieces.next();
            }
        }
        frames.extend(Report::SnapshotEnds.encode());
        frames
    }
}

impl Switchboard {
    /// Somebody subscribed. `user_id`: of one who was not there before.
    pub(super) fn report_joined(&mut self, key: &str, user_id: Option<&str>, now: Now) {
        if !self.reporter.watches(key) {
            return;
        }
        if self.registry.counts(key).subscriptions == 1 {
            self.note(key, true, None);
        }
        if user_id.is_some() {
            self.note(key, true, user_id);
        }
        self.cache_missed(key, now);
        self.subscriptions_changed(key, now);
    }

    /// Another server of the cluster said what it holds.
    pub(super) fn report_moved(
        &mut self,
        key: &str,
        was_occupied: bool,
        moved: &Moved<'_>,
        now: Now,
    ) {
        if !self.reporter.watches(key) {
            return;
        }
        let is_occupied = self.registry.is_occupied(key);
        if is_occupied && !was_occupied {
            self.note(key, true, None);
        }
        for member in &moved.came {
            self.note(key, true, Some(member.user_id));
        }
        for user_id in &moved.left {
            self.note(key, false, Some(user_id));
        }
        match is_occupied {
            true => self.subscriptions_changed(key, now),
            false if was_occupied => self.note(key, false, None),
            false => {}
        }
    }

    /// A subscription ended. `user_id`: of one who is not there any more.
    pub(super) fn report_left(&mut self, key: &str, user_id: Option<&str>, now: Now) {
        if !self.reporter.watches(key) {
            return;
        }
        if user_id.is_some() {
            self.note(key, false, user_id);
        }
        match self.registry.counts(key).subscriptions {
            0 => self.note(key, false, None),
            _ => self.subscriptions_changed(key, now),
        }
    }

    /// More changed than can be told one by one.
    pub(super) fn report_all(&mut self) {
        self.reporter.behind = true;
    }

    /// Whether what merely happens reaches the courier through Redis, be it that of another server.
    fn is_told_elsewhere(&self) -> bool {
        self.reporter.duty != Duty::Active && self.is_joined()
    }

    /// Whether endpoints want this, whichever server tells them.
    pub(super) fn is_news(&self, key: &str, kind: Kind) -> bool {
        self.reporter
            .kinds(key)
            .is_some_and(|it| it.contains(&kind))
    }

    /// Events of clients were taken for delivery.
    pub(super) fn report_client_events(&mut self, items: &[Item<'_>]) {
        if self.is_told_elsewhere() {
            return;
        }
        for item in items {
            let (Content::Event { name, data }, Some(sender)) = (item.content, item.exclude) else {
                continue;
            };
            for key in &item.channels {
                if self.reporter.wants(key, Kind::ClientEvent) {
                    let event = Event::Client {
                        event: name,
                        data,
                        socket_id: &sender.to_string(),
                        user_id: item.user_id,
                    };
                    self.pass(key, event);
                }
            }
        }
    }

    /// A cache channel that has nothing for its newcomer is told once for all who come together.
    pub(super) fn cache_missed(&mut self, key: &str, now: Now) {
        let wanted = self.reporter.wants(key, Kind::CacheMiss)
            && !self.is_told_elsewhere()
            && key.split_once('/').is_some_and(|(_, it)| is_cache(it))
            && self.cache.get(key, now.moment).is_none();
        if !wanted {
            return;
        }
        let misses = &mut self.reporter.misses;
        if misses.len() >= MISSES_MAX {
            misses.retain(|_, until| *until > now.moment);
        }
        if misses.get(key).is_some_and(|until| *until > now.moment) {
            return;
        }
        if misses.len() < MISSES_MAX {
            misses.insert(key.to_string(), now.moment + MISS_EVERY);
        }
        self.pass(key, Event::CacheMiss);
    }

    fn subscriptions_changed(&mut self, key: &str, now: Now) {
        // Presence channels have users instead (Pusher).
        let channel = key.split_once('/').map_or(key, |(_, channel)| channel);
        let presence = ChannelKind::of(channel) == ChannelKind::Presence;
        if presence || !self.reporter.wants(key, Kind::SubscriptionCount) {
            return;
        }
        let count = self.registry.counts(key).subscriptions;
        if self.reporter.counting.changed(key, count, now.moment) {
            self.pass(key, Event::SubscriptionCount(count));
        }
    }

    fn note(&mut self, channel: &str, here: bool, user_id: Option<&str>) {
        if self.is_blind() || self.reporter.duty != Duty::Active {
            return self.report_all();
        }
        let sequence = self.reporter.sequence + 1;
        let report = match here {
            true => Report::Here {
                sequence,
                channel,
                user_id,
            },
            false => Report::Gone {
                sequence,
                channel,
                user_id,
            },
        };
        self.keep_report(report.encode());
    }

    fn pass(&mut self, key: &str, event: Event<'_>) {
        let channel = key.split_once('/').map_or(key, |(_, channel)| channel);
        let report = Report::Passed {
            sequence: self.reporter.sequence + 1,
            kind: event.kind() as u8,
            channel: key,
            json: &event.json(channel),
        };
        self.keep_report(report.encode());
    }

    /// Keeps one numbered report, and sends it if somebody listens.
    fn keep_report(&mut self, frame: Vec<u8>) {
        let reporter = &mut self.reporter;
        let full = reporter.kept.len() >= REPORTS_MAX;
        if full || reporter.kept_bytes + frame.len() > BYTES_MAX {
            self.counters.reports_lost += 1;
            reporter.behind = true;
            return;
        }
        reporter.sequence += 1;
        reporter.kept_bytes += frame.len();
        if let Link::Open(conn) = reporter.link {
            // Whatever has to wait is kept here, and so bounded here.
            let _ = self.lines.push(conn, |out| out.push(&frame));
        }
        let sequence = reporter.sequence;
        reporter.kept.push_back((sequence, frame));
    }

    /// The courier's link stands.
    pub(super) fn greet_courier(&mut self, conn: ConnId, now: Now) {
        if self.reporter.duty != Duty::Active {
            return self.drop_link(conn, now);
        }
        // Reports are bounded where they are kept, a snapshot by what is there.
        self.lines.open(conn, usize::MAX / 2);
        let terms = self.terms_of_office();
        let given = terms.is_some_and(|(stands, _)| stands);
        self.reporter.link = Link::Greeting(conn);
        self.reporter.backoff.reset();
        let hello = Report::Hello {
            version: VERSION,
            life: self.reporter.life,
            given,
        };
        self.tell_courier(conn, &hello);
        if let Some((_, until_ms)) = terms {
            self.tell_courier(conn, &Report::Licence { until_ms });
        }
        if given {
            self.read_memory(conn, now);
        }
    }

    /// Says this to the courier at that link, unless it is another by now.
    pub(super) fn tell_courier(&mut self, courier: ConnId, report: &Report<'_>) {
        if let Link::Greeting(conn) | Link::Open(conn) = self.reporter.link
            && conn == courier
        {
            let _ = self.lines.push(conn, |out| out.push(&report.encode()));
        }
    }

    /// This server tells from now on.
    pub(super) fn engage_courier(&mut self, now: Now) {
        self.reporter.duty = Duty::Active;
        if let Link::Resting(at) = &mut self.reporter.link {
            *at = now.moment;
        }
    }

    /// The lease is renewed until then.
    pub(super) fn license_courier(&mut self, until_ms: u64) {
        if let Link::Greeting(conn) | Link::Open(conn) = self.reporter.link {
            self.tell_courier(conn, &Report::Licence { until_ms });
        }
    }

    /// It may be that another server tells by now: the courier sends nothing.
    pub(super) fn suspend_courier(&mut self, now: Now) {
        self.reporter.duty = Duty::Unknown;
        if let Link::Greeting(conn) | Link::Open(conn) = self.reporter.link {
            self.drop_link(conn, now);
        }
    }

    /// Another server tells, and knows better what.
    pub(super) fn dismiss_courier(&mut self) {
        let reporter = &mut self.reporter;
        reporter.duty = Duty::Elsewhere;
        reporter.kept.clear();
        reporter.kept_bytes = 0;
    }

    pub(super) fn hear_courier(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Garbled> {
        match Receipt::decode(frame)? {
            Receipt::Keep { entries, whole } => self.keep_memory(conn, &entries, whole, now),
            Receipt::Heard { sequence } => self.forget_stored(conn, sequence, true),
            Receipt::Stored { sequence } => self.forget_stored(conn, sequence, false),
            _ => return Err(Garbled),
        }
        Ok(())
    }

    /// What the courier has stored is not kept any more; when it has just greeted, the rest is sent.
    fn forget_stored(&mut self, conn: ConnId, stored: u64, opens: bool) {
        let reporter = &mut self.reporter;
        while let Some((sequence, frame)) = reporter.kept.front()
            && *sequence <= stored
        {
            reporter.kept_bytes -= frame.len();
            reporter.kept.pop_front();
        }
        if opens && reporter.link == Link::Greeting(conn) {
            for (_, frame) in &reporter.kept {
                let _ = self.lines.push(conn, |out| out.push(frame));
            }
            reporter.link = Link::Open(conn);
            reporter.behind = true;
        }
    }

    /// The courier's link is gone, or could not be made.
    pub(super) fn lose_courier(&mut self, now: Now) {
        let reporter = &mut self.reporter;
        let wait = reporter.backoff.next(&mut reporter.dice);
        reporter.link = Link::Resting(now.moment + wait);
    }

    /// Sends a snapshot if one is due and the whole truth is known.
    pub(super) fn catch_up(&mut self) {
        let is_blind = self.is_blind();
        let reporter = &mut self.reporter;
        let Link::Open(conn) = reporter.link else {
            return;
        };
        // While too much is kept, a snapshot would not stay true for long.
        if is_blind
            || self.settling.is_some()
            || !reporter.behind
            || reporter.kept.len() >= REPORTS_MAX / 2
        {
            return;
        }
        reporter.behind = false;
        let frames = reporter.snapshot(&self.registry);
        let _ = self.lines.push(conn, |out| out.push(&frames));
    }

    /// Dials, and tells the counts of crowds, when it is time to.
    pub(super) fn report_due(&mut self, now: Now) {
        if let Link::Resting(at) = self.reporter.link
            && self.reporter.duty == Duty::Active
            && at <= now.moment
        {
            self.reporter.link = Link::Dialling;
            self.outputs.push_back(Output::Dial(Peer::Courier));
        }
        while let Some(key) = self.reporter.counting.next_due(now.moment) {
            let count = self.registry.counts(key.as_str()).subscriptions;
            self.pass(key.as_str(), Event::SubscriptionCount(count));
        }
    }
}
