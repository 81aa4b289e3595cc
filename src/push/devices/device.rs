//! A registered device: what is kept of it, and how registrations, updates and providers' answers
//! change that. Does not know where it is kept or who may change it. Invariants: its token is sealed
//! for its own row; what is told of it holds neither the token nor what the token became.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::base::uuid::uuid;
use crate::push::devices::registration::{Change, Profile, Registration, Update};
use crate::push::devices::token::{ClearToken, Platform, Service};
use crate::push::devices::vault::{OpenFault, Row, SealedToken, TokenVault};

/// One row of `device_registrations`, with its topics. All times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// A UUID of ours, for rows of other tables.
    pub id: String,
    pub app_id: String,
    /// As the client chose it; unique in its app.
    pub device_id: String,
    pub platform: Platform,
    pub service: Service,
    pub profile: Profile,
    pub sealed: SealedToken,
    pub state: State,
    /// Answers in a row that made the token suspect.
    pub suspicions: u32,
    pub created_ms: u64,
    pub updated_ms: u64,
    /// When the client last said that this is its token; what a provider says of an earlier time
    /// does not count any more.
    pub token_set_ms: u64,
    /// When a provider last took something for it.
    pub accepted_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    /// Kept for a while, so that it can be explained.
    Inactive {
        why: Retired,
        since_ms: u64,
    },
}

/// Why a device gets nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// The provider says that the token will never work again.
    Gone,
    /// The provider has called the token wrong too often.
    Suspect,
    Expired,
    /// It does not open: its key is lost, or it was altered.
    Unreadable,
    /// Another device has registered with the same token.
    Replaced,
}

impl Retired {
    /// With the word for each.
    pub const ALL: [(&'static str, Retired); 5] = [
        ("gone", Retired::Gone),
        ("suspect", Retired::Suspect),
        ("expired", Retired::Expired),
        ("unreadable", Retired::Unreadable),
        ("replaced", Retired::Replaced),
    ];

    pub fn word(self) -> &'static str {
        Retired::ALL[self as usize].0
    }

    pub fn from_word(word: &str) -> Option<Retired> {
        let found = Retired::ALL.iter().find(|(known, _)| *known == word);
        found.map(|(_, why)| *why)
    }
}

/// What upkeep is to do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    Keep,
    /// Its token has expired.
    Retire,
    /// It has been inactive for long enough.
    Remove,
}

/// A registration as the store gets it: nobody needs a key any more to take it up.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedRegistration {
    /// The id of the device, if it is new.
    pub id: String,
    pub app_id: String,
    pub device_id: String,
    pub platform: Platform,
    pub token: SealedText,
    pub change: Change,
}

/// An update, likewise.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedUpdate {
    /// With the platform for which it was sealed.
    pub token: Option<(Platform, SealedText)>,
    pub change: Change,
}

/// A token that was sealed, and how others find it.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedText {
    pub service: Service,
    pub sealed: SealedToken,
    /// What `SealedToken::index` may be in a row that holds the same token.
    pub indexes: Vec<String>,
}

/// What is told of a device.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    device_id: &'a str,
    platform: &'a str,
    service: &'a str,
    user_id: Option<&'a str>,
    topics: Vec<&'a str>,
    is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    inactive_reason: Option<&'static str>,
    /// Seconds, as it was said.
    token_expires_at: Option<u64>,
    location: Option<Place>,
    metadata: Option<&'a RawValue>,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    created_ms: u64,
    updated_ms: u64,
}

#[derive(Serialize)]
struct Place {
    latitude: f64,
    longitude: f64,
}

impl SealedText {
    fn seal(vault: &TokenVault, row: &Row<'_>, token: &ClearToken, dice: &mut Dice) -> SealedText {
        SealedText {
            service: row.service,
            sealed: vault.seal(row, token, dice),
            indexes: vault.indexes(row.app_id, token),
        }
    }
}

impl SealedRegistration {
    pub fn seal(
        app_id: &str,
        registration: Registration,
        vault: &TokenVault,
        dice: &mut Dice,
        now: Now,
    ) -> SealedRegistration {
        let token = &registration.token;
        let row = Row {
            app_id,
            device_id: &registration.device_id,
            platform: registration.platform,
            service: token.service(),
        };
        SealedRegistration {
            id: uuid(now.unix_ms, dice),
            app_id: app_id.to_string(),
            platform: registration.platform,
            token: SealedText::seal(vault, &row, token, dice),
            change: registration.change,
            device_id: registration.device_id,
        }
    }
}

impl SealedUpdate {
    /// For this device.
    pub fn seal(
        device: &Device,
        update: Update,
        vault: &TokenVault,
        dice: &mut Dice,
    ) -> SealedUpdate {
        let token = update.token.as_ref();
        let token = token.map(|token| SealedText::seal(vault, &device.row(), token, dice));
        SealedUpdate {
            token: token.map(|token| (device.platform, token)),
            change: update.change,
        }
    }

    /// Whether the device is still the one for which it was sealed.
    pub fn is_for(&self, device: &Device) -> bool {
        let token = self.token.as_ref();
        token.is_none_or(|(platform, token)| {
            (*platform, token.service) == (device.platform, device.service)
        })
    }
}

impl Device {
    /// A device that was not there.
    pub fn new(
        app_id: &str,
        registration: Registration,
        vault: &TokenVault,
        dice: &mut Dice,
        now: Now,
    ) -> Device {
        Device::begin(
            SealedRegistration::seal(app_id, registration, vault, dice, now),
            now,
        )
    }

    /// The same, sealed already.
    pub fn begin(registration: SealedRegistration, now: Now) -> Device {
        let mut profile = Profile::default();
        registration.change.apply(&mut profile);
        Device {
            id: registration.id,
            app_id: registration.app_id,
            device_id: registration.device_id,
            platform: registration.platform,
            service: registration.token.service,
            profile,
            sealed: registration.token.sealed,
            state: State::Active,
            suspicions: 0,
            created_ms: now.unix_ms,
            updated_ms: now.unix_ms,
            token_set_ms: now.unix_ms,
            accepted_ms: None,
        }
    }

    /// The same device registers again: it is active, and its token counts from now, even if it is
    /// the same. What the registration leaves out stays.
    pub fn register(&mut self, registration: SealedRegistration, now: Now) {
        debug_assert_eq!(self.device_id, registration.device_id);
        self.platform = registration.platform;
        self.service = registration.token.service;
        self.set_token(registration.token, now);
        registration.change.apply(&mut self.profile);
        self.updated_ms = now.unix_ms;
    }

    /// A token in the update was sealed for this device.
    pub fn update(&mut self, update: SealedUpdate, now: Now) {
        if let Some((_, token)) = update.token {
            self.set_token(token, now);
        }
        update.change.apply(&mut self.profile);
        self.updated_ms = now.unix_ms;
    }

    /// One step of a rotation: whether the row is another now. A token that does not open stays as
    /// it is, since an older key may still turn up.
    pub fn reseal(&mut self, vault: &TokenVault, dice: &mut Dice) -> Result<bool, OpenFault> {
        let again = vault.reseal(&self.row(), &self.sealed, dice)?;
        let changed = again.is_some();
        self.sealed = again.unwrap_or_else(|| self.sealed.clone());
        Ok(changed)
    }

    /// The provider took something for it.
    pub fn token_accepted(&mut self, now: Now) {
        self.suspicions = 0;
        self.accepted_ms = Some(now.unix_ms);
    }

    /// The provider says that the token is dead since `dead_ms`, or, if it names no time, was when
    /// the request was made. Whether that ends the device: not if the client has confirmed its
    /// token since.
    pub fn token_dead(&mut self, dead_ms: Option<u64>, asked_ms: u64, now: Now) -> bool {
        let counts = dead_ms.unwrap_or(asked_ms) >= self.token_set_ms;
        if counts {
            self.retire(Retired::Gone, now);
        }
        counts
    }

    /// The provider calls the token wrong, which may be our own mistake. Whether that ends the
    /// device: after `limit` such answers in a row, and with `None`, which is for times in which
    /// too many tokens are called wrong, never.
    pub fn token_suspect(&mut self, limit: Option<u32>, now: Now) -> bool {
        self.suspicions = self.suspicions.saturating_add(1);
        let ends = limit.is_some_and(|limit| self.suspicions >= limit);
        if ends {
            self.retire(Retired::Suspect, now);
        }
        ends
    }

    pub fn retire(&mut self, why: Retired, now: Now) {
        if self.state == State::Active {
            self.state = State::Inactive {
                why,
                since_ms: now.unix_ms,
            };
            self.updated_ms = now.unix_ms;
        }
    }

    /// Whether something may be sent to it.
    pub fn is_reachable(&self, now: Now) -> bool {
        self.state == State::Active && !self.is_expired(now)
    }

    /// Inactive devices are kept for `keep_ms`.
    pub fn upkeep(&self, keep_ms: u64, now: Now) -> Upkeep {
        match self.state {
            State::Active if self.is_expired(now) => Upkeep::Retire,
            State::Inactive { since_ms, .. } if since_ms.saturating_add(keep_ms) <= now.unix_ms => {
                Upkeep::Remove
            }
            _ => Upkeep::Keep,
        }
    }

    /// What the token is sealed for.
    pub fn row(&self) -> Row<'_> {
        Row {
            app_id: &self.app_id,
            device_id: &self.device_id,
            platform: self.platform,
            service: self.service,
        }
    }

    /// What an API may tell of it: one JSON object without anything of the token.
    pub fn json(&self) -> String {
        let profile = &self.profile;
        let metadata = profile.metadata.as_deref();
        let told = Told {
            id: &self.id,
            device_id: &self.device_id,
            platform: self.platform.word(),
            service: self.service.word(),
            user_id: profile.user_id.as_deref(),
            topics: profile.topics.iter().map(String::as_str).collect(),
            is_active: self.state == State::Active,
            inactive_reason: match self.state {
                State::Active => None,
                State::Inactive { why, .. } => Some(why.word()),
            },
            token_expires_at: profile.token_expires_ms.map(|ms| ms / 1000),
            location: profile.location.map(|point| Place {
                latitude: point.latitude(),
                longitude: point.longitude(),
            }),
            metadata: metadata.and_then(|json| serde_json::from_str(json).ok()),
            locale: profile.locale.as_deref(),
            time_zone: profile.time_zone.as_deref(),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
        };
        serde_json::to_string(&told).expect("strings and finite numbers")
    }

    fn is_expired(&self, now: Now) -> bool {
        let end = self.profile.token_expires_ms;
        end.is_some_and(|end| end <= now.unix_ms)
    }

    /// An end that was said of the token before it is not the new one's, and one that has passed
    /// was wrong.
    fn set_token(&mut self, token: SealedText, now: Now) {
        let known = token.indexes.contains(&self.sealed.index);
        if !known || self.is_expired(now) {
            self.profile.token_expires_ms = None;
        }
        self.sealed = token.sealed;
        self.state = State::Active;
        self.suspicions = 0;
        self.token_set_ms = now.unix_ms;
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
