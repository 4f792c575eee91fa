//! WAHA: a directory for each engine, and in it one for each session.

use sessionkeep_session::InBrowser;
use sessionkeep_session::profile::{BrowserDirs, first_part};

use super::{GatewayKind, whatsapp_web_js};

pub(super) struct Waha;

impl GatewayKind for Waha {
    fn directory(&self) -> &'static str {
        "/app/.sessions"
    }

    fn probe(&self, port: u16) -> Option<String> {
        Some(format!("http://127.0.0.1:{port}/ping"))
    }

    fn browser(&self) -> BrowserDirs {
        browser
    }

    /// `{engine}/{session}/…`; WAHA has files of its own beside.
    fn session_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (engine, rest) = path.split_once('/')?;
        let (session, _) = rest.split_once('/')?;
        Some(&path[..engine.len() + 1 + session.len()])
    }

    fn shown_as<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        key.split_once('/').unwrap_or(("", key))
    }

    fn has_waha_api(&self) -> bool {
        true
    }
}

/// `webjs/SESSION/session`, `webjs/SESSION/session-*`, and `wpp/SESSION`. A `webjs/SESSION/Default` shows
/// that Chrome was pointed at the session's directory itself: that `Default` is the browser's, and its
/// neighbours are WAHA's own.
fn browser(path: &[u8]) -> Option<InBrowser<'_>> {
    let (engine, rest) = first_part(path);
    let (_session, rest) = first_part(rest);
    if engine == b"wpp" && !rest.is_empty() {
        return Some(InBrowser::UserData(rest));
    }
    if engine == b"webjs" {
        let (data_dir, rest) = first_part(rest);
        if whatsapp_web_js::is_user_data(data_dir) && !rest.is_empty() {
            return Some(InBrowser::UserData(rest));
        }
        if data_dir == b"Default" {
            return Some(InBrowser::Default(rest));
        }
    }
    whatsapp_web_js::browser(path)
}
