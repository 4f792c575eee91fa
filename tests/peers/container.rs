//! A container in miniature: a process and mount namespace, an init as its PID 1, a command.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::inits::{Ask, Budget, Init, subject, words};
use super::verdict::Miss;

/// Says that it is up, and goes on for ever.
pub(crate) const FOR_EVER: &str = "echo up > ready; while :; do sleep 0.05; done";

/// A container to be started.
pub(crate) struct Container {
    init: Init,
    root: tempfile::TempDir,
    asked: Vec<Ask>,
    budget: Budget,
    /// What is executed one after the other as PID 1 before the init is.
    under: Vec<OsString>,
    place: Place,
    environment: Vec<(OsString, OsString)>,
    stdio: [Option<Stdio>; 3],
    terminal: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    BehindAShell,
}

impl Container {
    pub(crate) fn of(init: Init) -> Self {
        let root = tempfile::Builder::new()
            .prefix("sessionkeep-init-")
            .tempdir()
            .expect("a directory");
        fs::create_dir(root.path().join("work")).expect("create");
        Self {
            init,
            root,
            asked: Vec::new(),
            // Ours by default.
            budget: Budget {
                total: Duration::from_secs(9),
                flush: Duration::from_secs(3),
            },
            under: Vec::new(),
            place: Place::First,
            environment: Vec::new(),
            stdio: [None, None, None],
            terminal: None,
        }
    }

    pub(crate) fn ask(mut self, what: Ask) -> Self {
        self.asked.push(what);
        self
    }

    /// KILL comes this long after the first TERM.
    pub(crate) fn kill_after(mut self, span: Duration) -> Self {
        let flush = Duration::from_secs(1);
        let total = span + flush;
        self.budget = Budget { total, flush };
        self
    }

    /// A command that executes the init at the end of its own arguments.
    pub(crate) fn under<W: AsRef<OsStr>>(mut self, line: &[W]) -> Self {
        self.under.extend(words(line));
        self
    }

    /// What a shell does as PID 1 before it becomes the init. `$ROOT` is the container's
    /// directory outside of the namespace.
    pub(crate) fn prepare(self, script: &str) -> Self {
        let root = self.root.path().display().to_string();
        let script = format!("set -e; ROOT={root}; {script}; unset ROOT; exec \"$@\"");
        self.under(&["sh", "-c", &script, "sh"])
    }

    /// The init is not PID 1: a shell is.
    pub(crate) fn behind_a_shell(mut self) -> Self {
        self.place = Place::BehindAShell;
        self.under(&["sh", "-c", "\"$@\"; exit $?", "sh"])
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdio[0] = Some(stdin.into());
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdio[1] = Some(stdout.into());
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stdio[2] = Some(stderr.into());
        self
    }

    /// As `docker run -it`: the init leads a session with a controlling terminal.
    pub(crate) fn on_a_terminal(mut self) -> Self {
        let pair = nix::pty::openpty(None, None).expect("a terminal");
        for at in 0..3 {
            self.stdio[at] = Some(pair.slave.try_clone().expect("clone").into());
        }
        self.terminal = Some(pair.master);
        self.under(&["setsid", "--ctty"])
    }

    /// A shell script as the main process.
    pub(crate) fn sh(self, script: &str) -> Result<Life, Miss> {
        self.run(&["sh", "-c", script])
    }

    /// `init_subject` as the main process.
    pub(crate) fn subject(self, part: &str) -> Result<Life, Miss> {
        let subject = subject();
        self.run(&[subject.as_os_str(), OsStr::new(part)])
    }

    pub(crate) fn run<W: AsRef<OsStr>>(self, line: &[W]) -> Result<Life, Miss> {
        let work = self.root.path().join("work");
        let line = words(line);
        let init = self.init;
        let line = init.before(&line, &self.asked, self.budget, self.root.path(), &work)?;
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
            .args(&self.under)
            .args(line)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment)
            .current_dir(&work);
        let [stdin, stdout, stderr] = self.stdio;
        let file =
            |name: &str| Stdio::from(File::create(self.root.path().join(name)).expect("create"));
        command.stdin(stdin.unwrap_or_else(Stdio::null));
        command.stdout(stdout.unwrap_or_else(|| file("stdout")));
        command.stderr(stderr.unwrap_or_else(|| file("stderr")));
        // SAFETY: system calls that are safe between fork and exec. A test that is killed takes
        // its containers with it.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Whatever the test was started with, a container starts clean.
                libc::close_range(
                    3,
                    libc::c_uint::MAX,
                    libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
                );
                for signal in 1..=libc::SIGRTMAX() {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("unshare is part of util-linux");
        // Closes our copies of what the container was given.
        drop(command);
        let terminal = self.terminal.map(Terminal::new);
        Ok(Life {
            init,
            root: self.root,
            child,
            place: self.place,
            terminal,
        })
    }
}

/// A container that was started. It ends with this value.
pub(crate) struct Life {
    pub(crate) init: Init,
    root: tempfile::TempDir,
    child: Child,
    place: Place,
    terminal: Option<Terminal>,
}

impl Life {
    /// A file in the directory that the main process works in.
    pub(crate) fn file(&self, name: &str) -> String {
        let text = fs::read(self.root.path().join("work").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.path().join("work").join(name)).unwrap_or_default()
    }

    /// What was written to `stdout` or `stderr`, where the test did not give another.
    pub(crate) fn output(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn until(
        &self,
        what: &str,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<(), Miss> {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > self.init.patience() {
                return Err(Miss::Fails(format!("never {what}{}", self.said())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn until_up(&self) -> Result<(), Miss> {
        self.until("up", |life| life.file("ready").contains("up"))
    }

    fn said(&self) -> String {
        let said = self.output("stderr");
        let said = String::from_utf8_lossy(&said[..said.len().min(400)]).into_owned();
        if said.trim().is_empty() {
            String::new()
        } else {
            format!("; it said: {}", said.trim())
        }
    }

    /// The init's process id, as seen from here.
    pub(crate) fn pid(&self) -> Result<i32, Miss> {
        let outer = self.child.id().cast_signed();
        let mut found = children(outer).first().copied();
        if self.place == Place::BehindAShell {
            found = found.and_then(|shell| children(shell).first().copied());
        }
        found.ok_or_else(|| Miss::Fails(format!("it is not there{}", self.said())))
    }

    /// A child of the container's PID 1 by its name.
    pub(crate) fn child(&self, name: &str) -> Result<i32, Miss> {
        let first = self.pid()?;
        let all = below(first).into_iter();
        let found = all.filter(|p| p.parent == first).find(|p| p.name == name);
        found
            .map(|p| p.pid)
            .ok_or_else(|| Miss::Fails(format!("no {name} is there")))
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), Miss> {
        send(self.pid()?, signal);
        Ok(())
    }

    /// Processes of the container besides the init, with their states.
    pub(crate) fn descendants(&self) -> Vec<Process> {
        self.pid().map_or_else(|_| Vec::new(), below)
    }

    pub(crate) fn has_zombies(&self) -> bool {
        self.descendants()
            .iter()
            .any(|process| process.state == 'Z')
    }

    /// Waits for the end and returns the code.
    pub(crate) fn code(&mut self) -> Result<i32, Miss> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status
                    .code()
                    .ok_or_else(|| Miss::Fails(format!("it died: {status}{}", self.said())));
            }
            if began.elapsed() > self.init.patience() {
                return Err(Miss::Fails(format!("it never ends{}", self.said())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end and compares the code.
    pub(crate) fn ends_with(&mut self, wanted: i32) -> Result<(), Miss> {
        let code = self.code()?;
        if code == wanted {
            return Ok(());
        }
        let said = self.said();
        Err(Miss::Fails(format!(
            "it exits with {code}, not {wanted}{said}"
        )))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Types on the terminal.
    pub(crate) fn types(&mut self, keys: &[u8]) {
        let terminal = self.terminal.as_mut().expect("it is on a terminal");
        terminal.keys.write_all(keys).expect("type");
    }

    pub(crate) fn terminal(&self) -> &File {
        &self.terminal.as_ref().expect("it is on a terminal").keys
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.has_ended() {
            // The kernel ends the namespace with its PID 1, and that with `unshare`.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The outer end of a terminal. What is shown is read, so that nobody waits for that.
struct Terminal {
    keys: File,
    #[expect(dead_code, reason = "to look at when a case fails")]
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new(master: OwnedFd) -> Self {
        let keys = File::from(master);
        let mut screen = keys.try_clone().expect("clone");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got) = screen.read(&mut buffer) {
                if got == 0 {
                    break;
                }
                if let Ok(mut to) = to.lock() {
                    to.extend_from_slice(&buffer[..got]);
                }
            }
        });
        Self { keys, shown }
    }
}

/// A line of the process table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) name: String,
    pub(crate) state: char,
}

pub(crate) fn send(pid: i32, signal: i32) {
    assert!(pid > 1, "one process of the test's own");
    // SAFETY: `kill` touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

fn process_table() -> Vec<Process> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let stat = String::from_utf8_lossy(&stat);
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let mut fields = rest.split_ascii_whitespace();
            let state = fields.next()?.chars().next()?;
            let parent = fields.next()?.parse().ok()?;
            let name = name.to_owned();
            Some(Process {
                pid,
                parent,
                name,
                state,
            })
        })
        .collect()
}

fn children(of: i32) -> Vec<i32> {
    let table = process_table().into_iter();
    table.filter(|p| p.parent == of).map(|p| p.pid).collect()
}

fn below(root: i32) -> Vec<Process> {
    let table = process_table();
    let mut parents = vec![root];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for process in table.iter().filter(|p| p.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}
