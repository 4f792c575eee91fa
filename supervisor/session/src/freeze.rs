//! Holding a gateway's processes still for the milliseconds that reading its files takes.
//!
//! Parents are stopped before their children and go on after them, so that no parent is ever there to
//! see a child of its stopped: a shell with job control would take that for the end of its foreground
//! job, and go on with its script.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the processes may take until all of them stand still. One that is in the middle of a
/// write finishes it first.
const BUDGET: Duration = Duration::from_millis(100);
/// Between two looks whether they stand still: shorter than the kernel's own slack.
const POLL: Duration = Duration::from_micros(50);

/// Holds the writers of a file still.
pub trait Freezer {
    /// Returns once none of them runs.
    ///
    /// # Errors
    /// Where that could not be reached, [`io::ErrorKind::PermissionDenied`] where one of them may not be
    /// stopped by us; some may stand still: call [`Freezer::thaw`] all the same.
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
    /// How long they may take to stand still.
    budget: Duration,
    /// In the order in which they were stopped: a parent before its children.
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
            budget: BUDGET,
            stopped: Mutex::default(),
        }
    }

    /// As [`ProcessFreezer::new`], for the gateway of the init that started us.
    #[must_use]
    pub fn of_gateway(gateway_pid: i32) -> Self {
        Self::new(gateway_pid, &[nix::unistd::getppid().as_raw()])
    }

    /// With another limit on how long the processes may take to stand still than 100 ms.
    #[must_use]
    pub fn within(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// The gateway's processes, as of now.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut seen = Seen::default();
        seen.look()?;
        Ok(self.targets(&seen))
    }

    /// All processes to be stopped, parents before their children.
    fn targets(&self, seen: &Seen) -> Vec<i32> {
        let mut todo: VecDeque<i32> = VecDeque::new();
        if seen.parents.contains_key(&self.gateway) {
            todo.push_back(self.gateway);
        }
        if let Some(adopted) = self.init.and_then(|init| seen.children.get(&init)) {
            todo.extend(adopted);
        }
        let mut targets = Vec::new();
        let mut met = self.keep.clone();
        while let Some(pid) = todo.pop_front() {
            if met.insert(pid) {
                targets.push(pid);
                todo.extend(seen.children.get(&pid).into_iter().flatten());
            }
        }
        targets
    }
}

/// The processes there are, as they were when they were first seen: what is looked up while a gateway
/// stands still is only what it has started since.
#[derive(Debug, Default)]
struct Seen {
    parents: HashMap<i32, i32>,
    children: HashMap<i32, Vec<i32>>,
}

impl Seen {
    fn look(&mut self) -> io::Result<()> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.parents.contains_key(&pid) {
                continue;
            }
            if let Some(process) = Proc::read(pid) {
                self.parents.insert(pid, process.parent);
                self.children.entry(process.parent).or_default().push(pid);
            }
        }
        Ok(())
    }
}

impl Freezer for ProcessFreezer {
    fn freeze(&self) -> io::Result<()> {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Seen::default();
        // Most of the looking comes before anything is stopped.
        seen.look()?;
        if !seen.parents.contains_key(&self.gateway) {
            // Gone, or hidden from us by the way `/proc` is mounted: then it would go on unseen.
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the gateway's main process cannot be seen",
            ));
        }
        let deadline = Instant::now() + self.budget;
        // Those that need not be looked at again: nobody else lets them go on.
        let mut still: HashSet<i32> = HashSet::new();
        loop {
            let mut all_still = true;
            for pid in self.targets(&seen) {
                if still.contains(&pid) {
                    continue;
                }
                if stands_still(pid) {
                    still.insert(pid);
                    continue;
                }
                all_still = false;
                // One that runs may still be there to see its child stopped.
                let runs = |parent: &i32| stopped.contains(parent) && !still.contains(parent);
                if stopped.contains(&pid) || seen.parents.get(&pid).is_some_and(runs) {
                    continue;
                }
                stopped.push(pid);
                match kill(Pid::from_raw(pid), Signal::SIGSTOP) {
                    // One that is gone by now writes nothing.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            // Who was not stopped yet may have started another.
            let known = seen.parents.len();
            seen.look()?;
            if all_still && seen.parents.len() == known {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the gateway's processes did not stand still in time",
                ));
            }
            if !all_still {
                std::thread::sleep(POLL);
            }
        }
    }

    fn thaw(&self) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in stopped.drain(..).rev() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

/// Lets the processes go on when it is dropped, whatever happens until then.
#[derive(Debug)]
pub struct Thaw<'a, F: Freezer + ?Sized>(pub &'a F);

impl<F: Freezer + ?Sized> Drop for Thaw<'_, F> {
    fn drop(&mut self) {
        self.0.thaw();
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
pub struct Proc {
    /// Who started it, or whom it was given to since.
    pub parent: i32,
    pub(crate) state: u8,
}

impl Proc {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The state and the parent follow the name, which stands in parentheses and may itself hold
    /// parentheses and spaces.
    pub fn parse(stat: &[u8]) -> Option<Self> {
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

        // On a busy machine they take their time.
        let freezer = ProcessFreezer::new(main, &[]).within(Duration::from_secs(10));
        for _ in 0..20 {
            freezer.freeze().expect("freeze");
            assert!(!runs(main) && !runs(busy));
            freezer.thaw();
            let deadline = Instant::now() + Duration::from_secs(5);
            while !(runs(main) && runs(busy)) {
                assert!(Instant::now() < deadline, "they do not go on");
            }
        }
        freezer.freeze().expect("freeze");
        drop(freezer);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !(runs(main) && runs(busy)) {
            assert!(Instant::now() < deadline, "dropping must let them go on");
        }
        drop(kill_at_end);
        shell.wait().expect("wait");
    }

    /// A shell that sees its foreground job stop goes on with its script.
    #[test]
    fn a_shell_with_job_control_does_not_see_its_job_stop() {
        let script = "(while :; do :; done); echo it went on";
        let Ok(mut shell) = Command::new("bash")
            .args(["-m", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("there is no bash; this proves nothing");
            return;
        };
        let main = shell.id().cast_signed();
        let mut kill_at_end = KillAtEnd(vec![main]);
        let freezer = ProcessFreezer::new(main, &[]);
        let deadline = Instant::now() + Duration::from_secs(30);
        let job = loop {
            let processes = freezer.processes().expect("processes");
            if let [_, job, ..] = processes[..] {
                break job;
            }
            assert!(Instant::now() < deadline, "it starts no job");
        };
        kill_at_end.0.push(job);
        for _ in 0..200 {
            // On a busy machine it may take longer than is waited for.
            let _ = freezer.freeze();
            freezer.thaw();
        }
        assert!(matches!(shell.try_wait(), Ok(None)), "its script went on");
        drop(kill_at_end);
        let mut said = String::new();
        let mut output = shell.stdout.take().expect("piped");
        std::io::Read::read_to_string(&mut output, &mut said).expect("read");
        assert_eq!(said, "");
        shell.wait().expect("wait");
    }

    #[test]
    fn ourselves_and_what_we_started_are_never_stopped() {
        let me = std::process::id().cast_signed();
        let freezer = ProcessFreezer::new(me, &[me]);
        assert_eq!(freezer.init, None);
        let mut seen = Seen::default();
        seen.look().expect("look");
        assert_eq!(freezer.targets(&seen), Vec::<i32>::new());
        let gone = ProcessFreezer::new(i32::MAX, &[me, 1]);
        assert_eq!(gone.init, None, "a gateway that is gone names no init");
        assert_eq!(gone.targets(&seen), Vec::<i32>::new());
    }
}
