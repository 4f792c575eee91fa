//! Bytes that came in several pieces, and are looked at as if they were one.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

/// Bytes in pieces.
#[derive(Debug, Default)]
pub struct Pieces(Vec<Bytes>);

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        Self(vec![whole])
    }
}

impl Pieces {
    /// The bytes in `range`, copied only where they lie in more than one piece; `None` where there
    /// are not so many.
    pub fn get(&self, range: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let (mut from, mut left) = (range.start, range.end.checked_sub(range.start)?);
        let mut joined = Vec::new();
        for piece in &self.0 {
            if from >= piece.len() && !(left == 0 && from == piece.len()) {
                from -= piece.len();
                continue;
            }
            let here = &piece[from..];
            if joined.is_empty() && here.len() >= left {
                return Some(Cow::Borrowed(&here[..left]));
            }
            let take = here.len().min(left);
            joined.extend_from_slice(&here[..take]);
            (from, left) = (0, left - take);
            if left == 0 {
                return Some(Cow::Owned(joined));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_as_good_as_one(
            content in prop::collection::vec(any::<u8>(), 0..60),
            lens in prop::collection::vec(1usize..20, 1..8),
            from in 0usize..70,
            len in 0usize..70,
        ) {
            let mut pieces = Vec::new();
            let mut rest = &content[..];
            for len in lens.iter().cycle() {
                let (piece, after) = rest.split_at((*len).min(rest.len()));
                pieces.push(Bytes::copy_from_slice(piece));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let pieces = Pieces::from(pieces);
            let got = pieces.get(from..from + len);
            prop_assert_eq!(got.as_deref(), content.get(from..from + len));
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_holds_nothing() {
        let pieces = Pieces::from(Bytes::from_static(b"abc"));
        assert_eq!(pieces.get(Range { start: 2, end: 1 }), None);
    }
}
