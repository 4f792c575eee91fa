//! Baileys' multi-file auth state: a directory for each account, or one for all.

use super::GatewayKind;

pub(super) struct Baileys;

impl GatewayKind for Baileys {
    fn session_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        Some(path.rsplit_once('/').map_or(".", |(above, _)| above))
    }

    fn shown_as<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        ("baileys", if key == "." { "default" } else { key })
    }
}
