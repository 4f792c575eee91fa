//! Making way: to another instance that asks for the session, and before a lease runs out that
//! cannot be renewed. The gateway ends as in a stop, all is saved, and this life goes on in
//! *Standby*: the restorer waits until the session is free again.

use std::time::Duration;

use super::ending::{Ending, Then};
use super::flushing::Aim;
use super::{Action, Cause, Ended, Machine, Mode, MonotonicMs, Note, Saved, State, Watcher};
use sessionkeep_core::exit;

/// After a handover that failed, since the last changes could not be saved, nobody is made way to
/// for so long: the gateway was stopped for nothing, and should not be again at once.
const NOT_AGAIN: Duration = Duration::from_secs(300);

/// What of the time that a lease still runs is kept for a kill to show. What is still alive then is
/// alive beside another instance's gateway.
const KILL_SHOWS: Duration = Duration::from_millis(500);

/// Why way is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Another instance asks for the session.
    Asked,
    /// The lease runs out then, and cannot be renewed.
    LeaseEnds(MonotonicMs),
}

impl Why {
    /// The reason that holds where there was another one: who asks does not make the lease last. A
    /// session that cannot be saved would be taken back, and its gateway run beyond the lease.
    fn after(self, before: Then) -> Self {
        match before {
            Then::MakeWay(before @ Self::LeaseEnds(_)) if self == Self::Asked => before,
            _ => self,
        }
    }
}

impl Machine {
    /// Whether this life has made way, so that the restorer waits its turn, and asks nobody.
    #[must_use]
    pub fn has_handed_over(&self) -> bool {
        self.handed_over.is_some()
    }

    pub(super) fn on_takeover_requested(&mut self, by: String, now: MonotonicMs) {
        if self.not_again.is_some_and(|until| now < until) {
            self.act(Action::Note(Note::TakeoverRefused(by)));
        } else {
            self.hand_over(Why::Asked, Cause::TakeoverRequested(by), now);
        }
    }

    pub(super) fn on_lease_ending(&mut self, by: MonotonicMs, now: MonotonicMs) {
        self.hand_over(Why::LeaseEnds(by), Cause::LeaseEnding, now);
    }

    fn hand_over(&mut self, why: Why, cause: Cause, now: MonotonicMs) {
        if self.plan.mode != Mode::Store {
            return;
        }
        let (mut kill_at, mut end_at) = (now.after(self.plan.grace()), now.after(self.plan.total));
        if let Why::LeaseEnds(by) = why {
            let last = now.after(by.until(now).saturating_sub(KILL_SHOWS));
            (kill_at, end_at) = (kill_at.min(last), end_at.min(by));
        }
        match &mut self.state {
            State::Up { .. } => {
                let ending = Ending::new(Then::MakeWay(why), None, kill_at, end_at);
                self.transition(State::Ending(ending), cause);
                self.pass_on(libc::SIGTERM);
                self.resume();
            }
            State::Ending(ending) if ending.leads_to_a_start() => {
                let ending =
                    ending.redirected(Then::MakeWay(why.after(ending.then)), kill_at, end_at);
                self.transition(State::Ending(ending), cause);
            }
            // It is told to stop already, and may take no longer than the lease runs.
            State::Ending(ending) if matches!(ending.then, Then::Flush(_)) => {
                if matches!(why, Why::LeaseEnds(_)) {
                    let ending = ending.redirected(ending.then, kill_at, end_at);
                    self.transition(State::Ending(ending), cause);
                }
            }
            State::Flushing(flushing) => flushing.hand_over(why),
            State::Backoff { last, .. } => {
                // Where the gateway was not started at all, the watcher still has to let go.
                let last = last.unwrap_or(Ended::Killed(libc::SIGTERM));
                self.save_and_make_way(last, why, now, cause);
            }
            // It is ending for another reason, or has no session (yet, or any more).
            _ => {}
        }
    }

    pub(super) fn save_and_make_way(
        &mut self,
        ended: Ended,
        why: Why,
        now: MonotonicMs,
        cause: Cause,
    ) {
        let deadline = self.flush_deadline(None, now);
        self.flush_until(ended, Aim::MakeWay(why), deadline, now, cause);
    }

    /// The watcher has ended over the last flush: on to *Standby*, or back to the gateway where the
    /// session could not be handed over as it should be.
    pub(super) fn handed_over(&mut self, why: Why, saved: Saved, ended: Ended, now: MonotonicMs) {
        self.watcher = Watcher::Unwanted;
        self.liveness.end();
        match saved {
            Saved::Not(reason) if why == Why::Asked => {
                self.not_again = Some(now.after(NOT_AGAIN));
                self.act(Action::Note(Note::HandoverFailed(reason)));
                let (until, last) = (now, Some(ended));
                self.transition(State::Backoff { until, last }, Cause::FlushEnded);
                self.spawn_watcher(now);
            }
            saved => {
                self.handed_over = Some(saved);
                self.transition(State::Standby, Cause::MadeWay);
                self.liveness.forget_lease();
                self.spawn_restorer(now);
            }
        }
    }

    /// How a life ends that is told to while nothing of a gateway is there.
    pub(super) fn verdict_without_gateway(&self, signal: i32) -> (u8, Saved) {
        match &self.handed_over {
            None => (self.plan.code(Ended::Killed(signal)), Saved::Nothing),
            Some(saved @ (Saved::Not(_) | Saved::Except(..))) => {
                (exit::FLUSH_FAILED, saved.clone())
            }
            Some(saved) => (0, saved.clone()),
        }
    }
}
