//! Format version 1: what a commit's body looks like.
//!
//! ```text
//! body    = postcard { listing: Place, content: bytes }
//! Place   = Here { raw_len, zstd(postcard(Listing)) } | Pack { id, raw_len }
//! Listing = { packs: [PackId], changes: [Change] }
//! content = own? frame*     frame = one zstd frame of at most FRAME_MAX bytes of content
//! own     = a skippable zstd frame: the session directory's own metadata (see `own`)
//! pack    = frame*          (or, for a listing that is too large for a record, zstd(Listing))
//! ```
//!
//! File contents are laid end to end into frames, so that small files compress together; an
//! [`Extent`] says where a piece of a file lies. The encoding is postcard's (its wire format is
//! specified and stable), and enum variants are only ever appended.
//!
//! Everything here decodes bytes that may be damaged or forged: each length is bounded before it
//! is believed, and nothing is allocated for a count that the input does not have the bytes for.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zstd::bulk::Decompressor;

use sessionkeep_core::entry::{Digest, EntryKind, Meta, RelPath};
use sessionkeep_core::record::PackId;

/// Most content bytes in one frame. Bounds what decompressing one may take.
pub const FRAME_MAX: usize = 1 << 20;
/// A frame is closed when it holds this much. Larger compresses a little better; smaller lets a
/// single file be read with less around it.
pub const FRAME_TARGET: usize = 256 << 10;
/// A pack is closed when it holds this much, compressed, which the last frame may exceed: two
/// mebibytes in all, of which a few at a time fit the memory of both sides.
pub const PACK_TARGET: usize = 7 << 18;
/// Content up to this size, compressed, travels inside the commit.
pub const INLINE_MAX: usize = 512 << 10;
/// A listing up to this size, compressed, travels inside the commit.
pub const LISTING_INLINE_MAX: usize = 4 << 20;
/// Largest listing that is read, uncompressed: some two million entries.
pub const LISTING_MAX: u64 = 256 << 20;
/// Most packs that a listing names: two terabytes of contents.
const PACKS_MAX: u64 = 1 << 20;
/// Most extents that a listing has, of all its files. A database has as many when twelve gigabytes of
/// it are scattered page by page; other files take one for 256 KiB and less.
pub const EXTENTS_MAX: usize = 3 << 20;
/// No single change is longer, encoded: a file that has all the extents there may be.
const CHANGE_MAX: usize = 64 << 20;
/// zstd's fastest ordinary level. Keys are random, so that a higher one saves next to nothing of them
/// and costs half as much time again.
pub const ZSTD_LEVEL: i32 = 1;

/// Where a piece of content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// 0: in this commit's own content; `n`: in the `n`-th of the listing's packs.
    pub source: u32,
    /// Where the frame begins in the source.
    pub frame: u32,
    /// How long it is there, compressed.
    pub frame_len: u32,
    /// How long it is uncompressed.
    pub frame_raw: u32,
    /// Where the piece begins in the uncompressed frame.
    pub at: u32,
    /// How long the piece is.
    pub len: u32,
}

impl Extent {
    /// An extent whose content has not been laid anywhere yet.
    pub(super) const NOWHERE: Self = Self {
        source: 0,
        frame: 0,
        frame_len: 0,
        frame_raw: 0,
        at: 0,
        len: 0,
    };
}

/// A piece of a file that replaces what was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where in the file it goes.
    pub offset: u64,
    /// Where its content lies.
    pub extent: Extent,
}

/// A change to one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The entry is now this, whatever was there. A file's extents follow each other without gaps.
    Put {
        /// Which entry.
        path: RelPath,
        /// Its metadata.
        meta: Meta,
        /// What it is.
        kind: EntryKind,
        /// A file's content, in order; empty for everything else.
        #[serde(deserialize_with = "extents")]
        extents: Vec<Extent>,
    },
    /// The file keeps its content but for some pieces.
    Patch {
        /// Which file; it exists in the version before.
        path: RelPath,
        /// Its metadata now.
        meta: Meta,
        /// Its size now; content beyond is cut off, room that came into being is covered by pieces.
        size: u64,
        /// Hash of its whole content now.
        hash: Digest,
        /// What changed, by offset, not overlapping.
        #[serde(deserialize_with = "extents")]
        pieces: Vec<Piece>,
    },
    /// Only the metadata changed.
    Touch {
        /// Which entry; it exists in the version before.
        path: RelPath,
        /// Its metadata now.
        meta: Meta,
    },
    /// The entry is gone, and with a directory all that was below it.
    Remove {
        /// Which entry.
        path: RelPath,
    },
}

/// Reads extents, or pieces, and no more of them than [`EXTENTS_MAX`]: of a few kilobytes that
/// decompress well there could be tens of millions.
fn extents<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {EXTENTS_MAX} extents")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
            // Nothing is allocated for a count alone.
            let mut extents = Vec::with_capacity(from.size_hint().unwrap_or(0).min(1024));
            while let Some(extent) = from.next_element()? {
                if extents.len() == EXTENTS_MAX {
                    return Err(A::Error::custom("too many extents"));
                }
                extents.push(extent);
            }
            Ok(extents)
        }
    }
    from.deserialize_seq(Few(PhantomData))
}

impl Change {
    /// How many extents or pieces it has.
    fn extents(&self) -> usize {
        match self {
            Self::Put { extents, .. } => extents.len(),
            Self::Patch { pieces, .. } => pieces.len(),
            Self::Touch { .. } | Self::Remove { .. } => 0,
        }
    }

    /// The entry that is changed.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Put { path, .. }
            | Self::Patch { path, .. }
            | Self::Touch { path, .. }
            | Self::Remove { path } => path,
        }
    }

    /// In one word, for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Patch { .. } => "patch",
            Self::Touch { .. } => "touch",
            Self::Remove { .. } => "remove",
        }
    }
}

/// What a commit changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The packs that extents refer to, by number from 1.
    pub packs: Vec<PackId>,
    /// The changes, in the order they are applied.
    pub changes: Vec<Change>,
}

/// Where a listing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In the body.
    Here {
        /// Length of the encoded listing before compression.
        raw_len: u64,
        /// zstd of the encoded listing.
        #[serde(with = "serde_bytes")]
        packed: Vec<u8>,
    },
    /// In a pack of its own.
    Pack {
        /// Which.
        id: PackId,
        /// Length of the encoded listing before compression.
        raw_len: u64,
    },
}

/// A commit's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Where the listing is.
    pub listing: Place,
    /// Frames that travel inside the commit.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

impl Body {
    /// The body as stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("bodies always encode")
    }

    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (body, rest) = postcard::take_from_bytes(bytes)
            .map_err(|e| format!("the body does not decode: {e}"))?;
        if rest.is_empty() {
            Ok(body)
        } else {
            Err("the body has bytes after its end".into())
        }
    }
}

/// Where a listing is, read without copying it.
#[derive(Debug, Deserialize)]
pub enum PlaceView<'a> {
    /// In the body.
    Here {
        /// As in [`Place::Here`].
        raw_len: u64,
        /// As in [`Place::Here`].
        packed: &'a [u8],
    },
    /// In a pack of its own.
    Pack {
        /// As in [`Place::Pack`].
        id: PackId,
        /// As in [`Place::Pack`].
        raw_len: u64,
    },
}

/// A commit's body, read without copying it.
#[derive(Debug, Deserialize)]
pub struct BodyView<'a> {
    /// As in [`Body::listing`].
    #[serde(borrow)]
    pub listing: PlaceView<'a>,
    /// As in [`Body::content`].
    pub content: &'a [u8],
}

impl<'a> BodyView<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, String> {
        let (body, rest) = postcard::take_from_bytes(bytes)
            .map_err(|e| format!("the body does not decode: {e}"))?;
        if rest.is_empty() {
            Ok(body)
        } else {
            Err("the body has bytes after its end".into())
        }
    }
}

impl Listing {
    /// The encoded listing's length and its compressed form.
    ///
    /// # Errors
    /// If zstd cannot allocate, or if nobody could read it back.
    pub fn pack(&self) -> std::io::Result<(u64, Vec<u8>)> {
        let raw = postcard::to_stdvec(self).expect("listings always encode");
        let extents: usize = self.changes.iter().map(Change::extents).sum();
        if raw.len() as u64 > LISTING_MAX || extents > EXTENTS_MAX {
            let (entries, bytes) = (self.changes.len(), raw.len());
            let why = format!(
                "{entries} entries in {extents} pieces take {bytes} bytes, more than one commit can list"
            );
            return Err(std::io::Error::other(why));
        }
        Ok((raw.len() as u64, zstd::bulk::compress(&raw, ZSTD_LEVEL)?))
    }

    /// Reads a compressed listing of `raw_len` bytes.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn unpack(packed: &[u8], raw_len: u64) -> Result<Self, String> {
        let mut reader = ListingReader::open(packed, raw_len)?;
        let mut changes = Vec::new();
        while let Some(change) = reader.next()? {
            changes.push(change);
        }
        Ok(Self {
            packs: reader.packs,
            changes,
        })
    }
}

/// The window that a listing may be compressed with, as a power of two: 8 MiB, which every decoder
/// of zstd is to have (RFC 8878, section 3.1.1.1.2), and sixteen times what we use. A forged one cannot
/// have us set more aside.
const WINDOW_LOG_MAX: u32 = 23;
/// How much of a listing is decompressed at a time.
const WINDOW: usize = 64 << 10;

/// Reads a compressed listing change by change, so that a long one is never in memory whole.
pub struct ListingReader<'a> {
    decoder: zstd::stream::read::Decoder<'static, &'a [u8]>,
    packs: Vec<PackId>,
    /// How many changes are still to come.
    left: u64,
    /// How many extents have come.
    extents: usize,
    /// What has been decompressed, from `at` on not decoded yet.
    window: Vec<u8>,
    at: usize,
    /// Bytes that the listing claims to have beyond the window.
    beyond: u64,
}

impl<'a> ListingReader<'a> {
    /// Begins to read a compressed listing of `raw_len` bytes.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn open(packed: &'a [u8], raw_len: u64) -> Result<Self, String> {
        if raw_len > LISTING_MAX {
            return Err(format!(
                "the listing claims {raw_len} bytes, more than {LISTING_MAX}"
            ));
        }
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(packed).map_err(undecompressed)?;
        decoder
            .window_log_max(WINDOW_LOG_MAX)
            .map_err(undecompressed)?;
        let mut reader = Self {
            decoder,
            packs: Vec::new(),
            left: 0,
            extents: 0,
            window: Vec::new(),
            at: 0,
            beyond: raw_len,
        };
        let packs: u64 = reader.decode()?;
        if packs > PACKS_MAX {
            return Err(format!(
                "the listing names {packs} packs, more than {PACKS_MAX}"
            ));
        }
        // One by one, so that a count that nothing is behind does not fill the window.
        for _ in 0..packs {
            let id = reader.decode()?;
            reader.packs.push(id);
        }
        reader.left = reader.decode()?;
        Ok(reader)
    }

    /// The packs that extents refer to, by number from 1.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// The next change; `None` after the last.
    ///
    /// # Errors
    /// What is wrong with it, or with the listing's end, in words.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and then ends")]
    pub fn next(&mut self) -> Result<Option<Change>, String> {
        if self.left > 0 {
            self.left -= 1;
            let change: Change = self.decode()?;
            self.extents += change.extents();
            if self.extents > EXTENTS_MAX {
                return Err(format!("the listing has more than {EXTENTS_MAX} extents"));
            }
            check(&change, self.packs.len() as u64)?;
            return Ok(Some(change));
        }
        if self.at < self.window.len() || self.beyond > 0 {
            return Err("the listing has bytes after its end".into());
        }
        match self.decoder.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err("the listing is not as long as it claims".into()),
            Err(error) => Err(undecompressed(error)),
        }
    }

    /// Decodes one value, and decompresses as much more as that takes.
    fn decode<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, String> {
        loop {
            let rest = &self.window[self.at..];
            match postcard::take_from_bytes::<T>(rest) {
                Ok((value, after)) => {
                    self.at += rest.len() - after.len();
                    return Ok(value);
                }
                Err(postcard::Error::DeserializeUnexpectedEnd) if self.beyond > 0 => self.fill()?,
                Err(error) => return Err(format!("the listing does not decode: {error}")),
            }
        }
    }

    /// Makes the window longer by as much as it holds, and by [`WINDOW`] at least.
    fn fill(&mut self) -> Result<(), String> {
        self.window.drain(..std::mem::take(&mut self.at));
        if self.window.len() >= CHANGE_MAX {
            return Err("an entry of the listing is larger than any can be".into());
        }
        let more = self.window.len().max(WINDOW) as u64;
        let more = more.min(self.beyond);
        self.window.reserve_exact(more as usize);
        let read = self
            .decoder
            .by_ref()
            .take(more)
            .read_to_end(&mut self.window)
            .map_err(undecompressed)?;
        self.beyond -= more;
        if (read as u64) < more {
            return Err("the listing is not as long as it claims".into());
        }
        Ok(())
    }
}

fn undecompressed(error: std::io::Error) -> String {
    format!("the listing does not decompress: {error}")
}

/// Whether a change can be believed as far as it can be seen from itself, in a listing that names
/// `known` packs.
fn check(change: &Change, known: u64) -> Result<(), String> {
    let extent = |path: &RelPath, e: &Extent| {
        let ends = u64::from(e.at) + u64::from(e.len);
        if u64::from(e.source) > known
            || e.frame_raw as usize > FRAME_MAX
            || e.len == 0
            || ends > u64::from(e.frame_raw)
        {
            Err(format!("an extent of {path} lies outside its frame"))
        } else {
            Ok(())
        }
    };
    match change {
        Change::Put {
            path,
            kind,
            extents,
            meta,
        } => {
            let total = extents.iter().try_fold(0u64, |sum, e| {
                extent(path, e).map(|()| sum + u64::from(e.len))
            })?;
            let size = if let EntryKind::File { size, .. } = kind {
                *size
            } else {
                0
            };
            if total != size {
                return Err(format!("the extents of {path} do not make up its size"));
            }
            check_meta(path, meta)
        }
        Change::Patch {
            path,
            meta,
            size,
            pieces,
            ..
        } => {
            let mut end = 0;
            for piece in pieces {
                extent(path, &piece.extent)?;
                if piece.offset < end {
                    return Err(format!("the pieces of {path} overlap"));
                }
                end = piece.offset.saturating_add(u64::from(piece.extent.len));
                if end > *size {
                    return Err(format!("a piece of {path} lies beyond its end"));
                }
            }
            check_meta(path, meta)
        }
        Change::Touch { path, meta } => check_meta(path, meta),
        Change::Remove { .. } => Ok(()),
    }
}

fn check_meta(path: &RelPath, meta: &Meta) -> Result<(), String> {
    if meta.mode & !0o7777 == 0 {
        Ok(())
    } else {
        Err(format!("{path} has a mode beyond permission bits"))
    }
}

/// Where the frame that `extent` lies in begins and ends in its source.
#[must_use]
pub fn frame_place(extent: &Extent) -> std::ops::Range<usize> {
    let from = extent.frame as usize;
    from..from.saturating_add(extent.frame_len as usize)
}

/// Decompresses the frame that `extent` lies in into `raw`, whose content is replaced.
///
/// # Errors
/// What is wrong with it, in words.
pub fn open_frame(
    zstd: &mut Decompressor<'_>,
    frame: &[u8],
    extent: &Extent,
    raw: &mut Vec<u8>,
) -> Result<(), String> {
    let len = extent.frame_raw as usize;
    if len > FRAME_MAX {
        return Err("a frame claims to be larger than any is".into());
    }
    raw.clear();
    raw.reserve(len);
    zstd.decompress_to_buffer(frame, raw)
        .map_err(|e| format!("a frame does not decompress: {e}"))?;
    if raw.len() == len {
        Ok(())
    } else {
        Err("a frame is not as long as it claims".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{meta, path};
    use proptest::prelude::*;

    fn extent() -> Extent {
        Extent {
            source: 0,
            frame: 0,
            frame_len: 10,
            frame_raw: 20,
            at: 0,
            len: 20,
        }
    }

    fn put(extent: Extent, size: u64) -> Listing {
        Listing {
            packs: vec![],
            changes: vec![Change::Put {
                path: path("a"),
                meta: meta(),
                kind: EntryKind::File {
                    size,
                    hash: Digest::default(),
                },
                extents: vec![extent],
            }],
        }
    }

    fn open(frame: &[u8], extent: &Extent) -> Result<Vec<u8>, String> {
        let mut zstd = Decompressor::new().expect("allocates");
        let mut raw = Vec::new();
        open_frame(&mut zstd, frame, extent, &mut raw).map(|()| raw)
    }

    fn round_trip(listing: &Listing) -> Result<Listing, String> {
        let (raw_len, packed) = listing.pack().expect("compresses");
        Listing::unpack(&packed, raw_len)
    }

    #[test]
    fn a_sound_listing_survives() {
        let listing = put(extent(), 20);
        assert_eq!(round_trip(&listing), Ok(listing));
    }

    #[test]
    fn extents_that_cannot_be_are_refused() {
        for (bad, size) in [
            (
                Extent {
                    source: 1,
                    ..extent()
                },
                20,
            ),
            (Extent { at: 1, ..extent() }, 20),
            (
                Extent {
                    at: u32::MAX,
                    ..extent()
                },
                20,
            ),
            (
                Extent {
                    frame_raw: 1 << 30,
                    ..extent()
                },
                20,
            ),
            (extent(), 21),
        ] {
            assert!(round_trip(&put(bad, size)).is_err(), "{bad:?} of {size}");
        }
    }

    #[test]
    fn overlapping_pieces_and_set_uid_games_are_refused() {
        let piece = |offset| Piece {
            offset,
            extent: extent(),
        };
        let patch = |pieces, size, mode| Listing {
            packs: vec![],
            changes: vec![Change::Patch {
                path: path("a"),
                meta: Meta { mode, ..meta() },
                size,
                hash: Digest::default(),
                pieces,
            }],
        };
        assert!(round_trip(&patch(vec![piece(0), piece(20)], 40, 0o600)).is_ok());
        assert!(round_trip(&patch(vec![piece(0), piece(19)], 40, 0o600)).is_err());
        assert!(round_trip(&patch(vec![piece(u64::MAX)], 40, 0o600)).is_err());
        assert!(round_trip(&patch(vec![], 40, 0o100_600)).is_err());
    }

    #[test]
    fn a_listing_that_is_longer_than_the_window_comes_whole_or_not_at_all() {
        let changes = (0..5000)
            .map(|n| Change::Remove {
                path: path(&format!("{n}/long{}", "er".repeat(n % 100))),
            })
            .collect();
        let listing = Listing {
            packs: vec![PackId::generate()],
            changes,
        };
        let (raw_len, packed) = listing.pack().expect("compresses");
        assert!(raw_len > 4 * WINDOW as u64, "{raw_len}");
        assert_eq!(Listing::unpack(&packed, raw_len), Ok(listing));
        for wrong in [0, 1, raw_len / 2, raw_len - 1, raw_len + 1, raw_len * 2] {
            assert!(Listing::unpack(&packed, wrong).is_err(), "{wrong}");
        }
        assert!(Listing::unpack(&packed[..packed.len() / 2], raw_len).is_err());
        // More than it says it holds.
        let mut raw = zstd::bulk::decompress(&packed, raw_len as usize).expect("whole");
        raw.push(0);
        let longer = zstd::bulk::compress(&raw, ZSTD_LEVEL).expect("compresses");
        assert!(Listing::unpack(&longer, raw_len + 1).is_err());
    }

    #[test]
    fn a_listing_that_asks_for_a_large_window_is_not_unpacked() {
        use std::io::Write as _;

        let listing = put(extent(), 20);
        let raw = postcard::to_stdvec(&listing).expect("encodes");
        let with_window = |log| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("allocates");
            encoder.window_log(log).expect("a window");
            encoder.write_all(&raw).expect("compresses");
            encoder.flush().expect("compresses");
            Listing::unpack(&encoder.finish().expect("compresses"), raw.len() as u64)
        };
        assert_eq!(with_window(WINDOW_LOG_MAX), Ok(listing));
        let error = with_window(27).expect_err("128 MiB");
        assert!(error.contains("does not decompress"), "{error}");
    }

    #[test]
    fn a_listing_that_would_fill_the_memory_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).expect("compresses");
        assert!(Listing::unpack(&bomb, 1000).is_err());
        assert!(Listing::unpack(&bomb, LISTING_MAX + 1).is_err());
        let frame = Extent {
            frame_len: bomb.len() as u32,
            ..extent()
        };
        assert!(open(&bomb, &frame).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), len in any::<u32>()) {
            let _ = Body::decode(&bytes);
            let _ = Listing::unpack(&bytes, u64::from(len % 4096));
            let packed = zstd::bulk::compress(&bytes, 1).expect("compresses");
            let _ = Listing::unpack(&packed, bytes.len() as u64);
            let any = Extent { frame: len % 700, frame_len: len % 600, ..extent() };
            let _ = open(&packed, &any);
            if let Some(frame) = bytes.get(frame_place(&any)) {
                let _ = open(frame, &any);
            }
        }
    }
}
