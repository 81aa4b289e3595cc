//! The URL of a `[[listen]]` table: which protocol, and where. Owns the schemes and what is explained
//! when one is wrong. Opens nothing. Invariant: what `parse` returns and `ListenUrl` prints again
//! is the same place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::problem::nearest;
use crate::wire::protocol::Protocol;

/// What a URL may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// `Http` over TLS.
    Https,
    /// The same as `Http`: both serve HTTP and WebSocket on one port.
    WebSocket,
    Text,
    Frame,
    Tcp,
    /// `Http` through a socket in the file system.
    Unix,
}

impl Scheme {
    pub const ALL: [Scheme; 7] = [
        Scheme::Http,
        Scheme::Https,
        Scheme::WebSocket,
        Scheme::Text,
        Scheme::Frame,
        Scheme::Tcp,
        Scheme::Unix,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::WebSocket => "websocket",
            Scheme::Text => "text",
            Scheme::Frame => "frame",
            Scheme::Tcp => "tcp",
            Scheme::Unix => "unix",
        }
    }

    pub fn protocol(self) -> Protocol {
        match self {
            Scheme::Http | Scheme::Https | Scheme::WebSocket | Scheme::Unix => Protocol::Http,
            Scheme::Text => Protocol::Lines,
            Scheme::Frame => Protocol::Frames,
            Scheme::Tcp => Protocol::Raw,
        }
    }
}

/// Where clients knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Inet(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Place {
    /// Whether other machines reach it.
    pub fn is_public(&self) -> bool {
        match self {
            Place::Inet(address) => !address.ip().is_loopback(),
            Place::Unix(_) => false,
        }
    }

    /// Whether no second listener may be there. Port 0 asks for any free port, so two of them do
    /// not meet.
    pub fn is_taken_by(&self, other: &Place) -> bool {
        self == other && !matches!(self, Place::Inet(address) if address.port() == 0)
    }

    /// A relative path starts at `base`.
    pub fn under(self, base: &Path) -> Place {
        match self {
            Place::Inet(_) => self,
            Place::Unix(path) => Place::Unix(base.join(path)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    pub scheme: Scheme,
    pub place: Place,
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.word();
        match &self.place {
            Place::Inet(address) => write!(f, "{scheme}://{address}"),
            Place::Unix(path) => write!(f, "{scheme}://{}", path.display()),
        }
    }
}

const SHAPE: &str = "SCHEME://HOST:PORT with an IP address or localhost, e.g. \
                     \"http://127.0.0.1:8080\", or unix://PATH";
const UNIX_SHAPE: &str = "unix://PATH, e.g. \"unix:///run/lineman/http.sock\"; a relative path \
                          starts beside this file";

/// Reads a URL; why not, and what to write instead.
pub fn parse(url: &str) -> Result<ListenUrl, (String, String)> {
    let refuse = |message: String| (message, SHAPE.to_string());
    let Some((word, rest)) = url.split_once("://") else {
        return Err(refuse(format!("\"{url}\" is not a URL")));
    };
    let same = if word == "wss" { "https" } else { word };
    let Some(scheme) = Scheme::ALL.into_iter().find(|it| it.word() == same) else {
        let message = format!("{word}:// cannot be listened on");
        return Err((message, other_scheme(word)));
    };
    if scheme == Scheme::Unix {
        if rest.is_empty() || rest.ends_with('/') || rest.contains('\0') {
            let message = format!("\"{url}\" names no socket file");
            return Err((message, UNIX_SHAPE.to_string()));
        }
        let place = Place::Unix(PathBuf::from(rest));
        return Ok(ListenUrl { scheme, place });
    }
    let place = Place::Inet(parse_address(url, rest).map_err(refuse)?);
    Ok(ListenUrl { scheme, place })
}

/// What whoever wrote an unknown scheme may have meant.
fn other_scheme(word: &str) -> String {
    let words = Scheme::ALL.map(Scheme::word);
    match (word, nearest(word, &words)) {
        ("ws", _) => "write http:// or websocket://: both serve HTTP and WebSocket".into(),
        (_, Some(near)) => format!("did you mean {near}://?"),
        (_, None) => format!(
            "one of: {}",
            words.map(|word| format!("{word}://")).join(", ")
        ),
    }
}

fn parse_address(url: &str, rest: &str) -> Result<SocketAddr, String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
        .ok_or_else(|| format!("\"{url}\" has no port"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("\"{port}\" is not a port number"))?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None if host == "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    let ip = ip.ok_or_else(|| format!("\"{host}\" is not an IP address"))?;
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed again, or the message and hint in one.
    fn shown(url: &str) -> String {
        match parse(url) {
            Ok(url) => url.to_string(),
            Err((message, hint)) => format!("{message}; {hint}"),
        }
    }

    #[test]
    fn every_scheme_is_read_and_printed_again() {
        for url in [
            "http://127.0.0.1:0",
            "http://[::1]:9",
            "https://[::1]:9",
            "websocket://0.0.0.0:1",
            "text://[::]:65535",
            "frame://127.0.0.1:7001",
            "tcp://127.0.0.1:7002",
            "unix:///run/lineman/http.sock",
            "unix://beside.sock",
        ] {
            assert_eq!(shown(url), url);
        }
        assert_eq!(shown("http://localhost:80/"), "http://127.0.0.1:80");
        assert_eq!(shown("wss://localhost:80"), "https://127.0.0.1:80");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (url, part) in [
            ("127.0.0.1:80", "not a URL"),
            ("http://127.0.0.1", "no port"),
            ("text://[::1]", "no port"),
            ("frame://example.org:80", "not an IP address"),
            ("http://127.0.0.1:99999", "not a port number"),
            ("http://127.0.0.1:80/path", "not a port number"),
            ("ws://127.0.0.1:80", "websocket://"),
            ("txt://127.0.0.1:80", "did you mean text://?"),
            ("udp://127.0.0.1:80", "cannot be listened on"),
            ("unix://", "names no socket file"),
            ("unix:///run/", "names no socket file"),
        ] {
            assert!(shown(url).contains(part), "{}", shown(url));
        }
    }

    #[test]
    fn places_meet_unless_the_port_is_free_to_choose() {
        let meets = |one: &str, other: &str| {
            let place = |url| parse(url).expect("valid").place;
            place(one).is_taken_by(&place(other))
        };
        assert!(meets("http://127.0.0.1:80", "text://127.0.0.1:80"));
        assert!(meets("unix://a", "unix://a"));
        assert!(!meets("http://127.0.0.1:0", "http://127.0.0.1:0"));
        assert!(!meets("unix://a", "unix://b"));
    }
}
