//! What of each kind's files is left out, and which session the rest belongs to.

use sessionkeep_core::entry::RelPath;

use super::ProfileName;

/// A trailing slash marks a directory.
fn skips(name: ProfileName, path: &str) -> bool {
    let bare = path.trim_end_matches('/');
    let rel = RelPath::new(bare).expect("path");
    name.files().skips(&rel, path.ends_with('/'))
}

#[test]
fn of_a_chrome_profile_only_the_login_is_kept() {
    for base in [
        "webjs/a/session",
        "webjs/a/session-a",
        "wpp/a",
        "x/.wwebjs_auth/session-b",
    ] {
        let keeps = |rest: &str| !skips(ProfileName::Waha, &format!("{base}{rest}"));
        for kept in [
            "/",
            "/Default/",
            "/Default/IndexedDB/",
            "/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb/000003.log",
            "/Default/Local Storage/leveldb/CURRENT",
            "/.waha.session.config.json",
        ] {
            assert!(keeps(kept), "{base}{kept}");
        }
        for out in [
            "/Local State",
            "/Default",
            "/Default/Cookies",
            "/Default/IndexedDB",
            "/Default/Service Worker/",
            "/Default/IndexedDBx/",
            "/ShaderCache/",
            "/Profile 1/IndexedDB/",
        ] {
            assert!(!keeps(out), "{base}{out}");
        }
    }
}

#[test]
fn a_session_that_is_called_session_keeps_its_own_files() {
    let waha = |path| skips(ProfileName::Waha, path);
    assert!(!waha("webjs/session/.waha.session.config.json"));
    assert!(!waha("webjs/session/session-session/Default/IndexedDB/x"));
    assert!(!waha("webjs/a/Default/IndexedDB/x"));
    assert!(waha("webjs/a/Default/History"));
    assert!(!waha("webjs/waha.sqlite3"));
    assert!(!waha("wpp/waha.sqlite3"));
    assert!(!waha("noweb/session-1/creds.json"));
    assert!(!skips(
        ProfileName::Baileys,
        "webjs/a/session/Default/Cookies"
    ));
}

#[test]
fn a_browser_of_whatsapp_web_js_is_known_where_one_can_be() {
    let cookies = "x/.wwebjs_auth/session-b/Default/Cookies";
    assert!(skips(ProfileName::Generic, cookies));
    assert!(!skips(ProfileName::Baileys, cookies));
    assert!(!skips(ProfileName::Whatsmeow, cookies));
}

#[test]
fn what_is_never_archived_is_left_out_of_every_kind() {
    for (name, kind) in ProfileName::ALL {
        for out in [
            ".sessionkeep/state.json",
            "a/SingletonLock",
            "a/GPUCache/data_0",
        ] {
            assert!(skips(*kind, out), "{out} is kept by {name}");
        }
        assert!(!skips(*kind, "creds.json"), "left out by {name}");
    }
}
