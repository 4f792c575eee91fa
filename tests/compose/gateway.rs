//! The gateway as its users see it: WAHA's own API, and the few requests that only the stand-in
//! for its image answers (`/stand-in/`: the phone that scans, and what the session holds).

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::told::{until, yes};

/// The one session that the tests use.
const SESSION: &str = "default";

/// What the session holds, read back from its files by the libraries that wrote them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct State {
    pub(crate) engine: String,
    /// The login was made in this life of the gateway: the phone had to scan.
    pub(crate) fresh: bool,
    /// A digest of the login's public keys.
    pub(crate) identity: Option<String>,
    /// The number of the last message.
    pub(crate) messages: u64,
    /// The number of the last one that was written after a TERM.
    pub(crate) last_words: Option<u64>,
    /// What is wrong with the session, in words.
    pub(crate) problems: Vec<String>,
}

/// A gateway at a published port.
pub(crate) struct Gateway {
    port: u16,
    key: String,
}

impl Gateway {
    pub(crate) fn new(port: u16, key: String) -> Self {
        Self { port, key }
    }

    /// A request with the API key; `None` where nobody answers.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [
            ("X-Api-Key", self.key.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ];
        http::ask(method, self.port, path, &headers, &body)
    }

    /// The status that a request without the key gets.
    pub(crate) fn stranger(&self, path: &str) -> Option<u16> {
        Some(http::ask("GET", self.port, path, &[], "")?.status)
    }

    /// A request that must succeed.
    #[track_caller]
    fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self
            .ask(method, path, body)
            .unwrap_or_else(|| panic!("{method} {path}: nobody answers"));
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {}",
            answer.status,
            answer.text()
        );
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// The session's status in WAHA's words; `NONE` where there is no such session, and nothing
    /// where nobody answers.
    pub(crate) fn session_status(&self) -> String {
        self.ask("GET", "/api/sessions?all=true", &Value::Null)
            .and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok())
            .and_then(|sessions| {
                let mut sessions = sessions.as_array()?.iter();
                let ours = sessions.find(|one| one["name"] == SESSION);
                let status = ours.map_or(Some("NONE"), |ours| ours["status"].as_str());
                status.map(str::to_owned)
            })
            .unwrap_or_default()
    }

    /// Waits until the API answers.
    #[track_caller]
    pub(crate) fn until_up(&self) {
        until("the gateway answers", || {
            http::ask("GET", self.port, "/ping", &[], "")
                .filter(|answer| answer.status == 200)
                .map(drop)
        });
    }

    /// Waits for a status of the session.
    #[track_caller]
    pub(crate) fn until_session(&self, wanted: &str) {
        until(&format!("the session is {wanted}"), || {
            yes(self.session_status() == wanted)
        });
    }

    /// Creates the session and lets the phone scan its QR code.
    #[track_caller]
    pub(crate) fn log_in(&self) -> State {
        self.until_up();
        self.must("POST", "/api/sessions", &json!({ "name": SESSION }));
        self.until_session("SCAN_QR_CODE");
        let code = self.must("GET", "/api/default/auth/qr", &Value::Null);
        assert_eq!(code["mimetype"], "image/png", "the QR code");
        self.must("POST", "/stand-in/default/scan", &Value::Null);
        self.until_session("WORKING");
        let state = self.state();
        assert!(state.fresh && state.identity.is_some(), "{state:?}");
        state
    }

    /// Sends so many messages, one after the other, and returns what the session then holds.
    #[track_caller]
    pub(crate) fn send(&self, count: u32) -> State {
        for n in 0..count {
            let message = json!({
                "session": SESSION,
                "chatId": "100000000000@c.us",
                "text": format!("message {n}"),
            });
            self.must("POST", "/api/sendText", &message);
        }
        self.state()
    }

    /// Lets messages come and go in the background; 0 ends it.
    #[track_caller]
    pub(crate) fn load(&self, per_second: u32) {
        let path = format!("/stand-in/default/load?per_second={per_second}");
        self.must("POST", &path, &Value::Null);
    }

    /// Makes the session this large.
    #[track_caller]
    pub(crate) fn grow(&self, bytes: u64) {
        let path = format!("/stand-in/default/grow?bytes={bytes}");
        self.must("POST", &path, &Value::Null);
    }

    /// What the session holds.
    #[track_caller]
    pub(crate) fn state(&self) -> State {
        self.try_state().expect("the state of the session")
    }

    /// The same; `None` where nobody answers.
    pub(crate) fn try_state(&self) -> Option<State> {
        let answer = self.ask("GET", "/stand-in/default/state", &Value::Null)?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// Waits until so many more messages are there, and returns what the session then holds.
    #[track_caller]
    pub(crate) fn until_more(&self, than: u64, count: u64) -> State {
        until(&format!("there are {count} more messages"), || {
            self.try_state().filter(|now| now.messages >= than + count)
        })
    }

    /// The session came back by itself: the same login, everything that was acknowledged, and
    /// nothing that the library would trip over.
    #[track_caller]
    pub(crate) fn expect_kept(&self, before: &State) -> State {
        until("the session works again", || {
            let seen = self.session_status();
            // No waiting would bring the login back.
            assert!(
                seen != "SCAN_QR_CODE" && seen != "NONE",
                "the phone has to scan again: {seen}"
            );
            yes(seen == "WORKING")
        });
        let now = self.state();
        assert!(
            now.identity == before.identity && !now.fresh,
            "another login: {now:?}, before {before:?}"
        );
        assert_eq!(now.engine, before.engine, "the engine");
        assert!(
            now.messages >= before.messages,
            "messages were lost: {now:?}, before {before:?}"
        );
        assert!(
            now.last_words >= before.last_words,
            "last words were lost: {now:?}, before {before:?}"
        );
        assert!(now.problems.is_empty(), "{now:?}");
        now
    }

    /// The same after a stop in order: what was written after the signal is there too.
    #[track_caller]
    pub(crate) fn expect_kept_to_the_last_word(&self, before: &State) -> State {
        let now = self.expect_kept(before);
        assert!(
            now.last_words.is_some_and(|n| n > before.messages),
            "what was written after TERM is lost: {now:?}, before {before:?}"
        );
        now
    }
}
