//! Ending the gateway and all it left behind: one ordered story for a stop, for the leftovers
//! before another start, for making way, and for a life that is fenced.
//!
//! The main process gets the signal; when it is gone, what is left of its descendants gets TERM;
//! at the deadline whatever is left gets KILL, again and again, until nothing is.

use std::time::Duration;

use super::flushing::Aim;
use super::handover::Why;
use super::{
    Action, Cause, Ended, Flushing, Kill, Machine, Mode, MonotonicMs, Note, Role, Saved, State,
    Watcher,
};
use sessionkeep_core::exit;

/// How long a fenced gateway has before it is killed: another instance may be starting the same
/// login right now, and nothing that this one still writes can be saved.
const FENCED_GRACE: Duration = Duration::from_secs(1);
/// How long a fenced life waits for what KILL does not end.
const FENCED_END: Duration = Duration::from_secs(3);
/// How long the watcher of a fenced life may take to tell of it, when the gateway is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often KILL is repeated. A process may be forked while its siblings are being looked up.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// How long a kill may take to show, even where the budget is used up: by a grace as long as the
/// whole budget, or by a machine that was paused and finds all its deadlines passed at once.
const KILL_SHOWS: Duration = Duration::from_millis(500);
/// What a flush gets at least, for the same cases, unless less is configured for it.
pub(super) const FLUSH_LEAST: Duration = Duration::from_secs(1);

/// Since when, and why, we are stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) since: MonotonicMs,
    /// `None` where the gateway ended by itself.
    pub(super) signal: Option<i32>,
}

/// What comes when nothing of the gateway is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Save everything and exit.
    Flush(Stop),
    /// Start it again, not before then.
    Restart { until: MonotonicMs },
    /// Save everything and wait for another turn.
    MakeWay(Why),
    /// Exit and save nothing.
    Fence,
}

/// Whether the descendants beyond the main process were told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Only the main process was.
    Main,
    /// All were.
    All,
}

/// A gateway that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) then: Then,
    /// How the main process ended; `None` while it is alive.
    pub(super) main: Option<Ended>,
    told: Told,
    kill: Kill,
    /// Nothing of the gateway is left, and the watcher tells of the end.
    leaving: bool,
    /// When waiting ends, whatever is still alive.
    end_at: MonotonicMs,
}

impl Ending {
    pub(super) fn new(
        then: Then,
        main: Option<Ended>,
        kill_at: MonotonicMs,
        end_at: MonotonicMs,
    ) -> Self {
        Self {
            then,
            main,
            told: Told::Main,
            kill: Kill::At(kill_at),
            leaving: false,
            end_at,
        }
    }

    pub(super) fn deadline(&self) -> MonotonicMs {
        match self.kill {
            _ if self.leaving => self.end_at,
            Kill::At(at) => at,
            Kill::Again(at) => at.min(self.end_at),
        }
    }

    /// Whether the gateway is to run again after it, here or elsewhere, and not to end for good.
    pub(super) fn leads_to_a_start(&self) -> bool {
        matches!(self.then, Then::Restart { .. } | Then::MakeWay(_))
    }

    /// The same ending, which leads elsewhere now and takes no longer than it would have, nor than
    /// these moments say.
    pub(super) fn redirected(&self, then: Then, kill_at: MonotonicMs, end_at: MonotonicMs) -> Self {
        Self {
            then,
            main: self.main,
            told: self.told,
            kill: self.kill.no_later_than(kill_at),
            leaving: false,
            end_at: self.end_at.min(end_at),
        }
    }
}

impl Machine {
    pub(super) fn on_stop_signal(&mut self, signal: i32, now: MonotonicMs) {
        let grace = now.after(self.plan.grace());
        let total = now.after(self.plan.total);
        let stop = Stop {
            since: now,
            signal: Some(signal),
        };
        let cause = Cause::Signal(signal);
        match &mut self.state {
            State::New | State::Preflight => {
                let code = self.plan.code(Ended::Killed(signal));
                self.exit(code, Saved::Nothing, cause);
            }
            State::Restoring | State::Standby => {
                let cancelling = State::Cancelling {
                    signal,
                    kill: Kill::At(grace),
                    end_at: total,
                };
                self.transition(cancelling, cause);
                self.act(Action::SignalHelper(Role::Restorer, libc::SIGTERM));
            }
            State::Cancelling { kill, .. } => {
                *kill = kill.no_later_than(now);
                self.on_cancelling_deadline(now);
            }
            State::Up { .. } => {
                let ending = Ending::new(Then::Flush(stop), None, grace, total);
                self.transition(State::Ending(ending), cause);
                self.pass_on(signal);
                self.resume();
            }
            State::Ending(ending) => match &mut ending.then {
                Then::Flush(Stop {
                    signal: Some(_), ..
                }) => {
                    ending.kill = ending.kill.no_later_than(now);
                    self.act(Action::Note(Note::StopAtOnce(signal)));
                    self.on_ending_deadline(now);
                }
                // It is stopping already, on a budget that began earlier and so ends earlier.
                Then::Flush(stop) => stop.signal = Some(signal),
                Then::Restart { .. } | Then::MakeWay(_) => {
                    let ending = ending.redirected(Then::Flush(stop), grace, total);
                    self.transition(State::Ending(ending), cause);
                }
                Then::Fence => {
                    ending.kill = ending.kill.no_later_than(grace);
                    ending.end_at = ending.end_at.min(total);
                }
            },
            State::Backoff { last, .. } => {
                // Where it was not started at all, the watcher still has to let go.
                let last = last.unwrap_or(Ended::Killed(signal));
                self.begin_flush(last, stop, now, cause);
            }
            State::Flushing(flushing) => {
                flushing.stop(now.after(self.plan.total.max(FLUSH_LEAST)));
                self.act(Action::Note(Note::StillFlushing(signal)));
            }
            State::Exited => {}
        }
    }

    /// Another instance owns the session: this one ends at once and saves nothing.
    pub(super) fn fence(&mut self, reason: String, now: MonotonicMs) {
        let kill_at = now.after(FENCED_GRACE);
        let end_at = now.after(FENCED_END);
        if self.watcher.due().is_some() {
            self.watcher = Watcher::Unwanted;
        }
        match &mut self.state {
            State::Up { .. } => {
                let ending = Ending::new(Then::Fence, None, kill_at, end_at);
                self.transition(State::Ending(ending), Cause::Fenced(reason));
                self.pass_on(libc::SIGTERM);
                self.resume();
            }
            State::Ending(ending) => {
                if ending.then == Then::Fence {
                    return;
                }
                let ending = ending.redirected(Then::Fence, kill_at, end_at);
                self.transition(State::Ending(ending), Cause::Fenced(reason));
            }
            State::Flushing(flushing) if flushing.is_answered() => {}
            // It was about to wait its turn anyhow, and its gateway is gone.
            State::Flushing(flushing) if flushing.hands_over() => {
                flushing.fenced(reason, now);
            }
            State::Backoff { .. } | State::Flushing(_) => {
                let saved = Saved::Not(reason.clone());
                self.exit(exit::FENCED, saved, Cause::Fenced(reason));
            }
            // No gateway yet: the restorer reports what it finds by its exit code.
            _ => {}
        }
    }

    pub(super) fn on_orphans_reaped(&mut self) {
        if let State::Ending(Ending { main: Some(_), .. }) = self.state {
            self.act(Action::CountDescendants);
        }
    }

    pub(super) fn on_descendants_left(&mut self, count: usize) {
        if let State::Ending(ending) = &mut self.state
            && ending.main.is_some()
            && ending.told == Told::Main
        {
            ending.told = Told::All;
            self.act(Action::Note(Note::Leftovers(count)));
            self.act(Action::SignalDescendants(libc::SIGTERM));
            if std::mem::take(&mut self.suspended) {
                self.act(Action::SignalDescendants(libc::SIGCONT));
            }
        }
    }

    pub(super) fn on_descendants_gone(&mut self, now: MonotonicMs) {
        let State::Ending(Ending {
            then,
            main: Some(main),
            ..
        }) = self.state
        else {
            return;
        };
        match then {
            Then::Flush(stop) => self.begin_flush(main, stop, now, Cause::AllGone),
            Then::Restart { until } => {
                let last = Some(main);
                self.transition(State::Backoff { until, last }, Cause::AllGone);
            }
            Then::MakeWay(why) => self.save_and_make_way(main, why, now, Cause::AllGone),
            Then::Fence => self.leave_fenced(now),
        }
    }

    /// Ends a fenced life of whose gateway nothing is left: when the watcher has told of it.
    fn leave_fenced(&mut self, now: MonotonicMs) {
        if let (true, State::Ending(ending)) = (self.watcher.is_alive(), &mut self.state) {
            ending.leaving = true;
            ending.end_at = ending.end_at.min(now.after(LAST_WORDS));
            return;
        }
        self.exit_fenced();
    }

    pub(super) fn on_watcher_ended_fenced(&mut self) {
        if matches!(&self.state, State::Ending(ending) if ending.leaving) {
            self.exit_fenced();
        }
    }

    fn exit_fenced(&mut self) {
        let saved = Saved::Not("this instance does not own the session any more".to_owned());
        self.exit(exit::FENCED, saved, Cause::AllGone);
    }

    fn begin_flush(&mut self, ended: Ended, stop: Stop, now: MonotonicMs, cause: Cause) {
        if self.plan.mode == Mode::InitOnly {
            let code = self.plan.code(ended);
            self.exit(code, Saved::Unwanted, cause);
            return;
        }
        let deadline = self.flush_deadline(Some(stop), now);
        self.flush_until(ended, Aim::Exit, deadline, now, cause);
    }

    /// When a flush that begins now has to be over: all that a stop has left is its own, and what is
    /// kept for it is never a limit while there is more. One that is no part of a stop has what is kept.
    pub(super) fn flush_deadline(&self, stop: Option<Stop>, now: MonotonicMs) -> MonotonicMs {
        match stop {
            None => now.after(self.plan.flush),
            Some(stop) => stop
                .since
                .after(self.plan.total)
                .max(now.after(self.plan.flush.min(FLUSH_LEAST))),
        }
    }

    pub(super) fn flush_until(
        &mut self,
        ended: Ended,
        aim: Aim,
        deadline: MonotonicMs,
        now: MonotonicMs,
        cause: Cause,
    ) {
        // A watcher that hangs leaves the next one as much time however much there is.
        let work = deadline.until(now).min(self.plan.flush);
        let flushing = Flushing::new(ended, aim, deadline, now.after(work / 2), now);
        self.transition(State::Flushing(flushing), cause);
        if !self.watcher.is_alive() {
            self.spawn_watcher(now);
        }
        self.act(Action::SendFlush { deadline });
    }

    pub(super) fn on_ending_deadline(&mut self, now: MonotonicMs) {
        let State::Ending(ending) = &mut self.state else {
            return;
        };
        if ending.leaving {
            if now >= ending.end_at {
                self.exit_fenced();
            }
        } else if matches!(ending.kill, Kill::Again(_)) && now >= ending.end_at {
            self.give_up();
        } else if now >= ending.kill.at() {
            let first = matches!(ending.kill, Kill::At(_));
            if first {
                ending.end_at = ending.end_at.max(now.after(KILL_SHOWS));
            }
            ending.kill = Kill::Again(now.after(KILL_AGAIN));
            ending.told = Told::All;
            let main_is_gone = ending.main.is_some();
            if first {
                self.act(Action::Note(Note::Killing));
            }
            self.act(Action::SignalDescendants(libc::SIGKILL));
            if main_is_gone {
                self.act(Action::CountDescendants);
            }
        }
    }

    /// The time is up and something is still alive: stuck in the kernel, or never seen to end.
    fn give_up(&mut self) {
        let State::Ending(ending) = &self.state else {
            return;
        };
        let (then, main) = (ending.then, ending.main);
        self.act(Action::Note(Note::Unkillable));
        let ended = main.unwrap_or(Ended::Killed(libc::SIGKILL));
        let code = match then {
            Then::Fence => exit::FENCED,
            Then::Flush(_) | Then::Restart { .. } | Then::MakeWay(_) => {
                self.plan.code_unsaved(ended)
            }
        };
        let saved = match self.plan.mode {
            Mode::InitOnly => Saved::Unwanted,
            Mode::Store | Mode::File => {
                Saved::Not("processes of the gateway could not be ended".to_owned())
            }
        };
        self.exit(code, saved, Cause::TimeUp);
    }

    pub(super) fn on_cancelling_deadline(&mut self, now: MonotonicMs) {
        let State::Cancelling {
            signal,
            kill,
            end_at,
        } = &mut self.state
        else {
            return;
        };
        if now >= *end_at {
            let signal = *signal;
            let (code, saved) = self.verdict_without_gateway(signal);
            self.exit(code, saved, Cause::TimeUp);
        } else if now >= kill.at() {
            *kill = Kill::Again(now.after(KILL_AGAIN));
            self.act(Action::SignalHelper(Role::Restorer, libc::SIGKILL));
        }
    }
}
