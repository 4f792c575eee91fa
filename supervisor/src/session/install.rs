//! Putting a staged directory in place of the old one, so that a crash at any point can be
//! repeated to the end.
//!
//! A journal, `.sessionkeep/install.json`, is written once everything staged is on the disk. From
//! then on there is only one way, forward:
//! 1. *clearing*: every old item is renamed into `.sessionkeep/replaced/LABEL/`;
//! 2. *placing*: every staged item is renamed into the session directory.
//!
//! The journal says which of the two it is, so that an item in the session directory is known for
//! an old one or a new one by the phase alone. Each rename can be done once only, and is skipped
//! when it was done; so [`recover`] runs the very same steps from the start of the phase.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::entry::RelPath;

use super::durable;
use super::marker::{Marker, STATE_DIR};
use super::rights::is_refused;
use super::stage::{STAGING, Stage, StageError};

const JOURNAL: &str = "install.json";
const REPLACED: &str = "replaced";

/// What an installation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where the old content is now; `None` where there was none.
    pub replaced: Option<PathBuf>,
    /// How many items, at the top of the session directory, it has.
    pub replaced_entries: u64,
}

/// What [`recover`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing was left undone.
    Nothing,
    /// A restore was interrupted before it touched the session directory; its remains were removed.
    Discarded,
    /// A restore was interrupted while it was put in place; it is in place now.
    Finished {
        /// What the directory holds now.
        marker: Marker,
        /// What was done to the old content.
        installed: Installed,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Clearing,
    Placing,
}

/// The journal's format. Any other than ours was written by a newer version, which is to finish
/// what it began.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

impl TryFrom<u32> for Version {
    type Error = String;
    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            _ => Err(format!(
                "it is of version {version}, and this sessionkeep reads version 1; start the newer one that wrote it"
            )),
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

/// One name, which leads nowhere else wherever it is joined to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Label(String);

impl TryFrom<String> for Label {
    type Error = String;
    fn try_from(label: String) -> Result<Self, String> {
        match RelPath::new(label.as_bytes()) {
            Ok(path) if path.parent().is_none() => Ok(Self(label)),
            _ => Err("its label is no plain name".to_owned()),
        }
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Journal {
    version: Version,
    phase: Phase,
    marker: Marker,
    /// Name below `replaced/`; none where there was nothing to replace.
    label: Option<Label>,
    replaced_entries: u64,
    /// Modes of directories at the top that could not have been moved with them.
    late_modes: Vec<(RelPath, u32)>,
}

impl Journal {
    pub(crate) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The name below [`REPLACED`].
    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_ref().map(|Label(name)| &name[..])
    }

    /// Every path that it names.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.late_modes.iter().map(|(path, _)| path)
    }
}

/// A place where the installation could be interrupted, for tests: called before each effect.
pub(super) type Step<'a> = &'a mut dyn FnMut(&'static str) -> Result<(), StageError>;

impl Stage {
    /// Puts what was staged in place of what is in the session directory, which is kept below
    /// `.sessionkeep/replaced/`, under `label` or, where that is taken, `label` and a number.
    /// Writes `marker`.
    ///
    /// # Errors
    /// [`StageError`]. Where the journal had been written by then, [`recover`] goes on with it;
    /// else the session directory is as it was and the staging is removed.
    pub fn install(self, marker: &Marker, label: &str) -> Result<Installed, StageError> {
        self.install_with(marker, label, &mut |_| Ok(()))
    }

    /// Puts what was staged into its directory as a plain copy: no marker, and nothing of ours
    /// stays behind. The directory must hold nothing else.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn install_copy(self) -> Result<(), StageError> {
        let root = self.root.clone();
        // The journal wants one; it goes with all else that is ours.
        let marker = Marker {
            version: super::marker::VERSION,
            archive: String::new(),
            instance: String::new(),
            epoch: 0,
            seq: 0,
            root: crate::entry::Digest::default(),
            mode: super::marker::Mode::Store,
            history: String::new(),
            updated_ms: 0,
        };
        self.install(&marker, "copy")?;
        let state = root.join(STATE_DIR);
        durable::remove_tree(&state).map_err(|source| StageError::Io {
            action: "remove",
            what: state.display().to_string(),
            source,
        })
    }

    pub(super) fn install_with(
        mut self,
        marker: &Marker,
        label: &str,
        step: Step<'_>,
    ) -> Result<Installed, StageError> {
        let root = self.root.clone();
        let late_modes = self.seal_dirs()?;
        self.refusals.report();
        let old = items(&root)?;
        refuse_mount_points(&root, &old)?;
        step("sync")?;
        syncfs(self.fd()).map_err(StageError::sys("write out", self.path().display()))?;
        let label = (!old.is_empty()).then(|| Label(free_label(&root, label)));
        let journal = Journal {
            version: Version,
            phase: Phase::Clearing,
            marker: marker.clone(),
            label,
            replaced_entries: old.len() as u64,
            late_modes,
        };
        step("write the journal")?;
        let written = write_journal(&root, &journal);
        // Where only making it durable failed, it is there and counts.
        self.keep = root.join(STATE_DIR).join(JOURNAL).exists();
        match written {
            Ok(()) => carry_out(&root, journal, step),
            Err(error) if self.keep => Err(error.half_in_place()),
            Err(error) => Err(error),
        }
    }
}

/// Must run before anything else looks at the session directory: finishes an installation that
/// was interrupted, or removes the remains of a restore that never got there.
///
/// # Errors
/// [`StageError`]; nothing is lost, and it can be called again.
pub fn recover(root: &Path) -> Result<Recovered, StageError> {
    recover_with(root, &mut |_| Ok(()))
}

pub(super) fn recover_with(root: &Path, step: Step<'_>) -> Result<Recovered, StageError> {
    let state = root.join(STATE_DIR);
    let path = state.join(JOURNAL);
    let staging = state.join(STAGING);
    match fs::read(&path) {
        Ok(bytes) => {
            let journal =
                Journal::decode(&bytes).map_err(|source| StageError::Journal { path, source })?;
            let marker = journal.marker.clone();
            let installed = carry_out(root, journal, step)?;
            Ok(Recovered::Finished { marker, installed })
        }
        Err(error) if is_absent(&error) => {
            if staging.symlink_metadata().is_err() {
                return Ok(Recovered::Nothing);
            }
            step("discard")?;
            durable::remove_tree(&staging).map_err(StageError::io("remove", staging.display()))?;
            Ok(Recovered::Discarded)
        }
        Err(error) => Err(StageError::io("read", path.display())(error)),
    }
}

fn carry_out(root: &Path, journal: Journal, step: Step<'_>) -> Result<Installed, StageError> {
    steps(root, journal, step).map_err(StageError::half_in_place)
}

fn steps(root: &Path, mut journal: Journal, step: Step<'_>) -> Result<Installed, StageError> {
    let state = root.join(STATE_DIR);
    let staging = state.join(STAGING);
    let replaced = journal
        .label
        .as_ref()
        .map(|Label(l)| state.join(REPLACED).join(l));
    let sync = |dir: &Path| durable::sync_dir(dir).map_err(StageError::io("sync", dir.display()));
    if journal.phase == Phase::Clearing {
        if let Some(replaced) = &replaced {
            step("create the place for the old content")?;
            let above = state.join(REPLACED);
            durable::own_dir(&above)
                .and_then(|()| durable::own_dir(replaced))
                .and_then(|()| durable::sync_dir(&state))
                .and_then(|()| durable::sync_dir(&above))
                .map_err(StageError::io("create", replaced.display()))?;
            for name in items(root)? {
                step("move an old item")?;
                move_item(root, replaced, &name)?;
            }
            sync(replaced)?;
        }
        sync(root)?;
        step("note that the old content is out")?;
        journal.phase = Phase::Placing;
        write_journal(root, &journal)?;
    }
    for name in staged(&staging)? {
        step("move a new item")?;
        move_item(&staging, root, &name)?;
    }
    for (path, mode) in &journal.late_modes {
        step("set a mode")?;
        let path = path.under(root);
        match fs::set_permissions(&path, fs::Permissions::from_mode(*mode)) {
            Err(error) if is_refused(&error) => {
                warn!(target: "boot", path = %path.display(), %error, "a mode was not taken");
            }
            other => other.map_err(StageError::io("set the mode of", path.display()))?,
        }
    }
    step("sync the new content's names")?;
    sync(root)?;
    step("write the marker")?;
    let written = journal.marker.write(root);
    written.map_err(StageError::io("write the marker in", state.display()))?;
    step("remove the staging")?;
    durable::remove_tree(&staging).map_err(StageError::io("remove", staging.display()))?;
    step("remove the journal")?;
    durable::remove_file(&state.join(JOURNAL))
        .and_then(|()| durable::sync_dir(&state))
        .map_err(StageError::io("remove the journal in", state.display()))?;
    Ok(Installed {
        replaced,
        replaced_entries: journal.replaced_entries,
    })
}

fn write_journal(root: &Path, journal: &Journal) -> Result<(), StageError> {
    let state = root.join(STATE_DIR);
    let bytes = serde_json::to_vec(journal).expect("a journal has string keys only");
    let written = durable::write(&state, JOURNAL, &bytes);
    written.map_err(StageError::io("write the journal in", state.display()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The names at the top of the session directory that a restore replaces.
fn items(root: &Path) -> Result<Vec<OsString>, StageError> {
    let mut names = list(root).map_err(StageError::io("list", root.display()))?;
    names.retain(|name| name != STATE_DIR && name != "lost+found");
    Ok(names)
}

fn staged(staging: &Path) -> Result<Vec<OsString>, StageError> {
    match list(staging) {
        // It goes before the journal does.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(StageError::io("list", staging.display())),
    }
}

fn list(dir: &Path) -> io::Result<Vec<OsString>> {
    let names: io::Result<Vec<_>> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect();
    let mut names = names?;
    names.sort();
    Ok(names)
}

/// A mount point cannot be renamed. Better to say so before anything has moved.
fn refuse_mount_points(root: &Path, names: &[OsString]) -> Result<(), StageError> {
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev());
    let ours = device(root).map_err(StageError::io("look at", root.display()))?;
    for name in names {
        if device(&root.join(name)).is_ok_and(|theirs| theirs != ours) {
            return Err(StageError::MountPoint {
                name: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// `label`, or the first of `label-2`, `label-3` … that is free.
fn free_label(root: &Path, label: &str) -> String {
    let label: String = label
        .chars()
        .map(|c| if c == '/' || c == '\0' { '-' } else { c })
        .collect();
    let label = match label.as_str() {
        "" | "." | ".." => "old".to_owned(),
        _ => label,
    };
    let above = root.join(STATE_DIR).join(REPLACED);
    let is_free = |name: &String| above.join(name).symlink_metadata().is_err();
    let numbered = (2u64..).map(|number| format!("{label}-{number}"));
    std::iter::once(label.clone())
        .chain(numbered)
        .find(is_free)
        .expect("the numbers do not end")
}

fn move_item(from: &Path, to: &Path, name: &OsString) -> Result<(), StageError> {
    let (from, to) = (from.join(name), to.join(name));
    let moved = match fs::rename(&from, &to) {
        // Only a directory's own write permission is needed to move it elsewhere, since its `..`
        // changes; root does not need it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            move_read_only(&from, &to).map_err(|_| error)
        }
        other => other,
    };
    moved.map_err(StageError::io("move", from.display()))
}

fn move_read_only(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if !meta.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let writable = fs::Permissions::from_mode(meta.mode() & 0o7777 | 0o700);
    fs::set_permissions(from, writable)?;
    let moved = fs::rename(from, to);
    match fs::set_permissions(if moved.is_ok() { to } else { from }, meta.permissions()) {
        Err(error) if !is_refused(&error) => Err(error),
        _ => moved,
    }
}
