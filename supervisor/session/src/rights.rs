//! What is not taken of an entry's owner, mode and times: by a file system that has none (SMB, FAT, some
//! FUSE), by a user namespace that does not map an owner, or for want of a capability.
//!
//! Contents and names are never given up; these are, with one warning (`Refusals`). What the watcher
//! finds afterwards is not what the gateway did, and is not committed as such ([`Limits`]).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, geteuid};
use tracing::warn;

use sessionkeep_core::entry::{Meta, Owner, RelPath};
use sessionkeep_core::file_owner::{is_refusal, why_refused};

use sessionkeep_core::state_dir::StateDir;

/// What owners a restore gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreOwner {
    /// To each entry its archived one.
    Keep,
    /// That of the process that restores.
    Ourselves,
    /// This one, to all.
    To(Owner),
}

/// What a user namespace shows in the place of an owner that it does not map (kernel.overflowuid).
const NOBODY: u32 = 65534;
/// Of at most this many different owners it is tried whether they can be given.
const OWNERS_MAX: usize = 64;

/// One kind of metadata, and how often it was refused.
#[derive(Debug, Default)]
struct Refused {
    entries: u64,
    first: Option<(RelPath, Errno)>,
}

impl Refused {
    fn note(&mut self, path: &RelPath, errno: Errno) {
        self.entries += 1;
        self.first.get_or_insert_with(|| (path.clone(), errno));
    }
}

/// What the file system has not taken in the course of a restore.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    owners: Refused,
    first_owner: Option<Owner>,
    modes: Refused,
    times: Refused,
}

impl Refusals {
    /// Notes that `path` was not given the owner `wanted`.
    pub(super) fn owner(&mut self, path: &RelPath, wanted: Owner, errno: Errno) {
        self.owners.note(path, errno);
        self.first_owner.get_or_insert(wanted);
    }

    /// Passes on what setting a mode came to; a refusal is noted.
    pub(super) fn mode(&mut self, path: &RelPath, set: nix::Result<()>) -> nix::Result<()> {
        noted(&mut self.modes, path, set)
    }

    /// Passes on what setting a time came to; a refusal is noted.
    pub(super) fn time(&mut self, path: &RelPath, set: nix::Result<()>) -> nix::Result<()> {
        noted(&mut self.times, path, set)
    }

    /// Says what was refused, once for all entries.
    pub(super) fn report(&self) {
        if let (Some((first, errno)), Some(owner)) = (&self.owners.first, self.first_owner) {
            let (entries, why) = (self.owners.entries, why_refused(owner, *errno));
            warn!(
                target: "boot", entries, %first, %owner, why,
                "restored entries could not be given their owner; their content is complete. Grant what is missing, or choose an owner with restore.owner"
            );
        }
        let either = self.modes.first.as_ref().or(self.times.first.as_ref());
        if let Some((first, errno)) = either {
            let (modes, times) = (self.modes.entries, self.times.entries);
            warn!(
                target: "boot", modes, times, %first, error = errno.desc(),
                "the file system did not take modes or times of restored entries; their content is complete"
            );
        }
    }
}

fn noted(kind: &mut Refused, path: &RelPath, set: nix::Result<()>) -> nix::Result<()> {
    match set {
        Err(errno) if is_refusal(errno) => {
            kind.note(path, errno);
            Ok(())
        }
        other => other,
    }
}

/// Which of the archived owners and modes cannot be had in this directory. What is found there
/// instead of them says nothing of the gateway, and the archive keeps what it has: or the next host,
/// where they can be had, would not get them back.
#[derive(Debug, Default)]
pub struct Limits {
    /// The owner of what this process creates, where some other cannot be given.
    ours: Option<Owner>,
    uids: HashSet<u32>,
    gids: HashSet<u32>,
    /// The file system keeps no modes.
    no_modes: bool,
}

impl Limits {
    /// Finds out by giving a file of our own each of the `archived` owners, and a mode. Where
    /// `owners` is not [`RestoreOwner::Keep`] somebody wants other owners than the archived ones, and
    /// what is in the directory is the truth.
    ///
    /// # Errors
    /// Where no file can be created.
    pub fn probe(
        state: &StateDir,
        owners: RestoreOwner,
        archived: impl Iterator<Item = Owner>,
    ) -> io::Result<Self> {
        let file = state.create(PROBE)?.into();
        let found = Self::find_out(&file, owners, archived);
        state.remove(PROBE)?;
        Ok(found?)
    }

    fn find_out(
        file: &OwnedFd,
        owners: RestoreOwner,
        archived: impl Iterator<Item = Owner>,
    ) -> nix::Result<Self> {
        let mut limits = Self::default();
        let stat = fstat(file)?;
        let (now, all) = (stat.st_mode & 0o777, 0o777);
        // Any that it does not have already.
        let other = if now == 0o640 { 0o600 } else { 0o640 };
        let set = fchmod(file, Mode::from_bits_truncate(other));
        limits.no_modes = match set {
            Ok(()) => fstat(file)?.st_mode & all != other,
            Err(errno) => is_refusal(errno),
        };
        if owners != RestoreOwner::Keep {
            return Ok(limits);
        }
        let ours = Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        };
        let different: HashSet<Owner> = archived.filter(|owner| *owner != ours).collect();
        let may_try = geteuid().is_root() && different.len() <= OWNERS_MAX;
        let refused = |uid, gid| fchown(file.as_fd(), uid, gid).is_err_and(is_refusal);
        for owner in different {
            if owner.uid != ours.uid && (!may_try || refused(Some(Uid::from_raw(owner.uid)), None))
            {
                limits.uids.insert(owner.uid);
            }
            if owner.gid != ours.gid && (!may_try || refused(None, Some(Gid::from_raw(owner.gid))))
            {
                limits.gids.insert(owner.gid);
            }
        }
        limits.ours = (!limits.uids.is_empty() || !limits.gids.is_empty()).then_some(ours);
        Ok(limits)
    }

    /// Whether everything can be had.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.ours.is_none() && !self.no_modes
    }

    /// What is to be archived of an entry that has the metadata `found`, and `known` in the archive.
    #[must_use]
    pub fn as_archived(&self, found: Meta, known: &Meta) -> Meta {
        let mut meta = found;
        if self.no_modes {
            meta.mode = known.mode;
        }
        if let Some(ours) = self.ours {
            let stands_in = |found, ours| found == ours || found == NOBODY;
            if stands_in(found.owner.uid, ours.uid) && self.uids.contains(&known.owner.uid) {
                meta.owner.uid = known.owner.uid;
            }
            if stands_in(found.owner.gid, ours.gid) && self.gids.contains(&known.owner.gid) {
                meta.owner.gid = known.owner.gid;
            }
        }
        meta
    }
}

/// Tells what cannot be had, for the log.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut what = Vec::new();
        let list = |name: &str, ids: &HashSet<u32>| {
            let mut ids: Vec<u32> = ids.iter().copied().collect();
            ids.sort_unstable();
            let ids: Vec<String> = ids.iter().take(8).map(u32::to_string).collect();
            format!("{name} {}", ids.join(", "))
        };
        if !self.uids.is_empty() {
            what.push(list("uid", &self.uids));
        }
        if !self.gids.is_empty() {
            what.push(list("gid", &self.gids));
        }
        if self.no_modes {
            what.push("modes".to_owned());
        }
        f.write_str(&what.join("; "))
    }
}

/// The file of our own that is tried on.
const PROBE: &str = "rights";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn meta(uid: u32, gid: u32, mode: u32) -> Meta {
        Meta {
            mode,
            mtime_ns: 7,
            owner: Owner { uid, gid },
        }
    }

    #[test]
    fn only_what_stands_in_for_an_owner_that_cannot_be_had_is_passed_over() {
        let limits = Limits {
            ours: Some(Owner { uid: 0, gid: 0 }),
            uids: HashSet::from([1000]),
            gids: HashSet::from([1000]),
            no_modes: false,
        };
        let archived = |found, known| limits.as_archived(found, &known);
        let theirs = meta(1000, 1000, 0o600);
        assert_eq!(archived(meta(0, 0, 0o600), theirs), theirs);
        assert_eq!(archived(meta(0, 0, 0o640), theirs), meta(1000, 1000, 0o640));
        // As a user namespace shows a file of a kept directory.
        assert_eq!(archived(meta(NOBODY, NOBODY, 0o600), theirs), theirs);
        // Somebody gave it to another, and it is another's that we cannot give.
        assert_eq!(archived(meta(33, 0, 0o600), theirs), meta(33, 1000, 0o600));
        // That one could be given.
        assert_eq!(
            archived(meta(0, 0, 0o600), meta(33, 33, 0o600)),
            meta(0, 0, 0o600)
        );
    }

    #[test]
    fn modes_of_a_file_system_without_any_are_passed_over() {
        let limits = Limits {
            no_modes: true,
            ..Limits::default()
        };
        let known = meta(0, 0, 0o600);
        assert_eq!(limits.as_archived(meta(0, 0, 0o755), &known), known);
    }

    #[test]
    fn a_common_file_system_sets_no_limits() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("opens");
        let root = geteuid().is_root();
        let theirs = Owner {
            uid: 1234,
            gid: 4321,
        };
        for owners in [RestoreOwner::Keep, RestoreOwner::Ourselves] {
            let limits = Limits::probe(&state, owners, [theirs].into_iter()).expect("probes");
            assert_eq!(
                limits.is_none(),
                root || owners != RestoreOwner::Keep,
                "{limits}"
            );
        }
        let left = fs::read_dir(state.path()).expect("lists");
        assert_eq!(left.count(), 0);
    }
}
