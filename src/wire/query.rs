//! The query of a URL as decoded pairs in the order they came, and percent-decoding.

use std::borrow::Cow;

/// Splits at `&` and the first `=`; decodes percent escapes and `+`. `None` when the result is
/// not UTF-8 or an escape is broken.
pub fn parse_query(query: &str) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    // A signed call has five pairs or six.
    let mut pairs = Vec::with_capacity(6);
    let mut rest = query;
    while !rest.is_empty() {
        let end = memchr::memchr(b'&', rest.as_bytes()).unwrap_or(rest.len());
        let pair = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if !pair.is_empty() {
            let middle = memchr::memchr(b'=', pair.as_bytes()).unwrap_or(pair.len());
            let value = pair.get(middle + 1..).unwrap_or_default();
            pairs.push((decode(&pair[..middle], true)?, decode(value, true)?));
        }
    }
    Some(pairs)
}

/// Decodes percent escapes in a path; a plus sign stays one.
pub fn decode_path(path: &str) -> Option<Cow<'_, str>> {
    decode(path, false)
}

fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    // Without leaving early, so that the compiler looks at many bytes at once.
    let escaped = |found, b| found | (b == b'%') | (plus_is_space & (b == b'+'));
    if !text.bytes().fold(false, escaped) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_keep_their_order() {
        let pairs = parse_query("b=1%202&a=x+y&&flag&e=").expect("well-formed");
        let plain: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(plain, [("b", "1 2"), ("a", "x y"), ("flag", ""), ("e", "")]);
    }

    #[test]
    fn broken_escapes_are_refused() {
        for query in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(parse_query(query), None, "{query}");
        }
        assert_eq!(decode_path("/a+b%40c").as_deref(), Some("/a+b@c"));
    }
}
