//! The watcher's end of the control channel: messages in, messages out.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tracing::warn;

use crate::control::{CONTROL_FD_ENV, Decoder, ToInit, ToWatcher, encode};

/// A channel to init; or none, where the process was started by hand.
#[derive(Debug)]
pub struct Link {
    write: Option<OwnedWriteHalf>,
    receive: mpsc::Receiver<ToWatcher>,
}

/// The descriptor that init handed over in this variable.
#[must_use]
pub fn inherited_fd(variable: &str) -> Option<OwnedFd> {
    inherited_fds(variable).into_iter().next()
}

/// All descriptors that init handed over in this variable.
#[must_use]
pub fn inherited_fds(variable: &str) -> Vec<OwnedFd> {
    let numbers = std::env::var(variable).unwrap_or_default();
    let numbers = numbers.split(',').filter_map(|number| number.parse().ok());
    numbers.filter_map(inherited).collect()
}

fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number comes from init alone, and is that of a descriptor that it left open for
    // this process; it is read once, before anything else could have taken the number.
    (fd > 2
        && nix::fcntl::fcntl(
            unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) },
            nix::fcntl::FcntlArg::F_GETFD,
        )
        .is_ok())
    .then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Link {
    /// Takes the channel that init handed over; without one, a channel that stays silent.
    ///
    /// # Errors
    /// If the descriptor is no socket.
    pub fn inherit() -> std::io::Result<Self> {
        let (send, receive) = mpsc::channel(16);
        let Some(fd) = inherited_fd(CONTROL_FD_ENV) else {
            // The sender is kept, or the silence would be taken for init's end.
            std::mem::forget(send);
            return Ok(Self {
                write: None,
                receive,
            });
        };
        let stream = StdUnixStream::from(fd);
        stream.set_nonblocking(true)?;
        let (mut read, write) = UnixStream::from_std(stream)?.into_split();
        tokio::spawn(async move {
            let (mut decoder, mut buffer) = (Decoder::default(), [0; 4096]);
            loop {
                let messages = match read.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(len) => decoder.feed::<ToWatcher>(&buffer[..len]),
                };
                for message in messages {
                    match message {
                        Ok(message) => {
                            if send.send(message).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => warn!(target: "sync", %error, "message from init ignored"),
                    }
                }
            }
        });
        Ok(Self {
            write: Some(write),
            receive,
        })
    }

    /// A channel whose other end is in this process.
    #[must_use]
    pub fn local() -> (mpsc::Sender<ToWatcher>, Self) {
        let (send, receive) = mpsc::channel(1);
        (
            send,
            Self {
                write: None,
                receive,
            },
        )
    }

    /// The next message; `None` when init is gone.
    pub async fn next(&mut self) -> Option<ToWatcher> {
        self.receive.recv().await
    }

    /// Sends a message. That init is gone is noticed by [`Link::next`].
    pub async fn send(&mut self, message: ToInit) {
        if let Some(write) = &mut self.write
            && let Err(error) = write.write_all(&encode(&message)).await
        {
            warn!(target: "sync", %error, "init does not hear us");
        }
    }
}
