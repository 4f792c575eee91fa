//! Waiting for the kernel's notices of changes, and leaving them alone for a while.
//!
//! While they are left alone the descriptor is not registered at all: a writer that never pauses would
//! otherwise wake the runtime for each write, to no end.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

/// The kernel's notices, as something to wait for.
#[derive(Debug)]
pub(super) struct FsEvents {
    state: State,
}

#[derive(Debug)]
enum State {
    Listening(AsyncFd<OwnedFd>),
    Paused(OwnedFd, Instant),
    /// There is no descriptor, or it could not be registered: nothing is heard (any more), and
    /// rescans find it all.
    Deaf,
}

impl FsEvents {
    /// Waits for notices on `fd`, or for none.
    ///
    /// # Errors
    /// If it cannot be registered.
    pub(super) fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        let state = match fd {
            Some(fd) => State::Listening(listen(fd)?),
            None => State::Deaf,
        };
        Ok(Self { state })
    }

    /// Returns when there are notices to be read. May be dropped at any point.
    pub(super) async fn come(&mut self) {
        if let State::Paused(_, until) = &self.state {
            sleep_until((*until).into()).await;
            let paused = std::mem::replace(&mut self.state, State::Deaf);
            if let State::Paused(fd, _) = paused {
                match listen(fd) {
                    Ok(fd) => self.state = State::Listening(fd),
                    Err(error) => {
                        tracing::warn!(target: "sync", %error, "change notices cannot be waited for; looking at everything from time to time");
                    }
                }
            }
        }
        if let State::Listening(fd) = &self.state
            && let Ok(mut ready) = fd.readable().await
        {
            // They are read to their end, so the next ones will be news.
            ready.clear_ready();
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Leaves them alone until then.
    pub(super) fn pause(&mut self, until: Instant) {
        let listening = std::mem::replace(&mut self.state, State::Deaf);
        self.state = match listening {
            State::Listening(fd) => State::Paused(fd.into_inner(), until),
            other => other,
        };
    }
}

fn listen(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what it is registered with, so it stays open as long.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}
