//! What a client offers in `Sec-WebSocket-Extensions` and what is agreed on (RFC 6455 section 9.1,
//! RFC 7692 sections 5 and 7.1). Knows nothing of compression itself. Invariant: an `Agreement`
//! asks nothing of the client that it did not offer or that RFC 7692 does not allow to be asked
//! without an offer.

use std::borrow::Cow;
use std::fmt::Write;

use crate::wire::deflate::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// What this server wants of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateOptions {
    /// Messages of clients may refer to earlier ones, which are kept for that.
    pub client_context: bool,
    /// Messages to clients may refer to earlier ones, which are kept for that.
    pub server_context: bool,
    /// Shorter messages are sent as they are.
    pub min_bytes: usize,
    /// Bounds what a message may refer to, and with it what is kept.
    pub window_bits: u8,
}

/// How one connection compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub server_bits: u8,
    /// `None`: every message to the client stands alone.
    pub server_context_bits: Option<u8>,
    /// `None`: every message of the client stands alone.
    pub client_context_bits: Option<u8>,
    says_server_bits: bool,
    says_client_bits: Option<u8>,
}

impl Agreement {
    /// The value of the response's `Sec-WebSocket-Extensions`.
    pub fn field(&self) -> String {
        let mut text = String::from("permessage-deflate");
        if self.server_context_bits.is_none() {
            text.push_str("; server_no_context_takeover");
        }
        if self.client_context_bits.is_none() {
            // Section 7.1.1.2: may be asked for without an offer.
            text.push_str("; client_no_context_takeover");
        }
        if self.says_server_bits {
            let _ = write!(text, "; server_max_window_bits={}", self.server_bits);
        }
        if let Some(bits) = self.says_client_bits {
            let _ = write!(text, "; client_max_window_bits={bits}");
        }
        text
    }
}

/// The first offer among the field values that can be accepted. Whatever is not understood is
/// declined, which leaves a connection without compression.
pub fn negotiate<'a>(
    values: impl Iterator<Item = &'a str>,
    options: &DeflateOptions,
) -> Option<Agreement> {
    values
        .flat_map(|value| divide(value, b','))
        .find_map(|extension| accept(extension, options))
}

/// One extension with its parameters.
fn accept(extension: &str, options: &DeflateOptions) -> Option<Agreement> {
    let mut parts = divide(extension, b';');
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut offer = Offer::default();
    for part in parts {
        offer.parameter(part)?;
    }
    offer.agree(options)
}

#[derive(Default)]
struct Offer {
    server_alone: bool,
    client_alone: bool,
    server_bits: Option<u8>,
    /// Whether it was there, and with which value.
    client_bits: Option<Option<u8>>,
}

impl Offer {
    /// Section 7.1: what is unknown, said twice or given a value it may not have declines the
    /// whole offer.
    fn parameter(&mut self, part: &str) -> Option<()> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquote(value.trim())?)),
            None => (part, None),
        };
        let value = value.as_deref();
        match name {
            "server_no_context_takeover" if value.is_none() => set(&mut self.server_alone),
            "client_no_context_takeover" if value.is_none() => set(&mut self.client_alone),
            "server_max_window_bits" if self.server_bits.is_none() => {
                self.server_bits = Some(window_bits(value?)?);
                Some(())
            }
            "client_max_window_bits" if self.client_bits.is_none() => {
                self.client_bits = Some(match value {
                    Some(value) => Some(window_bits(value)?),
                    None => None,
                });
                Some(())
            }
            _ => None,
        }
    }

    fn agree(&self, options: &DeflateOptions) -> Option<Agreement> {
        let server_bits = options.window_bits.min(self.server_bits.unwrap_or(u8::MAX));
        if server_bits < WINDOW_BITS_MIN {
            return None;
        }
        let asked = self
            .client_bits
            .map(|bits| bits.unwrap_or(WINDOW_BITS_MAX).min(options.window_bits));
        // Section 7.1.2.2: only a client that offers it can be held to a smaller window; of
        // another nothing is kept that would pass what is configured.
        let bounded = asked.is_some() || options.window_bits == WINDOW_BITS_MAX;
        let client_context = options.client_context && !self.client_alone && bounded;
        let client_bits = asked.unwrap_or(WINDOW_BITS_MAX);
        Some(Agreement {
            server_bits,
            server_context_bits: (options.server_context && !self.server_alone)
                .then_some(server_bits),
            client_context_bits: client_context.then_some(client_bits),
            says_server_bits: self.server_bits.is_some(),
            says_client_bits: asked.filter(|_| client_context),
        })
    }
}

fn set(flag: &mut bool) -> Option<()> {
    (!std::mem::replace(flag, true)).then_some(())
}

/// Section 7.1.2: a decimal number from 8 to 15 without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [b'8' | b'9'] | [b'1', b'0'..=b'5'] => text.parse().ok(),
        _ => None,
    }
}

/// RFC 6455 section 9.1: a quoted value is a token once it is unquoted.
fn unquote(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(Cow::Borrowed(value));
    };
    let quoted = quoted.strip_suffix('"')?;
    Some(match quoted.contains('\\') {
        true => Cow::Owned(quoted.replace('\\', "")),
        false => Cow::Borrowed(quoted),
    })
}

/// The trimmed parts between separators that are not in quotes.
fn divide(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let found = byte == separator && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && quoted && !escaped;
            found
        });
        let part = match end {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                &text[..end]
            }
            None => {
                rest = None;
                text
            }
        };
        Some(part.trim_matches([' ', '\t']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: DeflateOptions = DeflateOptions {
        client_context: false,
        server_context: false,
        min_bytes: 0,
        window_bits: 15,
    };
    const CLIENT: DeflateOptions = DeflateOptions {
        client_context: true,
        ..NONE
    };
    const BOTH: DeflateOptions = DeflateOptions {
        server_context: true,
        ..CLIENT
    };
    const SMALL: DeflateOptions = DeflateOptions {
        window_bits: 11,
        ..BOTH
    };

    fn check(offer: &str, options: &DeflateOptions, expected: Option<&str>) {
        let agreed = negotiate([offer].into_iter(), options).map(|agreed| agreed.field());
        let expected = expected.map(|rest| format!("permessage-deflate{rest}"));
        assert_eq!(agreed, expected, "{offer} under {options:?}");
    }

    #[test]
    fn each_context_setting_has_its_answer() {
        let alone = "; server_no_context_takeover; client_no_context_takeover";
        let chrome = "permessage-deflate; client_max_window_bits";
        check("permessage-deflate", &NONE, Some(alone));
        check(chrome, &NONE, Some(alone));
        check(
            "permessage-deflate",
            &CLIENT,
            Some("; server_no_context_takeover"),
        );
        let bits = "; server_no_context_takeover; client_max_window_bits=15";
        check(chrome, &CLIENT, Some(bits));
        check("permessage-deflate", &BOTH, Some(""));
        check(chrome, &BOTH, Some("; client_max_window_bits=15"));
        // A client that cannot be held to a small window keeps no context.
        check(
            "permessage-deflate",
            &SMALL,
            Some("; client_no_context_takeover"),
        );
        check(chrome, &SMALL, Some("; client_max_window_bits=11"));
    }

    #[test]
    fn what_the_client_asks_for_is_honoured() {
        let name = "permessage-deflate";
        let table = [
            (
                "; server_no_context_takeover",
                "; server_no_context_takeover",
            ),
            (
                "; client_no_context_takeover",
                "; client_no_context_takeover",
            ),
            ("; server_max_window_bits=10", "; server_max_window_bits=10"),
            (
                "; server_max_window_bits=\"10\"",
                "; server_max_window_bits=10",
            ),
            (";client_max_window_bits = 9 ", "; client_max_window_bits=9"),
            ("; client_max_window_bits=8", "; client_max_window_bits=8"),
        ];
        for (offer, answer) in table {
            check(&format!("{name}{offer}"), &BOTH, Some(answer));
        }
        check(
            "permessage-deflate; server_max_window_bits=15",
            &SMALL,
            Some("; client_no_context_takeover; server_max_window_bits=11"),
        );
    }

    #[test]
    fn an_offer_with_anything_unknown_is_declined() {
        for parameter in [
            "x",
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=",
            "server_max_window_bits=\"10",
            "client_max_window_bits=7",
            "client_max_window_bits=010",
            "client_max_window_bits; client_max_window_bits",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "",
        ] {
            check(&format!("permessage-deflate; {parameter}"), &BOTH, None);
        }
        for other in [
            "",
            ",",
            "x-webkit-deflate-frame",
            "permessage-deflat",
            "\"",
            "a=\",\"",
        ] {
            check(other, &BOTH, None);
        }
    }

    #[test]
    fn the_first_offer_that_will_do_is_taken() {
        check(
            "permessage-deflate; x=\"a,b;\\\"c\", foo, \
             Permessage-Deflate; server_max_window_bits=9, permessage-deflate",
            &BOTH,
            Some("; server_max_window_bits=9"),
        );
        let lines = ["x-other", "permessage-deflate"];
        assert!(negotiate(lines.into_iter(), &NONE).is_some());
    }
}
