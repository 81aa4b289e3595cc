//! What the store does for credentials that apps are given while the server runs. They come sealed.
//! Invariants: each change raises the revision of all, so that whoever shares the database sees that
//! there was one; of two credentials of an app for the same devices, one is refused.

use crate::push::devices::vault::SealedSecret;

/// Of one app.
pub const APP_MAX: u64 = 20;
/// Of all apps.
pub const MAX: u64 = 1_000;

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub enum CredentialJob {
    /// All there are, unless this is still their revision.
    Look {
        since: Option<u64>,
    },
    /// Instead of the one that had its name.
    Put {
        credential: Box<NewCredential>,
        now_ms: u64,
    },
    Remove {
        app_id: String,
        name: String,
    },
    /// No change: the same texts under another key.
    Reseal(Vec<ResealedSecret>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewCredential {
    pub app_id: String,
    pub name: String,
    /// For which devices it is (`Credential::family`).
    pub family: &'static str,
    /// An operator at the machine has put it there.
    pub is_operators: bool,
    pub sealed: SealedSecret,
}

/// One that is sealed anew, unless it has changed meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct ResealedSecret {
    pub app_id: String,
    pub name: String,
    pub was: SealedSecret,
    pub sealed: SealedSecret,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CredentialOutcome {
    Same,
    Kept(Kept),
    Put {
        is_new: bool,
        kept: Kept,
    },
    Removed(Kept),
    Unknown,
    /// The app has another one for the same devices, of this name.
    Conflict(String),
    Full,
    Resealed(u64),
    /// What is kept makes this impossible; why, for people.
    Impossible(String),
}

/// All credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    pub revision: u64,
    /// By app and name.
    pub all: Vec<KeptCredential>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct KeptCredential {
    pub app_id: String,
    pub name: String,
    /// With which it was put.
    pub revision: u64,
    pub is_operators: bool,
    pub sealed: SealedSecret,
    pub created_ms: u64,
    pub updated_ms: u64,
}
