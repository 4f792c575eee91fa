//! Archives in memory, for tests: with a clock that stands still until it is told to move, and
//! with the faults that a real store has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::lease::LeaseState;
use super::{
    Appended, Broken, CommitLog, Diagnostics, Finding, Lease, LeaseClaim, LeaseOutcome, Leases,
    PackInfo, Packs, Renewal, Result, Severity, Store, StoreError, Usage,
};
use sessionkeep_core::record::{
    ArchiveName, Header, InstanceId, PackId, Record, RecordKind, Seq, is_known,
};

/// What goes wrong with every operation of a [`MemoryStore`] until it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Faults {
    /// Nothing.
    #[default]
    None,
    /// The store cannot be reached; nothing happens.
    Unavailable,
    /// The store refuses us; nothing happens.
    Denied,
    /// Every operation takes this long; where that is beyond the deadline, nothing happens.
    Slow(Duration),
    /// Operations happen, but their answers are lost.
    AnswerLost,
}

/// How often a [`MemoryStore`] was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Operations that read.
    pub reads: u64,
    /// Operations that write commits or packs, or delete them.
    pub writes: u64,
    /// Operations that change a lease.
    pub leases: u64,
    /// The most operations that were under way at the same time.
    pub at_once: u64,
}

/// The clock's first reading: a round number in 2027, so that times look like times.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// How many bytes of bodies one answer of [`CommitLog::records`] holds, roughly.
const ANSWER_BYTES: usize = 8 << 20;

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<(ArchiveName, Seq), Stored>,
    packs: BTreeMap<(ArchiveName, PackId), Bytes>,
    unused: BTreeMap<(ArchiveName, PackId), u64>,
    pieces: BTreeMap<PackId, Bytes>,
    leases: BTreeMap<ArchiveName, LeaseState>,
    /// What the clock says beyond its first reading.
    clock_ms: i64,
    faults: Faults,
    calls: Calls,
    under_way: u64,
}

#[derive(Debug)]
struct Stored {
    record: Record,
    damaged: bool,
}

impl Stored {
    fn readable(&self) -> Result<&Record> {
        let header = &self.record.header;
        let what = || format!("commit {} of archive {}", header.seq, header.archive);
        if !is_known(header.format) {
            return Err(StoreError::unknown_format(what(), header.format));
        }
        if self.damaged {
            return Err(StoreError::Damaged {
                what: what(),
                why: "a test damaged it".to_owned(),
            });
        }
        Ok(&self.record)
    }
}

/// A store in memory. Clones share what is stored.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    timeout: Duration,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
    Lease,
}

impl MemoryStore {
    /// An empty store whose operations have a second each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timeout(Duration::from_secs(1))
    }

    /// An empty store with another deadline.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self {
            state: Arc::default(),
            timeout,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock left nothing half done: every change is
        // one call on a map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the store's clock on.
    pub fn advance(&self, by: Duration) {
        self.set_clock(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Sets the store's clock forward by so many milliseconds, or back.
    pub fn set_clock(&self, by_ms: i64) {
        self.state().clock_ms += by_ms;
    }

    /// Chooses what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// How often the store was used so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state().calls
    }

    /// Makes a record unreadable. Returns whether it was there.
    pub fn damage_record(&self, archive: &ArchiveName, seq: Seq) -> bool {
        let mut state = self.state();
        let found = state.records.get_mut(&(archive.clone(), seq));
        found.map(|stored| stored.damaged = true).is_some()
    }

    /// Changes a record's body behind everybody's back. Returns whether it was there.
    pub fn change_body(
        &self,
        archive: &ArchiveName,
        seq: Seq,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut state = self.state();
        let found = state.records.get_mut(&(archive.clone(), seq));
        found
            .map(|stored| change(&mut stored.record.body))
            .is_some()
    }

    /// Changes a pack's content behind everybody's back. Returns whether it was there.
    pub fn change_pack(
        &self,
        archive: &ArchiveName,
        id: PackId,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut state = self.state();
        let Some(content) = state.packs.get_mut(&(archive.clone(), id)) else {
            return false;
        };
        let mut changed = content.to_vec();
        change(&mut changed);
        *content = changed.into();
        true
    }

    /// Leaves what an interrupted [`Packs::put_pack`] leaves in a store that keeps packs in pieces.
    pub fn put_pieces(&self, id: PackId, content: Bytes) {
        self.state().pieces.insert(id, content);
    }

    /// Does `work` as the chosen faults allow.
    async fn operate<T>(
        &self,
        access: Access,
        action: &'static str,
        work: impl FnOnce(&mut State) -> Result<T> + Send,
    ) -> Result<T> {
        let unavailable = |why: &'static str| StoreError::Unavailable {
            action,
            source: why.into(),
        };
        let faults = self.state().faults;
        let _under_way = UnderWay::begin(self);
        match faults {
            Faults::Unavailable => return Err(unavailable("a test made it unavailable")),
            Faults::Denied => {
                return Err(StoreError::Denied {
                    action,
                    source: "a test made it refuse".into(),
                });
            }
            Faults::Slow(delay) => {
                tokio::time::sleep(delay.min(self.timeout)).await;
                if delay >= self.timeout {
                    return Err(unavailable("no answer in time"));
                }
            }
            Faults::None | Faults::AnswerLost => {}
        }
        let done = {
            let mut state = self.state();
            match access {
                Access::Read => state.calls.reads += 1,
                Access::Write => state.calls.writes += 1,
                Access::Lease => state.calls.leases += 1,
            }
            work(&mut state)
        };
        if faults == Faults::AnswerLost {
            return Err(unavailable("the answer was lost"));
        }
        done
    }
}

/// Counts an operation for as long as it is under way.
struct UnderWay<'a>(&'a MemoryStore);

impl<'a> UnderWay<'a> {
    fn begin(store: &'a MemoryStore) -> Self {
        let mut state = store.state();
        state.under_way += 1;
        state.calls.at_once = state.calls.at_once.max(state.under_way);
        Self(store)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

impl State {
    fn now_ms(&self) -> u64 {
        EPOCH_MS.saturating_add_signed(self.clock_ms)
    }

    fn range(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
    ) -> impl DoubleEndedIterator<Item = &Stored> {
        // The map panics where a range begins after its end.
        let span = (from <= to).then(|| {
            self.records
                .range((archive.clone(), from)..=(archive.clone(), to))
        });
        span.into_iter().flatten().map(|(_, stored)| stored)
    }
}

#[async_trait]
impl CommitLog for MemoryStore {
    async fn append(&self, record: &Record) -> Result<Appended> {
        let header = &record.header;
        let key = (header.archive.clone(), header.seq);
        self.operate(Access::Write, "append a commit", |state| {
            if let Some(stored) = state.records.get(&key) {
                if stored.record.header.id == header.id {
                    return Ok(Appended::Done);
                }
                return Ok(Appended::Taken(Box::new(stored.readable()?.header.clone())));
            }
            let before = (key.0.clone(), header.seq.saturating_sub(1));
            let stands_alone = header.kind == RecordKind::Checkpoint || header.seq <= 1;
            if !stands_alone && !state.records.contains_key(&before) {
                return Ok(Appended::Orphan);
            }
            let stored = Stored {
                record: record.clone(),
                damaged: false,
            };
            state.records.insert(key, stored);
            Ok(Appended::Done)
        })
        .await
    }

    async fn head(&self, archive: &ArchiveName) -> Result<Option<Header>> {
        self.operate(Access::Read, "list commits", |state| {
            let newest = state.range(archive, 0, Seq::MAX).next_back();
            newest
                .map(|stored| Ok(stored.readable()?.header.clone()))
                .transpose()
        })
        .await
    }

    async fn last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>> {
        self.operate(Access::Read, "list commits", |state| {
            let newest = state.range(archive, 0, Seq::MAX).next_back();
            Ok(newest.map(|stored| stored.record.header.seq))
        })
        .await
    }

    async fn numbers(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Seq>> {
        self.operate(Access::Read, "list commits", |state| {
            let found = state.range(archive, from, to);
            Ok(found.map(|stored| stored.record.header.seq).collect())
        })
        .await
    }

    async fn headers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Header>> {
        self.operate(Access::Read, "list commits", |state| {
            let newest_first = state.range(archive, from, to).rev().take(limit);
            newest_first
                .map(|stored| Ok(stored.readable()?.header.clone()))
                .collect()
        })
        .await
    }

    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>> {
        self.operate(Access::Read, "read commits", |state| {
            let (mut records, mut bytes) = (Vec::new(), 0);
            for stored in state.range(archive, from, to) {
                match stored.readable() {
                    Ok(record) => {
                        bytes += record.body.len();
                        records.push(record.clone());
                    }
                    Err(error) if records.is_empty() => return Err(error),
                    Err(_) => break,
                }
                if bytes >= ANSWER_BYTES {
                    break;
                }
            }
            Ok(records)
        })
        .await
    }

    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64> {
        self.operate(Access::Write, "delete commits", |state| {
            let removed = seqs
                .iter()
                .filter(|seq| state.records.remove(&(archive.clone(), **seq)).is_some());
            Ok(removed.count() as u64)
        })
        .await
    }

    async fn archives(&self) -> Result<Vec<ArchiveName>> {
        self.operate(Access::Read, "list archives", |state| {
            let mut names: Vec<_> = state.records.keys().map(|(name, _)| name.clone()).collect();
            names.dedup();
            Ok(names)
        })
        .await
    }
}

#[async_trait]
impl Packs for MemoryStore {
    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()> {
        self.operate(Access::Write, "store a pack", |state| {
            state.pieces.remove(&id);
            state.packs.entry((archive.clone(), id)).or_insert(content);
            Ok(())
        })
        .await
    }

    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        self.operate(Access::Read, "read a pack", |state| {
            let found = state.packs.get(&(archive.clone(), id)).cloned();
            found.ok_or_else(|| StoreError::Missing {
                what: format!("pack {id} of archive {archive}"),
            })
        })
        .await
    }

    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        self.operate(Access::Read, "list packs", |state| {
            let own = state.packs.iter().filter(|((name, _), _)| name == archive);
            Ok(own
                .map(|((_, id), content)| PackInfo {
                    id: *id,
                    size: content.len() as u64,
                    unused_since_ms: state.unused.get(&(archive.clone(), *id)).copied(),
                })
                .collect())
        })
        .await
    }

    async fn lacking(&self, archive: &ArchiveName, packs: &[PackId]) -> Result<Vec<PackId>> {
        self.operate(Access::Read, "list packs", |state| {
            let is_there = |id: &PackId| state.packs.contains_key(&(archive.clone(), *id));
            Ok(packs.iter().filter(|id| !is_there(id)).copied().collect())
        })
        .await
    }

    async fn mark_unused(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()> {
        self.operate(Access::Write, "mark packs as unused", |state| {
            for id in packs {
                let key = (archive.clone(), *id);
                match since_ms {
                    Some(since_ms) if state.packs.contains_key(&key) => {
                        state.unused.insert(key, since_ms);
                    }
                    _ => {
                        state.unused.remove(&key);
                    }
                }
            }
            Ok(())
        })
        .await
    }

    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()> {
        self.operate(Access::Write, "delete a pack", |state| {
            state.unused.remove(&(archive.clone(), id));
            state.packs.remove(&(archive.clone(), id));
            Ok(())
        })
        .await
    }

    async fn sweep(&self, before_ms: u64) -> Result<u64> {
        self.operate(Access::Write, "collect pieces of packs", |state| {
            let before = state.pieces.len();
            state.pieces.retain(|id, _| id.made_ms() >= before_ms);
            Ok((before - state.pieces.len()) as u64)
        })
        .await
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn take_lease(&self, archive: &ArchiveName, claim: &LeaseClaim) -> Result<LeaseOutcome> {
        self.operate(Access::Lease, "take the lease", |state| {
            let now = state.now_ms();
            let (after, outcome) = LeaseState::claim(state.leases.get(archive), claim, now);
            if let Some(after) = after {
                state.leases.insert(archive.clone(), after);
            }
            Ok(outcome)
        })
        .await
    }

    async fn renew_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
    ) -> Result<Renewal> {
        self.operate(Access::Lease, "renew the lease", |state| {
            let now = state.now_ms();
            let Some(lease) = state.leases.get_mut(archive) else {
                return Ok(Renewal::Lost(None));
            };
            let Some(renewed) = lease.renewed(instance, epoch, ttl, now) else {
                return Ok(Renewal::Lost(Some(lease.told_at(now))));
            };
            *lease = renewed;
            Ok(Renewal::Renewed(lease.told_at(now)))
        })
        .await
    }

    async fn release_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
    ) -> Result<()> {
        self.operate(Access::Lease, "release the lease", |state| {
            if let Some(lease) = state.leases.get_mut(archive) {
                lease.release(instance, epoch);
            }
            Ok(())
        })
        .await
    }

    async fn break_lease(&self, archive: &ArchiveName) -> Result<Broken> {
        self.operate(Access::Lease, "end the lease", |state| {
            let now = state.now_ms();
            Ok(match state.leases.get_mut(archive) {
                Some(lease) => {
                    let broken = lease.told_at(now);
                    lease.end();
                    Broken::Ended(broken)
                }
                None => Broken::Absent,
            })
        })
        .await
    }

    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        self.operate(Access::Read, "read the lease", |state| {
            let now = state.now_ms();
            Ok(state.leases.get(archive).map(|lease| lease.told_at(now)))
        })
        .await
    }

    async fn now_ms(&self) -> Result<u64> {
        self.operate(Access::Read, "tell the time", |state| Ok(state.now_ms()))
            .await
    }
}

#[async_trait]
impl Diagnostics for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn ping(&self) -> Result<()> {
        self.operate(Access::Read, "answer a ping", |_| Ok(()))
            .await
    }

    async fn usage(&self, archive: &ArchiveName) -> Result<Usage> {
        self.operate(Access::Read, "measure an archive", |state| {
            let mut usage = Usage::default();
            for stored in state.range(archive, 0, Seq::MAX) {
                usage.commits += 1;
                usage.commit_bytes += stored.record.body.len() as u64;
            }
            for ((name, _), content) in &state.packs {
                if name == archive {
                    usage.packs += 1;
                    usage.pack_bytes += content.len() as u64;
                }
            }
            Ok(usage)
        })
        .await
    }

    async fn examine(&self) -> Vec<Finding> {
        let (severity, detail, remedy) = match self.ping().await {
            Ok(()) => (Severity::Good, "in memory, for tests".to_owned(), ""),
            Err(error) => (Severity::Bad, error.to_string(), "end the test's faults"),
        };
        vec![Finding {
            subject: "store reachable",
            severity,
            detail,
            remedy: remedy.to_owned(),
        }]
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self) -> Result<()> {
        self.operate(Access::Read, "create its tables", |_| Ok(()))
            .await
    }

    async fn close(&self) {}
}
