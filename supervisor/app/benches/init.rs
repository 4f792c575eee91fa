//! What an init costs: `sessionkeep run` beside tini, dumb-init, catatonit, and no init at all.
//!
//! `make init-figures` runs it and rewrites the figures of `docs/init.md`. Each life is a container
//! in miniature, as in `tests/peers.rs`: the init is a real PID 1, and `init_subject` tells the
//! times. Lives of all inits take turns, so that a noisy machine is noisy for all of them.

#[path = "../../../tests/support/built.rs"]
mod built;
#[path = "../../../tests/peers/inits.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod inits;
#[path = "../../../tests/peers/verdict.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the tests use more of it"
)]
mod verdict;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{PipeReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inits::{Budget, Init, subject};

const LIVES: usize = 25;
/// From the start until all is quiet. Ours still looks around in the beginning.
const SETTLE: Duration = Duration::from_millis(200);
/// How long idle ones are watched.
const IDLE: Duration = Duration::from_secs(10);

/// What is measured; nothing is between the launcher and the command where there is no init.
type Subject = Option<Init>;

#[derive(Default)]
struct Samples {
    start: Vec<Duration>,
    signal: Vec<Duration>,
    end: Vec<Duration>,
    pss: Vec<u64>,
    pss_helpers: Vec<u64>,
    switches: u64,
    switches_helpers: u64,
}

fn main() {
    // `cargo test --benches` runs this too; only `cargo bench` is asked to measure.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mut subjects: Vec<Subject> = vec![None];
    let peers = Init::peers().into_iter();
    subjects.extend(
        peers
            .filter(|i| !matches!(i, Init::TiniGroup | Init::S6))
            .map(Some),
    );
    subjects.extend(Init::ours().into_iter().map(Some));
    let mut samples: Vec<Samples> = subjects.iter().map(|_| Samples::default()).collect();
    for _ in 0..LIVES {
        for (of, samples) in subjects.iter().zip(&mut samples) {
            live(*of, samples);
        }
    }
    idle(&subjects, &mut samples);
    let text = report(&subjects, &mut samples);
    println!("{text}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/init.md");
    let old = fs::read_to_string(&page).expect("docs/init.md is part of the repository");
    let (begin, end) = ("<!-- begin figures -->\n", "<!-- end figures -->");
    let from = old.find(begin).expect("the page marks its figures") + begin.len();
    let to = old.find(end).expect("the page marks its figures");
    fs::write(&page, format!("{}{text}{}", &old[..from], &old[to..])).expect("writable");
}

/// A started container.
struct Life {
    _root: tempfile::TempDir,
    child: Child,
    told: PipeReader,
}

impl Life {
    fn start(of: Subject) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let program = subject();
        let command = [program.as_os_str(), OsStr::new("measured")].map(OsString::from);
        let budget = Budget {
            total: Duration::from_secs(9),
            flush: Duration::from_secs(3),
        };
        let line = match of {
            None => command.to_vec(),
            Some(init) => init
                .before(&command, &[], budget, root.path(), root.path())
                .expect("no option is asked for"),
        };
        let (told, tell) = std::io::pipe().expect("pipe");
        let child = Command::new("unshare")
            .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
            .arg(program)
            .arg("launch")
            .args(line)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(root.path())
            .stdin(Stdio::null())
            .stdout(tell)
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare is part of util-linux; it needs root");
        Self {
            _root: root,
            child,
            told,
        }
    }

    /// The next stamp, which must be `what`.
    fn stamp(&mut self, what: u8) -> Duration {
        let mut line = [0; 17];
        self.told.read_exact(&mut line).expect("a stamp");
        assert_eq!(line[0], what, "another stamp is next");
        let number = |at: usize| u64::from_le_bytes(line[at..at + 8].try_into().expect("8 bytes"));
        Duration::new(number(1), u32::try_from(number(9)).expect("nanoseconds"))
    }

    fn init(&self) -> u32 {
        children(self.child.id())[0]
    }

    /// What the init needs besides itself: all below it but the command.
    fn helpers(&self) -> Vec<u32> {
        let mut below = children(self.init());
        below.retain(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !line.split(|b| *b == 0).any(|word| word == b"measured")
        });
        below
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // The kernel takes the namespace with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn live(of: Subject, samples: &mut Samples) {
    let mut life = Life::start(of);
    let launched = life.stamp(b'L');
    let started = life.stamp(b'S');
    life.stamp(b'R');
    samples.start.push(started - launched);
    std::thread::sleep(SETTLE);
    let init = life.init();
    samples.pss.push(pss(init));
    samples
        .pss_helpers
        .push(life.helpers().into_iter().map(pss).sum());
    let end = End::of(init);
    let sent = now();
    // SAFETY: a plain system call.
    unsafe { libc::kill(init.cast_signed(), libc::SIGTERM) };
    let ended = end.wait();
    samples.signal.push(life.stamp(b'T').saturating_sub(sent));
    samples.end.push(ended.saturating_sub(life.stamp(b'E')));
}

/// All of them at once, doing nothing.
fn idle(subjects: &[Subject], samples: &mut [Samples]) {
    let mut lives: Vec<Life> = subjects.iter().map(|of| Life::start(*of)).collect();
    for life in &mut lives {
        life.stamp(b'L');
        life.stamp(b'S');
        life.stamp(b'R');
    }
    std::thread::sleep(Duration::from_secs(2));
    let count = |life: &Life| {
        (
            switches(life.init()),
            life.helpers().into_iter().map(switches).sum(),
        )
    };
    let before: Vec<(u64, u64)> = lives.iter().map(count).collect();
    let began = Instant::now();
    std::thread::sleep(IDLE);
    let after: Vec<(u64, u64)> = lives.iter().map(count).collect();
    let a_minute = |many: u64| (many as f64 * 60.0 / began.elapsed().as_secs_f64()).round() as u64;
    for ((before, after), samples) in before.into_iter().zip(after).zip(samples) {
        samples.switches = a_minute(after.0 - before.0);
        samples.switches_helpers = a_minute(after.1 - before.1);
    }
}

fn report(subjects: &[Subject], samples: &mut [Samples]) -> String {
    let mut text = String::new();
    let mut row = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    row(&[
        "init",
        "start to the command's first instruction",
        "TERM to the command's handler",
        "the command's exit to the init's",
        "PSS, idle (with its helpers)",
        "context switches a minute, idle (with its helpers)",
    ]
    .map(str::to_owned));
    row(&["---", "--:", "--:", "--:", "--:", "--:"].map(str::to_owned));
    let mut tini = (Duration::ZERO, Duration::ZERO);
    let mut against = Vec::new();
    for (of, samples) in subjects.iter().zip(samples) {
        let (signal, end) = (median(&mut samples.signal), median(&mut samples.end));
        if *of == Some(Init::Tini) {
            tini = (signal, end);
        }
        let helpers = median(&mut samples.pss_helpers);
        let own = median(&mut samples.pss);
        let name = of.map_or("none", Init::name);
        let with = |own: String, all: String, helpers: bool| {
            if helpers {
                format!("{own} ({all})")
            } else {
                own
            }
        };
        row(&[
            name.to_owned(),
            ms(median(&mut samples.start)),
            ms(signal),
            ms(end),
            if of.is_none() {
                "–".to_owned()
            } else {
                with(mb(own), mb(own + helpers), helpers > 0)
            },
            if of.is_none() {
                "–".to_owned()
            } else {
                let all = samples.switches + samples.switches_helpers;
                with(samples.switches.to_string(), all.to_string(), helpers > 0)
            },
        ]);
        if of.is_some_and(Init::is_ours) {
            let less = |a: Duration, b: Duration| (a.as_secs_f64() - b.as_secs_f64()) * 1000.0;
            against.push((
                name,
                less(signal, tini.0),
                less(end, tini.1),
                own,
                samples.switches,
            ));
        }
    }
    let _ = writeln!(
        text,
        "\n| goal | {} |",
        against.iter().map(|a| a.0).collect::<Vec<_>>().join(" | ")
    );
    let _ = writeln!(text, "|---|{}", "--:|".repeat(against.len()));
    let mut goal = |name: &str, shown: Vec<String>| {
        let _ = writeln!(text, "| {name} | {} |", shown.join(" | "));
    };
    goal(
        "signal within 0.15 ms of tini's",
        against.iter().map(|a| format!("{:+.2} ms", a.1)).collect(),
    );
    goal(
        "exit within 0.5 ms of tini's (`--init-only`)",
        against.iter().map(|a| format!("{:+.2} ms", a.2)).collect(),
    );
    goal("PSS ≤ 1 MB", against.iter().map(|a| mb(a.3)).collect());
    goal(
        "no context switch when idle",
        against.iter().map(|a| a.4.to_string()).collect(),
    );
    text
}

/// The end of a process that is not our child.
struct End(std::os::fd::OwnedFd);

impl End {
    fn of(pid: u32) -> Self {
        use std::os::fd::FromRawFd;
        // SAFETY: a plain system call, and what it returns is nobody else's.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            assert!(fd >= 0, "no pidfd: {}", std::io::Error::last_os_error());
            Self(std::os::fd::OwnedFd::from_raw_fd(fd as i32))
        }
    }

    /// Waits for it, and says when it was.
    fn wait(&self) -> Duration {
        use std::os::fd::AsFd;
        let mut fds = [nix::poll::PollFd::new(
            self.0.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        let ready = nix::poll::poll(&mut fds, 30_000u16);
        let then = now();
        assert_eq!(ready, Ok(1), "it never ends");
        then
    }
}

/// The clock of the stamps.
fn now() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now)
}

fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut all: Vec<u32> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| field(&format!("/proc/{pid}/status"), "PPid:") == u64::from(of))
        .collect();
    all.sort_unstable();
    all
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn pss(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Of all threads.
fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .flatten();
    threads
        .map(|thread| {
            let path = format!("{}/status", thread.path().display());
            field(&path, "voluntary_ctxt_switches:") + field(&path, "nonvoluntary_ctxt_switches:")
        })
        .sum()
}

fn median<T: Ord + Copy>(samples: &mut [T]) -> T {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn ms(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1000.0)
}

fn mb(kib: u64) -> String {
    format!("{:.2} MB", kib as f64 * 1024.0 / 1e6)
}
