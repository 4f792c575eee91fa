//! Carries out what the machine wants, and tells it what happens: one `poll` over signals, the
//! control channel and the nearest deadline, in one thread.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, error, info, warn};

use super::channel::Channel;
use super::child;
use super::descendants::{Descendants, Sight};
use super::fork::{self, Side};
use super::lock::DirLock;
use super::machine::{Action, Event, ExitVerdict, InitPlan, Machine, Role, SpawnError};
use super::options::{Options, Reaping, Scope};
use super::preflight::{self, PreflightError};
use super::reaper::{Children, Names, Orphan, Stops};
use super::report::Report;
use super::signals::{Received, Signals};
use super::terminal::{Placement, Terminal};
use super::{browser_locks, listeners, place, rights, visible};
use crate::setup::Setup;
use sessionkeep_core::control::{Handover, Helpers, Lifecycle, MonotonicMs, ToInit, ToWatcher};
use sessionkeep_core::exit;
use sessionkeep_core::memory::give_back;
use sessionkeep_core::record::InstanceId;

/// Everything that PID 1 owns.
pub(super) struct Executor<'a> {
    setup: &'a Setup,
    options: &'a Options,
    helpers: &'a dyn Helpers,
    command: Vec<OsString>,
    gateway_environment: Vec<(OsString, OsString)>,
    instance: InstanceId,
    /// Given to the first helpers only: once they have continued its lease, it is history.
    predecessor: Option<String>,
    machine: Machine,
    events: VecDeque<Event>,
    signals: Signals,
    children: Children,
    descendants: Descendants,
    /// To the one helper that runs.
    channel: Option<Channel>,
    /// None where HTTP is off or its port was taken.
    http: Vec<TcpListener>,
    terminal: Option<Terminal>,
    /// Whether what only the start needed can be given back.
    start_is_over: bool,
    /// Held until the executor is gone.
    lock: Option<DirLock>,
    report: Report,
}

impl<'a> Executor<'a> {
    pub(super) fn new(
        setup: &'a Setup,
        options: &'a Options,
        helpers: &'a dyn Helpers,
        command: Vec<OsString>,
        instance: InstanceId,
        plan: InitPlan,
        signals: Signals,
    ) -> Self {
        let gateway_environment = child::scrub(std::env::vars_os());
        // The settings have been read, and what the gateway gets has just been.
        visible::wipe(setup.secret_argument);
        let terminal = Terminal::open();
        let stops = match terminal {
            Some(_) => Stops::Matter,
            None => Stops::Pass,
        };
        let names = match options.reaping {
            Reaping::Silent => Names::Unwanted,
            Reaping::Warn => Names::Wanted,
        };
        Self {
            setup,
            options,
            helpers,
            command,
            gateway_environment,
            instance,
            predecessor: None,
            machine: Machine::new(plan),
            events: VecDeque::from([Event::Started]),
            signals,
            children: Children::new(names, stops),
            descendants: Descendants::new(),
            channel: None,
            http: Vec::new(),
            lock: None,
            terminal,
            start_is_over: false,
            report: Report::new(MonotonicMs::now()),
        }
    }

    /// Runs until it is over.
    pub(super) fn run(mut self) -> io::Result<u8> {
        if self.descendants.sight() == Sight::GroupOnly {
            warn!(
                target: "init",
                "cannot see processes: /proc is not mounted, or is another namespace's; \
                 detached processes of the gateway will not be waited for"
            );
        }
        loop {
            while let Some(event) = self.events.pop_front() {
                let now = MonotonicMs::now();
                debug!(target: "init", ?event, "event");
                for action in self.machine.step(event, now) {
                    if let Some(verdict) = self.perform(action, now) {
                        let state = self.lock.as_ref().map(|lock| lock.state().presence());
                        self.report.last(&verdict, state, now);
                        return Ok(verdict.code);
                    }
                }
            }
            self.wait()?;
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        // As late as can be: what is done after it is mapped again.
        if std::mem::take(&mut self.start_is_over) {
            give_back();
        }
        let now = MonotonicMs::now();
        let deadline = self.machine.deadline();
        if deadline.is_some_and(|at| at <= now) {
            self.events.push_back(Event::DeadlineReached);
        }
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(at) => PollTimeout::try_from(at.until(now)).unwrap_or(PollTimeout::MAX),
        };
        let (signalled, talked) = {
            let mut fds = Vec::with_capacity(2);
            fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
            if let Some(channel) = self.channel.as_ref().filter(|c| c.is_open()) {
                let mut wanted = PollFlags::POLLIN;
                wanted.set(PollFlags::POLLOUT, channel.wants_to_write());
                fds.push(PollFd::new(channel.as_fd(), wanted));
            }
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ready = |fd: Option<&PollFd<'_>>| {
                fd.and_then(PollFd::revents)
                    .is_some_and(|found| !found.is_empty())
            };
            (ready(fds.first()), ready(fds.get(1)))
        };
        if talked {
            self.talk();
        }
        if signalled {
            for received in self.signals.read()? {
                match received {
                    Received::Child => self.reap(),
                    Received::Other { signal, sender } => {
                        debug!(target: "init", signal, sender, "signal received");
                        self.events.push_back(Event::Signal(signal));
                    }
                }
            }
        }
        Ok(())
    }

    fn talk(&mut self) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        channel.write();
        let mut followed = false;
        for message in channel.read() {
            match message {
                Ok(message) => {
                    if message == ToInit::Followed {
                        followed = true;
                    }
                    // Often the last thing that a start brings.
                    self.start_is_over |= message == ToInit::Ready;
                    self.events.push_back(Event::Control(message));
                }
                Err(error) => warn!(target: "init", %error, "bad control message"),
            }
        }
        if followed && let Some(lock) = &mut self.lock {
            match lock.follow() {
                Ok(()) => {
                    info!(target: "init", "the session directory was made anew; its lock is held there now");
                }
                Err(error) => {
                    error!(target: "init", %error, "the session directory was made anew, and its lock could not be taken");
                }
            }
        }
    }

    fn reap(&mut self) {
        let reaped = self.children.reap();
        for (role, how) in reaped.known {
            if role == Role::Gateway {
                // A person's next key is for us: we may still be saving.
                self.take_terminal_back();
            } else {
                // What it said last comes before its end.
                self.talk();
                self.channel = None;
            }
            self.events.push_back(Event::ChildExited { role, how });
        }
        for role in reaped.halted {
            self.events.push_back(Event::HelperStopped(role));
        }
        if let (Some(signal), Some(terminal)) = (reaped.stopped, &self.terminal) {
            let resumer = terminal.resumer();
            debug!(target: "init", signal, ?resumer, "gateway stopped by its terminal");
            self.events.push_back(Event::GatewayStopped(resumer));
        }
        if !reaped.orphans.is_empty() {
            if self.options.reaping == Reaping::Warn {
                for Orphan { pid, how, name } in &reaped.orphans {
                    warn!(target: "init", pid, name, %how, "orphan reaped");
                }
            }
            let count = u32::try_from(reaped.orphans.len()).unwrap_or(u32::MAX);
            debug!(target: "init", count, "orphans reaped");
            self.events.push_back(Event::OrphansReaped { count });
        }
    }

    fn perform(&mut self, action: Action, now: MonotonicMs) -> Option<ExitVerdict> {
        match action {
            Action::Preflight => self.preflight(),
            Action::Spawn(role) => self.spawn(role),
            Action::SignalMain(signal) => {
                self.children.signal(Role::Gateway, signal);
            }
            Action::SignalGroup(signal) => {
                if signal == libc::SIGCONT
                    && let Some(terminal) = &mut self.terminal
                    && let Some(group) = self.children.pid(Role::Gateway)
                {
                    terminal.give(group);
                }
                self.children.signal_group(Role::Gateway, signal);
            }
            Action::Suspend => suspend(std::process::id().cast_signed()),
            // All of the shell's job: whatever stands beside us in a pipeline, too.
            Action::SuspendJob => suspend(0),
            Action::SignalDescendants(signal) => {
                self.descendants.signal(&self.children.helpers(), signal);
            }
            Action::SignalHelper(role, signal) => {
                self.children.signal(role, signal);
            }
            Action::CountDescendants => {
                let event = match self.descendants.count(&self.children.helpers()) {
                    0 => Event::DescendantsGone,
                    count => Event::DescendantsLeft { count },
                };
                self.events.push_back(event);
            }
            Action::SendLifecycle => self.send(&ToWatcher::Lifecycle {
                state: self.machine.lifecycle(),
                gateway_pid: self.children.pid(Role::Gateway),
                restarts: self.machine.restarts(),
            }),
            Action::SendStalled(how) => self.send(&ToWatcher::Stalled { how }),
            Action::SendFlush { deadline } => self.send(&ToWatcher::Flush { deadline }),
            Action::Transition { from, to, cause } => {
                self.report.transition(from, to, &cause, now);
                if to == Lifecycle::Running {
                    self.start_is_over = true;
                }
            }
            Action::Note(note) => self.report.note(&note),
            Action::Exit(verdict) => {
                self.take_terminal_back();
                return Some(verdict);
            }
        }
        None
    }

    fn send(&mut self, message: &ToWatcher) {
        // A watcher that is gone or stuck is noticed by its end or by the deadline.
        if let Some(channel) = &mut self.channel
            && !channel.send(message)
        {
            warn!(target: "init", what = message.word(), "watcher does not take messages");
        }
    }

    fn take_terminal_back(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take_back();
        }
    }

    fn preflight(&mut self) {
        let checked = match self.options.scope {
            Scope::Session => self.preflight_session(),
            Scope::InitOnly => preflight::command(&self.command),
        };
        let event = match checked {
            Ok(()) => Event::PreflightDone,
            Err(failure) => {
                let cause = std::error::Error::source(&failure).map(ToString::to_string);
                error!(target: "init", error = %failure, cause, "preflight failed");
                let code = failure.code();
                Event::PreflightFailed { code }
            }
        };
        self.events.push_back(event);
    }

    fn preflight_session(&mut self) -> Result<(), PreflightError> {
        rights::warn_without_override();
        match listeners::open(&self.setup.http) {
            Ok(listeners) => {
                let http = &self.setup.http;
                if !listeners.is_empty() && http.bind.is_none() && !http.is_protected {
                    info!(target: "init", port = http.port, "health and dashboard are for this container alone; set ADMIN_TOKEN to reach them from outside");
                }
                for setting in http.guessable.iter().filter(|_| !listeners.is_empty()) {
                    warn!(target: "init", setting, at_least = http.unguessable_len, "a token or password of the dashboard is short enough to be guessed; choose a longer one");
                }
                self.http = listeners;
            }
            Err(error) => {
                let port = self.setup.http.port;
                warn!(target: "init", port, %error, "cannot listen for HTTP; going on without health, metrics and dashboard. Stop what has the port, or choose another with http.port");
            }
        }
        place::check(&self.setup.dir, &self.setup.storage)?;
        self.lock = Some(preflight::check(
            &self.setup.dir,
            self.setup.dir_owner,
            &self.command,
        )?);
        self.predecessor = self.lock.as_ref().and_then(DirLock::predecessor);
        for profile in browser_locks::remove_stale(&self.setup.dir, &super::host()) {
            let profile = profile.display();
            info!(target: "init", %profile, "a lock that a browser had left behind was removed");
        }
        Ok(())
    }

    fn spawn(&mut self, role: Role) {
        let spawned = match role {
            Role::Gateway => self.spawn_gateway(),
            Role::Restorer => self.spawn_helper(role),
            Role::Watcher => {
                let spawned = self.spawn_helper(role);
                self.predecessor = None;
                spawned
            }
        };
        match spawned {
            Ok(pid) => info!(target: "init", %role, pid, "started"),
            Err(failure) => {
                let error = match role {
                    Role::Gateway => child::spawn_error(&failure),
                    Role::Restorer | Role::Watcher => SpawnError::NoResources,
                };
                let limit = "raise `pids_limit` (Docker, Compose), the pod's limit (Kubernetes) or `ulimit -u`";
                let remedy = (failure.raw_os_error() == Some(libc::EAGAIN)).then_some(limit);
                error!(target: "init", %role, error = %failure, remedy, "failed to start");
                self.events.push_back(Event::SpawnFailed { role, error });
            }
        }
    }

    fn spawn_gateway(&mut self) -> io::Result<i32> {
        let inherited = self.signals.inherited();
        let placement = match &self.terminal {
            Some(terminal) => terminal.placement(),
            None => Placement::OwnSession,
        };
        let environment = &self.gateway_environment;
        let mut command = child::gateway(&self.command, environment, placement, inherited);
        let pid = self.children.spawn(Role::Gateway, &mut command)?;
        if let (Some(terminal), Placement::Foreground) = (&mut self.terminal, placement) {
            terminal.was_given(pid);
        }
        self.descendants.add_group(pid);
        Ok(pid)
    }

    /// Returns in init only: the child is the helper, and ends with it.
    fn spawn_helper(&mut self, role: Role) -> io::Result<i32> {
        let (channel, theirs) = Channel::new()?;
        // SAFETY: it only asks for our own id.
        let parent = unsafe { libc::getpid() };
        match fork::fork()? {
            Side::Parent(pid) => {
                self.children.enter(role, pid);
                self.channel = Some(channel);
                Ok(pid)
            }
            Side::Child => std::process::exit(i32::from(self.be_helper(role, theirs, parent))),
        }
    }

    /// What a helper does, in its own process.
    fn be_helper(&self, role: Role, control: OwnedFd, parent: i32) -> u8 {
        let Some(lock) = &self.lock else {
            error!(target: "init", %role, "failed to start: the session directory is not held");
            return exit::INTERNAL;
        };
        let state = lock.state().clone();
        let http: Vec<RawFd> = self.http.iter().map(AsRawFd::as_raw_fd).collect();
        let mut keep = vec![control.as_raw_fd()];
        keep.extend(self.helpers.descriptors());
        keep.extend(&http);
        keep.extend(state.descriptors());
        let inherited = self.signals.inherited();
        if let Err(error) = fork::become_helper(parent, inherited, &keep) {
            error!(target: "init", %role, %error, "failed to start");
            return exit::INTERNAL;
        }
        let handover = Handover {
            instance: self.instance.clone(),
            predecessor: self
                .predecessor
                .as_deref()
                .and_then(|name| name.parse().ok()),
            handed_over: self.machine.has_handed_over(),
            state,
            control,
            http: http.into_iter().map(owned).collect(),
        };
        match role {
            Role::Restorer => {
                visible::rename(&["sessionkeep", "restore"]);
                self.helpers.restore(handover)
            }
            Role::Watcher | Role::Gateway => {
                visible::rename(&["sessionkeep", "watch"]);
                self.helpers.watch(handover)
            }
        }
    }
}

/// A listening socket that a helper has from the fork.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: it is open, and the listener that has this number in the helper, too, is never dropped
    // there.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Stops this process (or, where `whom` is 0, its process group) until somebody lets it go on.
/// PID 1 of a container has nobody who would, and the kernel does not let it stop itself either.
fn suspend(whom: i32) {
    if std::process::id() != 1 {
        // SAFETY: `kill` touches no memory of ours.
        unsafe { libc::kill(whom, libc::SIGSTOP) };
    }
}
