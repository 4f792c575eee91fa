//! Where whatsapp-web.js keeps a browser's user data directories.

use sessionkeep_session::InBrowser;
use sessionkeep_session::profile::first_part;

/// Whether a directory of this name is a user data directory: `session`, or `session-` and a client's id.
pub(super) fn is_user_data(name: &[u8]) -> bool {
    name == b"session" || name.starts_with(b"session-")
}

/// Below `.wwebjs_auth`, at any depth.
pub(super) fn browser(path: &[u8]) -> Option<InBrowser<'_>> {
    let mut rest = path;
    while !rest.is_empty() {
        let (part, below) = first_part(rest);
        let (data_dir, inside) = first_part(below);
        if part == b".wwebjs_auth" && is_user_data(data_dir) && !inside.is_empty() {
            return Some(InBrowser::UserData(inside));
        }
        rest = below;
    }
    None
}
