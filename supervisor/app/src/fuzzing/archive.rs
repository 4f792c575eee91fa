//! The archive's format: bodies, listings and frames.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::{Decoder, about, assert_inside};
use sessionkeep_archive::format::{
    Body, BodyView, Change, Extent, FRAME_MAX, Listing, Piece, Place, PlaceView, ZSTD_LEVEL,
    frame_place, open_frame,
};
use sessionkeep_archive::pieces::Pieces;
use sessionkeep_core::entry::{Digest, EntryKind, Meta, Owner, RelPath};
use sessionkeep_core::record::PackId;

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "body",
        decode: body,
        seeds: bodies,
        memory: |input| about(input, 4),
    },
    Decoder {
        name: "listing",
        decode: listing,
        seeds: || listings().iter().map(encoded).collect(),
        memory: listing_memory,
    },
    Decoder {
        name: "packed_listing",
        decode: packed_listing,
        seeds: packed_listings,
        // What it claims to become is bounded, and what it does become is read in steps.
        memory: |input| (96 << 20) + listing_memory(input),
    },
    Decoder {
        name: "frame",
        decode: frame,
        seeds: frames,
        memory: |input| about(input, 2) + 2 * FRAME_MAX,
    },
];

/// Where a count comes first, room is made for it as far as serde trusts counts: a mebibyte a list,
/// of which three can be open at a time. The smallest change is 3 bytes, and some 150 decoded.
pub(super) fn listing_memory(input: &[u8]) -> usize {
    (4 << 20) + about(input, 256)
}

pub(super) fn encoded(listing: &Listing) -> Vec<u8> {
    postcard::to_stdvec(listing).expect("listings always encode")
}

fn meta() -> Meta {
    Meta {
        mode: 0o640,
        mtime_ns: 1_800_000_000_123_456_789,
        owner: Owner { uid: 1000, gid: 0 },
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

fn extent(source: u32, at: u32, len: u32) -> Extent {
    Extent {
        source,
        frame: 40,
        frame_len: 300,
        frame_raw: 4096,
        at,
        len,
    }
}

fn put(name: &str, kind: EntryKind, extents: Vec<Extent>) -> Change {
    Change::Put {
        path: path(name),
        meta: meta(),
        kind,
        extents,
    }
}

/// A tree, and two changes of it.
pub(super) fn listings() -> [Listing; 3] {
    let hash = Digest::of(b"content");
    let file = |size| EntryKind::File { size, hash };
    let target = b"../a/b".to_vec();
    [
        Listing {
            packs: vec![PackId([7; 16])],
            changes: vec![
                put("a", EntryKind::Dir, vec![]),
                put("a/b", file(4096), vec![extent(1, 0, 4096)]),
                put("a/c", file(300), vec![extent(0, 0, 100), extent(1, 9, 200)]),
                put("creds.json", file(0), vec![]),
                put("d", EntryKind::Dir, vec![]),
                put("d/link", EntryKind::Symlink { target }, vec![]),
            ],
        },
        Listing {
            packs: vec![PackId([7; 16]), PackId([9; 16])],
            changes: vec![
                Change::Patch {
                    path: path("a/b"),
                    meta: meta(),
                    size: 5000,
                    hash,
                    pieces: vec![
                        Piece {
                            offset: 0,
                            extent: extent(0, 0, 10),
                        },
                        Piece {
                            offset: 4000,
                            extent: extent(2, 5, 1000),
                        },
                    ],
                },
                Change::Touch {
                    path: path("d"),
                    meta: meta(),
                },
            ],
        },
        Listing {
            packs: vec![],
            changes: vec![
                Change::Remove { path: path("a") },
                put("a", file(10), vec![extent(0, 0, 10)]),
            ],
        },
    ]
}

fn bodies() -> Vec<Vec<u8>> {
    let here = listings().map(|listing| {
        let (raw_len, packed) = listing.pack().expect("compresses");
        Place::Here { raw_len, packed }
    });
    let elsewhere = Place::Pack {
        id: PackId([3; 16]),
        raw_len: 70_000,
    };
    let content = zstd::bulk::compress(b"content", ZSTD_LEVEL).expect("compresses");
    here.into_iter()
        .chain([elsewhere])
        .map(|listing| {
            let content = content.clone();
            Body { listing, content }.encode()
        })
        .collect()
}

/// Read with and without copies, to the same result.
fn body(input: &[u8]) -> bool {
    let view = BodyView::decode(input);
    let body = match Body::decode(input) {
        Err(why) => {
            assert_eq!(view.err(), Some(why));
            return false;
        }
        Ok(body) => body,
    };
    let view = view.expect("the copying reader took it");
    assert_eq!(view.content, body.content);
    match (&view.listing, &body.listing) {
        (
            PlaceView::Here { raw_len, packed },
            Place::Here {
                raw_len: copied_len,
                packed: copied,
            },
        ) => assert_eq!((raw_len, *packed), (copied_len, &copied[..])),
        (
            PlaceView::Pack { id, raw_len },
            Place::Pack {
                id: copied,
                raw_len: copied_len,
            },
        ) => assert_eq!((id, raw_len), (copied, copied_len)),
        (one, other) => panic!("{one:?} is not {other:?}"),
    }
    assert_eq!(Body::decode(&body.encode()), Ok(body));
    true
}

/// As the archive compresses, with what that takes kept from call to call.
pub(super) fn compressed(raw: &[u8]) -> Vec<u8> {
    thread_local! {
        static ZSTD: RefCell<Compressor<'static>> =
            RefCell::new(Compressor::new(ZSTD_LEVEL).expect("allocates"));
    }
    ZSTD.with_borrow_mut(|zstd| zstd.compress(raw))
        .expect("compresses")
}

fn check(listing: &Listing) {
    for change in &listing.changes {
        assert_inside(change.path());
    }
    let (raw_len, packed) = listing.pack().expect("compresses");
    assert_eq!(Listing::unpack(&packed, raw_len).as_ref(), Ok(listing));
}

/// What is inside a listing that decompresses.
fn listing(input: &[u8]) -> bool {
    let listing = Listing::unpack(&compressed(input), input.len() as u64);
    listing.inspect(check).is_ok()
}

fn packed_listings() -> Vec<Vec<u8>> {
    listings()
        .iter()
        .map(|listing| {
            let (raw_len, packed) = listing.pack().expect("compresses");
            [&raw_len.to_le_bytes()[..], &packed].concat()
        })
        .collect()
}

/// A listing as it comes: what it claims to become, and its compressed form.
fn packed_listing(input: &[u8]) -> bool {
    let Some((raw_len, packed)) = input.split_first_chunk() else {
        return false;
    };
    let listing = Listing::unpack(packed, u64::from_le_bytes(*raw_len));
    listing.inspect(check).is_ok()
}

fn frames() -> Vec<Vec<u8>> {
    let raw: Vec<u8> = (0..2000u32).map(|i| ((i * i) >> 5) as u8).collect();
    let packed = compressed(&raw);
    let fields = [3, packed.len() as u32, raw.len() as u32].map(u32::to_le_bytes);
    vec![[&fields.concat(), &b"xyz"[..], &packed].concat()]
}

/// A frame in a source that came in two pieces: where it is said to be, and the source.
fn frame(input: &[u8]) -> bool {
    thread_local! {
        static ZSTD: RefCell<(Decompressor<'static>, Vec<u8>)> =
            RefCell::new((Decompressor::new().expect("allocates"), Vec::new()));
    }
    let Some((fields, source)) = input.split_first_chunk::<12>() else {
        return false;
    };
    let field = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("four bytes"));
    let extent = Extent {
        source: 0,
        frame: field(0),
        frame_len: field(4),
        frame_raw: field(8),
        at: 0,
        len: field(8),
    };
    let (one, other) = source.split_at(source.len() / 2);
    let pieces = Pieces::from(vec![
        Bytes::copy_from_slice(one),
        Bytes::copy_from_slice(other),
    ]);
    let place = frame_place(&extent);
    let found = pieces.get(place.clone());
    assert_eq!(found.as_deref(), source.get(place));
    let Some(found) = found else {
        return false;
    };
    ZSTD.with_borrow_mut(|(zstd, raw)| {
        let opened = open_frame(zstd, &found, &extent, raw).is_ok();
        assert!(!opened || raw.len() == extent.frame_raw as usize);
        opened
    })
}
