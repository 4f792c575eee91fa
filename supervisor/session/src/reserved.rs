//! Names at the top of a session directory that are not the gateway's. The one rule for what a commit
//! leaves out and what a restore refuses: whatever is archived can be restored.

use sessionkeep_core::entry::RelPath;

use sessionkeep_core::state_dir::STATE_DIR;

/// What the file system makes in its own root, for what its repair finds.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

/// Whether `path` is reserved, or lies below what is:
/// - `.sessionkeep` at the top, whatever it is: ours;
/// - a directory `lost+found` at the top: the file system's. A file or a link of that name is the
///   gateway's, as is either name anywhere deeper.
#[must_use]
pub(super) fn is_reserved(path: &RelPath, is_dir: bool) -> bool {
    let bytes = path.as_bytes();
    let top = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
    is_reserved_at_top(top, is_dir || top.len() < bytes.len())
}

/// The same of a name at the top.
#[must_use]
pub(super) fn is_reserved_at_top(name: &[u8], is_dir: bool) -> bool {
    name == STATE_DIR.as_bytes() || (is_dir && name == LOST_AND_FOUND.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_directory_and_the_file_systems_are_reserved_and_only_at_the_top() {
        for (path, is_dir, reserved) in [
            (".sessionkeep", true, true),
            (".sessionkeep", false, true),
            (".sessionkeep/state.json", false, true),
            ("lost+found", true, true),
            ("lost+found/x", false, true),
            ("lost+found", false, false),
            ("lost+found.old", true, false),
            (".sessionkeep.old/lock", false, false),
            ("a/.sessionkeep", true, false),
            ("a/lost+found", true, false),
        ] {
            let rel = RelPath::new(path).expect("a path");
            assert_eq!(is_reserved(&rel, is_dir), reserved, "{path} {is_dir}");
        }
    }
}
