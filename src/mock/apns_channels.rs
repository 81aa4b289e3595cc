//! Broadcast channels of APNs (Apple, "Sending channel management requests to APNs" and "Handling
//! error responses from Apple Push Notification service"): made, read, listed, deleted, and sent to.
//! Owns which there are.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::mock::apns::{check_fields, check_payload};
use crate::mock::{Asked, Reply, Sight, World};

/// Of one app.
const CHANNELS: usize = 10_000;
const APPS: usize = 100;
const PAYLOAD_BYTES: usize = 5120;

/// The storage policy of each channel, by app and id.
#[derive(Default)]
pub(super) struct Channels {
    apps: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What a path asks about.
enum Place<'a> {
    /// `/1/apps/BUNDLE/channels`
    Channels(&'a str),
    /// `/1/apps/BUNDLE/all-channels`
    All(&'a str),
    /// `/4/broadcasts/apps/BUNDLE`
    Broadcast(&'a str),
}

fn place(path: &str) -> Option<Place<'_>> {
    let bundle = |text: &'_ str| !text.is_empty() && !text.contains('/');
    if let Some(app) = path.strip_prefix("/4/broadcasts/apps/") {
        return bundle(app).then_some(Place::Broadcast(app));
    }
    let (app, what) = path.strip_prefix("/1/apps/")?.split_once('/')?;
    match what {
        "channels" if bundle(app) => Some(Place::Channels(app)),
        "all-channels" if bundle(app) => Some(Place::All(app)),
        _ => None,
    }
}

impl Channels {
    pub fn is_for(path: &str) -> bool {
        place(path).is_some()
    }

    pub fn is_management(path: &str) -> bool {
        matches!(place(path), Some(Place::Channels(_) | Place::All(_)))
    }

    pub fn judge(
        &mut self,
        asked: &Asked,
        sight: &Sight,
        world: &mut World<'_>,
    ) -> Result<Reply, &'static str> {
        match (place(asked.path()).ok_or("BadPath")?, &*asked.method) {
            (Place::Channels(app), "POST") => self.create(app, sight, world),
            (Place::Channels(app), "GET") => {
                let policy = self.policy(app, asked)?.ok_or("BadPath")?;
                Ok(Reply::json(200, &described(policy)))
            }
            (Place::Channels(app), "DELETE") => {
                self.policy(app, asked)?.ok_or("BadPath")?;
                let channels = self.apps.get_mut(app);
                channels.and_then(|all| all.remove(channel_id(asked).ok()?));
                Ok(Reply::empty(204))
            }
            (Place::All(app), "GET") => {
                let ids = self.apps.get(app).into_iter().flat_map(BTreeMap::keys);
                let ids: Vec<&String> = ids.collect();
                Ok(Reply::json(200, &json!({ "channels": ids })))
            }
            (Place::Broadcast(app), "POST") => self.broadcast(app, asked, sight),
            _ => Err("MethodNotAllowed"),
        }
    }

    fn create(
        &mut self,
        app: &str,
        sight: &Sight,
        world: &mut World<'_>,
    ) -> Result<Reply, &'static str> {
        let Value::Object(wanted) = &sight.payload else {
            return Err("BadRequestPayload");
        };
        let policy = wanted.get("message-storage-policy").and_then(Value::as_u64);
        let policy = policy.filter(|it| *it <= 1).ok_or("BadRequestPayload")?;
        match wanted.get("push-type").and_then(Value::as_str) {
            None => return Err("MissingPushType"),
            Some("LiveActivity") => {}
            Some(_) => return Err("InvalidPushType"),
        }
        let new_app = !self.apps.contains_key(app);
        let full = self.apps.get(app).is_some_and(|all| all.len() >= CHANNELS);
        if full || (new_app && self.apps.len() >= APPS) {
            return Err("CannotCreateChannelConfig");
        }
        let id = BASE64.encode(&world.dice.next_u128().to_be_bytes());
        let channels = self.apps.entry(app.to_string()).or_default();
        channels.insert(id.clone(), policy);
        Ok(Reply::empty(201).with("apns-channel-id", id))
    }

    fn policy(&self, app: &str, asked: &Asked) -> Result<Option<u64>, &'static str> {
        let id = channel_id(asked)?;
        let policy = self.apps.get(app).and_then(|all| all.get(id));
        Ok(policy.copied())
    }

    fn broadcast(&self, app: &str, asked: &Asked, sight: &Sight) -> Result<Reply, &'static str> {
        match check_fields(asked)? {
            None => return Err("MissingPushType"),
            Some("liveactivity") => {}
            Some(_) => return Err("InvalidPushType"),
        }
        let policy = self.policy(app, asked)?.ok_or("ChannelNotRegistered")?;
        let stores = asked.field("apns-expiration").is_some_and(|it| it != "0");
        if policy == 0 && stores {
            return Err("BadExpirationDate");
        }
        check_payload(asked, sight, PAYLOAD_BYTES)?;
        Ok(Reply::empty(200))
    }
}

fn described(policy: u64) -> Value {
    json!({ "message-storage-policy": policy, "push-type": "LiveActivity" })
}

fn channel_id(asked: &Asked) -> Result<&str, &'static str> {
    let id = asked.field("apns-channel-id").ok_or("MissingChannelId")?;
    match BASE64.decode(id.as_bytes()) {
        Ok(bytes) if !bytes.is_empty() => Ok(id),
        _ => Err("BadChannelId"),
    }
}
