//! A helper's end of the control channel: messages from init, messages to init.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, mpsc};
use tracing::warn;

use crate::status::LastRun;
use sessionkeep_core::control::{Decoder, ToInit, ToWatcher, encode};
use sessionkeep_core::state_dir::StateDir;

/// A channel to init; or none, where the process was started by hand.
#[derive(Debug)]
pub struct Link {
    speaker: Option<Speaker>,
    receive: mpsc::Receiver<ToWatcher>,
    /// Whether the flush of an earlier life was ended before it could say what it came to.
    pub(crate) broken_flush: bool,
    /// When init wants to know whether this process lives, whatever it is at.
    asked: Option<mpsc::Receiver<()>>,
}

/// Who may talk to init. A message is never within another.
#[derive(Debug, Clone)]
pub(crate) struct Speaker(Arc<Mutex<OwnedWriteHalf>>);

impl Speaker {
    /// Sends a message. That init is gone is noticed by [`Link::next`].
    pub(crate) async fn send(&self, message: ToInit) {
        let mut write = self.0.lock().await;
        if let Err(error) = write.write_all(&encode(&message)).await {
            warn!(target: "sync", %error, "failed to send to init");
        }
    }
}

impl Link {
    /// The channel that init handed over. That a flush was asked for is noted in `state` at once, where
    /// there is one: a commit that waits for a silent store may leave no time to begin it.
    ///
    /// # Errors
    /// If the descriptor is no socket.
    pub(crate) fn new(fd: OwnedFd, state: Option<StateDir>) -> std::io::Result<Self> {
        let (send, receive) = mpsc::channel(16);
        let (ask, asked) = mpsc::channel(1);
        let stream = StdUnixStream::from(fd);
        stream.set_nonblocking(true)?;
        let (mut read, write) = UnixStream::from_std(stream)?.into_split();
        // Before this life's own flush can be noted.
        let broken_flush = state.as_ref().is_some_and(LastRun::was_flush_broken);
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
                            if matches!(message, ToWatcher::Flush { .. }) {
                                if let Some(state) = &state {
                                    LastRun::note_flush_begun(state);
                                }
                                // A commit may be under way, which the loop waits for.
                                let _ = ask.try_send(());
                            }
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
            speaker: Some(Speaker(Arc::new(Mutex::new(write)))),
            receive,
            broken_flush,
            asked: Some(asked),
        })
    }

    /// A channel whose other end is in this process.
    #[must_use]
    pub fn local() -> (mpsc::Sender<ToWatcher>, Self) {
        let (send, receive) = mpsc::channel(1);
        (
            send,
            Self {
                speaker: None,
                receive,
                broken_flush: false,
                asked: None,
            },
        )
    }

    /// The next message; `None` when init is gone.
    pub(crate) async fn next(&mut self) -> Option<ToWatcher> {
        self.receive.recv().await
    }

    /// Sends a message. That init is gone is noticed by [`Link::next`].
    pub(crate) async fn send(&mut self, message: ToInit) {
        if let Some(speaker) = &self.speaker {
            speaker.send(message).await;
        }
    }

    /// Who else may talk to init; `None` without init.
    pub(crate) fn speaker(&self) -> Option<Speaker> {
        self.speaker.clone()
    }

    /// Who else may talk to init, and when it wants to be told; once, and `None` without init.
    pub(crate) fn take_signs_of_life(&mut self) -> Option<(Speaker, mpsc::Receiver<()>)> {
        Some((self.speaker.clone()?, self.asked.take()?))
    }
}
