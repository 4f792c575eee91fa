//! Any other gateway: each entry at the top of the session directory is a session.

use sessionkeep_session::profile::BrowserDirs;

use super::{GatewayKind, whatsapp_web_js};

pub(super) struct Generic;

impl GatewayKind for Generic {
    fn browser(&self) -> BrowserDirs {
        whatsapp_web_js::browser
    }

    fn session_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        Some(path.split_once('/').map_or(".", |(first, _)| first))
    }

    fn shown_as<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        ("files", key)
    }
}
