//! What the directory holds against what the store holds: deciding, without doing anything.

use sessionkeep_core::record::{ArchiveName, Header};
use sessionkeep_session::Marker;

/// What the session directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Whether there is any file or link that would be archived.
    pub has_files: bool,
    /// Whether one of them is a login.
    pub has_credentials: bool,
    /// What it remembers of the archive, where that is of this archive.
    pub marker: Option<Marker>,
}

/// What the store holds, as it was before this boot wrote anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// No commit with content.
    Empty,
    /// The newest commit.
    Head {
        /// Its header.
        header: Box<Header>,
        /// Whether its tree holds a login; `None` where that is not known.
        has_credentials: Option<bool>,
    },
    /// There are commits, but the newest cannot even be read.
    Damaged {
        /// The epoch before this boot's: that of the last instance that could write.
        last_epoch: u64,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootPlan {
    /// Nothing anywhere: the gateway starts on an empty directory.
    FirstBoot,
    /// The directory stays, and becomes the archive's first commit.
    Adopt,
    /// The directory stays; what differs from the head is committed.
    Keep(KeepReason),
    /// The directory is brought to the head's state; what is there is set aside.
    Restore(RestoreReason),
}

/// Why a directory stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReason {
    /// The head is the commit that the directory was at.
    Unmoved,
    /// The head moved on, but by this directory's own commits.
    OwnCommits,
    /// The store knows less than the directory: it was set back to an older state.
    StoreSetBack,
    /// It was made anew under the gateway, and holds another login than the store.
    NewLogin,
}

/// Why a directory is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreReason {
    /// It is empty.
    Empty,
    /// It has files, but nothing says that they belong to this archive.
    Unknown,
    /// Somebody else committed since it was used.
    MovedOn,
    /// The archive of its marker is another one of the same name.
    OtherHistory,
    /// It lost every login while nothing was running.
    CredentialsLost,
    /// It was emptied, or made anew, under the gateway, and holds no new login.
    Wiped,
}

impl BootPlan {
    /// In words, for the log.
    #[must_use]
    pub fn because(&self) -> &'static str {
        match self {
            Self::FirstBoot => "nothing is stored yet and the directory holds no session",
            Self::Adopt => {
                "nothing is stored yet; the directory's files are kept and will be committed"
            }
            Self::Keep(KeepReason::Unmoved) => "the directory is at the newest commit",
            Self::Keep(KeepReason::OwnCommits) => "the newest commit came from this directory",
            Self::Keep(KeepReason::StoreSetBack) => {
                "the store is behind this directory; was it set back to a backup?"
            }
            Self::Keep(KeepReason::NewLogin) => {
                "the directory was made anew while in use, and holds another login than the store"
            }
            Self::Restore(RestoreReason::Wiped) => {
                "the directory was wiped while in use, and holds no new login"
            }
            Self::Restore(RestoreReason::Empty) => "the directory holds no session",
            Self::Restore(RestoreReason::Unknown) => {
                "the directory's files do not belong to this archive"
            }
            Self::Restore(RestoreReason::MovedOn) => {
                "another instance committed since this directory was used"
            }
            Self::Restore(RestoreReason::OtherHistory) => {
                "the directory belongs to another archive of the same name"
            }
            Self::Restore(RestoreReason::CredentialsLost) => {
                "the directory has lost its login while nothing was running"
            }
        }
    }
}

/// The table of `docs/restore.md`.
#[must_use]
pub fn decide(local: &Local, remote: &Remote) -> BootPlan {
    let (header, stored_credentials) = match remote {
        Remote::Empty if local.has_files => return BootPlan::Adopt,
        Remote::Empty => return BootPlan::FirstBoot,
        // A directory of which nothing can be said to be newer: the newest whole commit decides.
        Remote::Damaged { .. } if !local.has_files => {
            return BootPlan::Restore(RestoreReason::Empty);
        }
        Remote::Damaged { last_epoch } => {
            return match &local.marker {
                // Nobody else has held the lease since: what cannot be read came from here.
                Some(marker) if marker.epoch == *last_epoch => {
                    BootPlan::Keep(KeepReason::OwnCommits)
                }
                Some(_) => BootPlan::Restore(RestoreReason::MovedOn),
                None => BootPlan::Restore(RestoreReason::Unknown),
            };
        }
        Remote::Head {
            header,
            has_credentials,
        } => (header, has_credentials),
    };
    if !local.has_files {
        return BootPlan::Restore(RestoreReason::Empty);
    }
    let Some(marker) = &local.marker else {
        return BootPlan::Restore(RestoreReason::Unknown);
    };
    if marker.history != header.history.to_string() {
        return BootPlan::Restore(RestoreReason::OtherHistory);
    }
    let unmoved = header.changed_at <= marker.seq && header.seq >= marker.seq;
    // The root is compared too: numbers alone can come to the same in a store that was set back
    // and written to by somebody else.
    let keep = if unmoved && header.root == marker.root {
        KeepReason::Unmoved
    } else if header.changed_epoch == marker.epoch {
        if header.seq < marker.seq {
            KeepReason::StoreSetBack
        } else {
            KeepReason::OwnCommits
        }
    } else if header.seq < marker.seq && header.epoch <= marker.epoch {
        KeepReason::StoreSetBack
    } else {
        return BootPlan::Restore(RestoreReason::MovedOn);
    };
    if *stored_credentials == Some(true) && !local.has_credentials {
        return BootPlan::Restore(RestoreReason::CredentialsLost);
    }
    BootPlan::Keep(keep)
}

/// Whether a marker speaks of this archive.
#[must_use]
pub fn is_of(marker: &Marker, archive: &ArchiveName) -> bool {
    marker.archive == archive.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sessionkeep_archive::writer::now_ms;
    use sessionkeep_core::entry::Digest;
    use sessionkeep_core::record::{CommitId, FORMAT, RecordKind};
    use sessionkeep_session::Mode;

    fn head(seq: u64, epoch: u64, changed_at: u64, changed_epoch: u64) -> Remote {
        let header = Header {
            format: FORMAT,
            archive: "default".parse().expect("name"),
            history: CommitId([7; 16]),
            seq,
            id: CommitId::generate(),
            kind: RecordKind::Change,
            instance: "a-1".parse().expect("name"),
            epoch,
            time_ms: now_ms(),
            base: 1,
            changed_at,
            changed_epoch,
            parent: Digest::default(),
            root: Digest::default(),
            changes: 0,
            bytes: 0,
            live_files: 1,
            live_bytes: 1,
            chain_bytes: 0,
            base_bytes: 0,
            packs: vec![],
            body_hash: Digest::default(),
            digest: Digest::default(),
        };
        Remote::Head {
            header: Box::new(header),
            has_credentials: Some(true),
        }
    }

    fn marker(seq: u64, epoch: u64) -> Marker {
        Marker {
            version: sessionkeep_session::marker::VERSION,
            archive: "default".into(),
            instance: "a-1".into(),
            epoch,
            seq,
            root: Digest::default(),
            mode: Mode::Store,
            history: CommitId([7; 16]).to_string(),
            updated_ms: 0,
            unjudged: false,
        }
    }

    fn files(marker: Option<Marker>) -> Local {
        Local {
            has_files: true,
            has_credentials: true,
            marker,
        }
    }

    const EMPTY: Local = Local {
        has_files: false,
        has_credentials: false,
        marker: None,
    };

    #[test]
    fn the_table_of_the_design_row_by_row() {
        use BootPlan::{Adopt, FirstBoot, Keep, Restore};
        let other = Marker {
            history: "ff".into(),
            ..marker(9, 2)
        };
        for (what, local, remote, plan) in [
            ("empty, empty", EMPTY, Remote::Empty, FirstBoot),
            ("empty, files", files(None), Remote::Empty, Adopt),
            (
                "empty, files with an old marker",
                files(Some(marker(4, 1))),
                Remote::Empty,
                Adopt,
            ),
            (
                "commits, empty",
                EMPTY,
                head(9, 2, 9, 2),
                Restore(RestoreReason::Empty),
            ),
            (
                "commits, empty with a marker",
                Local {
                    marker: Some(marker(9, 2)),
                    ..EMPTY
                },
                head(9, 2, 9, 2),
                Restore(RestoreReason::Empty),
            ),
            (
                "head is the marker's",
                files(Some(marker(9, 2))),
                head(9, 2, 9, 2),
                Keep(KeepReason::Unmoved),
            ),
            (
                "only barriers and checkpoints since",
                files(Some(marker(9, 2))),
                head(12, 4, 9, 2),
                Keep(KeepReason::Unmoved),
            ),
            (
                "own commits after the marker",
                files(Some(marker(9, 2))),
                head(40, 2, 40, 2),
                Keep(KeepReason::OwnCommits),
            ),
            (
                "own commits, then another's barrier",
                files(Some(marker(9, 2))),
                head(41, 3, 40, 2),
                Keep(KeepReason::OwnCommits),
            ),
            (
                "another's commit",
                files(Some(marker(9, 2))),
                head(12, 3, 12, 3),
                Restore(RestoreReason::MovedOn),
            ),
            (
                "no marker",
                files(None),
                head(9, 2, 9, 2),
                Restore(RestoreReason::Unknown),
            ),
            (
                "the store was set back",
                files(Some(marker(9, 2))),
                head(5, 2, 5, 2),
                Keep(KeepReason::StoreSetBack),
            ),
            (
                "set back to before this epoch",
                files(Some(marker(9, 2))),
                head(5, 1, 5, 1),
                Keep(KeepReason::StoreSetBack),
            ),
            (
                "set back, then used by another",
                files(Some(marker(9, 2))),
                head(7, 3, 7, 3),
                Restore(RestoreReason::MovedOn),
            ),
            (
                "another archive of the same name",
                files(Some(other)),
                head(9, 2, 9, 2),
                Restore(RestoreReason::OtherHistory),
            ),
            (
                "damaged head, empty",
                EMPTY,
                Remote::Damaged { last_epoch: 2 },
                Restore(RestoreReason::Empty),
            ),
            (
                "damaged head, own files",
                files(Some(marker(9, 2))),
                Remote::Damaged { last_epoch: 2 },
                Keep(KeepReason::OwnCommits),
            ),
            (
                "damaged head, and another instance wrote since",
                files(Some(marker(9, 2))),
                Remote::Damaged { last_epoch: 3 },
                Restore(RestoreReason::MovedOn),
            ),
            (
                "damaged head, unknown files",
                files(None),
                Remote::Damaged { last_epoch: 2 },
                Restore(RestoreReason::Unknown),
            ),
        ] {
            assert_eq!(decide(&local, &remote), plan, "{what}");
        }
    }

    #[test]
    fn a_store_that_was_set_back_and_came_to_the_same_number_has_moved_on() {
        let local = files(Some(Marker {
            root: Digest::of(b"ours"),
            ..marker(9, 2)
        }));
        assert_eq!(
            decide(&local, &head(9, 3, 9, 3)),
            BootPlan::Restore(RestoreReason::MovedOn)
        );
        assert_eq!(
            decide(&local, &head(9, 2, 9, 2)),
            BootPlan::Keep(KeepReason::OwnCommits)
        );
    }

    #[test]
    fn a_directory_that_lost_its_credentials_is_not_kept() {
        let local = Local {
            has_credentials: false,
            ..files(Some(marker(9, 2)))
        };
        assert_eq!(
            decide(&local, &head(9, 2, 9, 2)),
            BootPlan::Restore(RestoreReason::CredentialsLost)
        );
        let Remote::Head { header, .. } = head(9, 2, 9, 2) else {
            unreachable!()
        };
        let logged_out = Remote::Head {
            header,
            has_credentials: Some(false),
        };
        assert_eq!(
            decide(&local, &logged_out),
            BootPlan::Keep(KeepReason::Unmoved)
        );
    }
}
