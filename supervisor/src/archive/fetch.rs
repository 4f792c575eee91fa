//! Reads the contents of a version, in the order in which they lie in the store.
//!
//! Each source is read once and each frame decompressed once, whatever the number of files in it.
//! Pieces of a file may so come in any order; [`Verifier`] hashes them as they come.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::blocks::{BlockMap, PAGE_BLOCK};
use super::error::{ArchiveError, Result};
use super::format::{Body, Extent, open_frame};
use super::version::{Source, Version, check_record};
use crate::entry::{Digest, Kind, RelPath};
use crate::store::{Store, StoreError};

/// A file whose content is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which.
    pub path: RelPath,
    /// Its size.
    pub size: u64,
    /// Its hash.
    pub hash: Digest,
    /// Whether its content comes in one piece.
    pub whole: bool,
}

/// A piece of a wanted file.
#[derive(Debug, Clone, Copy)]
struct Slice {
    extent: Extent,
    file: u32,
    slot: u32,
    offset: u64,
}

/// Where in its file a piece belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Index of the file among the wanted ones.
    pub file: usize,
    /// Index of the extent in the file.
    pub slot: usize,
    /// Offset in the file.
    pub offset: u64,
}

/// Takes the content of files.
pub trait Sink: Send {
    /// Takes a piece of a wanted file. Called once for each; for an empty file not at all.
    ///
    /// # Errors
    /// Any ends the reading.
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> Result<()>;
}

/// What is to be read, in order.
#[derive(Debug)]
pub struct Fetch {
    /// The wanted files; [`Sink::piece`] names them by their index.
    pub files: Vec<Wanted>,
    /// Sorted by source and place in it.
    slices: Vec<Slice>,
}

impl Fetch {
    /// All files of `version` that `wanted` says yes to.
    #[must_use]
    pub fn plan(version: &Version, wanted: impl FnMut(&RelPath) -> bool) -> Self {
        Self::plan_pieces(version, wanted, |_| true)
    }

    /// Of the files that `wanted` says yes to, the pieces whose source `from` says yes to.
    pub(super) fn plan_pieces(
        version: &Version,
        mut wanted: impl FnMut(&RelPath) -> bool,
        from: impl Fn(&Source) -> bool,
    ) -> Self {
        let (mut files, mut slices) = (Vec::new(), Vec::new());
        for (path, leaf) in version.tree.iter() {
            let Kind::File { size, hash } = leaf.kind else {
                continue;
            };
            if !wanted(&path) {
                continue;
            }
            let file = u32::try_from(files.len()).expect("fewer files than 2^32");
            let mut offset = 0;
            for (slot, extent) in (0u32..).zip(&leaf.extra) {
                if from(&version.sources[extent.source as usize]) {
                    slices.push(Slice {
                        extent: *extent,
                        file,
                        slot,
                        offset,
                    });
                }
                offset += u64::from(extent.len);
            }
            files.push(Wanted {
                path,
                size,
                hash,
                whole: leaf.extra.len() <= 1,
            });
        }
        // Packs in the order of their making, then commits in order: as they were written.
        let rank = |slice: &Slice| version.sources[slice.extent.source as usize];
        slices.sort_unstable_by_key(|s| (rank(s), s.extent.frame, s.extent.at));
        Self { files, slices }
    }

    /// The sources that will be read.
    #[must_use]
    pub fn sources(&self, version: &Version) -> HashSet<Source> {
        self.slices
            .iter()
            .map(|s| version.sources[s.extent.source as usize])
            .collect()
    }

    /// Reads everything and hands it to `sink`, which runs on a thread of its own while the next
    /// source is being read.
    ///
    /// # Errors
    /// The first of the store's, of the sink's, or of damage that was found; with damage, the
    /// source it was found in.
    pub async fn run<S: Sink + 'static>(
        self,
        store: &dyn Store,
        version: &mut Version,
        sink: S,
    ) -> Result<S, (ArchiveError, Option<Source>)> {
        let (send, mut receive) = mpsc::channel::<(std::ops::Range<usize>, Source, Bytes)>(1);
        let plan = std::sync::Arc::new(self);
        let consumer = tokio::task::spawn_blocking({
            let plan = plan.clone();
            let mut sink = sink;
            move || -> Result<S, (ArchiveError, Option<Source>)> {
                while let Some((range, source, bytes)) = receive.blocking_recv() {
                    plan.deliver(range, &bytes, &mut sink)
                        .map_err(|e| (e, Some(source)))?;
                }
                Ok(sink)
            }
        });
        let mut from = 0;
        let mut failure = None;
        while from < plan.slices.len() {
            let id = plan.slices[from].extent.source;
            let to = plan.slices[from..]
                .iter()
                .position(|s| s.extent.source != id)
                .map_or(plan.slices.len(), |n| from + n);
            let source = version.sources[id as usize];
            match read_source(store, version, source).await {
                // The consumer is gone only if it failed, and then its error is the one to tell.
                Ok(bytes) => {
                    if send.send((from..to, source, bytes)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failure = Some((error, Some(source)));
                    break;
                }
            }
            from = to;
        }
        drop(send);
        let done = consumer.await.map_err(|panic| {
            (
                ArchiveError::Io {
                    action: "unpack contents",
                    source: std::io::Error::other(panic),
                },
                None,
            )
        })?;
        match failure {
            Some(failure) => Err(failure),
            None => done,
        }
    }

    fn deliver(
        &self,
        range: std::ops::Range<usize>,
        source: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let mut open: Option<(u32, Vec<u8>)> = None;
        for slice in &self.slices[range] {
            let wanted = &self.files[slice.file as usize];
            let damaged = |why: String| ArchiveError::DamagedContent {
                path: wanted.path.clone(),
                why,
            };
            if open
                .as_ref()
                .is_none_or(|(frame, _)| *frame != slice.extent.frame)
            {
                open = Some((
                    slice.extent.frame,
                    open_frame(source, &slice.extent).map_err(damaged)?,
                ));
            }
            let (_, raw) = open.as_ref().expect("was just opened");
            let (start, len) = (slice.extent.at as usize, slice.extent.len as usize);
            let content = raw
                .get(start..start + len)
                .ok_or_else(|| damaged("a piece lies beyond its frame".into()))?;
            let at = At {
                file: slice.file as usize,
                slot: slice.slot as usize,
                offset: slice.offset,
            };
            sink.piece(at, wanted, content)?;
        }
        Ok(())
    }
}

async fn read_source(store: &dyn Store, version: &mut Version, source: Source) -> Result<Bytes> {
    let archive = version.header.archive.clone();
    match source {
        Source::Pack(id) => Ok(store.pack(&archive, id).await?),
        Source::Commit(seq) => {
            if let Some(content) = version.kept.remove(&seq) {
                return Ok(content.into());
            }
            let mut records = store.records(&archive, seq, seq).await?;
            let record = records.pop().ok_or(ArchiveError::MissingCommit { seq })?;
            check_record(&record)?;
            let body = Body::decode(&record.body)
                .map_err(|why| ArchiveError::DamagedCommit { seq, why })?;
            Ok(body.content.into())
        }
    }
}

/// Hashes files as their pieces come, in whatever order, and says which are not what they were.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Files of which only some pieces have come.
    partial: HashMap<usize, (BlockMap, u64)>,
    verified: usize,
}

impl Verifier {
    /// How many files were complete and what they were.
    #[must_use]
    pub fn verified(&self) -> usize {
        self.verified
    }

    /// Takes a piece. Gives `true` when it was the file's last and the file is what it was.
    ///
    /// # Errors
    /// [`ArchiveError::DamagedContent`] when it was the last and the file is not.
    pub fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> Result<bool> {
        let At { file, offset, .. } = at;
        let hash = if wanted.whole {
            Digest::of(content)
        } else {
            let (map, seen) = self
                .partial
                .entry(file)
                .or_insert_with(|| (BlockMap::new(PAGE_BLOCK, wanted.size), 0));
            if offset % u64::from(PAGE_BLOCK) != 0 {
                let why = "a piece does not begin where a block does".to_owned();
                return Err(ArchiveError::DamagedContent {
                    path: wanted.path.clone(),
                    why,
                });
            }
            for (n, block) in content.chunks(PAGE_BLOCK as usize).enumerate() {
                let _ = map.set(offset + n as u64 * u64::from(PAGE_BLOCK), block, None);
            }
            *seen += content.len() as u64;
            if *seen < wanted.size {
                return Ok(false);
            }
            let hash = map.hash();
            self.partial.remove(&file);
            hash
        };
        if hash == wanted.hash {
            self.verified += 1;
            Ok(true)
        } else {
            let why = "it does not have its hash".to_owned();
            Err(ArchiveError::DamagedContent {
                path: wanted.path.clone(),
                why,
            })
        }
    }
}

/// A sink that only verifies, and goes on after damage to find all of it.
#[derive(Debug, Default)]
pub struct Check {
    verifier: Verifier,
    /// Files that are not what they were, with why.
    pub damaged: Vec<(RelPath, String)>,
    /// Bytes that were looked at.
    pub bytes: u64,
}

impl Sink for Check {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> Result<()> {
        self.bytes += content.len() as u64;
        match self.verifier.piece(at, wanted, content) {
            Ok(_) => {}
            Err(ArchiveError::DamagedContent { path, why }) => self.damaged.push((path, why)),
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

/// Whether an error of the store means that this source cannot be had, as opposed to not now.
#[must_use]
pub fn is_lost(error: &ArchiveError) -> bool {
    error.is_damage() && !matches!(error, ArchiveError::Store(StoreError::Unavailable { .. }))
}
