//! What a listener believes of the proxies in front of it. Owns the rules that keep anybody else
//! from being believed. Invariant: whoever may speak for others is named, and names nobody in vain.

use crate::base::networks::{Network, Networks};
use crate::config::check::Checker;
use crate::config::load::RawListen;
use crate::config::problem::Step::{Index, Key};
use crate::config::url::{ListenUrl, Place};
use crate::wire::forwarded::ForwardingHeader;
use crate::wire::protocol::Protocol;

/// The entry that stands for the peers of a Unix socket.
const UNIX: &str = "unix";

/// Keys of a `[[listen]]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub trusted: Networks,
    /// Every connection begins with a PROXY header.
    pub protocol: bool,
    /// The header of a request that is believed.
    pub header: Option<ForwardingHeader>,
}

/// The table of the listener with number `index`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    index: usize,
    raw: &RawListen,
    url: &ListenUrl,
) -> Proxies {
    let at = |key| [Key("listen"), Index(index), Key(key)];
    let mut words = vec![("none", None)];
    words.extend(ForwardingHeader::ALL.map(|header| (header.name(), Some(header))));
    let key = "real_ip_header";
    let header = checker.word(&at(key), &raw.real_ip_header.to_lowercase(), &words);
    let header = header.flatten();
    if header.is_some() && url.scheme.protocol() != Protocol::Http {
        let message = format!("{}:// has no headers", url.scheme.word());
        let hint = "write proxy_protocol = true, if the proxy can send it";
        checker.problem(&at(key), message, Some(hint));
    }
    let says = match (raw.proxy_protocol, header) {
        (true, _) => Some("proxy_protocol"),
        (false, Some(_)) => Some(key),
        (false, None) => None,
    };
    let entries = &raw.trusted_proxies;
    match (says, entries.is_empty()) {
        (Some(says), true) => {
            let message = "nobody is trusted to say where clients are";
            let hint = match url.place {
                Place::Inet(_) => {
                    "add: trusted_proxies = [\"127.0.0.1\"], with your proxy's address"
                }
                Place::Unix(_) => "add: trusted_proxies = [\"unix\"]",
            };
            checker.problem(&at(says), message, Some(hint));
        }
        (None, false) => {
            let message = "trusted_proxies have no way to say where clients are";
            let hint = "add proxy_protocol = true or real_ip_header = \"x-forwarded-for\", \
                        whichever your proxy is set to send";
            checker.problem(&at("trusted_proxies"), message, Some(hint));
        }
        _ => {}
    }
    Proxies {
        trusted: check_networks(checker, index, entries, url),
        protocol: raw.proxy_protocol,
        header,
    }
}

fn check_networks(
    checker: &mut Checker<'_>,
    index: usize,
    entries: &[String],
    url: &ListenUrl,
) -> Networks {
    let at = [Key("listen"), Index(index), Key("trusted_proxies")];
    let mut networks = Vec::new();
    let (unix, inet): (Vec<&String>, Vec<&String>) = entries.iter().partition(|it| *it == UNIX);
    for entry in inet {
        match Network::parse(entry) {
            Ok(network) => networks.push(network),
            Err(message) => {
                let hint =
                    "an address or a network, such as \"10.0.0.0/8\" or \"::1\", or \"unix\"";
                checker.problem(&at, message, Some(hint));
            }
        }
    }
    match (&url.place, unix.is_empty()) {
        (Place::Unix(_), true) if !entries.is_empty() => {
            let message = "whoever reaches a Unix socket has no address";
            checker.problem(&at, message, Some("add \"unix\" to trusted_proxies"));
        }
        (Place::Inet(_), false) => {
            let message = "nobody reaches this listener through a Unix socket";
            checker.problem(&at, message, Some("leave \"unix\" out"));
        }
        _ => {}
    }
    Networks::new(networks, !unix.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    const HTTP: &str = "http://127.0.0.1:0";
    const UNIX_SOCKET: &str = "unix:///run/l.sock";

    fn check(url: &str, rest: &str) -> Result<Proxies, String> {
        let text = format!("[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n{rest}\n");
        match parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets) {
            Ok(config) => Ok(config.listen[0].proxies.clone()),
            Err(error) => Err(error.0),
        }
    }

    fn refused(url: &str, rest: &str, parts: &[&str]) {
        let error = check(url, rest).expect_err(rest);
        for part in parts {
            assert!(error.contains(part), "no {part:?} in:\n{error}");
        }
    }

    #[test]
    fn nobody_is_believed_unless_named() {
        let none = check(HTTP, "").expect("valid");
        assert!(!none.protocol && none.header.is_none());
        assert!(!none.trusted.contains(None));
        for key in ["proxy_protocol = true", "real_ip_header = \"forwarded\""] {
            refused(HTTP, key, &["f:4:", "nobody is trusted", "[\"127.0.0.1\"]"]);
            refused(
                UNIX_SOCKET,
                key,
                &["f:4:", "nobody is trusted", "[\"unix\"]"],
            );
            let both = format!("{key}\ntrusted_proxies = [\"10.0.0.0/8\"]");
            let found = check(HTTP, &both).expect("valid");
            assert!(found.trusted.contains("10.1.2.3".parse().ok()));
        }
        let alone = "trusted_proxies = [\"10.0.0.0/8\"]";
        refused(
            HTTP,
            alone,
            &["f:4:", "no way to say", "proxy_protocol = true"],
        );
    }

    #[test]
    fn what_can_never_matter_is_refused() {
        let with = |entry: &str| format!("proxy_protocol = true\ntrusted_proxies = [{entry}]");
        refused(
            HTTP,
            &with("\"10.0.0.1/8\""),
            &["f:5:", "beyond /8", "hint:"],
        );
        refused(
            HTTP,
            &with("\"::1\", \"unix\""),
            &["f:5:", "leave \"unix\" out"],
        );
        refused(UNIX_SOCKET, &with("\"::1\""), &["f:5:", "add \"unix\""]);
        let header = "real_ip_header = \"X-Forwarded-For\"\ntrusted_proxies = [\"::1\"]";
        let found = check(HTTP, header).expect("valid");
        assert_eq!(found.header, Some(ForwardingHeader::XForwardedFor));
        for scheme in ["text", "frame", "tcp"] {
            let url = format!("{scheme}://127.0.0.1:0");
            refused(
                &url,
                header,
                &["f:4:", "has no headers", "proxy_protocol = true"],
            );
            assert!(check(&url, &with("\"::1\"")).is_ok());
        }
        let word = "real_ip_header = \"x-forwarded\"\ntrusted_proxies = [\"::1\"]";
        refused(HTTP, word, &["f:4:", "not known here"]);
    }
}
