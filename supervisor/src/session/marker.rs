//! What the directory remembers of the archive: `.sessionkeep/state.json`.
//!
//! The marker tells the next boot which commit the directory stands for. It is written after the
//! commit it names, so it may lag behind the truth and never runs ahead of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::entry::Digest;

use super::durable;

/// Our own directory inside the session directory; never archived.
pub const STATE_DIR: &str = ".sessionkeep";
const FILE: &str = "state.json";
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
}

/// Why the marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It is there and cannot be read.
    #[error("failed to read the marker `{}`", path.display())]
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
pub(crate) enum Wrong {
    Malformed(serde_json::Error),
    Version(u32),
}

/// Only what every version has, so that a newer marker is known as such whatever else is in it.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Marker {
    /// Reads the marker of the session directory `root`; `None` where there is none.
    ///
    /// # Errors
    /// [`MarkerError`], split by what a caller does about it.
    pub fn read(root: &Path) -> Result<Option<Self>, MarkerError> {
        let path = root.join(STATE_DIR).join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(MarkerError::Unreadable { path, source }),
        };
        Self::decode(&bytes).map(Some).map_err(|wrong| match wrong {
            Wrong::Malformed(source) => MarkerError::Malformed { path, source },
            Wrong::Version(found) => MarkerError::Version { path, found },
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
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
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let dir = root.join(STATE_DIR);
        durable::own_dir(&dir)?;
        let mut bytes = serde_json::to_vec_pretty(self).expect("a marker has string keys only");
        bytes.push(b'\n');
        durable::write(&dir, FILE, &bytes)
    }

    /// Removes the marker; absent is a success.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove(root: &Path) -> io::Result<()> {
        let dir = root.join(STATE_DIR);
        match fs::remove_file(dir.join(FILE)) {
            Ok(()) => durable::sync_dir(&dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::session) fn sample(seq: u64) -> Marker {
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
        }
    }

    #[test]
    fn a_marker_comes_back_as_written_and_is_gone_when_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(Marker::read(dir.path()).expect("none"), None);
        for seq in [1, 2] {
            sample(seq).write(dir.path()).expect("write");
            assert_eq!(Marker::read(dir.path()).expect("read"), Some(sample(seq)));
        }
        let names: Vec<_> = fs::read_dir(dir.path().join(STATE_DIR))
            .expect("list")
            .map(|e| e.expect("entry").file_name())
            .collect();
        assert_eq!(names, [FILE], "a temporary file stayed behind");
        Marker::remove(dir.path()).expect("remove");
        Marker::remove(dir.path()).expect("remove again");
        assert_eq!(Marker::read(dir.path()).expect("none"), None);
    }

    #[test]
    fn what_a_crash_left_of_a_write_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("tempdir");
        sample(1).write(dir.path()).expect("write");
        fs::write(dir.path().join(STATE_DIR).join("state.json.tmp"), "{").expect("leftover");
        sample(2).write(dir.path()).expect("write");
        assert_eq!(Marker::read(dir.path()).expect("read"), Some(sample(2)));
    }

    #[test]
    fn a_torn_marker_and_a_newer_one_are_told_apart() {
        let dir = tempfile::tempdir().expect("tempdir");
        sample(1).write(dir.path()).expect("write");
        let file = dir.path().join(STATE_DIR).join(FILE);
        fs::write(&file, "{\"version\":1,").expect("tear");
        assert!(matches!(
            Marker::read(dir.path()),
            Err(MarkerError::Malformed { .. })
        ));
        fs::write(&file, "{\"version\":2,\"new\":{}}").expect("replace");
        let error = Marker::read(dir.path()).expect_err("newer");
        assert!(
            matches!(error, MarkerError::Version { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_state_directory_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(STATE_DIR)).expect("link");
        assert!(sample(1).write(dir.path()).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).expect("list").count(), 0);
    }
}
