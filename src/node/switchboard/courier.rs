//! The switchboard's side of the link to the courier: what happens in channels of apps that have
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
const DIAL_FIRST: Duration = Duration::from_millis(50);
const DIAL_LONGEST: Duration = Duration::from_secs(1);
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
    pub(super) fn new(watched: Watched, gateway: bool, dice: &mut Dice, now: Now) -> Reporter {
        let link = match watched.is_empty() && !gateway {
            true => Link::Off,
            false => Link::Resting(now.moment),
        };
        Reporter {
            watched,
            // The store has signed numbers.
            life: dice.next_u64() >> 1,
            dice: dice.branch(),
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

    fn wants(&self, key: &str, kind: Kind) -> bool {
        let kinds = key
            .split_once('/')
            .and_then(|(app, _)| self.watched.get(app));
        kinds.is_some_and(|kinds| kinds.contains(&kind))
    }

    /// Of an app that has webhooks. What is sent to one user is no channel to others (Pusher).
    fn watches(&self, key: &str) -> bool {
        let parts = key.split_once('/').filter(|_| self.link != Link::Off);
        parts.is_some_and(|(app, channel)| {
            self.watched.contains_key(app) && user_of(channel).is_none()
        })
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let dial = match self.link {
            Link::Resting(at) => Some(at),
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

    /// Events of clients were taken for delivery.
    pub(super) fn report_client_events(&mut self, items: &[Item<'_>]) {
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
        if self.is_blind() {
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
    pub(super) fn greet_courier(&mut self, conn: ConnId) {
        // Reports are bounded where they are kept, a snapshot by what is there.
        self.lines.open(conn, usize::MAX / 2);
        let hello = Report::Hello {
            version: VERSION,
            life: self.reporter.life,
        };
        let _ = self.lines.push(conn, |out| out.push(&hello.encode()));
        self.reporter.link = Link::Greeting(conn);
        self.reporter.backoff.reset();
    }

    /// The courier's connection, once it has heard us.
    pub(super) fn courier_link(&self) -> Option<ConnId> {
        match self.reporter.link {
            Link::Open(conn) => Some(conn),
            _ => None,
        }
    }

    pub(super) fn hear_courier(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        now: Now,
    ) -> Result<(), Garbled> {
        match Receipt::decode(frame)? {
            Receipt::Heard { sequence } => self.forget_stored(conn, sequence, true),
            Receipt::Stored { sequence } => self.forget_stored(conn, sequence, false),
            Receipt::Answer { ticket, answer } => self.pass_answer(ticket, answer, now),
            Receipt::Live {
                ticket,
                channels,
                name,
                data,
            } => {
                let content = Content::Event { name, data };
                self.bring_live(conn, ticket, channels, content, now);
            }
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
            self.pass_kept_calls(conn);
        }
    }

    /// The courier's link is gone, or could not be made.
    pub(super) fn lose_courier(&mut self, now: Now) {
        let reporter = &mut self.reporter;
        let wait = reporter.backoff.next(&mut reporter.dice);
        reporter.link = Link::Resting(now.moment + wait);
        self.refuse_calls(now);
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
