//! A subject's processes: started in a group of their own, with their log, what they use, and an
//! end. Nothing of them outlives the value.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

use std::thread;
use std::time::{Duration, Instant};

use crate::cage::Cage;
use crate::measure;
use crate::system::with_descendants;

/// How often a running process is asked for its memory. What is asked for is a maximum since its
/// start, so that only what grew in its last moment is missed.
const LOOK: Duration = Duration::from_millis(2);

/// Started processes: one and all that descend from it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    cage: Option<Cage>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// How a program that ends by itself did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From its start to its end.
    pub(crate) took: Duration,
    /// Processor time of all its processes.
    pub(crate) cpu: Duration,
    /// Largest resident set of any of its processes, in bytes.
    pub(crate) peak_rss: u64,
}

/// Why there is no [`Outcome`].
#[derive(Debug)]
pub(crate) struct GaveUp(pub(crate) String);

impl Running {
    /// Starts a command; both of its outputs become its log.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_in(Cage::open(), command)
    }

    /// Starts a command in a group.
    pub(crate) fn start_in(cage: Option<Cage>, mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().expect("a second end"))
            .stderr(writer);
        if let Some(cage) = &cage {
            cage.holds(&mut command);
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        // The command keeps the pipe's other end open.
        drop(command);
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            cage,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with these words that no earlier wait was for.
    ///
    /// # Panics
    /// With the log, when it does not come.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        if let Some(passed) = self.seen.iter().position(|line| line.contains(words)) {
            return self.seen.remove(passed);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("no {words:?} within {limit:?} in the log: {:#?}", self.seen),
            }
        }
    }

    /// Its first process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All its processes that are alive.
    pub(crate) fn processes(&self) -> Vec<u32> {
        match &self.cage {
            Some(cage) => cage.processes(),
            None => with_descendants(self.id()),
        }
    }

    /// The process that was started with such an argument.
    #[track_caller]
    pub(crate) fn with_argument(&self, argument: &str) -> u32 {
        let has = |pid: &u32| measure::arguments(*pid).iter().any(|a| a == argument);
        let found = self.processes().into_iter().find(has);
        found.unwrap_or_else(|| panic!("no process with the argument {argument:?} runs"))
    }

    /// Processor time of all its processes so far.
    pub(crate) fn cpu(&self) -> Duration {
        match &self.cage {
            Some(cage) => cage.cpu(),
            None => self.processes().into_iter().map(ticks).sum(),
        }
    }

    /// Largest resident set that any of its living processes ever had, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let peaks = self.processes().into_iter().map(measure::peak_rss);
        peaks.max().unwrap_or(0)
    }

    /// Asks it to end and waits for that. Returns how long it took, and how it ended.
    #[track_caller]
    pub(crate) fn stop(mut self, limit: Duration) -> (Duration, ExitStatus) {
        let begun = Instant::now();
        crate::system::send(self.id(), libc::SIGTERM);
        let status = self.wait(limit);
        (begun.elapsed(), status)
    }

    #[track_caller]
    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(begun.elapsed() < limit, "it has not ended within {limit:?}");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits for the end of a program that ends by itself, within limits of time and memory.
    fn finish(mut self, begun: Instant, limit: Duration, memory: u64) -> Result<Outcome, GaveUp> {
        let (mut peak_rss, mut cpu) = (0, Duration::ZERO);
        // Without a group, a look goes through all processes of the machine.
        let pause = if self.cage.is_some() { LOOK } else { LOOK * 10 };
        let mut look = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let took = begun.elapsed();
                if !status.success() {
                    self.seen.extend(self.lines.try_iter());
                    return Err(GaveUp(format!("{status}: {:?}", self.seen)));
                }
                // Without a group, what is gone does not count any more.
                let cpu = cpu.max(self.cpu());
                return Ok(Outcome {
                    took,
                    cpu,
                    peak_rss,
                });
            }
            if look.elapsed() >= pause {
                peak_rss = peak_rss.max(self.peak_rss());
                cpu = cpu.max(self.cpu());
                look = Instant::now();
            }
            if begun.elapsed() > limit {
                return Err(GaveUp(format!("not finished after {} s", limit.as_secs())));
            }
            if peak_rss > memory {
                let megabytes = memory / 1_000_000;
                return Err(GaveUp(format!(
                    "ended when it used more than {megabytes} MB"
                )));
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.processes() {
            crate::system::send(pid, libc::SIGKILL);
        }
        let _ = self.child.wait();
        // A group is removed when its last process has gone, and those are not our children.
        let begun = Instant::now();
        while !self.processes().is_empty() && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs a program that ends by itself.
pub(crate) fn run(command: Command, limit: Duration) -> Result<Outcome, GaveUp> {
    run_in(Cage::open(), command, limit)
}

/// Runs a program that ends by itself in a group.
pub(crate) fn run_in(
    cage: Option<Cage>,
    command: Command,
    limit: Duration,
) -> Result<Outcome, GaveUp> {
    /// No subject may make the machine swap.
    const MEMORY: u64 = 6_000_000_000;
    let begun = Instant::now();
    Running::start_in(cage, command).finish(begun, limit, MEMORY)
}

/// User and system time of a process and of its children that have ended.
fn ticks(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let used = after.split_whitespace().skip(11).take(4);
    let ticks: u64 = used.filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
