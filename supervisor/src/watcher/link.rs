//! The watcher's end of the control channel: messages in, messages out.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tracing::warn;

use crate::control::{Decoder, ToInit, ToWatcher, encode};

/// A channel to init; or none, where the process was started by hand.
#[derive(Debug)]
pub struct Link {
    write: Option<OwnedWriteHalf>,
    receive: mpsc::Receiver<ToWatcher>,
}

impl Link {
    /// The channel that init handed over.
    ///
    /// # Errors
    /// If the descriptor is no socket.
    pub fn new(fd: OwnedFd) -> std::io::Result<Self> {
        let (send, receive) = mpsc::channel(16);
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
