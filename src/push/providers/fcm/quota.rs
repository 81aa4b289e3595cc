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
}
