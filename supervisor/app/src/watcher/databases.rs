//! Reads SQLite databases for a commit: of one moment each, only what changed where the write-ahead
//! log tells, and paced so that a busy one costs a few percent of a core.

mod unlocked;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{debug, info};

use super::gathered::{Blocks, Pass};
use super::outcome::{FileOutcome, Later, RETRY, carry};
use sessionkeep_archive::blocks::{BlockMap, BlockReader, PAGE_BLOCK};
use sessionkeep_archive::builder::Builder;
use sessionkeep_archive::{ArchiveError, Result};
use sessionkeep_core::beneath::Place;
use sessionkeep_core::entry::{Digest, RelPath};
use sessionkeep_core::human::Causes;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{
    Check, Directory, Form, Found, Login, ProcessFreezer, Snapshot, SnapshotError, WalPosition,
    snapshot_frozen,
};

/// How long a snapshot waits for a database's lock while the gateway runs, and at the end.
/// One with a rollback journal is not locked at all: see [`unlocked`].
const BUSY_LIVE: Duration = Duration::from_millis(150);
const BUSY_FINAL: Duration = Duration::from_secs(1);
/// After a database was locked for this long, its writer does not share: freeze it.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// After it was locked for this long, and could not be copied in a freeze either, it is reported.
const BUSY_GIVE_UP: Duration = Duration::from_secs(10);
/// A snapshot of what changed that cost `t` of a core is not repeated for `t` times this: 1 %, besides the
/// commits' way to the store and their checkpoints. With the few pages of everyday load that is well
/// below the 200 ms that a crash may cost.
const PACE: u32 = 100;
/// But not for longer than this, as after the log has begun anew, as long as that is less than 4 %.
const PACE_SOON: Duration = Duration::from_millis(350);
/// The same where all of it had to be read: 4 %, since there it is the latency that hurts.
const PACE_WHOLE: u32 = 25;
/// No database waits longer for its next snapshot.
const PACE_MAX: Duration = Duration::from_secs(30);
/// What a snapshot costs besides reading and compressing: the commit's way to the store.
const COMMIT_COST: Duration = Duration::from_millis(1);
/// How often a gateway is held still for a database that it writes without a pause, at most.
const FREEZE_EVERY: Duration = Duration::from_secs(1);
/// Databases up to this size are checked whenever they are read whole, larger ones at times.
const CHECK_ALWAYS_MAX: u64 = 8 << 20;
/// How often a database is read whole and checked though its log tells what changed, at most; and
/// how often a larger one is checked of which it does not tell.
const WHOLE_EVERY: Duration = Duration::from_secs(60);
/// Where reading it whole took `t`, not again for `t` times this: 0.2 % of a core.
const WHOLE_PACE: u32 = 500;

#[derive(Debug, Default)]
struct Pace {
    /// Not before then.
    next: Option<Instant>,
    /// Not before then where all of it has to be read.
    next_whole: Option<Instant>,
    /// Until when what reading all of it has cost is spread. One reading may be ahead of that: the
    /// one at the start and the first change after it come close together.
    paid_until: Option<Instant>,
    /// Since when its lock cannot be had.
    busy_since: Option<Instant>,
    /// Not before then are its writers held still again.
    next_freeze: Option<Instant>,
    /// When it is to be read whole and checked again.
    check_due: Option<Instant>,
    /// The last snapshot found nothing new, so an unchanged fingerprint proves that there is
    /// nothing now: a write cannot hide in the clock tick of the one that was seen.
    settled: bool,
    /// The login that it keeps, as it was last read.
    login: Option<Login>,
}

/// Reads databases, and remembers of each how that went.
#[derive(Debug)]
pub(super) struct Databases {
    /// Where copies are made.
    state: StateDir,
    gateway: Option<i32>,
    paces: HashMap<RelPath, Pace>,
    /// Those that were read since [`Databases::charge`] was last called.
    read: Vec<(RelPath, Extent)>,
    /// Those whose login is another than before, since [`Databases::take_logins`] was last called.
    logins: Vec<RelPath>,
}

/// How much of a database was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Changed,
}

/// What a database is compared with.
pub(super) struct Committed<'a> {
    /// Size and hash of the committed version, if there is one.
    pub(super) content: Option<(u64, Digest)>,
    /// Its blocks, if they are known.
    pub(super) blocks: Option<&'a Blocks>,
}

impl Databases {
    /// None read yet.
    pub(super) fn new(state: StateDir) -> Self {
        Self {
            state,
            gateway: None,
            paces: HashMap::new(),
            read: Vec::new(),
            logins: Vec::new(),
        }
    }

    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        self.gateway = pid;
    }

    /// The gateway's main process, where it is known.
    pub(super) fn gateway(&self) -> Option<i32> {
        self.gateway
    }

    /// Whether this was found to be a database.
    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.paces.contains_key(path)
    }

    /// Whether this keeps a login, as it was last read.
    pub(super) fn keeps_login(&self, path: &RelPath) -> bool {
        self.paces
            .get(path)
            .is_some_and(|pace| pace.login.is_some())
    }

    /// Takes in which login the committed version of a database keeps, where this watcher has not read it.
    pub(super) fn note_login(&mut self, path: &RelPath, login: Login) {
        let pace = self.paces.entry(path.clone()).or_default();
        pace.login.get_or_insert(login);
    }

    /// The databases whose login changed, each with what it keeps now.
    pub(super) fn take_logins(&mut self) -> Vec<(RelPath, Option<Login>)> {
        let login = |path: &RelPath| self.paces.get(path)?.login.clone();
        let taken = std::mem::take(&mut self.logins);
        taken
            .into_iter()
            .map(|path| {
                let login = login(&path);
                (path, login)
            })
            .collect()
    }

    /// Until when there is no snapshot of this, where that is soon. Where it is not, it is looked at all
    /// the same: it may have been deleted.
    pub(super) fn too_soon(&self, path: &RelPath, now: Instant) -> Option<Instant> {
        let next = self.paces.get(path)?.next?;
        (now < next && next <= now + PACE_SOON).then_some(next)
    }

    /// Whether its last snapshot found nothing new; `None` for what is no database.
    pub(super) fn is_settled(&self, path: &RelPath) -> Option<bool> {
        self.paces.get(path).map(|pace| pace.settled)
    }

    /// Puts off the next snapshot of the databases that were read, for which `cost` of a core went.
    pub(super) fn charge(&mut self, cost: Duration) {
        let now = Instant::now();
        let cost = cost + COMMIT_COST;
        for (path, extent) in self.read.drain(..) {
            let Some(pace) = self.paces.get_mut(&path) else {
                continue;
            };
            match extent {
                Extent::Changed => {
                    let pause = (cost * PACE).min(PACE_SOON).max(cost * PACE_WHOLE);
                    pace.next = Some(now + pause.min(PACE_MAX));
                }
                Extent::Whole => {
                    let paid = pace.paid_until.map_or(now, |until| until.max(now));
                    pace.next_whole = Some(paid);
                    pace.paid_until = Some(paid + (cost * PACE_WHOLE).min(PACE_MAX));
                    // It costs as much only if it has to read everything again, as it certainly has
                    // to where its writer shares no lock.
                    let again = pace.busy_since.map(|_| paid);
                    pace.next = again.max(Some(now + COMMIT_COST * PACE));
                }
            }
        }
    }

    /// Reads the database `found` and adds to the commit what differs from `committed`.
    pub(super) fn read(
        &mut self,
        directory: &Directory,
        found: &Found,
        committed: &Committed<'_>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let now = Instant::now();
        let pace = self.paces.entry(found.path.clone()).or_default();
        if let (Pass::Live, Some(next)) = (pass, pace.next)
            && now < next
        {
            return Ok(FileOutcome::Later(Later {
                when: next,
                why: "its last snapshot was just now",
            }));
        }
        let place = match Place::below(directory.fd(), found.path.as_bytes()) {
            Ok(place) => place,
            // Also where a directory on the way is something else by now.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(FileOutcome::Gone),
            Err(errno) => return Ok(FileOutcome::Unreadable(errno.desc().to_owned())),
        };
        let mut reading = Reading {
            place: &place,
            found,
            committed,
            check_due: pace.check_due.is_none_or(|due| now >= due),
            whole_from: pace.next_whole.filter(|at| pass == Pass::Live && now < *at),
            checked: false,
            extent: Extent::Whole,
            way: Way::Beside,
            login: None,
            builder,
            failure: None,
        };
        let is_patient = pace
            .busy_since
            .is_none_or(|since| since.elapsed() < BUSY_PATIENCE);
        let taken = match (pass, is_patient, self.gateway) {
            (_, false, Some(gateway)) => match reading.frozen(&self.state, gateway) {
                Err(SnapshotError::Io(_)) if pass == Pass::Live && reading.failure.is_none() => {
                    reading.live(BUSY_LIVE)
                }
                other => other,
            },
            (Pass::Live, true, gateway) => {
                reading.beside_its_writer(&self.state, gateway, pace.next_freeze)
            }
            (Pass::Live, false, None) => reading.live(BUSY_LIVE),
            (Pass::Final, ..) => reading.live(BUSY_FINAL),
        };
        if let Some(error) = reading.failure {
            return Err(error);
        }
        let (checked, extent, way) = (reading.checked, reading.extent, reading.way);
        if way != Way::Beside {
            pace.next_freeze = Some(Instant::now() + FREEZE_EVERY);
        }
        if let Some(login) = reading.login
            && pace.login != login
        {
            pace.login = login;
            self.logins.push(found.path.clone());
        }
        if !matches!(taken, Err(SnapshotError::Busy) | Ok(FileOutcome::Later(_))) {
            self.read.push((found.path.clone(), extent));
        }
        match taken {
            Ok(FileOutcome::Later(later)) => {
                pace.next = Some(later.when);
                Ok(FileOutcome::Later(later))
            }
            Ok(outcome) => {
                if checked {
                    let pause = WHOLE_EVERY.max(now.elapsed() * WHOLE_PACE);
                    pace.check_due = Some(Instant::now() + pause);
                }
                if way == Way::FrozenWhileHeld {
                    info!(target: "sync", path = %found.path, "a database whose writer shares no lock was copied while the gateway was stopped for a moment");
                } else {
                    pace.busy_since = None;
                }
                pace.settled = matches!(outcome, FileOutcome::Same { .. });
                Ok(outcome)
            }
            Err(SnapshotError::Busy) => {
                let since = *pace.busy_since.get_or_insert(now);
                pace.next = None;
                if pass == Pass::Live && since.elapsed() >= BUSY_GIVE_UP {
                    // The next rescan tries again.
                    let words = "its writer has held the database's lock for long";
                    return Ok(FileOutcome::Unreadable(words.into()));
                }
                debug!(target: "sync", path = %found.path, locked_for = ?since.elapsed(), "database is locked");
                Ok(FileOutcome::Later(Later {
                    when: Instant::now() + RETRY * 5,
                    why: "its writer holds the lock",
                }))
            }
            Err(SnapshotError::Vanished) => Ok(FileOutcome::Gone),
            Err(SnapshotError::Damaged(words)) => Ok(FileOutcome::NotWhole(words)),
            Err(other) => Ok(FileOutcome::Unreadable(Causes(&other).to_string())),
        }
    }
}

/// How a database is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Beside its writer.
    Beside,
    /// From a copy that was made while its writer stood still, since it never paused.
    Frozen,
    /// The same, since it never let its lock go.
    FrozenWhileHeld,
}

/// One database on its way into a commit.
struct Reading<'a> {
    place: &'a Place,
    found: &'a Found,
    committed: &'a Committed<'a>,
    /// Whether it is time to read it whole and check it.
    check_due: bool,
    /// Until when it is too early to read all of it again.
    whole_from: Option<Instant>,
    checked: bool,
    extent: Extent,
    way: Way,
    /// The login that it keeps, where that was read.
    login: Option<Option<Login>>,
    builder: &'a mut Builder,
    /// The commit's own error, which ends the gathering: what hands the pages on can only carry an
    /// I/O error.
    failure: Option<ArchiveError>,
}

/// Takes the pages of a database, in order, with their offsets.
type Pages<'p> = &'p mut dyn FnMut(u64, &[u8]) -> io::Result<()>;
type Taken = std::result::Result<FileOutcome, SnapshotError>;

impl<'a> Reading<'a> {
    /// From a read transaction beside its writer.
    fn live(&mut self, busy: Duration) -> Taken {
        let snapshot = Snapshot::begin(self.place, busy)?;
        let outcome = match (self.changed_pages(&snapshot), self.whole_from) {
            (Some((before, pages)), _) => {
                self.extent = Extent::Changed;
                self.patch(&snapshot, before, &pages)
            }
            (None, Some(when)) => Ok(FileOutcome::Later(Later {
                when,
                why: "it was read whole just now, and its log does not tell what changed since",
            })),
            (None, None) => self.whole(&snapshot),
        }?;
        let login = snapshot.login()?;
        snapshot.end()?;
        // What has to be read again says nothing of what is committed.
        if !matches!(outcome, FileOutcome::Later(_)) {
            self.login = Some(login);
        }
        Ok(outcome)
    }

    /// From a copy that is made while nobody writes.
    fn frozen(&mut self, state: &StateDir, gateway: i32) -> Taken {
        if self.way == Way::Beside {
            self.way = Way::FrozenWhileHeld;
        }
        let freezer = ProcessFreezer::of_gateway(gateway);
        let (place, check) = (self.place, self.check());
        self.all(None, &mut |each| {
            snapshot_frozen(place, state, &freezer, check, each).map(drop)
        })
    }

    fn whole(&mut self, snapshot: &Snapshot) -> Taken {
        if self.check() == Check::Quick {
            snapshot.check()?;
        }
        self.all(snapshot.moment(), &mut |each| snapshot.all_pages(each))
    }

    fn check(&mut self) -> Check {
        if self.check_due || self.found.print.size <= CHECK_ALWAYS_MAX {
            self.checked = true;
            Check::Quick
        } else {
            Check::None
        }
    }

    /// Reads all pages through `take`, which can be asked more than once.
    fn all(
        &mut self,
        moment: Option<WalPosition>,
        take: &mut dyn FnMut(Pages<'_>) -> std::result::Result<(), SnapshotError>,
    ) -> Taken {
        let known = self.committed.content;
        let before = self.committed.blocks.map(|blocks| &blocks.map);
        if let (None, Some(known)) = (before, known) {
            // After a restart the content is likely the committed one, and only its block hashes
            // are not known: what turns out unchanged is not sent again.
            let mut reader = BlockReader::new(PAGE_BLOCK, None);
            take(&mut |_, page| reader.feed(page, |_, _, _| Ok(())))?;
            let mut map = reader
                .finish(|_, _, _| Ok::<_, ()>(()))
                .expect("nothing in it fails");
            if known == (map.size(), map.hash()) {
                map.settle();
                return Ok(self.outcome((map, known.1, false), moment));
            }
        }
        let mut file = self
            .builder
            .begin_blocks(&self.found.path, PAGE_BLOCK, before);
        let (builder, failure) = (&mut *self.builder, &mut self.failure);
        let taken = take(&mut |_, page| carry(file.feed(builder, page), failure));
        if let Err(error) = taken {
            file.abandon(self.builder);
            return Err(error);
        }
        match file.finish(self.builder, self.found.meta, known) {
            Ok(ended) => Ok(self.outcome(ended, moment)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What the log tells to have changed since the committed version, if it does and may be relied
    /// on for now.
    fn changed_pages(&self, snapshot: &Snapshot) -> Option<(&'a Blocks, Vec<u32>)> {
        let before = self.committed.blocks?;
        // A file of a single block is hashed in another way, and is not worth it.
        let large_enough = |size: u64| size > u64::from(PAGE_BLOCK);
        let size = snapshot.image().size();
        if self.check_due || !large_enough(size) || !large_enough(before.map.size()) {
            return None;
        }
        let pages = snapshot.changed_since(before.moment.as_ref()?)?;
        Some((before, pages))
    }

    /// Reads only these pages, with those that share a block with them.
    fn patch(&mut self, snapshot: &Snapshot, before: &Blocks, pages: &[u32]) -> Taken {
        let image = snapshot.image();
        let per_block = (PAGE_BLOCK / image.page_size).max(1);
        let mut blocks: Vec<u32> = pages.iter().map(|page| (page - 1) / per_block).collect();
        blocks.dedup();
        let last = u32::try_from(image.pages).unwrap_or(u32::MAX);
        let pages = blocks
            .into_iter()
            .flat_map(|block| block * per_block + 1..=(block + 1) * per_block)
            .take_while(|page| *page <= last);
        let mut patch = self
            .builder
            .begin_patch(&self.found.path, &before.map, image.size());
        let (builder, failure) = (&mut *self.builder, &mut self.failure);
        let mut block: Vec<u8> = Vec::with_capacity(PAGE_BLOCK as usize);
        let taken = snapshot.some_pages(pages, &mut |offset, page| {
            block.extend_from_slice(page);
            let end = offset + page.len() as u64;
            if block.len() < PAGE_BLOCK as usize && end < image.size() {
                return Ok(());
            }
            let start = end - block.len() as u64;
            for (n, part) in (0..).zip(block.chunks(PAGE_BLOCK as usize)) {
                let put = patch.put(builder, start + n * u64::from(PAGE_BLOCK), part);
                carry(put, failure)?;
            }
            block.clear();
            Ok(())
        });
        if let Err(error) = taken {
            patch.abandon(self.builder);
            return Err(error);
        }
        let ended = patch.finish(self.builder, self.found.meta, self.committed.content);
        Ok(self.outcome(ended, snapshot.moment()))
    }

    fn outcome(&self, ended: (BlockMap, Digest, bool), moment: Option<WalPosition>) -> FileOutcome {
        FileOutcome::of_blocks(
            ended,
            self.found.meta,
            self.found.print,
            moment,
            Some(Form::Database),
        )
    }

    fn fail(&mut self, error: ArchiveError) -> SnapshotError {
        let carried = carry(Err(error), &mut self.failure);
        SnapshotError::Io(carried.expect_err("it was one"))
    }
}
