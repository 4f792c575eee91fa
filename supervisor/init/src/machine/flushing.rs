//! Saving the last changes, when nothing of the gateway is alive.

use std::time::Duration;

use super::handover::Why;
use super::{Action, Cause, Ended, Machine, MonotonicMs, Note, Role, Saved, State};
use sessionkeep_core::exit;

/// How long a watcher that has answered may take to exit by itself. All is saved by then; this
/// only lets it close its connections.
const LEAVE: Duration = Duration::from_millis(250);
/// How long a watcher that was killed may take to be gone before it is killed again.
const KILL_SHOWS: Duration = Duration::from_millis(500);

/// What a watcher has at least to say that it has heard of the flush.
const HEARD_LEAST: Duration = Duration::from_secs(1);

/// How the watcher stands to the flush.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It works on it.
    Awaited {
        /// Whether it died over it before.
        died: bool,
    },
    /// It said this; it may take until then to exit.
    Given(Saved, MonotonicMs),
}

/// What comes after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// This life is over.
    Exit,
    /// It waits for another turn.
    MakeWay(Why),
}

/// A flush that was asked for.
#[derive(Debug)]
pub(super) struct Flushing {
    /// How the gateway ended, for the exit code.
    ended: Ended,
    aim: Aim,
    deadline: MonotonicMs,
    /// When a watcher counts as hung that has not said that it heard of the flush: early enough for
    /// another one to do it.
    heard_by: Option<MonotonicMs>,
    answer: Answer,
}

impl Flushing {
    pub(super) fn new(
        ended: Ended,
        aim: Aim,
        deadline: MonotonicMs,
        heard_by: MonotonicMs,
        now: MonotonicMs,
    ) -> Self {
        Self {
            ended,
            aim,
            deadline,
            heard_by: Some(heard_by.max(now.after(HEARD_LEAST))),
            answer: Answer::Awaited { died: false },
        }
    }

    /// The watcher lives, and works on it.
    pub(super) fn heard(&mut self) {
        self.heard_by = None;
    }

    pub(super) fn deadline(&self) -> MonotonicMs {
        match self.answer {
            Answer::Awaited { .. } => self
                .heard_by
                .map_or(self.deadline, |at| at.min(self.deadline)),
            Answer::Given(_, leave_by) => leave_by.min(self.deadline),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Given(..))
    }

    /// Whether this life waits for another turn after it.
    pub(super) fn hands_over(&self) -> bool {
        matches!(self.aim, Aim::MakeWay(_))
    }

    /// Its lease ends meanwhile: what cannot be saved is no reason to take the session back.
    pub(super) fn hand_over(&mut self, why: Why) {
        if self.hands_over() && why != Why::Asked {
            self.aim = Aim::MakeWay(why);
        }
    }

    /// Another instance has the session already: what could not be saved stays in the directory.
    pub(super) fn fenced(&mut self, reason: String, now: MonotonicMs) {
        self.aim = Aim::MakeWay(Why::LeaseEnds(now));
        self.answer = Answer::Given(Saved::Not(reason), now.after(LEAVE));
    }

    /// Told to stop: this life ends after it, and no later than `by`.
    pub(super) fn stop(&mut self, by: MonotonicMs) {
        self.aim = Aim::Exit;
        self.deadline = self.deadline.min(by);
    }
}

impl Machine {
    pub(super) fn on_flush_answer(&mut self, saved: Saved, now: MonotonicMs) {
        if let State::Flushing(flushing) = &mut self.state
            && !flushing.is_answered()
        {
            flushing.answer = Answer::Given(saved, now.after(LEAVE));
        }
    }

    pub(super) fn on_watcher_ended_flushing(&mut self, how: Ended, now: MonotonicMs) {
        let State::Flushing(flushing) = &mut self.state else {
            return;
        };
        match &mut flushing.answer {
            Answer::Given(saved, _) => {
                let saved = saved.clone();
                self.finish(saved, Cause::FlushEnded, now);
            }
            Answer::Awaited { .. } if how == Ended::Exited(exit::FENCED) => {
                let reason = "the watcher lost the session".to_owned();
                if flushing.hands_over() {
                    flushing.fenced(reason.clone(), now);
                    self.finish(Saved::Not(reason), Cause::FlushEnded, now);
                } else {
                    self.fence(reason, now);
                }
            }
            // A watcher that was killed may do better the second time, and the budget allows for it.
            Answer::Awaited { died } if !*died && now < flushing.deadline => {
                *died = true;
                let deadline = flushing.deadline;
                let delay = Duration::ZERO;
                self.act(Action::Note(Note::WatcherDied { how, delay }));
                self.spawn_watcher(now);
                self.act(Action::SendFlush { deadline });
            }
            Answer::Awaited { .. } => {
                let saved = Saved::Not(format!("the watcher ended over it: {how}"));
                self.finish(saved, Cause::FlushEnded, now);
            }
        }
    }

    pub(super) fn on_flushing_deadline(&mut self, now: MonotonicMs) {
        let State::Flushing(flushing) = &mut self.state else {
            return;
        };
        if now < flushing.deadline() {
            return;
        }
        if now < flushing.deadline && !flushing.is_answered() {
            flushing.heard_by = None;
            self.act(Action::Note(Note::HelperKilled(Role::Watcher)));
            self.act(Action::SignalHelper(Role::Watcher, libc::SIGKILL));
            return;
        }
        let (saved, cause) = match &flushing.answer {
            Answer::Given(saved, _) => (saved.clone(), Cause::FlushEnded),
            Answer::Awaited { .. } => {
                let saved = Saved::Not("it was not done in time".to_owned());
                (saved, Cause::TimeUp)
            }
        };
        match flushing.aim {
            Aim::MakeWay(_) if !self.watcher.is_alive() => self.finish(saved, cause, now),
            Aim::Exit => {
                if !flushing.is_answered() {
                    // It must not go on writing when the next life may have begun.
                    self.act(Action::SignalHelper(Role::Watcher, libc::SIGKILL));
                }
                self.finish(saved, cause, now);
            }
            // Its place is taken when it is gone, which a kill does not take long to bring about.
            Aim::MakeWay(_) => {
                flushing.deadline = now.after(KILL_SHOWS);
                flushing.answer = Answer::Given(saved, flushing.deadline);
                self.act(Action::SignalHelper(Role::Watcher, libc::SIGKILL));
            }
        }
    }

    fn finish(&mut self, saved: Saved, cause: Cause, now: MonotonicMs) {
        let State::Flushing(flushing) = &self.state else {
            return;
        };
        let ended = flushing.ended;
        match flushing.aim {
            Aim::MakeWay(why) => self.handed_over(why, saved, ended, now),
            Aim::Exit => {
                let code = match &saved {
                    Saved::Not(_) | Saved::Except(..) => self.plan.code_unsaved(ended),
                    Saved::All(_) | Saved::Nothing | Saved::Unwanted => self.plan.code(ended),
                };
                self.exit(code, saved, cause);
            }
        }
    }
}
