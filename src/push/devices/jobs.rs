//! What the store does for devices: registers, changes, finds, lists and removes them, and takes a
//! rotation forward. Tokens come sealed. Invariants: a job does all of what it says or nothing, and
//! what it cannot do is an outcome and no failure, so that it costs the other jobs of its
//! transaction nothing.

use crate::base::now::Now;
use crate::push::devices::census::Census;
use crate::push::devices::device::{Device, SealedRegistration, SealedUpdate};
use crate::push::devices::token::Platform;
use crate::push::devices::token_key::{Fingerprint, KeyId};
use crate::push::devices::vault::{Binding, SealedToken};

/// How many devices there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    pub per_app: u64,
    /// Active ones.
    pub per_user: u64,
    /// Topics of one device.
    pub topics: usize,
}

/// See the file's head. Devices are named as their clients named them, unless a field says `id`.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceJob {
    /// One after the other; whoever else holds a token is retired.
    Register {
        registrations: Vec<SealedRegistration>,
        limits: DeviceLimits,
        now: Now,
    },
    Find {
        app_id: String,
        device_id: String,
    },
    Update {
        app_id: String,
        device_id: String,
        update: Box<SealedUpdate>,
        limits: DeviceLimits,
        now: Now,
    },
    SetTopic {
        app_id: String,
        device_id: String,
        topic: String,
        wanted: bool,
        limits: DeviceLimits,
        now: Now,
    },
    /// The outcome is the device as it was.
    Remove {
        app_id: String,
        device_id: String,
    },
    /// All that a user has.
    RemoveUser {
        app_id: String,
        user_id: String,
    },
    List {
        app_id: String,
        filter: DeviceFilter,
        /// The id of the last one that was listed; empty to begin.
        after: String,
        count: u32,
    },
    Keys(KeyJob),
    /// Counts the next devices behind this id.
    Count {
        after: String,
        count: u32,
        now: Now,
    },
    /// Retires what has expired and removes what has been inactive for so long.
    Upkeep {
        keep_ms: u64,
        count: u32,
        now: Now,
    },
}

/// Jobs about the keys of tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyJob {
    /// Notes the keys of the vault, which fit what is kept.
    Put {
        keys: Vec<(KeyId, Fingerprint)>,
        now: Now,
    },
    /// The next devices whose token is not sealed with this key and binding.
    Outdated {
        key: KeyId,
        binding: Binding,
        after: String,
        count: u32,
    },
    Reseal(Vec<Resealed>),
    /// Whether everything is to be sealed with this key; kept until it is not wanted any more.
    Rotate {
        key: KeyId,
        wanted: bool,
    },
    Count,
}

impl From<KeyJob> for DeviceJob {
    fn from(job: KeyJob) -> DeviceJob {
        DeviceJob::Keys(job)
    }
}

/// All that is `Some` has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    pub user_id: Option<String>,
    pub topic: Option<String>,
    pub platform: Option<Platform>,
    pub is_active: Option<bool>,
}

/// A token that is sealed anew, unless it has changed meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Resealed {
    pub id: String,
    pub was: SealedToken,
    pub sealed: SealedToken,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeviceOutcome {
    /// In the order of the registrations.
    Registered(Vec<Result<Registered, Full>>),
    Device(Box<Device>),
    /// The device to which a token was bound is not what it was.
    Changed,
    Unknown,
    Full(Full),
    /// How many: of the keys, tokens or devices that the job was about.
    Done(u64),
    /// With the id at which the list goes on, if it does.
    List(Vec<Device>, Option<String>),
    Keys(Vec<KeyUse>),
    /// With the id at which counting goes on, if it does.
    Counted(Box<Census>, Option<String>),
    Upkept {
        expired: u64,
        removed: u64,
        /// Whether there is more to do.
        more: bool,
    },
    /// What is kept makes this impossible; why, for people.
    Impossible(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    pub device: Device,
    pub is_new: bool,
    /// How many others held the token.
    pub replaced: u32,
}

/// Which of the limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    App,
    User,
    Topics,
}

/// What a key is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub key: KeyId,
    /// Tokens that only it opens.
    pub tokens: u64,
    /// Those of them that are not bound to their row.
    pub unbound: u64,
    /// Credentials of apps that only it opens.
    pub credentials: u64,
    /// How many it has ever sealed.
    pub sealed: u64,
    /// Everything is to be sealed with it.
    pub is_rotating: bool,
}
