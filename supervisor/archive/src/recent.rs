//! What a writer has committed since the last checkpoint, but for the contents: so that its next
//! checkpoint need not read the whole chain back to learn what it has written itself.

use std::collections::VecDeque;

use super::aside::Aside;
use super::format::{BodyView, PlaceView};
use super::links::Links;
use sessionkeep_core::entry::Digest;
use sessionkeep_core::record::{Record, RecordKind, Seq};

/// Listings are kept up to this much, compressed; of a longer chain the newer part. They are a
/// hundredth of what the commits hold.
const KEPT_MAX: usize = 256 << 10;

/// A commit without its content.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) seq: Seq,
    /// Digest of the commit before it.
    pub(super) parent: Digest,
    /// Length of the listing before compression, and the listing; `None` for a barrier.
    pub(super) listing: Option<(u64, Box<[u8]>)>,
    /// What it says besides its entries.
    pub(super) aside: Aside,
}

impl Kept {
    fn size(&self) -> usize {
        let listing = self.listing.as_ref().map_or(0, |(_, packed)| packed.len());
        let links = self.aside.links.as_ref().map_or(0, Links::size);
        size_of::<Self>() + listing + links
    }
}

/// The newest commits of a chain, without a gap up to its head.
#[derive(Debug, Default)]
pub(super) struct Recent {
    commits: VecDeque<Kept>,
    bytes: usize,
}

impl Recent {
    /// The first one that is kept, if any is.
    pub(super) fn first(&self) -> Option<&Kept> {
        self.commits.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.commits.iter()
    }

    /// Takes note of a commit that is in the store now.
    pub(super) fn note(&mut self, record: &Record) {
        let header = &record.header;
        let (listing, aside) = match header.kind {
            RecordKind::Checkpoint => return self.forget(),
            RecordKind::Barrier => (None, Aside::default()),
            RecordKind::Change => match BodyView::decode(&record.body) {
                Ok(BodyView {
                    listing: PlaceView::Here { raw_len, packed },
                    content,
                }) => match Aside::decode(content) {
                    Ok(aside) => (Some((raw_len, packed.into())), aside),
                    Err(_) => return self.forget(),
                },
                // One so long that it is in a pack; what comes after it can be kept again.
                _ => return self.forget(),
            },
        };
        let commit = Kept {
            seq: header.seq,
            parent: header.parent,
            listing,
            aside,
        };
        self.bytes += commit.size();
        self.commits.push_back(commit);
        while self.bytes > KEPT_MAX
            && let Some(oldest) = self.commits.pop_front()
        {
            self.bytes -= oldest.size();
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}
