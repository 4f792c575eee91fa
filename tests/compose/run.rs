//! Commands run to their end: under a limit, with all that they said.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a command did.
pub(crate) struct Said {
    /// Its exit code, or 128 and the signal that ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// From start to end.
    pub(crate) took: Duration,
}

impl Said {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Without the newline at the end.
    pub(crate) fn line(&self) -> &str {
        self.out.trim_end()
    }
}

/// Runs a command to its end; at the limit it and its children are killed, and the test fails.
///
/// Output goes to files and not through pipes: Compose starts a process of its own, which may hold
/// a pipe open for longer than the command lives.
#[track_caller]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Said {
    let mut out = tempfile::tempfile().expect("a file for the output");
    let mut err = tempfile::tempfile().expect("a file for the errors");
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("share the file"))
        .stderr(err.try_clone().expect("share the file"))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the command") {
            break status;
        }
        if begun.elapsed() > limit {
            let group = i32::try_from(child.id()).expect("a process id");
            // SAFETY: plain system call, on a group that is this child's own.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = child.wait();
            panic!(
                "{command:?} took longer than {limit:?} and said:\n{}{}",
                all(&mut out),
                all(&mut err)
            );
        }
        thread::sleep(LOOK_AGAIN);
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Said {
        code: status.code().unwrap_or(128 + signal.unwrap_or(0)),
        out: all(&mut out),
        err: all(&mut err),
        took: begun.elapsed(),
    }
}

fn all(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("rewind");
    file.read_to_end(&mut bytes).expect("read what it said");
    // Compose 2.26 erases a line that is not there, even where it may use no such signs.
    String::from_utf8_lossy(&bytes).replace("\u{1b}[2K", "")
}

/// A JSON string as it is, without quotation marks.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
