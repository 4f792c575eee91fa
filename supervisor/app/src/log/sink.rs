//! Standard error, written to without ever waiting for its reader.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use super::Sink;

/// Standard error.
#[derive(Debug)]
pub(super) struct Stderr {
    /// An open file of our own on the same pipe or terminal, which does not block. The flag cannot
    /// be set on the inherited one: that is shared with the gateway, which expects to block.
    own: Option<File>,
    kind: SinkKind,
}

/// What standard error is, as far as it matters for writing without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkKind {
    /// A socket: each single write can be told not to wait.
    Socket,
    /// Anything else.
    Other,
}

impl Stderr {
    pub(super) fn open() -> Self {
        Self {
            own: reopen(std::io::stderr().as_fd(), "/proc/self/fd/2"),
            kind: kind(std::io::stderr().as_fd()),
        }
    }

    /// The descriptor of the open file of our own.
    pub(super) fn own_descriptor(&self) -> Option<RawFd> {
        self.own.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Only pipes and terminals: a regular file never blocks, and a second open file on it would have
/// an offset of its own and overwrite what others write; a socket cannot be opened by path.
fn reopen(fd: BorrowedFd<'_>, path: &str) -> Option<File> {
    let mode = SFlag::from_bits_truncate(fstat(fd).ok()?.st_mode);
    let kind = mode & SFlag::S_IFMT;
    if kind != SFlag::S_IFIFO && kind != SFlag::S_IFCHR {
        return None;
    }
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .ok()
}

fn kind(fd: BorrowedFd<'_>) -> SinkKind {
    let mode = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    match mode {
        Ok(SFlag::S_IFSOCK) => SinkKind::Socket,
        _ => SinkKind::Other,
    }
}

/// As [`write_once`], into a socket.
fn send_once(fd: BorrowedFd<'_>, line: &[u8]) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(fd.as_raw_fd(), line, flags).is_ok_and(|sent| sent == line.len())
}

/// Whether a line can be written now. A pipe that says so has room for a whole page.
fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        && fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT))
}

impl Sink for Stderr {
    fn offer(&self, line: &[u8]) -> bool {
        match &self.own {
            Some(own) => is_writable(own.as_fd()) && write_once(own, line),
            None if self.kind == SinkKind::Socket => {
                let stderr = std::io::stderr();
                is_writable(stderr.as_fd()) && send_once(stderr.as_fd(), line)
            }
            None => {
                // Without an open file of our own another process may fill the pipe between these
                // two steps; that is rare, and then the write waits as everybody else's does.
                let stderr = std::io::stderr();
                is_writable(stderr.as_fd()) && write_once(stderr.lock(), line)
            }
        }
    }
}

/// A line is at most as long as a pipe takes in one piece, so it is written wholly or not at all.
fn write_once(mut to: impl Write, line: &[u8]) -> bool {
    loop {
        match to.write(line) {
            Ok(written) => return written == line.len(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_pipe_refuses_lines_instead_of_blocking_and_takes_them_again_later() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let own = reopen(writer.as_fd(), &path).expect("a pipe can be opened again");
        // Another writer may fill the pipe after it was found writable; only the flag covers that.
        let flags = nix::fcntl::fcntl(&own, nix::fcntl::F_GETFL).expect("flags");
        assert_ne!(flags & libc::O_NONBLOCK, 0);
        let sink = Stderr {
            own: Some(own),
            kind: SinkKind::Other,
        };
        let line = [b'x'; 1000];
        let mut taken = 0;
        while sink.offer(&line) {
            taken += 1;
            assert!(taken < 10_000, "a pipe holds 64 KiB, or a megabyte at most");
        }
        assert!(taken > 0);
        assert!(!sink.offer(&line));
        let flags = nix::fcntl::fcntl(&writer, nix::fcntl::F_GETFL).expect("flags");
        assert_eq!(
            flags & libc::O_NONBLOCK,
            0,
            "the shared end must go on blocking"
        );
        reader
            .read_exact(&mut vec![0; taken * 1000])
            .expect("what was taken");
        assert!(sink.offer(&line));
    }

    #[test]
    fn a_full_socket_refuses_lines_instead_of_blocking() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_eq!(kind(writer.as_fd()), SinkKind::Socket);
        let mut taken = 0;
        while send_once(writer.as_fd(), &[b'x'; 1000]) {
            taken += 1;
            assert!(taken < 10_000, "its buffer is a fraction of that");
        }
        assert!(taken > 0);
        drop(reader);
        assert!(!send_once(
            writer.as_fd(),
            b"nobody is there, and no signal comes"
        ));
    }

    #[test]
    fn a_regular_file_keeps_its_one_offset() {
        let file = tempfile::tempfile().expect("a file");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(reopen(file.as_fd(), &path).is_none());
    }
}
