//! Faults in the system calls of the real program, by `strace`: errors of a disk, or a kill at a
//! certain call.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::keeper::{World, wait_until};
use super::process::{is_alive, send};

/// System calls that are to go wrong. Those of all processes and threads that descend from where
/// it begins; [`Inject::path`] limits it to some files.
pub(crate) struct Inject {
    log: PathBuf,
    paths: Vec<PathBuf>,
    faults: Vec<(String, String)>,
}

impl Inject {
    /// Begins to describe them. `None` where nobody may look into another process, which is said:
    /// the test has nothing to do then.
    pub(crate) fn new(world: &World) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_possible() {
            crate::policy::cannot_run("strace is not there, or may not trace");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            log: world.path(&format!("injected-{number}.log")),
            paths: Vec::new(),
            faults: Vec::new(),
        })
    }

    /// `calls` is one or more names, with commas; `what` as strace has it: `error=EIO`,
    /// `signal=SIGKILL`, and which of the calls, counted for each thread: `error=EIO:when=2+`.
    pub(crate) fn fault(mut self, calls: &str, what: &str) -> Self {
        self.faults.push((calls.to_owned(), what.to_owned()));
        self
    }

    /// Only calls that name this very path, or use a descriptor of it. What is not absolute is
    /// compared with what the call says, whatever directory that is relative to.
    pub(crate) fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.paths.push(path.as_ref().to_owned());
        self
    }

    /// To stand before the program (`Setup::before`): from its very start.
    pub(crate) fn before(&self) -> Vec<String> {
        // The program stays the child of who starts it, and strace goes beside it.
        let mut words = vec!["strace".to_owned(), "-D".to_owned()];
        words.extend(self.arguments());
        words.push("--".to_owned());
        words
    }

    /// Into a process that runs, and all that descends from it later; until the value is dropped.
    #[track_caller]
    pub(crate) fn attach(&self, pid: u32) -> Attached {
        let tracer = Command::new("strace")
            .args(self.arguments())
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let tracer = tracer.expect("start strace");
        wait_until("every thread is traced", || {
            threads(pid).iter().all(|thread| tracer_of(thread) != 0)
        });
        Attached { tracer }
    }

    fn arguments(&self) -> Vec<String> {
        let words = |option: &str, value: String| [option.to_owned(), value];
        let calls: Vec<&str> = self.faults.iter().map(|(calls, _)| &calls[..]).collect();
        // Another start adds to the same log.
        let mut arguments = ["-f", "-qq", "-A"].map(str::to_owned).to_vec();
        arguments.extend(words("-o", self.log.display().to_string()));
        arguments.extend(words("-e", format!("trace={}", calls.join(","))));
        arguments.extend(words("-e", "signal=none".to_owned()));
        for (calls, what) in &self.faults {
            arguments.extend(words("-e", format!("inject={calls}:{what}")));
        }
        for path in &self.paths {
            arguments.extend(words("-P", path.display().to_string()));
        }
        arguments
    }

    /// How many calls went wrong so far. A test that never sees one has tested nothing.
    pub(crate) fn count(&self) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("(INJECTED)").count()
    }

    /// Each traced call by its name, with how often the thread made it that made it most. That is
    /// how strace counts for its `when=`.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        let log = fs::read(&self.log).unwrap_or_default();
        let mut threads = BTreeMap::new();
        for line in String::from_utf8_lossy(&log).lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(rest)) = (words.next(), words.next()) else {
                continue;
            };
            if let Some((call, _)) = rest.split_once('(') {
                let counted = (call.to_owned(), thread.to_owned());
                *threads.entry(counted).or_insert(0) += 1;
            }
        }
        let mut calls = BTreeMap::new();
        for ((call, _), count) in threads {
            let most = calls.entry(call).or_insert(0);
            *most = count.max(*most);
        }
        calls
    }

    /// Lets calls come off again of what [`Inject::before`] began.
    #[track_caller]
    pub(crate) fn end(&self, traced: u32) {
        let tracer = tracer_of(Path::new(&format!("/proc/{traced}")));
        assert!(tracer != 0, "{traced} is not traced");
        send(tracer, libc::SIGTERM);
        wait_until("nobody is traced", || !is_alive(tracer));
    }
}

fn is_possible() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

fn threads(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The process id of who traces it; 0 for nobody.
fn tracer_of(process: &Path) -> u32 {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}

/// Calls of a running process that go wrong, until this is dropped.
pub(crate) struct Attached {
    tracer: Child,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It lets go of whom it traces; a kill would as well, but not of one that is held.
        send(self.tracer.id(), libc::SIGTERM);
        let _ = self.tracer.wait();
    }
}
