//! The hash of a file whose pieces come in any order, from as little as can be kept.
//!
//! As in [`super::blocks`], the hash follows from the chaining values of BLAKE3's own tree. Here
//! nobody asks afterwards which block is which, so two halves of a subtree become one value as soon
//! as both are known: a file that comes in order takes a few dozen values, whatever its size. And a
//! piece is hashed in the largest subtrees that it covers, not block by block, which is what BLAKE3
//! is fast at: it then works on many chunks at once.

use std::collections::HashMap;

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use sessionkeep_core::entry::Digest;

/// BLAKE3's leaves: no piece can be told from another below this.
const CHUNK: u64 = blake3::CHUNK_LEN as u64;

/// What is known of a file so far.
#[derive(Debug)]
pub(super) struct Subtrees {
    size: u64,
    /// Subtrees that are known while the other half of the one above is not, by begin and end.
    known: HashMap<(u64, u64), ChainingValue>,
}

/// A piece begins or ends where no chunk does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misaligned;

/// What a subtree is.
enum Node {
    /// Not all of it has come.
    Open,
    Inner(ChainingValue),
    Root(Digest),
}

impl Subtrees {
    /// For a file of `size` bytes of which nothing is known yet.
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            known: HashMap::new(),
        }
    }

    /// Takes the piece at `offset`. Gives the file's hash once all of it has come. Pieces begin
    /// and end at multiples of 1024 bytes, or at the file's end.
    pub(super) fn piece(
        &mut self,
        offset: u64,
        content: &[u8],
    ) -> Result<Option<Digest>, Misaligned> {
        let end = offset + content.len() as u64;
        if content.is_empty() || end > self.size {
            return Err(Misaligned);
        }
        match self.visit(0, self.size, offset, content)? {
            Node::Root(digest) => Ok(Some(digest)),
            Node::Open | Node::Inner(_) => Ok(None),
        }
    }

    /// How many values are kept.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.known.len()
    }

    /// The subtree of the bytes from `from` to `to`, of which the piece brings some.
    fn visit(
        &mut self,
        from: u64,
        to: u64,
        offset: u64,
        content: &[u8],
    ) -> Result<Node, Misaligned> {
        let is_root = (from, to) == (0, self.size);
        let end = offset + content.len() as u64;
        if offset <= from && to <= end {
            let at = |place: u64| usize::try_from(place - offset).expect("lies in the piece");
            let bytes = &content[at(from)..at(to)];
            return Ok(if is_root {
                Node::Root(Digest::of(bytes))
            } else {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(from).update(bytes);
                Node::Inner(hasher.finalize_non_root())
            });
        }
        if to - from <= CHUNK {
            return Err(Misaligned);
        }
        let middle = from + hazmat::left_subtree_len(to - from);
        let left = self.half(from, middle, offset, content)?;
        let right = self.half(middle, to, offset, content)?;
        Ok(match (left, right) {
            (Some(left), Some(right)) if is_root => {
                Node::Root(hazmat::merge_subtrees_root(&left, &right, Mode::Hash).into())
            }
            (Some(left), Some(right)) => {
                Node::Inner(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
            }
            (left, right) => {
                self.known.extend(left.map(|value| ((from, middle), value)));
                self.known.extend(right.map(|value| ((middle, to), value)));
                Node::Open
            }
        })
    }

    /// One half of a subtree: from the piece where that reaches into it, else from what is known.
    fn half(
        &mut self,
        from: u64,
        to: u64,
        offset: u64,
        content: &[u8],
    ) -> Result<Option<ChainingValue>, Misaligned> {
        if to <= offset || offset + content.len() as u64 <= from {
            return Ok(self.known.remove(&(from, to)));
        }
        match self.visit(from, to, offset, content)? {
            Node::Inner(value) => Ok(Some(value)),
            Node::Open => Ok(None),
            Node::Root(_) => unreachable!("a half is not the whole"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8 ^ (i >> 8) as u8).collect()
    }

    /// Cuts a file at multiples of 4 KiB.
    fn pieces(len: usize, lens: &[usize]) -> Vec<(usize, usize)> {
        let (mut at, mut out) = (0, Vec::new());
        for take in lens.iter().cycle() {
            if at >= len {
                break;
            }
            let end = (at + take * 4096).min(len);
            out.push((at, end));
            at = end;
        }
        out
    }

    proptest! {
        #[test]
        fn the_hash_is_the_files_whatever_the_order(
            len in 1usize..400_000,
            lens in prop::collection::vec(1usize..20, 1..6),
            seed in any::<u64>(),
        ) {
            let content = content(len);
            let mut pieces = pieces(len, &lens);
            // A shuffle of its own, so that every order can come.
            let mut state = seed | 1;
            for i in (1..pieces.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                pieces.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut subtrees = Subtrees::new(len as u64);
            let last = pieces.len() - 1;
            for (n, (from, to)) in pieces.into_iter().enumerate() {
                let hash = subtrees.piece(from as u64, &content[from..to]).expect("aligned");
                prop_assert_eq!(hash.is_some(), n == last);
                if n == last {
                    prop_assert_eq!(hash, Some(Digest::of(&content)));
                }
            }
            prop_assert_eq!(subtrees.kept(), 0);
        }
    }

    #[test]
    fn a_file_that_comes_in_order_takes_a_few_values() {
        let content = content(1 << 22);
        let mut subtrees = Subtrees::new(content.len() as u64);
        for (n, block) in content.chunks(4096).enumerate() {
            subtrees.piece(n as u64 * 4096, block).expect("aligned");
            assert!(subtrees.kept() <= 10, "{} values", subtrees.kept());
        }
    }

    #[test]
    fn what_is_not_aligned_or_lies_beyond_the_end_is_refused() {
        let content = content(20_000);
        let mut subtrees = Subtrees::new(20_000);
        assert_eq!(subtrees.piece(100, &content[100..4096]), Err(Misaligned));
        assert_eq!(subtrees.piece(0, &content[..5000]), Err(Misaligned));
        assert_eq!(subtrees.piece(19_456, &content[..545]), Err(Misaligned));
        assert_eq!(subtrees.piece(0, &[]), Err(Misaligned));
    }
}
