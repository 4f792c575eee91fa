//! `sessionkeep run` with the example gateway under it, as one thing to start, stop and kill.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client;

/// Covers a lease that has to run out, on a machine that is busy with other things.
const START_LIMIT: Duration = Duration::from_secs(40);
/// The whole stop has nine seconds by default.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at something that has no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Where the demo keeps its files, and where the programs are. Removed when dropped.
pub(crate) struct Place {
    root: TempDir,
    supervisor: PathBuf,
    gateway: PathBuf,
}

impl Place {
    pub(crate) fn prepare() -> Result<Self> {
        let own = std::env::current_exe().context("failed to find the demo's own program")?;
        let examples = own
            .parent()
            .context("the demo's program is in no directory")?;
        let profile = examples
            .parent()
            .context("the examples are in no directory")?;
        let place = Self {
            root: TempDir::with_prefix("sessionkeep-demo-")
                .context("failed to make a directory")?,
            supervisor: profile.join("sessionkeep"),
            gateway: examples.join("gateway"),
        };
        for program in [&place.supervisor, &place.gateway] {
            ensure!(
                program.is_file(),
                "{} has not been built: run `make demo`",
                program.display()
            );
        }
        Ok(place)
    }

    /// Leaves nothing behind when somebody interrupts the demo: neither processes nor files.
    pub(crate) fn clear_up_on_interrupt(&self) -> Result<()> {
        let signals = interrupts();
        // Blocked before any other thread starts, so that only the one that waits gets them.
        signals.thread_block().context("failed to block signals")?;
        let root = self.root.path().to_owned();
        thread::spawn(move || {
            if signals.wait().is_ok() {
                Tree::below_this_process().kill();
                let _ = fs::remove_dir_all(root);
                leave_interrupted();
            }
        });
        Ok(())
    }

    pub(crate) fn session_dir(&self) -> PathBuf {
        self.root.path().join("session")
    }

    /// The last lines that sessionkeep and the gateway have logged.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("log")
    }
}

fn interrupts() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

#[expect(
    clippy::exit,
    reason = "everything has been cleared up, and the main thread waits for what was just killed"
)]
fn leave_interrupted() {
    std::process::exit(130);
}

/// How sessionkeep ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Code(i32),
    Signal(i32),
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// A running sessionkeep. Whatever of it is left when this is dropped is killed.
pub(crate) struct Stack<'a> {
    child: Child,
    gateway_port: u16,
    /// Ties the processes' life to that of the directory they use.
    _place: &'a Place,
}

impl<'a> Stack<'a> {
    /// Starts it and waits until the gateway answers.
    pub(crate) fn start(place: &'a Place) -> Result<Self> {
        let (http_port, gateway_port) = free_ports()?;
        fs::create_dir_all(place.session_dir()).context("failed to make the session directory")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.log_path())?;
        let mut command = Command::new(&place.supervisor);
        command.arg("run").arg("--dir").arg(place.session_dir());
        command.arg("--store").arg(format!(
            "sqlite:{}",
            place.root.path().join("archive.db").display()
        ));
        command.args(["--archive", "demo", "--profile", "generic"]);
        for setting in [
            // Short, so that nobody has to wait for long after the crash.
            "lease.ttl=3s".to_owned(),
            "lease.renew=1s".to_owned(),
            format!("http.port={http_port}"),
            format!("gateway.probe=http://127.0.0.1:{gateway_port}/ping"),
        ] {
            command.arg("--set").arg(setting);
        }
        command.arg("--").arg(&place.gateway);
        command.arg("--dir").arg(place.session_dir());
        command.arg("--port").arg(gateway_port.to_string());
        // A child inherits the mask of the thread that starts it, and one that has TERM blocked
        // could not be stopped. For this moment an interrupt ends the demo without clearing up.
        let signals = interrupts();
        signals
            .thread_unblock()
            .context("failed to unblock signals")?;
        let child = command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        signals.thread_block().context("failed to block signals")?;
        let child = child.context("failed to start sessionkeep")?;
        let mut stack = Self {
            child,
            gateway_port,
            _place: place,
        };
        stack.wait_until_up()?;
        Ok(stack)
    }

    pub(crate) fn gateway_port(&self) -> u16 {
        self.gateway_port
    }

    /// Sends TERM, as a container host does, and waits for the end.
    pub(crate) fn stop(mut self) -> Result<Ending> {
        kill(self.pid()?, Signal::SIGTERM).context("failed to send TERM")?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        bail!(
            "sessionkeep is still running {} s after TERM",
            STOP_LIMIT.as_secs()
        )
    }

    /// What another thread needs for a crash at a moment of its choice.
    pub(crate) fn hold(&self) -> Tree {
        Tree {
            root: self.child.id(),
        }
    }

    /// Takes note of a process that has been killed.
    pub(crate) fn reap(mut self) -> Result<()> {
        self.child
            .wait()
            .context("failed to wait for sessionkeep")?;
        Ok(())
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "sessionkeep ended before the gateway was up: {}",
                    Ending::from(status)
                );
            }
            let open = TcpStream::connect(("127.0.0.1", self.gateway_port)).is_ok();
            if open && client::get(self.gateway_port, "/ping").is_ok() {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
        bail!("the gateway was not up after {} s", START_LIMIT.as_secs())
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(
            self.child
                .id()
                .try_into()
                .context("a process id that is none")?,
        ))
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        // An ended child that has been waited for has given its number back to the kernel.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.hold().kill();
            let _ = self.child.wait();
        }
    }
}

/// A process with all its descendants.
pub(crate) struct Tree {
    root: u32,
}

impl Tree {
    /// Everything that this process has started, without the process itself.
    pub(crate) fn below_this_process() -> Self {
        Self {
            root: std::process::id(),
        }
    }

    /// Kills all of them at once. The list is made first, since what loses its parent is no
    /// longer found from the root.
    pub(crate) fn kill(&self) {
        let mut found = vec![self.root];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            found.extend(children(parent));
            next += 1;
        }
        found.retain(|pid| *pid != std::process::id());
        for pid in found {
            if let Ok(pid) = pid.try_into() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

/// The fourth field of `/proc/PID/stat`. The second is a name in parentheses, which may hold
/// spaces and parentheses itself, so counting begins after the last one.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Two ports that were free a moment ago; held together, so that they differ.
fn free_ports() -> Result<(u16, u16)> {
    let one = TcpListener::bind(("127.0.0.1", 0))?;
    let two = TcpListener::bind(("127.0.0.1", 0))?;
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}
