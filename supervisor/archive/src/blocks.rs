//! The hash of a large file, block by block.
//!
//! BLAKE3 is a Merkle tree itself: the hash of a file follows from the chaining values of its
//! blocks (section 2.1 of the BLAKE3 paper; `blake3::hazmat`). Keeping those, 32 bytes a block, tells
//! which blocks of a new version differ, gives the new version's ordinary BLAKE3 hash from the
//! changed blocks alone, and lets pieces be verified in whatever order they arrive.

use blake3::hazmat::{self, HasherExt, Mode};

use sessionkeep_core::entry::Digest;

/// Block size for SQLite databases: their usual page size.
pub const PAGE_BLOCK: u32 = 4 * 1024;
/// Block size for other large files.
pub const LARGE_BLOCK: u32 = 64 * 1024;

/// So many blocks make a group, whose own chaining value is kept, and so many groups a group of the
/// next level: a few changed blocks of a large file then cost their groups, and not every node of
/// the tree. A power of two, so that a group that is full is a subtree.
const GROUP: usize = 16;
/// How many levels of groups there are. Above them are few nodes, of however large a file.
const LEVELS: usize = 3;

/// How many blocks a group of each level has.
const GROUP_SIZES: [usize; LEVELS] = [GROUP, GROUP.pow(2), GROUP.pow(3)];

/// The chaining values of a file's blocks.
#[derive(Debug, Clone)]
pub struct BlockMap {
    block: u32,
    size: u64,
    values: Vec<[u8; 32]>,
    /// Of each full group, level by level, once it is known; see [`BlockMap::settle`].
    groups: [Vec<Option<[u8; 32]>>; LEVELS],
    /// The hash of a file that fits one block: a root is finalized differently from a subtree.
    single: Option<Digest>,
}

impl PartialEq for BlockMap {
    fn eq(&self, other: &Self) -> bool {
        // What is known of the groups follows from the blocks.
        (self.block, self.size, self.single, &self.values)
            == (other.block, other.size, other.single, &other.values)
    }
}

impl Eq for BlockMap {}

/// How a block relates to the one known at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockChange {
    /// The same content as before.
    Same,
    /// New or changed.
    Different,
}

impl BlockMap {
    /// The map of a file of `size` bytes of which nothing is known yet.
    ///
    /// `block` is a power of two and at least BLAKE3's chunk of 1024 bytes.
    #[must_use]
    pub fn new(block: u32, size: u64) -> Self {
        debug_assert!(block.is_power_of_two() && block >= 1024);
        let mut map = Self {
            block,
            size: 0,
            values: Vec::new(),
            groups: [const { Vec::new() }; LEVELS],
            single: None,
        };
        map.resize(size);
        map
    }

    /// Sets the file's size; blocks that come into being are unknown, those beyond are forgotten.
    pub fn resize(&mut self, size: u64) {
        let count = usize::try_from(size.div_ceil(u64::from(self.block))).unwrap_or(usize::MAX);
        // A last group that was cut or not full is another one now.
        let kept = count.min(self.values.len());
        for (groups, size) in self.groups.iter_mut().zip(GROUP_SIZES) {
            groups.truncate(kept / size);
            groups.resize(count / size, None);
        }
        self.values.resize(count, [0; 32]);
        self.size = size;
        if size == 0 {
            self.single = Some(Digest::of(&[]));
        }
    }

    /// A copy for another size of the file, with no more memory than it needs: growing a copy would
    /// take as much again, at each commit of a database that grows.
    #[must_use]
    pub fn resized(&self, size: u64) -> Self {
        let count = usize::try_from(size.div_ceil(u64::from(self.block))).unwrap_or(usize::MAX);
        let kept = &self.values[..count.min(self.values.len())];
        let mut values = Vec::with_capacity(count);
        values.extend_from_slice(kept);
        let mut map = Self {
            values,
            groups: self.groups.clone(),
            ..*self
        };
        map.resize(size);
        map
    }

    /// The block size in bytes.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the content of the block at `offset`, and says whether it differs from the block that
    /// `before` has there. Only the file's last block may be shorter than a block.
    pub fn set(&mut self, offset: u64, content: &[u8], before: Option<&BlockMap>) -> BlockChange {
        let at = self.at(offset);
        let value = self.value(offset, content);
        // A shorter last block has another chaining value anyhow, unless it is empty.
        let same =
            before.is_some_and(|map| map.block == self.block && map.values.get(at) == Some(&value));
        self.keep(at, value, content);
        if same {
            BlockChange::Same
        } else {
            BlockChange::Different
        }
    }

    /// As [`BlockMap::set`], compared with what this map itself has at that place.
    pub fn replace(&mut self, offset: u64, content: &[u8]) -> BlockChange {
        let at = self.at(offset);
        let value = self.value(offset, content);
        let same = self.values.get(at) == Some(&value);
        self.keep(at, value, content);
        if same {
            BlockChange::Same
        } else {
            BlockChange::Different
        }
    }

    fn at(&self, offset: u64) -> usize {
        usize::try_from(offset / u64::from(self.block)).unwrap_or(usize::MAX)
    }

    fn value(&self, offset: u64, content: &[u8]) -> [u8; 32] {
        debug_assert!(
            offset.is_multiple_of(u64::from(self.block)) && content.len() <= self.block as usize
        );
        blake3::Hasher::new()
            .set_input_offset(offset)
            .update(content)
            .finalize_non_root()
    }

    fn keep(&mut self, at: usize, value: [u8; 32], content: &[u8]) {
        self.single = (self.size <= u64::from(self.block)).then(|| Digest::of(content));
        let Some(slot) = self.values.get_mut(at) else {
            return;
        };
        if std::mem::replace(slot, value) == value {
            return;
        }
        for (groups, size) in self.groups.iter_mut().zip(GROUP_SIZES) {
            if let Some(group) = groups.get_mut(at / size) {
                *group = None;
            }
        }
    }

    /// Computes what is not known of the groups, so that this map and those that are made from it
    /// have their hash from few nodes.
    pub fn settle(&mut self) {
        // From the smallest, which those above are made of.
        for (level, size) in GROUP_SIZES.into_iter().enumerate() {
            for at in 0..self.groups[level].len() {
                if self.groups[level][at].is_none() {
                    let from = at * size;
                    self.groups[level][at] = Some(self.subtree(from, from + size));
                }
            }
        }
    }

    /// The BLAKE3 hash of the whole file, once every block was set.
    #[must_use]
    pub fn hash(&self) -> Digest {
        if self.values.len() <= 1 {
            return self.single.unwrap_or_default();
        }
        let split = self.split(self.values.len());
        let left = self.subtree(0, split);
        let right = self.subtree(split, self.values.len());
        hazmat::merge_subtrees_root(&left, &right, Mode::Hash).into()
    }

    /// BLAKE3's left subtree holds the largest power of two of chunks that leaves something for the
    /// right one; with blocks of a power of two of chunks, the same holds for blocks.
    fn split(&self, count: usize) -> usize {
        count.next_power_of_two() / 2
    }

    fn subtree(&self, from: usize, to: usize) -> [u8; 32] {
        if to - from == 1 {
            return self.values[from];
        }
        // Groups are aligned, and so is every left half: only whole groups can match.
        for (groups, size) in self.groups.iter().zip(GROUP_SIZES) {
            if to - from == size
                && let Some(Some(known)) = groups.get(from / size)
            {
                return *known;
            }
        }
        let split = from + self.split(to - from);
        hazmat::merge_subtrees_non_root(
            &self.subtree(from, split),
            &self.subtree(split, to),
            Mode::Hash,
        )
    }
}

/// Cuts a file that comes in portions of any size into blocks, and maps them.
#[derive(Debug)]
pub struct BlockReader<'b> {
    map: BlockMap,
    before: Option<&'b BlockMap>,
    /// What has come of the block that is being filled.
    pending: Vec<u8>,
    end: u64,
}

impl<'b> BlockReader<'b> {
    /// For blocks of `block` bytes, compared with those of `before`.
    #[must_use]
    pub fn new(block: u32, before: Option<&'b BlockMap>) -> Self {
        Self {
            map: BlockMap::new(block, 0),
            before,
            pending: Vec::new(),
            end: 0,
        }
    }

    /// Takes the next bytes of the file; `each` gets every block that they complete, with its
    /// offset and whether it differs.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn feed<E>(
        &mut self,
        mut content: &[u8],
        mut each: impl FnMut(u64, &[u8], BlockChange) -> Result<(), E>,
    ) -> Result<(), E> {
        let block = self.map.block() as usize;
        while !content.is_empty() {
            let take = (block - self.pending.len()).min(content.len());
            let (now, rest) = content.split_at(take);
            content = rest;
            if take == block {
                self.block(now, &mut each)?;
                continue;
            }
            self.pending.extend_from_slice(now);
            if self.pending.len() == block {
                let mut whole = std::mem::take(&mut self.pending);
                self.block(&whole, &mut each)?;
                whole.clear();
                self.pending = whole;
            }
        }
        Ok(())
    }

    /// The file is complete. `each` gets its last block, if that was not a whole one.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn finish<E>(
        mut self,
        mut each: impl FnMut(u64, &[u8], BlockChange) -> Result<(), E>,
    ) -> Result<BlockMap, E> {
        if !self.pending.is_empty() {
            let last = std::mem::take(&mut self.pending);
            self.block(&last, &mut each)?;
        }
        Ok(self.map)
    }

    fn block<E>(
        &mut self,
        content: &[u8],
        each: &mut impl FnMut(u64, &[u8], BlockChange) -> Result<(), E>,
    ) -> Result<(), E> {
        let offset = self.end;
        self.end += content.len() as u64;
        // A file of one block needs to know that it is one; growing keeps what was set.
        self.map.resize(self.end);
        let change = self.map.set(offset, content, self.before);
        each(offset, content, change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map_of(content: &[u8], block: u32) -> BlockMap {
        let mut map = BlockMap::new(block, content.len() as u64);
        // In an order that no file is read in: the hash must not depend on it.
        for (at, part) in content
            .chunks(block as usize)
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let _ = map.set(at as u64 * u64::from(block), part, None);
        }
        map
    }

    proptest! {
        #[test]
        fn the_hash_is_the_plain_blake3_of_the_file(len in 0usize..200_000, seed in any::<u8>()) {
            let content: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ ((i >> 8) as u8)).collect();
            for block in [1024, 4096, 65536] {
                prop_assert_eq!(map_of(&content, block).hash(), Digest::of(&content));
            }
        }

        #[test]
        fn portions_do_not_matter(len in 0usize..40_000, portions in prop::collection::vec(1usize..9000, 1..12)) {
            let content: Vec<u8> = (0..len).map(|i| (i % 249) as u8).collect();
            let mut reader = BlockReader::new(4096, None);
            let (mut rest, mut seen) = (&content[..], Vec::new());
            for portion in portions.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(portion.min(rest.len()));
                rest = later;
                reader.feed::<()>(now, |_, block, _| { seen.extend_from_slice(block); Ok(()) }).expect("no errors");
            }
            let map = reader.finish::<()>(|_, block, _| { seen.extend_from_slice(block); Ok(()) }).expect("no errors");
            prop_assert_eq!(&seen, &content);
            prop_assert_eq!(map, map_of(&content, 4096));
        }

        #[test]
        fn what_is_known_of_groups_never_changes_the_hash(
            sizes in prop::collection::vec(0u64..600, 1..8),
            changed in prop::collection::vec((0usize..600, any::<u8>()), 0..40),
        ) {
            let mut map = BlockMap::new(1024, 0);
            let mut content: Vec<u8> = Vec::new();
            let mut changed = changed.into_iter().cycle().take(60);
            for size in sizes {
                // Not always whole blocks, and as often cut as grown.
                let size = size * 1000;
                let (from, old) = (content.len() / 1024, content.len());
                content.resize(size as usize, 7);
                let resized = map.resized(size);
                map.resize(size);
                prop_assert_eq!(&resized, &map);
                prop_assert_eq!(&resized.groups, &map.groups);
                map = resized;
                let mut dirty: Vec<usize> = (from.min(content.len() / 1024)..content.len().div_ceil(1024)).collect();
                if content.len() < old {
                    dirty.extend(content.len().div_ceil(1024).checked_sub(1));
                }
                for (at, byte) in changed.by_ref().take(10) {
                    if let Some(slot) = content.get_mut(at * 1024) {
                        *slot = byte;
                        dirty.push(at);
                    }
                }
                for at in dirty {
                    let end = content.len().min((at + 1) * 1024);
                    let _ = map.replace(at as u64 * 1024, &content[at * 1024..end]);
                }
                prop_assert_eq!(map.hash(), Digest::of(&content));
                map.settle();
                prop_assert_eq!(map.hash(), Digest::of(&content));
            }
        }

        #[test]
        fn exactly_the_changed_blocks_differ(blocks in 1usize..40, changed in prop::collection::btree_set(0usize..40, 0..10), cut in 0usize..4096) {
            let old: Vec<u8> = (0..blocks * 4096 - cut.min(4095)).map(|i| (i % 251) as u8).collect();
            let mut new = old.clone();
            let changed: Vec<usize> = changed.into_iter().filter(|c| c * 4096 < new.len()).collect();
            for c in &changed {
                new[c * 4096] ^= 1;
            }
            let before = map_of(&old, 4096);
            let mut after = BlockMap::new(4096, new.len() as u64);
            let mut found = Vec::new();
            for (at, part) in new.chunks(4096).enumerate() {
                if after.set(at as u64 * 4096, part, Some(&before)) == BlockChange::Different {
                    found.push(at);
                }
            }
            prop_assert_eq!(found, changed);
            prop_assert_eq!(after.hash(), Digest::of(&new));
        }
    }

    #[test]
    fn groups_of_every_level_are_made_anew_where_something_changed() {
        let blocks = GROUP_SIZES[LEVELS - 1] * 2 + GROUP + 3;
        let mut content: Vec<u8> = (0..blocks * 1024).map(|i| (i >> 10) as u8).collect();
        let mut map = map_of(&content, 1024);
        map.settle();
        assert_eq!(map.hash(), Digest::of(&content));
        for at in [
            0,
            GROUP - 1,
            GROUP,
            GROUP_SIZES[2] - 1,
            GROUP_SIZES[2],
            blocks - 1,
        ] {
            content[at * 1024] ^= 1;
            let _ = map.replace(at as u64 * 1024, &content[at * 1024..(at + 1) * 1024]);
            assert_eq!(map.hash(), Digest::of(&content), "{at}");
            map.settle();
            assert_eq!(map.hash(), Digest::of(&content), "{at}");
        }
    }

    #[test]
    fn growing_and_shrinking_give_the_right_hash() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
        for len in [0, 1, 1024, 4095, 4096, 4097, 8192, 65536, 65537, 99_999] {
            assert_eq!(
                map_of(&content[..len], 4096).hash(),
                Digest::of(&content[..len]),
                "{len}"
            );
        }
    }
}
