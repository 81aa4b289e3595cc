//! Pusher's webhooks, and those of the push gateway: which endpoint wants which event, events and bodies as JSON, the fields of the
//! request. Sends nothing. Invariant: every event names its channel, and every value but numbers is
//! a string, as the strictest of Pusher's own libraries want it.

use std::time::Duration;

use crate::base::dice::Dice;
use crate::wire::sign::sign;
use crate::wire::target::Target;

/// What may have happened, in Pusher's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
    SubscriptionCount,
    CacheMiss,
    NotificationDelivered,
    NotificationFailed,
    DeviceRemoved,
}

impl Kind {
    /// With the word for each.
    pub const ALL: [(&'static str, Kind); 10] = [
        ("channel_occupied", Kind::ChannelOccupied),
        ("channel_vacated", Kind::ChannelVacated),
        ("member_added", Kind::MemberAdded),
        ("member_removed", Kind::MemberRemoved),
        ("client_event", Kind::ClientEvent),
        ("subscription_count", Kind::SubscriptionCount),
        ("cache_miss", Kind::CacheMiss),
        ("notification_delivered", Kind::NotificationDelivered),
        ("notification_failed", Kind::NotificationFailed),
        ("device_removed", Kind::DeviceRemoved),
    ];

    pub fn word(self) -> &'static str {
        Kind::ALL[self as usize].0
    }

    /// By its place in `ALL`.
    pub fn from_u8(index: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(index)).map(|(_, kind)| *kind)
    }
}

/// One endpoint of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub app_id: String,
    /// As written; names the endpoint within its app.
    pub url: String,
    /// The same, with further header fields.
    pub target: Target,
    pub kinds: Vec<Kind>,
    /// Only of channels whose name begins and ends so.
    pub channel_prefix: String,
    pub channel_suffix: String,
    /// At most so many events in one request.
    pub batch_events: usize,
    /// Time for an answer.
    pub timeout: Duration,
    /// For how long a request is tried again.
    pub retry: Duration,
}

impl Webhook {
    /// Whether it is to be told. `channel` without the app.
    pub fn wants(&self, app_id: &str, channel: &str, kind: Kind) -> bool {
        self.app_id == app_id
            && self.kinds.contains(&kind)
            && channel.starts_with(&self.channel_prefix)
            && channel.ends_with(&self.channel_suffix)
            && channel.len() >= self.channel_prefix.len() + self.channel_suffix.len()
    }
}

/// What happened in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded(&'a str),
    MemberRemoved(&'a str),
    Client {
        /// A JSON string with its quotes, and so is `data`.
        event: &'a str,
        data: &'a str,
        socket_id: &'a str,
        user_id: Option<&'a str>,
    },
    SubscriptionCount(u64),
    CacheMiss,
    /// A provider has taken it.
    NotificationDelivered {
        notification_id: &'a str,
        device: Recipient<'a>,
    },
    NotificationFailed {
        notification_id: &'a str,
        device: Recipient<'a>,
        reason: &'a str,
    },
    /// Its token is dead.
    DeviceRemoved {
        device: Recipient<'a>,
        reason: &'a str,
    },
}

/// A device, by the name that its client gave it, or whatever a provider reaches without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipient<'a> {
    pub device_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
}

impl Recipient<'_> {
    /// The channel that its events name: the one that leads to its user. No client ever subscribes to
    /// the other.
    pub fn channel(&self) -> String {
        match self.user_id {
            Some(user_id) => format!("#server-to-user-{user_id}"),
            None => "#devices".to_string(),
        }
    }

    fn json(&self) -> String {
        let fields = [("device_id", self.device_id), ("user_id", self.user_id)];
        let named = fields.into_iter().filter_map(|(name, value)| {
            let value = quoted(value?);
            Some(format!(",\"{name}\":{value}"))
        });
        named.collect()
    }
}

impl Event<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Event::ChannelOccupied => Kind::ChannelOccupied,
            Event::ChannelVacated => Kind::ChannelVacated,
            Event::MemberAdded(_) => Kind::MemberAdded,
            Event::MemberRemoved(_) => Kind::MemberRemoved,
            Event::Client { .. } => Kind::ClientEvent,
            Event::SubscriptionCount(_) => Kind::SubscriptionCount,
            Event::CacheMiss => Kind::CacheMiss,
            Event::NotificationDelivered { .. } => Kind::NotificationDelivered,
            Event::NotificationFailed { .. } => Kind::NotificationFailed,
            Event::DeviceRemoved { .. } => Kind::DeviceRemoved,
        }
    }

    /// One entry of `events`. `channel` without the app.
    pub fn json(&self, channel: &str) -> String {
        let (name, channel) = (self.kind().word(), quoted(channel));
        let rest = match self {
            Event::ChannelOccupied | Event::ChannelVacated | Event::CacheMiss => String::new(),
            Event::MemberAdded(id) | Event::MemberRemoved(id) => {
                format!(",\"user_id\":{}", quoted(id))
            }
            Event::Client {
                event,
                data,
                socket_id,
                user_id,
            } => {
                let user = user_id.map(|id| format!(",\"user_id\":{}", quoted(id)));
                let (socket, user) = (quoted(socket_id), user.unwrap_or_default());
                format!(",\"event\":{event},\"data\":{data},\"socket_id\":{socket}{user}")
            }
            Event::SubscriptionCount(count) => format!(",\"subscription_count\":{count}"),
            Event::NotificationDelivered {
                notification_id,
                device,
            } => {
                let id = quoted(notification_id);
                format!(",\"notification_id\":{id}{}", device.json())
            }
            Event::NotificationFailed {
                notification_id,
                device,
                reason,
            } => {
                let (id, reason) = (quoted(notification_id), quoted(reason));
                let device = device.json();
                format!(",\"notification_id\":{id}{device},\"reason\":{reason}")
            }
            Event::DeviceRemoved { device, reason } => {
                format!("{},\"reason\":{}", device.json(), quoted(reason))
            }
        };
        format!("{{\"name\":\"{name}\",\"channel\":{channel}{rest}}}")
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The body of a request; `events` are those that `json` made.
pub fn body(time_ms: u64, events: &[String]) -> String {
    format!(
        "{{\"time_ms\":{time_ms},\"events\":[{}]}}",
        events.join(",")
    )
}

/// The fields that go with a body; some readers compare their names and values letter by letter.
pub fn fields(key: &str, secret: &str, body: &str) -> [(&'static str, String); 4] {
    [
        ("Content-Type", "application/json".to_string()),
        ("X-Pusher-Key", key.to_string()),
        ("X-Pusher-Signature", sign(secret, body)),
        (
            "User-Agent",
            concat!("Lineman/", env!("CARGO_PKG_VERSION")).to_string(),
        ),
    ]
}

/// Splits the events of one lane into those of one request each.
pub fn batches(events: Vec<String>, batch_events: usize, batch_bytes: usize) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let fits = bytes + event.len() <= batch_bytes;
        match batches.last_mut() {
            Some(batch) if fits && batch.len() < batch_events => {
                bytes += event.len();
                batch.push(event);
            }
            _ => {
                bytes = event.len();
                batches.push(vec![event]);
            }
        }
    }
    batches
}

/// Which of an endpoint's lanes carries a channel: always the same one, so that its order stays.
pub fn lane_of(channel: &str, lanes: u8) -> u8 {
    let mut seed = [0_u8; 16];
    for (at, byte) in channel.bytes().enumerate() {
        seed[at % 16] = seed[at % 16].rotate_left(3) ^ byte;
    }
    Dice::new(seed).below(lanes.into()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_pusher_writes_them() {
        let client = Event::Client {
            event: "\"client-a\"",
            data: "\"{\\\"b\\\":1}\"",
            socket_id: "1.2",
            user_id: Some("u"),
        };
        let table = [
            (
                Event::ChannelOccupied,
                r#"{"name":"channel_occupied","channel":"x\"y"}"#,
            ),
            (
                Event::ChannelVacated,
                r#"{"name":"channel_vacated","channel":"x\"y"}"#,
            ),
            (
                Event::MemberAdded("1"),
                r#"{"name":"member_added","channel":"x\"y","user_id":"1"}"#,
            ),
            (
                Event::MemberRemoved("1"),
                r#"{"name":"member_removed","channel":"x\"y","user_id":"1"}"#,
            ),
            (
                Event::SubscriptionCount(3),
                r#"{"name":"subscription_count","channel":"x\"y","subscription_count":3}"#,
            ),
            (
                client,
                r#"{"name":"client_event","channel":"x\"y","event":"client-a","data":"{\"b\":1}","socket_id":"1.2","user_id":"u"}"#,
            ),
        ];
        let miss = r#"{"name":"cache_miss","channel":"x\"y"}"#;
        for (event, expected) in table.into_iter().chain([(Event::CacheMiss, miss)]) {
            assert_eq!(event.json("x\"y"), expected);
        }
        assert_eq!(
            body(5, &["1".into(), "2".into()]),
            r#"{"time_ms":5,"events":[1,2]}"#
        );
    }

    #[test]
    fn the_signature_is_that_of_the_body() {
        let fields = fields("k", "s", "{}");
        assert_eq!(fields[0], ("Content-Type", "application/json".to_string()));
        assert_eq!(fields[1], ("X-Pusher-Key", "k".to_string()));
        assert_eq!(fields[2].0, "X-Pusher-Signature");
        assert!(crate::wire::sign::is_signed("s", "{}", &fields[2].1));
    }

    #[test]
    fn an_endpoint_is_told_what_it_asked_for() {
        let hook = Webhook {
            app_id: "a".into(),
            url: "https://b/".into(),
            target: Target::parse_web("https://b/").expect("a URL"),
            kinds: vec![Kind::MemberAdded],
            channel_prefix: "presence-".into(),
            channel_suffix: "-x".into(),
            batch_events: 1,
            timeout: Duration::ZERO,
            retry: Duration::ZERO,
        };
        let added = Kind::MemberAdded;
        assert!(hook.wants("a", "presence-1-x", added));
        assert!(!hook.wants("b", "presence-1-x", added));
        assert!(!hook.wants("a", "presence-1", added));
        assert!(
            !hook.wants("a", "presence-x", added),
            "they may not overlap"
        );
        assert!(!hook.wants("a", "presence-1-x", Kind::MemberRemoved));
    }

    #[test]
    fn batches_keep_the_order_and_their_bounds() {
        let events = |sizes: &[usize]| sizes.iter().map(|size| "e".repeat(*size)).collect();
        let split = |sizes: &[usize]| {
            let batches = batches(events(sizes), 2, 10);
            let lengths = |batch: &Vec<String>| batch.iter().map(String::len).collect();
            batches.iter().map(lengths).collect::<Vec<Vec<usize>>>()
        };
        assert_eq!(split(&[1, 2, 3]), [vec![1, 2], vec![3]]);
        assert_eq!(split(&[9, 2, 99, 1]), [vec![9], vec![2], vec![99], vec![1]]);
    }

    #[test]
    fn a_channel_keeps_its_lane_and_channels_spread() {
        let lanes: Vec<u8> = (0..64).map(|n| lane_of(&format!("room-{n}"), 4)).collect();
        assert_eq!(lanes[7], lane_of("room-7", 4));
        assert!((0..4).all(|lane| lanes.contains(&lane)));
    }
}
