//! Checkpoints: a fresh listing of the whole tree, so that a restore reads live data and not
//! history; and the rewriting of packs that hold mostly dead content.
//!
//! Deciding ([`CheckpointPlan`]) is apart from doing ([`write()`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::builder::Builder;
use super::error::{ArchiveError, Result};
use super::fetch::{At, Fetch, Sink, Wanted};
use super::format::Extent;
use super::upload::Upload;
use super::version::{Source, Version};
use super::writer::{Outcome, Summary, Writer};
use crate::store::Store;
use sessionkeep_core::record::PackId;

/// Of the bytes in packs that a checkpoint refers to, at most one in this many may be dead.
const DEAD_SHARE: u64 = 4;
/// A pack with less live content than one half is rewritten whatever the rest is like.
const LIVE_SHARE_MIN: u64 = 2;
/// Packs smaller than this are small, and more than [`SMALL_PACKS_MAX`] of them are joined.
const SMALL_PACK: u64 = 512 << 10;
/// See [`SMALL_PACK`].
const SMALL_PACKS_MAX: usize = 8;

/// How many bytes are ahead of what is being moved: the gateway runs, and nobody waits for it.
const AHEAD: usize = 3 << 19;

/// What a checkpoint will move.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CheckpointPlan {
    /// Sources whose live content goes into new packs (or into the checkpoint itself).
    pub rewrite: HashSet<Source>,
    /// Packs that stay, with their live bytes, as stored.
    pub keep: BTreeMap<PackId, u64>,
}

impl CheckpointPlan {
    /// Decides from how many stored bytes of each source are live, and how large each pack is.
    #[must_use]
    pub fn decide(live: &HashMap<Source, u64>, sizes: &HashMap<PackId, u64>) -> Self {
        let mut plan = Self::default();
        let mut packs = Vec::new();
        for (source, live) in live {
            match source {
                // What travelled inside commits always moves, so that they can go.
                Source::Commit(_) => {
                    plan.rewrite.insert(*source);
                }
                Source::Pack(id) => {
                    let size = sizes.get(id).copied().unwrap_or(*live).max(*live).max(1);
                    if live * LIVE_SHARE_MIN < size {
                        plan.rewrite.insert(*source);
                    } else {
                        packs.push((*id, *live, size));
                    }
                }
            }
        }
        let is_small = |size: u64| size < SMALL_PACK;
        let small = packs.iter().filter(|(_, _, size)| is_small(*size)).count();
        if small > SMALL_PACKS_MAX {
            packs.retain(|(id, _, size)| {
                if is_small(*size) {
                    plan.rewrite.insert(Source::Pack(*id));
                }
                !is_small(*size)
            });
        }
        // Of what is left the deadest first, until few enough dead bytes are left. Last, since
        // what was joined above may have been the more alive part.
        packs.sort_by_key(|(id, live, size)| (live * 1000 / size, *id));
        let mut dead: u64 = packs.iter().map(|(_, live, size)| size - live).sum();
        let mut all: u64 = packs.iter().map(|(_, live, _)| live).sum();
        for (id, live, size) in packs {
            if dead * DEAD_SHARE > all + dead {
                (dead, all) = (dead - (size - live), all - live);
                plan.rewrite.insert(Source::Pack(id));
            } else {
                plan.keep.insert(id, live);
            }
        }
        plan
    }
}

/// How many stored bytes of each source are live: each frame's length by the share of it that some
/// file refers to.
fn live_bytes(version: &Version) -> HashMap<Source, u64> {
    // By source and frame: compressed and raw length, and raw bytes referred to.
    let mut frames: HashMap<(u32, u32), (u64, u64, u64)> = HashMap::new();
    for (_, leaf) in version.tree.iter() {
        for e in &leaf.extra {
            let frame = frames.entry((e.source, e.frame)).or_insert((
                e.frame_len.into(),
                e.frame_raw.into(),
                0,
            ));
            frame.2 += u64::from(e.len);
        }
    }
    let mut live = HashMap::new();
    for ((source, _), (packed, raw, used)) in frames {
        let share = packed * used.min(raw) / raw.max(1);
        *live.entry(version.sources[source as usize]).or_default() += share;
    }
    live
}

/// Writes a checkpoint of the writer's head, if it has content.
///
/// # Errors
/// The store's; [`ArchiveError::is_damage`] where the chain is not whole, in which case the caller
/// makes a checkpoint from the directory instead.
pub async fn write(store: &Arc<dyn Store>, writer: &mut Writer) -> Result<Option<Outcome>> {
    let Some(head) = writer.head().filter(|head| head.base > 0).cloned() else {
        return Ok(None);
    };
    let version = Version::load_knowing(&**store, head, writer.recent()).await?;
    write_version(store, writer, version).await.map(Some)
}

/// Writes a checkpoint that makes `version` the tree, whether or not it is the head's: so an older
/// whole version takes the place of a damaged head.
///
/// # Errors
/// As [`write()`].
pub async fn write_version(
    store: &Arc<dyn Store>,
    writer: &mut Writer,
    mut version: Version,
) -> Result<Outcome> {
    let archive = version.header.archive.clone();
    let sizes = store
        .packs(&archive)
        .await?
        .into_iter()
        .map(|pack| (pack.id, pack.size))
        .collect();
    let plan = CheckpointPlan::decide(&live_bytes(&version), &sizes);
    let summary = Summary::of(&version.tree);

    let (sink, upload) = Upload::start(store.clone(), archive);
    let mut mover = Mover {
        builder: Builder::new(sink)?,
        changes: Vec::new(),
    };
    mover.builder.set_aside(version.aside.clone());
    let fetch = Fetch::plan_pieces(
        &mut version,
        |_| true,
        |source| plan.rewrite.contains(source),
    )
    .keeping_ahead(AHEAD);
    let mut files = fetch.paths().peekable();
    for (path, leaf) in version.tree.iter() {
        let mut extents = leaf.extra.clone();
        for extent in &mut extents {
            match version.sources[extent.source as usize] {
                Source::Pack(id) if plan.keep.contains_key(&id) => {
                    extent.source = mover.builder.refer(id);
                }
                _ => {
                    *extent = Extent {
                        len: extent.len,
                        ..Extent::NOWHERE
                    }
                }
            }
        }
        let change = mover
            .builder
            .put_placed(&path, leaf.meta, leaf.kind.clone(), extents);
        if files.next_if(|file| *file == path.as_bytes()).is_some() {
            mover.changes.push(change);
        }
    }
    drop(files);
    drop(version);
    let moved = fetch.run(&**store, mover).await.map_err(|(error, _)| error);
    let built = match moved {
        Ok(mover) => tokio::task::spawn_blocking(move || mover.builder.finish())
            .await
            .unwrap_or_else(|panic| {
                let source = std::io::Error::other(panic);
                Err(ArchiveError::Io {
                    action: "put a checkpoint together",
                    source,
                })
            }),
        Err(error) => Err(error),
    };
    let built = upload.finish(built).await?;
    let base_bytes = built.stored + plan.keep.values().sum::<u64>();
    writer
        .checkpoint(&**store, built, summary, base_bytes)
        .await
}

/// Lays pieces that are read from old places into a new commit.
struct Mover {
    builder: Builder,
    /// The builder's change for each wanted file.
    changes: Vec<usize>,
}

impl Sink for Mover {
    fn piece(&mut self, at: At, _: &Wanted, content: &[u8]) -> Result<()> {
        self.builder
            .move_content(self.changes[at.file], at.slot, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_stays_is_mostly_alive(packs in prop::collection::vec((1u64..4_000_000, 0u64..=100), 0..40)) {
            let mut live = HashMap::new();
            let mut sizes = HashMap::new();
            for (n, (size, percent)) in packs.iter().enumerate() {
                let id = PackId([n as u8; 16]);
                live.insert(Source::Pack(id), size * percent / 100);
                sizes.insert(id, *size);
            }
            live.insert(Source::Commit(3), 10);
            let plan = CheckpointPlan::decide(&live, &sizes);
            prop_assert!(plan.rewrite.contains(&Source::Commit(3)));
            prop_assert_eq!(plan.rewrite.len() + plan.keep.len(), live.len());
            let kept: u64 = plan.keep.keys().map(|id| sizes[id]).sum();
            let alive: u64 = plan.keep.values().sum();
            prop_assert!((kept - alive) * DEAD_SHARE <= kept);
            let small = plan.keep.keys().filter(|id| sizes[id] < SMALL_PACK).count();
            prop_assert!(small <= SMALL_PACKS_MAX);
        }
    }
}
