//! What the store does for notifications: accepts them, finds whom they are for, notes who was reached
//! and who acknowledged, says what became of them. Times are milliseconds since 1970.
//!
//! A user's deliveries are held from the moment the notification begins, as long as he may still be
//! reached live, and queued when he was not: by `Reached`, or by `Due` when his time is up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::push::notify::spec::Spec;

/// How long whoever knows the connections is waited for until the event is ordered again.
pub const ORDER_AGAIN_MS: u64 = 3_000;
/// After so many orders that nobody answered, a user counts as not reached.
pub const ORDERS_MAX: u32 = 5;
/// What one `Due` finds, of each kind; what is left is due at once.
pub const PAGE: u32 = 500;

/// Who is reached live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    User(String),
    /// Without its app.
    Channel(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum NotifyJob {
    Accept(Arc<New>),
    /// How many connections the event went to.
    Reached {
        id: String,
        reached: Vec<(Whom, u32)>,
        now_ms: u64,
    },
    /// What a call was answered, for its repetition.
    Answered {
        id: String,
        answer: String,
    },
    Acknowledge {
        app_id: String,
        id: String,
        user_id: String,
        now_ms: u64,
    },
    /// Does whatever is due, a page of it.
    Due {
        now_ms: u64,
    },
    Show {
        app_id: String,
        id: String,
        /// Deliveries with a higher number.
        after: u64,
        limit: u32,
    },
    /// The newest first.
    List {
        app_id: String,
        state: Option<String>,
        /// Older than this one.
        before: Option<String>,
        limit: u32,
    },
    /// Whatever is not sent yet.
    Cancel {
        app_id: String,
        id: String,
        now_ms: u64,
    },
    /// Queues what has failed once more.
    Retry {
        app_id: String,
        id: String,
        now_ms: u64,
    },
    /// Removes what was settled before, and settles what has nothing left to do; a page of each, of
    /// the latter from `after` on.
    Tidy {
        settled_before_ms: u64,
        after: OpenPlace,
        now_ms: u64,
    },
}

/// A place among open notifications: until when one is kept open, in milliseconds since 1970, and its
/// id. The default is before all.
pub type OpenPlace = (u64, String);

/// A notification to be accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// A lower-case UUID.
    pub id: String,
    pub app_id: String,
    /// The public half of the key.
    pub sender: String,
    /// With the fingerprint of the request.
    pub idempotency: Option<(String, String)>,
    pub spec: Spec,
    pub send_at_ms: u64,
    pub expires_ms: Option<u64>,
    pub now_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NotifyOutcome {
    Accepted(Accepted),
    /// What is known of those who were to be reached.
    Reached(Vec<(Whom, Standing)>),
    Done,
    Missing,
    /// How many deliveries were cancelled or queued by it.
    Changed(u64),
    Due(Due),
    Shown(Box<Shown>),
    Listed(Vec<Summary>),
    /// How many were removed, and from where to go on; `None`: all were seen.
    Tidied {
        removed: u64,
        after: Option<OpenPlace>,
    },
    /// What is kept makes this impossible; why, for people.
    Impossible(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// It has begun, or, with nothing here, waits for its time.
    Fresh(Vec<(Whom, Standing)>),
    /// It was accepted before under the same key: its id, and what was answered, if that is known.
    Again(String, Option<String>),
    /// Something else was.
    Conflict,
}

/// What has come of one user or channel so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Connections that the event went to; `None`: nobody has said.
    pub live: Option<u32>,
    /// Deliveries on their way.
    pub queued: u32,
    /// Deliveries that wait for an acknowledgement.
    pub held: u32,
}

/// A notification as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub id: String,
    pub state: String,
    pub sender: String,
    pub created_at_ms: u64,
    pub send_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at_ms: Option<u64>,
}

/// What became of a notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    pub summary: Summary,
    pub reaches: Vec<ReachShown>,
    /// Deliveries by state.
    pub counts: BTreeMap<String, u64>,
    pub deliveries: Vec<DeliveryShown>,
    /// There are more, after this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReachShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    pub connections: Option<u32>,
    pub live_at_ms: Option<u64>,
    pub acknowledged_at_ms: Option<u64>,
    /// When the devices' turn came.
    pub pushed_at_ms: Option<u64>,
    /// When it comes, or when the event goes out again.
    pub due_at_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeliveryShown {
    pub number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// A topic, condition or broadcast channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Value>,
    pub state: String,
    pub attempts: u32,
    /// Those after which it had to wait for another one; the newest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_attempts: Vec<AttemptShown>,
    pub due_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptShown {
    /// From 1.
    pub attempt: u32,
    /// When it was over.
    pub at_ms: u64,
    pub reason: Option<String>,
}

/// An event to be brought to connections, now.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveOrder {
    pub id: String,
    pub app_id: String,
    pub whom: Vec<Whom>,
    /// JSON strings, quotes included.
    pub name: String,
    pub data: String,
}

/// What came of `NotifyJob::Due`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// With the time for an acknowledgement, in milliseconds.
    pub orders: Vec<(LiveOrder, u64)>,
    /// Deliveries that were queued.
    pub queued: u64,
    /// When something is due next; now, if the page was full.
    pub next_ms: Option<u64>,
}

impl LiveOrder {
    pub fn new(id: &str, app_id: &str, spec: &Spec, whom: Vec<Whom>) -> LiveOrder {
        let (name, data) = spec.live_event(id);
        LiveOrder {
            id: id.to_string(),
            app_id: app_id.to_string(),
            whom,
            name: Value::from(name).to_string(),
            data: Value::from(data).to_string(),
        }
    }
}

impl Spec {
    /// Everybody who is to be reached live, and users who are not, too.
    pub fn whom(&self) -> Vec<Whom> {
        let users = self.to.users.iter().cloned().map(Whom::User);
        let channels = self.to.channels.iter().cloned().map(Whom::Channel);
        users.chain(channels).collect()
    }
}
