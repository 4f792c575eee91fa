//! What happens to the machine, and what it wants done: the words that it and the executor share.

use std::fmt;
use std::time::Duration;

use crate::options::{ExitMap, Options, Reach, Rewrites, Scope};
use crate::setup::{AtLeaseEnd, RestartPolicy, Setup, Storage};
use sessionkeep_core::control::{Lifecycle, MonotonicMs, Stall, ToInit};
use sessionkeep_core::exit;

/// Which of our own children it is. What the gateway leaves behind has no role: it is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `sessionkeep restore`: brings the directory to the store's state, then exits.
    Restorer,
    /// `sessionkeep watch`: replicates changes until it is told to flush.
    Watcher,
    /// The gateway's main process.
    Gateway,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restorer => "restorer",
            Self::Watcher => "watcher",
            Self::Gateway => "gateway",
        })
    }
}

/// Why a child was never started, split by the exit code it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpawnError {
    /// There is no such program (or its interpreter is missing).
    NotFound,
    /// It is there but may not, or cannot, be executed.
    CannotExecute,
    /// The machine has no process or memory left just now; trying again may help.
    NoResources,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// It returned this code.
    Exited(u8),
    /// This signal killed it.
    Killed(i32),
    /// It never ran.
    NotStarted(SpawnError),
}

impl Ended {
    /// The number that a shell would show for it. The only place where an ending becomes one.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => {
                exit::SIGNAL_BASE.saturating_add(u8::try_from(signal).unwrap_or(0))
            }
            Self::NotStarted(SpawnError::NotFound) => exit::NOT_FOUND,
            Self::NotStarted(SpawnError::CannotExecute | SpawnError::NoResources) => {
                exit::CANNOT_EXECUTE
            }
        }
    }

    /// Whether starting the same command again could end differently.
    pub(super) fn may_pass(self) -> bool {
        !matches!(
            self,
            Self::NotStarted(SpawnError::NotFound | SpawnError::CannotExecute)
        )
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::NotStarted(SpawnError::NotFound) => f.write_str("not found"),
            Self::NotStarted(SpawnError::CannotExecute) => f.write_str("cannot be executed"),
            Self::NotStarted(SpawnError::NoResources) => f.write_str("no resources to start it"),
        }
    }
}

/// Whether there is something to restore and commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// There is a store: restore first, flush at the end.
    Store,
    /// The directory itself is the storage: nothing to restore.
    File,
    /// There is no session: only the gateway.
    InitOnly,
}

/// How it is known that the gateway is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The watcher says so when the probe answers.
    Probe,
    /// It is up when it runs.
    AtOnce,
}

/// What the machine goes by for its whole life.
#[derive(Debug, Clone)]
pub struct InitPlan {
    /// Whether there is something to restore and commit.
    pub mode: Mode,
    /// How it is known that the gateway is up.
    pub readiness: Readiness,
    /// From the first stop signal until exit.
    pub total: Duration,
    /// The part of `total` that is kept for the flush.
    pub flush: Duration,
    /// Whether a gateway that ended by itself is started again.
    pub restart: RestartPolicy,
    /// How often in a row.
    pub attempts: u32,
    /// Up to how long a start of the gateway is put off, so that many containers that are started
    /// together do not all begin at once.
    pub stagger: Duration,
    /// Where the jitter of restart delays comes from, so that many containers that fail together
    /// do not come back together, and the machine stays a function of its inputs.
    pub jitter_seed: u64,
    /// Exit codes that are exchanged for others, last of all.
    pub map_exit: ExitMap,
    /// Signals that are exchanged for others, first of all.
    pub rewrites: Rewrites,
    /// Who of the gateway gets a signal.
    pub reach: Reach,
    /// How long a helper that is silent has after it was told to go on, before it is killed.
    pub patience: Duration,
    /// How long before the lease ends the gateway is told to, where nobody has renewed it; `None`
    /// where the gateway is to go on all the same.
    pub lease_margin: Option<Duration>,
}

/// What [`InitPlan::patience`] is at least: a machine that is short of processor time is no hung one.
const PATIENCE: Duration = Duration::from_millis(2500);

impl InitPlan {
    /// The plan that a setup asks for.
    #[must_use]
    pub fn new(setup: &Setup, options: &Options, jitter_seed: u64) -> Self {
        let mode = match options.scope {
            Scope::InitOnly => Mode::InitOnly,
            Scope::Session if setup.storage == Storage::Directory => Mode::File,
            Scope::Session => Mode::Store,
        };
        Self {
            mode,
            readiness: match (setup.has_probe, mode) {
                (true, Mode::Store | Mode::File) => Readiness::Probe,
                (false, _) | (_, Mode::InitOnly) => Readiness::AtOnce,
            },
            total: setup.stop_total,
            flush: match mode {
                Mode::InitOnly => Duration::ZERO,
                Mode::Store | Mode::File => setup.stop_flush,
            },
            restart: setup.restart,
            attempts: setup.attempts,
            stagger: setup.stagger,
            jitter_seed,
            map_exit: options.map_exit.clone(),
            rewrites: options.rewrites.clone(),
            reach: options.reach,
            patience: PATIENCE.max(setup.lease_ttl / 6),
            // The watcher says so when a third of it is left. This is for one that cannot.
            lease_margin: match (setup.at_lease_end, mode) {
                (AtLeaseEnd::Stop, Mode::Store) => Some(setup.lease_ttl / 4),
                _ => None,
            },
        }
    }

    /// What to exit with after a gateway that ended like this, or after a stop before it was
    /// started. Only a code that is the gateway's own is exchanged, and only here: whether it is
    /// started again goes by the code that it gave.
    pub(super) fn code(&self, ended: Ended) -> u8 {
        match ended {
            Ended::Exited(_) | Ended::Killed(_) => self.map_exit.apply(ended.code()),
            Ended::NotStarted(_) => ended.code(),
        }
    }

    /// The same where the last changes are not saved. A gateway that ended well, or whose end is
    /// to count as one, must not hide that.
    pub(super) fn code_unsaved(&self, ended: Ended) -> u8 {
        if self.mode == Mode::InitOnly {
            return self.code(ended);
        }
        match (ended.code(), self.code(ended)) {
            (0, _) | (_, 0) => exit::FLUSH_FAILED,
            (_, mapped) => mapped,
        }
    }

    /// How long the gateway has to stop before it is killed.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.total.saturating_sub(self.flush)
    }
}

/// Who lets a job go on that its terminal has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumer {
    /// A shell with job control, when its user says so.
    Shell,
    /// Nobody: we are all there is in the session.
    Nobody,
}

/// Everything that can reach the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The executor is ready to carry out actions.
    Started,
    /// Directory, lock and command are as they must be.
    PreflightDone,
    /// They are not; the reason has been logged.
    PreflightFailed {
        /// What to exit with.
        code: u8,
    },
    /// One of our own children ended.
    ChildExited {
        /// Which.
        role: Role,
        /// How.
        how: Ended,
    },
    /// Processes that the gateway left behind have ended.
    OrphansReaped {
        /// How many.
        count: u32,
    },
    /// [`Action::Spawn`] did not succeed.
    SpawnFailed {
        /// Which child.
        role: Role,
        /// Why.
        error: SpawnError,
    },
    /// A signal stopped a helper.
    HelperStopped(Role),
    /// The terminal's suspend key stopped the gateway.
    GatewayStopped(Resumer),
    /// A signal was sent to us (never SIGCHLD).
    Signal(i32),
    /// A helper said something.
    Control(ToInit),
    /// Answer to [`Action::CountDescendants`]: none is left.
    DescendantsGone,
    /// Answer to [`Action::CountDescendants`]: some are left.
    DescendantsLeft {
        /// How many.
        count: usize,
    },
    /// [`super::Machine::deadline`] has passed.
    DeadlineReached,
}

/// What the executor shall do. Actions of one step are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Check directory, lock and command; answer `PreflightDone` or `PreflightFailed`.
    Preflight,
    /// Start a child.
    Spawn(Role),
    /// Send a signal to the gateway's main process, if there is one.
    SignalMain(i32),
    /// Send a signal to the process group of the gateway's main process, if that is alive.
    SignalGroup(i32),
    /// Stop this process until it is told to go on, unless it is PID 1.
    Suspend,
    /// Stop this process and all that stands in its process group until they are told to go on.
    SuspendJob,
    /// Send a signal to everything that descends from us but our helpers.
    SignalDescendants(i32),
    /// Send a signal to a helper, if it is alive.
    SignalHelper(Role, i32),
    /// Look which descendants are alive; answer `DescendantsGone` or `DescendantsLeft`.
    CountDescendants,
    /// Tell the watcher where we are.
    SendLifecycle,
    /// Tell the watcher what kept it, or the one before, from its work.
    SendStalled(Stall),
    /// Tell the watcher to save everything.
    SendFlush {
        /// When we stop waiting for it.
        deadline: MonotonicMs,
    },
    /// Log a change of state.
    Transition {
        /// What it was.
        from: Lifecycle,
        /// What it is.
        to: Lifecycle,
        /// What made it so.
        cause: Cause,
    },
    /// Log something that is no change of state.
    Note(Note),
    /// It is over.
    Exit(ExitVerdict),
}

/// What made the state change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Directory, lock and command are good.
    PreflightPassed,
    /// Directory, lock or command are not.
    PreflightFailed,
    /// The restorer ended.
    RestorerEnded(Ended),
    /// Another instance owns the session.
    OwnedByAnother,
    /// It no longer does.
    OwnershipCame,
    /// The gateway answered its probe.
    GatewayAnswered,
    /// The gateway was started, and nothing says how to probe it.
    NoProbe,
    /// The gateway ended by itself.
    GatewayEnded(Ended),
    /// The delay before the next start is over.
    DelayOver,
    /// We were told to stop.
    Signal(i32),
    /// Another instance took the session over.
    Fenced(String),
    /// Another instance asks for the session.
    TakeoverRequested(String),
    /// The lease runs out and cannot be renewed.
    LeaseEnding,
    /// Way was made for another instance.
    MadeWay,
    /// Nothing of the gateway is left.
    AllGone,
    /// The flush ended.
    FlushEnded,
    /// The time is up.
    TimeUp,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreflightPassed => f.write_str("preflight passed"),
            Self::PreflightFailed => f.write_str("preflight failed"),
            Self::RestorerEnded(how @ Ended::Killed(_)) => write!(
                f,
                "restore {how}: see who sends signals to it, and whether memory ran out (KILL); nothing is lost, start it again"
            ),
            Self::RestorerEnded(how) => write!(f, "restore {how}"),
            Self::OwnedByAnother => f.write_str("another instance owns the session"),
            Self::OwnershipCame => f.write_str("the session is ours"),
            Self::GatewayAnswered => f.write_str("gateway answered"),
            Self::NoProbe => f.write_str("gateway started, no probe configured"),
            Self::GatewayEnded(how) => write!(f, "gateway {how}"),
            Self::DelayOver => f.write_str("restart delay over"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Fenced(reason) => write!(f, "fenced: {reason}"),
            Self::TakeoverRequested(by) => write!(f, "{by} asks for the session"),
            Self::LeaseEnding => f.write_str("the lease runs out and cannot be renewed"),
            Self::MadeWay => f.write_str("made way"),
            Self::AllGone => f.write_str("no process of the gateway is left"),
            Self::FlushEnded => f.write_str("flush ended"),
            Self::TimeUp => f.write_str("time is up"),
        }
    }
}

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The gateway's main process ended.
    GatewayEnded(Ended),
    /// It is started again after a delay.
    GatewayAgain {
        /// How long from now.
        delay: Duration,
        /// The how-manieth start in a row this will be.
        attempt: u32,
    },
    /// It failed too often in a row.
    GaveUp {
        /// How often it was started again.
        attempts: u32,
    },
    /// The watcher died and is started again after a delay.
    WatcherDied {
        /// How it ended.
        how: Ended,
        /// How long from now.
        delay: Duration,
    },
    /// The gateway's first start is put off by a random delay.
    Staggered(Duration),
    /// The watcher died five times within a minute. Said once, until it has lived for a minute.
    WatcherCrashLoop(Ended),
    /// Signals stop a helper. Said once a minute at most.
    HelperStopped {
        /// Which.
        role: Role,
        /// How often since that was last said.
        times: u32,
    },
    /// A helper gives no sign of life, and is told to go on.
    HelperSilent(Role),
    /// It still gives none, and is killed.
    HelperKilled(Role),
    /// Nobody has renewed the lease, and the watcher does not say why.
    LeaseNotRenewed,
    /// The watcher sees every change from here on.
    WatcherReady,
    /// Another instance asks for the session, too soon after a handover that failed.
    TakeoverRefused(String),
    /// The last changes could not be saved, so that the session stays here.
    HandoverFailed(String),
    /// A second stop signal came: the gateway has no grace left.
    StopAtOnce(i32),
    /// A stop signal came while saving; saving goes on.
    StillFlushing(i32),
    /// A signal would have suspended us in the middle of a stop, which goes on instead.
    NotSuspended(i32),
    /// The main process is gone and others of the gateway are left.
    Leftovers(usize),
    /// The grace is over: what is left is killed.
    Killing,
    /// Processes survive even KILL (stuck in the kernel).
    Unkillable,
}

/// What became of the last changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// No gateway ran, so that there was nothing to save.
    Nothing,
    /// No session is kept.
    Unwanted,
    /// All is saved, up to this commit.
    All(u64),
    /// All that may be is saved, up to this commit; for this reason something may not.
    Except(u64, String),
    /// The last changes are not saved, for this reason.
    Not(String),
}

/// How this life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitVerdict {
    /// What to exit with.
    pub code: u8,
    /// What became of the last changes.
    pub saved: Saved,
}
