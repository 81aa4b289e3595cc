//! What the gateway has to tell webhooks: that a notification was delivered or not, that a device was
//! removed. It is noted in the transaction in which it became so, taken from there under a lease, and
//! forgotten when the requests that tell it are stored. All times are milliseconds since 1970.

use std::collections::BTreeSet;

use crate::push::webhook::{Event, Kind, Recipient};

/// Of one `NewsJob::Take`.
pub const PAGE: u32 = 500;
/// What is told so.
pub const KINDS: [Kind; 3] = [
    Kind::NotificationDelivered,
    Kind::NotificationFailed,
    Kind::DeviceRemoved,
];

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub id: u64,
    pub app_id: String,
    /// One of `KINDS`.
    pub kind: Kind,
    pub notification: Option<String>,
    /// As the app knows it; `None`: a topic, or a device that was forgotten since.
    pub device_id: Option<String>,
    pub user_id: Option<String>,
    pub reason: Option<String>,
}

impl News {
    pub fn recipient(&self) -> Recipient<'_> {
        Recipient {
            device_id: self.device_id.as_deref(),
            user_id: self.user_id.as_deref(),
        }
    }

    pub fn event(&self) -> Event<'_> {
        let device = self.recipient();
        let notification_id = self.notification.as_deref().unwrap_or_default();
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.kind {
            Kind::NotificationDelivered => Event::NotificationDelivered {
                notification_id,
                device,
            },
            Kind::NotificationFailed => Event::NotificationFailed {
                notification_id,
                device,
                reason,
            },
            _ => Event::DeviceRemoved { device, reason },
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum NewsJob {
    /// The first of a courier: from now on this is noted, by app, and nothing else. What the one before
    /// of this name had in hand is free.
    Want {
        courier: String,
        wanted: BTreeSet<(String, Kind)>,
    },
    /// The oldest that nobody has in hand; until then they are the courier's.
    Take {
        courier: String,
        now_ms: u64,
        until_ms: u64,
    },
    Forget {
        ids: Vec<u64>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum NewsOutcome {
    Done,
    /// In their order. As many as `PAGE`: there may be more.
    Taken(Vec<News>),
    /// What is kept makes this impossible; why, for people.
    Impossible(String),
}
