//! Whether the helper that runs shows signs of life.
//!
//! A gateway of our own user can stop the watcher, which then renews no lease and saves nothing, and
//! does not end either. The kernel tells init of a stop, which lets it go on at once. A watcher that
//! gets no moment all the same, or hangs, is missed by what it says: each sign of life promises the
//! next. One that breaks its promise is told to go on, then killed, and another is started.
//!
//! The watcher says until when nobody else can have the session. Where `store.outage` asks for it, init
//! ends the gateway in time by its own clock, whatever has become of the watcher.

use std::time::Duration;

use super::ending::Then;
use super::{Action, Machine, MonotonicMs, Note, Role, State};
use sessionkeep_core::control::Stall;

/// How long a helper has for its first sign of life.
const FIRST: Duration = Duration::from_secs(30);
/// A helper that is stopped again and again is let go on this often, and not in a spin.
const CONT_EVERY: Duration = Duration::from_millis(20);
/// How often it is said that it is stopped.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// After each kill for silence the next helper is waited for twice as long, up to so many times: where
/// the machine is slow and nothing hangs, one of them comes through.
const DOUBLED_MAX: u32 = 5;
/// One that has given signs of life for so long was not slow: what its predecessors did is past.
const LIVED: Duration = Duration::from_secs(600);
/// How long after a kill another follows, where it does not show.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Silence {
    /// No helper runs.
    #[default]
    Nobody,
    /// The next sign of life, until then.
    Promised(MonotonicMs),
    /// The promise is broken and it was told to go on: it is killed then.
    Broken(MonotonicMs),
}

/// What is known of the helper that runs, and of the lease.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    role: Option<Role>,
    silence: Silence,
    /// When it was started.
    begun: Option<MonotonicMs>,
    /// How many were killed for their silence, one after the other.
    kills: u32,
    /// It was stopped, and is let go on then.
    cont_at: Option<MonotonicMs>,
    last_cont: Option<MonotonicMs>,
    /// How often it was stopped since that was last said, and when.
    stops: u32,
    told: Option<MonotonicMs>,
    /// For the next watcher: its predecessor was killed for its silence.
    untold: bool,
    /// Until when nobody else can have the session, as a helper said last.
    lease_ends: Option<MonotonicMs>,
}

impl Liveness {
    /// A helper was started.
    pub(super) fn begin(&mut self, role: Role, now: MonotonicMs) {
        self.role = Some(role);
        self.begun = Some(now);
        self.silence = Silence::Promised(now.after(FIRST));
        self.cont_at = None;
    }

    /// It ended, or nobody listens any more.
    pub(super) fn end(&mut self) {
        self.role = None;
        self.silence = Silence::Nobody;
        self.cont_at = None;
    }

    /// How long one that has broken its promise is waited for before it is killed.
    fn patience(&self, first: Duration) -> Duration {
        first * 2_u32.pow(self.kills.min(DOUBLED_MAX))
    }

    /// Whether a watcher has to be told that its predecessor was killed for its silence.
    pub(super) fn take_untold(&mut self) -> bool {
        std::mem::take(&mut self.untold)
    }

    /// The lease is not for init to watch any more.
    pub(super) fn forget_lease(&mut self) {
        self.lease_ends = None;
    }

    fn deadline(&self) -> Option<MonotonicMs> {
        let silence = match self.silence {
            Silence::Nobody => None,
            Silence::Promised(at) | Silence::Broken(at) => Some(at),
        };
        silence.into_iter().chain(self.cont_at).min()
    }
}

impl Machine {
    pub(super) fn liveness_deadline(&self) -> Option<MonotonicMs> {
        let own = self.liveness.deadline();
        own.into_iter().chain(self.lease_deadline()).min()
    }

    /// When the gateway has to be told to end, if the lease is not renewed before.
    fn lease_deadline(&self) -> Option<MonotonicMs> {
        let margin = self.plan.lease_margin?;
        let ends = self.liveness.lease_ends?;
        let runs = match &self.state {
            State::Up { .. } | State::Backoff { .. } => true,
            State::Ending(ending) => ending.then != Then::Fence,
            _ => false,
        };
        runs.then(|| ends.before(margin))
    }

    /// Ends the gateway before its lease ends, where that is to be and nobody has renewed it.
    pub(super) fn on_lease_deadline(&mut self, now: MonotonicMs) {
        if self.lease_deadline().is_some_and(|at| now >= at)
            && let Some(by) = self.liveness.lease_ends.take()
        {
            self.act(Action::Note(Note::LeaseNotRenewed));
            self.on_lease_ending(by, now);
        }
    }

    pub(super) fn on_alive(
        &mut self,
        next_by: MonotonicMs,
        lease_ends: Option<MonotonicMs>,
        now: MonotonicMs,
    ) {
        if (self.liveness.begun).is_some_and(|begun| now >= begun.after(LIVED)) {
            self.liveness.kills = 0;
        }
        self.liveness.lease_ends = lease_ends.or(self.liveness.lease_ends);
        if self.liveness.role.is_some() {
            self.liveness.silence = Silence::Promised(next_by);
        }
        if let State::Flushing(flushing) = &mut self.state {
            flushing.heard();
        }
    }

    /// A signal stopped one of our helpers. It is never one of ours.
    pub(super) fn on_helper_stopped(&mut self, role: Role, now: MonotonicMs) {
        if self.liveness.role != Some(role) {
            return;
        }
        let soon = self.liveness.last_cont.map(|at| at.after(CONT_EVERY));
        let at = soon.map_or(now, |at| at.max(now));
        self.liveness.cont_at = Some(at);
        self.liveness.stops = self.liveness.stops.saturating_add(1);
        if self
            .liveness
            .told
            .is_none_or(|at| now >= at.after(TOLD_EVERY))
        {
            self.liveness.told = Some(now);
            let times = std::mem::take(&mut self.liveness.stops);
            self.act(Action::Note(Note::HelperStopped { role, times }));
            if role == Role::Watcher {
                self.act(Action::SendStalled(Stall::Stopped));
            }
        }
        self.let_go_on(now);
    }

    fn let_go_on(&mut self, now: MonotonicMs) {
        let Some(role) = self.liveness.role else {
            return;
        };
        if self.liveness.cont_at.is_some_and(|at| now >= at) {
            self.liveness.cont_at = None;
            self.liveness.last_cont = Some(now);
            self.act(Action::SignalHelper(role, libc::SIGCONT));
        }
    }

    pub(super) fn on_liveness_deadline(&mut self, now: MonotonicMs) {
        self.let_go_on(now);
        if let Some(role) = self.liveness.role {
            match self.liveness.silence {
                Silence::Promised(at) if now >= at => {
                    let patience = self.liveness.patience(self.plan.patience);
                    self.liveness.silence = Silence::Broken(now.after(patience));
                    self.act(Action::Note(Note::HelperSilent(role)));
                    self.act(Action::SignalHelper(role, libc::SIGCONT));
                }
                Silence::Broken(at) if now >= at => {
                    self.liveness.silence = Silence::Broken(now.after(KILL_AGAIN));
                    self.liveness.untold |= role == Role::Watcher;
                    self.liveness.kills = self.liveness.kills.saturating_add(1);
                    self.act(Action::Note(Note::HelperKilled(role)));
                    self.act(Action::SignalHelper(role, libc::SIGKILL));
                }
                _ => {}
            }
        }
    }
}
