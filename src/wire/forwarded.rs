//! What proxies say in a request about whom it came from: `X-Forwarded-For`, and `Forwarded` of
//! RFC 7239. Each proxy adds to the end, so only the end can be believed, and only as far as those
//! are trusted who wrote it. Does not know who sent the request: whether its peer may say anything
//! at all is asked before. Total: what cannot be read tells nothing.

use std::net::{IpAddr, SocketAddr};

use crate::base::networks::Networks;
use crate::wire::http::Request;

/// The one header that is believed: a proxy passes on the other as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingHeader {
    XForwardedFor,
    Forwarded,
}

impl ForwardingHeader {
    pub const ALL: [ForwardingHeader; 2] =
        [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded];

    /// In lower case, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            ForwardingHeader::XForwardedFor => "x-forwarded-for",
            ForwardingHeader::Forwarded => "forwarded",
        }
    }

    /// The address from which the first of the `trusted` proxies had the request: the rightmost
    /// that is not trusted itself, or the leftmost when all are. Port 0: none was told. `None`
    /// when nothing is said, or what is said cannot be read where it matters.
    pub fn client(self, request: &Request<'_>, trusted: &Networks) -> Option<SocketAddr> {
        let fields: Vec<&[u8]> = request.raw_headers(self.name()).collect();
        let mut farthest = None;
        for field in fields.into_iter().rev() {
            let hops = match self {
                ForwardingHeader::XForwardedFor => x_forwarded_for(field),
                ForwardingHeader::Forwarded => forwarded(field).unwrap_or_else(|| vec![None]),
            };
            for hop in hops.into_iter().rev() {
                let address = hop?;
                if !trusted.contains(Some(address.ip())) {
                    return Some(address);
                }
                farthest = Some(address);
            }
        }
        farthest
    }
}

/// Addresses with commas between; `None` for each that is none. There is no standard: IPv6 comes
/// with and without brackets, and some add the port.
fn x_forwarded_for(field: &[u8]) -> Vec<Option<SocketAddr>> {
    let items = field.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let items = items.filter(|item| !item.is_empty());
    let hops = items.map(|item| {
        let text = std::str::from_utf8(item).ok()?;
        let bare = text.parse().ok().map(|ip| (ip, 0));
        bare.or_else(|| parse_node(text)).map(canonical)
    });
    hops.collect()
}

/// RFC 7239 section 4: the `for` of each element, `None` for one without. `None` when the field
/// breaks the grammar anywhere: then it is unknown where its elements begin.
fn forwarded(field: &[u8]) -> Option<Vec<Option<SocketAddr>>> {
    let mut hops = Vec::new();
    let mut rest = field;
    loop {
        let mut found: Option<String> = None;
        let mut pairs = 0;
        rest = rest.trim_ascii_start();
        // Pairs with semicolons between, any of which may be missing.
        loop {
            if !matches!(rest.first(), None | Some(b';' | b',')) {
                let (name, value) = take_pair(&mut rest)?;
                pairs += 1;
                // Section 4: each parameter occurs once.
                if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                    return None;
                }
            }
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                Some((b';', after)) => rest = after.trim_ascii_start(),
                _ => break,
            }
        }
        // RFC 9110 section 5.6.1: empty elements of a list do not count.
        if pairs > 0 {
            let node = found.and_then(|node| parse_node(&node));
            hops.push(node.map(canonical));
        }
        match rest.split_first() {
            None => return Some(hops),
            Some((b',', after)) => rest = after,
            Some(_) => return None,
        }
    }
}

/// `token "=" ( token / quoted-string )`
fn take_pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], String)> {
    let name = take_token(rest)?;
    *rest = rest.strip_prefix(b"=")?;
    let value = match rest.strip_prefix(b"\"") {
        None => take_token(rest)?.to_vec(),
        Some(quoted) => {
            *rest = quoted;
            take_quoted(rest)?
        }
    };
    Some((name, String::from_utf8(value).ok()?))
}

/// RFC 9110 section 5.6.2.
fn take_token<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = rest.iter().take_while(|byte| is_token(byte)).count();
    let (token, after) = rest.split_at(length);
    *rest = after;
    (length > 0).then_some(token)
}

/// RFC 9110 section 5.6.4, after the first quotation mark.
fn take_quoted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        match byte {
            b'"' => return Some(text),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                *rest = after;
                text.push(escaped);
            }
            _ => text.push(byte),
        }
    }
}

/// RFC 7239 section 6: an IPv4 address or an IPv6 address in brackets, with or without a port. What
/// hides its address (`unknown`, `_hidden`) has none.
fn parse_node(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port): (IpAddr, _) = match text.strip_prefix('[') {
        Some(text) => {
            let (ip, after) = text.split_once(']')?;
            (IpAddr::V6(ip.parse().ok()?), after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (IpAddr::V4(text[..end].parse().ok()?), &text[end..])
        }
    };
    if port.is_empty() {
        return Some((ip, 0));
    }
    let port = port.strip_prefix(':')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix('_') {
        // Section 6.3: it may be hidden.
        Some(hidden) => (!hidden.is_empty() && hidden.bytes().all(plain)).then_some((ip, 0)),
        None if port.bytes().all(|byte| byte.is_ascii_digit()) => Some((ip, port.parse().ok()?)),
        None => None,
    }
}

fn canonical((ip, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::networks::Network;

    fn trusted() -> Networks {
        let list = ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).expect("a network"));
        Networks::new(list.to_vec(), false)
    }

    /// What the lines tell, as text; empty for nothing.
    fn client(header: ForwardingHeader, lines: &[&[u8]]) -> String {
        let mut text = b"Host: x\r\n".to_vec();
        for line in lines {
            text.extend_from_slice(header.name().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(line);
            text.extend_from_slice(b"\r\n");
        }
        let request = Request {
            method: "GET",
            target: "/",
            body: b"",
            lines: &text,
            websocket: false,
        };
        let client = header.client(&request, &trusted());
        client.map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_rightmost_that_is_not_trusted_counts() {
        let table: [(&[&[u8]], &str); 16] = [
            (&[], ""),
            (&[b""], ""),
            (&[b"203.0.113.9"], "203.0.113.9:0"),
            (&[b"203.0.113.9:4321"], "203.0.113.9:4321"),
            (&[b"2001:db8::9"], "[2001:db8::9]:0"),
            (&[b"[2001:db8::9]"], "[2001:db8::9]:0"),
            (&[b"[2001:db8::9]:80"], "[2001:db8::9]:80"),
            (&[b"::ffff:203.0.113.9"], "203.0.113.9:0"),
            // What a client made up stands further to the left.
            (&[b"1.1.1.1, 203.0.113.9"], "203.0.113.9:0"),
            (&[b"1.1.1.1", b"203.0.113.9"], "203.0.113.9:0"),
            (&[b"1.1.1.1", b"203.0.113.9, 10.1.1.1,::1"], "203.0.113.9:0"),
            (
                &[b"\xff nonsense", b"203.0.113.9 , 10.1.1.1"],
                "203.0.113.9:0",
            ),
            // Where it matters, nonsense leaves it untold.
            (&[b"1.1.1.1, nonsense"], ""),
            (&[b"1.1.1.1", b"\xff"], ""),
            (&[b"1.1.1.1, unknown, 10.1.1.1"], ""),
            (&[b"10.9.9.9, , 10.1.1.1"], "10.9.9.9:0"),
        ];
        for (lines, expected) in table {
            let found = client(ForwardingHeader::XForwardedFor, lines);
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_by_its_grammar_or_not_at_all() {
        let table: [(&[&[u8]], &str); 26] = [
            (&[b"for=203.0.113.9"], "203.0.113.9:0"),
            (&[b"For=\"203.0.113.9:4321\""], "203.0.113.9:4321"),
            (&[b"for=\"[2001:db8::9]:80\""], "[2001:db8::9]:80"),
            (&[b"for=\"[2001:db8::9]:_p-1\""], "[2001:db8::9]:0"),
            (&[b"for=\"203.0.113\\.9\""], "203.0.113.9:0"),
            (&[b"proto=https;for=203.0.113.9;by=_me"], "203.0.113.9:0"),
            (&[b";proto=https; ;for=203.0.113.9;"], "203.0.113.9:0"),
            (
                &[b"for=1.1.1.1, for=203.0.113.9 ,for=10.1.1.1"],
                "203.0.113.9:0",
            ),
            (&[b"for=1.1.1.1", b"for=203.0.113.9,,"], "203.0.113.9:0"),
            (&[b"for=10.2.2.2, for=10.1.1.1"], "10.2.2.2:0"),
            // A comma within a value ends no element.
            (&[b"by=\", for=1.1.1.1\";for=203.0.113.9"], "203.0.113.9:0"),
            (&[b"for=\"", b"for=203.0.113.9"], "203.0.113.9:0"),
            (&[b"for=_hidden, for=10.1.1.1"], ""),
            (&[b"for=unknown"], ""),
            (&[b"for=1.1.1.1, proto=https"], ""),
            (&[b"for=1.1.1.1;for=203.0.113.9"], ""),
            (&[b"for=\", for=203.0.113.9"], ""),
            (&[b"for=\"1.1.1.1, for=\"203.0.113.9\""], ""),
            (&[b"for=2001:db8::9"], ""),
            (&[b"for=\"2001:db8::9\""], ""),
            (&[b"for= 203.0.113.9"], ""),
            (&[b"for=203.0.113.9 x"], ""),
            (&[b"=203.0.113.9"], ""),
            (&[b"for=\"203.0.113.9:65536\""], ""),
            (&[b"for=\"203.0.113.9:\""], ""),
            (&[b"for=\"203.0.113.9\\"], ""),
        ];
        for (lines, expected) in table {
            let found = client(ForwardingHeader::Forwarded, lines);
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
