//! The lock that proves that nobody else uses the session directory, and what the marker in it
//! says about the life before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Our own directory inside the session directory. Never archived.
pub(super) const OWN_DIR: &str = ".sessionkeep";
const LOCK: &str = "lock";
const MARKER: &str = "state.json";
/// A marker is a few hundred bytes; what is larger is none.
const MARKER_MAX: u64 = 1024 * 1024;

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody holds it.
    #[error(
        "failed to lock `{0}`: another sessionkeep uses this session directory; stop it, or give each its own directory"
    )]
    Held(PathBuf),
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
    _held: Flock<File>,
}

impl DirLock {
    /// Takes the lock of an existing session directory, or fails at once.
    ///
    /// # Errors
    /// [`LockError`]; nobody is waited for.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let own = dir.join(OWN_DIR);
        match DirBuilder::new().mode(0o700).create(&own) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LockError::Create { path: own, source });
            }
            _ => {}
        }
        let path = own.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(source) => return Err(LockError::Create { path, source }),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Self { _held: held }),
            Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Held(path)),
            Err((_, errno)) => Err(LockError::Lock {
                path,
                source: errno.into(),
            }),
        }
    }
}

/// The instance that the marker of `dir` names, whose lease may be continued by whoever holds the
/// lock. Anything unexpected means none: the restorer reads the marker thoroughly.
pub fn predecessor(dir: &Path) -> Option<String> {
    let path = dir.join(OWN_DIR).join(MARKER);
    if fs::metadata(&path).ok()?.len() > MARKER_MAX {
        return None;
    }
    predecessor_in(&fs::read(&path).ok()?)
}

/// As [`predecessor`], from a marker's content.
pub(crate) fn predecessor_in(marker: &[u8]) -> Option<String> {
    let marker: serde_json::Value = serde_json::from_slice(marker).ok()?;
    let instance = marker.get("instance")?.as_str()?;
    (!instance.is_empty() && !instance.contains('\0')).then(|| instance.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(mode(&dir.path().join(OWN_DIR)), 0o700);
        assert_eq!(mode(&dir.path().join(OWN_DIR).join(LOCK)), 0o600);
    }

    #[test]
    fn only_a_marker_that_names_an_instance_gives_a_predecessor() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(predecessor(dir.path()), None);
        fs::create_dir(dir.path().join(OWN_DIR)).expect("mkdir");
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
            fs::write(dir.path().join(OWN_DIR).join(MARKER), text).expect("write");
            assert_eq!(predecessor(dir.path()).as_deref(), expected, "{text}");
        }
    }
}
