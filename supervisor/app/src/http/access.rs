//! Who may see what is not for all: whoever presents the token or the password; and where neither is
//! set, whoever asks from this machine.
//!
//! - What is presented is compared by hash, so that the time it takes tells nothing about the secret, and
//!   costs next to nothing, however much is presented.
//! - The right one is let in, whatever anybody has tried before: who presents wrong ones cannot lock out who
//!   has the right one. Wrong ones are counted by client, and refused with a time to wait when they are many
//!   ([0030](../../../docs/decisions/0030-right-ones-are-let-in.md)).
//! - Without a secret, a page elsewhere could have the visitor's browser ask here under a name of its
//!   own (DNS rebinding): the `Host` must be this machine's. So could a proxy on this machine pass on what
//!   others ask: what a proxy passes on is not let in.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing::warn;

use super::tries::Tries;
use super::{Site, client};
use crate::config::{HttpSettings, TrustedProxies};
use crate::status::Shared;

#[derive(Debug)]
pub(super) struct Access {
    token: Option<blake3::Hash>,
    /// Of `user:password`.
    password: Option<blake3::Hash>,
    trusted: TrustedProxies,
    tries: Mutex<Tries>,
    /// Whether it was said that a proxy stands for all of its clients.
    proxy_was_told: AtomicBool,
    shared: Shared,
}

/// What a request is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessVerdict {
    Welcome,
    Unknown,
    Wrong,
    TooMany(Duration),
    NotFromHere,
}

impl Access {
    pub(super) fn new(settings: &HttpSettings, shared: Shared) -> Self {
        let password = settings.password.as_ref();
        let pair = password.map(|password| format!("{}:{}", settings.username, password.expose()));
        Self {
            token: settings
                .token
                .as_ref()
                .map(|token| blake3::hash(token.expose().as_bytes())),
            password: pair.map(|pair| blake3::hash(pair.as_bytes())),
            trusted: settings.trusted_proxies.clone(),
            tries: Mutex::default(),
            proxy_was_told: AtomicBool::new(false),
            shared,
        }
    }

    /// What to tell a request that came from `peer`, who may be a proxy.
    fn judge(&self, headers: &HeaderMap, peer: IpAddr, now: Instant) -> AccessVerdict {
        let peer = peer.to_canonical();
        if self.token.is_none() && self.password.is_none() {
            let is_here = peer.is_loopback()
                && names_this_machine(headers)
                && !client::came_through_proxy(headers);
            return match is_here {
                true => AccessVerdict::Welcome,
                false => AccessVerdict::NotFromHere,
            };
        }
        let Some(presented) = headers.get(header::AUTHORIZATION) else {
            return AccessVerdict::Unknown;
        };
        // Nothing is forgiven to the client for it: who guesses may share an address with who knows.
        if self.is_right(presented) {
            return AccessVerdict::Welcome;
        }
        self.shared.meters().refused.inc();
        let client = client::address(peer, headers, &self.trusted);
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = tries.count(client, now);
        drop(tries);
        match counted {
            Ok(()) => AccessVerdict::Wrong,
            Err(wait) => {
                self.tell_of_proxy(headers, peer, client);
                AccessVerdict::TooMany(wait)
            }
        }
    }

    /// Says once that wrong tries count together because the proxy is not known.
    fn tell_of_proxy(&self, headers: &HeaderMap, peer: IpAddr, client: IpAddr) {
        let stands_for_others =
            client == peer && !self.trusted.contain(peer) && client::came_through_proxy(headers);
        if stands_for_others && !self.proxy_was_told.swap(true, Ordering::Relaxed) {
            warn!(target: "http", %peer, "wrong tokens or passwords of different clients may count together: they came through a proxy that http.trusted_proxies does not name; add it if it is yours");
        }
    }

    /// `Bearer TOKEN`; or `Basic` with the user and the password, or with the token as password of
    /// whatever user, for browsers.
    fn is_right(&self, presented: &HeaderValue) -> bool {
        let bytes = presented.as_bytes();
        let after = |scheme: &str| {
            let (head, rest) = bytes.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
        };
        if let Some(token) = after("Bearer ") {
            return self.token == Some(blake3::hash(token));
        }
        let Some(pair) = after("Basic ").and_then(|pair| STANDARD.decode(pair).ok()) else {
            return false;
        };
        let of_pair = self.password == Some(blake3::hash(&pair));
        let given = pair
            .iter()
            .position(|byte| *byte == b':')
            .map(|at| &pair[at + 1..]);
        let of_token = self.token.is_some() && given.map(blake3::hash) == self.token;
        // Both are always computed.
        of_pair | of_token
    }
}

/// Whether the request was meant for this machine by one of its own names.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Lets through who may pass.
pub(super) async fn guard(
    State(site): State<Site>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let access = &site.0.access;
    let verdict = access.judge(request.headers(), from.ip(), Instant::now());
    match verdict {
        AccessVerdict::Welcome => next.run(request).await,
        AccessVerdict::Unknown | AccessVerdict::Wrong => {
            let words = "present the token (Authorization: Bearer ADMIN_TOKEN), or the user and the password of the dashboard\n";
            let asks = "Basic realm=\"sessionkeep\", charset=\"UTF-8\"";
            (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, asks)],
                words,
            )
                .into_response()
        }
        AccessVerdict::TooMany(wait) => {
            let words = "too many wrong tokens or passwords from this address; the right one is let in at any time\n";
            let seconds = wait.as_secs().max(1).to_string();
            (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, seconds)],
                words,
            )
                .into_response()
        }
        AccessVerdict::NotFromHere => {
            let words = "only this machine itself may see this, because neither ADMIN_TOKEN nor WAHA_DASHBOARD_PASSWORD is set; set one, and restart\n";
            (StatusCode::FORBIDDEN, words).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tries::TRIES;
    use super::*;
    use crate::status::tests::shared;
    use sessionkeep_core::secret::Secret;
    use std::net::Ipv4Addr;

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn access(token: Option<&str>, password: Option<&str>) -> Access {
        let settings = HttpSettings {
            token: token.map(Secret::new),
            username: "me".into(),
            password: password.map(Secret::new),
            ..crate::config::defaults().http
        };
        Access::new(&settings, shared())
    }

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header"))])
    }

    fn presenting(text: &str) -> HeaderMap {
        with(header::AUTHORIZATION, text)
    }

    fn basic(pair: &str) -> HeaderMap {
        presenting(&format!("Basic {}", STANDARD.encode(pair)))
    }

    #[test]
    fn token_and_password_each_open_and_nothing_else_does() {
        let both = access(Some("t"), Some("p"));
        let judge =
            |access: &Access, headers: &HeaderMap| access.judge(headers, THERE, Instant::now());
        for right in [
            presenting("Bearer t"),
            presenting("bearer t"),
            basic("me:p"),
            basic("any:t"),
        ] {
            assert_eq!(judge(&both, &right), AccessVerdict::Welcome, "{right:?}");
        }
        for wrong in [
            presenting("Bearer p"),
            presenting("Bearer "),
            presenting("t"),
            basic("you:p"),
            basic("me:"),
            basic(":t "),
            basic("t"),
            presenting("Basic !"),
            presenting("Bas"),
        ] {
            let both = access(Some("t"), Some("p"));
            assert_eq!(judge(&both, &wrong), AccessVerdict::Wrong, "{wrong:?}");
        }
        assert_eq!(judge(&both, &HeaderMap::new()), AccessVerdict::Unknown);
        assert_eq!(
            judge(&access(None, Some("p")), &presenting("Bearer p")),
            AccessVerdict::Wrong
        );
        assert_eq!(
            judge(&access(Some("t"), None), &basic("me:p")),
            AccessVerdict::Wrong
        );
    }

    #[test]
    fn who_guesses_is_slowed_down_and_the_right_one_is_let_in_all_the_same() {
        let access = access(Some("t"), Some("p"));
        let now = Instant::now();
        let judge = |headers: &HeaderMap| access.judge(headers, THERE, now);
        for n in 0..1000 {
            let verdict = judge(&presenting("Bearer x"));
            match n < TRIES {
                true => assert_eq!(verdict, AccessVerdict::Wrong, "{n}"),
                false => assert!(
                    matches!(verdict, AccessVerdict::TooMany(_)),
                    "{n}: {verdict:?}"
                ),
            }
            // From the same address, and it takes nothing off the count.
            for right in [presenting("Bearer t"), basic("me:p"), basic("any:t")] {
                assert_eq!(judge(&right), AccessVerdict::Welcome, "{n}");
            }
        }
        assert_eq!(judge(&HeaderMap::new()), AccessVerdict::Unknown);
    }

    #[test]
    fn clients_behind_a_trusted_proxy_are_counted_apart() {
        let mut access = access(Some("t"), None);
        let mut settings = crate::config::defaults();
        crate::config::registry::set(&mut settings, "http.trusted_proxies", "192.0.2.0/24");
        access.trusted = settings.http.trusted_proxies;
        let from = |client: &str, proxy: IpAddr| {
            let mut headers = presenting("Bearer x");
            headers.insert("x-forwarded-for", client.parse().expect("a header"));
            access.judge(&headers, proxy, Instant::now())
        };
        for _ in 0..TRIES {
            assert_eq!(from("203.0.113.1", THERE), AccessVerdict::Wrong);
        }
        let slowed = |verdict| matches!(verdict, AccessVerdict::TooMany(_));
        assert!(slowed(from("203.0.113.1", THERE)));
        assert!(slowed(from("10.9.8.7, 203.0.113.1", THERE)), "its own word");
        assert_eq!(from("203.0.113.2", THERE), AccessVerdict::Wrong);
        // Who is no proxy of ours is counted by its own address, whatever it says.
        let stranger = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
        for n in 0..TRIES {
            assert_eq!(
                from(&format!("203.0.113.{n}"), stranger),
                AccessVerdict::Wrong
            );
        }
        assert!(slowed(from("203.0.113.77", stranger)));
    }

    #[test]
    fn without_a_secret_only_this_machine_by_its_own_name() {
        let access = access(None, None);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let judge = |host, from| access.judge(&with(header::HOST, host), from, Instant::now());
        for host in ["localhost:3001", "127.0.0.1", "[::1]:3001"] {
            assert_eq!(judge(host, here), AccessVerdict::Welcome, "{host}");
            assert_eq!(judge(host, THERE), AccessVerdict::NotFromHere, "{host}");
        }
        for host in ["evil.example:3001", "192.0.2.7", ""] {
            assert_eq!(judge(host, here), AccessVerdict::NotFromHere, "{host}");
        }
        assert_eq!(
            access.judge(&HeaderMap::new(), here, Instant::now()),
            AccessVerdict::NotFromHere
        );
        for of_proxy in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
            let mut headers = with(header::HOST, "127.0.0.1:3001");
            headers.insert(of_proxy, HeaderValue::from_static("127.0.0.1"));
            let verdict = access.judge(&headers, here, Instant::now());
            assert_eq!(verdict, AccessVerdict::NotFromHere, "{of_proxy}");
        }
    }
}
