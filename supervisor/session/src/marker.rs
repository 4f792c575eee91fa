//! What the directory remembers of the archive: `.sessionkeep/state.json`.
//!
//! The marker tells the next boot which commit the directory stands for. It is written after the
//! commit it names, so it may lag behind the truth and never runs ahead of it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use sessionkeep_core::entry::Digest;

use sessionkeep_core::state_dir::StateDir;

const FILE: &str = "state.json";
/// A marker is a few hundred bytes.
const FILE_MAX: u64 = 1 << 20;
/// The marker's format that this version writes and reads.
pub const VERSION: u32 = 1;

/// Where the directory's newest state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the store; the directory follows it.
    Store,
    /// In the directory itself.
    File,
}

/// What the directory remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The marker's format; see [`VERSION`].
    pub version: u32,
    /// The archive's name.
    pub archive: String,
    /// The instance that last used the directory, whose lease may be continued.
    pub instance: String,
    /// The lease's epoch at which it did.
    pub epoch: u64,
    /// The last commit that the directory is known to hold.
    pub seq: u64,
    /// That commit's tree.
    pub root: Digest,
    /// Where the newest state is kept.
    pub mode: Mode,
    /// Id of the archive's first commit, in hex: tells an archive that was deleted and begun
    /// again under the same name from the one the directory knows. Empty where there is none.
    pub history: String,
    /// When this was written, in milliseconds since 1970; for people.
    pub updated_ms: u64,
    /// The directory was emptied, or deleted and made anew, while it was in use, and it is not judged
    /// yet whether what it holds by now may be committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unjudged: bool,
}

/// Why the marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It is there and cannot be read.
    #[error(
        "failed to read the marker `{}`; make it readable for this user, or delete it: what is in the directory is then set aside where the store has a session",
        path.display()
    )]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no marker; a caller may treat the directory as one without.
    #[error("failed to understand the marker `{}`", path.display())]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer version wrote it.
    #[error(
        "failed to understand the marker `{}`: it is of version {found}, and this sessionkeep reads up to {VERSION}; install a newer one",
        path.display()
    )]
    Version {
        /// Where it is.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
}

/// What is wrong with a marker's content.
#[derive(Debug)]
pub enum Wrong {
    /// It cannot be read.
    Malformed(serde_json::Error),
    /// A newer version wrote it.
    Version(u32),
}

/// Only what every version has, so that a newer marker is known as such whatever else is in it.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Marker {
    /// Reads the marker; `None` where there is none.
    ///
    /// # Errors
    /// [`MarkerError`], split by what a caller does about it.
    pub fn read(state: &StateDir) -> Result<Option<Self>, MarkerError> {
        let path = state.path().join(FILE);
        let bytes = match state.read(FILE, FILE_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(source) => return Err(MarkerError::Unreadable { path, source }),
        };
        Self::decode(&bytes).map(Some).map_err(|wrong| match wrong {
            Wrong::Malformed(source) => MarkerError::Malformed { path, source },
            Wrong::Version(found) => MarkerError::Version { path, found },
        })
    }

    /// Reads a marker's content.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let Versioned { version } = serde_json::from_slice(bytes).map_err(Wrong::Malformed)?;
        if version > VERSION {
            return Err(Wrong::Version(version));
        }
        serde_json::from_slice(bytes).map_err(Wrong::Malformed)
    }

    /// Writes the marker durably: a crash leaves the old one or this one.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write(&self, state: &StateDir) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a marker has string keys only");
        bytes.push(b'\n');
        state.write(FILE, &bytes)
    }

    /// Removes the marker; absent is a success.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove(state: &StateDir) -> io::Result<()> {
        state.remove(FILE)?;
        state.sync()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sessionkeep_core::state_dir::STATE_DIR;
    use std::fs;

    pub(crate) fn sample(seq: u64) -> Marker {
        Marker {
            version: VERSION,
            archive: "default".into(),
            instance: "host-0011223344".into(),
            epoch: 3,
            seq,
            root: Digest::of(b"tree"),
            mode: Mode::Store,
            history: "00".repeat(16),
            updated_ms: 1_700_000_000_000,
            unjudged: false,
        }
    }

    #[test]
    fn a_marker_comes_back_as_written_and_is_gone_when_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        assert_eq!(Marker::read(&state).expect("none"), None);
        for seq in [1, 2] {
            sample(seq).write(&state).expect("write");
            assert_eq!(Marker::read(&state).expect("read"), Some(sample(seq)));
        }
        let names: Vec<_> = fs::read_dir(dir.path().join(STATE_DIR))
            .expect("list")
            .map(|e| e.expect("entry").file_name())
            .collect();
        assert_eq!(names, [FILE], "a temporary file stayed behind");
        Marker::remove(&state).expect("remove");
        Marker::remove(&state).expect("remove again");
        assert_eq!(Marker::read(&state).expect("none"), None);
    }

    #[test]
    fn what_a_crash_left_of_a_write_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        sample(1).write(&state).expect("write");
        fs::write(dir.path().join(STATE_DIR).join("state.json.tmp"), "{").expect("leftover");
        sample(2).write(&state).expect("write");
        assert_eq!(Marker::read(&state).expect("read"), Some(sample(2)));
    }

    #[test]
    fn a_torn_marker_and_a_newer_one_are_told_apart() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        sample(1).write(&state).expect("write");
        let file = dir.path().join(STATE_DIR).join(FILE);
        fs::write(&file, "{\"version\":1,").expect("tear");
        assert!(matches!(
            Marker::read(&state),
            Err(MarkerError::Malformed { .. })
        ));
        fs::write(&file, "{\"version\":2,\"new\":{}}").expect("replace");
        let error = Marker::read(&state).expect_err("newer");
        assert!(
            matches!(error, MarkerError::Version { found: 2, .. }),
            "{error}"
        );
    }
}
