//! What the courier has for each credential and each place it is sent to. Owns the numbers; decides
//! nothing but what follows from them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::drafts::DraftInUse;
use crate::base::backoff::Backoff;
use crate::base::ids::ConnId;
use crate::base::now::Moment;
use crate::push::delivery::breaker::Breaker;
use crate::push::delivery::guard::Guard;
use crate::push::delivery::pace::Pace;
use crate::push::delivery::queue::{InHand, Queue};
use crate::push::providers::credential::keeper::PassKeeper;
use crate::push::providers::credential::{Credential, Proof};
use crate::push::providers::fcm::quota;
use crate::push::providers::provider::{Pass, Request};
use crate::session::http2::StreamKey;
use crate::wire::target::Target;

/// Between two dials that failed.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One credential of one app.
pub(super) struct Post {
    pub app_id: String,
    /// Of one that came while the server runs.
    pub name: Option<String>,
    pub credential: Credential,
    /// It is sent with to public addresses only.
    pub is_strangers: bool,
    /// It is not in use any more.
    pub is_retired: bool,
    pub guard: Guard,
    /// For Web Push one for each service that was sent to, for the others one.
    pub lines: BTreeMap<String, LineId>,
    /// How many of its deliveries lie in queues.
    pub waiting: usize,
}

/// Of `Sending::lines`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineId(pub u64);

/// One origin of one credential, with the connections there.
pub(super) struct Line {
    /// Of `Sending::posts`.
    pub post: usize,
    pub origin: String,
    pub target: Target,
    /// `None` where only passes are asked for.
    pub keeper: Option<PassKeeper>,
    pub queue: Queue,
    /// The last one.
    pub draft: Option<Arc<DraftInUse>>,
    /// Requests for passes of these lines.
    pub asks: VecDeque<(LineId, Request)>,
    pub breaker: Breaker,
    pub pace: Option<Pace>,
    pub conns: Vec<ConnId>,
    pub is_dialling: bool,
    pub backoff: Backoff,
    /// No dial before.
    pub rests_until: Moment,
    /// The last time that something came for it.
    pub used: Option<Moment>,
    /// When something may be sent that cannot be now; when its pass is looked after.
    pub wake: Option<Moment>,
    pub pass_due: Option<Moment>,
}

impl Line {
    pub fn new(post: usize, origin: &str, target: Target, now: Moment) -> Line {
        Line {
            post,
            origin: origin.to_string(),
            target,
            keeper: None,
            queue: Queue::default(),
            draft: None,
            asks: VecDeque::new(),
            breaker: Breaker::default(),
            pace: None,
            conns: Vec::new(),
            is_dialling: false,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            rests_until: now,
            used: None,
            wake: None,
            pass_due: None,
        }
    }

    /// One that notifications go over.
    pub fn with_keeper(mut self, keeper: PassKeeper, proof: &Proof, now: Moment) -> Line {
        self.keeper = Some(keeper);
        if matches!(proof, Proof::FcmAccount { .. }) {
            self.pace = Some(Pace::new(quota::PROJECT_PER_MINUTE, now));
        }
        self
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.asks.is_empty() && self.conns.is_empty() && !self.is_dialling
    }
}

/// A request under way, by connection and stream.
pub(super) type FlightId = (ConnId, StreamKey);

pub(super) enum Flight {
    Delivery(Box<Sent>),
    /// For the pass of this line.
    Pass(LineId),
}

pub(super) struct Sent {
    pub line: LineId,
    pub one: InHand,
    /// Those that share its request.
    pub more: Vec<InHand>,
    pub pass: Option<Arc<Pass>>,
    pub asked: Moment,
    pub asked_ms: u64,
}
