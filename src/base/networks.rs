//! Networks of addresses, as configurations name them. Values only: what somebody from such a
//! network may do is decided elsewhere. IPv4 addresses written as IPv6 count as IPv4.

use std::net::IpAddr;
use std::sync::Arc;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`; the error says in a few words what is wrong.
    pub fn parse(text: &str) -> Result<Network, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("\"{text}\" is no address and no network"))?;
        if address.to_canonical() != address {
            return Err(format!("\"{text}\" is an IPv4 address written as IPv6"));
        }
        let width = width(address);
        let bits = match bits {
            None => width,
            Some(bits) => {
                let plain = bits.bytes().all(|b| b.is_ascii_digit());
                let bits = bits.parse().ok().filter(|bits| plain && *bits <= width);
                bits.ok_or_else(|| format!("\"{text}\" must end with /0 to /{width}"))?
            }
        };
        // Bits beyond are a typing error, and nobody knows of which part.
        match number(address) & mask(width, bits) == number(address) {
            true => Ok(Network { address, bits }),
            false => Err(format!("\"{text}\" has bits set beyond /{bits}")),
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let mask = mask(width(self.address), self.bits);
        self.address.is_ipv4() == ip.is_ipv4() && number(self.address) & mask == number(ip) & mask
    }
}

/// In bits.
fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// All but the last `width - bits` bits.
fn mask(width: u8, bits: u8) -> u128 {
    u128::MAX.checked_shl((width - bits).into()).unwrap_or(0)
}

/// Some networks, and perhaps whoever comes through a Unix socket. Copies share the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    list: Arc<[Network]>,
    unix: bool,
}

impl Networks {
    pub fn new(list: Vec<Network>, unix: bool) -> Networks {
        let list = list.into();
        Networks { list, unix }
    }

    /// `None`: the peer of a Unix socket, which has no address.
    pub fn contains(&self, ip: Option<IpAddr>) -> bool {
        match ip {
            None => self.unix,
            Some(ip) => self.list.iter().any(|network| network.contains(ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_with_its_bits() {
        for (network, within, beyond) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("203.0.113.9", "203.0.113.9", "203.0.113.8"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "1.2.3.4"),
            ("::1", "::1", "127.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
        ] {
            let found = Network::parse(network).expect(network);
            assert!(found.contains(ip(within)), "{within} in {network}");
            assert!(!found.contains(ip(beyond)), "{beyond} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "no address"),
            ("example.org", "no address"),
            ("10.0.0/8", "no address"),
            ("10.0.0.0/33", "/0 to /32"),
            ("::/129", "/0 to /128"),
            ("10.0.0.0/+8", "/0 to /32"),
            ("10.0.0.0/", "/0 to /32"),
            ("10.0.0.1/8", "bits set beyond /8"),
            ("0.0.0.1/0", "bits set beyond /0"),
            ("::1/0", "bits set beyond /0"),
            ("::ffff:10.0.0.0/104", "written as IPv6"),
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_peer_of_a_unix_socket_is_named_apart() {
        let list = vec![Network::parse("0.0.0.0/0").unwrap()];
        assert!(!Networks::new(list.clone(), false).contains(None));
        assert!(Networks::new(list, true).contains(None));
        let unix_only = Networks::new(Vec::new(), true);
        assert!(!unix_only.contains(Some(ip("127.0.0.1"))));
    }
}
