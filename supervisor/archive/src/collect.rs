//! Collects what no restore can need any more: superseded commits, and packs nobody refers to.

use std::collections::HashMap;
use std::time::Duration;

use super::clock::StoreClock;
use super::error::Result;
use crate::store::{PackInfo, Store};
use sessionkeep_core::record::{ArchiveName, Header, PackId, RecordKind, Seq};

/// How many headers are asked for at a time.
const HEADERS_PAGE: usize = 2000;
/// How many records are deleted in one call to the store.
const DELETE_BATCH: usize = 500;

/// What deciding needs of a header: an hour of a busy archive has many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    seq: Seq,
    kind: RecordKind,
    time_ms: u64,
    packs: Vec<PackId>,
}

impl From<Header> for Kept {
    fn from(header: Header) -> Self {
        let Header {
            seq,
            kind,
            time_ms,
            packs,
            ..
        } = header;
        Self {
            seq,
            kind,
            time_ms,
            packs,
        }
    }
}

/// What there is to collect.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CollectionPlan {
    /// Commits that go.
    pub commits: Vec<Seq>,
    /// Packs that go.
    pub packs: Vec<PackId>,
    /// Packs to which no commit refers any more, from when `commits` are gone.
    pub unused: Vec<PackId>,
    /// Packs that were noted as unused, and to which a commit refers all the same.
    pub used: Vec<PackId>,
}

impl CollectionPlan {
    /// Decides. A checkpoint and the commits after it go once a newer checkpoint has stood for
    /// `grace`: whoever began to restore from them has long ended. A pack goes when no commit has referred
    /// to it for `grace`: whoever copies the store, and has the last of them, still has to read it; and
    /// where none ever did, its commit may be on its way.
    ///
    /// `headers` are in descending order, as stores give them.
    #[must_use]
    pub fn decide(headers: &[Kept], packs: &[PackInfo], now_ms: u64, grace: Duration) -> Self {
        let before = now_ms.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let times = times(headers, now_ms);
        let checkpoints: Vec<(&Kept, u64)> = headers
            .iter()
            .zip(times)
            .filter(|(header, _)| header.kind == RecordKind::Checkpoint)
            .collect();
        // Newest first: the first whose successor is old enough, and all before it, go.
        let keep_from = checkpoints
            .windows(2)
            .find(|pair| pair[0].1 <= before)
            .map_or(0, |pair| pair[0].0.seq);
        let commits = headers
            .iter()
            .map(|h| h.seq)
            .filter(|seq| *seq < keep_from)
            .collect();
        // Whether a commit that stays refers to it, for each pack to which one does.
        let mut referred: HashMap<PackId, bool> = HashMap::new();
        for header in headers {
            for id in &header.packs {
                *referred.entry(*id).or_default() |= header.seq >= keep_from;
            }
        }
        let mut plan = Self {
            commits,
            ..Self::default()
        };
        for pack in packs {
            match (referred.get(&pack.id), pack.unused_since_ms) {
                (Some(true), None) => {}
                (Some(true), Some(_)) => plan.used.push(pack.id),
                // What was noted is from before: of another life of a store that was set back, or by a
                // clock that was ahead.
                (Some(false), _) | (None, None) => plan.unused.push(pack.id),
                (None, Some(since)) if since > now_ms => plan.unused.push(pack.id),
                (None, Some(since)) if since <= before => plan.packs.push(pack.id),
                (None, Some(_)) => {}
            }
        }
        plan
    }
}

/// When each of these commits was written, in their order, as far as their times can be believed: the
/// store's clock may have been set while they were. One that lies in the future was written no later
/// than the next; and none was written before those that it follows.
fn times(headers: &[Kept], now_ms: u64) -> Vec<u64> {
    let mut next = now_ms;
    let mut times: Vec<u64> = headers
        .iter()
        .map(|header| {
            if header.time_ms <= now_ms {
                next = header.time_ms;
            }
            next
        })
        .collect();
    let mut before = 0;
    for time in times.iter_mut().rev() {
        before = before.max(*time);
        *time = before;
    }
    times
}

/// Collects. Safe to be cut off anywhere, and to be run by two at once: only what nobody can need
/// is ever deleted, commits before the packs that only they refer to. How old something is, `clock` says.
///
/// # Errors
/// The store's.
pub async fn collect(
    store: &dyn Store,
    archive: &ArchiveName,
    grace: Duration,
    clock: &mut StoreClock,
) -> Result<CollectionPlan> {
    let now_ms = clock.judge(store.now_ms().await?, grace);
    let (headers, packs) = look(store, archive).await?;
    let plan = CollectionPlan::decide(&headers, &packs, now_ms, grace);
    // The oldest first, so that what is cut off here leaves no gap between those that are still there.
    for batch in plan.commits.rchunks(DELETE_BATCH) {
        store.delete_records(archive, batch).await?;
    }
    // Only now that their commits are gone, and by a clock that is read after that.
    if !plan.unused.is_empty() {
        let since = Some(clock.now_ms());
        store.mark_unused(archive, &plan.unused, since).await?;
    }
    if !plan.used.is_empty() {
        store.mark_unused(archive, &plan.used, None).await?;
    }
    for id in &plan.packs {
        store.delete_pack(archive, *id).await?;
    }
    let before = now_ms.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    store.sweep(before).await?;
    Ok(plan)
}

/// What would be collected if there were no grace, and all packs; nothing is deleted.
///
/// # Errors
/// The store's.
pub async fn without_grace(
    store: &dyn Store,
    archive: &ArchiveName,
) -> Result<(CollectionPlan, Vec<PackInfo>)> {
    let (headers, packs) = look(store, archive).await?;
    let mut plan = CollectionPlan::decide(&headers, &packs, u64::MAX, Duration::ZERO);
    plan.packs.append(&mut plan.unused);
    Ok((plan, packs))
}

/// All headers, the newest first, as far as deciding needs them, and all packs.
async fn look(store: &dyn Store, archive: &ArchiveName) -> Result<(Vec<Kept>, Vec<PackInfo>)> {
    // Packs first: one that is put after this look is not judged by headers that do not know it.
    let packs = store.packs(archive).await?;
    let (mut headers, mut to) = (Vec::new(), Seq::MAX);
    loop {
        let page = store.headers(archive, 1, to, HEADERS_PAGE).await?;
        let full = page.len() == HEADERS_PAGE;
        to = page.last().map_or(1, |header| header.seq) - 1;
        headers.extend(page.into_iter().map(Kept::from));
        if !full || to == 0 {
            break;
        }
    }
    Ok((headers, packs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const NOW: u64 = 1_800_000_000_000;

    /// Checkpoints, the newest first, by when their header says that they were written: so many minutes
    /// ago. What is left of them with a grace of an hour.
    fn kept(minutes_ago: &[i64]) -> Vec<Seq> {
        let count = minutes_ago.len() as u64;
        let headers: Vec<Kept> = minutes_ago
            .iter()
            .zip((1..=count).rev())
            .map(|(ago, seq)| Kept {
                seq,
                kind: RecordKind::Checkpoint,
                time_ms: NOW.saturating_add_signed(-ago * MINUTE.cast_signed()),
                packs: Vec::new(),
            })
            .collect();
        let plan = CollectionPlan::decide(&headers, &[], NOW, Duration::from_secs(3600));
        let seqs = headers.iter().map(|header| header.seq);
        seqs.filter(|seq| !plan.commits.contains(seq)).collect()
    }

    /// What becomes of a pack with a grace of an hour: one to which the checkpoints of so many minutes ago
    /// refer, the newest first, and of which it was noted so many minutes ago that none does.
    fn fate(referred: &[(i64, bool)], unused: Option<i64>) -> &'static str {
        let pack = PackId([7; 16]);
        let at = |ago: i64| NOW.saturating_add_signed(-ago * MINUTE.cast_signed());
        let seqs = (1..=referred.len() as u64).rev();
        let headers: Vec<Kept> = seqs
            .zip(referred)
            .map(|(seq, (ago, refers))| Kept {
                seq,
                kind: RecordKind::Checkpoint,
                time_ms: at(*ago),
                packs: if *refers { vec![pack] } else { vec![] },
            })
            .collect();
        let info = PackInfo {
            id: pack,
            size: 1,
            unused_since_ms: unused.map(at),
        };
        let plan = CollectionPlan::decide(&headers, &[info], NOW, Duration::from_secs(3600));
        match (&plan.packs[..], &plan.unused[..], &plan.used[..]) {
            ([], [], []) => "stays",
            ([_], [], []) => "goes",
            ([], [_], []) => "is noted as unused",
            ([], [], [_]) => "is used again",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pack_goes_one_grace_after_its_last_commit_went() {
        assert_eq!(fate(&[(70, false), (90, true)], None), "is noted as unused");
        assert_eq!(fate(&[(70, false)], Some(59)), "stays");
        assert_eq!(fate(&[(70, false)], Some(60)), "goes");
        assert_eq!(fate(&[(70, true)], None), "stays");
        // Its commit is on its way.
        assert_eq!(fate(&[], None), "is noted as unused");
        assert_eq!(fate(&[(1, true)], Some(61)), "is used again");
    }

    #[test]
    fn what_was_noted_before_a_store_was_set_back_takes_nothing_too_early() {
        // In a dump its last commit is still there, and goes only now.
        assert_eq!(
            fate(&[(70, false), (90, true)], Some(500)),
            "is noted as unused"
        );
        // The clock was two years ahead then.
        let ahead = -2 * 366 * 24 * 60;
        assert_eq!(fate(&[(70, false)], Some(ahead)), "is noted as unused");
    }

    #[test]
    fn what_is_superseded_goes_after_the_grace() {
        assert_eq!(kept(&[10, 61, 200]), [3, 2]);
        assert_eq!(kept(&[10, 59, 200]), [3, 2, 1]);
        assert_eq!(kept(&[61, 62, 200]), [3]);
    }

    #[test]
    fn a_time_in_the_future_keeps_nothing_for_ever() {
        // Two years ahead, when the clock was wrong; the one after them tells that they are older.
        let ahead = -2 * 366 * 24 * 60;
        assert_eq!(kept(&[10, 61, ahead, ahead]), [4, 3]);
        // Nothing tells how old the newest are.
        assert_eq!(kept(&[ahead, ahead, 200]), [3, 2, 1]);
    }

    #[test]
    fn a_time_that_is_too_early_takes_nothing_too_early() {
        // The clock was two hours behind when the newest was written, ten minutes after the one before.
        assert_eq!(kept(&[120, 10, 200]), [3, 2, 1]);
    }
}
