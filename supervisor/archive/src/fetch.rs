//! Reads the contents of a version, in the order in which they lie in the store.
//!
//! Each source is read once and each frame decompressed once, whatever the number of files in it.
//! Pieces of a file may so come in any order; [`Verifier`] hashes them as they come.
//!
//! Several sources are asked for at a time, so that a distant store costs its latency once and not
//! once for each. What bounds them is not their number but their bytes ([`AHEAD_MAX`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use zstd::bulk::Decompressor;

use super::error::{ArchiveError, Result};
use super::format::{BodyView, Extent, frame_place, open_frame};
use super::pieces::Pieces;
use super::subtrees::{Misaligned, Subtrees};
use super::version::{Source, Version, check_record};
use crate::store::{Store, StoreError};
use sessionkeep_core::entry::{Digest, EntryKind, RelPath};
use sessionkeep_core::record::{ArchiveName, Record, Seq};

/// How many bytes of sources may be in memory: asked for, waiting, and being unpacked. One source
/// that is larger is read by itself.
pub const AHEAD_MAX: usize = 9 << 20;
/// At most this many sources are asked for at a time.
const AT_ONCE: usize = 4;
/// Commits that follow each other are asked for together, up to this much of their contents.
const TOGETHER_MAX: usize = 1 << 20;
/// How many unpacked frames wait for the sink.
const FRAMES_AHEAD: usize = 2;
/// What unpacking takes; the tables are on the heap.
const UNPACK_STACK: usize = 256 << 10;

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

/// A [`Wanted`], with its path among all the others'.
#[derive(Debug)]
struct Row {
    path_end: u32,
    whole: bool,
    size: u64,
    hash: Digest,
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

/// What is to be read, in order. It holds all that this takes, so that the version need not be kept.
#[derive(Debug)]
pub struct Fetch {
    archive: ArchiveName,
    sources: Vec<Source>,
    kept: HashMap<Seq, Vec<u8>>,
    plan: FetchPlan,
    /// Bytes that may be ahead of the sink.
    ahead: usize,
}

#[derive(Debug)]
struct FetchPlan {
    /// The wanted files' paths, end to end.
    paths: Vec<u8>,
    rows: Vec<Row>,
    /// Sorted by source and place in it.
    slices: Vec<Slice>,
}

/// The slices of one source.
#[derive(Debug)]
struct Run {
    slices: Range<usize>,
    source: Source,
    /// How much of the source they reach over.
    bytes: usize,
}

impl Fetch {
    /// All files of `version` that `wanted` says yes to. What the version has kept of its commits'
    /// contents goes over to the plan.
    #[must_use]
    pub fn plan(version: &mut Version, wanted: impl FnMut(&RelPath) -> bool) -> Self {
        Self::plan_pieces(version, wanted, |_| true)
    }

    /// Of the files that `wanted` says yes to, the pieces whose source `from` says yes to.
    pub(super) fn plan_pieces(
        version: &mut Version,
        mut wanted: impl FnMut(&RelPath) -> bool,
        from: impl Fn(&Source) -> bool,
    ) -> Self {
        let (mut paths, mut rows, mut slices) = (Vec::new(), Vec::new(), Vec::new());
        for (path, leaf) in version.tree.iter() {
            let EntryKind::File { size, hash } = leaf.kind else {
                continue;
            };
            if !wanted(&path) {
                continue;
            }
            let file = u32::try_from(rows.len()).expect("fewer files than 2^32");
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
            paths.extend_from_slice(path.as_bytes());
            rows.push(Row {
                path_end: u32::try_from(paths.len()).expect("a listing has fewer bytes than 2^32"),
                whole: leaf.extra.len() <= 1,
                size,
                hash,
            });
        }
        // Packs in the order of their making, then commits in order: as they were written.
        let rank = |slice: &Slice| version.sources[slice.extent.source as usize];
        slices.sort_unstable_by_key(|s| (rank(s), s.extent.frame, s.extent.at));
        Self {
            archive: version.header.archive.clone(),
            sources: version.sources.clone(),
            kept: std::mem::take(&mut version.kept),
            plan: FetchPlan {
                paths,
                rows,
                slices,
            },
            ahead: AHEAD_MAX,
        }
    }

    /// Keeps at most so many bytes ahead of the sink, where time matters less than memory.
    #[must_use]
    pub(super) fn keeping_ahead(mut self, bytes: usize) -> Self {
        self.ahead = bytes.min(AHEAD_MAX);
        self
    }

    /// How many files are wanted; [`Sink::piece`] names them by their index.
    #[must_use]
    pub fn files(&self) -> usize {
        self.plan.rows.len()
    }

    /// The wanted files' paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.files()).map(|file| self.plan.path(file))
    }

    /// The sources that will be read.
    #[must_use]
    pub fn sources(&self) -> HashSet<Source> {
        self.runs().map(|run| run.source).collect()
    }

    fn runs(&self) -> impl Iterator<Item = Run> {
        let slices = &self.plan.slices;
        let mut from = 0;
        std::iter::from_fn(move || {
            let id = slices.get(from)?.extent.source;
            let len = slices[from..]
                .iter()
                .take_while(|slice| slice.extent.source == id)
                .count();
            let range = from..from + len;
            from += len;
            let bytes = slices[range.clone()]
                .iter()
                .map(|slice| frame_place(&slice.extent).end)
                .max();
            Some(Run {
                slices: range,
                source: self.sources[id as usize],
                bytes: bytes.unwrap_or(0),
            })
        })
    }

    /// Reads everything and hands it to `sink`, in order, which runs on a thread of its own while
    /// what comes next is being read.
    ///
    /// # Errors
    /// Of the store's, the sink's and of damage that was found, the one that comes first in order;
    /// with the source it was found in.
    pub async fn run<S: Sink + 'static>(
        mut self,
        store: &dyn Store,
        sink: S,
    ) -> Result<S, Failure> {
        let (send, receive) = mpsc::unbounded_channel();
        let together = TOGETHER_MAX.min(self.ahead / 3);
        let mut kept = std::mem::take(&mut self.kept);
        let batches = batches(self.runs(), &mut kept, together);
        let plan = self.plan;
        let consumer = tokio::task::spawn_blocking(move || plan.deliver_all(receive, sink));

        // A permit stays with its sources until they have been unpacked: this is what bounds memory,
        // and so the channel needs no bound.
        let (room, ahead) = (Arc::new(Semaphore::new(self.ahead)), self.ahead);
        let archive = &self.archive;
        let reads = stream::iter(batches)
            .then(|batch| {
                let room = room.clone();
                async move {
                    let bytes = u32::try_from(batch.bytes.min(ahead)).expect("was bounded");
                    let permit = room.acquire_many_owned(bytes).await;
                    (batch, Arc::new(permit.expect("it is never closed")))
                }
            })
            .map(|(batch, permit)| read_batch(store, archive, batch, permit))
            .buffered(AT_ONCE);
        let mut reads = std::pin::pin!(reads);
        let mut failure = None;
        'reading: while let Some((read, error)) = reads.next().await {
            for read in read {
                // The consumer is gone only if it failed, and then its error is the one to tell.
                if send.send(read).is_err() {
                    break 'reading;
                }
            }
            if error.is_some() {
                failure = error;
                break;
            }
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
        // What the consumer was at comes before what could not be read.
        let sink = done?;
        failure.map_or(Ok(sink), Err)
    }
}

/// What went wrong, and in which source.
type Failure = (ArchiveError, Option<Source>);

/// A frame that was unpacked.
struct Frame {
    raw: Vec<u8>,
    slices: Range<usize>,
    source: Source,
}

/// A source that was read.
struct Read {
    run: Run,
    content: Pieces,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Sources that are asked for together: one, or commits that follow each other.
struct Batch {
    /// With what was kept of each.
    runs: Vec<(Run, Option<Vec<u8>>)>,
    bytes: usize,
}

/// Puts commits that follow each other together, as far as they are not `kept`.
fn batches(
    runs: impl Iterator<Item = Run>,
    kept: &mut HashMap<Seq, Vec<u8>>,
    together: usize,
) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for run in runs {
        let content = match run.source {
            Source::Commit(seq) => kept.remove(&seq),
            Source::Pack(_) => None,
        };
        if let Some(batch) = batches.last_mut()
            && let Some((last, None)) = batch.runs.last()
            && let (Source::Commit(before), Source::Commit(seq)) = (last.source, run.source)
            && content.is_none()
            && seq == before + 1
            && batch.bytes + run.bytes <= together
        {
            batch.bytes += run.bytes;
            batch.runs.push((run, None));
            continue;
        }
        batches.push(Batch {
            bytes: run.bytes,
            runs: vec![(run, content)],
        });
    }
    batches
}

/// Reads a batch: what comes before an error, and the error.
async fn read_batch(
    store: &dyn Store,
    archive: &ArchiveName,
    batch: Batch,
    permit: Arc<OwnedSemaphorePermit>,
) -> (Vec<Read>, Option<Failure>) {
    let mut reads = Vec::with_capacity(batch.runs.len());
    let last = batch.runs.last().map(|(run, _)| run.source);
    let mut records: VecDeque<Record> = VecDeque::new();
    for (run, kept) in batch.runs {
        let source = run.source;
        let content = match (kept, source, last) {
            (Some(content), ..) => Ok(Bytes::from(content).into()),
            (None, Source::Commit(seq), Some(Source::Commit(to))) => {
                read_commit(store, archive, seq, to, &mut records).await
            }
            (None, Source::Pack(id), _) => {
                let pieces = store.pack_pieces(archive, id).await;
                pieces.map(Pieces::from).map_err(ArchiveError::from)
            }
            (None, Source::Commit(_), _) => unreachable!("a batch that has a commit ends with one"),
        };
        match content {
            Ok(content) => reads.push(Read {
                run,
                content,
                _permit: permit.clone(),
            }),
            Err(error) => return (reads, Some((error, Some(source)))),
        }
    }
    (reads, None)
}

/// The content of commit `seq`: of what was `read` ahead, or of all up to `to`, which is read now
/// as far as the store gives it.
async fn read_commit(
    store: &dyn Store,
    archive: &ArchiveName,
    seq: Seq,
    to: Seq,
    read: &mut VecDeque<Record>,
) -> Result<Pieces> {
    if read.front().is_none_or(|record| record.header.seq != seq) {
        *read = store.records(archive, seq, to).await?.into();
    }
    let record = read.pop_front();
    let record = record
        .filter(|record| record.header.seq == seq)
        .ok_or(ArchiveError::MissingCommit { seq })?;
    check_record(&record)?;
    let body = Bytes::from(record.body);
    let view = BodyView::decode(&body).map_err(|why| ArchiveError::DamagedCommit { seq, why })?;
    Ok(body.slice_ref(view.content).into())
}

impl FetchPlan {
    fn path(&self, file: usize) -> &[u8] {
        let from = match file {
            0 => 0,
            _ => self.rows[file - 1].path_end as usize,
        };
        &self.paths[from..self.rows[file].path_end as usize]
    }

    fn wanted(&self, file: usize) -> Wanted {
        let row = &self.rows[file];
        Wanted {
            path: RelPath::new(self.path(file)).expect("was a path in the tree"),
            size: row.size,
            hash: row.hash,
            whole: row.whole,
        }
    }

    /// Hands everything that is read to the sink. Unpacking has a thread of its own: it takes about
    /// as long as writing what comes of it.
    fn deliver_all<S: Sink>(
        &self,
        receive: mpsc::UnboundedReceiver<Read>,
        mut sink: S,
    ) -> Result<S, Failure> {
        std::thread::scope(|scope| {
            let (send, frames) = sync_channel(FRAMES_AHEAD);
            let (used, spare) = channel();
            std::thread::Builder::new()
                .name("unpack".into())
                .stack_size(UNPACK_STACK)
                .spawn_scoped(scope, move || {
                    if let Err(failure) = self.unpack(receive, &send, &spare) {
                        // Nobody listens where the sink has failed, whose error comes first.
                        let _ = send.send(Err(failure));
                    }
                })
                .map_err(|source| {
                    let action = "start a thread";
                    (ArchiveError::Io { action, source }, None)
                })?;
            for frame in frames {
                let frame = frame?;
                self.deliver(&frame, &mut sink)
                    .map_err(|error| (error, Some(frame.source)))?;
                // Of use only as long as there is more to unpack.
                let _ = used.send(frame.raw);
            }
            Ok(sink)
        })
    }

    /// Unpacks frame by frame what is read, into buffers that come back as `spare`.
    fn unpack(
        &self,
        mut receive: mpsc::UnboundedReceiver<Read>,
        send: &SyncSender<Result<Frame, Failure>>,
        spare: &Receiver<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut zstd = Decompressor::new().map_err(|source| {
            let action = "start zstd";
            (ArchiveError::Io { action, source }, None)
        })?;
        while let Some(read) = receive.blocking_recv() {
            let source = read.run.source;
            let mut from = read.run.slices.start;
            while from < read.run.slices.end {
                let slices = &self.slices[from..read.run.slices.end];
                let extent = &slices[0].extent;
                let same = |slice: &&Slice| slice.extent.frame == extent.frame;
                let to = from + slices.iter().take_while(same).count();
                let mut raw = spare.try_recv().unwrap_or_default();
                let packed = read.content.get(frame_place(extent));
                packed
                    .ok_or_else(|| "a frame lies beyond the end of its source".to_owned())
                    .and_then(|packed| open_frame(&mut zstd, &packed, extent, &mut raw))
                    .map_err(|why| {
                        let path = self.wanted(slices[0].file as usize).path;
                        (ArchiveError::DamagedContent { path, why }, Some(source))
                    })?;
                let frame = Frame {
                    raw,
                    slices: from..to,
                    source,
                };
                if send.send(Ok(frame)).is_err() {
                    return Ok(());
                }
                from = to;
            }
        }
        Ok(())
    }

    fn deliver(&self, frame: &Frame, sink: &mut dyn Sink) -> Result<()> {
        for slice in &self.slices[frame.slices.clone()] {
            let wanted = self.wanted(slice.file as usize);
            let (start, len) = (slice.extent.at as usize, slice.extent.len as usize);
            let content =
                frame
                    .raw
                    .get(start..start + len)
                    .ok_or_else(|| ArchiveError::DamagedContent {
                        path: wanted.path.clone(),
                        why: "a piece lies beyond its frame".into(),
                    })?;
            let at = At {
                file: slice.file as usize,
                slot: slice.slot as usize,
                offset: slice.offset,
            };
            sink.piece(at, &wanted, content)?;
        }
        Ok(())
    }
}

/// Hashes files as their pieces come, in whatever order, and says which are not what they were.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Files of which only some pieces have come.
    partial: HashMap<usize, Subtrees>,
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
            let subtrees = self
                .partial
                .entry(file)
                .or_insert_with(|| Subtrees::new(wanted.size));
            match subtrees.piece(offset, content) {
                Ok(None) => return Ok(false),
                Ok(Some(hash)) => {
                    self.partial.remove(&file);
                    hash
                }
                Err(Misaligned) => {
                    let why = "a piece does not begin and end where a block does".to_owned();
                    return Err(ArchiveError::DamagedContent {
                        path: wanted.path.clone(),
                        why,
                    });
                }
            }
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
