//! Quiet hours: from when to when, by the clock where the device is, nothing is sent to it. The rules
//! of the IANA time zones are compiled in; a device whose zone is not known, or not among them, lives
//! by UTC. Knows no device.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tz::TimeZoneRef;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// A minute of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTime(u16);

/// See the file's head. `from` is within, `to` is not; it may lie on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    pub from: ClockTime,
    pub to: ClockTime,
}

impl ClockTime {
    /// Reads `HH:MM`.
    pub fn parse(text: &str) -> Option<ClockTime> {
        let digits = |text: &str| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())
        {
            true => text.parse::<u16>().ok(),
            false => None,
        };
        let (hours, minutes) = text.split_once(':')?;
        let (hours, minutes) = (digits(hours)?, digits(minutes)?);
        (hours < 24 && minutes < 60).then_some(ClockTime(hours * 60 + minutes))
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for ClockTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClockTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ClockTime, D::Error> {
        let text = String::deserialize(from)?;
        ClockTime::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a time of day is HH:MM, as in 22:00"))
    }
}

impl Quiet {
    /// When something that is due may be sent: then, or when the quiet hours are over. Milliseconds
    /// since 1970. Where clocks are set forward or back meanwhile, that shows at the end.
    pub fn after(&self, zone: Option<&str>, due_ms: u64) -> u64 {
        let minute = local_minute(zone, due_ms);
        let (from, to) = (u64::from(self.from.0), u64::from(self.to.0));
        let is_within = match from <= to {
            true => (from..to).contains(&minute),
            false => minute >= from || minute < to,
        };
        if !is_within {
            return due_ms;
        }
        let left = (to + DAY_MINUTES - minute) % DAY_MINUTES;
        let at = due_ms / MINUTE_MS * MINUTE_MS + left * MINUTE_MS;
        // An hour that was left out or came twice in between.
        let gained = local_minute(zone, at) as i64 - to as i64;
        let gained = match gained {
            ..-720 => gained + DAY_MINUTES as i64,
            720.. => gained - DAY_MINUTES as i64,
            _ => gained,
        };
        let corrected = at as i64 - gained * MINUTE_MS as i64;
        due_ms.max(corrected as u64)
    }
}

/// Which minute of the day it is there.
fn local_minute(zone: Option<&str>, unix_ms: u64) -> u64 {
    let seconds = (unix_ms / 1000) as i64;
    let zone: Option<&TimeZoneRef<'static>> =
        zone.and_then(|name| tzdb_data::find_tz(name.as_bytes()));
    let local = zone.and_then(|zone| zone.find_local_time_type(seconds).ok());
    let offset = local.map_or(0, |local| i64::from(local.ut_offset()));
    ((seconds + offset).rem_euclid(24 * 3600) / 60) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHT: &str = r#"{"from":"22:00","to":"07:00"}"#;

    fn quiet(json: &str) -> Quiet {
        serde_json::from_str(json).expect("hours")
    }

    /// 1 July 2026, so many hours and minutes after midnight in UTC.
    fn at(hours: u64, minutes: u64) -> u64 {
        1_782_864_000_000 + (hours * 60 + minutes) * MINUTE_MS
    }

    #[test]
    fn what_comes_in_quiet_hours_waits_for_their_end_where_the_device_is() {
        let night = quiet(NIGHT);
        let table = [
            (None, at(21, 59), at(21, 59)),
            (None, at(22, 0), at(31, 0)),
            (None, at(3, 17), at(7, 0)),
            (None, at(7, 0), at(7, 0)),
            (Some("Nowhere/Else"), at(3, 0), at(7, 0)),
            // Two hours ahead in summer, and five and a half.
            (Some("Europe/Vienna"), at(19, 59), at(19, 59)),
            (Some("Europe/Vienna"), at(20, 0), at(29, 0)),
            (Some("Europe/Vienna"), at(5, 0), at(5, 0)),
            (Some("Asia/Kolkata"), at(1, 0), at(1, 30)),
            // Seven hours behind.
            (Some("America/Los_Angeles"), at(4, 59), at(4, 59)),
            (Some("America/Los_Angeles"), at(5, 0), at(14, 0)),
        ];
        for (zone, due, expected) in table {
            assert_eq!(night.after(zone, due), expected, "{zone:?} {due}");
        }
    }

    #[test]
    fn hours_within_one_day_and_none_at_all() {
        let noon = quiet(r#"{"from":"12:00","to":"13:30"}"#);
        assert_eq!(noon.after(None, at(12, 0) + 59_999), at(13, 30));
        assert_eq!(noon.after(None, at(13, 30)), at(13, 30));
        let never = quiet(r#"{"from":"12:00","to":"12:00"}"#);
        assert_eq!(never.after(None, at(12, 0)), at(12, 0));
    }

    #[test]
    fn a_night_in_which_clocks_are_set_ends_by_the_clock() {
        // 25 October 2026, 01:00 UTC: three becomes two in Vienna.
        let (evening, end) = (1_792_879_200_000, 1_792_908_000_000);
        let night = quiet(NIGHT);
        let vienna = Some("Europe/Vienna");
        assert_eq!(local_minute(vienna, evening), 0);
        assert_eq!(local_minute(vienna, end), 7 * 60);
        assert_eq!(night.after(vienna, evening), end);
    }

    #[test]
    fn only_times_of_day_are_read() {
        for bad in ["24:00", "7:00", "07:60", "07-00", "+7:00", ""] {
            assert_eq!(ClockTime::parse(bad), None, "{bad}");
        }
    }
}
