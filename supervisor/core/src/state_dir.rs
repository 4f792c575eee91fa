//! Our own directory in the session directory, `.sessionkeep`: accepted only as one that we made,
//! and held open from then on, so that whoever may rename it away leads us nowhere.
//!
//! The gateway may run as another user who owns the session directory: it can rename `.sessionkeep`
//! and put a link, or a directory of its own, in its place. What lies in it is obeyed (a journal says
//! what is moved where), so only a directory of our own user's that nobody else can write to counts.
//!
//! Some file systems know no owners, or other ones than ours (SMB, FUSE, NFS with squashed root):
//! there, what we create ourselves is not ours either. So what is asked is whether the directory looks
//! as one that we would make now, and a file that we make tells what that is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use tracing::warn;

use crate::beneath::{OPEN_DIR, pinned};
use crate::remove_tree::remove_tree;

/// The directory's name in the session directory; never archived.
pub const STATE_DIR: &str = ".sessionkeep";

/// Who else may write to something.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// Why our own directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// The session directory cannot be opened.
    #[error("failed to open the session directory `{}`", path.display())]
    SessionDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be made.
    #[error("failed to create `{}`; make the session directory writable for this user", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is there and cannot be looked at.
    #[error("failed to open `{}`", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else has its name.
    #[error(
        "refused to use `{}`: it is {what}, where sessionkeep keeps a directory of its own; find out what put it there, and move it away",
        path.display()
    )]
    NoDirectory {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is somebody else's.
    #[error(
        "refused to use `{}`: it belongs to user {owner}, and sessionkeep runs as user {user}. If sessionkeep \
         ran as user {owner} before, run `chown -R {user} {}`; if not, somebody else put it there: move it away",
        path.display(), path.display()
    )]
    ForeignOwner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others can write to it.
    #[error(
        "refused to use `{}`: others may write to it (mode {mode:o}), and that could not be changed; run `chmod -R go-w {}`",
        path.display(), path.display()
    )]
    Shared {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Our own directory, open and known to be ours.
#[derive(Debug, Clone)]
pub struct StateDir(Arc<Inner>);

/// What became of our own directory while we held it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is where it was.
    InPlace,
    /// Nothing has its name: it was removed, or renamed.
    Gone,
    /// Something else has its name.
    Replaced,
}

#[derive(Debug)]
struct Inner {
    session: OwnedFd,
    session_path: PathBuf,
    own: OwnedFd,
}

impl StateDir {
    /// Opens that of the session directory `root`, which is made if there is none.
    ///
    /// # Errors
    /// [`StateDirError`]; nothing was followed then.
    pub fn open(root: &Path) -> Result<Self, StateDirError> {
        let session = open_session(root)?;
        match mkdirat(&session, STATE_DIR, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(StateDirError::Create {
                    path: root.join(STATE_DIR),
                    source: errno.into(),
                });
            }
        }
        Self::verified(root, session)
    }

    /// The same, for those who only look: `None` where there is none.
    ///
    /// # Errors
    /// As there.
    pub fn existing(root: &Path) -> Result<Option<Self>, StateDirError> {
        let session = open_session(root)?;
        match fstatat(&session, STATE_DIR, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            _ => Self::verified(root, session).map(Some),
        }
    }

    fn verified(root: &Path, session: OwnedFd) -> Result<Self, StateDirError> {
        let path = || root.join(STATE_DIR);
        let own = match openat(&session, STATE_DIR, OPEN_DIR, Mode::empty()) {
            Ok(own) => own,
            Err(errno) => return Err(why_not_opened(&session, path(), errno)),
        };
        let unreadable = |source: io::Error| StateDirError::Unreadable {
            path: path(),
            source,
        };
        let mut found = fstat(&own).map_err(|errno| unreadable(errno.into()))?;
        let user = geteuid().as_raw();
        if found.st_uid == user && found.st_mode & OTHERS_MAY_WRITE != 0 {
            // Kubernetes gives volumes to a group (fsGroup), with all that is in them.
            let mode = Mode::from_bits_truncate(found.st_mode & !OTHERS_MAY_WRITE & 0o777);
            if fchmod(&own, mode).is_ok() {
                found = fstat(&own).map_err(|errno| unreadable(errno.into()))?;
            }
            // Some file systems say yes and keep the mode that they have.
            if found.st_mode & OTHERS_MAY_WRITE == 0 {
                warn!(target: "session", path = %path().display(), "others could write to our own directory; its mode was set right");
            }
        }
        let found = Looks::of(&found);
        if found.owner != user || found.mode & OTHERS_MAY_WRITE != 0 {
            let fresh = Looks::of(&fresh(&session).map_err(unreadable)?);
            match found.compared_with(fresh) {
                DirVerdict::Ours => {}
                DirVerdict::Foreign => {
                    return Err(StateDirError::ForeignOwner {
                        path: path(),
                        owner: found.owner,
                        user,
                    });
                }
                DirVerdict::Shared => {
                    return Err(StateDirError::Shared {
                        path: path(),
                        mode: found.mode,
                    });
                }
            }
        }
        Ok(Self(Arc::new(Inner {
            session,
            session_path: root.to_owned(),
            own,
        })))
    }

    /// Goes over to the directory `session`, which has the session directory's path by now: ours is
    /// made in it if there is none, and has to look as ours, as ever. All who hold this go along.
    ///
    /// # Errors
    /// [`StateDirError`]; all is as it was then.
    pub fn follow(&self, session: BorrowedFd<'_>) -> Result<(), StateDirError> {
        let failed = |source| StateDirError::Create {
            path: self.path(),
            source,
        };
        match mkdirat(session, STATE_DIR, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let session = session.try_clone_to_owned().map_err(failed)?;
        let new = Self::verified(&self.0.session_path, session)?;
        replace(&self.0.own, &new.0.own).map_err(failed)?;
        replace(&self.0.session, &new.0.session).map_err(failed)
    }

    /// Whether both are of one directory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let of = |dir: &OwnedFd| fstat(dir).map(|found| (found.st_dev, found.st_ino));
        let (this, other) = (of(&self.0.own), of(&other.0.own));
        this.is_ok() && this == other
    }

    /// Where the session directory is.
    #[must_use]
    pub fn session_path(&self) -> &Path {
        &self.0.session_path
    }

    /// Where this is, for people.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.session_path.join(STATE_DIR)
    }

    /// The session directory, open.
    #[must_use]
    pub fn session(&self) -> BorrowedFd<'_> {
        self.0.session.as_fd()
    }

    /// The directory, open.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.own.as_fd()
    }

    /// The numbers of its descriptors, for a fork that closes all others.
    #[must_use]
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.0.session.as_raw_fd(), self.0.own.as_raw_fd()]
    }

    /// A path to `name` in it that leads there whatever has become of its name: for what takes
    /// nothing but paths. Of use as long as this lives.
    #[must_use]
    pub fn pinned(&self, name: &str) -> PathBuf {
        pinned(self.fd()).join(name)
    }

    /// What the session directory has under its name by now.
    #[must_use]
    pub fn presence(&self) -> Presence {
        let named = fstatat(&self.0.session, STATE_DIR, AtFlags::AT_SYMLINK_NOFOLLOW);
        let Ok(named) = named else {
            return Presence::Gone;
        };
        match fstat(&self.0.own) {
            Ok(held) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {
                Presence::InPlace
            }
            _ => Presence::Replaced,
        }
    }

    /// Reads the file `name` of at most `max` bytes; `None` where there is none. Only a file of our
    /// own is read.
    ///
    /// # Errors
    /// What the file system said; a larger file is [`io::ErrorKind::FileTooLarge`].
    pub fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(self.fd(), name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let (of, ours) = (fstat(&file)?, fstat(self.fd())?);
        if of.st_uid != ours.st_uid || of.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            let words = format!("{name} is no file of ours");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    /// Writes it durably: a crash leaves the old one or this one. Only our user can read it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.tmp");
        let written = self.create(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            Ok(renameat(self.fd(), &temporary[..], self.fd(), name)?)
        });
        if written.is_err() {
            // Of a full disk every byte counts; the first error is the one that matters.
            let _ = self.remove(&temporary);
        }
        written?;
        self.sync()
    }

    /// Creates a file for our user alone; what has its name is removed.
    ///
    /// # Errors
    /// What the file system said.
    pub fn create(&self, name: &str) -> io::Result<File> {
        // What a crash left under this name is nobody's.
        self.remove(name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(openat(self.fd(), name, flags | OFlag::O_NOFOLLOW, mode).map(File::from)?)
    }

    /// Opens a file that is kept, and makes it if there is none.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open_kept(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let opened = openat(self.fd(), name, flags | OFlag::O_NONBLOCK, mode);
        Ok(opened.map(File::from)?)
    }

    /// Whether there is something of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        fstatat(self.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether something that is no ordinary file has this name.
    #[must_use]
    pub fn is_no_file(&self, name: &str) -> bool {
        let found = fstatat(self.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW);
        found.is_ok_and(|stat| stat.st_mode & libc::S_IFMT != libc::S_IFREG)
    }

    /// Removes a file; one that is absent is a success.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes what was created, renamed or removed in it survive a loss of power.
    ///
    /// # Errors
    /// What the file system said.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(self.fd())?)
    }

    /// Opens the directory `name` in it, which is made if there is none.
    ///
    /// # Errors
    /// What the file system said; also where it is no directory.
    pub fn dir(&self, name: &str) -> io::Result<OwnedFd> {
        own_dir(self.fd(), name.as_bytes())
    }

    /// Removes a directory in it with all that it holds; absent is a success.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        remove_tree(&self.pinned(name))
    }

    /// Removes the directory itself with all that it holds.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove_all(self) -> io::Result<()> {
        for entry in std::fs::read_dir(pinned(self.fd()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_tree(&entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(unlinkat(
            &self.0.session,
            STATE_DIR,
            UnlinkatFlags::RemoveDir,
        )?)
    }
}

/// Opens the directory `name` of `dir`, which is made for our user alone if there is none. A link to
/// one is none.
///
/// # Errors
/// What the file system said.
pub fn own_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    openat(dir, name, OPEN_DIR, Mode::empty()).map_err(|errno| match errno {
        Errno::ELOOP | Errno::ENOTDIR => io::Error::new(
            io::ErrorKind::NotADirectory,
            format!(
                "{} is in the way: it is no directory",
                String::from_utf8_lossy(name)
            ),
        ),
        other => other.into(),
    })
}

/// Has the number of `held` stand for what `new` stands for: whoever uses it goes over in one step.
fn replace(held: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    // SAFETY: both are open, and stay so; `held` keeps its number and its owner, and what it stood for
    // is closed by the kernel in the same step.
    let replaced = unsafe { libc::dup3(new.as_raw_fd(), held.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(replaced)?;
    Ok(())
}

fn open_session(root: &Path) -> Result<OwnedFd, StateDirError> {
    // It may itself be reached through links: who runs us says where it is.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(root, flags, Mode::empty()).map_err(|errno| StateDirError::SessionDir {
        path: root.to_owned(),
        source: errno.into(),
    })
}

fn why_not_opened(session: &OwnedFd, path: PathBuf, errno: Errno) -> StateDirError {
    let found = fstatat(session, STATE_DIR, AtFlags::AT_SYMLINK_NOFOLLOW);
    let kind = found.map(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT);
    let user = geteuid().as_raw();
    match (errno, kind, found) {
        (_, Ok(SFlag::S_IFLNK), _) => StateDirError::NoDirectory {
            path,
            what: "a link",
        },
        (Errno::ENOTDIR | Errno::ELOOP, Ok(_), _) => StateDirError::NoDirectory {
            path,
            what: "no directory",
        },
        (Errno::EACCES, _, Ok(found)) if found.st_uid != user => StateDirError::ForeignOwner {
            path,
            owner: found.st_uid,
            user,
        },
        _ => StateDirError::Unreadable {
            path,
            source: errno.into(),
        },
    }
}

/// Whose something is, and who may do what with it.
#[derive(Debug, Clone, Copy)]
struct Looks {
    owner: u32,
    mode: u32,
}

/// What our own directory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirVerdict {
    Ours,
    Foreign,
    Shared,
}

impl Looks {
    fn of(stat: &FileStat) -> Self {
        Self {
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
        }
    }

    /// What this is where a file that we make is `fresh`: on a file system that knows no owners, or no
    /// modes, ours look like everybody's.
    fn compared_with(self, fresh: Self) -> DirVerdict {
        if self.owner != fresh.owner {
            return DirVerdict::Foreign;
        }
        if self.mode & OTHERS_MAY_WRITE & !fresh.mode != 0 {
            return DirVerdict::Shared;
        }
        DirVerdict::Ours
    }
}

/// What the file system makes of a file that is ours. It is looked at through the descriptor with
/// which it was made, since its name may be somebody else's a moment later.
fn fresh(session: &OwnedFd) -> io::Result<FileStat> {
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
    let name = format!("{STATE_DIR}-{}", hex::encode(number));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = openat(session, &name[..], flags | OFlag::O_NOFOLLOW, mode)?;
    let stat = fstat(&file);
    unlinkat(session, &name[..], UnlinkatFlags::NoRemoveDir)?;
    Ok(stat?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn what_we_made_is_taken_and_what_is_no_directory_is_refused_and_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(StateDir::existing(dir.path()).expect("none").is_none());
        StateDir::open(dir.path()).expect("made");
        let again = StateDir::open(dir.path()).expect("ours");
        assert_eq!(again.presence(), Presence::InPlace);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);

        let own = dir.path().join(STATE_DIR);
        fs::rename(&own, dir.path().join("aside")).expect("rename");
        assert_eq!(again.presence(), Presence::Gone);
        let elsewhere = tempfile::tempdir().expect("tempdir");
        symlink(elsewhere.path(), &own).expect("link");
        assert_eq!(again.presence(), Presence::Replaced);
        let refused = StateDir::open(dir.path()).expect_err("a link");
        assert!(
            matches!(refused, StateDirError::NoDirectory { what: "a link", .. }),
            "{refused}"
        );
        assert_eq!(fs::read_dir(elsewhere.path()).expect("list").count(), 0);
        fs::remove_file(&own).expect("remove");
        fs::write(&own, "").expect("write");
        let refused = StateDir::open(dir.path()).expect_err("a file");
        assert!(matches!(refused, StateDirError::NoDirectory { .. }));
        again.write("f", b"held").expect("it is still open");
        let aside = dir.path().join("aside/f");
        assert_eq!(fs::read_to_string(aside).expect("read"), "held");
    }

    #[test]
    fn one_that_others_could_write_to_is_closed_to_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        StateDir::open(dir.path()).expect("made");
        let own = dir.path().join(STATE_DIR);
        set_mode(&own, 0o2777);
        StateDir::open(dir.path()).expect("ours");
        let mode = fs::metadata(&own).expect("stat").permissions().mode();
        assert_eq!(mode & OTHERS_MAY_WRITE, 0, "{mode:o}");
    }

    #[test]
    fn one_of_another_user_is_refused_with_the_remedy() {
        if !geteuid().is_root() {
            eprintln!("not root: there is no other user, not tested");
            return;
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let own = dir.path().join(STATE_DIR);
        fs::create_dir(&own).expect("mkdir");
        chown(&own, Some(4321), Some(4321)).expect("chown");
        let refused = StateDir::open(dir.path()).expect_err("another's");
        let words = refused.to_string();
        assert!(words.contains("belongs to user 4321"), "{words}");
        assert!(words.contains("chown -R 0 "), "{words}");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_file_system_that_knows_no_owners_or_modes_is_told_by_what_it_makes_of_ours() {
        let looks = |owner, mode| Looks { owner, mode };
        for (case, found, fresh, verdict) in [
            ("ours", looks(0, 0o700), looks(0, 0o600), DirVerdict::Ours),
            (
                "the gateway's",
                looks(1000, 0o700),
                looks(0, 0o600),
                DirVerdict::Foreign,
            ),
            (
                "we were root",
                looks(0, 0o700),
                looks(1000, 0o600),
                DirVerdict::Foreign,
            ),
            (
                "unmapped",
                looks(65534, 0o700),
                looks(0, 0o600),
                DirVerdict::Foreign,
            ),
            (
                "SMB, uid=1000",
                looks(1000, 0o777),
                looks(1000, 0o777),
                DirVerdict::Ours,
            ),
            (
                "NFS, squashed",
                looks(65534, 0o700),
                looks(65534, 0o600),
                DirVerdict::Ours,
            ),
            (
                "a shared one",
                looks(0, 0o770),
                looks(0, 0o600),
                DirVerdict::Shared,
            ),
            (
                "SMB, of a group",
                looks(0, 0o770),
                looks(0, 0o660),
                DirVerdict::Ours,
            ),
            (
                "SMB, and others",
                looks(0, 0o772),
                looks(0, 0o660),
                DirVerdict::Shared,
            ),
        ] {
            assert_eq!(found.compared_with(fresh), verdict, "{case}");
        }
    }

    #[test]
    fn only_a_file_of_our_own_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("made");
        let own = dir.path().join(STATE_DIR);
        state.write("f", b"ours").expect("write");
        assert_eq!(
            state.read("f", 9).expect("read").as_deref(),
            Some(&b"ours"[..])
        );
        assert_eq!(state.read("none", 9).expect("none"), None);
        let large = state.read("f", 3).expect_err("too large");
        assert_eq!(large.kind(), io::ErrorKind::FileTooLarge);
        symlink("f", own.join("l")).expect("link");
        assert!(state.read("l", 9).is_err());
        nix::unistd::mkfifo(&own.join("p"), Mode::S_IRWXU).expect("mkfifo");
        assert!(state.read("p", 9).is_err());
        if geteuid().is_root() {
            chown(own.join("f"), Some(4321), None).expect("chown");
            assert!(state.read("f", 9).is_err());
        }
    }
}
