//! What requests cost commits, and commits requests: `cargo bench --bench http`.
//!
//! One instance with 3,000 files and an SQLite store. A file is rewritten again and again, each time
//! once the last change is in the store; meanwhile `/health` is asked for a hundred times a second. That is
//! done in turn on a quiet machine, and with 1,000 connections held open and 1,000 requests a second
//! from them, and the two are put side by side.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

const FILES: usize = 3000;
const ROUNDS: usize = 4;
const WRITES: usize = 100;
const CONNECTIONS: usize = 1000;
const PER_SECOND: u64 = 1000;
/// Which rewrite it is, of all.
static NUMBER: AtomicU64 = AtomicU64::new(0);
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let root = tempfile::Builder::new()
        .tempdir_in("/dev/shm")
        .expect("a directory in memory");
    let world = World::start(root.path());
    let (mut quiet, mut stormy) = (Figures::default(), Figures::default());
    for _ in 0..ROUNDS {
        world.measure(&mut quiet);
        let answered = world.in_a_storm(|| world.measure(&mut stormy));
        println!("storm: {answered:.0} requests a second were answered");
    }
    println!("{:<34} {:>10} {:>10} {:>8}", "", "quiet", "storm", "ratio");
    row(
        "written to durable, p50",
        &quiet.durable,
        &stormy.durable,
        50,
    );
    row(
        "written to durable, p99",
        &quiet.durable,
        &stormy.durable,
        99,
    );
    row(
        "/health while committing, p50",
        &quiet.health,
        &stormy.health,
        50,
    );
    row(
        "/health while committing, p99",
        &quiet.health,
        &stormy.health,
        99,
    );
    ExitCode::SUCCESS
}

fn row(name: &str, quiet: &[Duration], stormy: &[Duration], percent: usize) {
    let of = |samples: &[Duration]| {
        let mut sorted = samples.to_vec();
        sorted.sort();
        sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1000.0
    };
    let (a, b) = (of(quiet), of(stormy));
    println!("{name:<34} {a:>7.2} ms {b:>7.2} ms {:>7.2}x", b / a);
}

#[derive(Default)]
struct Figures {
    durable: Vec<Duration>,
    health: Vec<Duration>,
}

struct World {
    dir: PathBuf,
    archive: PathBuf,
    port: u16,
    child: Child,
}

impl World {
    fn start(root: &Path) -> Self {
        let (dir, archive) = (root.join("session"), root.join("archive.db"));
        fs::create_dir(&dir).expect("mkdir");
        for n in 0..FILES {
            fs::write(
                dir.join(format!("pre-key-{n}.json")),
                format!("{{\"n\":{n}}}"),
            )
            .expect("write");
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_sessionkeep"))
            .args(["run", "--profile", "baileys", "--dir"])
            .arg(&dir)
            .args(["--store", &format!("sqlite:{}", archive.display())])
            .args(["--set", &format!("http.port={port}")])
            .args(["--", "sleep", "100000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        let world = Self {
            dir,
            archive,
            port,
            child,
        };
        let begun = Instant::now();
        while world.head() < 2 {
            assert!(begun.elapsed() < PATIENCE, "nothing is committed");
            thread::sleep(Duration::from_millis(20));
        }
        world
    }

    /// The newest commit's number; 0 for none.
    fn head(&self) -> i64 {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let Ok(connection) = Connection::open_with_flags(&self.archive, flags) else {
            return 0;
        };
        newest(&connection)
    }

    fn measure(&self, figures: &mut Figures) {
        let over = AtomicBool::new(false);
        let health = Mutex::new(Vec::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = connect(self.port);
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    // Under the storm the oldest connections give way, and this is one.
                    if ask(&mut stream).is_none() {
                        stream = connect(self.port);
                        continue;
                    }
                    health.lock().expect("no panic").push(begun.elapsed());
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let _over = Over(&over);
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.archive, flags).expect("open");
            for n in 0..WRITES {
                let before = newest(&connection);
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let file = self.dir.join(format!("pre-key-{}.json", n % FILES));
                fs::write(file, format!("{{\"rewrite\":{number}}}")).expect("write");
                let begun = Instant::now();
                while newest(&connection) == before {
                    assert!(begun.elapsed() < PATIENCE, "it is not committed");
                    thread::sleep(Duration::from_millis(1));
                }
                figures.durable.push(begun.elapsed());
            }
        });
        figures
            .health
            .append(&mut health.into_inner().expect("no panic"));
    }

    /// Does something while many are connected and ask; gives how many answers came a second.
    fn in_a_storm(&self, work: impl FnOnce()) -> f64 {
        let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(self.port)).collect();
        let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = connect(self.port);
                let mut sent = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    let due = begun + Duration::from_micros(sent * 1_000_000 / PER_SECOND);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    sent += 1;
                    match ask(&mut stream) {
                        Some(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        None => stream = connect(self.port),
                    }
                }
            });
            let _over = Over(&over);
            work();
        });
        drop(silent);
        answered.into_inner() as f64 / begun.elapsed().as_secs_f64()
    }
}

/// Ends the other threads, also where this one panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: it is our own child, which has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn newest(connection: &Connection) -> i64 {
    let seq = connection.query_row("SELECT coalesce(max(seq), 0) FROM commits", [], |row| {
        row.get(0)
    });
    seq.unwrap_or(0)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Asks for `/health` and takes the answer; `None` where the connection was ended.
fn ask(stream: &mut TcpStream) -> Option<()> {
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece).ok()? {
            0 => return None,
            n => answer.extend_from_slice(&piece[..n]),
        }
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = std::str::from_utf8(&answer[..end]).ok()?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        if answer.len() >= end + 4 + length {
            return Some(());
        }
    }
}
