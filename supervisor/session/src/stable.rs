//! Reading a file that somebody may be writing: look, read, look again.
//!
//! The kernel's time stamps move in ticks of a few milliseconds, so that two writes within one
//! tick may look like one. A file is therefore also read again whenever an event says that it was
//! closed; what is checked here catches the writer that is at work right now.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use sessionkeep_core::entry::Meta;

use super::scan::{Fingerprint, kind_bits, meta_of};
use sessionkeep_core::beneath;

/// How often [`read_whole`] tries, and how long it lets a writer go on in between. Tries follow each
/// other at once at first: who rewrites a small file without a pause leaves gaps of microseconds,
/// which a reader that has just slept misses nearly always, and one that is awake meets soon.
const ROUNDS: u32 = 3;
const TRIES_PER_ROUND: u32 = 32;
const PAUSE: Duration = Duration::from_millis(2);

/// How much of a file is read in pieces between two looks whether it still is the same: what
/// changes all the time shall not be read to its end in vain.
const LOOK_EVERY: u64 = 1 << 20;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is gone.
    #[error("the file vanished")]
    Vanished,
    /// It was being written all the time.
    #[error("the file kept changing while it was read")]
    Changed,
    /// It is no regular file (any more).
    #[error("it is not a regular file")]
    NotAFile,
    /// The file system said no.
    #[error("failed to read the file")]
    Io(#[source] io::Error),
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::Vanished,
            // O_NOFOLLOW on a link, and opening a socket.
            Errno::ELOOP | Errno::ENXIO => Self::NotAFile,
            other => Self::Io(other.into()),
        }
    }
}

/// A whole file, all of one moment.
#[derive(Debug)]
pub struct Stable {
    /// The content.
    pub bytes: Vec<u8>,
    /// What it looked like, before and after; without sidecars.
    pub print: Fingerprint,
    /// What a restore brings back.
    pub meta: Meta,
}

/// Reads the file `path` below the open directory `dir`, of at most `limit` bytes, into memory: again
/// and again for some milliseconds where it changes meanwhile.
///
/// # Errors
/// [`ReadError`]; a file over the limit is [`io::ErrorKind::FileTooLarge`].
pub fn read_whole(dir: BorrowedFd<'_>, path: &[u8], limit: u64) -> Result<Stable, ReadError> {
    let mut tries = 1;
    loop {
        match read_once(dir, path, limit) {
            Err(ReadError::Changed) if tries < ROUNDS * TRIES_PER_ROUND => {
                if tries % TRIES_PER_ROUND == 0 {
                    std::thread::sleep(PAUSE);
                }
                tries += 1;
            }
            other => return other,
        }
    }
}

/// As [`read_whole`], in one try.
///
/// # Errors
/// As there.
pub fn read_once(dir: BorrowedFd<'_>, path: &[u8], limit: u64) -> Result<Stable, ReadError> {
    let (file, before) = open_file(dir, path)?;
    let size = u64::try_from(before.st_size).unwrap_or(0);
    let too_large = || ReadError::Io(io::ErrorKind::FileTooLarge.into());
    if size > limit {
        return Err(too_large());
    }
    // Whether there is more by now is told by the look that follows.
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| too_large())?];
    match (&file).read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ReadError::Changed);
        }
        Err(error) => return Err(ReadError::Io(error)),
    }
    confirm(dir, path, &before)?;
    Ok(Stable {
        bytes,
        print: Fingerprint::of(&before),
        meta: meta_of(&before),
    })
}

/// Reads a file in pieces of `block` bytes (the last may be shorter), in one try. What `each` was
/// given is only worth something if this returns success.
///
/// # Errors
/// [`ReadError`]; an error of `each` is passed on as [`ReadError::Io`].
pub fn read_blocks(
    dir: BorrowedFd<'_>,
    path: &[u8],
    block: usize,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(Fingerprint, Meta), ReadError> {
    let (file, before) = open_file(dir, path)?;
    let size = u64::try_from(before.st_size).unwrap_or(0);
    let mut buffer = vec![0; block.max(1)];
    let mut offset = 0;
    while offset < size {
        let want =
            usize::try_from(size - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
        match file.read_exact_at(&mut buffer[..want], offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::Changed);
            }
            Err(error) => return Err(ReadError::Io(error)),
        }
        each(offset, &buffer[..want]).map_err(ReadError::Io)?;
        offset += want as u64;
        if offset / LOOK_EVERY != (offset - want as u64) / LOOK_EVERY
            && Fingerprint::of(&fstat(&file)?) != Fingerprint::of(&before)
        {
            return Err(ReadError::Changed);
        }
    }
    confirm(dir, path, &before)?;
    Ok((Fingerprint::of(&before), meta_of(&before)))
}

/// Opens without following a link anywhere below `dir`, without waiting for a pipe's writer, and, where the file is
/// ours, without leaving a trace in its access time.
fn open_file(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(File, FileStat), ReadError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let fd = match beneath::open(dir, path, flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => beneath::open(dir, path, flags, Mode::empty()),
        other => other,
    }?;
    let stat = fstat(&fd)?;
    if kind_bits(&stat) != SFlag::S_IFREG {
        return Err(ReadError::NotAFile);
    }
    Ok((File::from(fd), stat))
}

/// The open file is as it was, and still is what the path names.
fn confirm(dir: BorrowedFd<'_>, path: &[u8], before: &FileStat) -> Result<(), ReadError> {
    // By its name: that tells of a change of the file and of another in its place alike. Where the
    // name leads elsewhere by now, what is there is compared and nothing more.
    let now = fstatat(dir, path, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if now.st_dev != before.st_dev || Fingerprint::of(&now) != Fingerprint::of(before) {
        return Err(ReadError::Changed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn a_quiet_file_is_read_whole_and_in_blocks() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = File::open(dir.path()).expect("open");
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        fs::write(&path, &content).expect("write");
        let whole = read_whole(root.as_fd(), b"f", 10_000).expect("read");
        assert_eq!(whole.bytes, content);
        assert_eq!(whole.meta.mode & 0o400, 0o400);
        let mut gathered = Vec::new();
        let (print, _) = read_blocks(root.as_fd(), b"f", 4096, &mut |offset, bytes| {
            assert_eq!(offset, gathered.len() as u64);
            gathered.extend_from_slice(bytes);
            Ok(())
        })
        .expect("read");
        assert_eq!(gathered, content);
        assert_eq!(print, whole.print);
        fs::write(&path, "").expect("truncate");
        assert!(
            read_whole(root.as_fd(), b"f", 0)
                .expect("empty")
                .bytes
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = File::open(dir.path()).expect("open");
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).expect("mkfifo");
        fs::write(at("f"), "x").expect("write");
        std::os::unix::fs::symlink("f", at("link")).expect("symlink");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("bind");
        for name in ["pipe", "link", "socket", "."] {
            let got = read_whole(root.as_fd(), name.as_bytes(), 100);
            assert!(matches!(got, Err(ReadError::NotAFile)), "{name}: {got:?}");
        }
        assert!(matches!(
            read_whole(root.as_fd(), b"none", 9),
            Err(ReadError::Vanished)
        ));
        assert!(matches!(
            read_whole(root.as_fd(), b"f/x", 9),
            Err(ReadError::Vanished)
        ));
        assert!(matches!(
            read_whole(root.as_fd(), b"f", 0),
            Err(ReadError::Io(_))
        ));
    }

    #[test]
    fn a_file_that_changes_or_is_replaced_under_the_reader_is_not_taken() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = File::open(dir.path()).expect("open");
        let path = dir.path().join("f");
        let other = dir.path().join("g");
        type Change = fn(&Path, &Path);
        let changes: [(&str, Change); 4] = [
            ("grown", |path, _| {
                let mut file = fs::OpenOptions::new()
                    .append(true)
                    .open(path)
                    .expect("open");
                file.write_all(b"more").expect("append");
            }),
            ("cut", |path, _| fs::write(path, "").expect("truncate")),
            ("removed", |path, _| fs::remove_file(path).expect("remove")),
            ("replaced", |path, other| {
                fs::write(other, [b'x'; 3000]).expect("write");
                fs::rename(other, path).expect("rename");
            }),
        ];
        for (what, change) in changes {
            fs::write(&path, [b'x'; 3000]).expect("write");
            let mut done = false;
            let got = read_blocks(root.as_fd(), b"f", 1000, &mut |_, _| {
                if !std::mem::replace(&mut done, true) {
                    change(&path, &other);
                }
                Ok(())
            });
            assert!(
                matches!(got, Err(ReadError::Changed | ReadError::Vanished)),
                "{what}: {got:?}"
            );
        }
    }
}
