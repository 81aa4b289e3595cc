//! The dates between which a certificate is valid, read from its DER form (RFC 5280 section 4.1).
//! Nothing else of it: whether it can be trusted is for the TLS library to say.

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: u64,
    pub until: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which the oldest certificates leave out.
const VERSION: u8 = 0xa0;

/// `None`: that is no certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut outer = Der(certificate);
    let mut signed = Der(Der(outer.value(SEQUENCE)?).value(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.value(VERSION)?;
    }
    signed.value(INTEGER)?;
    // The signature's algorithm and the issuer.
    signed.value(SEQUENCE)?;
    signed.value(SEQUENCE)?;
    let mut dates = Der(signed.value(SEQUENCE)?);
    Some(Validity {
        from: dates.time()?,
        until: dates.time()?,
    })
}

/// What is left of a list of values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.is_empty() || bytes.len() > 4 {
                return None;
            }
            length = bytes.iter().fold(0, |sum, &b| sum << 8 | usize::from(b));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, value)| value)
    }

    /// YYMMDDHHMMSSZ up to 2049, YYYYMMDDHHMMSSZ from 2050 on.
    fn time(&mut self) -> Option<u64> {
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z")?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = digits.split_at_checked(2)?;
                let year = number(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = digits.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let mut parts = rest.chunks(2).map(number);
        let mut part = || parts.next().flatten();
        let (month, day) = (part()?, part()?);
        let seconds = part()? * 3600 + part()? * 60 + part()?;
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // A date before 1970 is as expired as one in 1970.
        let days = days_since_1970(year, month, day).unwrap_or(0);
        Some(days * 86_400 + seconds)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum * 10 + digit)
    })
}

/// In the calendar of today. Years are counted from March, so that the odd day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = match month {
        1 | 2 => (year.checked_sub(1)?, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    // From 1 March of the year 0 to 1 January 1970.
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match value.len() {
            short @ 0..0x80 => bytes.push(short as u8),
            long => {
                bytes.push(0x82);
                bytes.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(value);
        bytes
    }

    fn certificate(dates: &[u8]) -> Vec<u8> {
        let signed = [
            der(VERSION, &der(INTEGER, &[2])),
            der(INTEGER, &[1]),
            der(SEQUENCE, b"algorithm"),
            der(SEQUENCE, &[7; 300]),
            der(SEQUENCE, dates),
        ];
        der(SEQUENCE, &der(SEQUENCE, &signed.concat()))
    }

    fn check(from: &[u8], until: &[u8], expected: Option<Validity>) {
        let bytes = certificate(&[from, until].concat());
        assert_eq!(validity(&bytes), expected);
        for cut in 0..bytes.len() {
            assert_eq!(validity(&bytes[..cut]), None);
        }
    }

    #[test]
    fn both_forms_of_a_date_are_read() {
        let expected = Some(Validity {
            from: 951_827_696,
            until: 2_524_608_000,
        });
        let from = der(UTC_TIME, b"000229123456Z");
        check(&from, &der(GENERALIZED_TIME, b"20500101000000Z"), expected);
        let expected = Some(Validity { from: 0, until: 0 });
        check(
            &der(UTC_TIME, b"500101000000Z"),
            &der(UTC_TIME, b"700101000000Z"),
            expected,
        );
    }

    #[test]
    fn what_is_no_date_makes_it_no_certificate() {
        let good = der(UTC_TIME, b"000229123456Z");
        for bad in [
            der(UTC_TIME, b"0002291234Z"),
            der(UTC_TIME, b"000229123456"),
            der(UTC_TIME, b"00x229123456Z"),
            der(UTC_TIME, b"001329123456Z"),
            der(INTEGER, b"000229123456Z"),
        ] {
            assert_eq!(validity(&certificate(&[good.clone(), bad].concat())), None);
        }
    }
}
