//! Appends commits: one writer's end of the chain.

use std::time::{SystemTime, UNIX_EPOCH};

use super::builder::Built;
use super::clock::StoreClock;
use super::error::{ArchiveError, Result};
use super::recent::Recent;
use super::tree::Tree;
use crate::store::{Appended, CommitLog};
use sessionkeep_core::entry::Digest;
use sessionkeep_core::record::{
    ArchiveName, CommitId, FORMAT, Header, InstanceId, PackId, Record, RecordKind, Seq,
};

/// A checkpoint is due when the commits since the last one hold more than this share, in percent, of
/// what that one holds. What they hold is written once more then, and until then a restore reads it
/// beside the other.
const CHAIN_PERCENT: u64 = 70;
/// Fewer stored bytes than this since the checkpoint never make a new one.
const CHAIN_BYTES_MIN: u64 = 64 << 10;
/// A chain is at most this many commits long, however small they are: a restore reads them all.
const CHAIN_LENGTH_MAX: u64 = 1000;

/// What appending came to.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// It is in the store; this is its header.
    Done(Box<Header>),
    /// Another writer has the number: this one is fenced. The header is the other's.
    Fenced(Box<Header>),
}

/// What a commit is to say of the tree that results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Its root.
    pub root: Digest,
    /// How many files it has.
    pub files: u64,
    /// How many content bytes they have.
    pub bytes: u64,
}

impl Summary {
    /// What there is to say of `tree`.
    #[must_use]
    pub fn of<T>(tree: &Tree<T>) -> Self {
        Self {
            root: tree.root(),
            files: tree.files(),
            bytes: tree.bytes(),
        }
    }
}

/// One writer's end of an archive's chain.
#[derive(Debug)]
pub struct Writer {
    archive: ArchiveName,
    instance: InstanceId,
    epoch: u64,
    head: Option<Header>,
    /// No commit takes a number up to this one, even where the head is older.
    after: Seq,
    /// The store's time.
    clock: StoreClock,
    /// A commit whose append was asked for and not answered. It may be in the store or not, and
    /// must be asked for again, as it is, before anything else is appended.
    pending: Option<Record>,
    /// What it has committed since the last checkpoint.
    recent: Recent,
    /// The packs that a restore of the head needs.
    packs: Vec<PackId>,
}

impl Writer {
    /// A writer that holds the lease at `epoch` and will append after `head`.
    #[must_use]
    pub fn new(
        archive: ArchiveName,
        instance: InstanceId,
        epoch: u64,
        head: Option<Header>,
        store_now_ms: u64,
    ) -> Self {
        Self {
            archive,
            instance,
            epoch,
            head,
            after: 0,
            clock: StoreClock::new(store_now_ms),
            pending: None,
            recent: Recent::default(),
            packs: Vec::new(),
        }
    }

    /// The store's time, as this writer counts it on.
    pub fn clock(&mut self) -> &mut StoreClock {
        &mut self.clock
    }

    /// Takes up with an archive whose head's restore needs `packs`.
    pub fn needs(&mut self, packs: Vec<PackId>) {
        self.packs = packs;
    }

    /// The packs that a restore of its head needs, as far as it was told of them or wrote them.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Goes on under another grant of the lease, after the one it had was lost to nobody.
    pub fn raise_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Passes over numbers up to `seq`: they are taken by commits that cannot be read.
    pub fn skip_to(&mut self, seq: Seq) {
        self.after = seq;
    }

    /// Whose commits they are.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// The newest commit that was acknowledged.
    #[must_use]
    pub fn head(&self) -> Option<&Header> {
        self.head.as_ref()
    }

    /// What it has committed since the last checkpoint.
    pub(super) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The lease's epoch that commits carry.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a commit was asked for and not answered.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the chain since the checkpoint has outgrown it.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.head.as_ref().is_some_and(|head| {
            head.base > 0
                && (head.chain_bytes > (head.base_bytes * CHAIN_PERCENT / 100).max(CHAIN_BYTES_MIN)
                    || head.seq - head.base >= CHAIN_LENGTH_MAX)
        })
    }

    /// Appends a barrier: it changes nothing and takes a number, so that every writer that does not
    /// know of it collides.
    ///
    /// # Errors
    /// The store's; a transient one leaves the commit pending.
    pub async fn barrier(&mut self, store: &dyn CommitLog) -> Result<Outcome> {
        let summary = self.head.as_ref().map_or(
            Summary {
                root: super::tree::Tree::<()>::new().root(),
                files: 0,
                bytes: 0,
            },
            |head| Summary {
                root: head.root,
                files: head.live_files,
                bytes: head.live_bytes,
            },
        );
        let built = Built {
            body: Vec::new(),
            packs: Vec::new(),
            changes: 0,
            bytes: 0,
            stored: 0,
        };
        self.append(store, RecordKind::Barrier, built, summary, 0)
            .await
    }

    /// Appends a barrier, or asks again for the one that was not answered.
    ///
    /// # Errors
    /// As [`Writer::barrier`].
    pub async fn settle_or_barrier(&mut self, store: &dyn CommitLog) -> Result<Outcome> {
        match self.settle(store).await? {
            Some(outcome) => Ok(outcome),
            None => self.barrier(store).await,
        }
    }

    /// Appends changes. The first commit with content is a checkpoint by itself, since it lists
    /// everything there is.
    ///
    /// # Errors
    /// The store's; a transient one leaves the commit pending.
    pub async fn commit(
        &mut self,
        store: &dyn CommitLog,
        built: Built,
        tree: Summary,
    ) -> Result<Outcome> {
        let first = self.head.as_ref().is_none_or(|head| head.base == 0);
        let kind = if first {
            RecordKind::Checkpoint
        } else {
            RecordKind::Change
        };
        let base_bytes = built.stored;
        self.append(store, kind, built, tree, base_bytes).await
    }

    /// Appends a listing of the whole tree, of which a restore reads `base_bytes` bytes. Where the
    /// tree itself is not the head's, as when it was made anew from the directory, it is a change.
    ///
    /// # Errors
    /// The store's; a transient one leaves the commit pending.
    pub async fn checkpoint(
        &mut self,
        store: &dyn CommitLog,
        built: Built,
        tree: Summary,
        base_bytes: u64,
    ) -> Result<Outcome> {
        self.append(store, RecordKind::Checkpoint, built, tree, base_bytes)
            .await
    }

    async fn append(
        &mut self,
        store: &dyn CommitLog,
        kind: RecordKind,
        built: Built,
        tree: Summary,
        base_bytes: u64,
    ) -> Result<Outcome> {
        debug_assert!(self.pending.is_none(), "what is pending is settled first");
        self.pending = Some(self.compose(kind, built, tree, base_bytes));
        self.settle(store)
            .await
            .map(|outcome| outcome.expect("there is a pending commit"))
    }

    /// Asks again for the commit whose append was not answered; `None` where there is none.
    ///
    /// # Errors
    /// The store's; a transient one leaves it pending. [`ArchiveError::MissingCommit`] where what it
    /// builds on is gone from the store; it is pending no more then.
    pub async fn settle(&mut self, store: &dyn CommitLog) -> Result<Option<Outcome>> {
        let Some(record) = &self.pending else {
            return Ok(None);
        };
        match store.append(record).await? {
            Appended::Done => {
                self.recent.note(record);
                let header = self.pending.take().expect("was just looked at").header;
                if header.kind == RecordKind::Checkpoint {
                    self.packs.clear();
                }
                self.packs.extend_from_slice(&header.packs);
                self.head = Some(header.clone());
                Ok(Some(Outcome::Done(Box::new(header))))
            }
            Appended::Taken(other) => Ok(Some(Outcome::Fenced(other))),
            Appended::Orphan => {
                let seq = record.header.seq - 1;
                // It was not stored, and will not be.
                self.pending = None;
                Err(ArchiveError::MissingCommit { seq })
            }
        }
    }

    fn compose(&self, kind: RecordKind, built: Built, tree: Summary, base_bytes: u64) -> Record {
        let head = self.head.as_ref();
        let seq = head.map_or(0, |head| head.seq).max(self.after) + 1;
        let id = CommitId::generate();
        let changes_tree = match kind {
            RecordKind::Barrier => false,
            RecordKind::Change => true,
            RecordKind::Checkpoint => {
                head.is_none_or(|head| head.base == 0 || head.root != tree.root)
            }
        };
        let (base, base_bytes, chain_bytes) = match kind {
            RecordKind::Checkpoint => (seq, base_bytes, 0),
            // After commits of which none can be read there is no checkpoint to begin at, and yet
            // this is no new archive: whoever reads it must find the damage and not an empty chain.
            _ => head.map_or((self.after, 0, 0), |head| {
                (head.base, head.base_bytes, head.chain_bytes + built.stored)
            }),
        };
        let mut header = Header {
            format: FORMAT,
            archive: self.archive.clone(),
            history: head.map_or(id, |head| head.history),
            seq,
            id,
            kind,
            instance: self.instance.clone(),
            epoch: self.epoch,
            time_ms: self.clock.now_ms(),
            base,
            changed_at: if changes_tree {
                seq
            } else {
                head.map_or(0, |head| head.changed_at)
            },
            changed_epoch: if changes_tree {
                self.epoch
            } else {
                head.map_or(0, |head| head.changed_epoch)
            },
            parent: head.map(|head| head.digest).unwrap_or_default(),
            root: tree.root,
            changes: built.changes,
            bytes: built.bytes,
            live_files: tree.files,
            live_bytes: tree.bytes,
            chain_bytes,
            base_bytes,
            packs: built.packs,
            body_hash: Digest::of(&built.body),
            digest: Digest::default(),
        };
        header.digest = header.seal();
        Record {
            header,
            body: built.body,
        }
    }
}

/// This machine's clock, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
