//! The `Date` field (RFC 9110 section 6.6.1) in its only form for senders, IMF-fixdate (section
//! 5.6.7). Counted out for each response: that takes less time than keeping it would take words.

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn imf_fixdate(unix_seconds: u64) -> [u8; 29] {
    const WEEKDAYS: &[u8] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Day, 00 Mon 0000 00:00:00 GMT";
    let mut put = |at: usize, digits: usize, mut number: u64| {
        for place in (at..at + digits).rev() {
            text[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(5, 2, day);
    put(12, 4, year);
    put(17, 2, second / 3600);
    put(20, 2, second / 60 % 60);
    put(23, 2, second % 60);
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&WEEKDAYS[weekday..weekday + 3]);
    let month = (month as usize - 1) * 3;
    text[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    text
}

/// Reads what `imf_fixdate` writes, as seconds since 1970. The two obsolete forms are not read: to
/// take such a condition for absent costs a transfer and is never wrong.
pub fn parse_imf_fixdate(text: &str) -> Option<u64> {
    let number = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<u64>().ok();
    let (year, day) = (number(12, 4)?, number(5, 2)?);
    let time = number(17, 2)? * 3600 + number(20, 2)? * 60 + number(23, 2)?;
    if !(1970..=9999).contains(&year) || day == 0 {
        return None;
    }
    // The year gives the day up to a year, the month up to some days; the text has to agree.
    let first = (year - 1970) * 365 + (year - 1969) / 4 - (year - 1901) / 100 + (year - 1601) / 400;
    let days = first..first + 366;
    let seconds = days.map(|days| days * 86_400 + time);
    seconds
        .into_iter()
        .find(|seconds| imf_fixdate(*seconds) == text.as_bytes())
}

/// Year, month and day of a day since 1970-01-01. A year is counted from March, so that a leap day
/// is its last; 400 of them have 146 097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_date_is_not_read() {
        for text in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 99:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMTx",
            "Sün, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_imf_fixdate(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_735_689_600, "Wed, 01 Jan 2025 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (seconds, text) in table {
            let made = imf_fixdate(seconds);
            assert_eq!(std::str::from_utf8(&made), Ok(text));
            assert_eq!(parse_imf_fixdate(text), Some(seconds));
        }
    }
}
