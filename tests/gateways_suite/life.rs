//! One life of `sessionkeep run` with a gateway under it: start, ask, stop, kill.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::place::Place;

/// Generous: it bounds what a busy machine may take, and nothing waits for it.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running sessionkeep. Whatever is left of it when this is dropped is killed.
pub(crate) struct Life<'a> {
    place: &'a Place,
    child: Child,
    port: u16,
}

impl Place {
    /// Starts `sessionkeep run` over a gateway; `--port` and a free port are added to its command.
    /// Waits until the gateway answers.
    #[track_caller]
    pub(crate) fn start(&self, gateway: &[OsString], settings: &[&str]) -> Life<'_> {
        let (gateway, port) = with_port(gateway);
        self.start_silent(&gateway, settings).up(port)
    }

    /// Starts the gateway by itself, with no sessionkeep over it.
    #[track_caller]
    pub(crate) fn start_bare(&self, gateway: &[OsString]) -> Life<'_> {
        let (gateway, port) = with_port(gateway);
        let mut command = Command::new(&gateway[0]);
        command.args(&gateway[1..]).stdin(Stdio::null());
        self.spawn(command).up(port)
    }

    /// The same for a gateway that answers nobody.
    #[track_caller]
    pub(crate) fn start_silent(&self, gateway: &[OsString], settings: &[&str]) -> Life<'_> {
        let mut command = self.sessionkeep("run");
        for setting in ["http.port=off", "gateway.probe=off", "log.format=json"] {
            command.args(["--set", setting]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.arg("--").args(gateway);
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Life<'_> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("open the log");
        command
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        // SAFETY: between fork and exec only one async-signal-safe system call is made. The signal
        // comes when the thread that starts it ends, and a life stays in its test's thread.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        Life {
            place: self,
            child: command.spawn().expect("start a process"),
            port: 0,
        }
    }
}

impl Life<'_> {
    #[track_caller]
    fn up(mut self, port: u16) -> Self {
        self.port = port;
        self.until("the gateway answers", |life| {
            let ended = life.has_ended();
            assert!(ended.is_none(), "it ended with {ended:?} before");
            request(port, "GET", "/ping").ok()?.ok()
        });
        self
    }

    /// What the gateway answers; any status but 200 fails the test.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Value {
        self.ask("GET", target)
            .unwrap_or_else(|answer| panic!("GET {target}: {answer}"))
    }

    /// What it answers, where it does.
    pub(crate) fn try_get(&self, target: &str) -> Option<Value> {
        request(self.port, "GET", target).ok()?.ok()
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str) -> Value {
        self.ask("POST", target)
            .unwrap_or_else(|answer| panic!("POST {target}: {answer}"))
    }

    /// `Err` with the body for any status but 200.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, target: &str) -> Result<Value, Value> {
        request(self.port, method, target).expect("the gateway answers")
    }

    /// Looks again and again until there is something.
    #[track_caller]
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends TERM, as a container host does, and gives the exit code.
    #[track_caller]
    pub(crate) fn stop(mut self) -> i32 {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("send TERM");
        self.until("sessionkeep ends", |life| life.has_ended())
    }

    /// Kills every process of it at once, and gives the moment. Init stands still while the list is
    /// made, so that it cannot begin an orderly stop.
    pub(crate) fn kill(mut self) -> i64 {
        self.kill_all()
    }

    /// Kills the gateway alone: its process is the one with this in its command.
    #[track_caller]
    pub(crate) fn kill_gateway(&self, command: &str) {
        let is_gateway = |pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains(command)
        };
        let own = self.child.id();
        let found = descendants(own);
        let mut gateways = found
            .into_iter()
            .filter(|pid| *pid != own && is_gateway(pid));
        let pid = gateways.next().expect("a gateway");
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("send KILL");
    }

    fn kill_all(&mut self) -> i64 {
        let own = self.child.id();
        let _ = kill(Pid::from_raw(own.cast_signed()), Signal::SIGSTOP);
        let tree = descendants(own);
        for pid in &tree {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let at_ms = now_ms();
        let _ = self.child.wait();
        // They may still be at work inside a system call, on files that are about to be wiped.
        let deadline = Instant::now() + LIMIT;
        while tree.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            thread::sleep(LOOK_AGAIN);
        }
        at_ms
    }

    /// The exit code, 128 and the signal added where one ended it.
    fn has_ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.try_wait().expect("it is our child")?;
        Some(
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        )
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_all();
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.place.log()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(25)..].join("\n");
            eprintln!("the log ends with:\n{tail}");
        }
    }
}

/// The machine's clock in milliseconds since 1970, as in the journals.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a clock before the sun is cold")
}

fn with_port(gateway: &[OsString]) -> (Vec<OsString>, u16) {
    let port = free_port();
    let more = ["--port".into(), port.to_string().into()];
    (gateway.iter().cloned().chain(more).collect(), port)
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("bind to any port");
    probe.local_addr().expect("a bound socket").port()
}

/// The process itself and all below it.
fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let processes = fs::read_dir("/proc").expect("/proc");
        found.extend(
            processes
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
                .filter(|pid| stat_of(*pid).is_some_and(|(_, above)| above == parent)),
        );
        next += 1;
    }
    found
}

fn is_alive(pid: u32) -> bool {
    stat_of(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// State and parent, from `/proc/PID/stat`. The name in parentheses may hold anything, so counting
/// begins after the last one.
fn stat_of(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// `Err` outside: nobody answers; inside: another status than 200.
fn request(port: u16, method: &str, target: &str) -> io::Result<Result<Value, Value>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = serde_json::from_str(body)?;
    let status = head.split(' ').nth(1);
    Ok(if status == Some("200") {
        Ok(body)
    } else {
        Err(body)
    })
}
