//! Tests that need more than one module, or too much room to stand beside the code.

mod events;
mod install;
mod merge;
mod round_trip;
mod scan;
mod sqlite;
mod stage;
mod wal;

use sessionkeep_core::entry::RelPath;
use std::path::Path;

use super::{Directory, Profile};
use sessionkeep_core::state_dir::StateDir;

fn rel(path: &str) -> RelPath {
    RelPath::new(path).expect("a usable path")
}

fn opened(root: &Path) -> Directory {
    Directory::open(root, Profile::without_browser()).expect("the directory opens")
}

/// Its own part of a directory.
fn state(root: &Path) -> StateDir {
    StateDir::open(root).expect("it opens")
}

/// Does it as in a container: in a thread with mounts of its own, which end with it. Only root may, which
/// is said where it is not so.
pub(super) fn namespace(act: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: nothing can be mounted, not tested");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use nix::mount::MsFlags;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
            let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            nix::mount::mount(none, "/", none, flags, none).expect("make it private");
            act();
        });
        thread.join().expect("the thread ends well");
    });
}
