//! Holding a gateway's processes still for the milliseconds that copying a database takes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the processes may take until all of them stand still. One that is in the middle of a
/// write finishes it first.
const BUDGET: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_micros(300);

/// Holds the writers of a file still.
pub trait Freezer {
    /// Returns once none of them runs.
    ///
    /// # Errors
    /// Where that could not be reached; some may stand still: call [`Freezer::thaw`] all the same.
    fn freeze(&self) -> io::Result<()>;
    /// Lets all of them go on. Does nothing where none was stopped.
    fn thaw(&self);
}

/// Stops a gateway by SIGSTOP: its main process, all descendants of it, and those that were
/// adopted by init because their own parent is gone.
#[derive(Debug)]
pub struct ProcessFreezer {
    gateway: i32,
    /// The process that adopts the gateway's orphans, where it is one of those we were told of.
    init: Option<i32>,
    keep: HashSet<i32>,
    stopped: Mutex<Vec<i32>>,
}

impl ProcessFreezer {
    /// For the gateway whose main process is `gateway_pid`. The processes in `keep` (ourselves,
    /// init, its helpers) are never stopped, nor is anything that only they started, except the
    /// adopted children of the one that is the gateway's own parent.
    #[must_use]
    pub fn new(gateway_pid: i32, keep: &[i32]) -> Self {
        let mut keep: HashSet<i32> = keep.iter().copied().collect();
        keep.insert(std::process::id().cast_signed());
        let init = Proc::read(gateway_pid)
            .map(|gateway| gateway.parent)
            // Our own children are adopted by nobody else; and that process 0 exists for
            // nobody means that the gateway is not in our pid namespace.
            .filter(|parent| *parent > 0 && keep.contains(parent))
            .filter(|parent| *parent != std::process::id().cast_signed());
        Self {
            gateway: gateway_pid,
            init,
            keep,
            stopped: Mutex::default(),
        }
    }

    /// All processes to be stopped, as of now.
    fn targets(&self) -> io::Result<Vec<i32>> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        let mut all = HashSet::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Some(process) = Proc::read(pid) {
                children.entry(process.parent).or_default().push(pid);
                all.insert(pid);
            }
        }
        let mut todo: Vec<i32> = Vec::new();
        if all.contains(&self.gateway) {
            todo.push(self.gateway);
        }
        if let Some(adopted) = self.init.and_then(|init| children.get(&init)) {
            todo.extend(adopted);
        }
        let mut targets = Vec::new();
        let mut seen = self.keep.clone();
        while let Some(pid) = todo.pop() {
            if seen.insert(pid) {
                targets.push(pid);
                todo.extend(children.get(&pid).into_iter().flatten());
            }
        }
        Ok(targets)
    }
}

impl Freezer for ProcessFreezer {
    fn freeze(&self) -> io::Result<()> {
        let deadline = Instant::now() + BUDGET;
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Looked up anew in each round, since who is not stopped yet may start another.
            let targets = self.targets()?;
            let mut still = true;
            for pid in targets {
                if stands_still(pid) {
                    continue;
                }
                still = false;
                if !stopped.contains(&pid) {
                    stopped.push(pid);
                    // One that is gone by now writes nothing; one that may not be signalled will
                    // be found running until the budget is spent.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
                }
            }
            if still {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the gateway's processes did not stand still in time",
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    fn thaw(&self) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in stopped.drain(..) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

impl Drop for ProcessFreezer {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// Whether no thread of the process runs: a process counts as stopped once its first thread is,
/// while another may still be in a write.
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        fs::read(thread.path().join("stat"))
            .ok()
            .and_then(|stat| Proc::parse(&stat))
            .is_none_or(|process| matches!(process.state, b'T' | b't' | b'Z' | b'X' | b'x'))
    })
}

/// What is looked at of a process.
pub(crate) struct Proc {
    pub(crate) parent: i32,
    pub(crate) state: u8,
}

impl Proc {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The state and the parent follow the name, which stands in parentheses and may itself hold
    /// parentheses and spaces.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self { parent, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_name_with_parentheses_does_not_confuse() {
        let process = Proc::parse(b"12 (a) R 1 (x) S 34 12 12 0").expect("parses");
        assert_eq!((process.state, process.parent), (b'S', 34));
    }

    struct KillAtEnd(Vec<i32>);

    impl Drop for KillAtEnd {
        fn drop(&mut self) {
            for pid in &self.0 {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
    }

    #[test]
    fn a_process_and_its_child_stand_still_and_go_on() {
        let mut shell = Command::new("sh")
            .args(["-c", "(while :; do :; done) & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut line = String::new();
        // Whatever fails below, nothing is left spinning.
        let mut kill_at_end = KillAtEnd(vec![shell.id().cast_signed()]);
        let mut output = std::io::BufReader::new(shell.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut output, &mut line).expect("read");
        let (main, busy) = (shell.id().cast_signed(), line.trim().parse().expect("pid"));
        kill_at_end.0.push(busy);
        let runs = |pid| Proc::read(pid).expect("alive").state != b'T';

        let freezer = ProcessFreezer::new(main, &[]);
        // On a busy machine it may take longer than a freeze may last.
        let freeze = |freezer: &ProcessFreezer| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while let Err(error) = freezer.freeze() {
                freezer.thaw();
                assert!(Instant::now() < deadline, "{error}");
            }
        };
        for _ in 0..20 {
            freeze(&freezer);
            assert!(!runs(main) && !runs(busy));
            freezer.thaw();
            let deadline = Instant::now() + Duration::from_secs(5);
            while !(runs(main) && runs(busy)) {
                assert!(Instant::now() < deadline, "they do not go on");
            }
        }
        freeze(&freezer);
        drop(freezer);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !(runs(main) && runs(busy)) {
            assert!(Instant::now() < deadline, "dropping must let them go on");
        }
        drop(kill_at_end);
        shell.wait().expect("wait");
    }

    #[test]
    fn ourselves_and_what_we_started_are_never_stopped() {
        let me = std::process::id().cast_signed();
        let freezer = ProcessFreezer::new(me, &[me]);
        assert_eq!(freezer.init, None);
        assert_eq!(freezer.targets().expect("targets"), Vec::<i32>::new());
        let gone = ProcessFreezer::new(i32::MAX, &[me, 1]);
        assert_eq!(gone.init, None, "a gateway that is gone names no init");
        assert_eq!(gone.targets().expect("targets"), Vec::<i32>::new());
    }
}
