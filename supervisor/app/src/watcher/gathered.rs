//! What a look at the directory found: the differences from what is committed, ready to be applied.

use std::time::Instant;

use super::dirty::Work;
use super::guard::Refusal;
use sessionkeep_archive::Aside;
use sessionkeep_archive::blocks::BlockMap;
use sessionkeep_archive::builder::Built;
use sessionkeep_archive::tree::Leaf;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Form, WalPosition};

/// What is kept beside each entry: a hash over the fingerprint, of which 0 proves nothing yet; in two
/// bits what form the committed content has, where that is known; and in the lowest
/// bit the generation of the scan that last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct IndexEntry(u64);

impl IndexEntry {
    /// The bits of a hash that are kept.
    pub(super) const PRINT: u64 = !0b111;
    const FORM: u64 = 0b110;
    const IS_WHOLE: u64 = 0b010;
    const IS_NOT_WHOLE: u64 = 0b100;
    const IS_DATABASE: u64 = 0b110;

    pub(super) fn new(print: u64, generation: bool) -> Self {
        Self(print & Self::PRINT | u64::from(generation))
    }

    /// The same, as the scan of this generation saw it.
    pub(super) fn seen_again(self, generation: bool) -> Self {
        Self(self.0 & !1 | u64::from(generation))
    }

    /// The same, with nothing that tells whether it has changed.
    pub(super) fn doubted(self) -> Self {
        Self(self.0 & !Self::PRINT)
    }

    pub(super) fn print(self) -> u64 {
        self.0 & Self::PRINT
    }

    /// With this form of the committed content.
    pub(super) fn with_form(self, form: Option<Form>) -> Self {
        let bits = match form {
            None => 0,
            Some(Form::Whole) => Self::IS_WHOLE,
            Some(Form::Database) => Self::IS_DATABASE,
            Some(Form::Lines | Form::Empty | Form::Sealed | Form::Broken) => Self::IS_NOT_WHOLE,
        };
        Self(self.0 & !Self::FORM | bits)
    }

    /// Whether the committed content is one whole value of JSON, where that is known.
    pub(super) fn is_whole(self) -> Option<bool> {
        match self.0 & Self::FORM {
            Self::IS_WHOLE => Some(true),
            Self::IS_NOT_WHOLE => Some(false),
            _ => None,
        }
    }

    /// Whether the committed content is a sound database.
    pub(super) fn is_database(self) -> bool {
        self.0 & Self::FORM == Self::IS_DATABASE
    }

    pub(super) fn generation(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Whether this is the last look before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The gateway runs; what is not whole now is looked at again.
    Live,
    /// Nobody writes any more.
    Final,
}

/// Block hashes are remembered for files up to this size, 32 bytes a block of 64 KiB: larger ones
/// are committed whole when they change.
const BLOCKS_KEPT_MAX: u64 = 1 << 30;

/// What is remembered of a file that is committed block by block, so that its next version costs
/// what changed.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) map: BlockMap,
    /// Of a database in WAL mode, the moment that this is.
    pub(super) moment: Option<WalPosition>,
}

impl Blocks {
    /// `None` where the file is too large for it.
    pub(super) fn keep(map: BlockMap, moment: Option<WalPosition>) -> Option<Self> {
        (map.size() <= BLOCKS_KEPT_MAX).then_some(Self { map, moment })
    }
}

/// One difference between the directory and what is committed.
#[derive(Debug)]
pub(super) enum Edit {
    /// The entry is now this.
    Set(RelPath, Leaf<IndexEntry>),
    /// The entry is gone, with all below it.
    Remove(RelPath),
}

/// What gathering found.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The commit, if there is anything to commit.
    pub built: Option<Built>,
    /// What [`super::committed_index::CommittedIndex::apply`] takes over with it.
    pub(super) edits: Vec<Edit>,
    /// What the commit says besides its entries.
    pub(super) aside: Aside,
    pub(super) blocks: Vec<(RelPath, Blocks)>,
    /// Fingerprints of entries whose content turned out to be as committed.
    pub(super) refreshed: Vec<(RelPath, IndexEntry)>,
    /// Files whose content was added, changed or removed.
    pub files: u64,
    /// What is to be looked at again, and when.
    pub later: Vec<(RelPath, Instant)>,
    /// How many files were found not to be whole; the last good version of each stays.
    pub not_whole: u64,
    /// Files that are not whole, of which it is not known whether their last committed version is.
    pub unasked: Vec<RelPath>,
    /// Why nothing may be committed, where that is so.
    pub refused: Option<Refusal>,
    /// What was not taken, since it could not be read as of one moment yet.
    pub(super) delayed: Option<Delayed>,
}

/// Changes that wait for a moment in which all of them can be read.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) work: Work,
    /// When to try again.
    pub(super) until: Instant,
}
