//! A session directory that was deleted, or moved away, and made anew under its path: taking the new one
//! in place of the one that is held open.
//!
//! A gateway that was logged out does so. From outside it looks like a directory that was unmounted, so
//! that the one below the mount shows through: nothing in there is the gateway's. Device and mount tell
//! the two apart. The old directory is held open meanwhile, so that the kernel gives neither its number
//! nor its mount's to anything else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::open;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;

use super::mount_id::mount_id;
use super::scan::Directory;
use sessionkeep_core::beneath::OPEN_DIR;

/// Why what has the session directory's path is not taken for it.
#[derive(Debug, thiserror::Error)]
pub enum NotFollowed {
    /// Nothing has its path.
    #[error("the session directory was deleted, or moved away")]
    Gone,
    /// What has its path lies on another mount.
    #[error("the session directory was unmounted, or something was mounted over it")]
    OtherMount,
    /// It belongs to somebody else.
    #[error(
        "the session directory was replaced by one of user {owner}, which is neither the one before nor sessionkeep's"
    )]
    OtherOwner {
        /// Whose it is.
        owner: u32,
    },
    /// It cannot be looked at.
    #[error("the session directory cannot be opened: {0}")]
    Unreadable(#[source] io::Error),
}

impl Directory {
    /// The directory that has this one's path by now, where that was made anew on the same mount.
    ///
    /// # Errors
    /// [`NotFollowed`].
    pub fn made_anew(&self) -> Result<Self, NotFollowed> {
        let new = match open(&self.root, OPEN_DIR, Mode::empty()) {
            Ok(new) => new,
            Err(Errno::ENOENT) => return Err(NotFollowed::Gone),
            Err(errno) => return Err(NotFollowed::Unreadable(errno.into())),
        };
        let unreadable = |errno: Errno| NotFollowed::Unreadable(errno.into());
        let (before, now) = (
            fstat(self.fd()).map_err(unreadable)?,
            fstat(&new).map_err(unreadable)?,
        );
        let mounts = (mount_id(self.fd()), mount_id(new.as_fd()));
        match mounts {
            (Ok(was), Ok(is)) if was == is && before.st_dev == now.st_dev => {}
            _ => return Err(NotFollowed::OtherMount),
        }
        // Whoever may exchange it is as much at home in it as its owner; another's directory that is
        // moved here is none that the gateway has made.
        if now.st_uid != before.st_uid && now.st_uid != geteuid().as_raw() {
            return Err(NotFollowed::OtherOwner { owner: now.st_uid });
        }
        Ok(Self {
            root: self.root.clone(),
            fd: Arc::new(new),
            identity: (now.st_dev, now.st_ino),
            profile: self.profile,
        })
    }

    /// Whether `other` is this very directory.
    #[must_use]
    pub fn is(&self, other: BorrowedFd<'_>) -> bool {
        fstat(other).is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;
    use sessionkeep_core::state_dir::{Presence, StateDir};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_was_made_anew_is_followed_and_a_link_in_its_place_is_not() {
        let temp = tempfile::tempdir().expect("tempdir");
        let path = temp.path().join("session");
        fs::create_dir(&path).expect("mkdir");
        let state = StateDir::open(&path).expect("open");
        let directory = Directory::open(&path, Profile::without_browser()).expect("open");
        assert!(directory.is(state.session()));
        fs::remove_dir_all(&path).expect("remove");
        assert!(matches!(directory.made_anew(), Err(NotFollowed::Gone)));
        assert_eq!(state.presence(), Presence::Gone);

        let elsewhere = temp.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("mkdir");
        symlink(&elsewhere, &path).expect("link");
        let refused = directory.made_anew();
        assert!(
            matches!(refused, Err(NotFollowed::Unreadable(_))),
            "{refused:?}"
        );
        fs::remove_file(&path).expect("remove");

        fs::create_dir(&path).expect("mkdir");
        let held = state.clone();
        let anew = directory.made_anew().expect("the same mount and owner");
        assert!(anew.intact().is_ok() && !directory.is_intact());
        assert!(!anew.is(state.session()));
        state.follow(anew.fd()).expect("is made in it");
        assert!(anew.is(held.session()), "all who hold it go along");
        assert_eq!(held.presence(), Presence::InPlace);
        held.write("note", b"1").expect("write");
        assert!(path.join(".sessionkeep/note").exists());
    }
}
