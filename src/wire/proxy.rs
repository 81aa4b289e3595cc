//! The PROXY protocol, versions 1 and 2: what a proxy says before the first byte of a client, by
//! HAProxy's proxy-protocol.txt. Does not know who may say it. Total: every input is a header, the
//! beginning of one, or refused. What is asked for never reaches beyond the header's end, so that
//! the bytes after it can be left to whom they are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A longer header of version 2 is refused; the addresses take 36 bytes, the rest is what proxies
/// add for each other.
pub const BYTES_MAX: usize = 4096;
/// Version 1, section 2.1: the longest line, with its CRLF.
const LINE_BYTES_MAX: usize = 107;
/// `PROXY UNKNOWN` and CRLF; version 2 is longer by one.
const BYTES_MIN: usize = 15;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD_BYTES: usize = 16;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, which has at least so many bytes more.
    Partial(usize),
    Whole {
        /// How long the header is.
        bytes: usize,
        /// The client's address. `None` when the proxy speaks for itself or does not know it: then
        /// the connection's own counts.
        source: Option<SocketAddr>,
    },
}

/// Why it is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

/// Reads the header that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refusal> {
    if begins(bytes, LINE_START) {
        return parse_line(bytes);
    }
    if begins(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    Err(Refusal("it does not begin with a PROXY header"))
}

/// As far as there are bytes.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

/// Section 2.1. The line has no length, so its end is approached in steps of what is missing at least.
fn parse_line(bytes: &[u8]) -> Result<Parsed, Refusal> {
    if bytes.len() < BYTES_MIN {
        return Ok(Parsed::Partial(BYTES_MIN - bytes.len()));
    }
    let looked_at = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = looked_at.iter().position(|&byte| byte == b'\r') else {
        // CR and LF are missing.
        return match bytes.len() + 2 <= LINE_BYTES_MAX {
            true => Ok(Parsed::Partial(2)),
            false => Err(Refusal("the line of its PROXY header is too long")),
        };
    };
    match looked_at.get(end + 1) {
        Some(b'\n') => {}
        None if end + 2 <= LINE_BYTES_MAX => return Ok(Parsed::Partial(1)),
        _ => return Err(Refusal("the line of its PROXY header does not end in CRLF")),
    }
    let refusal = Refusal("the line of its PROXY header is malformed");
    let line = std::str::from_utf8(&bytes[LINE_START.len()..end]).map_err(|_| refusal)?;
    let source = match line.split_once(' ').unwrap_or((line, "")) {
        // Whatever follows is to be ignored.
        ("UNKNOWN", _) => None,
        ("TCP4", rest) => Some(parse_endpoints::<Ipv4Addr>(rest).ok_or(refusal)?),
        ("TCP6", rest) => Some(parse_endpoints::<Ipv6Addr>(rest).ok_or(refusal)?),
        _ => return Err(refusal),
    };
    Ok(Parsed::Whole {
        bytes: end + 2,
        source,
    })
}

/// Source and destination, then the ports of both.
fn parse_endpoints<Ip: std::str::FromStr + Into<IpAddr>>(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let source: Ip = words.next()?.parse().ok()?;
    let _destination: Ip = words.next()?.parse().ok()?;
    let port = parse_port(words.next()?)?;
    let _port = parse_port(words.next()?)?;
    let ip: IpAddr = source.into();
    let whole = words.next().is_none();
    whole.then(|| SocketAddr::new(ip.to_canonical(), port))
}

/// Digits without a sign or a leading zero.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Section 2.2.
fn parse_binary(bytes: &[u8]) -> Result<Parsed, Refusal> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Ok(Parsed::Partial(HEAD_BYTES - bytes.len()));
    };
    let (version, command) = (head[12] >> 4, head[12] & 15);
    let (family, transport) = (head[13] >> 4, head[13] & 15);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 || command > 1 || family > 3 || transport > 2 {
        return Err(Refusal("its PROXY header has values that are not defined"));
    }
    if HEAD_BYTES + length > BYTES_MAX {
        return Err(Refusal("its PROXY header is too long"));
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Parsed::Partial(length - rest.len()));
    };
    let source = match (command, head[13]) {
        (0, _) => None,
        (_, 0x11) => Some(parse_block::<4>(block)),
        (_, 0x21) => Some(parse_block::<16>(block)),
        // What is valid and no TCP is taken as if nothing were known.
        _ => None,
    };
    let short = Refusal("its PROXY header is shorter than its addresses");
    let source = source.map(|source| source.ok_or(short)).transpose()?;
    Ok(Parsed::Whole {
        bytes: HEAD_BYTES + length,
        source,
    })
}

/// Two addresses of `N` bytes and two ports.
fn parse_block<const N: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (_destination, ports) = rest.split_first_chunk::<N>()?;
    let ([high, low, _, _], _) = ports.split_first_chunk::<4>()?;
    let ip = IpAddr::from(*source).to_canonical();
    Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, block].concat()
    }

    fn tcp4() -> Vec<u8> {
        [&[203, 0, 113, 9, 10, 0, 0, 1][..], &[0x10, 0xe1, 1, 187]].concat()
    }

    fn tcp6() -> Vec<u8> {
        let mut block = vec![0; 36];
        block[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        block[15] = 9;
        block[33] = 80;
        block
    }

    /// Every good header and whom it names.
    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let tlv = [tcp4(), vec![4, 0, 3, 0, 0, 0], vec![0xea, 0, 1]].concat();
        let mapped = b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4321 443\r\n";
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        let line = |text: &[u8]| text.to_vec();
        vec![
            (
                line(b"PROXY TCP4 203.0.113.9 10.0.0.1 4321 443\r\n"),
                Some("203.0.113.9:4321"),
            ),
            (
                line(b"PROXY TCP6 2001:db8::9 ::1 0 65535\r\n"),
                Some("[2001:db8::9]:0"),
            ),
            (line(mapped), Some("203.0.113.9:4321")),
            (line(b"PROXY UNKNOWN\r\n"), None),
            (longest.into_bytes(), None),
            (binary(1, 0x11, &tcp4()), Some("203.0.113.9:4321")),
            (binary(1, 0x11, &tlv), Some("203.0.113.9:4321")),
            (binary(1, 0x21, &tcp6()), Some("[2001:db8::9]:80")),
            (binary(0, 0, &[]), None),
            (binary(0, 0x11, &tcp4()), None),
            (binary(1, 0, &[1, 2, 3]), None),
            (binary(1, 0x12, &tcp4()), None),
            (binary(1, 0x31, &[0; 216]), None),
            (binary(1, 0, &[0; BYTES_MAX - HEAD_BYTES]), None),
        ]
    }

    #[test]
    fn a_header_is_the_same_under_every_cut_and_nothing_after_it_is_asked_for() {
        for (header, source) in good() {
            let whole = Ok(Parsed::Whole {
                bytes: header.len(),
                source: source.map(|text| text.parse().expect("an address")),
            });
            assert_eq!(parse(&header), whole);
            let with_more = [&header, b"\x16\x03\x01\r\n".as_slice()].concat();
            assert_eq!(parse(&with_more), whole);
            for cut in 0..header.len() {
                match parse(&header[..cut]) {
                    Ok(Parsed::Partial(missing)) => {
                        assert!(missing > 0 && cut + missing <= header.len(), "at {cut}");
                    }
                    other => panic!("{other:?} at {cut} of {header:?}"),
                }
            }
        }
    }

    #[test]
    fn whatever_else_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "\x16\x03\x01",
            "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
            "PROXY TCP4 1.1.1.1 ::1 1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rX",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\nGET\r\n",
            "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY unknown  \r\n",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        for over in [0, 1, 50] {
            let line = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92 + over));
            assert!(parse(line.as_bytes()).is_err(), "{over}");
        }
        for (command, family, block) in [
            (2, 0x11, tcp4()),
            (1, 0x11, tcp4()[1..].to_vec()),
            (1, 0x21, tcp4()),
            (1, 0x13, tcp4()),
            (1, 0x41, tcp4()),
            (1, 0, vec![0; BYTES_MAX - HEAD_BYTES + 1]),
        ] {
            let header = binary(command, family, &block);
            assert!(parse(&header).is_err(), "{command} {family}");
        }
        let mut version_1 = binary(1, 0x11, &tcp4());
        version_1[12] = 0x11;
        assert!(parse(&version_1).is_err());
    }
}
