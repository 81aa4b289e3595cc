//! The switchboard's place in a cluster: its connection to Redis, joining and being away. What is
//! promised, and what stands in Redis, is written in docs/cluster.md.
//!
//! Invariants. Joining is always the same, under an id that is new: whatever was written before
//! under another counts for nothing. Whoever waits for an answer of Redis gets one in any case; when
//! Redis is away, from what is known here. Nothing is written to Redis while some worker has not
//! announced what it holds, since an incomplete registry would make users leave.

mod following;
mod hearing;
mod office;
mod placing;
mod telling;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::base::backoff::Backoff;
use crate::base::bytes::Inbox;
use crate::base::dice::Dice;
use crate::base::ids::{ConnId, DialId};
use crate::base::names::ChannelKey;
use crate::base::now::{Moment, Now};
use crate::node::switchboard::cluster::following::Followed;
use crate::node::switchboard::cluster::office::{Office, Part};
use crate::node::switchboard::cluster::placing::Placing;
use crate::node::switchboard::{Role, Switchboard};
use crate::node::{Output, Peer};
use crate::realtime::registry::LinkId;
use crate::session::redis::{Login, PATIENCE, Redis};
use crate::wire::cluster::{Names, SCRIPTS, Script, ServerId};
use crate::wire::target::Target;

/// The wait after a dial that failed; it doubles from there.
const DIAL_FIRST: Duration = Duration::from_millis(100);
const DIAL_LONGEST: Duration = Duration::from_secs(2);
/// While more waits for Redis, changes gather instead of being written.
const WATERLINE: usize = 1024 * 1024;
/// Former ids that are still to be removed; of more, others remove what they held.
const FORMER_MAX: usize = 16;

/// Where Redis is, and how we appear there.
#[derive(Clone)]
pub struct ClusterOptions {
    pub target: Target,
    pub login: Login,
    /// What all our keys begin with.
    pub prefix: String,
    /// For how long others believe in a server that is not heard of.
    pub lease: Duration,
}

/// See the file's head.
pub(super) struct Cluster {
    options: ClusterOptions,
    names: Names,
    stage: Stage,
    redis: Option<Redis<Asked>>,
    backoff: Backoff,
    dice: Dice,
    last_dial: u64,
    /// Our present id, or the last one; the first to be used has era 1.
    server: ServerId,
    /// Our former ids whose holdings are still to be removed.
    former: Vec<ServerId>,
    renew_at: Moment,
    /// When to forget what is known of others; only while away.
    forget_at: Option<Moment>,
    /// The channels that somebody here asks about.
    followed: HashMap<ChannelKey, Followed, FixedState>,
    /// Channels of which something changed here, and the users who did.
    dirty: BTreeMap<ChannelKey, BTreeSet<String>>,
    /// Channels of which merely the count did.
    counted: BTreeSet<ChannelKey>,
    counted_at: Option<Moment>,
    /// Channels to be looked at.
    unseen: VecDeque<ChannelKey>,
    looks: u64,
    /// Looks and lists of channels that are under way.
    unanswered: usize,
    /// The apps with webhooks.
    apps: BTreeSet<String>,
    office: Office,
    /// Redis was away at least once.
    failed: bool,
    /// Since it joined, it has learnt all there is to know of their channels.
    whole: bool,
    /// Frames that wait for looks.
    waiting: usize,
    placing: Placing,
    /// The links of other servers in the registry.
    servers: BTreeMap<ServerId, LinkId>,
    last_server: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resting(Moment),
    Dialling(DialId),
    /// Signing in.
    Greeting(ConnId),
    /// Signed in before all workers have announced themselves.
    Waiting(ConnId),
    Joined(ConnId),
}

/// What an answer of Redis is about.
#[derive(Debug)]
enum Asked {
    /// Nothing but an error would be news.
    Done,
    Renewal {
        /// When the lease ends then, in milliseconds since 1970.
        until_ms: u64,
    },
    Memory {
        courier: ConnId,
        part: Part,
    },
    /// What waited for whoever tells webhooks.
    News,
    Kept {
        courier: ConnId,
        whole: bool,
    },
    Burial {
        server: ServerId,
        /// It was ours.
        former: bool,
    },
    Look {
        key: ChannelKey,
        number: u64,
    },
    /// The occupied channels of this app.
    Index(String),
    /// An event of the publish with this number, whose answer tells of its channels from `first` on
    /// if of any.
    Told {
        publish: u64,
        first: Option<usize>,
    },
    /// The counts of a channel for a publish, by their place in its answer.
    Counts {
        publish: u64,
        index: usize,
        key: String,
    },
    Question {
        asker: ConnId,
        ticket: u64,
        question: telling::OwnedQuestion,
    },
}

impl Stage {
    fn is_joined(self) -> bool {
        matches!(self, Stage::Joined(_))
    }
}

impl Cluster {
    /// `apps`: those with webhooks.
    pub(super) fn new(
        options: ClusterOptions,
        apps: BTreeSet<String>,
        dice: &mut Dice,
        now: Now,
    ) -> Cluster {
        let life = dice.next_u64();
        Cluster {
            names: Names::new(&options.prefix),
            options,
            stage: Stage::Resting(now.moment),
            redis: None,
            backoff: Backoff::new(DIAL_FIRST, DIAL_LONGEST),
            followed: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            placing: Placing::new(dice),
            dice: dice.branch(),
            last_dial: 0,
            server: ServerId { life, era: 0 },
            former: Vec::new(),
            renew_at: now.moment,
            forget_at: None,
            dirty: BTreeMap::new(),
            counted: BTreeSet::new(),
            counted_at: None,
            unseen: VecDeque::new(),
            looks: 0,
            unanswered: 0,
            apps,
            office: Office::default(),
            failed: false,
            whole: false,
            waiting: 0,
            servers: BTreeMap::new(),
            last_server: 0,
        }
    }

    fn joined(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Joined(conn) => Some(conn),
            _ => None,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined().is_some()
    }

    /// Whether it may be known soon what others hold.
    pub(super) fn is_learning(&self) -> bool {
        match self.stage {
            Stage::Joined(_) => !self.whole,
            _ => !self.failed,
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let stage = match self.stage {
            Stage::Resting(at) => Some(at),
            Stage::Joined(_) => Some(self.renew_at),
            _ => None,
        };
        let owed = self.redis.as_ref().and_then(Redis::deadline);
        let all = [stage, owed, self.forget_at, self.counted_at];
        all.into_iter().flatten().min()
    }

    pub(super) fn target(&self, dial: DialId) -> Option<Target> {
        let target = self.options.target.clone();
        (self.stage == Stage::Dialling(dial)).then(|| target.with_connect_within(PATIENCE))
    }
}

impl Switchboard {
    pub(super) fn is_joined(&self) -> bool {
        self.cluster.as_ref().is_some_and(|it| it.is_joined())
    }

    /// Whether this dial is for Redis and still wanted.
    pub(super) fn is_redis(&self, dial: DialId) -> bool {
        let stage = self.cluster.as_ref().map(|cluster| cluster.stage);
        stage == Some(Stage::Dialling(dial))
    }

    pub(super) fn waiting_for_redis(&self) -> u64 {
        let conn = self.cluster.as_ref().and_then(|it| it.joined());
        conn.map_or(0, |conn| self.lines.waiting(conn) as u64)
    }

    /// The connection to Redis stands.
    pub(super) fn greet_redis(&mut self, conn: ConnId, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (redis, bytes) = Redis::open(&cluster.options.login, &SCRIPTS, now);
        cluster.redis = Some(redis);
        cluster.stage = Stage::Greeting(conn);
        // Events stop at `link_bytes`, changes at the waterline.
        let bytes_max = self.limits.link_bytes.saturating_add(4 * WATERLINE);
        self.lines.open(conn, bytes_max);
        let _ = self.lines.push(conn, |out| out.push(&bytes));
    }

    /// Redis is ready for us, and perhaps we for it.
    fn signed_in(&mut self, now: Now) {
        if let Some(cluster) = &mut self.cluster
            && let Stage::Greeting(conn) = cluster.stage
        {
            cluster.stage = Stage::Waiting(conn);
        }
        self.settle_if_known(now);
        self.join(now);
    }

    /// Joins the cluster, once signed in and all was announced.
    pub(super) fn join(&mut self, now: Now) {
        if !self.is_complete() {
            return;
        }
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Stage::Waiting(conn) = cluster.stage else {
            return;
        };
        cluster.stage = Stage::Joined(conn);
        cluster.backoff.reset();
        cluster.forget_at = None;
        if cluster.server.era > 0 {
            cluster.former.push(cluster.server);
        }
        let surplus = cluster.former.len().saturating_sub(FORMER_MAX);
        cluster.former.drain(..surplus);
        cluster.server.era += 1;
        let server = cluster.server.to_string();
        let lease = cluster.names.lease(cluster.server);
        let milliseconds = cluster.options.lease.as_millis().to_string();
        let servers = cluster.names.servers();
        let set = ["SET", &lease, "1", "PX", &milliseconds];
        self.ask_redis(&set, Asked::Done, now);
        self.ask_redis(&["SADD", &servers, &server], Asked::Done, now);
        self.mute_former(now);
        self.forget_places();
        self.ask_renewal(now);
        self.follow_anew();
        self.counters.cluster_joined = 1;
        log::info!("joined the cluster as {server}");
    }

    /// What our former ids said and Redis has not heard yet, it does not hear later: what is looked up
    /// from now on is all of it.
    fn mute_former(&mut self, now: Now) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let milliseconds = cluster.options.lease.as_millis().to_string();
        let names = cluster.former.iter().map(|it| cluster.names.mute(*it));
        for name in names.collect::<Vec<_>>() {
            let set = ["SET", &name, "1", "PX", &milliseconds];
            self.ask_redis(&set, Asked::Done, now);
        }
    }

    /// Redis cannot be reached, or is not of use any more.
    pub(super) fn lose_redis(&mut self, why: &str, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let was_joined = cluster.is_joined();
        let conn = match cluster.stage {
            Stage::Resting(_) => return,
            Stage::Dialling(_) => None,
            Stage::Greeting(conn) | Stage::Waiting(conn) | Stage::Joined(conn) => Some(conn),
        };
        (cluster.whole, cluster.unanswered) = (false, 0);
        cluster.failed = true;
        let wait = cluster.backoff.next(&mut cluster.dice);
        cluster.stage = Stage::Resting(now.moment + wait);
        let asked: Vec<Asked> = cluster
            .redis
            .take()
            .into_iter()
            .flat_map(|mut redis| redis.abandon())
            .collect();
        let target = &cluster.options.target;
        match was_joined {
            true => log::error!("away from the cluster: {target}: {why}"),
            false => log::warn!("Redis at {target} is not of use: {why}"),
        }
        if was_joined {
            cluster.forget_at = Some(now.moment + cluster.options.lease);
            self.counters.cluster_outages += 1;
            self.counters.cluster_joined = 0;
        }
        if let Some(conn) = conn {
            self.drop_link(conn, now);
        }
        self.doubt_places(now);
        self.leave_office(now);
        for about in asked {
            self.answer_from_here(about, now);
        }
        self.stop_waiting(now);
        self.settle_if_known(now);
    }

    /// What is due in the cluster.
    pub(super) fn attend_cluster(&mut self, now: Now) {
        let due = |at: Option<Moment>| at.is_some_and(|at| at <= now.moment);
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if due(cluster.redis.as_ref().and_then(Redis::deadline)) {
            let why = format!("no answer for {} s", PATIENCE.as_secs());
            return self.lose_redis(&why, now);
        }
        if let Stage::Resting(at) = cluster.stage
            && due(Some(at))
        {
            cluster.last_dial += 1;
            let dial = DialId(cluster.last_dial);
            cluster.stage = Stage::Dialling(dial);
            self.outputs.push_back(Output::Dial(Peer::Outside(dial)));
        }
        if due(cluster.forget_at) {
            cluster.forget_at = None;
            self.forget_others(now);
        }
        self.renew(now);
        self.write_due_counts(now);
    }

    fn renew(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if !cluster.is_joined() || cluster.renew_at > now.moment {
            return;
        }
        let registry = &self.registry;
        cluster.servers.retain(|_, link| registry.holds_any(*link));
        self.ask_renewal(now);
    }

    fn ask_renewal(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let lease = cluster.options.lease;
        cluster.renew_at = now.moment + lease / 3;
        let server = cluster.server.to_string();
        let milliseconds = lease.as_millis() as u64;
        let until_ms = now.unix_ms + milliseconds;
        let (milliseconds, stance) = (milliseconds.to_string(), cluster.stance(now));
        let parts = [server.as_bytes(), milliseconds.as_bytes(), stance];
        self.run_script(Script::Renew, &parts, Asked::Renewal { until_ms }, now);
    }

    /// Asks Redis while joined.
    fn ask_redis(&mut self, parts: &[&str], about: Asked, now: Now) {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.write_redis(now, |redis, to| redis.ask(&parts, about, to, now));
    }

    /// Runs a script while joined; what all of them take first is added.
    fn run_script(&mut self, script: Script, parts: &[&[u8]], about: Asked, now: Now) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let prefix = cluster.names.prefix().to_string();
        let mut whole = vec![prefix.as_bytes()];
        whole.extend_from_slice(parts);
        self.write_redis(now, |redis, to| {
            redis.run(script as usize, &whole, about, to, now);
        });
    }

    fn write_redis(&mut self, now: Now, write: impl FnOnce(&mut Redis<Asked>, &mut Vec<u8>)) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (Some(conn), Some(redis)) = (cluster.joined(), &mut cluster.redis) else {
            return;
        };
        let mut bytes = Vec::new();
        write(redis, &mut bytes);
        if self.lines.push(conn, |out| out.push(&bytes)).is_err() {
            self.lose_redis("it does not keep up", now);
        }
    }

    /// Whether changes had better gather before they are written.
    fn is_redis_full(&self) -> bool {
        let conn = self.cluster.as_ref().and_then(|it| it.joined());
        conn.is_some_and(|conn| self.lines.waiting(conn) > WATERLINE)
    }

    /// Redis spoke.
    pub(super) fn read_redis(&mut self, conn: ConnId, inbox: &mut Inbox<'_>, now: Now) {
        while self.link(conn).is_some_and(|link| link.role == Role::Redis) {
            let Some(redis) = self.cluster.as_mut().and_then(|it| it.redis.as_mut()) else {
                return;
            };
            match redis.next(inbox, now) {
                Ok(None) => return,
                Ok(Some(heard)) => {
                    if let Err(why) = self.hear_redis(heard, now) {
                        self.lose_redis(&why, now);
                    }
                }
                Err(why) => self.lose_redis(&why, now),
            }
        }
    }
}
