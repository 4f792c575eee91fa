//! The proxies whose word about the client is taken: single addresses, networks, and the name `private`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use sessionkeep_core::invalid::Invalid;

/// What `private` stands for: where the proxies of container hosts and of Docker's own networks are.
/// Nobody on the Internet can have one of these addresses.
const PRIVATE: [&str; 7] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
];

const FORMS: &str = "write addresses or networks with commas between them, such as `10.0.0.0/8, 192.0.2.7`, or \
     `private` for all private ones";

/// The networks of proxies that are trusted to name the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads a list with commas or blanks between its entries.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let entries = text
            .split([',', ' ', '\t', '\n'])
            .filter(|entry| !entry.is_empty());
        let mut networks = Vec::new();
        for entry in entries {
            if entry.eq_ignore_ascii_case("private") {
                let private = PRIVATE.iter().map(|network| network.parse::<IpNet>());
                networks.extend(private.map(|network| network.expect("a test reads each")));
            } else {
                networks.push(network(entry)?);
            }
        }
        match networks.is_empty() {
            true => Err(Invalid::new("names no address", FORMS)),
            false => Ok(Self(networks)),
        }
    }

    /// Whether what this address says about its clients is believed.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn network(entry: &str) -> Result<IpNet, Invalid> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let Ok(network) = entry.parse::<IpNet>() else {
        return Err(Invalid::new(
            "holds something that is neither an IP address nor a network",
            FORMS,
        ));
    };
    if network.prefix_len() == 0 {
        return Err(Invalid::new(
            "trusts every address there is, so that each client could say that it is another",
            "write the addresses that the proxy connects from; the log of a refused try names them",
        ));
    }
    if network != network.trunc() {
        return Err(Invalid::new(
            "holds a network with bits beyond its prefix",
            format!("write `{}`, or the address without `/`", network.trunc()),
        ));
    }
    Ok(network)
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (nth, network) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            match network.prefix_len() == network.max_prefix_len() {
                true => write!(f, "{comma}{}", network.addr())?,
                false => write!(f, "{comma}{network}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TrustedProxies {
        TrustedProxies::parse(text).expect(text)
    }

    #[test]
    fn addresses_networks_and_private_are_read_and_shown() {
        let trusted = parse("192.0.2.7, 10.0.0.0/8 2001:db8::/32,::ffff:198.51.100.1");
        assert_eq!(
            trusted.to_string(),
            "192.0.2.7, 10.0.0.0/8, 2001:db8::/32, 198.51.100.1"
        );
        assert_eq!(parse(&trusted.to_string()), trusted);
        let holds = |trusted: &TrustedProxies, ip: &str| trusted.contain(ip.parse().expect(ip));
        for ip in [
            "192.0.2.7",
            "10.255.0.1",
            "2001:db8:1::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(holds(&trusted, ip), "{ip}");
        }
        for ip in ["192.0.2.8", "11.0.0.1", "2001:db9::1"] {
            assert!(!holds(&trusted, ip), "{ip}");
        }
        let private = parse("PRIVATE");
        for ip in ["172.18.0.1", "100.64.0.2", "fd12::1", "::1", "192.168.1.1"] {
            assert!(holds(&private, ip), "{ip}");
        }
        assert!(!holds(&private, "172.32.0.1"));
        assert_eq!(TrustedProxies::default().to_string(), "none");
        assert!(!holds(&TrustedProxies::default(), "127.0.0.1"));
    }

    #[test]
    fn what_is_no_list_of_networks_is_refused_with_the_way_to_write_it() {
        for (text, words) in [
            ("caddy", "private"),
            ("10.0.0.0/33", "10.0.0.0/8"),
            ("10.0.0.1,,proxy.example", "neither"),
            ("10.1.2.3/8", "`10.0.0.0/8`"),
            ("0.0.0.0/0", "every address"),
            ("::/0", "every address"),
            (" , ", "names no address"),
        ] {
            let invalid = TrustedProxies::parse(text).expect_err(text);
            let said = format!("{}; {}", invalid.reason, invalid.remedy);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
