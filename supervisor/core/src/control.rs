//! The messages between init and its children: one JSON object a line over an inherited
//! socketpair, typed on both ends. This is all that the two sides know of each other.

use std::os::fd::{OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use crate::record::InstanceId;
use crate::state_dir::StateDir;

/// What a helper has from init. It is in the helper's memory already, since init forks: nothing of
/// it is in an environment or in arguments.
#[derive(Debug)]
pub struct Handover {
    /// This life of the supervisor, as the lease knows it.
    pub instance: InstanceId,
    /// The instance named by the marker of a directory whose lock init holds: its lease may be
    /// continued at once, since nobody else can be using the directory.
    pub predecessor: Option<InstanceId>,
    /// Whether this life has had the session and made way: the restorer waits for its next turn, for
    /// as long as that takes, and asks nobody to make way.
    pub handed_over: bool,
    /// Our own directory, as init has opened and verified it: somebody may have replaced it since.
    pub state: StateDir,
    /// The helper's end of the channel to init, which blocks.
    pub control: OwnedFd,
    /// The HTTP listening sockets, already nonblocking; none where HTTP is off or its port was taken.
    pub http: Vec<OwnedFd>,
}

/// What helpers do. Each is called in a process of its own, and what it returns is its exit code.
pub trait Helpers {
    /// `sessionkeep restore`: brings the directory to the store's state.
    fn restore(&self, handover: Handover) -> u8;
    /// `sessionkeep watch`: replicates changes until it is told to flush.
    fn watch(&self, handover: Handover) -> u8;
    /// Descriptors that a helper goes on to use, besides those that it is handed.
    fn descriptors(&self) -> Vec<RawFd>;
}

/// The longest line either side accepts, in bytes. Messages are short; a longer line is an error.
pub const LINE_MAX: usize = 64 * 1024;

/// A moment on `CLOCK_MONOTONIC`, in milliseconds. The clock is one for all processes of a
/// machine, so a deadline means the same on both ends, and setting the wall clock moves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .expect("CLOCK_MONOTONIC exists on every Linux");
        Self(now.tv_sec().unsigned_abs() * 1000 + now.tv_nsec().unsigned_abs() / 1_000_000)
    }

    /// This moment and `span` more.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment and `span` less, or the clock's beginning.
    #[must_use]
    pub fn before(self, span: std::time::Duration) -> Self {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(span))
    }

    /// How long it is from `now` until this moment; zero where it has passed.
    #[must_use]
    pub fn until(self, now: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(now.0))
    }
}

/// The state of a life, as the outside sees it (`docs/lifecycle.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Settings, directory and command are being checked.
    Preflight,
    /// The session directory is being brought to the store's state.
    Restoring,
    /// The gateway has been started and has not answered yet.
    Starting,
    /// The gateway is up.
    Running,
    /// The gateway is being stopped.
    Stopping,
    /// The gateway and all it started are gone; the last changes are being saved.
    Flushing,
    /// The gateway does not run and will be started after a delay: it ended by itself, or its
    /// first start is put off.
    Backoff,
    /// Another instance owns the session; this one waits.
    Standby,
    /// Another instance took the session over; the gateway is being ended.
    Fenced,
    /// It is over.
    Exited,
}

/// What init tells the watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWatcher {
    /// The lifecycle moved on.
    Lifecycle {
        /// The new state.
        state: Lifecycle,
        /// The gateway's main process, while there is one.
        gateway_pid: Option<i32>,
        /// How often the gateway was started again in this life.
        restarts: u32,
    },
    /// Somebody or something keeps the watcher from its work, or kept the one before.
    Stalled {
        /// What init saw.
        how: Stall,
    },
    /// No descendant of the gateway is alive: scan everything, commit, release the lease, answer
    /// [`ToInit::Flushed`] or [`ToInit::FlushFailed`] before `deadline`, and exit.
    Flush {
        /// When init stops waiting.
        deadline: MonotonicMs,
    },
}

impl ToWatcher {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Lifecycle { .. } => "lifecycle",
            Self::Stalled { .. } => "stalled",
            Self::Flush { .. } => "flush",
        }
    }
}

/// What kept a watcher from its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stall {
    /// A signal stopped this one, and init let it go on.
    Stopped,
    /// The one before gave no sign of life, and was killed.
    Silent,
}

/// What a child (the watcher, and where it says so the restorer) tells init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToInit {
    /// From both helpers: its event loop runs. Whoever breaks the promise counts as hung.
    Alive {
        /// When the next one comes at the latest.
        next_by: MonotonicMs,
        /// Until when nobody else can have the session, whatever becomes of the store; `None` where
        /// there is no lease, or the helper knows nothing of it.
        lease_ends: Option<MonotonicMs>,
    },
    /// The watcher sees every change from here on.
    Ready,
    /// The session directory, or our own directory in it, was deleted and made anew, and the watcher
    /// uses the new one: init has to hold that, and its lock.
    Followed,
    /// The gateway's probe answered for the first time since its start.
    GatewayReady,
    /// From the restorer: another instance owns the session and this one is waiting for it;
    /// `false` once it has it.
    Standby {
        /// Whether it is waiting.
        waiting: bool,
    },
    /// Another instance owns the session now: the gateway must end at once, nothing can be saved.
    LeaseLost {
        /// Who owns it, or what collided; for the log.
        reason: String,
    },
    /// Another instance asks for the session: stop the gateway, then flush.
    TakeoverRequested {
        /// Who asks.
        by: String,
    },
    /// The lease cannot be renewed, and another instance may have it from then on: nothing of the
    /// gateway must be alive any more.
    LeaseEnding {
        /// When it runs out.
        by: MonotonicMs,
    },
    /// Everything is saved and the lease is released.
    Flushed {
        /// The last commit; 0 where the archive has none (file mode, or nothing ever written).
        seq: u64,
    },
    /// Everything is saved but what must not be, and the lease is released.
    FlushedExcept {
        /// As of [`ToInit::Flushed`].
        seq: u64,
        /// What is not saved and why, in words for the log.
        reason: String,
    },
    /// The last changes could not be saved.
    FlushFailed {
        /// Why, in words for the log.
        reason: String,
    },
}

/// Writes a message as one line.
#[must_use]
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("control messages have string keys only");
    line.push(b'\n');
    line
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

/// A line on the control channel that is no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The line is not a known message.
    #[error("failed to read a control message")]
    Malformed(#[source] serde_json::Error),
    /// The line does not end within [`LINE_MAX`] bytes.
    #[error("failed to read a control message: longer than {LINE_MAX} bytes")]
    TooLong,
}

impl Decoder {
    /// Takes what was read and gives the messages it completes, in order. A malformed line is
    /// one error and does not spoil the lines after it.
    pub fn feed<M: for<'de> Deserialize<'de>>(
        &mut self,
        bytes: &[u8],
    ) -> Vec<Result<M, DecodeError>> {
        // Where no line ended before, none does now: a long one that comes in many pieces is not
        // looked through again at each.
        let mut from = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut start = 0;
        while let Some(len) = self.buffer[from..].iter().position(|b| *b == b'\n') {
            let line = &self.buffer[start..from + len];
            start = from + len + 1;
            from = start;
            if !line.is_empty() {
                out.push(serde_json::from_slice(line).map_err(DecodeError::Malformed));
            }
        }
        self.buffer.drain(..start);
        if self.buffer.len() > LINE_MAX {
            self.buffer.clear();
            out.push(Err(DecodeError::TooLong));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting_of_the_stream(cuts in prop::collection::vec(1usize..40, 1..60)) {
            let sent = vec![
                ToInit::Ready,
                ToInit::Followed,
                ToInit::Alive { next_by: MonotonicMs(7), lease_ends: None },
                ToInit::Alive { next_by: MonotonicMs(0), lease_ends: Some(MonotonicMs(u64::MAX)) },
                ToInit::LeaseLost { reason: "line\nbreak \"quoted\"".into() },
                ToInit::Flushed { seq: u64::MAX },
                ToInit::Standby { waiting: true },
            ];
            let stream: Vec<u8> = sent.iter().flat_map(encode).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < stream.len() {
                let end = (at + cuts.next().expect("cycle")).min(stream.len());
                got.extend(decoder.feed::<ToInit>(&stream[at..end]).into_iter().map(|m| m.expect("valid")));
                at = end;
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_pile_up(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut decoder = Decoder::default();
            for _ in 0..40 {
                let _ = decoder.feed::<ToWatcher>(&bytes);
            }
            prop_assert!(decoder.buffer.len() <= LINE_MAX);
        }
    }

    #[test]
    fn a_malformed_line_does_not_spoil_the_next() {
        let mut decoder = Decoder::default();
        let got = decoder.feed::<ToInit>(b"nonsense\n{\"type\":\"ready\"}\n");
        assert!(matches!(got[0], Err(DecodeError::Malformed(_))));
        assert_eq!(got[1].as_ref().expect("valid"), &ToInit::Ready);
    }
}
