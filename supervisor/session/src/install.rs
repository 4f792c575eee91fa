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
//! when it was done; so [`recover`] runs the very same steps from the start of the phase. What cannot
//! be renamed is moved by `super::merge`, whose steps can be repeated as well.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{fsync, syncfs};
use serde::{Deserialize, Serialize};
use tracing::warn;

use sessionkeep_core::entry::{Meta, RelPath};
use sessionkeep_core::file_owner::is_refusal;

use super::marker::Marker;
use super::merge::{Mover, Way, give, keeps_its_own, list};
use super::mounts::{Mount, Mounts};
use super::obstacles;
use super::own_meta;
use super::reserved::{LOST_AND_FOUND, is_reserved_at_top};
use super::scan::{kind_bits, meta_of};
use super::stage::{STAGING, Stage, StageError};
use sessionkeep_core::beneath;
use sessionkeep_core::state_dir::{StateDir, own_dir};

const JOURNAL: &str = "install.json";
/// It names the directories at the top of the session directory whose modes have to wait.
const JOURNAL_MAX: u64 = 64 << 20;
/// Where what was replaced is kept, in our own directory.
pub const REPLACED: &str = "replaced";
/// The mode bits that a journal may set: a set-id bit comes with the staged directory, or not at all.
const LATE_BITS: u32 = 0o1777;

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

/// The journal's format. Any other than these was written by a newer version, which is to finish
/// what it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
enum Version {
    /// Everything can be renamed.
    Plain = 1,
    /// There are mounts, which releases that know of the first one only would stumble over.
    WithMounts = 2,
}

impl TryFrom<u32> for Version {
    type Error = String;
    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            1 => Ok(Self::Plain),
            2 => Ok(Self::WithMounts),
            _ => Err(format!(
                "it is of version {version}, and this sessionkeep reads up to version 2; start the newer one that wrote it"
            )),
        }
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version as Self
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

/// How far a restore has come in moving a staged directory into place. A start that finds one goes on
/// from there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Journal {
    version: Version,
    phase: Phase,
    marker: Marker,
    /// Name below `replaced/`; none where there was nothing to replace.
    label: Option<Label>,
    replaced_entries: u64,
    /// Modes of directories at the top that could not have been moved with them.
    late_modes: Vec<(RelPath, u32)>,
    /// What the session directory itself gets; unknown to the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own: Option<Meta>,
    /// What is mounted below the session directory. Where that is another when the journal is taken up
    /// again, it is not known any more which content is old and which new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<RelPath>,
    /// What the directories get that stay because of a mount in them; the deepest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    staying: Vec<(RelPath, Meta)>,
}

impl Journal {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is none, or names what is no name below our own directory.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The name below [`REPLACED`].
    pub fn label(&self) -> Option<&str> {
        self.label.as_ref().map(|Label(name)| &name[..])
    }

    /// Every path that it names.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        let staying = self.staying.iter().map(|(path, _)| path);
        let late = self.late_modes.iter().map(|(path, _)| path);
        late.chain(staying).chain(&self.mounts)
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
        let state = self.state.clone();
        // The journal wants one; it goes with all else that is ours.
        let marker = Marker {
            version: super::marker::VERSION,
            archive: String::new(),
            instance: String::new(),
            epoch: 0,
            seq: 0,
            root: sessionkeep_core::entry::Digest::default(),
            mode: super::marker::Mode::Store,
            history: String::new(),
            updated_ms: 0,
            unjudged: false,
        };
        self.install(&marker, "copy")?;
        let path = state.path();
        state
            .remove_all()
            .map_err(StageError::io("remove", path.display()))
    }

    pub(super) fn install_with(
        mut self,
        marker: &Marker,
        label: &str,
        step: Step<'_>,
    ) -> Result<Installed, StageError> {
        let state = self.state.clone();
        let late_modes = self.seal_dirs()?;
        self.refusals.report();
        let mounts = mounts_of(&state)?;
        let mut old = items(&state)?;
        obstacles::look(&state, self.fd().as_fd(), &old, &mounts)?;
        let staying = staying(self.fd().as_fd(), &mounts)?;
        if !mounts.is_empty() {
            old.retain(|name| !obstacles::is_bare(&state, name, &mounts));
        }
        step("sync")?;
        syncfs(self.fd()).map_err(StageError::sys("write out", self.path().display()))?;
        let label = match old.is_empty() {
            true => None,
            false => Some(Label(free_label(&state, label)?)),
        };
        let journal = Journal {
            version: match mounts.is_empty() {
                true => Version::Plain,
                false => Version::WithMounts,
            },
            phase: Phase::Clearing,
            marker: marker.clone(),
            label,
            replaced_entries: old.len() as u64,
            late_modes,
            own: self.own,
            mounts: mounts.iter().map(|mount| mount.path.clone()).collect(),
            staying,
        };
        step("write the journal")?;
        let written = write_journal(&state, &journal);
        // Where only making it durable failed, it is there and counts.
        self.keep = state.has(JOURNAL);
        match written {
            Ok(()) => carry_out(&state, journal, step),
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
pub fn recover(state: &StateDir) -> Result<Recovered, StageError> {
    recover_with(state, &mut |_| Ok(()))
}

pub(super) fn recover_with(state: &StateDir, step: Step<'_>) -> Result<Recovered, StageError> {
    let path = state.path().join(JOURNAL);
    match state.read(JOURNAL, JOURNAL_MAX) {
        Ok(Some(bytes)) => {
            let journal =
                Journal::decode(&bytes).map_err(|source| StageError::Journal { path, source })?;
            let marker = journal.marker.clone();
            let installed = carry_out(state, journal, step)?;
            Ok(Recovered::Finished { marker, installed })
        }
        Ok(None) => {
            if !state.has(STAGING) {
                return Ok(Recovered::Nothing);
            }
            step("discard")?;
            remove_staging(state)?;
            Ok(Recovered::Discarded)
        }
        Err(error) => Err(StageError::io("read", path.display())(error)),
    }
}

/// Whether an interrupted restore waits for the next start to finish it.
///
/// # Errors
/// [`StageError`] where that start will not understand it.
pub fn is_interrupted(state: &StateDir) -> Result<bool, StageError> {
    let path = state.path().join(JOURNAL);
    match state.read(JOURNAL, JOURNAL_MAX) {
        Ok(None) => Ok(false),
        Ok(Some(bytes)) => match Journal::decode(&bytes) {
            Ok(_) => Ok(true),
            Err(source) => Err(StageError::Journal { path, source }),
        },
        Err(error) => Err(StageError::io("read", path.display())(error)),
    }
}

fn remove_staging(state: &StateDir) -> Result<(), StageError> {
    let removed = state.remove_tree(STAGING);
    removed.map_err(StageError::io(
        "remove",
        state.path().join(STAGING).display(),
    ))
}

fn carry_out(state: &StateDir, journal: Journal, step: Step<'_>) -> Result<Installed, StageError> {
    steps(state, journal, step).map_err(StageError::half_in_place)
}

fn steps(state: &StateDir, mut journal: Journal, step: Step<'_>) -> Result<Installed, StageError> {
    let root = state.session();
    let mounts = mounts_of(state)?;
    same_mounts(&journal.mounts, &mounts)?;
    let mover = |way| Mover {
        way,
        mounts: &mounts,
        root: state.session_path(),
    };
    let label = journal.label.as_ref().map(|Label(label)| &label[..]);
    let replaced = label.map(|label| state.path().join(REPLACED).join(label));
    let sync_root = || fsync(root).map_err(StageError::sys("sync", state.session_path().display()));
    if journal.phase == Phase::Clearing {
        if let (Some(label), Some(path)) = (label, &replaced) {
            step("create the place for the old content")?;
            let made = state.dir(REPLACED).and_then(|above| {
                let place = own_dir(above.as_fd(), label.as_bytes())?;
                state.sync()?;
                fsync(&above)?;
                Ok(place)
            });
            let place = made.map_err(StageError::io("create", path.display()))?;
            mover(Way::Out).run(root, place.as_fd(), items(state)?, step)?;
            fsync(&place).map_err(StageError::sys("sync", path.display()))?;
        }
        sync_root()?;
        step("note that the old content is out")?;
        journal.phase = Phase::Placing;
        write_journal(state, &journal)?;
    }
    if let Some(staging) = staging(state)? {
        let names = list(staging.as_fd()).map_err(StageError::io("list", STAGING))?;
        mover(Way::In).run(staging.as_fd(), root, names, step)?;
    }
    for (path, meta) in &journal.staying {
        step("give a directory that stayed its metadata")?;
        give_staying(root, path, meta)
            .map_err(StageError::sys("set the mode and time of", path))?;
    }
    for (path, mode) in &journal.late_modes {
        step("set a mode")?;
        match set_late_mode(root, path, *mode) {
            Err(errno) if is_refusal(errno) => {
                warn!(target: "boot", %path, error = errno.desc(), "a mode was not taken");
            }
            other => other.map_err(StageError::sys("set the mode of", path))?,
        }
    }
    if let Some(own) = &journal.own {
        step("give the session directory its own metadata")?;
        let path = state.session_path();
        own_meta::give(root, own)
            .map_err(StageError::sys("set the mode and time of", path.display()))?;
    }
    step("sync the new content's names")?;
    sync_root()?;
    step("write the marker")?;
    let own = state.path();
    let written = journal.marker.write(state);
    written.map_err(StageError::io("write the marker in", own.display()))?;
    step("remove the staging")?;
    remove_staging(state)?;
    step("remove the journal")?;
    state
        .remove(JOURNAL)
        .and_then(|()| state.sync())
        .map_err(StageError::io("remove the journal in", own.display()))?;
    Ok(Installed {
        replaced,
        replaced_entries: journal.replaced_entries,
    })
}

/// Through the directory itself: a name could be a link's by now. Its set-id bits stay as they are.
fn set_late_mode(root: BorrowedFd<'_>, path: &RelPath, mode: u32) -> nix::Result<()> {
    let dir = beneath::open_dir(root, path.as_bytes())?;
    let set_id = fstat(&dir)?.st_mode & 0o6000;
    fchmod(&dir, Mode::from_bits_truncate(mode & LATE_BITS | set_id))
}

/// Through the directory itself, as [`set_late_mode`].
fn give_staying(root: BorrowedFd<'_>, path: &RelPath, meta: &Meta) -> nix::Result<()> {
    let dir = beneath::open_dir(root, path.as_bytes())?;
    let set_id = fstat(&dir)?.st_mode & 0o6000;
    let mode = meta.mode & LATE_BITS | set_id;
    give(dir.as_fd(), &Meta { mode, ..*meta })?;
    fsync(&dir)
}

fn mounts_of(state: &StateDir) -> Result<Mounts, StageError> {
    let path = state.session_path().display();
    Mounts::below(state.session()).map_err(StageError::io("look for mounts in", path))
}

/// Refuses to go on where something was mounted or unmounted since the journal was written.
fn same_mounts(before: &[RelPath], now: &Mounts) -> Result<(), StageError> {
    let gone = before.iter().find(|path| now.at(path.as_bytes()).is_none());
    if let Some(path) = gone {
        let path = path.clone();
        return Err(StageError::MountGone { path });
    }
    match now.iter().find(|mount| !before.contains(&mount.path)) {
        Some(Mount { path, .. }) => Err(StageError::MountCame { path: path.clone() }),
        None => Ok(()),
    }
}

/// The directories that stay where they are because of the `mounts`, with what is staged for them.
fn staying(staged: BorrowedFd<'_>, mounts: &Mounts) -> Result<Vec<(RelPath, Meta)>, StageError> {
    let mut found = Vec::new();
    for mount in mounts.iter().filter(|mount| !keeps_its_own(mount)) {
        let mut at = Some(mount.path.clone());
        while let Some(path) = at {
            let is_kept = mounts.holding(&path).is_some_and(keeps_its_own);
            if let Ok(dir) = beneath::open_dir(staged, path.as_bytes())
                && !is_kept
            {
                let stat = fstat(&dir).map_err(StageError::sys("look at", &path))?;
                found.push((path.clone(), meta_of(&stat)));
            }
            at = path.parent();
        }
    }
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found.dedup_by(|(a, _), (b, _)| a == b);
    Ok(found)
}

fn write_journal(state: &StateDir, journal: &Journal) -> Result<(), StageError> {
    let bytes = serde_json::to_vec(journal).expect("a journal has string keys only");
    let written = state.write(JOURNAL, &bytes);
    written.map_err(StageError::io(
        "write the journal in",
        state.path().display(),
    ))
}

/// The names at the top of the session directory that a restore replaces.
fn items(state: &StateDir) -> Result<Vec<CString>, StageError> {
    let listed = list(state.session());
    let mut names = listed.map_err(StageError::io("list", state.session_path().display()))?;
    let in_the_way = is_staged(state, LOST_AND_FOUND)?;
    names.retain(|name| match name.to_bytes() {
        // The file system's own goes only where the gateway has a file of its name.
        lost if lost == LOST_AND_FOUND.as_bytes() => in_the_way || !is_dir(state.session(), name),
        name => !is_reserved_at_top(name, true),
    });
    Ok(names)
}

/// The staged content; it goes before the journal does.
fn staging(state: &StateDir) -> Result<Option<OwnedFd>, StageError> {
    match beneath::open_dir(state.fd(), STAGING.as_bytes()) {
        Ok(staging) => Ok(Some(staging)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(StageError::sys("open", STAGING)(errno)),
    }
}

/// Whether an item of this name is to be put in place.
fn is_staged(state: &StateDir, name: &str) -> Result<bool, StageError> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(staging(state)?.is_some_and(|staging| fstatat(&staging, name, flags).is_ok()))
}

fn is_dir(above: BorrowedFd<'_>, name: &CStr) -> bool {
    let found = fstatat(above, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| kind_bits(&found) == SFlag::S_IFDIR)
}

/// `label`, or the first of `label-2`, `label-3` … that is free.
fn free_label(state: &StateDir, label: &str) -> Result<String, StageError> {
    let label: String = label
        .chars()
        .map(|c| if c == '/' || c == '\0' { '-' } else { c })
        .collect();
    let label = match label.as_str() {
        "" | "." | ".." => "old".to_owned(),
        _ => label,
    };
    let above = match beneath::open_dir(state.fd(), REPLACED.as_bytes()) {
        Ok(above) => above,
        Err(Errno::ENOENT) => return Ok(label),
        Err(errno) => {
            let path = state.path().join(REPLACED);
            return Err(StageError::sys("open", path.display())(errno));
        }
    };
    let is_free = |name: &String| fstatat(&above, &name[..], AtFlags::AT_SYMLINK_NOFOLLOW).is_err();
    let numbered = (2u64..).map(|number| format!("{label}-{number}"));
    let free = std::iter::once(label.clone()).chain(numbered).find(is_free);
    Ok(free.expect("the numbers do not end"))
}
