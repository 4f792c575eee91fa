//! Saving the last changes, when nothing of the gateway is alive.

use std::time::Duration;

use super::{Action, Cause, Ended, Machine, MonotonicMs, Note, Role, Saved, State};
use crate::exit;

/// How long a watcher that has answered may take to exit by itself. All is saved by then; this
/// only lets it close its connections.
const LEAVE: Duration = Duration::from_millis(250);

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

/// A flush that was asked for.
#[derive(Debug)]
pub(super) struct Flushing {
    /// How the gateway ended, for the exit code.
    ended: Ended,
    deadline: MonotonicMs,
    answer: Answer,
}

impl Flushing {
    pub(super) fn new(ended: Ended, deadline: MonotonicMs) -> Self {
        Self {
            ended,
            deadline,
            answer: Answer::Awaited { died: false },
        }
    }

    pub(super) fn deadline(&self) -> MonotonicMs {
        match self.answer {
            Answer::Awaited { .. } => self.deadline,
            Answer::Given(_, leave_by) => leave_by.min(self.deadline),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Given(..))
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
                self.finish(saved, Cause::FlushEnded);
            }
            Answer::Awaited { .. } if how == Ended::Exited(exit::FENCED) => {
                self.fence("the watcher lost the session".to_owned(), now);
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
                self.finish(saved, Cause::FlushEnded);
            }
        }
    }

    pub(super) fn on_flushing_deadline(&mut self, now: MonotonicMs) {
        let State::Flushing(flushing) = &self.state else {
            return;
        };
        if now < flushing.deadline() {
            return;
        }
        match &flushing.answer {
            Answer::Given(saved, _) => {
                let saved = saved.clone();
                self.finish(saved, Cause::FlushEnded);
            }
            Answer::Awaited { .. } => {
                // It must not go on writing when the next life may have begun.
                self.act(Action::SignalHelper(Role::Watcher, libc::SIGKILL));
                let saved = Saved::Not("it was not done in time".to_owned());
                self.finish(saved, Cause::TimeUp);
            }
        }
    }

    fn finish(&mut self, saved: Saved, cause: Cause) {
        let State::Flushing(flushing) = &self.state else {
            return;
        };
        let code = match &saved {
            Saved::Not(_) => self.plan.code_unsaved(flushing.ended),
            Saved::All(_) | Saved::Nothing | Saved::Unwanted => self.plan.code(flushing.ended),
        };
        self.exit(code, saved, cause);
    }
}
