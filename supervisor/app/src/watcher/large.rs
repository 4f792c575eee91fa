//! Reads a large file for a commit, block by block, of which only changed ones are committed.

use super::files::unread;
use super::gathered::{Blocks, Pass};
use super::outcome::{FileOutcome, carry};
use sessionkeep_archive::Result;
use sessionkeep_archive::blocks::{BlockMap, BlockReader, LARGE_BLOCK};
use sessionkeep_archive::builder::Builder;
use sessionkeep_core::entry::Digest;
use sessionkeep_session::{Directory, Fingerprint, Form, FormReader, Found, stable};

/// What has no reader was never JSON, nor a database.
const OTHER: Option<Form> = Some(Form::Broken);

/// A large file to be read.
pub(super) struct Large<'a> {
    pub(super) directory: &'a Directory,
    pub(super) found: &'a Found,
    /// Size and hash of what is committed.
    pub(super) known: Option<(u64, Digest)>,
    /// Its blocks, where they are known.
    pub(super) before: Option<&'a BlockMap>,
    /// Where its form tells whether it may be committed.
    pub(super) reader: Option<FormReader>,
}

/// What reading it came to.
pub(super) enum Read {
    Outcome(FileOutcome),
    /// It was read, and what it is must not be committed.
    Held(FileOutcome),
}

/// Says what is to become of a file of this form, where it is not to be committed.
type Judge<'j> = &'j mut dyn FnMut((Form, Fingerprint)) -> Option<FileOutcome>;

impl Large<'_> {
    /// Reads it and adds what differs to the commit, unless `judge` objects to its form.
    pub(super) fn read(self, pass: Pass, builder: &mut Builder, judge: Judge<'_>) -> Result<Read> {
        if let Some(same) = self.as_committed() {
            return Ok(Read::Outcome(same));
        }
        let (dir, path) = (self.directory.fd(), self.found.path.as_bytes());
        let mut reader = self.reader;
        let mut file = builder.begin_blocks(&self.found.path, LARGE_BLOCK, self.before);
        let mut failure = None;
        let mut each = |_: u64, block: &[u8]| {
            if let Some(reader) = &mut reader {
                reader.feed(block);
            }
            carry(file.feed(builder, block), &mut failure)
        };
        let read = stable::read_blocks(dir, path, LARGE_BLOCK as usize, &mut each);
        if let Some(error) = failure {
            return Err(error);
        }
        let (print, meta) = match read {
            Ok(read) => read,
            Err(error) => {
                file.abandon(builder);
                return Ok(Read::Outcome(unread(error, pass)));
            }
        };
        let form = reader.map(FormReader::finish);
        if let Some(held) = form.and_then(|form| judge((form, print))) {
            file.abandon(builder);
            return Ok(Read::Held(held));
        }
        let print = with_sidecars(print, self.found);
        let ended = file.finish(builder, meta, self.known)?;
        let outcome = FileOutcome::of_blocks(ended, meta, print, None, form.or(OTHER));
        Ok(Read::Outcome(outcome))
    }

    /// As for databases: where its blocks are not known it is likely the committed content, and is looked
    /// at before anything of it is sent.
    fn as_committed(&self) -> Option<FileOutcome> {
        let (None, Some(known)) = (self.before, self.known) else {
            return None;
        };
        let (dir, path) = (self.directory.fd(), self.found.path.as_bytes());
        let mut blocks = BlockReader::new(LARGE_BLOCK, None);
        let mut reader = self
            .reader
            .as_ref()
            .map(|_| FormReader::of(&self.found.path));
        let mut each = |_: u64, block: &[u8]| {
            if let Some(reader) = &mut reader {
                reader.feed(block);
            }
            blocks.feed(block, |_, _, _| Ok(()))
        };
        let read = stable::read_blocks(dir, path, LARGE_BLOCK as usize, &mut each);
        let map = blocks
            .finish(|_, _, _| Ok::<_, ()>(()))
            .expect("nothing in it fails");
        let (print, meta) = read.ok().filter(|_| known == (map.size(), map.hash()))?;
        Some(FileOutcome::Same {
            meta,
            blocks: Blocks::keep(map, None),
            print: with_sidecars(print, self.found),
            form: reader.map(FormReader::finish).or(OTHER),
        })
    }
}

/// What was read has no sidecars in its fingerprint; see `Found`.
fn with_sidecars(print: Fingerprint, found: &Found) -> Fingerprint {
    Fingerprint {
        sidecars: found.print.sidecars,
        ..print
    }
}
