//! One version of the tree, folded from a checkpoint and the commits after it.

use std::collections::HashMap;

use super::aside::Aside;
use super::error::{ArchiveError, Result};
use super::format::{
    Body, BodyView, Change, Extent, Listing, ListingReader, Piece, Place, PlaceView,
};
use super::recent::Recent;
use super::tree::{Leaf, Tree};
use crate::store::{CommitLog, Packs, Store, StoreError};
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_core::record::{ArchiveName, FORMAT, Header, PackId, Record, RecordKind, Seq};

/// Content of small commits is kept while folding, up to this much, so that a restore need not
/// read them a second time.
const KEPT_CONTENT_MAX: usize = 2 << 20;

/// No tree needs more packs, by far: so many would be kept in memory.
const PACKS_MAX: usize = 1 << 20;

/// No number in a header that was honestly written is as large: sums of them never overflow, and
/// every store can count them.
const NUMBER_MAX: u64 = 1 << 56;

/// Where content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// In a pack.
    Pack(PackId),
    /// In a commit's body.
    Commit(Seq),
}

/// A version of the tree, with where each file's content lies.
#[derive(Debug)]
pub struct Version {
    /// The commit's header.
    pub header: Header,
    /// The entries; a file's extents are in order and without gaps, their `source` is an index into
    /// [`Version::sources`].
    pub tree: Tree<Vec<Extent>>,
    /// What extents' sources are.
    pub sources: Vec<Source>,
    /// All packs that a restore of it needs, those of listings included; none of the commits that were
    /// known and not read.
    pub packs: Vec<PackId>,
    /// What is known besides the entries.
    pub aside: Aside,
    /// Contents of commits that were kept while folding.
    pub(super) kept: HashMap<Seq, Vec<u8>>,
}

/// Checks a record against itself: its seal, its body, its format.
///
/// # Errors
/// [`ArchiveError::DamagedCommit`], or [`StoreError::Format`] for an unknown format.
pub fn check_record(record: &Record) -> Result<()> {
    check_header(&record.header)?;
    let damaged = |why: &str| ArchiveError::DamagedCommit {
        seq: record.header.seq,
        why: why.into(),
    };
    if sessionkeep_core::entry::Digest::of(&record.body) != record.header.body_hash {
        return Err(damaged("its body does not have its hash"));
    }
    Ok(())
}

/// Checks a header against itself.
///
/// # Errors
/// As [`check_record`].
pub fn check_header(header: &Header) -> Result<()> {
    if header.format > FORMAT {
        let what = format!("commit {}", header.seq);
        return Err(StoreError::Format {
            what,
            found: header.format,
        }
        .into());
    }
    let damaged = |why: &str| ArchiveError::DamagedCommit {
        seq: header.seq,
        why: why.into(),
    };
    if header.seal() != header.digest {
        return Err(damaged("its header does not have its hash"));
    }
    // What follows is right in whatever was honestly written: it is for what was forged.
    if header.base > header.seq || header.changed_at > header.seq {
        return Err(damaged("it builds on a commit after it"));
    }
    let numbers = [
        header.seq,
        header.epoch,
        header.changed_epoch,
        header.time_ms,
        header.bytes,
        header.live_files,
        header.live_bytes,
        header.chain_bytes,
        header.base_bytes,
    ];
    if numbers.into_iter().any(|number| number > NUMBER_MAX) {
        return Err(damaged("a number in its header is larger than any can be"));
    }
    Ok(())
}

/// The newest header, if it can be believed. What a start does depends on it.
///
/// # Errors
/// [`ArchiveError::is_damage`] errors where there is one that cannot.
pub async fn head_of(store: &dyn CommitLog, archive: &ArchiveName) -> Result<Option<Header>> {
    let head = store.head(archive).await?;
    if let Some(head) = &head {
        check_header(head)?;
    }
    Ok(head)
}

/// Reads a commit's changes.
///
/// # Errors
/// If the body is damaged, or the pack that holds the listing is.
pub async fn read_listing(store: &dyn Packs, record: &Record) -> Result<(Listing, Vec<u8>)> {
    let damaged = |why| ArchiveError::DamagedCommit {
        seq: record.header.seq,
        why,
    };
    let body = Body::decode(&record.body).map_err(damaged)?;
    let listing = match body.listing {
        Place::Here { raw_len, packed } => Listing::unpack(&packed, raw_len),
        Place::Pack { id, raw_len } => {
            Listing::unpack(&store.pack(&record.header.archive, id).await?, raw_len)
        }
    };
    Ok((listing.map_err(damaged)?, body.content))
}

impl Version {
    /// The empty version that stands before the first commit, under `header` (of a barrier).
    pub fn empty(header: Header) -> Self {
        Self {
            header,
            tree: Tree::new(),
            sources: Vec::new(),
            packs: Vec::new(),
            aside: Aside::default(),
            kept: HashMap::new(),
        }
    }

    /// Reads the version of the commit that `header` belongs to, and verifies that the chain is
    /// whole and gives the root that the header names. Contents are not read.
    ///
    /// # Errors
    /// [`ArchiveError::is_damage`] errors where the chain is not whole.
    pub async fn load(store: &dyn Store, header: Header) -> Result<Self> {
        Self::load_knowing(store, header, &Recent::default()).await
    }

    /// The same, where the chain's newest commits are known and need not be read.
    ///
    /// # Errors
    /// As [`Version::load`].
    pub(super) async fn load_knowing(
        store: &dyn Store,
        header: Header,
        recent: &Recent,
    ) -> Result<Self> {
        check_header(&header)?;
        let (archive, target) = (header.archive.clone(), header.seq);
        let mut version = Self::empty(header);
        if version.header.base == 0 {
            return Ok(version);
        }
        let mut next = version.header.base;
        let mut last: Option<Header> = None;
        let mut kept_bytes = 0;
        let read_to = match recent.first() {
            Some(first) if first.seq > next => first.seq - 1,
            _ => target,
        };
        while next <= read_to {
            let records = store.records(&archive, next, read_to).await?;
            if records.is_empty() {
                return Err(ArchiveError::MissingCommit { seq: next });
            }
            for record in records {
                version
                    .take(store, &record, next, last.as_ref(), &mut kept_bytes)
                    .await?;
                next = record.header.seq + 1;
                last = Some(record.header);
            }
        }
        let last = last.expect("the loop ran, since a base is at most its commit's number");
        let damaged = |why: &str| ArchiveError::DamagedCommit {
            seq: target,
            why: why.into(),
        };
        if read_to < target {
            version.take_known(recent, &last)?;
        } else if last.digest != version.header.digest {
            return Err(damaged("its header changed while it was read"));
        }
        if version.tree.root() != version.header.root {
            return Err(damaged("the commits do not make up the tree that it names"));
        }
        version
            .tree
            .check_shape()
            .map_err(|e| ArchiveError::Refused(e.to_string()))?;
        Ok(version)
    }

    async fn take(
        &mut self,
        store: &dyn Store,
        record: &Record,
        expected: Seq,
        last: Option<&Header>,
        kept_bytes: &mut usize,
    ) -> Result<()> {
        let header = &record.header;
        if header.seq != expected {
            return Err(ArchiveError::MissingCommit { seq: expected });
        }
        check_record(record)?;
        let damaged = |why: &str| ArchiveError::DamagedCommit {
            seq: header.seq,
            why: why.into(),
        };
        match last {
            Some(last) if header.parent != last.digest => {
                return Err(damaged("it does not follow the commit before it"));
            }
            None if header.kind != RecordKind::Checkpoint => {
                return Err(damaged(
                    "the chain begins with a commit that is no checkpoint",
                ));
            }
            _ => {}
        }
        if header.kind == RecordKind::Barrier {
            return Ok(());
        }
        let body = BodyView::decode(&record.body).map_err(|why| damaged(&why))?;
        let pack;
        let (packed, raw_len) = match body.listing {
            PlaceView::Here { raw_len, packed } => (packed, raw_len),
            PlaceView::Pack { id, raw_len } => {
                pack = store.pack(&header.archive, id).await?;
                (&pack[..], raw_len)
            }
        };
        if header.kind == RecordKind::Checkpoint {
            self.tree = Tree::new();
            self.sources.clear();
            self.packs.clear();
            self.kept.clear();
            *kept_bytes = 0;
            self.aside = Aside::default();
        }
        let aside = Aside::decode(body.content).map_err(|why| damaged(&why))?;
        self.aside.update(&aside);
        if self.packs.len() + header.packs.len() > PACKS_MAX {
            return Err(damaged("it needs more packs than any tree has"));
        }
        self.packs.extend_from_slice(&header.packs);
        ListingReader::open(packed, raw_len)
            .and_then(|listing| self.apply(header.seq, listing))
            .map_err(|why| damaged(&why))?;
        let content = body.content;
        if !content.is_empty() && *kept_bytes + content.len() <= KEPT_CONTENT_MAX {
            *kept_bytes += content.len();
            self.kept.insert(header.seq, content.to_vec());
        }
        Ok(())
    }

    /// Applies the commits that are known, which follow `last`.
    fn take_known(&mut self, recent: &Recent, last: &Header) -> Result<()> {
        let follows = recent
            .first()
            .is_some_and(|first| first.parent == last.digest);
        if !follows {
            return Err(ArchiveError::DamagedCommit {
                seq: last.seq,
                why: "it is not the one that was built upon".into(),
            });
        }
        for commit in recent.iter() {
            let Some((raw_len, packed)) = &commit.listing else {
                continue;
            };
            self.aside.update(&commit.aside);
            ListingReader::open(packed, *raw_len)
                .and_then(|listing| self.apply(commit.seq, listing))
                .map_err(|why| ArchiveError::DamagedCommit {
                    seq: commit.seq,
                    why,
                })?;
        }
        Ok(())
    }

    /// Applies a commit's changes to the tree as they are read. After an error it is half done, and
    /// the version is good for nothing.
    pub fn apply(&mut self, seq: Seq, mut listing: ListingReader<'_>) -> Result<(), String> {
        let own = self.source(Source::Commit(seq));
        let packs: Vec<u32> = listing
            .packs()
            .iter()
            .map(|id| self.source(Source::Pack(*id)))
            .collect();
        let place = |extent: Extent| Extent {
            source: if extent.source == 0 {
                own
            } else {
                packs[extent.source as usize - 1]
            },
            ..extent
        };
        while let Some(change) = listing.next()? {
            match change {
                Change::Put {
                    path,
                    meta,
                    kind,
                    extents,
                } => {
                    if matches!(
                        self.tree.get(&path),
                        Some(Leaf {
                            kind: EntryKind::Dir,
                            ..
                        })
                    ) && kind != EntryKind::Dir
                    {
                        self.remove(&path);
                    }
                    let extra = extents.into_iter().map(place).collect();
                    self.tree.insert(&path, Leaf { meta, kind, extra });
                }
                Change::Patch {
                    path,
                    meta,
                    size,
                    hash,
                    pieces,
                } => {
                    let Some(Leaf {
                        kind: EntryKind::File { .. },
                        extra,
                        ..
                    }) = self.tree.get(&path)
                    else {
                        return Err(format!("it patches {path}, which is no file before it"));
                    };
                    let pieces: Vec<Piece> = pieces
                        .into_iter()
                        .map(|p| Piece {
                            offset: p.offset,
                            extent: place(p.extent),
                        })
                        .collect();
                    let extra = splice(extra, &pieces, size)
                        .ok_or_else(|| format!("its pieces of {path} leave a gap"))?;
                    self.tree.insert(
                        &path,
                        Leaf {
                            meta,
                            kind: EntryKind::File { size, hash },
                            extra,
                        },
                    );
                }
                Change::Touch { path, meta } => {
                    let Some(leaf) = self.tree.get(&path) else {
                        return Err(format!("it touches {path}, which does not exist before it"));
                    };
                    let leaf = Leaf {
                        meta,
                        ..leaf.clone()
                    };
                    self.tree.insert(&path, leaf);
                }
                Change::Remove { path } => self.remove(&path),
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &RelPath) {
        if matches!(
            self.tree.get(path),
            Some(Leaf {
                kind: EntryKind::Dir,
                ..
            })
        ) {
            for inner in self.tree.below(path) {
                self.tree.remove(&inner);
            }
        }
        self.tree.remove(path);
    }

    fn source(&mut self, source: Source) -> u32 {
        // Searched from the end: a commit's own and its newest packs are the last ones.
        let at = self
            .sources
            .iter()
            .rposition(|have| *have == source)
            .unwrap_or_else(|| {
                self.sources.push(source);
                self.sources.len() - 1
            });
        u32::try_from(at).expect("an archive has fewer sources than 2^32")
    }
}

/// Replaces parts of a file's extents by `pieces` and cuts at `size`. `None` where that leaves a
/// gap or an end short of `size`.
fn splice(old: &[Extent], pieces: &[Piece], size: u64) -> Option<Vec<Extent>> {
    let mut out: Vec<Extent> = Vec::with_capacity(old.len() + pieces.len() * 2);
    let mut end = 0u64;
    let mut push = |extent: Extent, end: &mut u64| {
        *end += u64::from(extent.len);
        match out.last_mut() {
            Some(last)
                if (last.source, last.frame) == (extent.source, extent.frame)
                    && last.at + last.len == extent.at =>
            {
                last.len += extent.len;
            }
            _ => out.push(extent),
        }
    };
    // What is kept of the old extents between `from` and `to`, which only ever grow: so they are
    // gone through once, however many pieces there are.
    let (mut rest, mut at) = (old, 0u64);
    let mut keep = |from: u64, to: u64, push: &mut dyn FnMut(Extent)| {
        while let Some((extent, after)) = rest.split_first() {
            let (start, stop) = (at.max(from), (at + u64::from(extent.len)).min(to));
            if start < stop {
                let skip = u32::try_from(start - at).expect("within an extent");
                let len = u32::try_from(stop - start).expect("within an extent");
                push(Extent {
                    at: extent.at + skip,
                    len,
                    ..*extent
                });
            }
            if at + u64::from(extent.len) > to {
                break;
            }
            at += u64::from(extent.len);
            rest = after;
        }
    };
    for piece in pieces {
        let from = end;
        keep(from, piece.offset, &mut |extent| push(extent, &mut end));
        if end != piece.offset {
            return None;
        }
        push(piece.extent, &mut end);
    }
    let from = end;
    keep(from, size, &mut |extent| push(extent, &mut end));
    (end == size).then_some(out)
}

/// The header of commit `seq`.
///
/// # Errors
/// [`ArchiveError::MissingCommit`] where it is not there.
pub async fn header_of(store: &dyn CommitLog, archive: &ArchiveName, seq: Seq) -> Result<Header> {
    let mut found = store.headers(archive, seq, seq, 1).await?;
    found.pop().ok_or(ArchiveError::MissingCommit { seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Extents over a source whose byte at `i` says `tag` and `i`, so that content can be compared.
    fn bytes_of(extents: &[Extent]) -> Vec<(u32, u32)> {
        extents
            .iter()
            .flat_map(|e| (e.at..e.at + e.len).map(|i| (e.source, i)))
            .collect()
    }

    fn extent(source: u32, at: u32, len: u32) -> Extent {
        Extent {
            source,
            frame: 0,
            frame_len: 1,
            frame_raw: u32::MAX,
            at,
            len,
        }
    }

    proptest! {
        #[test]
        fn splicing_is_overwriting(
            lens in prop::collection::vec(1u32..20, 1..8),
            cuts in prop::collection::vec((0u64..60, 1u32..20), 0..6),
            size in 0u64..90,
        ) {
            let old: Vec<Extent> = lens.iter().enumerate().map(|(i, len)| extent(i as u32, 0, *len)).collect();
            let mut end = 0;
            let pieces: Vec<Piece> = cuts.iter().enumerate().map(|(i, (gap, len))| {
                let offset = end + gap;
                end = offset + u64::from(*len);
                Piece { offset, extent: extent(100 + i as u32, 0, *len) }
            }).collect();
            let size = size.max(end);
            let mut expect: Vec<Option<(u32, u32)>> = bytes_of(&old).into_iter().map(Some).collect();
            expect.resize(size as usize, None);
            for p in &pieces {
                for i in 0..p.extent.len {
                    expect[p.offset as usize + i as usize] = Some((p.extent.source, i));
                }
            }
            let whole: Option<Vec<_>> = expect.into_iter().collect();
            prop_assert_eq!(splice(&old, &pieces, size).map(|e| bytes_of(&e)), whole);
        }
    }
}
