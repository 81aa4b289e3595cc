//! Where an outgoing connection leads: a URL and what is asked for beside it. Owns what is explained
//! when one of them is wrong. Resolves no name and opens nothing. Invariant: a `Target` that exists
//! can be written into a request head without changing what that head means.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use crate::wire::protocol::Protocol;

/// What the URL of a target may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetScheme {
    /// Bytes as they come.
    Tcp,
    /// The same over TLS.
    Tls,
    /// The same through a socket in the file system.
    Unix,
    WebSocket,
    /// `WebSocket` over TLS.
    WebSocketTls,
    Text,
    Frame,
    /// Requests and answers; not in `ALL`, since a service that connects has nobody to ask them.
    Http,
    /// `Http` over TLS.
    HttpTls,
}

impl TargetScheme {
    pub const ALL: [TargetScheme; 7] = [
        TargetScheme::Tcp,
        TargetScheme::Tls,
        TargetScheme::Unix,
        TargetScheme::WebSocket,
        TargetScheme::WebSocketTls,
        TargetScheme::Text,
        TargetScheme::Frame,
    ];

    pub fn word(self) -> &'static str {
        match self {
            TargetScheme::Tcp => "tcp",
            TargetScheme::Tls => "tls",
            TargetScheme::Unix => "unix",
            TargetScheme::WebSocket => "ws",
            TargetScheme::WebSocketTls => "wss",
            TargetScheme::Text => "text",
            TargetScheme::Frame => "frame",
            TargetScheme::Http => "http",
            TargetScheme::HttpTls => "https",
        }
    }

    /// What such a connection is called in a list, where its direction has to be seen.
    pub fn client_word(self) -> &'static str {
        match self {
            TargetScheme::Tcp => "tcp-client",
            TargetScheme::Tls => "tls-client",
            TargetScheme::Unix => "unix-client",
            TargetScheme::WebSocket => "ws-client",
            TargetScheme::WebSocketTls => "wss-client",
            TargetScheme::Text => "text-client",
            TargetScheme::Frame => "frame-client",
            TargetScheme::Http => "http-client",
            TargetScheme::HttpTls => "https-client",
        }
    }

    /// How messages stand in the byte stream.
    pub fn protocol(self) -> Protocol {
        match self {
            TargetScheme::Tcp | TargetScheme::Tls | TargetScheme::Unix => Protocol::Raw,
            TargetScheme::WebSocket
            | TargetScheme::WebSocketTls
            | TargetScheme::Http
            | TargetScheme::HttpTls => Protocol::Http,
            TargetScheme::Text => Protocol::Lines,
            TargetScheme::Frame => Protocol::Frames,
        }
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, TargetScheme::WebSocket | TargetScheme::WebSocketTls)
    }

    pub fn is_secured(self) -> bool {
        use TargetScheme::*;
        matches!(self, Tls | WebSocketTls | HttpTls)
    }

    fn default_port(self) -> Option<u16> {
        match self {
            TargetScheme::WebSocket | TargetScheme::Http => Some(80),
            TargetScheme::WebSocketTls | TargetScheme::HttpTls => Some(443),
            _ => None,
        }
    }
}

/// A URL is no longer.
const URL_BYTES: usize = 8 * 1024;
/// All header fields of one target together.
const FIELDS_BYTES: usize = 8 * 1024;
/// RFC 1035 section 2.3.4, written with dots.
const HOST_BYTES: usize = 253;
/// Time for a connection to stand, unless told otherwise.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Fields that the handshake itself writes or that would change how its end is found.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// See the file's head.
///
/// ```
/// use std::time::Duration;
/// use lineman::wire::target::Target;
///
/// let target = Target::parse("wss://feed.example/v1?topic=news")?
///     .with_header("Authorization", "Bearer abc")?
///     .with_subprotocol("feed.v1")?
///     .with_connect_within(Duration::from_secs(3));
/// assert_eq!((target.host(), target.port()), ("feed.example", 443));
/// assert_eq!(target.path_and_query(), "/v1?topic=news");
/// assert!(Target::parse("wss://user@feed.example/").is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    scheme: TargetScheme,
    host: String,
    port: u16,
    path_and_query: String,
    headers: Vec<(String, String)>,
    subprotocol: Option<String>,
    origin: Option<String>,
    server_name: Option<String>,
    ca_file: Option<String>,
    connect_within: Duration,
    public_only: bool,
}

impl Target {
    /// Reads `tcp://HOST:PORT`, `tls://…`, `text://…`, `frame://…`, `unix:///PATH`, `ws://HOST/PATH`
    /// or `wss://HOST/PATH`, the last two with a port if it is not 80 or 443. What is wrong is told
    /// in a sentence that may be shown to whoever wrote the URL; it quotes no user or password.
    pub fn parse(url: &str) -> Result<Target, String> {
        if url.len() > URL_BYTES {
            return Err(format!("the URL is longer than {URL_BYTES} bytes"));
        }
        let (word, rest) = url
            .split_once("://")
            .ok_or("this is not a URL: it begins with no SCHEME://")?;
        let scheme = TargetScheme::ALL
            .into_iter()
            .find(|scheme| word.eq_ignore_ascii_case(scheme.word()))
            .ok_or("the scheme is none of tcp, tls, unix, ws, wss, text, frame")?;
        if rest.contains('#') {
            return Err("a fragment (#…) is never sent; leave it out".to_string());
        }
        let (authority, path) = match scheme {
            TargetScheme::Unix => ("", rest),
            _ => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        };
        if let Some(odd) = path
            .chars()
            .find(|it| !it.is_ascii_graphic() || *it == '\\')
        {
            return Err(format!("{odd:?} has to be percent-encoded in a URL"));
        }
        if scheme == TargetScheme::Unix {
            return Target::unix(path);
        }
        Target::with_path(scheme, authority, path)
    }

    /// Reads `http://HOST/PATH` or `https://HOST/PATH`; errors as from `parse`.
    pub fn parse_web(url: &str) -> Result<Target, String> {
        let schemes = [("http", "ws"), ("https", "wss")];
        let (word, rest) = url.split_once("://").unwrap_or((url, ""));
        let scheme = schemes
            .iter()
            .find(|(own, _)| word.eq_ignore_ascii_case(own));
        let (own, like) = scheme.ok_or("the URL begins with neither https:// nor http://")?;
        let mut target = Target::parse(&format!("{like}://{rest}"))?;
        target.scheme = match *own {
            "https" => TargetScheme::HttpTls,
            _ => TargetScheme::Http,
        };
        Ok(target)
    }

    fn with_path(scheme: TargetScheme, authority: &str, path: &str) -> Result<Target, String> {
        if scheme.default_port().is_none() && !path.is_empty() {
            let word = scheme.word();
            return Err(format!("{word}:// takes HOST:PORT and no path"));
        }
        let (host, port) = read_authority(authority, scheme.default_port())?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target::new(scheme, host, port, format!("{slash}{path}")))
    }

    fn unix(path: &str) -> Result<Target, String> {
        if !path.starts_with('/') || path.ends_with('/') {
            return Err("unix:// takes the absolute path of a socket: unix:///PATH".to_string());
        }
        if path.contains('?') {
            return Err("unix:// takes no query".to_string());
        }
        let path = path.to_string();
        Ok(Target::new(TargetScheme::Unix, String::new(), 0, path))
    }

    fn new(scheme: TargetScheme, host: String, port: u16, path_and_query: String) -> Target {
        Target {
            scheme,
            host,
            port,
            path_and_query,
            headers: Vec::new(),
            subprotocol: None,
            origin: None,
            server_name: None,
            ca_file: None,
            connect_within: CONNECT_WITHIN,
            public_only: false,
        }
    }

    /// One more field in the head of a WebSocket handshake. Refused: names that are no token
    /// (RFC 9110 section 5.6.2), those of the handshake itself, values with control characters,
    /// more than 8 KiB together.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Target, String> {
        if !is_token(name) {
            return Err(format!("{name:?} is no name for a header field"));
        }
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
            return Err(format!("{name} is written by the handshake itself"));
        }
        check_value(name, value)?;
        let others = self.headers.iter();
        let others: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if others + name.len() + value.len() > FIELDS_BYTES {
            return Err(format!("the header fields exceed {FIELDS_BYTES} bytes"));
        }
        self.headers.push((name.to_string(), value.to_string()));
        Ok(self)
    }

    /// The subprotocol to be spoken (RFC 6455 section 1.9). A server that does not agree to it is
    /// not connected to.
    pub fn with_subprotocol(mut self, name: &str) -> Result<Target, String> {
        if !is_token(name) {
            return Err(format!("{name:?} is no name for a subprotocol"));
        }
        self.subprotocol = Some(name.to_string());
        Ok(self)
    }

    /// The `Origin` of a WebSocket handshake.
    pub fn with_origin(mut self, origin: &str) -> Result<Target, String> {
        check_value("Origin", origin)?;
        self.origin = Some(origin.to_string());
        Ok(self)
    }

    /// The name that the certificate has to be for, when it is not the host.
    pub fn with_server_name(mut self, name: &str) -> Result<Target, String> {
        self.server_name = Some(read_host(name)?);
        Ok(self)
    }

    /// A PEM file with the authorities that are trusted instead of the system's. The reactor itself
    /// reads it, anew for each connection, so it belongs on a local disk.
    pub fn with_ca_file(mut self, path: &str) -> Target {
        self.ca_file = Some(path.to_string());
        self
    }

    /// Time for everything until the connection stands: name, TCP, TLS, WebSocket handshake. Ten
    /// seconds unless told otherwise.
    pub fn with_connect_within(mut self, time: Duration) -> Target {
        self.connect_within = time;
        self
    }

    /// Addresses that are not of the public internet are not connected to, whatever name leads to
    /// them (`base/addresses`).
    pub fn with_public_only(mut self) -> Target {
        self.public_only = true;
        self
    }

    pub fn is_public_only(&self) -> bool {
        self.public_only
    }

    pub fn scheme(&self) -> TargetScheme {
        self.scheme
    }

    /// A name in lower case, or an address; an IPv6 address without brackets. Empty for `unix://`.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of the request; for `unix://` the path of the socket.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The name that the certificate has to be for.
    pub fn server_name(&self) -> &str {
        self.server_name.as_deref().unwrap_or(&self.host)
    }

    pub fn ca_file(&self) -> Option<&str> {
        self.ca_file.as_deref()
    }

    pub fn connect_within(&self) -> Duration {
        self.connect_within
    }

    /// `HOST:PORT`, or the path of the socket.
    pub fn place(&self) -> String {
        match self.scheme {
            TargetScheme::Unix => self.path_and_query.clone(),
            _ if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// `host[:port]` as the `Host` field has it (RFC 9110 section 7.2).
    pub fn authority(&self) -> String {
        let port = Some(self.port).filter(|port| self.scheme.default_port() != Some(*port));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        match self.host.contains(':') {
            true => format!("[{}]{port}", self.host),
            false => format!("{}{port}", self.host),
        }
    }
}

/// The place alone: query and header fields may hold secrets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.word();
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        match self.scheme {
            TargetScheme::Unix => write!(f, "{scheme}://{path}"),
            _ if self.scheme.is_websocket() => write!(f, "{scheme}://{}{path}", self.authority()),
            _ => write!(f, "{scheme}://{}", self.authority()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self}, …)")
    }
}

fn read_authority(authority: &str, default_port: Option<u16>) -> Result<(String, u16), String> {
    if authority.contains('@') {
        return Err("a user or password does not belong into a URL; send a header".to_string());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']').ok_or("the host lacks its \"]\"")?;
            let address: Ipv6Addr = address
                .parse()
                .map_err(|_| "there is no IPv6 address in the brackets")?;
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (read_host(host)?, port)
        }
    };
    let port = match (port.strip_prefix(':'), default_port) {
        (Some(digits), _) => read_port(digits)?,
        (None, _) if !port.is_empty() => {
            return Err("behind the brackets only \":PORT\" may follow".to_string());
        }
        (None, Some(port)) => port,
        (None, None) => return Err("the port is missing: HOST:PORT".to_string()),
    };
    Ok((host, port))
}

fn read_port(digits: &str) -> Result<u16, String> {
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(port) if number && port > 0 => Ok(port),
        _ => Err(format!("{digits:?} is no port; it has to be 1 to 65535")),
    }
}

/// A name in lower case, or an address.
fn read_host(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("the host is missing".to_string());
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Ok(host.to_ascii_lowercase());
    }
    // What ends in a number is an address to whoever resolves it, `127.1` for example; there are
    // too many readings of those.
    let last = host.trim_end_matches('.').rsplit('.').next();
    if last.is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("{host:?} is neither a name nor an address"));
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if !host.bytes().all(fine) || host.starts_with(['.', '-']) || host.contains("..") {
        return Err(format!(
            "{host:?} is no host name; one with other letters is written as xn--…"
        ));
    }
    if host.len() > HOST_BYTES {
        return Err(format!("the host is longer than {HOST_BYTES} bytes"));
    }
    Ok(host.to_ascii_lowercase())
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fine)
}

/// RFC 9110 section 5.5; other than ASCII nobody reads alike.
fn check_value(name: &str, value: &str) -> Result<(), String> {
    let fine = |b: u8| b == b'\t' || b == b' ' || b.is_ascii_graphic();
    match value.bytes().all(fine) && value.trim() == value {
        true => Ok(()),
        false => Err(format!(
            "the value of {name} has characters that a header field cannot carry"
        )),
    }
}

/// What a client says of itself in a TLS handshake.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// The protocols it would speak, the best first (ALPN, RFC 7301). Empty: whatever is spoken on
    /// such a target.
    pub protocols: &'static [&'static [u8]],
    /// Shown to a server that asks for one.
    pub certificate: Option<Arc<CertifiedKey>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(url: &str) -> (TargetScheme, String, u16, String) {
        let target = Target::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        let path = target.path_and_query().to_string();
        (target.scheme(), target.authority(), target.port(), path)
    }

    #[test]
    fn each_scheme_is_read_with_its_default_port() {
        use TargetScheme::*;
        let table = [
            ("tcp://a.example:7", Tcp, "a.example:7", 7, "/"),
            ("TLS://A.Example:7", Tls, "a.example:7", 7, "/"),
            ("text://10.0.0.1:7", Text, "10.0.0.1:7", 7, "/"),
            ("frame://[::1]:7", Frame, "[::1]:7", 7, "/"),
            ("ws://a", WebSocket, "a", 80, "/"),
            ("ws://a:80/b", WebSocket, "a", 80, "/b"),
            ("ws://a:443?c", WebSocket, "a:443", 443, "/?c"),
            ("wss://a/b?c", WebSocketTls, "a", 443, "/b?c"),
            (
                "wss://[2001:db8::1]/",
                WebSocketTls,
                "[2001:db8::1]",
                443,
                "/",
            ),
        ];
        for (url, scheme, authority, port, path) in table {
            let expected = (scheme, authority.to_string(), port, path.to_string());
            assert_eq!(seen(url), expected, "{url}");
        }
        let unix = Target::parse("unix:///run/x.sock").expect("a path");
        assert_eq!(unix.path_and_query(), "/run/x.sock");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        let table = [
            ("a.example:7", "SCHEME://"),
            ("http://a/", "the scheme is none of"),
            ("tcp://a", "the port is missing"),
            ("tcp://a:", "is no port"),
            ("tcp://a:0", "is no port"),
            ("tcp://a:65536", "is no port"),
            ("tcp://a:+7", "is no port"),
            ("tcp://:7", "the host is missing"),
            ("ws:///path", "the host is missing"),
            ("tcp://a:7/", "no path"),
            ("ws://me:secret@a/", "a user or password"),
            ("ws://a/#top", "fragment"),
            ("ws://a/b c", "percent-encoded"),
            ("ws://a/\r\nx", "percent-encoded"),
            ("ws://ä/", "xn--"),
            ("ws://a%41/", "is no host name"),
            ("ws://a..b/", "is no host name"),
            ("ws://127.1/", "neither a name nor an address"),
            ("ws://[::1/", "lacks its"),
            ("ws://[127.0.0.1]/", "no IPv6 address"),
            ("ws://[::1%1]/", "no IPv6 address"),
            ("ws://[::1]7/", "behind the brackets"),
            ("unix://run/x", "absolute path"),
            ("unix:///", "absolute path"),
            ("unix:///x?y", "no query"),
        ];
        for (url, words) in table {
            let why = Target::parse(url).expect_err(url);
            assert!(why.contains(words), "{url}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(Target::parse(&format!("ws://a/{}", "x".repeat(URL_BYTES))).is_err());
        assert!(Target::parse(&format!("ws://{}/", "x".repeat(HOST_BYTES + 1))).is_err());
    }

    #[test]
    fn a_header_cannot_become_two_nor_replace_one_of_the_handshake() {
        let target = Target::parse("ws://a/").expect("a URL");
        let table = [
            ("X-A", "b\r\nHost: c"),
            ("X-A", "b\0"),
            ("X-A", " b"),
            ("X-A:", "b"),
            ("", "b"),
            ("Host", "b"),
            ("UPGRADE", "b"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Transfer-Encoding", "chunked"),
        ];
        for (name, value) in table {
            let added = target.clone().with_header(name, value);
            assert!(added.is_err(), "{name}: {value}");
        }
        let long = "x".repeat(FIELDS_BYTES - 3);
        let target = target.with_header("X-A", &long).expect("just fits");
        assert!(target.clone().with_header("B", "").is_err());
        assert!(target.clone().with_subprotocol("a, b").is_err());
        assert!(target.clone().with_origin("https://a\n").is_err());
        assert!(target.with_server_name("not a name").is_err());
    }

    #[test]
    fn a_target_is_shown_without_what_may_be_secret() {
        let target = Target::parse("wss://a:8443/b?token=secret").expect("a URL");
        let target = target.with_header("Authorization", "secret").expect("fine");
        assert_eq!(target.to_string(), "wss://a:8443/b");
        assert_eq!(format!("{target:?}"), "Target(wss://a:8443/b, …)");
        let tcp = Target::parse("tcp://[::1]:5").expect("a URL");
        assert_eq!(tcp.to_string(), "tcp://[::1]:5");
    }
}
