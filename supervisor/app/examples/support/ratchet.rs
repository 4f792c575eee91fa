//! The example gateway's ratchet: a chain of hashes that only moves forward, as Signal's do.
//!
//! The gateway keeps only the newest key of each chain. Whoever knows the identity can compute
//! the chain anew, so the demo can tell whether a restored key is the right one for its counter.

/// The key that a conversation begins with.
pub(crate) fn first_key(identity: &str, peer: &str) -> [u8; 32] {
    blake3::derive_key(
        "sessionkeep example gateway, first chain key",
        format!("{identity}/{peer}").as_bytes(),
    )
}

/// The key that follows. There is no way back from it.
pub(crate) fn next_key(key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("sessionkeep example gateway, next chain key", key)
}
