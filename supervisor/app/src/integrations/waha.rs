//! WAHA's own word on its sessions: whether each is logged in, and the QR code to scan while it is not.
//!
//! The API is at the address of the gateway's probe, with the key from our own environment:
//! `GET /api/sessions?all=true` and `GET /api/{session}/auth/qr`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use tracing::{debug, info};

use super::client::{Answer, Client};
use crate::config::Settings;
use crate::status::incidents::IncidentKind;
use crate::status::{ErrorKind, Shared, ShownSession};
use sessionkeep_core::control::Lifecycle;
use sessionkeep_core::human::Timestamp;
use sessionkeep_core::secret::Secret;

const KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How often the sessions are asked for while all are logged in, and while one is not.
const EVERY: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(2);
/// A list of a thousand sessions is some hundred kilobytes.
const LIST_MAX: usize = 1 << 20;
/// A QR code is a few kilobytes.
const PICTURE_MAX: usize = 256 << 10;

/// A session is logged in.
pub(crate) const WORKING: &str = "WORKING";
/// A session waits for its QR code to be scanned.
pub(crate) const SCAN: &str = "SCAN_QR_CODE";
const FAILED: &str = "FAILED";
/// A session waits for a passkey, or for its use to be confirmed on the phone.
const PASSKEY: [&str; 2] = ["PASSKEY_REQUIRED", "PASSKEY_CONFIRMATION_REQUIRED"];

/// Whether a session that is so is not logged in, and was not stopped by somebody.
fn is_logged_out(status: &str) -> bool {
    [SCAN, FAILED].contains(&status) || PASSKEY.contains(&status)
}

/// WAHA, as it can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Waha(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    base: String,
    key: Option<Secret>,
}

/// Why there is no QR code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPicture {
    /// WAHA does not answer, or not with a picture.
    #[error("WAHA gives no QR code: {0}")]
    Unavailable(String),
    /// Our key is not WAHA's.
    #[error("{KEY_REFUSED}")]
    Key,
}

const KEY_REFUSED: &str =
    "WAHA does not take our key; set WAHA_API_KEY to the plain key, not to its hash";

#[derive(Debug, Deserialize)]
struct Session {
    name: String,
    status: String,
    me: Option<Me>,
    engine: Option<Engine>,
}

#[derive(Debug, Deserialize)]
struct Me {
    id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Engine {
    engine: Option<String>,
}

impl Waha {
    /// Of these settings; `None` where the gateway is another one, or has no address.
    #[must_use]
    pub(crate) fn new(settings: &Settings, client: &Client) -> Option<Self> {
        if !settings.profile.kind().has_waha_api() {
            return None;
        }
        let probe: hyper::Uri = settings.gateway.probe.as_ref()?.parse().ok()?;
        Some(Self(Arc::new(Inner {
            client: client.clone(),
            base: format!("http://{}", probe.authority()?),
            key: settings.gateway.api_key.clone(),
        })))
    }

    async fn get(&self, path: &str, accept: &'static str, max: usize) -> Result<Answer, String> {
        let mut headers = vec![(ACCEPT, HeaderValue::from_static(accept))];
        if let Some(key) = &self.0.key {
            let mut value = HeaderValue::from_str(key.expose())
                .map_err(|_| "WAHA_API_KEY cannot be put into a header".to_owned())?;
            value.set_sensitive(true);
            headers.push((KEY, value));
        }
        let address = format!("{}{path}", self.0.base);
        let asked = self
            .0
            .client
            .ask(Method::GET, &address, headers, Bytes::new(), max);
        asked.await.map_err(|error| error.to_string())
    }

    async fn sessions(&self) -> Result<Vec<Session>, String> {
        let answer = self
            .get("/api/sessions?all=true", "application/json", LIST_MAX)
            .await?;
        match answer.status.as_u16() {
            200 => serde_json::from_slice(&answer.body)
                .map_err(|_| "WAHA's list of sessions cannot be understood".to_owned()),
            401 | 403 => Err(KEY_REFUSED.to_owned()),
            code => Err(format!("WAHA answered {code} for its list of sessions")),
        }
    }

    /// The QR code of a session that waits for it to be scanned, and its media type.
    ///
    /// # Errors
    /// [`NoPicture`].
    pub(crate) async fn qr(&self, session: &str) -> Result<(HeaderValue, Bytes), NoPicture> {
        let path = format!("/api/{}/auth/qr?format=image", escaped(session));
        let answer = self.get(&path, "image/png", PICTURE_MAX).await;
        let answer = answer.map_err(NoPicture::Unavailable)?;
        match answer.status.as_u16() {
            200 => {}
            401 | 403 => return Err(NoPicture::Key),
            code => return Err(NoPicture::Unavailable(format!("it answered {code}"))),
        }
        // Nothing but a picture is ever passed on: what a gateway sends is shown by our own page.
        match answer.headers.get(CONTENT_TYPE) {
            Some(kind) if kind == "image/png" || kind == "image/jpeg" => {
                Ok((kind.clone(), answer.body))
            }
            _ => Err(NoPicture::Unavailable("what it sent is no picture".into())),
        }
    }
}

/// A name as part of a path.
fn escaped(name: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) && name != ".." && name != "." {
            path.push(byte.into());
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

/// Asks again and again for as long as it runs, and notes what it hears.
pub(crate) async fn follow(waha: Waha, shared: Shared) {
    let mut seen = Seen::default();
    loop {
        let status = shared.read();
        let is_up =
            matches!(status.state, Lifecycle::Running) && status.gateway_answers != Some(false);
        if !is_up {
            seen.forget();
            shared.update(|status| forget(&mut status.sessions));
            tokio::time::sleep(SOON / 4).await;
            continue;
        }
        match waha.sessions().await {
            Ok(sessions) => {
                seen.compare(&sessions, &shared);
                let now = Timestamp::now().0;
                shared.update(|status| {
                    status.sessions_problem.clear();
                    merge(&mut status.sessions, &sessions, now);
                });
            }
            Err(why) => {
                debug!(target: "gateway", why, "its sessions cannot be asked for");
                shared.meters().error(ErrorKind::GatewayApi);
                shared.update(|status| status.sessions_problem = why);
            }
        }
        let all_work = seen.statuses.values().all(|status| status == WORKING);
        let pause = if all_work && !seen.statuses.is_empty() {
            EVERY
        } else {
            SOON
        };
        tokio::time::sleep(pause).await;
    }
}

fn forget(sessions: &mut BTreeMap<String, ShownSession>) {
    for session in sessions.values_mut() {
        (session.gateway_status, session.gateway_status_since_ms) = (None, None);
    }
}

/// Notes WAHA's word beside what is committed of each session; one of which nothing is committed yet
/// is shown all the same, and one that is neither is not any more.
fn merge(shown: &mut BTreeMap<String, ShownSession>, told: &[Session], now_ms: u64) {
    let mut known = BTreeSet::new();
    for session in told {
        let engine = session
            .engine
            .as_ref()
            .and_then(|engine| engine.engine.clone())
            .unwrap_or_default()
            .to_lowercase();
        let by_both = format!("{engine}/{}", session.name);
        // The engine's folder can be named otherwise (`WAHA_NAMESPACE`).
        let key = if shown.contains_key(&by_both) {
            by_both
        } else {
            let same = shown.iter().find(|(_, of)| of.name == session.name);
            same.map_or(by_both, |(key, _)| key.clone())
        };
        let entry = shown.entry(key.clone()).or_default();
        entry.name.clone_from(&session.name);
        if !engine.is_empty() {
            entry.engine = engine;
        }
        if entry.gateway_status.as_ref() != Some(&session.status) {
            entry.gateway_status = Some(session.status.clone());
            entry.gateway_status_since_ms = Some(now_ms);
        }
        entry.account = session.me.as_ref().and_then(|me| me.id.clone());
        known.insert(key);
    }
    shown.retain(|key, session| known.contains(key) || session.files > 0);
    for (key, session) in shown {
        if !known.contains(key) {
            (session.gateway_status, session.gateway_status_since_ms) = (None, None);
        }
    }
}

/// What each session was when it was last asked for.
#[derive(Debug, Default)]
struct Seen {
    statuses: BTreeMap<String, String>,
    /// Those that have been logged in since the gateway was started.
    worked: BTreeSet<String>,
}

impl Seen {
    fn forget(&mut self) {
        self.statuses.clear();
    }

    /// A session that was logged in and now waits for its code, or has failed, was logged out; one
    /// that is stopped was stopped by somebody.
    fn compare(&mut self, sessions: &[Session], shared: &Shared) {
        for session in sessions {
            let before = self.statuses.get(&session.name).map(String::as_str);
            if before != Some(&session.status) {
                info!(target: "gateway", session = session.name, from = before, to = session.status, "session changed");
            }
            match session.status.as_str() {
                WORKING => {
                    self.worked.insert(session.name.clone());
                    shared.over(IncidentKind::LoggedOut, &session.name);
                }
                status if is_logged_out(status) && self.worked.contains(&session.name) => {
                    let detail = format!(
                        "session {} was {WORKING} and is {}",
                        session.name, session.status
                    );
                    shared.incident(IncidentKind::LoggedOut, &session.name, &detail);
                }
                _ => {}
            }
        }
        let named = |name: &String| sessions.iter().any(|session| session.name == *name);
        for gone in shared.ledger().lasting(IncidentKind::LoggedOut) {
            if !named(&gone) {
                shared.over(IncidentKind::LoggedOut, &gone);
            }
        }
        self.statuses = sessions
            .iter()
            .map(|session| (session.name.clone(), session.status.clone()))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str, status: &str, engine: &str) -> Session {
        serde_json::from_value(serde_json::json!({
            "name": name, "status": status, "engine": { "engine": engine }, "me": null,
            "config": { "anything": 1 },
        }))
        .expect("WAHA's form")
    }

    #[test]
    fn what_waha_says_stands_beside_what_is_committed() {
        let mut shown = BTreeMap::from([(
            "gows/default".to_owned(),
            ShownSession {
                name: "default".into(),
                engine: "gows".into(),
                files: 3,
                ..ShownSession::default()
            },
        )]);
        merge(
            &mut shown,
            &[
                session("default", SCAN, "GOWS"),
                session("new", WORKING, "GOWS"),
            ],
            7,
        );
        let first = &shown["gows/default"];
        assert_eq!(
            (first.files, first.gateway_status.as_deref()),
            (3, Some(SCAN))
        );
        assert_eq!(first.gateway_status_since_ms, Some(7));
        assert_eq!(shown["gows/new"].files, 0);
        merge(&mut shown, &[session("default", SCAN, "GOWS")], 9);
        assert_eq!(shown["gows/default"].gateway_status_since_ms, Some(7));
        assert!(
            !shown.contains_key("gows/new"),
            "it was deleted before it had a file"
        );
        merge(&mut shown, &[], 11);
        assert_eq!(shown["gows/default"].gateway_status, None);
    }

    #[test]
    fn a_folder_of_another_name_is_still_the_sessions() {
        let mut shown = BTreeMap::from([(
            "mine/default".to_owned(),
            ShownSession {
                name: "default".into(),
                engine: "mine".into(),
                files: 1,
                ..ShownSession::default()
            },
        )]);
        merge(&mut shown, &[session("default", WORKING, "NOWEB")], 1);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown["mine/default"].engine, "noweb");
    }

    #[test]
    fn a_name_never_leads_elsewhere() {
        assert_eq!(escaped("a-b_c"), "a-b_c");
        assert_eq!(escaped("../x?y"), "..%2Fx%3Fy");
        assert_eq!(escaped(".."), "%2E%2E");
    }
}
