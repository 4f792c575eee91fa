//! What a commit says besides its entries: frames of their own before all others of its content.
//!
//! They are zstd's skippable frames (RFC 8878, section 3.1.2), which no extent refers to. Releases that
//! know nothing of one pass over it; the commit's hash covers it. What a change does not say stays as
//! it was known before; what a checkpoint does not say is not known.

use sessionkeep_core::entry::Meta;

use super::links::{self, Links};
use super::own;

/// The numbers that a skippable frame may begin with are these sixteen.
const SKIPPABLE: u32 = 0x184D_2A50;
const SKIPPABLE_MASK: u32 = 0xFFFF_FFF0;

/// What is known besides the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aside {
    /// The session directory's own metadata.
    pub own: Option<Meta>,
    /// Which files are one file under several names.
    pub links: Option<Links>,
}

impl Aside {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.links.is_none()
    }

    /// Takes in what a later commit says.
    pub fn update(&mut self, later: &Self) {
        self.own = later.own.or(self.own);
        if later.links.is_some() {
            self.links.clone_from(&later.links);
        }
    }

    /// Its frames.
    pub(super) fn encode(&self) -> Vec<u8> {
        let own = self.own.map(|own| (own::MAGIC, own::encode(&own)));
        let links = self.links.as_ref();
        let links = links.map(|links| (links::MAGIC, links.encode()));
        let mut frames = Vec::new();
        for (magic, held) in own.into_iter().chain(links) {
            frames.extend_from_slice(&magic.to_le_bytes());
            frames.extend_from_slice(&(held.len() as u32).to_le_bytes());
            frames.extend(held);
        }
        frames
    }

    /// What a commit's content says besides its entries.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(content: &[u8]) -> Result<Self, String> {
        let mut aside = Self::default();
        let mut rest = content;
        while let Some((magic, after)) = number(rest)
            && magic & SKIPPABLE_MASK == SKIPPABLE
        {
            let cut = || "a frame before its contents is cut".to_owned();
            let (len, after) = number(after).ok_or_else(cut)?;
            let held;
            (held, rest) = after.split_at_checked(len as usize).ok_or_else(cut)?;
            match magic {
                own::MAGIC => aside.own = own::decode(held)?.or(aside.own),
                links::MAGIC => aside.links = Links::decode(held)?.or(aside.links),
                _ => {}
            }
        }
        Ok(aside)
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use sessionkeep_core::entry::{Owner, RelPath};

    use super::*;

    fn aside() -> impl Strategy<Value = Aside> {
        let own = (0u32..0o10000, any::<i64>(), any::<u32>(), any::<u32>()).prop_map(
            |(mode, mtime_ns, uid, gid)| Meta {
                mode,
                mtime_ns,
                owner: Owner { uid, gid },
            },
        );
        let names = prop::collection::btree_map("[a-e]{1,3}", 0u64..4, 0..20);
        let links = names.prop_map(|names| {
            let path = |name: String| RelPath::new(name).expect("a path");
            Links::of(names.into_iter().map(|(name, file)| (file, path(name))))
        });
        (prop::option::of(own), prop::option::of(links))
            .prop_map(|(own, links)| Aside { own, links })
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_whatever_follows(aside in aside(), after: Vec<u8>) {
            let mut content = aside.encode();
            let len = content.len();
            content.extend(&after);
            // What follows begins with a frame, whose number is zstd's own.
            if number(&after).is_none_or(|(magic, _)| magic & SKIPPABLE_MASK != SKIPPABLE) {
                prop_assert_eq!(Aside::decode(&content), Ok(aside.clone()));
            }
            for cut in 1..len {
                let read = Aside::decode(&content[..cut]);
                prop_assert!(read != Ok(aside.clone()), "cut at {} of {}", cut, len);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Aside::decode(&bytes);
            for magic in [own::MAGIC, links::MAGIC, SKIPPABLE] {
                let _ = Aside::decode(&[&magic.to_le_bytes()[..], &bytes].concat());
            }
        }
    }

    #[test]
    fn contents_without_it_and_what_a_later_version_says_are_passed_over() {
        assert_eq!(Aside::decode(&[]), Ok(Aside::default()));
        let frame = zstd::bulk::compress(b"content", 1).expect("compresses");
        assert_eq!(Aside::decode(&frame), Ok(Aside::default()));
        let meta = Meta {
            mode: 0o700,
            mtime_ns: 1,
            owner: Owner { uid: 1, gid: 2 },
        };
        let links = Links::of(
            [1, 1]
                .into_iter()
                .zip(["a", "b"].map(|name| RelPath::new(name).expect("a path"))),
        );
        let aside = Aside {
            own: Some(meta),
            links: Some(links),
        };
        let frames = aside.encode();
        // A frame of another number before it, and versions that are not known.
        let mut unknown = SKIPPABLE.to_le_bytes().to_vec();
        unknown.extend(3u32.to_le_bytes());
        unknown.extend(b"abc");
        let read = Aside::decode(&[unknown, frames.clone()].concat());
        assert_eq!(read, Ok(aside.clone()));
        let mut later = frames.clone();
        later[8] += 1;
        let read = Aside::decode(&later).expect("reads");
        assert_eq!((read.own, read.links.is_some()), (None, true));
        let mut absurd = frames.clone();
        absurd[7] = 0xff;
        assert!(Aside::decode(&absurd).is_err());
        // To zstd it is nothing.
        let both = [frames, frame].concat();
        assert_eq!(
            zstd::stream::decode_all(&both[..]).expect("decodes"),
            b"content"
        );
    }

    #[test]
    fn what_a_later_commit_does_not_say_stays() {
        let links = |a: &str, b: &str| {
            let path = |name: &str| RelPath::new(name).expect("a path");
            Some(Links::of([(1, path(a)), (1, path(b))]))
        };
        let mut known = Aside {
            own: None,
            links: links("a", "b"),
        };
        known.update(&Aside::default());
        assert_eq!(known.links, links("a", "b"));
        known.update(&Aside {
            own: None,
            links: Some(Links::default()),
        });
        assert_eq!(known.links, Some(Links::default()));
    }
}
