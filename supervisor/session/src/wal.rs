//! Which pages of a database in WAL mode changed between two moments: read from its write-ahead log.
//!
//! A database changes by frames that its writers append to the log, each a page and a checksum that
//! continues the one before it (<https://sqlite.org/fileformat2.html#the_write_ahead_log>). When all
//! of them are in the database, a writer begins the log anew from its start, under another salt.
//! What was appended to the old log since we looked then still lies behind what the new one has
//! overwritten, unless that is more.
//!
//! Nothing here is guessed. The header of the WAL index counts transactions and says where in
//! which log a reader stands (<https://sqlite.org/walformat.html>, section 2.1). The pages are only
//! told where the frames that were found make up every transaction between the two moments, and end
//! with the very checksum that the later one names. In every other case the answer is that it is
//! not known, and the whole database has to be read.
//!
//! A log that nothing was written to has no such header. Then it is the database's own file that shows
//! that nothing can have gone past the log: it has not been written to since (`Untouched`).
//!
//! Opening and closing the log drops no lock: SQLite's locks are on the database and its `-shm`.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// How much of the log is read at a time, at least one frame.
const READ: usize = 64 << 10;

/// How many pages by which a database has grown may not be in its log. Beyond that it is not known what
/// changed: listing what the index claims could take 16 GiB.
const UNWRITTEN_MAX: usize = 4096;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl From<&Metadata> for Identity {
    fn from(of: &Metadata) -> Self {
        Self(of.dev(), of.ino())
    }
}

/// A database's file as it was when nothing was in its log: by size and times, which a checkpoint
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Untouched {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Untouched {
    fn from(of: &Metadata) -> Self {
        Self {
            size: of.size(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

/// Files are stamped with the time of the kernel's last tick. One that was written longer ago than
/// this, and is written again, gets another time.
const TICK: Duration = Duration::from_millis(50);

/// A moment of a database in WAL mode: what a read transaction sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalPosition {
    database: Identity,
    log: Identity,
    /// How many transactions were committed since the index was made; it wraps around.
    transactions: u32,
    /// Whether checksums take the log as big-endian words.
    big_endian: bool,
    /// Bytes of a page.
    pub(super) page_size: u32,
    /// How many frames of the log belong to it.
    frames: u32,
    /// How many pages the database has.
    pub(super) pages: u32,
    /// The checksum of the last of these frames, if there are any.
    checksum: [u32; 2],
    /// Of the log as it is used now, as it stands there.
    salts: [u8; 8],
    /// Of a log that nothing was written to: the database's file.
    untouched: Option<Untouched>,
}

impl WalPosition {
    /// The moment of a database in WAL mode whose log is empty, as a read transaction sees it that
    /// lasts; `None` where it is not, or where too little time has passed to tell a later change.
    pub(super) fn before_the_first_write(
        path: &Path,
        page_size: u32,
        pages: u32,
    ) -> io::Result<Option<Self>> {
        let (database, log) = (path.symlink_metadata()?, log_of(path).symlink_metadata()?);
        let changed = u64::try_from(database.ctime()).map(Duration::from_secs);
        let rests = [
            database.modified().ok(),
            changed.ok().map(|at| UNIX_EPOCH + at),
        ]
        .into_iter()
        .all(|time| time.is_some_and(|time| time.elapsed().is_ok_and(|since| since > TICK)));
        let moment = Self {
            database: Identity::from(&database),
            log: Identity::from(&log),
            transactions: 0,
            big_endian: false,
            page_size,
            frames: 0,
            pages,
            checksum: [0; 2],
            salts: [0; 8],
            untouched: Some(Untouched::from(&database)),
        };
        Ok((log.size() == 0 && rests).then_some(moment))
    }

    /// Reads the header of a WAL index, which is in the machine's own byte order, as a read
    /// transaction on the database at `path` sees it.
    pub(super) fn read(path: &Path, header: &[u8; 48]) -> io::Result<Self> {
        let database = Identity::from(&path.symlink_metadata()?);
        let log = Identity::from(&log_of(path).symlink_metadata()?);
        Ok(Self::decode(database, log, header))
    }

    fn decode(database: Identity, log: Identity, header: &[u8; 48]) -> Self {
        let word = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes");
            u32::from_ne_bytes(bytes)
        };
        let size = u16::from_ne_bytes([header[14], header[15]]);
        Self {
            database,
            log,
            transactions: word(8),
            big_endian: header[13] != 0,
            // 65,536 does not fit and is written as 1.
            page_size: u32::from(size & 0xfffe) | (u32::from(size & 1) << 16),
            frames: word(16),
            pages: word(20),
            checksum: [word(24), word(28)],
            salts: header[32..40].try_into().expect("eight bytes"),
            untouched: None,
        }
    }

    /// The pages of the database at `path` that may differ between `before` and this moment, in
    /// order and without those that are cut off by now; `None` where the log does not tell. To be
    /// called while the read transaction of this moment lasts.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(super) fn changed_since(&self, before: &Self, path: &Path) -> io::Result<Option<Vec<u32>>> {
        if (self.database, self.log) != (before.database, before.log) {
            return Ok(None);
        }
        let pages = self.told(before, || open_log(path))?;
        if let Some(file) = &before.untouched {
            // Looked at last: nothing that was written up to here has gone past the log.
            let is_untouched = Untouched::from(&path.symlink_metadata()?) == *file;
            return Ok(pages.filter(|_| is_untouched));
        }
        Ok(pages)
    }

    /// The same as far as the log tells it.
    fn told(
        &self,
        before: &Self,
        open_log: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Option<Vec<u32>>> {
        let size = self.page_size;
        if size != before.page_size || !size.is_power_of_two() || size < 512 {
            return Ok(None);
        }
        if before.untouched.is_some() {
            return self.written_at_all(before, open_log);
        }
        if self.untouched.is_some() || self.big_endian != before.big_endian {
            return Ok(None);
        }
        if self.transactions == before.transactions {
            let nothing = (self.salts, self.frames) == (before.salts, before.frames);
            if nothing && self.pages == before.pages {
                return Ok(Some(Vec::new()));
            }
        }
        let log = open_log()?;
        let mut chain = FrameChain::new(&log, self);
        if self.salts == before.salts {
            // The same log has only grown. SQLite itself vouches for the frames up to the one that the
            // index names, and reads them unchecked: their headers are enough.
            (chain.salts, chain.at, chain.checksum) =
                (before.salts, before.frames, before.checksum);
            chain.skim(self.frames)?;
        } else {
            let salt = |moment: &Self| {
                let bytes = moment.salts[..4].try_into().expect("four bytes");
                u32::from_be_bytes(bytes)
            };
            if before.frames == 0 || salt(self) != salt(before).wrapping_add(1) {
                return Ok(None);
            }
            // What was appended before the log was begun anew. To be read first: the new one only
            // grows, and what it has overwritten when it is read later it may have by now.
            (chain.salts, chain.at, chain.checksum) =
                (before.salts, before.frames, before.checksum);
            chain.follow(u32::MAX)?;
            chain.forget_uncommitted();
            if self.frames > 0 {
                if !chain.begin(self.salts)? {
                    return Ok(None);
                }
                chain.follow(self.frames)?;
            }
        }
        if self.frames > 0 && (chain.at, chain.checksum) != (self.frames, self.checksum) {
            return Ok(None);
        }
        Ok(self.told_by(chain, before))
    }

    /// The pages in a log that was empty at `before`, if it has not begun anew since.
    fn written_at_all(
        &self,
        before: &Self,
        open_log: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Option<Vec<u32>>> {
        if self.untouched.is_some() {
            return Ok(Some(Vec::new()));
        }
        let log = open_log()?;
        let mut chain = FrameChain::new(&log, self);
        if !chain.begin(self.salts)? || chain.beginnings != 0 {
            return Ok(None);
        }
        chain.follow(self.frames)?;
        if (chain.at, chain.checksum) != (self.frames, self.checksum) {
            return Ok(None);
        }
        Ok(self.told_by(chain, before))
    }

    /// The pages of a chain that leads from `before` to this moment, if it has all transactions.
    fn told_by(&self, chain: FrameChain<'_>, before: &Self) -> Option<Vec<u32>> {
        let transactions = self.transactions.wrapping_sub(before.transactions);
        if transactions != chain.transactions {
            return None;
        }
        // Pages beyond an end that was once shorter need not have been written: the one with the lock
        // bytes never is, and free ones by no more than a habit of today's writers.
        let lowest = chain.lowest_end.min(before.pages).min(self.pages);
        // That many of them were never written is no database's habit, but a damaged or forged index.
        if (self.pages - lowest) as usize > chain.pages.len() + UNWRITTEN_MAX {
            return None;
        }
        let mut pages = chain.pages;
        pages.extend(lowest + 1..=self.pages);
        if before.pages != self.pages {
            // Where blocks are larger than pages, the last one has another length.
            pages.push(self.pages);
        }
        pages.sort_unstable();
        pages.dedup();
        pages.retain(|page| (1..=self.pages).contains(page));
        Some(pages)
    }
}

/// What `log` tells of the pages that changed between two headers of its index, for the fuzzers;
/// without a header `before`, since it was empty.
pub fn told_between(
    before: Option<&[u8; 48]>,
    now: &[u8; 48],
    log: &File,
) -> io::Result<Option<Vec<u32>>> {
    let of = |header| WalPosition::decode(Identity(0, 0), Identity(0, 0), header);
    let now = of(now);
    let before = before.map_or_else(
        || WalPosition {
            transactions: 0,
            frames: 0,
            pages: 1,
            untouched: Some(Untouched {
                size: 0,
                modified: (0, 0),
                changed: (0, 0),
            }),
            ..now
        },
        of,
    );
    now.told(&before, || log.try_clone())
}

/// The write-ahead log of the database at `path`.
fn log_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(log_of(path))
}

/// Frames of the log, one after the other, as far as their checksums continue each other.
struct FrameChain<'f> {
    log: &'f File,
    frame: usize,
    big_endian: bool,
    salts: [u8; 8],
    /// How often the log had begun anew when it last began.
    beginnings: u32,
    /// How many frames have been followed.
    at: u32,
    checksum: [u32; 2],
    /// Pages of committed frames, and how many transactions these were.
    pages: Vec<u32>,
    transactions: u32,
    /// The smallest size of the database, in pages, that one of them left.
    lowest_end: u32,
    uncommitted: Vec<u32>,
    buffer: Vec<u8>,
}

impl<'f> FrameChain<'f> {
    fn new(log: &'f File, moment: &WalPosition) -> Self {
        let frame = FRAME_HEADER + moment.page_size as usize;
        Self {
            log,
            frame,
            big_endian: moment.big_endian,
            salts: [0; 8],
            beginnings: 0,
            at: 0,
            checksum: [0; 2],
            pages: Vec::new(),
            transactions: 0,
            lowest_end: u32::MAX,
            uncommitted: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Goes on from the first frame of the log, if that is the one with these salts.
    fn begin(&mut self, salts: [u8; 8]) -> io::Result<bool> {
        let mut header = [0; LOG_HEADER];
        if self.log.read_at(&mut header, 0)? != LOG_HEADER || header[16..24] != salts {
            return Ok(false);
        }
        let checksum = self.sum([0; 2], &header[..24]);
        let magic = 0x377f_0682 | u32::from(self.big_endian);
        if be(&header[..4]) != magic || checksum != [be(&header[24..28]), be(&header[28..32])] {
            return Ok(false);
        }
        (self.salts, self.at, self.checksum) = (salts, 0, checksum);
        self.beginnings = be(&header[12..16]);
        Ok(true)
    }

    /// Looks at the headers of the frames until `to` of them have been, or the next is not of this log.
    /// The checksum afterwards is the one that the last of them names.
    fn skim(&mut self, to: u32) -> io::Result<()> {
        let mut header = [0; FRAME_HEADER];
        while self.at < to {
            let from = LOG_HEADER as u64 + u64::from(self.at) * self.frame as u64;
            let read = read_at_most(self.log, &mut header, from)?;
            if read < FRAME_HEADER || header[8..16] != self.salts {
                break;
            }
            self.count(&header, [be(&header[16..20]), be(&header[20..24])]);
        }
        Ok(())
    }

    /// Follows the frames until `to` of them have been, or the next is not the next.
    fn follow(&mut self, to: u32) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize((READ / self.frame).max(1) * self.frame, 0);
        let mut outcome = Ok(());
        'reading: while self.at < to {
            let from = LOG_HEADER as u64 + u64::from(self.at) * self.frame as u64;
            let room = buffer.len() / self.frame;
            let wanted = usize::try_from(to - self.at).map_or(room, |left| left.min(room));
            let read = match read_at_most(self.log, &mut buffer[..wanted * self.frame], from) {
                Ok(read) => read,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            let frames = buffer[..read].chunks_exact(self.frame);
            if frames.len() == 0 {
                break;
            }
            for frame in frames {
                if !self.take(frame) {
                    break 'reading;
                }
            }
        }
        self.buffer = buffer;
        outcome
    }

    /// Takes the next frame, if this is it.
    fn take(&mut self, frame: &[u8]) -> bool {
        let (header, page) = frame.split_at(FRAME_HEADER);
        if header[8..16] != self.salts {
            return false;
        }
        let checksum = self.sum(self.sum(self.checksum, &header[..8]), page);
        if checksum != [be(&header[16..20]), be(&header[20..24])] {
            return false;
        }
        self.count(header, checksum);
        true
    }

    /// Counts a frame in.
    fn count(&mut self, header: &[u8], checksum: [u32; 2]) {
        (self.at, self.checksum) = (self.at + 1, checksum);
        self.uncommitted.push(be(&header[..4]));
        // Only the last frame of a transaction says how large the database is after it.
        let end = be(&header[4..8]);
        if end > 0 {
            self.pages.append(&mut self.uncommitted);
            self.transactions = self.transactions.wrapping_add(1);
            self.lowest_end = self.lowest_end.min(end);
        }
    }

    fn forget_uncommitted(&mut self) {
        self.uncommitted.clear();
    }

    /// SQLite's checksum over whole pairs of words.
    fn sum(&self, [mut a, mut b]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("four bytes");
            if self.big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        for pair in bytes.chunks_exact(8) {
            a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
            b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
        }
        [a, b]
    }
}

fn be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

fn read_at_most(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], from + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
