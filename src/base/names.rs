//! Names that clients and backends choose, checked once and trusted afterwards.

use std::fmt;
use std::sync::Arc;

/// What a channel's name says about it (pusher-http-api and channels documentation). The prefix is
/// matched at the start only: `my-private-x` is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    Public,
    Private,
    Presence,
}

impl ChannelKind {
    pub fn of(channel: &str) -> ChannelKind {
        if channel.starts_with("presence-") {
            ChannelKind::Presence
        } else if channel.starts_with("private-") {
            ChannelKind::Private
        } else {
            ChannelKind::Public
        }
    }

    pub fn needs_auth(self) -> bool {
        self != ChannelKind::Public
    }
}

/// Whether payloads are for the subscribers' eyes only (`private-encrypted-`).
pub fn is_encrypted(channel: &str) -> bool {
    channel.starts_with("private-encrypted-")
}

/// Whether the last event is kept for newcomers. Like the kind, the flavour stands at the start.
pub fn is_cache(channel: &str) -> bool {
    let prefixes = ["private-encrypted-", "private-", "presence-", ""];
    let kind = prefixes.iter().find_map(|it| channel.strip_prefix(it));
    kind.is_some_and(|rest| rest.starts_with("cache-"))
}

/// The same of a channel key's text.
pub fn is_cache_key(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(_, channel)| is_cache(channel))
}

/// What leads to all connections of a signed-in user. `#` begins no other name.
const USER_PREFIX: &str = "#server-to-user-";

/// The user to whom the channel leads.
pub fn user_of(channel: &str) -> Option<&str> {
    channel.strip_prefix(USER_PREFIX)
}

/// ASCII letters, digits and `_-=@,.;`: the alphabet of channel names and user ids in Pusher.
pub fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-=@,.;".contains(&b))
}

/// Event names may hold anything printable (Laravel uses backslashes), within a length.
pub fn is_event_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// A channel of an app, in one string: `APP_ID/CHANNEL`. App ids hold no slash, so the first one
/// divides. Cheap to clone; the form in which channels travel between processes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(Arc<str>);

impl ChannelKey {
    pub fn new(app_id: &str, channel: &str) -> ChannelKey {
        debug_assert!(!app_id.contains('/'));
        ChannelKey(Arc::from(format!("{app_id}/{channel}")))
    }

    /// The channel that leads to a user of the app.
    pub fn of_user(app_id: &str, user_id: &str) -> ChannelKey {
        ChannelKey::new(app_id, &format!("{USER_PREFIX}{user_id}"))
    }

    /// Reads what `as_str` printed.
    pub fn parse(text: &str) -> Option<ChannelKey> {
        let (app_id, channel) = text.split_once('/')?;
        (!app_id.is_empty() && !channel.is_empty()).then(|| ChannelKey(Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn app_id(&self) -> &str {
        self.0.split_once('/').map_or("", |(app_id, _)| app_id)
    }

    pub fn channel(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, channel)| channel)
    }
}

impl std::borrow::Borrow<str> for ChannelKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_count_at_the_start_only() {
        let kinds = [
            ("room", ChannelKind::Public),
            ("my-private-room", ChannelKind::Public),
            ("xpresence-room", ChannelKind::Public),
            ("private", ChannelKind::Public),
            ("private-room", ChannelKind::Private),
            ("private-encrypted-room", ChannelKind::Private),
            ("presence-room", ChannelKind::Presence),
        ];
        for (name, kind) in kinds {
            assert_eq!(ChannelKind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn the_cache_flavour_follows_the_kind() {
        for name in [
            "cache-a",
            "private-cache-a",
            "private-encrypted-cache-a",
            "presence-cache-a",
        ] {
            assert!(is_cache(name), "{name}");
        }
        for name in [
            "my-cache-a",
            "private-my-cache-a",
            "cache",
            "encrypted-cache-a",
        ] {
            assert!(!is_cache(name), "{name}");
        }
    }

    #[test]
    fn a_name_keeps_to_its_alphabet_and_length() {
        assert!(is_name("aZ9_-=@,.;", 200));
        for bad in ["", "a b", "a/b", "#a", "ä", "a\n"] {
            assert!(!is_name(bad, 200), "{bad:?}");
        }
        assert!(is_name(&"x".repeat(200), 200));
        assert!(!is_name(&"x".repeat(201), 200));
        assert!(is_event_name("App\\Events\\Order.Shipped", 200));
        assert!(!is_event_name("a\nb", 200));
    }

    #[test]
    fn a_key_divides_at_the_first_slash() {
        let key = ChannelKey::new("demo", "room");
        assert_eq!(
            (key.app_id(), key.channel(), key.as_str()),
            ("demo", "room", "demo/room")
        );
        assert_eq!(ChannelKey::parse("demo/room"), Some(key));
        assert_eq!(ChannelKey::parse("demo"), None);
    }
}
