//! Locks that a browser left behind.
//!
//! Chrome marks a user data directory as in use by links named `Singleton*`; `SingletonLock` says
//! by which host and process (`HOST-PID`). A browser that is killed leaves them. Where the next
//! container has another host name, Chrome cannot ask that process whether it lives, and exits
//! with 21: the session would not come back until somebody deletes the links by hand.
//!
//! Whoever holds the session directory's lock knows better: no gateway of ours runs there now.

use std::fs;
use std::path::{Path, PathBuf};

use super::lock::OWN_DIR;

const LOCK: &str = "SingletonLock";
const LINKS: [&str; 3] = [LOCK, "SingletonCookie", "SingletonSocket"];
/// `webjs/SESSION/session-SESSION` is the deepest place that a gateway puts a profile at.
const DEPTH: u32 = 3;

/// Removes the locks of browsers that do not run on `host`, and returns what they stood in. What
/// cannot be read or removed is left to the browser to complain about.
pub(super) fn remove_stale(dir: &Path, host: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    look(dir, DEPTH, &mut found);
    found.retain(|profile| !is_running(&profile.join(LOCK), host));
    found.retain(|profile| {
        let links = LINKS.map(|name| profile.join(name));
        // Only ever links: what else has such a name is not Chrome's.
        links
            .iter()
            .filter(|link| link.is_symlink())
            .all(|link| fs::remove_file(link).is_ok())
    });
    found
}

/// Directories below that hold a lock. Links to directories are not followed.
fn look(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    if dir.join(LOCK).is_symlink() {
        found.push(dir.to_owned());
        // Nobody keeps a profile inside another.
        return;
    }
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && entry.file_name() != OWN_DIR {
            look(&entry.path(), depth - 1, found);
        }
    }
}

/// Whether the lock names a process that lives here. One that cannot be understood is taken for
/// a living one's.
fn is_running(lock: &Path, host: &str) -> bool {
    let Ok(owner) = fs::read_link(lock) else {
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
