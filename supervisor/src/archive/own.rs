//! The session directory's own owner, mode and time in a commit: a frame of its own before all others.
//!
//! It is one of zstd's skippable frames (RFC 8878, section 3.1.2), which no extent refers to. The first
//! releases of format 1 know nothing of it and read such a commit all the same; the commit's hash covers it.
//! A change without the frame leaves what was known before it; a checkpoint without it knows nothing.

use crate::entry::{Meta, Owner};

/// One of the sixteen numbers that a skippable frame may begin with.
const MAGIC: u32 = 0x184D_2A5D;
/// What the frame holds. Another number was written by a later version, for what this one does not know.
const VERSION: u8 = 1;
/// Version, mode, time, user and group.
const LEN: usize = 1 + 4 + 8 + 4 + 4;
/// Number and length that come before it.
const HEAD: usize = 8;

/// The frame that holds `meta`.
pub(super) fn encode(meta: &Meta) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + LEN);
    frame.extend_from_slice(&MAGIC.to_le_bytes());
    frame.extend_from_slice(&(LEN as u32).to_le_bytes());
    frame.push(VERSION);
    frame.extend_from_slice(&meta.mode.to_le_bytes());
    frame.extend_from_slice(&meta.mtime_ns.to_le_bytes());
    frame.extend_from_slice(&meta.owner.uid.to_le_bytes());
    frame.extend_from_slice(&meta.owner.gid.to_le_bytes());
    frame
}

/// What a commit's content says of the session directory itself, if it does.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn decode(content: &[u8]) -> Result<Option<Meta>, String> {
    let mut rest = content;
    if take(&mut rest).map(u32::from_le_bytes) != Some(MAGIC) {
        return Ok(None);
    }
    let cut = || "its frame of the session directory itself is cut".to_owned();
    let len = take(&mut rest).map(u32::from_le_bytes).ok_or_else(cut)?;
    let mut held = rest.get(..len as usize).ok_or_else(cut)?;
    if held.first() != Some(&VERSION) {
        return Ok(None);
    }
    held = &held[1..];
    let mode = take(&mut held).map(u32::from_le_bytes).ok_or_else(cut)?;
    let mtime_ns = take(&mut held).map(i64::from_le_bytes).ok_or_else(cut)?;
    let uid = take(&mut held).map(u32::from_le_bytes).ok_or_else(cut)?;
    let gid = take(&mut held).map(u32::from_le_bytes).ok_or_else(cut)?;
    if mode & !0o7777 != 0 {
        return Err("the session directory itself has a mode beyond permission bits".to_owned());
    }
    let owner = Owner { uid, gid };
    Ok(Some(Meta {
        mode,
        mtime_ns,
        owner,
    }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_whatever_follows(
            mode in 0u32..0o10000, mtime_ns: i64, uid: u32, gid: u32, after: Vec<u8>
        ) {
            let meta = Meta { mode, mtime_ns, owner: Owner { uid, gid } };
            let mut content = encode(&meta);
            let len = content.len();
            content.extend(after);
            prop_assert_eq!(decode(&content), Ok(Some(meta)));
            for cut in 4..len {
                prop_assert!(decode(&content[..cut]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode(&[&MAGIC.to_le_bytes()[..], &bytes].concat());
        }
    }

    #[test]
    fn contents_without_it_and_what_a_later_version_says_are_passed_over() {
        assert_eq!(decode(&[]), Ok(None));
        let frame = zstd::bulk::compress(b"content", 1).expect("compresses");
        assert_eq!(decode(&frame), Ok(None));
        let meta = Meta {
            mode: 0o700,
            mtime_ns: 1,
            owner: Owner { uid: 1, gid: 2 },
        };
        let mut later = encode(&meta);
        later[HEAD] = VERSION + 1;
        assert_eq!(decode(&later), Ok(None));
        let mut absurd = encode(&meta);
        absurd[HEAD + 4] = 0xff;
        assert!(decode(&absurd).is_err());
        // To zstd it is nothing.
        let both = [encode(&meta), frame].concat();
        assert_eq!(
            zstd::stream::decode_all(&both[..]).expect("decodes"),
            b"content"
        );
    }
}
