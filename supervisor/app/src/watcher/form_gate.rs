//! Whether a file that is called JSON, or was a database, and is none as it is, may be committed. What never
//! was one is stored as it is once it stands still; what was, and no longer is, was torn by whoever wrote
//! it.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::files::WHOLE_MAX;
use super::gathered::Pass;
use super::outcome::{FileOutcome, Later, RETRY};
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::form::is_torn;
use sessionkeep_session::{Fingerprint, Form};

/// How long a file must not have been written to be taken as it is, and how long one may be torn before
/// that is reported.
const AT_REST: Duration = Duration::from_secs(1);
/// One that is written all the time, such as a log, is taken after this all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// At most so many are remembered.
const KEPT_MAX: usize = 10_000;

/// What is known of the last committed version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// There is none.
    Nothing,
    /// It has this form.
    Known(Form),
    /// There is one, and nobody has looked at it since this watcher began.
    Unknown,
}

/// The last committed version of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) form: Before,
    /// It is a database that keeps a login.
    pub(super) kept_login: bool,
}

/// The files that are not whole, as they were last seen.
#[derive(Debug, Default)]
pub(super) struct FormGate(HashMap<RelPath, Seen>);

#[derive(Debug)]
struct Seen {
    since: Instant,
    print: Fingerprint,
    still_since: Instant,
}

impl FormGate {
    /// Whether it was not whole when it was looked at last.
    pub(super) fn is_suspect(&self, path: &RelPath) -> bool {
        self.0.contains_key(path)
    }

    /// It is as committed, whatever it is.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.0.remove(path);
    }

    /// What is to become of the file `path`, whose content has the form `now` and is not as committed:
    /// `None` where it may be committed.
    pub(super) fn judge(
        &mut self,
        path: &RelPath,
        (now, print): (Form, Fingerprint),
        last: Last,
        pass: Pass,
    ) -> Option<FileOutcome> {
        if matches!(now, Form::Whole | Form::Database) {
            self.0.remove(path);
            return None;
        }
        let clock = Instant::now();
        // Forgetting now and then is better than remembering without end.
        if self.0.len() >= KEPT_MAX {
            self.0.clear();
        }
        let seen = self.0.entry(path.clone()).or_insert(Seen {
            since: clock,
            print,
            still_since: clock,
        });
        if seen.print != print {
            (seen.print, seen.still_since) = (print, clock);
        }
        let is_late = pass == Pass::Final || clock - seen.since >= AT_REST;
        let later = |when, why| Some(FileOutcome::Later(Later { when, why }));
        // Of a large one it costs something to look.
        let soon = match print.size {
            ..=WHOLE_MAX => clock + RETRY,
            _ => seen.since + AT_REST,
        };
        match last.form {
            Before::Known(before) if is_torn(path, before, now, last.kept_login) => match is_late {
                true => Some(FileOutcome::NotWhole(words(before, now).into())),
                // It stays noted, so that the same tear is not waited for again at each rescan.
                false => later(soon, "it is not whole yet"),
            },
            // Empty is what a writer that truncates first leaves for a moment.
            Before::Known(Form::Lines | Form::Sealed | Form::Broken) if now != Form::Empty => {
                self.0.remove(path);
                None
            }
            Before::Unknown => match is_late {
                true => Some(FileOutcome::Unasked),
                false => later(soon, "it is not whole yet"),
            },
            // At the end its writer is gone.
            Before::Nothing | Before::Known(_)
                if pass == Pass::Final
                    || clock - seen.still_since >= AT_REST
                    || clock - seen.since >= PATIENCE
                    || is_at_rest(&print) =>
            {
                self.0.remove(path);
                None
            }
            Before::Nothing | Before::Known(_) => {
                let when = (seen.still_since + AT_REST).max(clock + RETRY);
                later(when, "it may be being written")
            }
        }
    }
}

fn words(before: Form, now: Form) -> &'static str {
    match (before, now) {
        (Form::Database, Form::Empty) => {
            "it is empty, and its last committed version was a database"
        }
        (Form::Database, _) => "it is no database, and its last committed version was",
        (_, Form::Empty) => "it is empty, and its last committed version was not",
        _ => "its JSON does not parse, and its last committed version did",
    }
}

/// By the time of its last change, which no program can set. One that lies in the future proves nothing.
fn is_at_rest(print: &Fingerprint) -> bool {
    let changed = u64::try_from(print.ctime_ns)
        .map_or(UNIX_EPOCH, |ns| UNIX_EPOCH + Duration::from_nanos(ns));
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age >= AT_REST)
}
