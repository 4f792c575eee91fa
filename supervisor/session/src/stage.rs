//! Building a restored directory beside the old one, in the same file system.
//!
//! Everything is created relative to open directories that were made here, so that no link on
//! the way can lead out. The kernel is asked only for what is not so already: a restore of many
//! small files shall cost hardly more than writing them. [`Stage::install`] puts it in place.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, ftruncate, linkat, symlinkat, unlinkat};

use crate::rights::RestoreOwner;
use sessionkeep_core::entry::{Meta, Owner, RelPath, symlink_stays_inside};
use sessionkeep_core::file_owner::is_refusal;

use super::reserved;
use super::rights::Refusals;
use super::staged::{CREATE, Creation, Entry, write_all};
use sessionkeep_core::beneath::OPEN_DIR;
use sessionkeep_core::state_dir::StateDir;

pub use super::staged::StagedFile;

/// Where the new directory is built, inside [`STATE_DIR`].
pub(super) const STAGING: &str = "staging";
/// At most this many directories are held open. Files come in the order of their paths, so that
/// few are needed at a time.
const OPEN_DIRS_MAX: usize = 64;
/// Of the directories above one that is opened, at most this many are held as well.
const HELD_ON_THE_WAY: usize = 16;

/// Why a restore cannot go on. The session directory is as it was, unless [`Stage::install`] had
/// begun; then [`super::recover`] finishes it.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// No space left, or no quota.
    #[error(
        "failed to write `{what}`: the disk is full: it needs {needs} bytes more, {free} are free"
    )]
    Full {
        /// What was being written.
        what: String,
        /// How many bytes it takes.
        needs: u64,
        /// How many there are.
        free: u64,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// An entry that no archive may bring.
    #[error("refused to restore {path:?}: {why}")]
    Refused {
        /// Which.
        path: RelPath,
        /// Why.
        why: &'static str,
    },
    /// A mount stands where something else is to be restored.
    #[error(
        "failed to replace the session directory's `{name}`: it is a mount, and what is to be restored has another kind of entry at `{wanted}`; unmount it, or mount the whole session directory instead"
    )]
    MountPoint {
        /// Which.
        name: String,
        /// Where the archive has something else.
        wanted: RelPath,
    },
    /// A mount keeps what it has, and that is a login of another moment than the rest.
    #[error(
        "refused to restore beside `{path}`: it is mounted into the session directory by itself or takes no writes, belongs to a login, and differs from the archive; mount the whole session directory instead of single files, or unmount it"
    )]
    MountedLogin {
        /// Which.
        path: RelPath,
    },
    /// Something in the session directory is another user's, who alone could move it.
    #[error(
        "failed to set the session directory's `{name}` aside: it belongs to user {owner}, and sessionkeep runs as user {user}; give it to that user with `chown -R {user}`, or run sessionkeep as root"
    )]
    NotOurs {
        /// Which.
        name: String,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// What an interrupted restore was putting things into is not there any more.
    #[error(
        "refused to finish an interrupted restore: `{path}` in the session directory was a mount then, and is none now; mount it again and start again"
    )]
    MountGone {
        /// Which.
        path: RelPath,
    },
    /// Something covers what an interrupted restore was putting in place.
    #[error(
        "refused to finish an interrupted restore: `{path}` in the session directory is a mount now, and was none then; unmount it, start again, and mount it after the next stop"
    )]
    MountCame {
        /// Which.
        path: RelPath,
    },
    /// An interrupted restore left a journal that cannot be understood.
    #[error(
        "failed to understand the journal `{}` of an interrupted restore; the old content is below `.sessionkeep/replaced`, the new below `.sessionkeep/staging`. Start the version that wrote it, if that is newer; else move everything out of the session directory, `.sessionkeep` too, and the next start restores what the store has",
        path.display()
    )]
    Journal {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The journal is written, and what it says could not be carried out to its end.
    #[error(
        "failed to put the restored directory in place; mend what stands in the way and start again, \
         which tries to go on from here: until then old and new are both kept in `.sessionkeep`"
    )]
    HalfInPlace(#[source] Box<StageError>),
    /// A file system without symbolic links. One that is left out would be gone from the archive with
    /// the next commit.
    #[error(
        "failed to create the symbolic link `{path}`: the session directory's file system has none; put the session directory on another volume"
    )]
    NoLinks {
        /// Which.
        path: RelPath,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Anything else that the file system refused.
    #[error("failed to {action} `{what}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        what: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
}

impl StageError {
    pub(super) fn io(
        action: &'static str,
        what: impl ToString,
    ) -> impl FnOnce(io::Error) -> StageError {
        let what = what.to_string();
        move |source| Self::Io {
            action,
            what,
            source,
        }
    }

    /// Whether it is how the container was set up that stands in the way, so that another try is of no use
    /// before somebody has changed that.
    #[must_use]
    pub fn is_of_the_setup(&self) -> bool {
        match self {
            Self::HalfInPlace(inner) => inner.is_of_the_setup(),
            other => matches!(
                other,
                Self::MountPoint { .. }
                    | Self::MountedLogin { .. }
                    | Self::NotOurs { .. }
                    | Self::MountGone { .. }
                    | Self::MountCame { .. }
            ),
        }
    }

    /// Of a step that a journal says is to be done.
    pub(super) fn half_in_place(self) -> Self {
        Self::HalfInPlace(Box::new(self))
    }

    pub(super) fn sys(action: &'static str, what: impl ToString) -> impl FnOnce(Errno) -> Self {
        let what = Self::io(action, what);
        move |errno| what(errno.into())
    }
}

/// How many bytes may still be written in the file system of `root`.
///
/// # Errors
/// What the file system said.
pub fn free_space(root: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(root)?;
    #[allow(clippy::unnecessary_cast, reason = "the width differs by platform")]
    Ok((stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64))
}

/// A directory that is being built. Dropping it removes what was built.
#[derive(Debug)]
pub struct Stage {
    pub(super) state: StateDir,
    path: PathBuf,
    fd: OwnedFd,
    open: BTreeMap<Box<[u8]>, OwnedFd>,
    dirs: Vec<(RelPath, Meta)>,
    creation: Creation,
    /// The further names that files get when they are created.
    names: HashMap<RelPath, Vec<RelPath>>,
    pub(super) refusals: Refusals,
    /// What the session directory itself is to get.
    pub(super) own: Option<Meta>,
    /// Once the journal names the staging directory it belongs to the journal.
    pub(super) keep: bool,
}

impl Stage {
    /// Begins, with `.sessionkeep/staging` created anew, for entries that are to get `owners`.
    /// [`super::recover`] must have run.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn begin(state: &StateDir, owners: RestoreOwner) -> Result<Self, StageError> {
        let path = state.path().join(STAGING);
        let emptied = state.remove_tree(STAGING);
        emptied.map_err(StageError::io("empty", path.display()))?;
        let made = (|| {
            let fd = state.dir(STAGING)?;
            // A set-group-id session directory passes its group and that bit on; here the group
            // of each entry is ours to say.
            match fchmod(&fd, Mode::S_IRWXU) {
                Err(errno) if is_refusal(errno) => {}
                other => other?,
            }
            let creation = Creation::probe(&fd, owners)?;
            io::Result::Ok((fd, creation))
        })();
        let (fd, creation) = made.map_err(StageError::io("create", path.display()))?;
        Ok(Self {
            state: state.clone(),
            path,
            fd,
            open: BTreeMap::new(),
            dirs: Vec::new(),
            creation,
            names: HashMap::new(),
            refusals: Refusals::default(),
            own: None,
            keep: false,
        })
    }

    /// Where it is being built.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Creates a directory; one that is there already is a success. Directories above it are
    /// created as needed.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn dir(&mut self, path: &RelPath) -> Result<(), StageError> {
        admit(path, true)?;
        self.opened(path.as_bytes())
            .map(drop)
            .map_err(|errno| self.failed("create the directory", path, 4096, errno))
    }

    /// Whether files can have several names here: some file systems know no hard links.
    #[must_use]
    pub fn can_link(&self) -> bool {
        let linked = openat(&self.fd, "probe", CREATE | OFlag::O_WRONLY, Mode::S_IRUSR)
            .and_then(|_| linkat(&self.fd, "probe", &self.fd, "probe-link", AtFlags::empty()));
        for name in ["probe", "probe-link"] {
            let _ = unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir);
        }
        linked.is_ok()
    }

    /// Lets the file `path`, which is to be created after this, have the name `other`, too. It gets it
    /// while it is new, and ours: a file of another owner cannot be linked by everybody.
    ///
    /// # Errors
    /// [`StageError::Refused`] where no archive may bring that path.
    pub fn link(&mut self, path: &RelPath, other: RelPath) -> Result<(), StageError> {
        admit(&other, false)?;
        self.names.entry(path.clone()).or_default().push(other);
        Ok(())
    }

    /// Creates a file with its whole content.
    ///
    /// # Errors
    /// [`StageError`]; also where something of that name is there already.
    pub fn file(&mut self, path: &RelPath, meta: &Meta, content: &[u8]) -> Result<(), StageError> {
        admit(path, false)?;
        let creation = self.creation;
        let mode = meta.mode & 0o777;
        let written = self.create(path, OFlag::O_WRONLY, mode).and_then(|file| {
            write_all(&file, content)?;
            let (entry, refusals) = (Entry::File(&file), &mut self.refusals);
            creation.apply(entry, mode, meta, path, refusals)
        });
        written.map_err(|errno| self.failed("write", path, content.len() as u64, errno))
    }

    /// Creates a file whose content comes in pieces, as one hole: what of it is zeros takes no room.
    /// Readable by us alone until [`Stage::finish`].
    ///
    /// # Errors
    /// [`StageError`].
    pub fn begin_file(&mut self, path: &RelPath, size: u64) -> Result<StagedFile, StageError> {
        admit(path, false)?;
        let length = i64::try_from(size).map_err(|_| StageError::Refused {
            path: path.clone(),
            why: "no file can be that large",
        })?;
        let created = self.create(path, OFlag::O_RDWR, 0o600).and_then(|file| {
            ftruncate(&file, length)?;
            Ok(file)
        });
        match created {
            Ok(file) => Ok(StagedFile {
                file,
                path: path.clone(),
                root: self.state.session_path().to_owned(),
                size,
            }),
            Err(errno) => Err(self.failed("create", path, size, errno)),
        }
    }

    /// Creates a symbolic link, if it stays inside.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn symlink(
        &mut self,
        path: &RelPath,
        target: &[u8],
        meta: &Meta,
    ) -> Result<(), StageError> {
        admit(path, false)?;
        if !symlink_stays_inside(path, target) {
            return Err(StageError::Refused {
                path: path.clone(),
                why: "the link leads out of the session directory",
            });
        }
        let (dir, name) = path.split();
        let (creation, mut refusals) = (self.creation, std::mem::take(&mut self.refusals));
        let made = self.opened(dir).and_then(|dir| {
            symlinkat(target, dir, name)?;
            creation.apply(Entry::Link(dir, name), 0, meta, path, &mut refusals)
        });
        self.refusals = refusals;
        made.map_err(|errno| match errno {
            Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS => StageError::NoLinks {
                path: path.clone(),
                source: errno.into(),
            },
            errno => self.failed("create the link", path, 4096, errno),
        })
    }

    /// Gives a file that came in pieces its metadata; nothing can be written to it any more.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn finish(&mut self, file: StagedFile, meta: &Meta) -> Result<(), StageError> {
        let (entry, refusals) = (Entry::File(&file.file), &mut self.refusals);
        self.creation
            .apply(entry, 0o600, meta, &file.path, refusals)
            .map_err(StageError::sys("set the mode and time of", &file.path))
    }

    /// Notes a directory's metadata. It is set when everything is written, the deepest first, so
    /// that neither the order of calls nor a directory without write permission matters.
    ///
    /// # Errors
    /// [`StageError::Refused`] where no archive may bring that path.
    pub fn set_dir_meta(&mut self, path: &RelPath, meta: &Meta) -> Result<(), StageError> {
        admit(path, true)?;
        self.dirs.push((path.clone(), *meta));
        Ok(())
    }

    /// Notes what the session directory itself gets when all is in place; of owners, `owner` if there
    /// is one, else what every entry gets.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn set_own_meta(&mut self, meta: Meta, owner: Option<Owner>) -> Result<(), StageError> {
        let path = self.state.session_path().display();
        let now = fstat(self.state.session()).map_err(StageError::sys("look at", path))?;
        let now = Owner {
            uid: now.st_uid,
            gid: now.st_gid,
        };
        let owner = owner.unwrap_or(match self.creation.wants(&meta) {
            Some(owner) => owner,
            None => now,
        });
        self.own = Some(Meta { owner, ..meta });
        Ok(())
    }

    /// Removes what was built.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn discard(mut self) -> Result<(), StageError> {
        self.keep = true;
        self.remove()
    }

    fn remove(&mut self) -> Result<(), StageError> {
        let removed = self.state.remove_tree(STAGING);
        removed.map_err(StageError::io("remove", self.path.display()))
    }

    /// Sets the noted metadata of all directories. A directory at the top that its owner may not
    /// write cannot be moved by anybody but root, so the modes of those are returned for later.
    pub(super) fn seal_dirs(&mut self) -> Result<Vec<(RelPath, u32)>, StageError> {
        let mut dirs = std::mem::take(&mut self.dirs);
        let depth = |path: &RelPath| path.as_bytes().iter().filter(|b| **b == b'/').count();
        dirs.sort_by_cached_key(|(path, _)| std::cmp::Reverse(depth(path)));
        let mut late = Vec::new();
        for (path, meta) in dirs {
            let movable = depth(&path) > 0 || meta.mode & 0o300 == 0o300;
            // A set-id bit comes from here alone: what is set later comes from a journal.
            let mode = if movable {
                meta.mode
            } else {
                0o700 | meta.mode & 0o6000
            };
            self.set_meta(&path, &Meta { mode, ..meta })
                .map_err(StageError::sys("set the mode and time of", &path))?;
            if !movable {
                late.push((path, meta.mode));
            }
        }
        self.open.clear();
        Ok(late)
    }

    fn set_meta(&mut self, path: &RelPath, meta: &Meta) -> nix::Result<()> {
        let (creation, mut refusals) = (self.creation, std::mem::take(&mut self.refusals));
        let (dir, name) = path.split();
        let set = self.opened(dir).and_then(|dir| {
            // All were created like this.
            let created = 0o700;
            creation.apply(Entry::Dir(dir, name), created, meta, path, &mut refusals)
        });
        self.refusals = refusals;
        set
    }

    fn create(&mut self, path: &RelPath, access: OFlag, mode: u32) -> nix::Result<File> {
        let (dir, name) = path.split();
        let mode = Mode::from_bits_truncate(mode);
        let others = match self.names.is_empty() {
            true => Vec::new(),
            false => self.names.remove(path).unwrap_or_default(),
        };
        let dir = self.opened(dir)?;
        let file = openat(dir, name, CREATE | access, mode).map(File::from)?;
        if others.is_empty() {
            return Ok(file);
        }
        let dir = dir.try_clone().map_err(|_| Errno::last())?;
        for other in others {
            let (other_dir, other_name) = other.split();
            let other_dir = self.opened(other_dir)?;
            linkat(&dir, name, other_dir, other_name, AtFlags::empty())?;
        }
        Ok(file)
    }

    /// The open directory `dir` (empty: the top), created with all above it where it is missing.
    fn opened(&mut self, dir: &[u8]) -> nix::Result<&OwnedFd> {
        if dir.is_empty() {
            return Ok(&self.fd);
        }
        if self.open.contains_key(dir) {
            return Ok(&self.open[dir]);
        }
        let ends = dir.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = ends.map(|(at, _)| at).chain([dir.len()]).collect();
        // From the nearest that is open. No recursion, and not all on the way are held: paths can be
        // deeper than a stack, and than there are descriptors.
        let known = ends
            .iter()
            .rposition(|end| self.open.contains_key(&dir[..*end]));
        let mut above = known.and_then(|at| self.open.remove_entry(&dir[..ends[at]]));
        if self.open.len() + HELD_ON_THE_WAY >= OPEN_DIRS_MAX {
            self.open.clear();
        }
        for at in known.map_or(0, |at| at + 1)..ends.len() {
            let path = &dir[..ends[at]];
            let from = if at == 0 { 0 } else { ends[at - 1] + 1 };
            let (parent, name) = (above.as_ref().map_or(&self.fd, |(_, fd)| fd), &path[from..]);
            let opened = match openat(parent, name, OPEN_DIR, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    mkdirat(parent, name, Mode::S_IRWXU)?;
                    openat(parent, name, OPEN_DIR, Mode::empty())
                }
                other => other,
            }?;
            let before = above.replace((path.into(), opened));
            if at + HELD_ON_THE_WAY >= ends.len() {
                self.open.extend(before);
            }
        }
        self.open.extend(above);
        Ok(&self.open[dir])
    }

    fn failed(&self, action: &'static str, path: &RelPath, needs: u64, errno: Errno) -> StageError {
        failed(self.state.session_path(), action, path, needs, errno)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, "an abandoned restore could not be removed; the next start does it");
        }
    }
}

/// What no archive holds.
fn admit(path: &RelPath, is_dir: bool) -> Result<(), StageError> {
    if reserved::is_reserved(path, is_dir) {
        return Err(StageError::Refused {
            path: path.clone(),
            why: "the name is reserved",
        });
    }
    Ok(())
}

pub(super) fn failed(
    root: &Path,
    action: &'static str,
    path: &RelPath,
    needs: u64,
    errno: Errno,
) -> StageError {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => StageError::Full {
            what: path.to_string(),
            needs,
            free: free_space(root).unwrap_or(0),
            source: errno.into(),
        },
        Errno::ELOOP | Errno::ENOTDIR => StageError::Refused {
            path: path.clone(),
            why: "what is above it is no directory",
        },
        _ => StageError::sys(action, path)(errno),
    }
}
