//! Which session of the gateway a file belongs to, by where the gateways keep them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::gateway::ProfileName;
use sessionkeep_core::entry::RelPath;

/// One session, as it is committed and as the gateway sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShownSession {
    /// Its name, as the gateway calls it.
    pub name: String,
    /// What keeps it: WAHA's engine, or the profile's name.
    pub engine: String,
    /// Its committed files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When one of them last changed, in milliseconds since 1970.
    pub last_change_ms: u64,
    /// The gateway's own word, such as `WORKING` or `SCAN_QR_CODE`; `null` where it was not heard.
    pub gateway_status: Option<String>,
    /// Since when it says so, in milliseconds since 1970, as far as this process has seen it.
    pub gateway_status_since_ms: Option<u64>,
    /// Which account is linked, as the gateway says.
    pub account: Option<String>,
}

/// The session that the file at `path` belongs to, if it belongs to one.
#[must_use]
pub fn session_of(profile: ProfileName, path: &RelPath) -> Option<String> {
    let text = String::from_utf8_lossy(path.as_bytes());
    profile.kind().session_of(&text).map(str::to_owned)
}

/// Sums files, each with its bytes and the time of its last change, session by session.
#[must_use]
pub fn group(
    profile: ProfileName,
    files: impl Iterator<Item = (RelPath, u64, u64)>,
) -> BTreeMap<String, ShownSession> {
    let mut sessions: BTreeMap<String, ShownSession> = BTreeMap::new();
    for (path, bytes, changed_ms) in files {
        let text = String::from_utf8_lossy(path.as_bytes());
        let Some(key) = profile.kind().session_of(&text) else {
            continue;
        };
        if !sessions.contains_key(key) {
            let (engine, name) = profile.kind().shown_as(key);
            let session = ShownSession {
                engine: engine.to_owned(),
                name: name.to_owned(),
                ..ShownSession::default()
            };
            sessions.insert(key.to_owned(), session);
        }
        let session = sessions.get_mut(key).expect("it was just made");
        session.files += 1;
        session.bytes += bytes;
        session.last_change_ms = session.last_change_ms.max(changed_ms);
    }
    sessions
}

/// What is committed by now, with the gateway's word on each as it was told before.
#[must_use]
pub fn still_told(
    mut committed: BTreeMap<String, ShownSession>,
    before: &BTreeMap<String, ShownSession>,
) -> BTreeMap<String, ShownSession> {
    for (key, told) in before.iter().filter(|(_, of)| of.gateway_status.is_some()) {
        let session = committed
            .entry(key.clone())
            .or_insert_with(|| ShownSession {
                files: 0,
                bytes: 0,
                ..told.clone()
            });
        session.name.clone_from(&told.name);
        session.engine.clone_from(&told.engine);
        session.gateway_status.clone_from(&told.gateway_status);
        session.gateway_status_since_ms = told.gateway_status_since_ms;
        session.account.clone_from(&told.account);
    }
    committed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(profile: ProfileName, path: &str) -> Option<String> {
        session_of(profile, &RelPath::new(path).expect("a path"))
    }

    #[test]
    fn each_gateways_files_belong_to_the_session_they_lie_in() {
        let waha = |path| of(ProfileName::Waha, path);
        assert_eq!(
            waha("gows/default/gows.db").as_deref(),
            Some("gows/default")
        );
        assert_eq!(
            waha("webjs/sales/session/Default/IndexedDB/x").as_deref(),
            Some("webjs/sales")
        );
        assert_eq!(waha("gows/waha.sqlite3"), None);
        let baileys = |path| of(ProfileName::Baileys, path);
        assert_eq!(baileys("creds.json").as_deref(), Some("."));
        assert_eq!(baileys("a/b/creds.json").as_deref(), Some("a/b"));
        let whatsmeow = |path| of(ProfileName::Whatsmeow, path);
        assert_eq!(whatsmeow("store.db").as_deref(), Some("store.db"));
        assert_eq!(whatsmeow("notes.txt"), None);
        assert_eq!(of(ProfileName::Generic, "a/b").as_deref(), Some("a"));
        assert_eq!(of(ProfileName::Generic, "b").as_deref(), Some("."));
    }

    #[test]
    fn files_are_summed_session_by_session() {
        let path = |text| RelPath::new(text).expect("a path");
        let files = [
            (path("noweb/default/creds.json"), 10, 5),
            (path("noweb/default/store.sqlite3"), 20, 9),
            (path("noweb/waha.sqlite3"), 40, 99),
            (path("noweb/second/creds.json"), 1, 2),
        ];
        let sessions = group(ProfileName::Waha, files.into_iter());
        assert_eq!(sessions.len(), 2);
        let first = &sessions["noweb/default"];
        assert_eq!((first.files, first.bytes, first.last_change_ms), (2, 30, 9));
        assert_eq!(
            (first.engine.as_str(), first.name.as_str()),
            ("noweb", "default")
        );
    }
}
