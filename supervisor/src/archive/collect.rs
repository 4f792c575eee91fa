//! Collects what no restore can need any more: superseded commits, and packs nobody refers to.

use std::collections::HashSet;
use std::time::Duration;

use super::error::Result;
use crate::store::{ArchiveName, Header, PackId, PackInfo, RecordKind, Seq, Store};

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
pub struct Plan {
    /// Commits that go.
    pub commits: Vec<Seq>,
    /// Packs that go.
    pub packs: Vec<PackId>,
}

impl Plan {
    /// Decides. A checkpoint and the commits after it go once a newer checkpoint has stood for
    /// `grace`: whoever began to restore from them has long ended. A pack goes when no commit that
    /// stays refers to it and it is older than `grace`: its commit may still be on its way.
    ///
    /// `headers` are in descending order, as stores give them.
    #[must_use]
    pub fn decide(headers: &[Kept], packs: &[PackInfo], now_ms: u64, grace: Duration) -> Self {
        let before = now_ms.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let checkpoints: Vec<&Kept> = headers
            .iter()
            .filter(|h| h.kind == RecordKind::Checkpoint)
            .collect();
        // Newest first: the first whose successor is old enough, and all before it, go.
        let keep_from = checkpoints
            .windows(2)
            .find(|pair| pair[0].time_ms <= before)
            .map_or(0, |pair| pair[0].seq);
        let commits = headers
            .iter()
            .map(|h| h.seq)
            .filter(|seq| *seq < keep_from)
            .collect();
        let referred: HashSet<PackId> = headers
            .iter()
            .filter(|h| h.seq >= keep_from)
            .flat_map(|h| h.packs.iter().copied())
            .collect();
        let packs = packs
            .iter()
            .map(|pack| pack.id)
            .filter(|id| !referred.contains(id) && id.made_ms() < before)
            .collect();
        Self { commits, packs }
    }
}

/// Collects. Safe to be cut off anywhere, and to be run by two at once: only what nobody can need
/// is ever deleted, commits before the packs that only they refer to.
///
/// # Errors
/// The store's.
pub async fn collect(store: &dyn Store, archive: &ArchiveName, grace: Duration) -> Result<Plan> {
    let now_ms = store.now_ms().await?;
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
    let plan = Plan::decide(&headers, &packs, now_ms, grace);
    for batch in plan.commits.chunks(DELETE_BATCH) {
        store.delete_records(archive, batch).await?;
    }
    for id in &plan.packs {
        store.delete_pack(archive, *id).await?;
    }
    let before = now_ms.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    store.sweep(before).await?;
    Ok(plan)
}
