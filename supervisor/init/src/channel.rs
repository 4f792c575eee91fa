//! Init's end of the control channel. PID 1 never blocks on it, whatever the other end does.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use sessionkeep_core::control::{DecodeError, Decoder, ToInit, ToWatcher, encode};

/// How many bytes wait at most for a helper that does not read. Messages are some hundred bytes,
/// and there are few: a helper that lets this fill up is stuck.
const OUTGOING_MAX: usize = 64 * 1024;
/// How much is read at most before other events get their turn.
const READ_MAX: usize = 256 * 1024;

/// Whether the other end is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Open,
    Gone,
}

/// The channel to one helper.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    decoder: Decoder,
    outgoing: Vec<u8>,
    peer: Peer,
}

impl Channel {
    /// A new channel, and the end for the child. Both close on exec; the child undoes that for
    /// its own.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (stream, child) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let channel = Self {
            stream,
            decoder: Decoder::default(),
            outgoing: Vec::new(),
            peer: Peer::Open,
        };
        Ok((channel, child.into()))
    }

    /// Queues a message and sends what can be sent. Says whether it was taken.
    pub(super) fn send(&mut self, message: &ToWatcher) -> bool {
        let line = encode(message);
        if self.peer == Peer::Gone || self.outgoing.len() + line.len() > OUTGOING_MAX {
            return false;
        }
        self.outgoing.extend_from_slice(&line);
        self.write();
        self.peer == Peer::Open
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn write(&mut self) {
        while !self.outgoing.is_empty() && self.peer == Peer::Open {
            match self.stream.write(&self.outgoing) {
                Ok(sent) => {
                    self.outgoing.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Its end is announced by SIGCHLD; what it said before is still readable.
                Err(_) => {
                    self.outgoing.clear();
                    return;
                }
            }
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> Vec<Result<ToInit, DecodeError>> {
        let mut messages = Vec::new();
        let mut total = 0;
        let mut buffer = [0; 4096];
        while self.peer == Peer::Open && total < READ_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.peer = Peer::Gone,
                Ok(got) => {
                    total += got;
                    messages.extend(self.decoder.feed(&buffer[..got]));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.peer = Peer::Gone,
            }
        }
        messages
    }

    /// Whether it makes sense to poll it at all: a closed one would be ready for ever.
    pub(super) fn is_open(&self) -> bool {
        self.peer == Peer::Open
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sessionkeep_core::control::{Lifecycle, MonotonicMs};

    fn ends() -> (Channel, UnixStream) {
        let (channel, child) = Channel::new().expect("socketpair");
        (channel, UnixStream::from(child))
    }

    #[test]
    fn a_helper_that_never_reads_blocks_nobody_and_fills_a_bounded_buffer() {
        let (mut channel, _child) = ends();
        let message = ToWatcher::Lifecycle {
            state: Lifecycle::Running,
            gateway_pid: Some(1),
            restarts: 0,
        };
        let mut refused = false;
        for _ in 0..100_000 {
            if !channel.send(&message) {
                refused = true;
                break;
            }
        }
        assert!(refused);
        assert!(channel.outgoing.len() <= OUTGOING_MAX);
        assert!(channel.wants_to_write());
    }

    #[test]
    fn what_a_helper_said_before_it_died_is_still_read() {
        let (mut channel, mut child) = ends();
        child
            .write_all(&encode(&ToInit::Flushed { seq: 7 }))
            .expect("write");
        drop(child);
        let deadline = MonotonicMs(1);
        channel.send(&ToWatcher::Flush { deadline });
        let got = channel.read();
        assert_eq!(got.len(), 1);
        assert_eq!(
            got[0].as_ref().expect("message"),
            &ToInit::Flushed { seq: 7 }
        );
        assert!(!channel.is_open());
        assert!(!channel.send(&ToWatcher::Flush { deadline }));
    }
}
