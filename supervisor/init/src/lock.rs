//! The lock that proves that nobody else uses the session directory, and what the marker in it
//! says about the life before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use sessionkeep_core::state_dir::{StateDir, StateDirError};

const LOCK: &str = "lock";
const MARKER: &str = "state.json";
/// A marker is a few hundred bytes; what is larger is none.
const MARKER_MAX: u64 = 1024 * 1024;

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Our own directory, where it lies, cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// Somebody holds it.
    #[error(
        "failed to lock `{0}`: another sessionkeep uses this session directory; stop it, or give each its own directory"
    )]
    Held(PathBuf),
    /// Something else than a file has its name.
    #[error(
        "failed to lock `{0}`: it is no ordinary file; find out what put it there, and remove it"
    )]
    NoFile(PathBuf),
    /// Its file cannot be made.
    #[error("failed to create `{path}`; make the session directory writable for this user")]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system has no locks.
    #[error("failed to lock `{path}`; the session directory must be on a file system with locks")]
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The held lock. It is released when init ends, however it ends; children do not inherit it.
#[derive(Debug)]
pub struct DirLock {
    state: StateDir,
    _held: Flock<File>,
}

impl DirLock {
    /// Takes the lock of an existing session directory, or fails at once.
    ///
    /// # Errors
    /// [`LockError`]; nobody is waited for.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let state = StateDir::open(dir)?;
        let held = lock_in(&state)?;
        Ok(Self { state, _held: held })
    }

    /// Goes over to the directory that has the session directory's path by now, in which our own was
    /// made already, and takes its lock. The old one's is let go.
    ///
    /// # Errors
    /// [`LockError`]; nobody is waited for.
    pub fn follow(&mut self) -> Result<(), LockError> {
        let Some(new) = StateDir::existing(self.state.session_path())? else {
            let path = self.state.path();
            let source = io::ErrorKind::NotFound.into();
            return Err(LockError::Create { path, source });
        };
        if new.is(&self.state) {
            return Ok(());
        }
        let held = lock_in(&new)?;
        self.state.follow(new.session())?;
        self._held = held;
        Ok(())
    }
}

fn lock_in(state: &StateDir) -> Result<Flock<File>, LockError> {
    let path = state.path().join(LOCK);
    if state.is_no_file(LOCK) {
        return Err(LockError::NoFile(path));
    }
    let file = match state.open_kept(LOCK) {
        Ok(file) => file,
        Err(source) => return Err(LockError::Create { path, source }),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(held),
        Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Held(path)),
        Err((_, errno)) => Err(LockError::Lock {
            path,
            source: errno.into(),
        }),
    }
}

impl DirLock {
    /// Our own directory, in which the lock lies.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The instance that the marker names, whose lease may be continued by whoever holds the lock.
    /// Anything unexpected means none: the restorer reads the marker thoroughly.
    #[must_use]
    pub fn predecessor(&self) -> Option<String> {
        predecessor_in(&self.state.read(MARKER, MARKER_MAX).ok()??)
    }
}

/// As [`DirLock::predecessor`], from a marker's content.
pub fn predecessor_in(marker: &[u8]) -> Option<String> {
    let marker: serde_json::Value = serde_json::from_slice(marker).ok()?;
    let instance = marker.get("instance")?.as_str()?;
    (!instance.is_empty() && !instance.contains('\0')).then(|| instance.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sessionkeep_core::state_dir::STATE_DIR;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = DirLock::take(dir.path()).expect("free");
        let refused = DirLock::take(dir.path());
        assert!(matches!(refused, Err(LockError::Held(_))), "{refused:?}");
        drop(first);
        DirLock::take(dir.path()).expect("free again");
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join(STATE_DIR)), 0o700);
        assert_eq!(mode(&dir.path().join(STATE_DIR).join(LOCK)), 0o600);
    }

    #[test]
    fn what_is_no_file_is_called_so() {
        let dir = tempfile::tempdir().expect("tempdir");
        drop(DirLock::take(dir.path()).expect("free"));
        let lock = dir.path().join(STATE_DIR).join(LOCK);
        fs::remove_file(&lock).expect("remove");
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let refused = DirLock::take(dir.path());
        assert!(matches!(refused, Err(LockError::NoFile(_))), "{refused:?}");
    }

    #[test]
    fn only_a_marker_that_names_an_instance_gives_a_predecessor() {
        let dir = tempfile::tempdir().expect("tempdir");
        let lock = DirLock::take(dir.path()).expect("free");
        assert_eq!(lock.predecessor(), None);
        for (text, expected) in [
            ("", None),
            ("{", None),
            ("[]", None),
            (r#"{"instance":7}"#, None),
            (r#"{"instance":""}"#, None),
            (
                r#"{"version":1,"instance":"host-00ff","seq":3}"#,
                Some("host-00ff"),
            ),
        ] {
            fs::write(dir.path().join(STATE_DIR).join(MARKER), text).expect("write");
            assert_eq!(lock.predecessor().as_deref(), expected, "{text}");
        }
    }
}
