//! The gateways of the workloads: processes of their own that write as a gateway does, and keep a
//! log of when they had written what.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::monotonic_ns;
use crate::workload::baileys::{self, Kind};
use crate::workload::database::Database;
use crate::workload::random::Random;

/// What this program is called with to be a writer.
const ROLE: &str = "--writer";

/// One writing of a file.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// Relative to the session directory.
    pub(crate) path: PathBuf,
    /// Hash of the content.
    pub(crate) hash: [u8; 32],
    /// Modification time, in nanoseconds since 1970.
    pub(crate) mtime_ns: i128,
    /// When the file was closed, on the monotonic clock.
    pub(crate) closed: u64,
}

/// A transaction that was committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transaction {
    /// Its number.
    pub(crate) n: u64,
    /// When its commit had returned, on the monotonic clock.
    pub(crate) committed: u64,
    /// The same on the clock that files are stamped with, in nanoseconds since 1970.
    pub(crate) at: i128,
}

/// What a writer does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Rewrites so many files of so many accounts at random moments.
    Rewrite {
        accounts: usize,
        count: u64,
        seconds: u64,
    },
    /// Writes what one message writes, once a second.
    Messages { seconds: u64 },
    /// Writes one file each so many milliseconds.
    Steady { count: u64, pause_ms: u64 },
    /// Commits small transactions, so many a second.
    Transactions { rate: u64, seconds: u64 },
    /// Waits for TERM, and then writes so many files before it ends.
    LastWords { count: u64 },
}

impl Task {
    fn words(self) -> Vec<String> {
        let (name, numbers) = match self {
            Self::Rewrite {
                accounts,
                count,
                seconds,
            } => ("rewrite", vec![accounts as u64, count, seconds]),
            Self::Messages { seconds } => ("messages", vec![seconds]),
            Self::Steady { count, pause_ms } => ("steady", vec![count, pause_ms]),
            Self::Transactions { rate, seconds } => ("transactions", vec![rate, seconds]),
            Self::LastWords { count } => ("last-words", vec![count]),
        };
        let numbers = numbers.into_iter().map(|n| n.to_string());
        std::iter::once(name.to_owned()).chain(numbers).collect()
    }

    fn parse(words: &[String]) -> Self {
        let number = |n: usize| words[n].parse::<u64>().expect("a number");
        match words[0].as_str() {
            "rewrite" => Self::Rewrite {
                accounts: number(1) as usize,
                count: number(2),
                seconds: number(3),
            },
            "messages" => Self::Messages { seconds: number(1) },
            "steady" => Self::Steady {
                count: number(1),
                pause_ms: number(2),
            },
            "transactions" => Self::Transactions {
                rate: number(1),
                seconds: number(2),
            },
            "last-words" => Self::LastWords { count: number(1) },
            other => panic!("no such writer: {other}"),
        }
    }

    /// The command line of a process that does this in `dir` and logs to `log`.
    pub(crate) fn command_line(self, dir: &Path, log: &Path) -> Vec<std::ffi::OsString> {
        let own = std::env::current_exe().expect("own path");
        let mut line = vec![own.into(), ROLE.into(), dir.into(), log.into()];
        line.extend(self.words().into_iter().map(Into::into));
        line
    }

    /// Starts a process that does this.
    pub(crate) fn start(self, dir: &Path, log: &Path) -> Writer {
        let line = self.command_line(dir, log);
        let child = Command::new(&line[0]).args(&line[1..]).spawn();
        Writer {
            child: child.expect("start the writer"),
            log: log.to_owned(),
        }
    }
}

/// A writer at work.
pub(crate) struct Writer {
    child: Child,
    log: PathBuf,
}

impl Writer {
    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Log {
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "the writer failed: {status}");
        Log(self.log.clone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a writer noted.
pub(crate) struct Log(pub(crate) PathBuf);

impl Log {
    fn lines(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.0).expect("the writer's log");
        text.lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect()
    }

    /// Files that were written.
    pub(crate) fn files(&self) -> Vec<Written> {
        let parse = |words: Vec<String>| Written {
            path: PathBuf::from(&words[0]),
            hash: *blake3::Hash::from_hex(&words[1])
                .expect("a hash")
                .as_bytes(),
            mtime_ns: words[2].parse().expect("a time"),
            closed: words[3].parse().expect("a time"),
        };
        self.lines().into_iter().map(parse).collect()
    }

    /// Transactions that were committed.
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        let parse = |words: Vec<String>| Transaction {
            n: words[0].parse().expect("a number"),
            committed: words[1].parse().expect("a time"),
            at: words[2].parse().expect("a time"),
        };
        self.lines().into_iter().map(parse).collect()
    }
}

/// Does a writer's work, where this process was started to be one.
pub(crate) fn is_writer() -> bool {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_none_or(|word| word != ROLE) {
        return false;
    }
    let (dir, log) = (Path::new(&words[2]), Path::new(&words[3]));
    let mut scribe = Scribe {
        dir: dir.to_owned(),
        log: BufWriter::new(File::create(log).expect("the log")),
    };
    match Task::parse(&words[4..]) {
        Task::Rewrite {
            accounts,
            count,
            seconds,
        } => rewrite(&mut scribe, accounts, count, seconds),
        Task::Messages { seconds } => messages(&mut scribe, seconds),
        Task::Steady { count, pause_ms } => steady(&mut scribe, count, pause_ms),
        Task::Transactions { rate, seconds } => transactions(&mut scribe, rate, seconds),
        Task::LastWords { count } => last_words(&mut scribe, count),
    }
    scribe.log.flush().expect("write the log");
    true
}

struct Scribe {
    dir: PathBuf,
    log: BufWriter<File>,
}

impl Scribe {
    /// Writes a file as the library does: truncates, writes, closes.
    fn write(&mut self, path: &Path, content: &[u8]) {
        let whole = self.dir.join(path);
        fs::write(&whole, content).expect("write");
        let closed = monotonic_ns();
        let meta = fs::metadata(&whole).expect("it was just written");
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let hash = blake3::hash(content).to_hex();
        writeln!(self.log, "{}\t{hash}\t{mtime}\t{closed}", path.display()).expect("log");
    }
}

fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

fn rewrite(scribe: &mut Scribe, accounts: usize, count: u64, seconds: u64) {
    let random = &mut Random::new("rewrite", 0);
    let span = seconds * 1_000_000;
    let mut moments: Vec<u64> = (0..count).map(|_| random.below(span)).collect();
    moments.sort_unstable();
    let begun = Instant::now();
    for (version, moment) in moments.into_iter().enumerate() {
        // What a gateway rewrites, in about the parts in which it does.
        let kind = match random.below(20) {
            0..=11 => Kind::Session,
            12..=14 => Kind::Creds,
            15..=17 => Kind::SenderKey,
            18 => Kind::SyncVersion,
            _ => Kind::DeviceList,
        };
        let account = random.below(accounts as u64) as usize;
        let n = random.below(kind.count() as u64) as usize;
        let mut content = baileys::content(kind, account, n, version as u64 + 1);
        if kind == Kind::DeviceList {
            content = format!("[\"0\",\"{version}\"]").into_bytes();
        }
        wait_until(begun + Duration::from_micros(moment));
        let path = baileys::folder(account).join(baileys::name(kind, n));
        scribe.write(&path, &content);
    }
}

/// What an incoming or outgoing message writes: the ratchet of its session, a group's key in every
/// third, the credentials in every fourth, and in every thirtieth a new contact takes a pre-key.
fn messages(scribe: &mut Scribe, seconds: u64) {
    const CONTACTS: u64 = 20;
    let random = &mut Random::new("messages", 0);
    let begun = Instant::now();
    for n in 1..=seconds {
        // Not in step with anybody's timer.
        let moment = n * 1_000_000 - random.below(900_000);
        wait_until(begun + Duration::from_micros(moment));
        let contact = random.below(CONTACTS) as usize;
        let mut write = |kind, which| {
            let content = baileys::content(kind, 0, which, n);
            scribe.write(Path::new(&baileys::name(kind, which)), &content);
        };
        write(Kind::Session, contact);
        if n % 3 == 0 {
            write(Kind::SenderKey, contact);
        }
        if n % 4 == 0 {
            write(Kind::Creds, 0);
        }
        if n % 30 == 0 {
            write(Kind::Session, (CONTACTS + n / 30) as usize);
            let spent = baileys::name(Kind::PreKey, (n / 30) as usize);
            fs::remove_file(scribe.dir.join(spent)).expect("the pre-key is there");
        }
    }
}

fn steady(scribe: &mut Scribe, count: u64, pause_ms: u64) {
    let begun = Instant::now();
    for version in 1..=count {
        wait_until(begun + Duration::from_millis(version * pause_ms));
        let which = version as usize % Kind::Session.count();
        let content = baileys::content(Kind::Session, 0, which, version);
        scribe.write(Path::new(&baileys::name(Kind::Session, which)), &content);
    }
}

fn transactions(scribe: &mut Scribe, rate: u64, seconds: u64) {
    let mut database = Database::open(&scribe.dir);
    let begun = Instant::now();
    for n in 1..=rate * seconds {
        wait_until(begun + Duration::from_micros(n * 1_000_000 / rate));
        database.transact(n);
        let committed = monotonic_ns();
        let at = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_nanos();
        writeln!(scribe.log, "{n}\t{committed}\t{at}").expect("log");
    }
}

static TOLD: AtomicBool = AtomicBool::new(false);

extern "C" fn told(_: libc::c_int) {
    TOLD.store(true, Ordering::Relaxed);
}

fn last_words(scribe: &mut Scribe, count: u64) {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the handler stores to an atomic and does nothing else.
    unsafe { signal(Signal::SIGTERM, SigHandler::Handler(told)) }.expect("a handler");
    println!("gateway is up");
    while !TOLD.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
    }
    for n in 0..count {
        let content = baileys::content(Kind::Session, 0, n as usize, 1);
        let name = baileys::name(Kind::Session, n as usize);
        scribe.write(Path::new(&name), &content);
    }
}
