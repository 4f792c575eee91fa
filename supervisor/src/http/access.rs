//! Who may see what is not for all: whoever presents the token or the password; and where neither is
//! set, whoever asks from this machine.
//!
//! - What is presented is compared by hash, so that the time it takes tells nothing about the secret.
//! - Whoever presents a wrong one too often is refused without a look for a while.
//! - Without a secret, a page elsewhere could have the visitor's browser ask here under a name of its
//!   own (DNS rebinding): the `Host` must be this machine's.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Site;
use crate::config::HttpSettings;
use crate::status::Shared;

/// So many wrong tries are free, …
const TRIES: u32 = 10;
/// … and one more comes back after so long.
const TRY_EVERY: Duration = Duration::from_secs(6);
/// So many addresses are remembered; beyond that the one that has been quiet for longest is forgotten.
const ADDRESSES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Access {
    token: Option<blake3::Hash>,
    /// Of `user:password`.
    password: Option<blake3::Hash>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    shared: Shared,
}

/// A bucket that wrong tries fill and time empties.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// What a request is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
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
            failures: Mutex::default(),
            shared,
        }
    }

    fn judge(&self, headers: &HeaderMap, from: IpAddr, now: Instant) -> Verdict {
        if self.token.is_none() && self.password.is_none() {
            return match from.to_canonical().is_loopback() && names_this_machine(headers) {
                true => Verdict::Welcome,
                false => Verdict::NotFromHere,
            };
        }
        let Some(presented) = headers.get(header::AUTHORIZATION) else {
            return Verdict::Unknown;
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = failures.get(&from).and_then(|of| of.wait(now)) {
            return Verdict::TooMany(wait);
        }
        if self.is_right(presented) {
            failures.remove(&from);
            return Verdict::Welcome;
        }
        self.shared.meters().refused.inc();
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&from) {
            let quietest = failures
                .iter()
                .min_by_key(|(_, of)| of.last)
                .map(|(ip, _)| *ip);
            failures.remove(&quietest.expect("there are many"));
        }
        let of = failures.entry(from).or_insert(Failures {
            count: 0,
            last: now,
        });
        *of = Failures {
            count: of.left(now) + 1,
            last: now,
        };
        Verdict::Wrong
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

impl Failures {
    /// How many are left by now.
    fn left(self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.last);
        let forgiven = since.as_secs() / TRY_EVERY.as_secs();
        self.count
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// How long until the next try is looked at; `None` where it is now.
    fn wait(self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last);
        (self.left(now) >= TRIES).then(|| {
            let next = TRY_EVERY * (self.count + 1 - TRIES);
            next.saturating_sub(since).max(Duration::from_secs(1))
        })
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
    let verdict = access.judge(request.headers(), from.ip().to_canonical(), Instant::now());
    match verdict {
        Verdict::Welcome => next.run(request).await,
        Verdict::Unknown | Verdict::Wrong => {
            let words = "present the token (Authorization: Bearer ADMIN_TOKEN), or the user and the password of the dashboard\n";
            let asks = "Basic realm=\"sessionkeep\", charset=\"UTF-8\"";
            (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, asks)],
                words,
            )
                .into_response()
        }
        Verdict::TooMany(wait) => {
            let words = "too many wrong tries from this address; try again later\n";
            let seconds = wait.as_secs().max(1).to_string();
            (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, seconds)],
                words,
            )
                .into_response()
        }
        Verdict::NotFromHere => {
            let words = "only this machine itself may see this, because neither ADMIN_TOKEN nor WAHA_DASHBOARD_PASSWORD is set; set one, and restart\n";
            (StatusCode::FORBIDDEN, words).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::status::tests::shared;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn access(token: Option<&str>, password: Option<&str>) -> Access {
        let settings = HttpSettings {
            port: 1,
            bind: None,
            token: token.map(Secret::new),
            username: "me".into(),
            password: password.map(Secret::new),
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
            assert_eq!(judge(&both, &right), Verdict::Welcome, "{right:?}");
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
            assert_eq!(judge(&both, &wrong), Verdict::Wrong, "{wrong:?}");
        }
        assert_eq!(judge(&both, &HeaderMap::new()), Verdict::Unknown);
        assert_eq!(
            judge(&access(None, Some("p")), &presenting("Bearer p")),
            Verdict::Wrong
        );
        assert_eq!(
            judge(&access(Some("t"), None), &basic("me:p")),
            Verdict::Wrong
        );
    }

    #[test]
    fn who_guesses_is_refused_without_a_look_until_time_has_passed() {
        let access = access(Some("t"), None);
        let now = Instant::now();
        for _ in 0..TRIES {
            assert_eq!(
                access.judge(&presenting("Bearer x"), THERE, now),
                Verdict::Wrong
            );
        }
        let right = presenting("Bearer t");
        let Verdict::TooMany(wait) = access.judge(&right, THERE, now) else {
            panic!("the right one was looked at")
        };
        assert!(wait <= TRY_EVERY);
        let elsewhere = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(access.judge(&right, elsewhere, now), Verdict::Welcome);
        assert_eq!(
            access.judge(&right, THERE, now + TRY_EVERY),
            Verdict::Welcome
        );
        assert_eq!(
            access.judge(&presenting("Bearer x"), THERE, now + TRY_EVERY),
            Verdict::Wrong
        );
    }

    #[test]
    fn however_many_addresses_guess_their_number_is_bounded() {
        let access = access(Some("t"), None);
        for n in 0..3000u32 {
            let from = IpAddr::V4(Ipv4Addr::from(n));
            let _ = access.judge(&presenting("Bearer x"), from, Instant::now());
        }
        assert_eq!(
            access.failures.lock().expect("no panic").len(),
            ADDRESSES_MAX
        );
    }

    #[test]
    fn without_a_secret_only_this_machine_by_its_own_name() {
        let access = access(None, None);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let judge = |host, from| access.judge(&with(header::HOST, host), from, Instant::now());
        for host in ["localhost:3001", "127.0.0.1", "[::1]:3001"] {
            assert_eq!(judge(host, here), Verdict::Welcome, "{host}");
            assert_eq!(judge(host, THERE), Verdict::NotFromHere, "{host}");
        }
        for host in ["evil.example:3001", "192.0.2.7", ""] {
            assert_eq!(judge(host, here), Verdict::NotFromHere, "{host}");
        }
        assert_eq!(
            access.judge(&HeaderMap::new(), here, Instant::now()),
            Verdict::NotFromHere
        );
    }
}
