//! Puts a commit together: contents into frames, frames into the commit or into packs.
//!
//! Memory is bounded by two frames and one pack, however much is put in: a pack that is full goes
//! to the sink before the next is begun, and so is in the store before the commit that refers to it.

use bytes::Bytes;

use super::aside::Aside;
use super::blocks::{BlockChange, BlockMap, BlockReader};
use super::compress::{Frames, Job};
use super::error::{ArchiveError, Result};
use super::format::{
    Body, Change, Extent, FRAME_MAX, FRAME_TARGET, INLINE_MAX, LISTING_INLINE_MAX, Listing,
    PACK_TARGET, Piece, Place,
};
use super::links::Links;
use sessionkeep_core::entry::{Digest, EntryKind, Meta, RelPath};
use sessionkeep_core::record::PackId;

/// Takes full packs, and returns once there is room for the next. An error ends the building.
pub type PackSink = Box<dyn FnMut(PackId, Bytes) -> std::io::Result<()> + Send>;

/// A finished commit, but for its place in the chain.
#[derive(Debug)]
pub struct Built {
    /// The encoded body.
    pub body: Vec<u8>,
    /// All packs that it refers to, new or not.
    pub packs: Vec<PackId>,
    /// How many changes it holds.
    pub changes: u32,
    /// Content bytes that it brings, uncompressed.
    pub bytes: u64,
    /// Bytes that it adds to the store: its body and its new packs.
    pub stored: u64,
}

/// Stands in for a file's metadata until the file is complete.
const NO_META: Meta = Meta {
    mode: 0,
    mtime_ns: 0,
    owner: sessionkeep_core::entry::Owner { uid: 0, gid: 0 },
};

/// An extent whose frame, and whose source, are not known before the one and the other is closed.
#[derive(Debug, Clone, Copy)]
struct Loose {
    change: usize,
    extent: usize,
}

/// Puts a commit together.
pub struct Builder {
    sink: PackSink,
    frames: Frames,
    packs: Vec<PackId>,
    changes: Vec<Option<Change>>,
    /// Content of the frame that is being filled, and what in it is not placed yet.
    frame: Vec<u8>,
    in_frame: Vec<Loose>,
    /// The extents in the frame that is being compressed, if there is one.
    under_way: Option<Vec<Loose>>,
    /// Buffers of the frame before.
    spare: Job,
    /// Frames of the pack that is being filled, and the extents in it.
    pack: Vec<u8>,
    in_pack: Vec<Loose>,
    bytes: u64,
    /// Bytes of the packs that went to the sink.
    stored: u64,
    aside: Aside,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Begins a commit whose packs go to `sink`.
    ///
    /// # Errors
    /// If zstd cannot allocate.
    pub fn new(sink: PackSink) -> Result<Self> {
        let frames = Frames::new().map_err(|source| ArchiveError::Io {
            action: "start zstd",
            source,
        })?;
        Ok(Self {
            sink,
            frames,
            packs: Vec::new(),
            changes: Vec::new(),
            frame: Vec::new(),
            in_frame: Vec::new(),
            under_way: None,
            spare: Job::default(),
            pack: Vec::new(),
            in_pack: Vec::new(),
            bytes: 0,
            stored: 0,
            aside: Aside::default(),
        })
    }

    /// How many changes there are so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.iter().flatten().count()
    }

    /// Whether nothing has been put in yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.changes.iter().all(Option::is_none)
    }

    /// Notes the metadata of the session directory itself.
    pub fn set_own(&mut self, meta: Meta) {
        self.aside.own = Some(meta);
    }

    /// Notes all that is known besides the entries.
    pub(super) fn set_aside(&mut self, aside: Aside) {
        self.aside = aside;
    }

    /// Notes which files are one file under several names.
    pub fn set_links(&mut self, links: Links) {
        self.aside.links = Some(links);
    }

    /// Puts a whole file in, and gives its hash.
    ///
    /// # Errors
    /// If a pack cannot be handed on.
    pub fn put_file(&mut self, path: &RelPath, meta: Meta, content: &[u8]) -> Result<Digest> {
        let hash = Digest::of(content);
        let kind = EntryKind::File {
            size: content.len() as u64,
            hash,
        };
        let at = self.push(Change::Put {
            path: path.clone(),
            meta,
            kind,
            extents: Vec::new(),
        });
        // Cut where a verifier cuts, so that pieces can be verified in any order.
        for part in content.chunks(FRAME_TARGET) {
            self.add_content(at, 0, part)?;
        }
        Ok(hash)
    }

    /// Puts a directory or a symbolic link in.
    pub fn put_other(&mut self, path: &RelPath, meta: Meta, kind: EntryKind) {
        self.push(Change::Put {
            path: path.clone(),
            meta,
            kind,
            extents: Vec::new(),
        });
    }

    /// Notes that only the metadata of an entry changed.
    pub fn touch(&mut self, path: &RelPath, meta: Meta) {
        self.push(Change::Touch {
            path: path.clone(),
            meta,
        });
    }

    /// Notes that an entry is gone.
    pub fn remove(&mut self, path: &RelPath) {
        self.push(Change::Remove { path: path.clone() });
    }

    /// Lets `change` see, and change, the metadata of each entry that is put in so far.
    pub fn each_meta(&mut self, mut change: impl FnMut(&RelPath, &mut Meta)) {
        for noted in self.changes.iter_mut().flatten() {
            match noted {
                Change::Put { path, meta, .. }
                | Change::Patch { path, meta, .. }
                | Change::Touch { path, meta } => change(path, meta),
                Change::Remove { .. } => {}
            }
        }
    }

    /// Begins a file that comes block by block. `before` is what the archive's newest version of it
    /// is known to be; blocks that have not changed since are left out.
    pub fn begin_blocks<'b>(
        &mut self,
        path: &RelPath,
        block: u32,
        before: Option<&'b BlockMap>,
    ) -> BlockFile<'b> {
        let change = match before {
            Some(_) => Change::Patch {
                path: path.clone(),
                meta: NO_META,
                size: 0,
                hash: Digest::default(),
                pieces: Vec::new(),
            },
            None => Change::Put {
                path: path.clone(),
                meta: NO_META,
                kind: EntryKind::Dir,
                extents: Vec::new(),
            },
        };
        let at = self.push(change);
        BlockFile {
            at,
            reader: BlockReader::new(block, before),
        }
    }

    /// Begins a file of `size` bytes that is `before`, the newest version of it in the archive, but
    /// for some blocks, which follow.
    pub fn begin_patch(&mut self, path: &RelPath, before: &BlockMap, size: u64) -> BlockPatch {
        let at = self.push(Change::Patch {
            path: path.clone(),
            meta: NO_META,
            size: 0,
            hash: Digest::default(),
            pieces: Vec::new(),
        });
        let map = before.resized(size);
        BlockPatch { at, map }
    }

    /// Puts an entry in whose content lies where it lay: for checkpoints. Extents' sources are
    /// indices into `sources`, from 1.
    pub fn put_placed(
        &mut self,
        path: &RelPath,
        meta: Meta,
        kind: EntryKind,
        extents: Vec<Extent>,
    ) -> usize {
        self.push(Change::Put {
            path: path.clone(),
            meta,
            kind,
            extents,
        })
    }

    /// The number by which extents refer to an existing pack.
    pub fn refer(&mut self, pack: PackId) -> u32 {
        let at = self
            .packs
            .iter()
            .position(|have| *have == pack)
            .unwrap_or_else(|| {
                self.packs.push(pack);
                self.packs.len() - 1
            });
        u32::try_from(at + 1).expect("packs are few")
    }

    /// Lays content into the open frame as the extent number `slot` of change `at` (or as a new
    /// last one).
    pub(super) fn move_content(&mut self, at: usize, slot: usize, content: &[u8]) -> Result<()> {
        self.lay(at, slot, content)
    }

    fn push(&mut self, change: Change) -> usize {
        self.changes.push(Some(change));
        self.changes.len() - 1
    }

    fn add_block(
        &mut self,
        at: usize,
        offset: u64,
        content: &[u8],
        change: BlockChange,
    ) -> Result<()> {
        match change {
            BlockChange::Same => Ok(()),
            BlockChange::Different => self.add_content(at, offset, content),
        }
    }

    /// Adds content to a change: a new extent, or a new piece at `offset` of a patch. Adjacent
    /// pieces that end up side by side become one.
    fn add_content(&mut self, at: usize, offset: u64, content: &[u8]) -> Result<()> {
        debug_assert!(content.len() <= FRAME_MAX);
        if self.frame.len() + content.len() > FRAME_TARGET && !self.frame.is_empty() {
            self.close_frame(true)?;
        }
        self.bytes += content.len() as u64;
        let (start, len) = (self.frame.len(), content.len());
        let joins = self.in_frame.last().is_some_and(|last| last.change == at);
        let fresh = Extent {
            source: 0,
            frame: 0,
            frame_len: 0,
            frame_raw: 0,
            at: start as u32,
            len: len as u32,
        };
        let slot = match self.changes[at]
            .as_mut()
            .expect("content is added to changes that stand")
        {
            Change::Put { extents, .. } => {
                if joins
                    && let Some(last) = extents.last_mut()
                    && (last.at + last.len) as usize == start
                {
                    last.len += len as u32;
                    None
                } else {
                    extents.push(fresh);
                    Some(extents.len() - 1)
                }
            }
            Change::Patch { pieces, .. } => match pieces.last_mut() {
                Some(last)
                    if joins
                        && (last.extent.at + last.extent.len) as usize == start
                        && last.offset + u64::from(last.extent.len) == offset =>
                {
                    last.extent.len += len as u32;
                    None
                }
                _ => {
                    pieces.push(Piece {
                        offset,
                        extent: fresh,
                    });
                    Some(pieces.len() - 1)
                }
            },
            Change::Touch { .. } | Change::Remove { .. } => unreachable!("these have no content"),
        };
        self.frame.extend_from_slice(content);
        self.in_frame
            .extend(slot.map(|extent| Loose { change: at, extent }));
        Ok(())
    }

    fn lay(&mut self, at: usize, slot: usize, content: &[u8]) -> Result<()> {
        if self.frame.len() + content.len() > FRAME_TARGET && !self.frame.is_empty() {
            self.close_frame(true)?;
        }
        self.bytes += content.len() as u64;
        let (start, len) = (self.frame.len() as u32, content.len() as u32);
        let extent = self.extent_mut(Loose {
            change: at,
            extent: slot,
        });
        *extent = Extent {
            source: 0,
            frame: 0,
            frame_len: 0,
            frame_raw: 0,
            at: start,
            len,
        };
        self.frame.extend_from_slice(content);
        self.in_frame.push(Loose {
            change: at,
            extent: slot,
        });
        Ok(())
    }

    fn extent_mut(&mut self, loose: Loose) -> &mut Extent {
        match self.changes[loose.change]
            .as_mut()
            .expect("loose extents are of changes that stand")
        {
            Change::Put { extents, .. } => &mut extents[loose.extent],
            Change::Patch { pieces, .. } => &mut pieces[loose.extent].extent,
            Change::Touch { .. } | Change::Remove { .. } => unreachable!("these have no content"),
        }
    }

    /// Has the open frame compressed; `more` are to come, or it is the last.
    fn close_frame(&mut self, more: bool) -> Result<()> {
        self.settle_frame()?;
        if self.frame.is_empty() {
            return Ok(());
        }
        let mut job = std::mem::take(&mut self.spare);
        std::mem::swap(&mut job.raw, &mut self.frame);
        self.frame.clear();
        self.frames.begin(job, more);
        self.under_way = Some(std::mem::take(&mut self.in_frame));
        Ok(())
    }

    /// Puts the frame that was being compressed into the pack.
    fn settle_frame(&mut self) -> Result<()> {
        let Some(in_it) = self.under_way.take() else {
            return Ok(());
        };
        let job = self.frames.end().map_err(|source| ArchiveError::Io {
            action: "compress content",
            source,
        })?;
        let place = (
            self.pack.len() as u32,
            job.packed.len() as u32,
            job.raw.len() as u32,
        );
        if self.pack.len() + job.packed.len() > INLINE_MAX && self.pack.capacity() < PACK_TARGET {
            // It will be a pack: growing step by step would have it in memory twice.
            self.pack
                .reserve_exact(PACK_TARGET + FRAME_TARGET - self.pack.len());
        }
        self.pack.extend_from_slice(&job.packed);
        self.spare = job;
        for loose in in_it {
            if self.changes[loose.change].is_none() {
                continue;
            }
            let extent = self.extent_mut(loose);
            (extent.frame, extent.frame_len, extent.frame_raw) = place;
            self.in_pack.push(loose);
        }
        if self.pack.len() >= PACK_TARGET {
            self.close_pack()
        } else {
            Ok(())
        }
    }

    fn close_pack(&mut self) -> Result<()> {
        let id = PackId::generate();
        let content = Bytes::from(std::mem::take(&mut self.pack));
        self.stored += content.len() as u64;
        (self.sink)(id, content).map_err(|source| ArchiveError::Io {
            action: "hand a pack to the store",
            source,
        })?;
        let source = self.refer(id);
        for loose in std::mem::take(&mut self.in_pack) {
            if self.changes[loose.change].is_some() {
                self.extent_mut(loose).source = source;
            }
        }
        Ok(())
    }

    /// Ends a change that came block by block: gives it its metadata, size and hash, or, where it is
    /// `known` to be committed like that, takes it back. Says whether it differs.
    fn settle_blocks(
        &mut self,
        at: usize,
        meta_now: Meta,
        (size_now, hash_now): (u64, Digest),
        known: Option<(u64, Digest)>,
    ) -> bool {
        if known == Some((size_now, hash_now)) {
            self.drop_change(at);
            return false;
        }
        match self.changes[at].as_mut().expect("was pushed when it began") {
            Change::Put { meta, kind, .. } => {
                *meta = meta_now;
                *kind = EntryKind::File {
                    size: size_now,
                    hash: hash_now,
                };
            }
            Change::Patch {
                meta, size, hash, ..
            } => {
                (*meta, *size, *hash) = (meta_now, size_now, hash_now);
            }
            Change::Touch { .. } | Change::Remove { .. } => unreachable!("never begun so"),
        }
        true
    }

    /// Takes a change back whose content turned out not to be whole. What was laid into frames of
    /// it stays there unused.
    fn drop_change(&mut self, at: usize) {
        self.changes[at] = None;
        self.in_frame.retain(|loose| loose.change != at);
        if let Some(under_way) = &mut self.under_way {
            under_way.retain(|loose| loose.change != at);
        }
        self.in_pack.retain(|loose| loose.change != at);
    }

    /// Puts what the commit says besides its entries before what travels inside it.
    fn put_aside_first(&mut self) {
        if self.aside.is_empty() {
            return;
        }
        let mut content = self.aside.encode();
        let moved_by = content.len() as u32;
        content.append(&mut self.pack);
        self.pack = content;
        for loose in std::mem::take(&mut self.in_pack) {
            if self.changes[loose.change].is_some() {
                self.extent_mut(loose).frame += moved_by;
            }
        }
    }

    /// Closes what is open and gives the commit.
    ///
    /// # Errors
    /// If a pack cannot be handed on.
    pub fn finish(mut self) -> Result<Built> {
        self.close_frame(false)?;
        self.settle_frame()?;
        if self.pack.len() > INLINE_MAX {
            self.close_pack()?;
        }
        self.put_aside_first();
        let changes: Vec<Change> = std::mem::take(&mut self.changes)
            .into_iter()
            .flatten()
            .collect();
        let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let mut packs = std::mem::take(&mut self.packs);
        let listing = Listing {
            packs: packs.clone(),
            changes,
        };
        let (raw_len, packed) = listing.pack().map_err(|source| ArchiveError::Io {
            action: "compress a listing",
            source,
        })?;
        drop(listing);
        let listing = if packed.len() <= LISTING_INLINE_MAX {
            Place::Here { raw_len, packed }
        } else {
            let id = PackId::generate();
            self.stored += packed.len() as u64;
            (self.sink)(id, Bytes::from(packed)).map_err(|source| ArchiveError::Io {
                action: "hand a listing to the store",
                source,
            })?;
            packs.push(id);
            Place::Pack { id, raw_len }
        };
        let body = Body {
            listing,
            content: std::mem::take(&mut self.pack),
        }
        .encode();
        let stored = self.stored + body.len() as u64;
        Ok(Built {
            body,
            packs,
            changes: count,
            bytes: self.bytes,
            stored,
        })
    }
}

/// A file that comes block by block.
#[derive(Debug)]
pub struct BlockFile<'b> {
    at: usize,
    reader: BlockReader<'b>,
}

impl BlockFile<'_> {
    /// Takes the next bytes of the file, in any portions.
    ///
    /// # Errors
    /// If a pack cannot be handed on.
    pub fn feed(&mut self, builder: &mut Builder, content: &[u8]) -> Result<()> {
        let at = self.at;
        self.reader.feed(content, |offset, block, change| {
            builder.add_block(at, offset, block, change)
        })
    }

    /// The file is complete. Gives its blocks and hash, and whether it differs from the committed
    /// version, whose size and hash are `known`; where it does not, nothing is added to the commit.
    ///
    /// # Errors
    /// If a pack cannot be handed on.
    pub fn finish(
        self,
        builder: &mut Builder,
        meta_now: Meta,
        known: Option<(u64, Digest)>,
    ) -> Result<(BlockMap, Digest, bool)> {
        let at = self.at;
        let mut map = self
            .reader
            .finish(|offset, block, change| builder.add_block(at, offset, block, change))?;
        map.settle();
        let content = (map.size(), map.hash());
        let changed = builder.settle_blocks(at, meta_now, content, known);
        Ok((map, content.1, changed))
    }

    /// The file did not come whole: nothing of it is committed.
    pub fn abandon(self, builder: &mut Builder) {
        builder.drop_change(self.at);
    }
}

/// A file of which only some blocks come.
#[derive(Debug)]
pub struct BlockPatch {
    at: usize,
    map: BlockMap,
}

impl BlockPatch {
    /// Takes the block at `offset`, in ascending order.
    ///
    /// # Errors
    /// If a pack cannot be handed on.
    pub fn put(&mut self, builder: &mut Builder, offset: u64, content: &[u8]) -> Result<()> {
        let change = self.map.replace(offset, content);
        builder.add_block(self.at, offset, content, change)
    }

    /// No more blocks differ; as [`BlockFile::finish`].
    pub fn finish(
        mut self,
        builder: &mut Builder,
        meta_now: Meta,
        known: Option<(u64, Digest)>,
    ) -> (BlockMap, Digest, bool) {
        self.map.settle();
        let content = (self.map.size(), self.map.hash());
        let changed = builder.settle_blocks(self.at, meta_now, content, known);
        (self.map, content.1, changed)
    }

    /// As [`BlockFile::abandon`].
    pub fn abandon(self, builder: &mut Builder) {
        builder.drop_change(self.at);
    }
}
