//! The session directory's own owner, mode and time, in a commit: one of the frames of [`super::aside`].

use sessionkeep_core::entry::{Meta, Owner};

/// One of the sixteen numbers that a skippable frame may begin with.
pub(super) const MAGIC: u32 = 0x184D_2A5D;
/// What the frame holds. Another number was written by a later version, for what this one does not know.
const VERSION: u8 = 1;
/// Version, mode, time, user and group.
const LEN: usize = 1 + 4 + 8 + 4 + 4;

/// What of the frame with `meta` follows its number and length.
pub(super) fn encode(meta: &Meta) -> Vec<u8> {
    let mut held = Vec::with_capacity(LEN);
    held.push(VERSION);
    held.extend_from_slice(&meta.mode.to_le_bytes());
    held.extend_from_slice(&meta.mtime_ns.to_le_bytes());
    held.extend_from_slice(&meta.owner.uid.to_le_bytes());
    held.extend_from_slice(&meta.owner.gid.to_le_bytes());
    held
}

/// Reads what [`encode`] wrote; `None` where a later version wrote it.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn decode(held: &[u8]) -> Result<Option<Meta>, String> {
    let cut = || "its frame of the session directory itself is cut".to_owned();
    let (&version, mut held) = held.split_first().ok_or_else(cut)?;
    if version != VERSION {
        return Ok(None);
    }
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
