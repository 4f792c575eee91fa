//! The repository as somebody has it who just cloned it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::run;

/// For listing what git tracks.
const LIST: Duration = Duration::from_secs(60);

/// The repository that this test belongs to.
pub(super) fn repository() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir
        .ancestors()
        .nth(2)
        .expect("a workspace")
        .to_owned()
}

/// Copies what git tracks, with modes, and nothing that a developer has lying about.
pub(super) fn copy_tracked(from: &Path, to: &Path) {
    let mut list = Command::new("git");
    list.current_dir(from).args(["ls-files", "-z"]);
    let listed = run::run(&mut list, LIST);
    assert!(listed.code == 0, "git ls-files: {}", listed.err);
    for name in listed.out.split_terminator('\0') {
        let source = from.join(name);
        let Ok(found) = fs::symlink_metadata(&source) else {
            continue; // deleted, and not yet committed
        };
        let target = to.join(name);
        fs::create_dir_all(target.parent().expect("a name below the copy")).expect("mkdir");
        if found.is_symlink() {
            let link = fs::read_link(&source).expect("read a link");
            std::os::unix::fs::symlink(link, &target).expect("copy a link");
        } else {
            fs::copy(&source, &target).unwrap_or_else(|error| panic!("copy {name}: {error}"));
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("chmod");
}
