//! Format version 1: what a commit's body looks like.
//!
//! ```text
//! body    = postcard { listing: Place, content: bytes }
//! Place   = Here { raw_len, zstd(postcard(Listing)) } | Pack { id, raw_len }
//! Listing = { packs: [PackId], changes: [Change] }
//! content = frame*          frame = one zstd frame of at most FRAME_MAX bytes of content
//! pack    = frame*          (or, for a listing that is too large for a record, zstd(Listing))
//! ```
//!
//! File contents are laid end to end into frames, so that small files compress together; an
//! [`Extent`] says where a piece of a file lies. The encoding is postcard's (its wire format is
//! specified and stable), and enum variants are only ever appended.
//!
//! Everything here decodes bytes that may be damaged or forged: each length is bounded before it
//! is believed, and nothing is allocated for a count that the input does not have the bytes for.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::entry::{Digest, Kind, Meta, RelPath};
use crate::store::PackId;

/// Most content bytes in one frame. Bounds what decompressing one may take.
pub const FRAME_MAX: usize = 1 << 20;
/// A frame is closed when it holds this much. Larger compresses a little better; smaller lets a
/// single file be read with less around it.
pub const FRAME_TARGET: usize = 256 << 10;
/// A pack is closed when it holds this much, compressed. Bounds the memory of both sides.
pub const PACK_TARGET: usize = 4 << 20;
/// Content up to this size, compressed, travels inside the commit.
pub const INLINE_MAX: usize = 256 << 10;
/// A listing up to this size, compressed, travels inside the commit.
pub const LISTING_INLINE_MAX: usize = 4 << 20;
/// Largest listing that is read, uncompressed: some two million entries.
pub const LISTING_MAX: u64 = 256 << 20;
/// zstd's default level: near the best ratio that still runs at hundreds of megabytes a second.
pub const ZSTD_LEVEL: i32 = 3;

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
        kind: Kind,
        /// A file's content, in order; empty for everything else.
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

impl Change {
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

impl Listing {
    /// The encoded listing's length and its compressed form.
    ///
    /// # Errors
    /// If zstd cannot allocate.
    pub fn pack(&self) -> std::io::Result<(u64, Vec<u8>)> {
        let raw = postcard::to_stdvec(self).expect("listings always encode");
        Ok((raw.len() as u64, zstd::bulk::compress(&raw, ZSTD_LEVEL)?))
    }

    /// Reads a compressed listing of `raw_len` bytes.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn unpack(packed: &[u8], raw_len: u64) -> Result<Self, String> {
        if raw_len > LISTING_MAX {
            return Err(format!(
                "the listing claims {raw_len} bytes, more than {LISTING_MAX}"
            ));
        }
        let mut raw = Vec::new();
        zstd::stream::read::Decoder::with_buffer(packed)
            .and_then(|decoder| decoder.take(raw_len + 1).read_to_end(&mut raw))
            .map_err(|e| format!("the listing does not decompress: {e}"))?;
        if raw.len() as u64 != raw_len {
            return Err("the listing is not as long as it claims".into());
        }
        let (listing, rest) = postcard::take_from_bytes::<Self>(&raw)
            .map_err(|e| format!("the listing does not decode: {e}"))?;
        if !rest.is_empty() {
            return Err("the listing has bytes after its end".into());
        }
        listing.check()?;
        Ok(listing)
    }

    /// Whether the listing can be believed as far as it can be seen from itself.
    fn check(&self) -> Result<(), String> {
        let known = self.packs.len() as u64;
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
        for change in &self.changes {
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
                    let size = if let Kind::File { size, .. } = kind {
                        *size
                    } else {
                        0
                    };
                    if total != size {
                        return Err(format!("the extents of {path} do not make up its size"));
                    }
                    check_meta(path, meta)?;
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
                    check_meta(path, meta)?;
                }
                Change::Touch { path, meta } => check_meta(path, meta)?,
                Change::Remove { .. } => {}
            }
        }
        Ok(())
    }
}

fn check_meta(path: &RelPath, meta: &Meta) -> Result<(), String> {
    if meta.mode & !0o7777 == 0 {
        Ok(())
    } else {
        Err(format!("{path} has a mode beyond permission bits"))
    }
}

/// Decompresses the frame that `extent` lies in, out of its source's bytes.
///
/// # Errors
/// What is wrong with it, in words.
pub fn open_frame(source: &[u8], extent: &Extent) -> Result<Vec<u8>, String> {
    let from = extent.frame as usize;
    let frame = from
        .checked_add(extent.frame_len as usize)
        .and_then(|to| source.get(from..to))
        .ok_or("a frame lies beyond the end of its source")?;
    if extent.frame_raw as usize > FRAME_MAX {
        return Err("a frame claims to be larger than any is".into());
    }
    let raw = zstd::bulk::decompress(frame, extent.frame_raw as usize)
        .map_err(|e| format!("a frame does not decompress: {e}"))?;
    if raw.len() == extent.frame_raw as usize {
        Ok(raw)
    } else {
        Err("a frame is not as long as it claims".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tree::tests::{meta, path};
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
                kind: Kind::File {
                    size,
                    hash: Digest::default(),
                },
                extents: vec![extent],
            }],
        }
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
    fn a_listing_that_would_fill_the_memory_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).expect("compresses");
        assert!(Listing::unpack(&bomb, 1000).is_err());
        assert!(Listing::unpack(&bomb, LISTING_MAX + 1).is_err());
        let frame = Extent {
            frame_len: bomb.len() as u32,
            ..extent()
        };
        assert!(open_frame(&bomb, &frame).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), len in any::<u32>()) {
            let _ = Body::decode(&bytes);
            let _ = Listing::unpack(&bytes, u64::from(len % 4096));
            let packed = zstd::bulk::compress(&bytes, 1).expect("compresses");
            let _ = Listing::unpack(&packed, bytes.len() as u64);
            let any = Extent { frame: len % 700, frame_len: len % 600, ..extent() };
            let _ = open_frame(&bytes, &any);
        }
    }
}
