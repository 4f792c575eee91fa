//! Locks that a browser left behind.
//!
//! Chrome marks a user data directory as in use by links named `Singleton*`; `SingletonLock` says
//! by which host and process (`HOST-PID`). A browser that is killed leaves them. Where the next
//! container has another host name, Chrome cannot ask that process whether it lives, and exits
//! with 21: the session would not come back until somebody deletes the links by hand.
//!
//! Whoever holds the session directory's lock knows better: no gateway of ours runs there now.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use sessionkeep_core::beneath::{OPEN_DIR, open_dir};
use sessionkeep_core::state_dir::STATE_DIR;

const LOCK: &str = "SingletonLock";
const LINKS: [&str; 3] = [LOCK, "SingletonCookie", "SingletonSocket"];
/// `webjs/SESSION/session-SESSION` is the deepest place that a gateway puts a profile at.
const DEPTH: u32 = 3;

/// Removes the locks of browsers that do not run on `host`, and returns what they stood in. What
/// cannot be read or removed is left to the browser to complain about.
pub(super) fn remove_stale(dir: &Path, host: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(root) = File::open(dir) {
        look(root.as_fd(), dir, DEPTH, &mut found);
    }
    found.retain(|(_, profile)| !is_running(profile, host));
    found.retain(|(_, profile)| {
        // Only ever links: what else has such a name is not Chrome's.
        LINKS
            .iter()
            .filter(|name| is_link(profile.as_fd(), name))
            .all(|name| unlinkat(profile, *name, UnlinkatFlags::NoRemoveDir).is_ok())
    });
    found.into_iter().map(|(path, _)| path).collect()
}

/// Directories below that hold a lock. Links to directories are not followed: each is opened from the
/// one above it, and whoever exchanges one meanwhile leads us nowhere.
fn look(dir: BorrowedFd<'_>, path: &Path, depth: u32, found: &mut Vec<(PathBuf, OwnedFd)>) {
    let Ok(own) = open_dir(dir, b"") else { return };
    if is_link(dir, LOCK) {
        found.push((path.to_owned(), own));
        // Nobody keeps a profile inside another.
        return;
    }
    if depth == 0 {
        return;
    }
    let Ok(mut listing) = Dir::from_fd(own) else {
        return;
    };
    let names: Vec<CString> = listing
        .iter()
        .flatten()
        .filter(|entry| matches!(entry.file_type(), Some(Type::Directory) | None))
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .filter(|name| name.to_bytes() != STATE_DIR.as_bytes())
        .collect();
    for name in names {
        if let Ok(below) = openat(dir, name.as_c_str(), OPEN_DIR, Mode::empty()) {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            look(below.as_fd(), &path, depth - 1, found);
        }
    }
}

fn is_link(dir: BorrowedFd<'_>, name: &str) -> bool {
    let found = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| {
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK
    })
}

/// Whether the profile's lock names a process that lives here. One that cannot be understood is taken
/// for a living one's.
fn is_running(profile: &OwnedFd, host: &str) -> bool {
    let Ok(owner): Result<OsString, _> = readlinkat(profile, LOCK) else {
        return true;
    };
    let owner = owner.to_string_lossy();
    let Some((owner, pid)) = owner.rsplit_once('-') else {
        return true;
    };
    let Ok(pid) = pid.parse::<i32>() else {
        return true;
    };
    // SAFETY: signal 0 asks whether the process is there, and does nothing.
    owner == host && pid > 0 && unsafe { libc::kill(pid, 0) } == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn profile(root: &Path, at: &str, owner: &str) -> PathBuf {
        let profile = root.join(at);
        fs::create_dir_all(&profile).expect("create a profile");
        symlink(owner, profile.join(LOCK)).expect("make a lock");
        symlink("/tmp/x/SingletonSocket", profile.join("SingletonSocket")).expect("make a link");
        profile
    }

    #[test]
    fn a_lock_of_another_host_or_of_a_dead_process_is_removed_and_a_living_ones_stays() {
        let root = tempfile::tempdir().expect("a directory");
        let other = profile(root.path(), "webjs/default/session-default", "old-host-7");
        // Above the largest number that the kernel gives to a process.
        let dead = profile(root.path(), "wpp/a", "here-4194305");
        let mine = std::process::id();
        let alive = profile(root.path(), "wpp/b", &format!("here-{mine}"));
        let odd = profile(root.path(), "wpp/c", "nonsense");

        let mut removed = remove_stale(root.path(), "here");
        removed.sort();
        assert_eq!(removed, [other.clone(), dead.clone()]);
        for gone in [&other, &dead] {
            assert_eq!(fs::read_dir(gone).expect("it stays").count(), 0);
        }
        for kept in [alive, odd] {
            assert!(kept.join(LOCK).is_symlink());
            assert!(kept.join("SingletonSocket").is_symlink());
        }
    }

    #[test]
    fn a_file_of_that_name_and_what_lies_behind_a_link_stay() {
        let root = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("another");
        profile(outside.path(), "p", "old-host-7");
        symlink(outside.path(), root.path().join("link")).expect("link");
        fs::write(root.path().join(LOCK), "mine").expect("write");
        assert!(remove_stale(root.path(), "here").is_empty());
        assert!(root.path().join(LOCK).exists());
        assert!(outside.path().join("p").join(LOCK).is_symlink());
    }
}
