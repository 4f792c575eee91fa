//! What init logs: fixed phrases, with what varies in fields.

use std::time::Duration;

use tracing::{error, info, warn};

use super::machine::{Cause, Ended, ExitVerdict, Note, Saved};
use sessionkeep_core::control::{Lifecycle, MonotonicMs};
use sessionkeep_core::state_dir::Presence;

/// Remembers when which phase began, for the last line.
#[derive(Debug)]
pub(super) struct Report {
    began: MonotonicMs,
    stopping: Option<MonotonicMs>,
    flushing: Option<MonotonicMs>,
    why: String,
}

impl Report {
    pub(super) fn new(now: MonotonicMs) -> Self {
        Self {
            began: now,
            stopping: None,
            flushing: None,
            why: String::new(),
        }
    }

    /// Logs a change of state.
    pub(super) fn transition(
        &mut self,
        from: Lifecycle,
        to: Lifecycle,
        cause: &Cause,
        now: MonotonicMs,
    ) {
        info!(target: "init", ?from, ?to, %cause, "state changed");
        match to {
            Lifecycle::Stopping | Lifecycle::Fenced => {
                self.stopping.get_or_insert(now);
                self.why = cause.to_string();
            }
            Lifecycle::Flushing => {
                self.flushing = Some(now);
                if self.stopping.is_none() {
                    self.stopping = Some(now);
                    self.why = cause.to_string();
                }
            }
            Lifecycle::Exited if self.stopping.is_none() => self.why = cause.to_string(),
            _ => {}
        }
    }

    /// Logs what is no change of state.
    #[expect(
        clippy::unused_self,
        reason = "one value says everything that is logged"
    )]
    pub(super) fn note(&self, note: &Note) {
        match note {
            Note::GatewayEnded(how @ Ended::Exited(0)) => {
                info!(target: "init", %how, "gateway ended");
            }
            Note::GatewayEnded(how) => warn!(target: "init", %how, "gateway ended"),
            Note::GatewayAgain { delay, attempt } => {
                let delay_ms = millis(*delay);
                info!(target: "init", delay_ms, attempt, "gateway will be started again");
            }
            Note::GaveUp { attempts } => {
                error!(target: "init", attempts, "gateway failed too often in a row; giving up");
            }
            Note::WatcherDied { how, delay } => {
                let delay_ms = millis(*delay);
                warn!(target: "init", %how, delay_ms, "watcher died and will be started again");
            }
            Note::Staggered(delay) => {
                let delay_ms = millis(*delay);
                info!(target: "init", delay_ms, "gateway's start is put off by restart.jitter");
            }
            Note::WatcherCrashLoop(how) => error!(
                target: "init", %how,
                "watcher dies again and again: nothing is saved meanwhile, and the gateway goes on; \
                 the lines before say what it died of"
            ),
            Note::HelperStopped { role, times } => {
                warn!(target: "init", %role, times, "helper was stopped by a signal, and goes on; a process in the container sends it STOP");
            }
            Note::HelperSilent(role) => {
                warn!(target: "init", %role, "helper gives no sign of life; telling it to go on");
            }
            Note::HelperKilled(role) => {
                error!(target: "init", %role, "helper gives no sign of life; sending SIGKILL");
            }
            Note::LeaseNotRenewed => {
                error!(target: "init", "the watcher does not renew the lease; stopping the gateway before the lease ends, as store.outage asks");
            }
            Note::WatcherReady => info!(target: "init", "watcher is ready"),
            Note::TakeoverRefused(by) => {
                warn!(target: "init", by, "another instance asks for the session, which could not be handed over just now; it has to wait");
            }
            Note::HandoverFailed(reason) => {
                error!(target: "init", reason, "the session is not handed over, since the last changes could not be saved; the gateway is started again");
            }
            Note::StopAtOnce(signal) => {
                warn!(target: "init", signal, "second stop signal: no grace is left");
            }
            Note::StillFlushing(signal) => {
                warn!(target: "init", signal, "stop signal while saving: saving goes on");
            }
            Note::NotSuspended(signal) => {
                warn!(target: "init", signal, "not suspended: a stop is under way");
            }
            Note::Leftovers(count) => {
                info!(target: "init", count, "waiting for processes that the gateway left behind, or that were started beside it");
            }
            Note::Killing => warn!(target: "init", "grace period expired; sending SIGKILL"),
            Note::Unkillable => error!(target: "init", "processes of the gateway survive a kill"),
        }
    }

    /// The last line; `state` is what became of our own directory, where there is one.
    pub(super) fn last(&self, verdict: &ExitVerdict, state: Option<Presence>, now: MonotonicMs) {
        let until =
            |from: Option<MonotonicMs>, to: MonotonicMs| from.map(|at| millis(to.until(at)));
        let stop_ms = until(self.stopping, self.flushing.unwrap_or(now));
        let flush_ms = until(self.flushing, now);
        let up_ms = millis(now.until(self.began));
        let (code, why) = (verdict.code, &self.why);
        match &verdict.saved {
            Saved::All(seq) if matches!(state, Some(Presence::Gone | Presence::Replaced)) => {
                warn!(
                    target: "init", code, why, up_ms, stop_ms, flush_ms, seq,
                    "stopped; all is saved, but .sessionkeep was removed or replaced meanwhile: see what \
                     did it, the next start does not know this directory"
                );
            }
            Saved::All(seq) => {
                info!(target: "init", code, why, up_ms, stop_ms, flush_ms, seq, "stopped; all is saved");
            }
            Saved::Nothing => {
                info!(target: "init", code, why, up_ms, stop_ms, "stopped; no gateway ran");
            }
            Saved::Unwanted => info!(target: "init", code, why, up_ms, stop_ms, "stopped"),
            Saved::Except(seq, reason) => error!(
                target: "init", code, why, up_ms, stop_ms, flush_ms, seq, reason,
                "stopped; not all is saved, keep the directory"
            ),
            Saved::Not(reason) => error!(
                target: "init", code, why, up_ms, stop_ms, flush_ms, reason,
                "stopped; the last changes are NOT saved, keep the directory"
            ),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
