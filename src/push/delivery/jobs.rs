//! What the store does for deliveries: claims those that are due, settles them, takes back what a
//! courier that died had in hand. A delivery is one notification for one device, or for one topic. All
//! times are milliseconds since 1970.
//!
//! A claim is a lease: a claimed row is not due again before its lease ends, so that several couriers
//! can claim from one store, and what one of them forgets comes back. What comes back that way may
//! have been sent: it counts as uncertain, and where that must not lead to a second notification
//! (`OnUnknown::Fail`), `Mark` says before the request that it may have been.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::push::devices::device::Device;
use crate::push::devices::token::Service;
use crate::push::notify::spec::Spec;

/// Of one page of what has expired.
pub const EXPIRED_PAGE: u32 = 500;
/// What names no end is kept for so long (FCM's longest; 28 days).
pub const KEEP_MS: u64 = 28 * 24 * 3600 * 1000;
/// Why a delivery failed of which nobody knows whether it was sent.
pub const UNCERTAIN: &str = "nobody knows whether it was sent";

/// Which deliveries go one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneName {
    pub app_id: String,
    pub way: Way,
}

/// To devices of a service, topics of FCM with them, or to broadcast channels of APNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Device(Service),
    Channel,
}

impl Way {
    /// As `deliveries.way` has it.
    pub fn word(self) -> &'static str {
        match self {
            Way::Device(service) => service.word(),
            Way::Channel => "apns-channel",
        }
    }

    pub fn from_word(word: &str) -> Option<Way> {
        match word {
            "apns-channel" => Some(Way::Channel),
            _ => Service::from_word(word).map(Way::Device),
        }
    }
}

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryJob {
    /// The first of a courier: what the one before of this name had in hand is taken back.
    Begin {
        courier: String,
        now_ms: u64,
    },
    Claim(Arc<Claim>),
    /// These may have been sent from now on, and must not be sent twice.
    Mark {
        ids: Vec<u64>,
        now_ms: u64,
    },
    Settle {
        courier: String,
        reports: Vec<DeliveryReport>,
        now_ms: u64,
    },
    /// Ends what nobody has in hand and nobody wants to see any more, a page of it.
    Expire {
        now_ms: u64,
    },
    /// What `PassKeeper::keep` says.
    KeepPass {
        name: String,
        text: String,
    },
}

/// What a courier asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub courier: String,
    /// How many at most of each lane that can be sent now.
    pub lanes: BTreeMap<LaneName, u32>,
    pub now_ms: u64,
    /// The end of the lease.
    pub until_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryOutcome {
    /// How many were taken back, and the passes that are kept.
    Begun {
        released: u64,
        passes: BTreeMap<String, String>,
    },
    Claimed(Box<Claimed>),
    Done,
    /// How many devices get nothing any more.
    Settled {
        retired: u64,
    },
    /// How many, and whether there may be more.
    Expired {
        count: u64,
        more: bool,
    },
    /// What is kept makes this impossible; why, for people.
    Impossible(String),
}

/// What a courier gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claimed {
    pub deliveries: Vec<Delivery>,
    /// By notification.
    pub specs: BTreeMap<String, Arc<Claimable>>,
    /// When something of these lanes is due that was not claimed; now, if there may be more.
    pub next_ms: Option<u64>,
    /// How many were taken from a courier that let its lease end.
    pub released: u64,
}

/// What all deliveries of a notification share.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimable {
    pub spec: Spec,
    pub expires_ms: Option<u64>,
    pub created_ms: u64,
}

/// One delivery in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: u64,
    pub lane: LaneName,
    pub notification: String,
    pub target: DeliveryTarget,
    /// 0 first.
    pub priority: u8,
    pub attempts: u32,
    pub uncertain: u32,
    /// When it was first tried.
    pub tried_ms: Option<u64>,
}

impl Delivery {
    /// The device that it goes to, if it is one and still there.
    pub fn device(&self) -> Option<&Device> {
        match &self.target {
            DeliveryTarget::Device(device) => device.as_deref(),
            DeliveryTarget::Address(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryTarget {
    /// `None`: it is not there any more, or gets nothing.
    Device(Option<Box<Device>>),
    /// As `deliveries.address` has it.
    Address(String),
}

/// What became of a delivery in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryReport {
    pub id: u64,
    pub notification: String,
    pub attempts: u32,
    pub uncertain: u32,
    pub tried_ms: Option<u64>,
    pub end: DeliveryEnd,
    pub news: Option<TokenNews>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryEnd {
    Settled {
        state: Settlement,
        reason: Option<String>,
        provider_id: Option<String>,
    },
    /// Not before; it is not in hand any more.
    Again { due_ms: u64, reason: Option<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Accepted,
    Failed,
    Expired,
}

impl Settlement {
    /// As `deliveries.state` has it.
    pub fn word(self) -> &'static str {
        match self {
            Settlement::Accepted => "accepted",
            Settlement::Failed => "failed",
            Settlement::Expired => "expired",
        }
    }
}

/// What an answer says about a device's token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenNews {
    /// `Device::id`
    pub device: String,
    /// When the request was sent.
    pub asked_ms: u64,
    pub kind: TokenNewsKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenNewsKind {
    Accepted,
    Dead {
        since_ms: Option<u64>,
    },
    /// After how many in a row the device is retired; `None`: it is not.
    Suspect {
        limit: Option<u32>,
    },
    /// It does not open.
    Unreadable,
}
