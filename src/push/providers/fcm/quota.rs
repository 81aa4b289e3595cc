//! How fast FCM may be fed (Firebase, "Throttling and quotas" and "Best practices when sending FCM
//! messages at scale"). Hints for a pace; who counts and waits is the courier.

use std::time::Duration;

/// Messages of one project, not requests; rejected ones count, but for those of 429.
pub const PROJECT_PER_MINUTE: u64 = 600_000;
/// To one Android device.
pub const DEVICE_PER_MINUTE: u64 = 240;
pub const DEVICE_PER_HOUR: u64 = 5_000;
/// Collapsible ones of one app to one device: so many at once, then one each three minutes.
pub const COLLAPSIBLE_BURST: u64 = 20;
pub const COLLAPSIBLE_EACH: Duration = Duration::from_secs(180);
/// Fan-outs to topics that one project has at a time, and about how fast each one is.
pub const FAN_OUTS: u64 = 1_000;
pub const FAN_OUT_PER_SECOND: u64 = 10_000;
/// Tokens of one project that join or leave topics (`topics`).
pub const TOPIC_CHANGES_PER_SECOND: u64 = 3_000;
/// Topics that one app on one device can be in.
pub const TOPICS_PER_DEVICE: u64 = 2_000;
/// From nothing to the full rate.
pub const RAMP: Duration = Duration::from_secs(60);

/// Messages a second of one project, `since` it began to send after a pause.
pub fn rate(since: Duration, per_minute: u64) -> u64 {
    let full = per_minute / 60;
    let ramped = full * (since.as_millis() as u64).min(RAMP.as_millis() as u64);
    (ramped / RAMP.as_millis() as u64).max(1)
}

/// Whether everybody sends now: within two minutes of a quarter of an hour. What can wait should.
pub fn is_crowded(unix_seconds: i64) -> bool {
    let into_quarter = unix_seconds.rem_euclid(900);
    !(120..=780).contains(&into_quarter)
}

/// Whether a registration is still worth sending to (Firebase, "Best practices for FCM registration
/// token management").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    Fresh,
    /// The device was not heard of for a month; most of these are gone.
    Stale,
    /// Android's end after 270 days, for good; FCM answers `UNREGISTERED`.
    Expired,
}

/// `silent`: since the device was last heard of. An iPhone's never expires.
pub fn contact(silent: Duration, is_android: bool) -> Contact {
    const DAY_SECONDS: u64 = 24 * 3600;
    match silent.as_secs() / DAY_SECONDS {
        270.. if is_android => Contact::Expired,
        30.. => Contact::Stale,
        _ => Contact::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_grows_for_a_minute() {
        let table = [
            (0, 1),
            (6, 1_000),
            (30, 5_000),
            (60, 10_000),
            (3600, 10_000),
        ];
        for (seconds, expected) in table {
            let since = Duration::from_secs(seconds);
            assert_eq!(rate(since, PROJECT_PER_MINUTE), expected, "{seconds} s");
        }
    }

    #[test]
    fn quarters_of_an_hour_are_crowded() {
        let table = [
            ("00:00", true),
            ("01:59", true),
            ("02:00", false),
            ("07:30", false),
            ("13:00", false),
            ("13:01", true),
            ("30:00", true),
            ("45:30", true),
        ];
        for (clock, expected) in table {
            let (minute, second) = clock.split_once(':').expect("a clock");
            let number = |text: &str| text.parse::<i64>().expect("a number");
            let at = 1_699_999_200 + number(minute) * 60 + number(second);
            assert_eq!(is_crowded(at), expected, "{clock}");
        }
    }

    #[test]
    fn a_registration_ages() {
        use Contact::{Expired, Fresh, Stale};
        for (days, on_android, on_others) in [
            (29, Fresh, Fresh),
            (30, Stale, Stale),
            (269, Stale, Stale),
            (270, Expired, Stale),
        ] {
            let silent = Duration::from_secs(days * 24 * 3600);
            assert_eq!(contact(silent, true), on_android, "{days}");
            assert_eq!(contact(silent, false), on_others, "{days}");
        }
    }
}
