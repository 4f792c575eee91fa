//! Who asks: the other end of the connection, or the client that a trusted proxy names.
//!
//! Of the headers that proxies write, `X-Forwarded-For` alone is read: every host and proxy sends it. A
//! proxy that writes one header passes others on as the client sent them, so that with two to choose from,
//! a client could name itself.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What only a proxy sends.
const OF_PROXIES: [HeaderName; 4] = [
    FORWARDED_FOR,
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("via"),
];

/// The address to count a request by, which `peer` has sent.
///
/// Each proxy adds whom it got the request from at the right end, so that the list is believed from there,
/// as long as the one who added an entry is trusted. The first that is not trusted is the client; what
/// stands left of it is the client's own word. Where a trusted proxy added something that is no address
/// (`unknown`), the proxy stands for its clients.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer.to_canonical();
    // Several lines are one list, in their order.
    let lines: Vec<&[u8]> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .map(|line| line.as_bytes())
        .collect();
    let mut entries = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    while trusted.contain(client) {
        let Some(named) = entries.next().and_then(entry) else {
            break;
        };
        client = named;
    }
    client
}

/// An address as proxies write it, some of them with a port.
fn entry(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .and_then(|six| six.parse::<Ipv6Addr>().ok());
    let address = match bare {
        Some(six) => six.into(),
        None => text
            .parse::<IpAddr>()
            .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// Whether a proxy has passed the request on, as far as the request tells.
pub(super) fn came_through_proxy(headers: &HeaderMap) -> bool {
    OF_PROXIES.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn trusting(text: &str) -> TrustedProxies {
        let mut settings = crate::config::defaults();
        crate::config::registry::set(&mut settings, "http.trusted_proxies", text);
        settings.http.trusted_proxies
    }

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).expect("a header's value");
            headers.append(FORWARDED_FOR, value);
        }
        headers
    }

    #[test]
    fn the_right_most_address_that_is_no_trusted_proxy_counts() {
        let trusted = trusting("10.0.0.0/8, 2001:db8::7");
        for (peer, lines, client) in [
            // Nobody is believed who is not trusted, whatever is sent.
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            // What the client itself has sent stands to the left.
            (
                "10.0.0.1",
                &["127.0.0.1, 10.0.0.5, 203.0.113.9"],
                "203.0.113.9",
            ),
            (
                "10.0.0.1",
                &["1.1.1.1,203.0.113.9 , 10.0.0.2"],
                "203.0.113.9",
            ),
            (
                "10.0.0.1",
                &["1.1.1.1", "203.0.113.9", "10.0.0.2"],
                "203.0.113.9",
            ),
            ("2001:db8::7", &["203.0.113.9:1234"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8:1::1]:80"], "2001:db8:1::1"),
            ("10.0.0.1", &["[2001:db8:1::1]"], "2001:db8:1::1"),
            ("10.0.0.1", &["2001:db8:1::1"], "2001:db8:1::1"),
            // All of them trusted: the one that is furthest away.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Not an address: the proxy that wrote it counts, and nothing to the left of it.
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, _hidden"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, ,10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9"], "10.0.0.1"),
        ] {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let found = address(ip(peer), &headers(&lines), &trusted);
            assert_eq!(found, ip(client), "{peer} {lines:?}");
        }
        let nobody = TrustedProxies::default();
        let claimed = headers(&[b"203.0.113.9"]);
        assert_eq!(address(ip("127.0.0.1"), &claimed, &nobody), ip("127.0.0.1"));
    }

    proptest! {
        /// Whatever a client sends, the address under which a trusted proxy met it is what counts.
        #[test]
        fn no_client_can_name_itself(
            sent in prop::collection::vec(prop::collection::vec(0x20u8..=0xff, 0..60), 0..4),
            met in any::<[u8; 4]>(),
        ) {
            let trusted = trusting("192.0.2.0/24");
            let met = IpAddr::from(met);
            prop_assume!(!trusted.contain(met));
            let sent: Vec<Vec<u8>> = sent
                .into_iter()
                .map(|line| line.into_iter().filter(|byte| *byte != 0x7f).collect())
                .collect();
            let mut lines: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
            // Met directly.
            prop_assert_eq!(address(met, &headers(&lines), &trusted), met);
            // Met by a proxy that adds a line, or to the last line.
            let told = met.to_string();
            lines.push(told.as_bytes());
            prop_assert_eq!(address(ip("192.0.2.1"), &headers(&lines), &trusted), met);
            let last = [sent.last().map_or(&b""[..], Vec::as_slice), b", ", told.as_bytes()].concat();
            prop_assert_eq!(address(ip("192.0.2.1"), &headers(&[&last]), &trusted), met);
        }
    }
}
