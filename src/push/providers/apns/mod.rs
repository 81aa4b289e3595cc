//! Apple Push Notification service: one device, or one broadcast channel, for each request (Apple,
//! "Sending notification requests to APNs" and "Establishing a token-based connection to APNs").
//! Owns push types, topics, priorities and the pass. The payload is `payload`'s, the answers are
//! `verdict`'s, the channels themselves `channels`'.
//!
//! For the courier: a connection belongs to one team or certificate; it begins with one stream until
//! the first answer to a valid pass, then follows the server's settings. All processes share one
//! pass, across restarts too: a second one on the same connection within twenty minutes wedges it.

pub mod certificate;
pub mod channels;
pub mod payload;
pub mod verdict;

use std::time::Duration;

use serde_json::json;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::providers::address::Address;
use crate::push::providers::note::{ActivityEvent, Note, Priority};
use crate::push::providers::provider::{
    Answer, Draft, Drafting, Field, Method, Pass, Patience, Provider, Request, Unfit,
};
use crate::push::providers::verdict::Ruling;
use crate::wire::jwt::JwtKey;

pub const PRODUCTION: &str = "https://api.push.apple.com";
pub const DEVELOPMENT: &str = "https://api.sandbox.push.apple.com";

/// A pass is issued so far back, for clocks that are behind ours.
const SKEW_SECONDS: i64 = 5;
/// Apple: not more often than each 20 minutes, at least each 60.
const RENEW_SECONDS: i64 = 47 * 60;
const PASS_SECONDS: i64 = 3600;
/// What Apple takes.
const PAYLOAD_BYTES: usize = 4096;
/// For calls, and for channels.
const LARGE_BYTES: usize = 5120;

/// One app in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apns {
    /// `PRODUCTION`, `DEVELOPMENT`, or a relay; without a path.
    pub origin: String,
    /// The bundle id.
    pub bundle: String,
    pub auth: ApnsAuth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApnsAuth {
    /// A pass of `ApnsKey`.
    Token,
    /// Of the TLS handshake; no pass.
    Certificate,
}

/// `apns-push-type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushType {
    Alert,
    Background,
    Voip,
    Complication,
    FileProvider,
    Mdm,
    Location,
    LiveActivity,
    PushToTalk,
    Widgets,
    Controls,
}

impl PushType {
    /// With its word, and what it adds to the bundle id for a topic.
    pub const ALL: [(PushType, &'static str, &'static str); 11] = [
        (PushType::Alert, "alert", ""),
        (PushType::Background, "background", ""),
        (PushType::Voip, "voip", ".voip"),
        (PushType::Complication, "complication", ".complication"),
        (
            PushType::FileProvider,
            "fileprovider",
            ".pushkit.fileprovider",
        ),
        (PushType::Mdm, "mdm", ""),
        (PushType::Location, "location", ".location-query"),
        (
            PushType::LiveActivity,
            "liveactivity",
            ".push-type.liveactivity",
        ),
        (PushType::PushToTalk, "pushtotalk", ".voip-ptt"),
        (PushType::Widgets, "widgets", ".push-type.widgets"),
        (PushType::Controls, "controls", ".push-type.controls"),
    ];

    pub fn word(self) -> &'static str {
        PushType::ALL[self as usize].1
    }

    fn suffix(self) -> &'static str {
        PushType::ALL[self as usize].2
    }

    /// What the note asks for, else what its content is.
    pub fn of(note: &Note) -> Result<PushType, Unfit> {
        if let Some(word) = &note.apns.push_type {
            let found = PushType::ALL.iter().find(|(_, own, _)| own == word);
            let found = found.map(|(push_type, _, _)| *push_type);
            return found.ok_or_else(|| wrong("apns.push_type is none of Apple's"));
        }
        let shows = payload::has_alert(note) || note.sound.is_some() || note.badge.is_some();
        let changes = !note.apns.payload.is_empty();
        Ok(match (&note.apns.live_activity, shows || changes) {
            (Some(_), _) => PushType::LiveActivity,
            (None, true) if !note.silent => PushType::Alert,
            (None, _) => PushType::Background,
        })
    }

    fn priority(self, note: &Note) -> Result<u8, Unfit> {
        let usual = match note.priority {
            Priority::High => 10,
            Priority::Normal => 5,
            Priority::Low => 1,
        };
        let (allowed, usual): (&[u8], u8) = match self {
            PushType::Background => (&[5], 5),
            PushType::LiveActivity => (&[5, 10], usual.max(5)),
            PushType::PushToTalk => (&[10], 10),
            _ => (&[10, 5, 1], usual),
        };
        let asked = note.apns.priority.unwrap_or(usual);
        match allowed.contains(&asked) {
            true => Ok(asked),
            false => Err(Unfit::Note(format!(
                "apns.priority {asked} does not go with push type {}",
                self.word()
            ))),
        }
    }
}

fn wrong(why: &str) -> Unfit {
    Unfit::Note(why.to_string())
}

impl Provider for Apns {
    fn request(
        &self,
        note: &Note,
        to: &Address,
        pass: Option<&Pass>,
        now: Now,
        _: &mut Dice,
    ) -> Result<Request, Unfit> {
        let mut request = self.unproven(note, to, now)?;
        request.fields.extend(proof(self.auth, pass)?);
        Ok(request)
    }

    fn ruling(&self, answer: &Answer<'_>, now: Now) -> Ruling {
        verdict::ruling(answer, now)
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: Duration::from_secs(20),
            first_retry: Duration::from_secs(15),
            give_up: Duration::from_secs(24 * 3600),
        }
    }

    fn drafting(&self, to: &Address) -> Option<&dyn Drafting> {
        matches!(to, Address::Apns(_)).then_some(self)
    }
}

/// Of devices. What is Apple's to know of one alone is its token and the id.
impl Drafting for Apns {
    fn draft(&self, note: &Note, pass: Option<&Pass>, now: Now) -> Result<Draft, Unfit> {
        let push_type = worth_sending(note, now)?;
        let mut draft = self.draft_to_devices(push_type, note, now)?;
        draft.fields.extend(proof(self.auth, pass)?);
        Ok(draft)
    }

    fn own(&self, id: &str, to: &Address) -> Result<Request, Unfit> {
        let Address::Apns(token) = to else {
            return Err(Unfit::Address);
        };
        let path = format!("/3/device/{token}");
        let mut request = Request::new(Method::Post, &self.origin, path);
        request.field("apns-id", id);
        Ok(request)
    }
}

/// What kind of push it is, if it is one for Apple now.
fn worth_sending(note: &Note, now: Now) -> Result<PushType, Unfit> {
    note.seconds_left(now.unix_seconds())?;
    match note.dry_run {
        true => Err(Unfit::NoDryRun),
        false => PushType::of(note),
    }
}

impl Apns {
    /// A request without its pass: what another service is to hand to Apple says the same.
    pub(in crate::push::providers) fn unproven(
        &self,
        note: &Note,
        to: &Address,
        now: Now,
    ) -> Result<Request, Unfit> {
        let push_type = worth_sending(note, now)?;
        let (mut request, draft) = match to {
            Address::Apns(_) => (
                self.own(&note.id, to)?,
                self.draft_to_devices(push_type, note, now)?,
            ),
            Address::ApnsChannel(id) => {
                let own = self.to_channel(id, push_type, note)?;
                (own, draft_to_channel(push_type, note, now)?)
            }
            _ => return Err(Unfit::Address),
        };
        request.fields.extend(draft.fields);
        request.body = draft.body;
        Ok(request)
    }

    fn draft_to_devices(&self, push_type: PushType, note: &Note, now: Now) -> Result<Draft, Unfit> {
        let mut fields = vec![Field::new("apns-topic", self.topic(push_type, note)?)];
        if let Some(collapse) = &note.collapse {
            fields.push(Field::new("apns-collapse-id", collapse));
        }
        let expires = match push_type {
            PushType::PushToTalk => Some(0),
            _ => note.expires,
        };
        let limit = match push_type {
            PushType::Voip => LARGE_BYTES,
            _ => PAYLOAD_BYTES,
        };
        let payload = payload::payload(note, push_type, now, limit)?;
        draft(fields, (push_type, note), expires, payload)
    }

    fn to_channel(&self, id: &str, push_type: PushType, note: &Note) -> Result<Request, Unfit> {
        let event = note.apns.live_activity.as_ref().map(|it| it.event);
        if push_type != PushType::LiveActivity || event == Some(ActivityEvent::Start) {
            return Err(wrong(
                "a channel carries updates and ends of Live Activities",
            ));
        }
        let path = format!("/4/broadcasts/apps/{}", self.bundle);
        let mut request = Request::new(Method::Post, &self.origin, path);
        request.field("apns-channel-id", id);
        request.field("apns-request-id", &note.id);
        Ok(request)
    }

    fn topic(&self, push_type: PushType, note: &Note) -> Result<String, Unfit> {
        if push_type == PushType::Location && self.auth == ApnsAuth::Certificate {
            return Err(wrong("a location push needs token authentication"));
        }
        let plain = |topic: &str| !topic.is_empty() && topic.bytes().all(|b| b.is_ascii_graphic());
        match &note.apns.topic {
            Some(topic) if plain(topic) => Ok(topic.clone()),
            Some(_) => Err(wrong("apns.topic is not made of visible ASCII characters")),
            None if push_type == PushType::Mdm => Err(wrong(
                "an mdm push needs apns.topic, the UID of its certificate",
            )),
            None => Ok(format!("{}{}", self.bundle, push_type.suffix())),
        }
    }
}

fn draft_to_channel(push_type: PushType, note: &Note, now: Now) -> Result<Draft, Unfit> {
    // A channel that stores nothing takes nothing else than 0.
    let latest = now.unix_seconds() + channels::STORED_SECONDS;
    let latest = u32::try_from(latest).unwrap_or(u32::MAX);
    let expires = note.expires.unwrap_or(0).min(latest);
    let payload = payload::payload(note, push_type, now, LARGE_BYTES)?;
    draft(Vec::new(), (push_type, note), Some(expires), payload)
}

fn draft(
    mut fields: Vec<Field>,
    (push_type, note): (PushType, &Note),
    expires: Option<u32>,
    body: Vec<u8>,
) -> Result<Draft, Unfit> {
    fields.push(Field::new("apns-push-type", push_type.word()));
    let priority = push_type.priority(note)?.to_string();
    fields.push(Field::new("apns-priority", priority));
    let expires = expires.map(|at| Field::new("apns-expiration", at.to_string()));
    fields.extend(expires);
    fields.push(Field::new("content-type", "application/json"));
    Ok(Draft { fields, body })
}

/// The pass, where there has to be one.
pub(super) fn proof(auth: ApnsAuth, pass: Option<&Pass>) -> Result<Option<Field>, Unfit> {
    match (auth, pass) {
        (ApnsAuth::Token, Some(pass)) => {
            Ok(Some(Field::secret("authorization", &pass.authorization)))
        }
        (ApnsAuth::Certificate, None) => Ok(None),
        _ => Err(Unfit::Pass),
    }
}

/// A team's signing key.
#[derive(Debug)]
pub struct ApnsKey {
    key: JwtKey,
    key_id: String,
    team_id: String,
}

impl ApnsKey {
    /// `pem`: the `.p8` file. Both ids as Apple shows them, ten characters.
    pub fn new(pem: &[u8], key_id: &str, team_id: &str) -> Result<ApnsKey, &'static str> {
        let is_id = |id: &str| id.len() == 10 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_id(key_id) || !is_id(team_id) {
            return Err("a key id and a team id have ten letters and digits");
        }
        Ok(ApnsKey {
            key: JwtKey::es256_pem(pem)?,
            key_id: key_id.to_string(),
            team_id: team_id.to_string(),
        })
    }

    pub fn pass(&self, now: Now) -> Result<Pass, &'static str> {
        let issued = now.unix_seconds() - SKEW_SECONDS;
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let claims = json!({"iss": self.team_id, "iat": issued});
        Ok(Pass {
            authorization: format!("bearer {}", self.key.sign(&header, &claims)?),
            renew_at: issued + RENEW_SECONDS,
            ends_at: issued + PASS_SECONDS,
        })
    }
}

#[cfg(test)]
mod tests;
