//! What is known of gateways: one module a kind. To add one: a module here, a variant of [`ProfileName`],
//! and a row in [`ProfileName::ALL`].
//!
//! What a login looks like is not of a kind, since WAHA's engines are Baileys and whatsmeow again: that is
//! `sessionkeep_session::identity`. WAHA's API is `integrations::waha`.

mod baileys;
mod generic;
mod waha;
mod whatsapp_web_js;
mod whatsmeow;

use serde::Serialize;
use sessionkeep_session::Profile;
use sessionkeep_session::profile::BrowserDirs;

/// Which gateway's files they are: the setting `profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// WAHA, every engine.
    Waha,
    /// Baileys' multi-file auth state.
    Baileys,
    /// whatsmeow's SQLite database.
    Whatsmeow,
    /// Anything else: everything but what is never archived.
    Generic,
}

/// What is known of one kind of gateway.
pub(crate) trait GatewayKind: Sync {
    /// Where it keeps its sessions, unless the settings say otherwise.
    fn directory(&self) -> &'static str {
        "session"
    }

    /// What it answers when it is up, where it listens on `port`; `None` where that is not known.
    fn probe(&self, _port: u16) -> Option<String> {
        None
    }

    /// Where it keeps a browser's user data directories.
    fn browser(&self) -> BrowserDirs {
        |_| None
    }

    /// The session that the file at `path` belongs to, as a part of the path's text, if it belongs to one.
    fn session_of<'p>(&self, path: &'p str) -> Option<&'p str>;

    /// How the session `key`, as [`GatewayKind::session_of`] gave it, is shown: what keeps it (WAHA's
    /// engine, or the kind's name), and its own name.
    fn shown_as<'k>(&self, key: &'k str) -> (&'k str, &'k str);

    /// Whether it has WAHA's API.
    fn has_waha_api(&self) -> bool {
        false
    }
}

impl ProfileName {
    /// All, by their names in settings.
    pub const ALL: &[(&'static str, Self)] = &[
        ("waha", Self::Waha),
        ("baileys", Self::Baileys),
        ("whatsmeow", Self::Whatsmeow),
        ("generic", Self::Generic),
    ];

    /// What is known of it.
    pub(crate) fn kind(self) -> &'static dyn GatewayKind {
        match self {
            Self::Waha => &waha::Waha,
            Self::Baileys => &baileys::Baileys,
            Self::Whatsmeow => &whatsmeow::Whatsmeow,
            Self::Generic => &generic::Generic,
        }
    }

    /// What of its files is archived.
    #[must_use]
    pub fn files(self) -> Profile {
        Profile::new(self.kind().browser())
    }
}

#[cfg(test)]
mod tests;
