//! What each file holds at each step: the same for the gateway that writes it and for the test
//! that looks at what was restored.
#![allow(
    dead_code,
    reason = "the gateway and the test use what they need of it"
)]

use serde_json::{Value, json};

/// Sessions that are rewritten in turn.
pub(crate) const SESSIONS: u64 = 24;
/// A pre-key is deleted after so many steps.
pub(crate) const PRE_KEYS: u64 = 60;
/// Rows of the database that are rewritten in turn.
pub(crate) const SLOTS: u64 = 400;

/// What nobody can write who does not know identity and step.
pub(crate) fn key(identity: &str, step: u64) -> String {
    let secret = blake3::derive_key("sessionkeep churn", format!("{identity}/{step}").as_bytes());
    hex::encode(secret)
}

/// A file that is written once.
pub(crate) fn pre_key(identity: &str, step: u64) -> String {
    json!({"step": step, "key": key(identity, step)}).to_string()
}

/// A file that is renamed into place, of a length of its own at each step.
pub(crate) fn session(identity: &str, step: u64) -> String {
    let key = key(identity, step);
    let chains: Vec<&str> = (0..1 + step % 9).map(|_| key.as_str()).collect();
    json!({"step": step, "chains": chains, "key": key}).to_string()
}

/// The credentials.
pub(crate) fn creds(identity: &str, step: u64) -> String {
    json!({"identity": identity, "step": step, "key": key(identity, step)}).to_string()
}

/// The step that a file tells of.
pub(crate) fn step_of(bytes: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(bytes).ok()?["step"].as_u64()
}

/// The identity that the credentials tell of.
pub(crate) fn identity_of(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    Some(value["identity"].as_str()?.to_owned())
}
