//! The figures of `docs/figures.md`: memory, CPU and latencies of the release binary, beside the
//! plain writes and reads of the same files, against a real mongod, in one run.
//!
//! `make figures` runs it and rewrites the table. Nothing here passes or fails: machines differ, and
//! a figure is read beside the ratio that was taken with it.

#[path = "../../tests/support/mongod.rs"]
mod mongod;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mongod::Mongod;

const ACCOUNTS: usize = 30;
const FILES_PER_ACCOUNT: usize = 1021;
const ROUNDS: usize = 5;
const LATENCY_SAMPLES: usize = 200;
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --benches` runs this too; only `cargo bench` is asked to measure.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let figures = measure();
    let mut table = String::from("| figure | measured | to reach |\n|---|---|---|\n");
    for (name, measured, goal) in &figures {
        let _ = writeln!(table, "| {name} | {measured} | {goal} |");
    }
    println!("{table}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/figures.md");
    let text = fs::read_to_string(&page).expect("docs/figures.md is part of the repository");
    let (begin, end) = ("<!-- begin table -->\n", "<!-- end table -->");
    let from = text.find(begin).expect("the page marks its table") + begin.len();
    let to = text.find(end).expect("the page marks its table");
    fs::write(&page, format!("{}{table}{}", &text[..from], &text[to..]))
        .expect("the page is writable");
}

type Figure = (&'static str, String, &'static str);

fn measure() -> Vec<Figure> {
    let scratch = tempfile::Builder::new()
        .prefix("sessionkeep-figures-")
        .tempdir_in("/dev/shm")
        .expect("tmpfs");
    let mongod = Mongod::start();
    let url = mongod.new_database_url();
    let source = scratch.path().join("source");
    workload(&source);
    let mut figures = Vec::new();

    let (mut writes, mut restores, mut peak) = (Vec::new(), Vec::new(), 0);
    let session = scratch.path().join("session");
    let (read, _) = copy(&source, &session);

    // First upload: from the start of the program until everything is in the store.
    let begun = Instant::now();
    let mut keeper = Keeper::start(
        &url,
        &session,
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done",
    );
    keeper.wait_for("] committed");
    let upload = begun.elapsed();
    figures.push((
        "first upload, 31,000 files",
        format!("{}, reading them takes {}", ms(upload), ms(read)),
        "≤ 3 s more than reading them",
    ));

    // Idle: after the upload's memory was given back.
    let (init, watcher) = (keeper.init(), keeper.watcher());
    let before = cpu(init) + cpu(watcher);
    let idle_begun = Instant::now();
    std::thread::sleep(IDLE);
    let used = cpu(init) + cpu(watcher) - before;
    let share = used.as_secs_f64() / idle_begun.elapsed().as_secs_f64() * 100.0;
    figures.push(("PID 1 PSS, idle, Mongo mode", kib(pss(init)), "≤ 2 MB"));
    figures.push((
        "PID 1 + watcher PSS, idle, 31,000 files",
        kib(pss(init) + pss(watcher)),
        "≤ 16 MB",
    ));
    figures.push((
        "idle CPU, whole product",
        format!("{share:.2} % of a core"),
        "≤ 0.2 %",
    ));
    figures.push((
        "peak RSS, watcher, after the first upload",
        kib(peak_rss(watcher)),
        "–",
    ));

    // One small file: closed → durable.
    let mut latencies = Vec::new();
    for n in 0..LATENCY_SAMPLES {
        while keeper.lines.try_recv().is_ok() {}
        fs::write(
            session.join(format!("account-{}/session-x.json", n % ACCOUNTS)),
            key_file(n as u64 + 1_000_000),
        )
        .expect("write");
        let closed = Instant::now();
        keeper.wait_for("] committed");
        latencies.push(closed.elapsed());
        std::thread::sleep(Duration::from_millis(60 + (n as u64 * 37) % 140));
    }
    figures.push((
        "one small file closed → durable, p50 / p99",
        format!(
            "{} / {}",
            ms(percentile(&mut latencies, 50)),
            ms(percentile(&mut latencies, 99))
        ),
        "≤ 100 / 400 ms",
    ));

    // Clean stop with nothing dirty; the gateway dies of TERM at once.
    keeper.stop();
    let mut stops = Vec::new();
    for _ in 0..ROUNDS {
        let mut keeper = Keeper::start(&url, &session, "exec sleep 1000");
        keeper.wait_for("ready for changes");
        let begun = Instant::now();
        keeper.stop();
        stops.push(begun.elapsed());
    }
    figures.push((
        "clean stop, 31,000 files, nothing dirty",
        ms(percentile(&mut stops, 50)),
        "≤ 300 ms",
    ));

    // Restore beside plain writes of the same files, in turn.
    for round in 0..ROUNDS {
        let plain = scratch.path().join(format!("plain-{round}"));
        let (_, write) = copy(&source, &plain);
        writes.push(write);
        fs::remove_dir_all(&plain).expect("remove");
        let to = scratch.path().join(format!("restored-{round}"));
        let begun = Instant::now();
        let mut child = command(&url, &session)
            .args(["restore", "--to"])
            .arg(&to)
            .stdout(Stdio::null())
            .spawn()
            .expect("start");
        let usage = wait_with_peak(&mut child);
        restores.push(begun.elapsed());
        peak = peak.max(usage);
        fs::remove_dir_all(&to).expect("remove");
    }
    let (restore, write) = (percentile(&mut restores, 50), percentile(&mut writes, 50));
    let ratio = restore.as_secs_f64() / write.as_secs_f64();
    figures.push((
        "restore of 31,000 files onto tmpfs, beside plain writes of the same",
        format!("{} beside {}: {ratio:.2} ×", ms(restore), ms(write)),
        "≤ 2 ×",
    ));
    figures.push(("peak RSS, restore", kib(peak), "–"));
    figures
}

/// 30 accounts of a Baileys bot: 30,630 small files, 35 MB, the same at each run.
fn workload(root: &Path) {
    for account in 0..ACCOUNTS {
        let dir = root.join(format!("account-{account}"));
        fs::create_dir_all(&dir).expect("create");
        fs::write(dir.join("creds.json"), key_file(account as u64)).expect("write");
        for n in 1..FILES_PER_ACCOUNT {
            let seed = (account * FILES_PER_ACCOUNT + n) as u64;
            fs::write(dir.join(format!("pre-key-{n}.json")), key_file(seed)).expect("write");
        }
    }
}

/// What a key file looks like: JSON around base64 of random bytes, about 1.1 KB.
fn key_file(seed: u64) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = [0; 4 * 256];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut random);
    let text = |part: &[u8]| {
        part.iter()
            .map(|b| ALPHABET[usize::from(b & 63)] as char)
            .collect::<String>()
    };
    let mut out = String::from("{");
    for (name, part) in ["private", "public", "signature", "chain"]
        .iter()
        .zip(random.chunks(256))
    {
        let _ = write!(
            out,
            "\"{name}\":{{\"type\":\"Buffer\",\"data\":\"{}\"}},",
            text(part)
        );
    }
    let _ = write!(out, "\"keyId\":{seed}}}");
    out.into_bytes()
}

/// Copies a tree with plain reads and writes, and says how long each took.
fn copy(from: &Path, to: &Path) -> (Duration, Duration) {
    let begun = Instant::now();
    let mut files = Vec::new();
    for account in 0..ACCOUNTS {
        let name = format!("account-{account}");
        for entry in fs::read_dir(from.join(&name)).expect("list") {
            let entry = entry.expect("entry");
            files.push((
                PathBuf::from(&name).join(entry.file_name()),
                fs::read(entry.path()).expect("read"),
            ));
        }
    }
    let read = begun.elapsed();
    let begun = Instant::now();
    for account in 0..ACCOUNTS {
        fs::create_dir_all(to.join(format!("account-{account}"))).expect("create");
    }
    for (path, content) in &files {
        fs::write(to.join(path), content).expect("write");
    }
    (read, begun.elapsed())
}

fn command(url: &str, session: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessionkeep"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MONGO_URL", url)
        .env("SESSIONKEEP_DIR", session)
        .env("SESSIONKEEP_PROFILE", "baileys")
        .env("SESSIONKEEP_HTTP_PORT", "off")
        .stdin(Stdio::null());
    command
}

/// A running product and its log.
struct Keeper {
    child: Child,
    lines: Receiver<String>,
}

impl Keeper {
    fn start(url: &str, session: &Path, gateway: &str) -> Self {
        let mut child = command(url, session)
            .args(["run", "--", "sh", "-c", gateway])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let log = child.stderr.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("no {words:?} in the log: {seen:#?}");
    }

    fn init(&self) -> u32 {
        self.child.id()
    }

    fn watcher(&self) -> u32 {
        let init = self.init();
        fs::read_dir("/proc")
            .expect("proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| field(*pid, "status", "PPid:") == u64::from(init))
            .find(|pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|b| *b == 0).any(|part| part == b"watch")
            })
            .expect("a watcher runs")
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal");
        self.child.wait().expect("wait");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn field(pid: u32, file: &str, name: &str) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .unwrap_or_default()
        .lines()
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
    field(pid, "smaps_rollup", "Pss:")
}

fn peak_rss(pid: u32) -> u64 {
    field(pid, "status", "VmHWM:")
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after = stat.rsplit_once(')').expect("a name in parentheses").1;
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Waits for a short-lived process and samples the most memory it ever had.
fn wait_with_peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    loop {
        peak = peak.max(peak_rss(child.id()));
        match child.try_wait().expect("wait") {
            Some(status) => {
                assert!(status.success(), "the restore failed: {status}");
                return peak;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}

fn ms(span: Duration) -> String {
    format!("{:.0} ms", span.as_secs_f64() * 1000.0)
}

fn kib(kib: u64) -> String {
    format!("{:.1} MB", kib as f64 / 1000.0)
}
