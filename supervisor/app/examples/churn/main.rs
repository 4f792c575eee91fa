//! A gateway for the fault campaign: it writes without a pause, in the shapes in which gateways
//! write, and everything that it writes can be told from its step alone.
//!
//! `churn DIR JOURNAL`. A step writes a pre-key (truncated and rewritten, once), a session
//! (written beside and renamed), a transaction of a database in WAL mode, and `creds.json`
//! (truncated and rewritten); used pre-keys are deleted. Each is told in the journal, outside of
//! the session, once it is done. A copy of the directory as it was found is made beside the
//! journal. TERM ends it after one more step.

mod shape;

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use rusqlite::Connection;

use shape::{PRE_KEYS, SESSIONS, SLOTS, creds, key, pre_key, session};

/// Between two steps: as fast as no gateway is, and slow enough for the watcher to keep up.
const PAUSE: Duration = Duration::from_millis(4);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("churn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut stop_signals = SigSet::empty();
    stop_signals.add(Signal::SIGTERM);
    // Blocked before the first thread starts, so that only the one that waits for it gets it.
    stop_signals.thread_block()?;
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(dir), Some(journal)) = (args.next(), args.next()) else {
        return Err("it needs a session directory and a journal".into());
    };
    let mut journal = Journal::open(&journal)?;
    let _only = journal.alone()?;
    let mut state = State::find(&dir, &mut journal)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stopping);
    thread::spawn(move || {
        let _ = stop_signals.wait();
        told.store(true, Ordering::Release);
    });
    while !stopping.load(Ordering::Acquire) {
        state.step(&mut journal)?;
        thread::sleep(PAUSE);
    }
    // Its last words: a copy that was made too early lacks them.
    state.step(&mut journal)?;
    Ok(())
}

/// What was done, one line each, and since when it counts as done.
struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    fn tell(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        self.file.write_all(format!("{now} {line}\n").as_bytes())?;
        Ok(())
    }

    /// A lock that the kernel gives back with this process. Where another one has it, two gateways
    /// have the session.
    fn alone(&mut self) -> Result<Flock<File>, Box<dyn Error>> {
        let lock = File::create(self.path.with_extension("lock"))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((_, error)) => {
                self.tell("two")?;
                Err(format!("another gateway runs: {error}").into())
            }
        }
    }
}

/// The login and how far it has come.
struct State {
    dir: PathBuf,
    db: Connection,
    identity: String,
    step: u64,
}

impl State {
    /// Goes on from what is there.
    fn find(dir: &Path, journal: &mut Journal) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(dir)?;
        let found = journal.path.with_extension("found");
        let _ = fs::remove_dir_all(&found);
        fs::create_dir_all(&found)?;
        let copied = Command::new("find")
            .arg(dir)
            .args("-mindepth 1 -maxdepth 1 ! -name .sessionkeep -exec cp -a -t".split(' '))
            .arg(&found)
            .args(["{}", "+"])
            .status()?;
        if !copied.success() {
            return Err("failed to copy the directory".into());
        }
        let mut step = 0;
        for slot in 0..SESSIONS {
            let name = format!("session-{slot}.json");
            if let Ok(bytes) = fs::read(dir.join(name)) {
                step = step.max(shape::step_of(&bytes).unwrap_or(0));
            }
        }
        // As Baileys does it: credentials that cannot be read count as none at all.
        let found = fs::read(dir.join("creds.json")).ok();
        let known = found.and_then(|bytes| Some((shape::identity_of(&bytes)?, bytes)));
        let identity = match known {
            Some((identity, bytes)) => {
                step = step.max(shape::step_of(&bytes).unwrap_or(0));
                identity
            }
            None => {
                let mut fresh = [0u8; 8];
                getrandom::fill(&mut fresh).map_err(|error| error.to_string())?;
                hex::encode(fresh)
            }
        };
        let db = Connection::open(dir.join("store.db"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        // Small, so that the log begins anew often.
        db.pragma_update(None, "wal_autocheckpoint", 60)?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS done (step INTEGER PRIMARY KEY, key TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, step INTEGER NOT NULL, key TEXT NOT NULL);",
        )?;
        let kept: Option<u32> = db.query_row("SELECT max(step) FROM done", [], |row| row.get(0))?;
        let kept = u64::from(kept.unwrap_or(0));
        let mut state = Self {
            dir: dir.to_owned(),
            db,
            identity,
            step: step.max(kept),
        };
        // A database is committed less often than small files are.
        for step in kept + 1..=state.step {
            state.transaction(step)?;
        }
        journal.tell(&format!("began {} {}", state.step, state.identity))?;
        state.mend(journal)?;
        state.write_creds()?;
        Ok(state)
    }

    /// Does again what may be missing of the steps so far: a kill comes between two writes, and
    /// files that were written while a commit was being made may be in it or not.
    fn mend(&self, journal: &mut Journal) -> Result<(), Box<dyn Error>> {
        for step in self.step.saturating_sub(PRE_KEYS + SESSIONS).max(1)..=self.step {
            let name = format!("session-{}.json", step % SESSIONS);
            let found = fs::read(self.dir.join(name)).ok();
            if found.and_then(|bytes| shape::step_of(&bytes)) < Some(step) {
                self.write_session(step, journal)?;
            }
            if self.step < step + PRE_KEYS {
                self.write_pre_key(step, journal)?;
            }
        }
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let step = name.strip_prefix("pre-key-").and_then(|rest| {
                let (step, _) = rest.split_once('.')?;
                step.parse::<u64>().ok()
            });
            if step.is_some_and(|step| step + PRE_KEYS <= self.step) {
                self.delete_used(step.unwrap_or(0) + PRE_KEYS, journal)?;
            }
        }
        Ok(())
    }

    fn write_pre_key(&self, step: u64, journal: &mut Journal) -> Result<(), Box<dyn Error>> {
        let name = format!("pre-key-{step}.json");
        fs::write(self.dir.join(&name), pre_key(&self.identity, step))?;
        journal.tell(&format!("put {step} {name}"))
    }

    fn write_session(&self, step: u64, journal: &mut Journal) -> Result<(), Box<dyn Error>> {
        let name = format!("session-{}.json", step % SESSIONS);
        let beside = self.dir.join(format!("{name}.tmp"));
        fs::write(&beside, session(&self.identity, step))?;
        fs::rename(beside, self.dir.join(&name))?;
        journal.tell(&format!("put {step} {name}"))
    }

    fn delete_used(&self, step: u64, journal: &mut Journal) -> Result<(), Box<dyn Error>> {
        let Some(used) = step.checked_sub(PRE_KEYS).filter(|used| *used > 0) else {
            return Ok(());
        };
        let name = format!("pre-key-{used}.json");
        // Gone already where the step is done again.
        let _ = fs::remove_file(self.dir.join(&name));
        journal.tell(&format!("del {step} {name}"))
    }

    fn step(&mut self, journal: &mut Journal) -> Result<(), Box<dyn Error>> {
        let step = self.step + 1;
        self.write_pre_key(step, journal)?;
        self.write_session(step, journal)?;
        self.delete_used(step, journal)?;
        self.transaction(step)?;
        self.step = step;
        self.write_creds()
    }

    fn transaction(&mut self, step: u64) -> Result<(), Box<dyn Error>> {
        let (number, key) = (i64::try_from(step)?, key(&self.identity, step));
        let transaction = self.db.transaction()?;
        transaction.execute("REPLACE INTO done VALUES (?1, ?2)", (number, &key))?;
        // Elsewhere in the file: what was copied at two moments does not agree with itself.
        transaction.execute(
            "REPLACE INTO slots VALUES (?1, ?2, ?3)",
            (i64::try_from(step % SLOTS)?, number, &key),
        )?;
        transaction.execute("DELETE FROM done WHERE step <= ?1 - 2000", [number])?;
        transaction.commit()?;
        Ok(())
    }

    fn write_creds(&self) -> Result<(), Box<dyn Error>> {
        fs::write(
            self.dir.join("creds.json"),
            creds(&self.identity, self.step),
        )?;
        Ok(())
    }
}
