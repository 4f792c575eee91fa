//! The pure machine: `(state, event, now) -> (state, actions)`, with no clock, I/O or lock inside.
//!
//! ```text
//! Preflight ─▶ Restoring ◀─▶ Standby          the directory is brought to the store's state
//!     │            │
//!     └─(no store)─┴─▶ Starting ─▶ Running     the gateway is alive
//!                         ▲           │ it ended by itself
//!                         └─ Backoff ◀┤
//!                               │     │ stop signal, no further start, or making way
//!                               ▼     ▼
//!         Standby ◀─ Flushing ◀─── Stopping    nothing of the gateway is alive / is being ended
//!     (made way to another) │
//!                           ▼        Fenced    another instance owns the session: end, save nothing
//!                         Exited ◀──────┘
//! ```
//!
//! Three rules are kept in every state, whatever order events come in; `properties` tests them
//! with random worlds:
//! - a gateway is started only when the restore has succeeded and nothing of another one is alive;
//! - a flush is asked for only when nothing of the gateway is alive;
//! - once a gateway has run, exiting needs a flush that was tried. Excepted are a fenced life, and
//!   one with processes that outlive KILL: what they still hold open is better left on the disk
//!   for the next start than committed half-written.
//!
//! An init that keeps no session ([`Mode::InitOnly`]) has neither restorer nor watcher, and goes
//! from *Stopping* or *Backoff* straight to *Exited*.

mod ending;
mod flushing;
mod handover;
mod helper;
mod liveness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tables;
mod vocabulary;

use std::time::Duration;

use crate::RestartPolicy;
use crate::options::Reach;
#[cfg(test)]
use crate::options::{ExitMap, Rewrites};
use sessionkeep_core::control::{Lifecycle, MonotonicMs, Stall, ToInit};
use sessionkeep_core::exit;
pub use vocabulary::{
    Action, Cause, Ended, Event, ExitVerdict, InitPlan, Mode, Note, Readiness, Resumer, Role,
    Saved, SpawnError,
};

use ending::{Ending, Stop, Then};
use flushing::Flushing;
use helper::{Crashes, STABLE, Watcher, doubling, jittered, spread};
use liveness::Liveness;

/// How long leftovers that survive KILL hold up the next start before the whole life is ended.
const UNKILLABLE: Duration = Duration::from_secs(30);

/// The signal by which container hosts stop an image that was made for systemd (`RTMIN+3`).
const STOP_SYSTEMD: i32 = 37;

/// Whether a signal tells us to stop.
fn is_stop(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | STOP_SYSTEMD
    )
}

/// Where the gateway stands. Each variant holds only what is true then.
#[derive(Debug)]
enum State {
    /// Not begun.
    New,
    /// The executor looks at directory, lock and command.
    Preflight,
    /// The restorer runs.
    Restoring,
    /// The restorer runs, and waits for another instance to let go.
    Standby,
    /// Told to stop while the restorer runs: nothing was ever started.
    Cancelling {
        signal: i32,
        kill: Kill,
        end_at: MonotonicMs,
    },
    /// The gateway's main process runs.
    Up { since: MonotonicMs, answered: bool },
    /// The gateway is being ended, or has ended and its leftovers are.
    Ending(Ending),
    /// Nothing of the gateway is alive; it will be started then.
    Backoff {
        until: MonotonicMs,
        /// How it ended; `None` before its first start.
        last: Option<Ended>,
    },
    /// Nothing of the gateway is alive; the watcher saves.
    Flushing(Flushing),
    /// It is over.
    Exited,
}

/// Whether what is being ended was killed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// It has until then.
    At(MonotonicMs),
    /// It was; look (and kill) again then, in case something was being forked meanwhile.
    Again(MonotonicMs),
}

impl Kill {
    fn at(self) -> MonotonicMs {
        match self {
            Self::At(at) | Self::Again(at) => at,
        }
    }

    /// The same deadline, or `at` where that is earlier. What was killed stays killed.
    fn no_later_than(self, at: MonotonicMs) -> Self {
        match self {
            Self::At(old) => Self::At(old.min(at)),
            again @ Self::Again(_) => again,
        }
    }
}

/// The machine of one life of the supervisor.
#[derive(Debug)]
pub struct Machine {
    plan: InitPlan,
    state: State,
    watcher: Watcher,
    crashes: Crashes,
    liveness: Liveness,
    /// Starts of the gateway after the first, in this life.
    restarts: u32,
    /// Starts of the gateway in a row that followed an early end.
    in_a_row: u32,
    /// Whether the watcher does not know yet where we are.
    untold: bool,
    /// Whether the gateway's group was stopped because we were told to suspend.
    suspended: bool,
    /// What became of the last changes when this life made way; `None` while it has the session, or
    /// has not had it.
    handed_over: Option<Saved>,
    /// Until then nobody is made way to.
    not_again: Option<MonotonicMs>,
    out: Vec<Action>,
}

impl Machine {
    /// A machine that waits for [`Event::Started`].
    #[must_use]
    pub fn new(plan: InitPlan) -> Self {
        Self {
            plan,
            state: State::New,
            watcher: Watcher::Unwanted,
            crashes: Crashes::default(),
            liveness: Liveness::default(),
            restarts: 0,
            in_a_row: 0,
            untold: false,
            suspended: false,
            handed_over: None,
            not_again: None,
            out: Vec::new(),
        }
    }

    /// The state as the outside sees it.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        match &self.state {
            State::New | State::Preflight => Lifecycle::Preflight,
            State::Restoring => Lifecycle::Restoring,
            State::Standby => Lifecycle::Standby,
            State::Up { answered, .. } => match answered {
                false => Lifecycle::Starting,
                true => Lifecycle::Running,
            },
            State::Ending(ending) => match ending.then {
                Then::Flush(_) | Then::MakeWay(_) => Lifecycle::Stopping,
                Then::Restart { .. } => Lifecycle::Backoff,
                Then::Fence => Lifecycle::Fenced,
            },
            State::Cancelling { .. } => Lifecycle::Stopping,
            State::Backoff { .. } => Lifecycle::Backoff,
            State::Flushing(_) => Lifecycle::Flushing,
            State::Exited => Lifecycle::Exited,
        }
    }

    /// How often the gateway was started again in this life.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When [`Event::DeadlineReached`] is wanted, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<MonotonicMs> {
        let own = match &self.state {
            State::Cancelling { kill, end_at, .. } => Some(kill.at().min(*end_at)),
            State::Ending(ending) => Some(ending.deadline()),
            State::Backoff { until, .. } => Some(*until),
            State::Flushing(flushing) => Some(flushing.deadline()),
            State::Exited => return None,
            _ => None,
        };
        own.into_iter()
            .chain(self.watcher.due())
            .chain(self.liveness_deadline())
            .min()
    }

    /// Takes an event and says what is to be done about it. Events that make no sense in the
    /// present state (late, twice, from a child long gone) change nothing.
    #[must_use]
    pub fn step(&mut self, event: Event, now: MonotonicMs) -> Vec<Action> {
        if matches!(self.state, State::Exited) {
            return Vec::new();
        }
        match event {
            Event::Started => self.on_started(),
            Event::PreflightDone => self.on_preflight_done(now),
            Event::PreflightFailed { code } => self.on_preflight_failed(code),
            Event::ChildExited { role, how } => self.on_child_ended(role, how, now),
            Event::SpawnFailed { role, error } => {
                self.on_child_ended(role, Ended::NotStarted(error), now);
            }
            Event::OrphansReaped { .. } => self.on_orphans_reaped(),
            Event::HelperStopped(role) => self.on_helper_stopped(role, now),
            Event::GatewayStopped(resumer) => self.on_gateway_stopped(resumer),
            Event::Signal(signal) => self.on_signal(signal, now),
            Event::Control(message) => self.on_control(message, now),
            Event::DescendantsGone => self.on_descendants_gone(now),
            Event::DescendantsLeft { count } => self.on_descendants_left(count),
            Event::DeadlineReached => self.on_deadline(now),
        }
        self.tell_watcher();
        std::mem::take(&mut self.out)
    }

    fn act(&mut self, action: Action) {
        self.out.push(action);
    }

    /// The only way from one state to another.
    fn transition(&mut self, to: State, cause: Cause) {
        let from = self.lifecycle();
        self.state = to;
        let to = self.lifecycle();
        if from != to {
            self.untold = true;
            self.act(Action::Transition { from, to, cause });
        }
    }

    /// Lets the watcher know what changed in this step: once, and before it is asked to flush.
    fn tell_watcher(&mut self) {
        if !std::mem::take(&mut self.untold) || !self.watcher.is_alive() {
            return;
        }
        let at = self
            .out
            .iter()
            .position(|a| matches!(a, Action::SendFlush { .. } | Action::Exit(_)))
            .unwrap_or(self.out.len());
        self.out.insert(at, Action::SendLifecycle);
    }

    fn exit(&mut self, code: u8, saved: Saved, cause: Cause) {
        if self.watcher.is_alive() {
            self.act(Action::SignalHelper(Role::Watcher, libc::SIGTERM));
        }
        self.watcher = Watcher::Unwanted;
        self.liveness.end();
        self.transition(State::Exited, cause);
        self.act(Action::Exit(ExitVerdict { code, saved }));
    }

    fn spawn_watcher(&mut self, now: MonotonicMs) {
        self.act(Action::Spawn(Role::Watcher));
        self.watcher.start(now);
        self.untold = true;
        self.liveness.begin(Role::Watcher, now);
        if self.liveness.take_untold() {
            self.act(Action::SendStalled(Stall::Silent));
        }
    }

    pub(super) fn spawn_restorer(&mut self, now: MonotonicMs) {
        self.act(Action::Spawn(Role::Restorer));
        self.liveness.begin(Role::Restorer, now);
    }

    /// Starts the gateway for the first time, or a random while later.
    fn first_start(&mut self, now: MonotonicMs, cause: Cause) {
        let delay = self.stagger();
        if delay.is_zero() {
            self.start_gateway(now, cause);
            return;
        }
        let until = now.after(delay);
        self.transition(State::Backoff { until, last: None }, cause);
        self.act(Action::Note(Note::Staggered(delay)));
    }

    fn stagger(&self) -> Duration {
        // Another row of figures than that of the delays between restarts.
        let seed = !self.plan.jitter_seed;
        spread(self.plan.stagger, seed, self.restarts + self.in_a_row)
    }

    fn start_gateway(&mut self, now: MonotonicMs, cause: Cause) {
        self.transition(
            State::Up {
                since: now,
                answered: false,
            },
            cause,
        );
        self.suspended = false;
        self.act(Action::Spawn(Role::Gateway));
        if self.plan.readiness == Readiness::AtOnce {
            self.transition(
                State::Up {
                    since: now,
                    answered: true,
                },
                Cause::NoProbe,
            );
        }
        self.untold = true;
    }

    fn on_started(&mut self) {
        if matches!(self.state, State::New) {
            self.state = State::Preflight;
            self.act(Action::Preflight);
        }
    }

    fn on_preflight_done(&mut self, now: MonotonicMs) {
        if !matches!(self.state, State::Preflight) {
            return;
        }
        match self.plan.mode {
            Mode::Store => {
                self.transition(State::Restoring, Cause::PreflightPassed);
                self.spawn_restorer(now);
            }
            Mode::File => {
                self.spawn_watcher(now);
                self.first_start(now, Cause::PreflightPassed);
            }
            Mode::InitOnly => self.first_start(now, Cause::PreflightPassed),
        }
    }

    fn on_preflight_failed(&mut self, code: u8) {
        if matches!(self.state, State::Preflight) {
            self.exit(code, Saved::Nothing, Cause::PreflightFailed);
        }
    }

    fn on_child_ended(&mut self, role: Role, how: Ended, now: MonotonicMs) {
        match role {
            Role::Restorer => self.on_restorer_ended(how, now),
            Role::Watcher => self.on_watcher_ended(how, now),
            Role::Gateway => self.on_gateway_ended(how, now),
        }
    }

    fn on_restorer_ended(&mut self, how: Ended, now: MonotonicMs) {
        if matches!(
            self.state,
            State::Restoring | State::Standby | State::Cancelling { .. }
        ) {
            self.liveness.end();
        }
        match self.state {
            State::Restoring | State::Standby => match how {
                Ended::Exited(0) => {
                    self.handed_over = None;
                    // The watcher first, so that it sees the gateway's first write.
                    self.spawn_watcher(now);
                    self.first_start(now, Cause::RestorerEnded(how));
                }
                Ended::Exited(
                    code @ (exit::STORE_UNAVAILABLE | exit::FENCED | exit::CONFIG | exit::INTERNAL),
                ) => self.exit(code, Saved::Nothing, Cause::RestorerEnded(how)),
                _ => self.exit(exit::INTERNAL, Saved::Nothing, Cause::RestorerEnded(how)),
            },
            State::Cancelling { signal, .. } => {
                let (code, saved) = self.verdict_without_gateway(signal);
                self.exit(code, saved, Cause::RestorerEnded(how));
            }
            _ => {}
        }
    }

    fn on_watcher_ended(&mut self, how: Ended, now: MonotonicMs) {
        let Some(delay) = self.watcher.died(now) else {
            return;
        };
        self.liveness.end();
        // It may have frozen the gateway for a snapshot and died before it let it go on.
        self.act(Action::SignalDescendants(libc::SIGCONT));
        if self.lifecycle() == Lifecycle::Fenced {
            self.watcher = Watcher::Unwanted;
            self.on_watcher_ended_fenced();
            return;
        }
        if matches!(self.state, State::Flushing(_)) {
            self.on_watcher_ended_flushing(how, now);
            return;
        }
        if how == Ended::Exited(exit::FENCED) {
            self.watcher = Watcher::Unwanted;
            self.fence("the watcher lost the session".to_owned(), now);
            return;
        }
        self.act(Action::Note(Note::WatcherDied { how, delay }));
        if self.crashes.is_loop(now) {
            self.act(Action::Note(Note::WatcherCrashLoop(how)));
        }
        if delay.is_zero() {
            self.spawn_watcher(now);
        }
    }

    fn on_gateway_ended(&mut self, how: Ended, now: MonotonicMs) {
        match &mut self.state {
            State::Up { since, .. } => {
                if now >= since.after(STABLE) {
                    self.in_a_row = 0;
                }
                self.act(Action::Note(Note::GatewayEnded(how)));
                self.ended_by_itself(how, now);
            }
            State::Ending(ending) if ending.main.is_none() => {
                ending.main = Some(how);
                self.untold = true;
                self.act(Action::Note(Note::GatewayEnded(how)));
                self.act(Action::CountDescendants);
            }
            _ => {}
        }
    }

    fn ended_by_itself(&mut self, how: Ended, now: MonotonicMs) {
        let wanted = how.may_pass()
            && match self.plan.restart {
                RestartPolicy::No => false,
                RestartPolicy::OnFailure => how.code() != 0,
                RestartPolicy::Always => true,
            };
        let again = wanted && self.in_a_row < self.plan.attempts;
        let kill_at = now.after(self.plan.grace());
        let (then, end_at) = if again {
            let delay = jittered(
                doubling(self.in_a_row),
                self.plan.jitter_seed,
                self.in_a_row,
            );
            let delay = delay + self.stagger();
            self.in_a_row += 1;
            self.act(Action::Note(Note::GatewayAgain {
                delay,
                attempt: self.in_a_row,
            }));
            let until = now.after(delay);
            (Then::Restart { until }, kill_at.after(UNKILLABLE))
        } else {
            if wanted {
                let attempts = self.in_a_row;
                self.act(Action::Note(Note::GaveUp { attempts }));
            }
            let stop = Stop {
                since: now,
                signal: None,
            };
            (Then::Flush(stop), now.after(self.plan.total))
        };
        let ending = Ending::new(then, Some(how), kill_at, end_at);
        self.transition(State::Ending(ending), Cause::GatewayEnded(how));
        self.act(Action::CountDescendants);
    }

    fn on_control(&mut self, message: ToInit, now: MonotonicMs) {
        match message {
            ToInit::Alive {
                next_by,
                lease_ends,
            } => self.on_alive(next_by, lease_ends, now),
            ToInit::Ready => self.act(Action::Note(Note::WatcherReady)),
            // Not of the lifecycle: the executor has seen to it.
            ToInit::Followed => {}
            ToInit::GatewayReady => {
                if let State::Up { since, .. } = self.state {
                    let answered = true;
                    self.transition(State::Up { since, answered }, Cause::GatewayAnswered);
                }
            }
            ToInit::Standby { waiting } => match (&self.state, waiting) {
                (State::Restoring, true) => self.transition(State::Standby, Cause::OwnedByAnother),
                (State::Standby, false) => self.transition(State::Restoring, Cause::OwnershipCame),
                _ => {}
            },
            ToInit::LeaseLost { reason } => self.fence(reason, now),
            ToInit::TakeoverRequested { by } => self.on_takeover_requested(by, now),
            ToInit::LeaseEnding { by } => {
                self.liveness.forget_lease();
                self.on_lease_ending(by, now);
            }
            ToInit::Flushed { seq } => self.on_flush_answer(Saved::All(seq), now),
            ToInit::FlushedExcept { seq, reason } => {
                self.on_flush_answer(Saved::Except(seq, reason), now);
            }
            ToInit::FlushFailed { reason } => self.on_flush_answer(Saved::Not(reason), now),
        }
    }

    fn on_signal(&mut self, signal: i32, now: MonotonicMs) {
        let received = signal;
        let Some(signal) = self.plan.rewrites.apply(received) else {
            return;
        };
        // What tells us to stop does so whatever the gateway gets in its place. A container that
        // is told to stop and goes on would be killed before it could save anything.
        if is_stop(received) || is_stop(signal) {
            self.on_stop_signal(signal, now);
        } else if matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
            self.on_suspend_signal(signal);
        } else if signal == libc::SIGCONT && self.suspended {
            self.resume();
        } else if self.gateway_is_alive() {
            self.pass_on(signal);
        }
    }

    /// Sends a signal to as much of the gateway as the plan says.
    fn pass_on(&mut self, signal: i32) {
        self.act(match self.plan.reach {
            Reach::Main => Action::SignalMain(signal),
            Reach::Group => Action::SignalGroup(signal),
        });
    }

    /// The gateway gets STOP in place of the terminal's signals: those mean nothing to a process
    /// group that no shell looks after, and the kernel discards them there.
    fn on_suspend_signal(&mut self, signal: i32) {
        match self.state {
            State::Up { .. } => {
                self.suspended = true;
                self.act(Action::SignalGroup(libc::SIGSTOP));
                self.act(Action::Suspend);
            }
            State::Ending(_) | State::Cancelling { .. } | State::Flushing(_) => {
                self.act(Action::Note(Note::NotSuspended(signal)));
            }
            _ => self.act(Action::Suspend),
        }
    }

    /// The terminal stopped the gateway, and not us. A shell above us learns of it by our own stop;
    /// without one, and in the middle of a stop, the gateway goes on at once.
    fn on_gateway_stopped(&mut self, resumer: Resumer) {
        match (&self.state, resumer) {
            (State::Up { .. }, Resumer::Shell) => {
                self.suspended = true;
                self.act(Action::SuspendJob);
            }
            // What was suspended by a signal that was sent to us waits for the next such signal.
            (State::Up { .. }, Resumer::Nobody) if !self.suspended => {
                self.act(Action::SignalGroup(libc::SIGCONT));
            }
            (State::Ending(_), _) => self.act(Action::SignalGroup(libc::SIGCONT)),
            _ => {}
        }
    }

    /// Lets a gateway go on that was suspended. What is stopped cannot end in order.
    fn resume(&mut self) {
        if std::mem::take(&mut self.suspended) {
            self.act(Action::SignalGroup(libc::SIGCONT));
        }
    }

    fn gateway_is_alive(&self) -> bool {
        match &self.state {
            State::Up { .. } => true,
            State::Ending(ending) => ending.main.is_none(),
            _ => false,
        }
    }

    fn on_deadline(&mut self, now: MonotonicMs) {
        // First of all: a gateway is not started when its lease is over.
        self.on_lease_deadline(now);
        match self.state {
            State::Cancelling { .. } => self.on_cancelling_deadline(now),
            State::Ending(_) => self.on_ending_deadline(now),
            State::Backoff { until, last } if now >= until => {
                self.restarts += u32::from(last.is_some());
                self.start_gateway(now, Cause::DelayOver);
            }
            State::Flushing(_) => self.on_flushing_deadline(now),
            _ => {}
        }
        self.on_liveness_deadline(now);
        if self.watcher.due().is_some_and(|at| now >= at) {
            self.spawn_watcher(now);
        }
    }
}
