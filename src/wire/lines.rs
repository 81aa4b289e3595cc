//! Text lines: LF ends a message, a CR before it is no part of it, and what is left is UTF-8. An
//! empty line is an empty message. Does not know what a line says.

use crate::base::close::Violation;
use crate::wire::framing::{Extent, Framing, Payload, Unsendable};

/// `text://`.
pub struct Lines;

impl Framing for Lines {
    fn measure(&self, input: &[u8], _bytes_max: usize) -> Result<Extent, Violation> {
        Ok(match memchr::memchr(b'\n', input) {
            Some(end) => Extent::Whole(end + 1),
            None => Extent::Unknown,
        })
    }

    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        let line = message.strip_suffix(b"\n").unwrap_or(message);
        Payload::text(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// A text with an LF would arrive as several messages of its author's choosing.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        if memchr::memchr(b'\n', payload).is_some() {
            return Err(Unsendable);
        }
        out.extend_from_slice(payload);
        out.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::Inbox;
    use crate::wire::framing::{check_every_cut, next};

    fn check(input: &[u8], bytes_max: usize, expected: Result<Option<&str>, Violation>) {
        let mut bytes = input.to_vec();
        let found = next(&Lines, &mut Inbox::new(&mut bytes), bytes_max);
        assert_eq!(found, expected.map(|found| found.map(Payload::Text)));
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let stream = "one\nzwölf\r\n\n\r\nа\r\r\n€\n".as_bytes();
        let expected = ["one", "zwölf", "", "", "а\r", "€"].map(str::as_bytes);
        check_every_cut(&Lines, stream, &expected);
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_it_ends() {
        check(b"1234567\n", 8, Ok(Some("1234567")));
        check(b"1234567", 8, Ok(None));
        check(b"12345678", 8, Err(Violation::TooBig));
        check(b"12345678\n", 8, Err(Violation::TooBig));
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        check(b"\xff\n", 8, Err(Violation::NotUtf8));
        check(b"\xc3\n\xa4", 8, Err(Violation::NotUtf8));
    }

    #[test]
    fn what_is_written_is_read_back_or_refused() {
        let mut out = Vec::new();
        assert_eq!(Lines.encode(b"{}", &mut out), Ok(()));
        assert_eq!(Lines.encode(b"a\nb", &mut out), Err(Unsendable));
        assert_eq!(out, b"{}\n");
    }
}
