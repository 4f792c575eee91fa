//! Zeros that a restored file need not have on the disk: a file that was sparse stays sparse, and one
//! that was not may become so. Both read the same.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// File systems give out room in blocks of this size, or in multiples of it.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Writes `bytes` at `offset` of a file that holds nothing there yet, leaving out whole blocks of the
/// file that are zeros. The file's length is the caller's to set: what is left out at its end does
/// not make it longer.
///
/// # Errors
/// What the file system said.
pub(super) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut from = 0;
    while let Some(run) = next_run(offset, bytes, from) {
        file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
        from = run.end;
    }
    Ok(())
}

/// How many of `bytes`, which lie at `offset` in their file, take room on a disk: all but whole blocks of
/// zeros.
#[must_use]
pub fn data_len(offset: u64, bytes: &[u8]) -> u64 {
    let (mut len, mut from) = (0, 0);
    while let Some(run) = next_run(offset, bytes, from) {
        len += run.len() as u64;
        from = run.end;
    }
    len
}

/// Whether [`write_at`] leaves out the end of a file with this content.
pub(super) fn ends_with_a_hole(content: &[u8]) -> bool {
    content.len() >= BLOCK
        && content.len().is_multiple_of(BLOCK)
        && content[content.len() - BLOCK..] == ZEROS
}

/// The next range of `bytes` from `from` on to be written: it begins with the first block that holds
/// anything, and ends before the first that does not. `bytes` lie at `offset` in their file.
fn next_run(offset: u64, bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut blocks = Blocks {
        offset,
        len: bytes.len(),
        from,
    };
    // Most files hold no such block: all of it is one run, and the comparison ends at a block's first
    // byte that is not zero.
    let is_hole = |block: &Range<usize>| {
        block.len() == BLOCK && bytes[block.start] == 0 && bytes[block.clone()] == ZEROS
    };
    let first = blocks.find(|block| !is_hole(block))?;
    let end = blocks.find(is_hole).map_or(bytes.len(), |hole| hole.start);
    Some(first.start..end)
}

/// The blocks of a file that a piece of it lies in, as ranges of the piece; the first and the last may
/// be parts of one.
struct Blocks {
    offset: u64,
    len: usize,
    from: usize,
}

impl Iterator for Blocks {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.from >= self.len {
            return None;
        }
        let start = self.from;
        let within = (self.offset + start as u64) % BLOCK as u64;
        let left = BLOCK - usize::try_from(within).expect("less than a block");
        self.from = (start + left).min(self.len);
        Some(start..self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_file_written_in_pieces_in_any_order_reads_as_its_content(
            shape in proptest::collection::vec((any::<bool>(), 1..3 * BLOCK), 0..12),
            piece in 1..3 * BLOCK,
            backwards in any::<bool>(),
        ) {
            let mut content = Vec::new();
            for (zeros, len) in shape {
                content.extend(std::iter::repeat_n(u8::from(!zeros), len));
            }
            let file = tempfile::tempfile().expect("a file");
            file.set_len(content.len() as u64).expect("set its length");
            let mut pieces: Vec<(usize, &[u8])> =
                content.chunks(piece).enumerate().map(|(nth, bytes)| (nth * piece, bytes)).collect();
            if backwards {
                pieces.reverse();
            }
            for (at, bytes) in pieces {
                write_at(&file, at as u64, bytes).expect("write");
            }
            let mut back = vec![7; content.len()];
            file.read_exact_at(&mut back, 0).expect("read");
            prop_assert_eq!(back, content);
        }
    }

    #[test]
    fn only_blocks_that_hold_something_take_room() {
        let file = tempfile::tempfile().expect("a file");
        let mut content = vec![0; 64 * BLOCK];
        content[10 * BLOCK + 5] = 1;
        content[40 * BLOCK] = 1;
        file.set_len(content.len() as u64).expect("set its length");
        for (nth, bytes) in content.chunks(16 * BLOCK).enumerate() {
            write_at(&file, (nth * 16 * BLOCK) as u64, bytes).expect("write");
        }
        file.sync_all().expect("sync");
        let room = file.metadata().expect("stat").blocks() * 512;
        assert!(room <= 16 * BLOCK as u64, "{room} bytes are on the disk");
    }
}
