//! Whom a subscription may make us connect to: strangers choose endpoints, and could choose our own
//! network. Owns the list of push services and what names are never one. The addresses that a name
//! resolves to are judged when it is connected to (`Request::public_only`, `base/addresses`): a name
//! that is fine here may lead anywhere by then.

use std::fmt;
use std::net::IpAddr;

use crate::base::addresses::is_public;
use crate::wire::target::{Target, TargetScheme};

/// The services of the browsers there are: Chrome and those built like it, Safari, Edge on Windows,
/// Firefox.
pub const USUAL: [&str; 4] = [
    "*.googleapis.com",
    "*.push.apple.com",
    "*.notify.windows.com",
    "*.push.services.mozilla.com",
];
/// Names that lead into somebody's own network (RFC 6761, RFC 6762, RFC 8375, RFC 9476, and what
/// is found in many).
const PRIVATE: [&str; 12] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "lan",
    "home",
    "corp",
    "home.arpa",
    "onion",
    "alt",
    "test",
];
const HTTPS_PORT: u16 = 443;
/// How many services a configuration can name.
const SERVICES: usize = 256;

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPolicy {
    services: Vec<Service>,
    loopback: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// In lower case; empty for any.
    host: String,
    /// Whether all names under it are meant, instead of itself.
    is_suffix: bool,
    port: u16,
}

/// Why an origin is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    NoOrigin,
    Address,
    PrivateName,
    Port,
    Unlisted,
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Barred::NoOrigin => "the endpoint does not begin with https://HOST",
            Barred::Address => "the endpoint's host is an address instead of a name",
            Barred::PrivateName => "the endpoint's host is a name of a private network",
            Barred::Port => "the endpoint's port is not the push service's",
            Barred::Unlisted => "the endpoint's host is on no list of push services",
        })
    }
}

impl Default for OriginPolicy {
    fn default() -> OriginPolicy {
        OriginPolicy::new(&USUAL).expect("all of them are services")
    }
}

impl OriginPolicy {
    /// `services`: `HOST`, `*.HOST` for all names under it, either with `:PORT` if that is not 443,
    /// or `*` for all public names on 443. What is wrong is told in a sentence.
    pub fn new(services: &[&str]) -> Result<OriginPolicy, String> {
        if services.len() > SERVICES {
            return Err(format!("there are more than {SERVICES} push services"));
        }
        let services = services.iter().map(|text| Service::parse(text));
        Ok(OriginPolicy {
            services: services.collect::<Result<_, _>>()?,
            loopback: false,
        })
    }

    /// For tests: this machine itself counts as a push service, on every port.
    pub fn with_loopback(mut self) -> OriginPolicy {
        self.loopback = true;
        self
    }

    /// Whether to connect to an origin at all; as in `Subscription`, or a whole endpoint.
    pub fn check(&self, origin: &str) -> Result<(), Barred> {
        let target = Target::parse_web(origin).map_err(|_| Barred::NoOrigin)?;
        if target.scheme() != TargetScheme::HttpTls {
            return Err(Barred::NoOrigin);
        }
        let (host, port) = (target.host().trim_end_matches('.'), target.port());
        let address: Option<IpAddr> = host.parse().ok();
        let is_near = address.is_some_and(|it| it.is_loopback()) || host == "localhost";
        if self.loopback && is_near {
            return Ok(());
        }
        if address.is_some() || is_number(host) {
            return Err(Barred::Address);
        }
        if is_private(host) {
            return Err(Barred::PrivateName);
        }
        let mut meant = self.services.iter().filter(|it| it.covers(host)).peekable();
        if meant.peek().is_none() {
            return Err(Barred::Unlisted);
        }
        match meant.any(|it| it.port == port) {
            true => Ok(()),
            false => Err(Barred::Port),
        }
    }

    /// Whether to connect to an address that the origin's name was resolved to.
    pub fn may_connect(&self, address: IpAddr) -> bool {
        is_public(address) || (self.loopback && address.to_canonical().is_loopback())
    }
}

impl Service {
    fn parse(text: &str) -> Result<Service, String> {
        let wrong = |why: &str| format!("{text:?} is no push service: {why}");
        if text == "*" {
            return Ok(Service {
                host: String::new(),
                is_suffix: true,
                port: HTTPS_PORT,
            });
        }
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let target = Target::parse_web(&format!("https://{name}"));
        let target = target.map_err(|_| wrong("write HOST, *.HOST, either with :PORT, or *"))?;
        let host = target.host().trim_end_matches('.').to_string();
        if target.path_and_query() != "/" || name.ends_with('/') {
            return Err(wrong("it has no path"));
        }
        if host.parse::<IpAddr>().is_ok() || is_number(&host) {
            return Err(wrong("an address may be anybody's"));
        }
        if is_private(&host) {
            return Err(wrong("the name is one of a private network"));
        }
        Ok(Service {
            host,
            is_suffix,
            port: target.port(),
        })
    }

    fn covers(&self, host: &str) -> bool {
        match (self.is_suffix, self.host.as_str()) {
            (_, "") => true,
            (false, own) => host == own,
            (true, own) => host
                .strip_suffix(own)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

/// What a resolver may read as an IPv4 address, in whatever spelling: the last label begins with a
/// digit, as that of no public name does.
fn is_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    last.starts_with(|it: char| it.is_ascii_digit())
}

/// A single label is looked up in the machine's own search domains.
fn is_private(host: &str) -> bool {
    let is_under = |name: &str| {
        host.strip_suffix(name)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !host.contains('.') || PRIVATE.iter().any(|name| is_under(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::rows;

    fn check(policy: &OriginPolicy, table: &str) {
        for row in rows(table) {
            let told = match policy.check(row[0]) {
                Ok(()) => "fine".to_string(),
                Err(why) => format!("{why:?}"),
            };
            assert_eq!(told, row[1], "{row:?}");
        }
    }

    #[test]
    fn the_browsers_own_services_are_known() {
        check(
            &OriginPolicy::default(),
            "
            | https://fcm.googleapis.com | fine |
            | https://FCM.googleapis.com./fcm/send/x | fine |
            | https://web.push.apple.com | fine |
            | https://wns2-by3p.notify.windows.com | fine |
            | https://updates.push.services.mozilla.com | fine |
            | https://fcm.googleapis.com:443 | fine |
            | https://fcm.googleapis.com:8443 | Port |
            | https://fcm.googleapis.com:22 | Port |
            | http://fcm.googleapis.com | NoOrigin |
            | https://user@fcm.googleapis.com | NoOrigin |
            | fcm.googleapis.com | NoOrigin |
            | https://googleapis.com | Unlisted |
            | https://evilgoogleapis.com | Unlisted |
            | https://fcm.googleapis.com.evil.example | Unlisted |
            | https://push.example | Unlisted |
            ",
        );
    }

    #[test]
    fn addresses_and_private_names_are_barred_even_where_all_are_welcome() {
        let all = OriginPolicy::new(&["*"]).expect("a list");
        check(
            &all,
            "
            | https://push.example | fine |
            | https://push.example:8443 | Port |
            | https://127.0.0.1 | Address |
            | https://8.8.8.8 | Address |
            | https://[::1] | Address |
            | https://[2606:4700::1111] | Address |
            | https://0x7f000001 | Address |
            | https://a.0x7f | Address |
            | https://2130706433 | NoOrigin |
            | https://127.1 | NoOrigin |
            | https://localhost | PrivateName |
            | https://localhost.:443 | PrivateName |
            | https://a.localhost | PrivateName |
            | https://metadata.google.internal | PrivateName |
            | https://printer.local | PrivateName |
            | https://nas.home.arpa | PrivateName |
            | https://redis | PrivateName |
            | https://notlocal.example | fine |
            ",
        );
    }

    #[test]
    fn a_configured_list_takes_the_place_of_the_usual_one() {
        let own = OriginPolicy::new(&["push.example", "*.UP.example:8443"]).expect("a list");
        check(
            &own,
            "
            | https://push.example | fine |
            | https://a.push.example | Unlisted |
            | https://a.up.example:8443 | fine |
            | https://a.b.up.example:8443 | fine |
            | https://up.example:8443 | Unlisted |
            | https://a.up.example | Port |
            | https://fcm.googleapis.com | Unlisted |
            ",
        );
        assert_eq!(
            OriginPolicy::new(&[])
                .expect("a list")
                .check("https://a.example"),
            Err(Barred::Unlisted)
        );
    }

    #[test]
    fn a_list_that_would_open_a_private_network_is_refused() {
        for (text, why) in [
            ("https://push.example", "write HOST"),
            ("push.example/a", "no path"),
            ("push.example:0", "write HOST"),
            ("push.example:x", "write HOST"),
            ("10.0.0.1", "address"),
            ("*.1", "write HOST"),
            ("localhost", "private"),
            ("*.internal", "private"),
            ("", "write HOST"),
            ("*.", "write HOST"),
            ("*.*", "write HOST"),
        ] {
            let error = OriginPolicy::new(&[text]).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
        assert!(OriginPolicy::new(&["a.example"; 257]).is_err());
    }

    #[test]
    fn this_machine_is_a_push_service_in_tests_alone() {
        let near = [
            "https://127.0.0.1:81",
            "https://[::1]:81",
            "https://localhost:81",
        ];
        let (usual, open) = (
            OriginPolicy::default(),
            OriginPolicy::default().with_loopback(),
        );
        for origin in near {
            assert!(usual.check(origin).is_err() && open.check(origin).is_ok());
        }
        assert_eq!(open.check("https://10.0.0.1"), Err(Barred::Address));
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let address = address(text);
            assert!(!usual.may_connect(address) && open.may_connect(address));
        }
        assert!(usual.may_connect(address("8.8.8.8")));
        assert!(!open.may_connect(address("10.0.0.1")));
    }
}
