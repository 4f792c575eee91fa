//! The real program under test: a world (a session directory, a store, an archive) and the lives
//! that `sessionkeep run` leads in it. Nothing outlives the test that started it.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses what it needs of it"
)]

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use super::example::{example_gateway, http, http_json};
use super::mongod::Mongod;
pub(crate) use super::process::{is_alive, send, with_descendants};
pub(crate) use super::tree::Tree;

/// Covers a machine that is busy with other tests; nothing waits for it where all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at something that has no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A gateway that does nothing and ends with 0 when it is told to.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; echo the gateway idles; sleep 1000 & wait";

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_sessionkeep")
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < LIMIT,
            "waited {LIMIT:?} in vain until {what}"
        );
        thread::sleep(LOOK_AGAIN);
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("bind to any port");
    probe.local_addr().expect("a bound socket").port()
}

/// A directory of its own for each test, in memory where there is some.
pub(crate) fn workshop() -> TempDir {
    let builder = || {
        tempfile::Builder::new()
            .prefix("sessionkeep-job-")
            .to_owned()
    };
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        builder().tempdir_in(memory)
    } else {
        builder().tempdir()
    };
    made.expect("make a directory")
}

/// What belongs together: a root for everything, one store, one archive, one session directory.
pub(crate) struct World {
    root: TempDir,
    /// Where the archive is kept.
    pub(crate) url: String,
    lives: AtomicU32,
}

/// Whether only what needs nothing but this repository is to be tried.
fn is_quick() -> bool {
    std::env::var_os("TESTS").is_some_and(|how| how == "quick")
}

impl World {
    /// A world whose store is at `url`.
    pub(crate) fn at(url: impl Into<String>) -> Self {
        Self {
            root: workshop(),
            url: url.into(),
            lives: AtomicU32::new(0),
        }
    }

    /// One with a database of its own in the mongod that all tests share; with `TESTS=quick`, as
    /// [`World::sqlite`].
    pub(crate) fn mongo() -> Self {
        if is_quick() {
            return Self::sqlite();
        }
        Self::at(Mongod::shared().new_database_url())
    }

    /// One with an SQLite file as its store.
    pub(crate) fn sqlite() -> Self {
        let mut world = Self::at("");
        world.url = format!("sqlite:{}", world.database_file().display());
        world
    }

    /// The same on a disk, for what is too large for memory.
    pub(crate) fn on_disk() -> Self {
        let made = tempfile::Builder::new()
            .prefix("sessionkeep-job-")
            .tempdir();
        let mut world = Self {
            root: made.expect("make a directory"),
            url: String::new(),
            lives: AtomicU32::new(0),
        };
        world.url = format!("sqlite:{}", world.database_file().display());
        world
    }

    /// For what must hold whatever the store is.
    pub(crate) fn both() -> Vec<Self> {
        match is_quick() {
            true => vec![Self::sqlite()],
            false => vec![Self::mongo(), Self::sqlite()],
        }
    }

    /// The file of [`World::sqlite`].
    pub(crate) fn database_file(&self) -> PathBuf {
        self.path("archive.db")
    }

    /// Something beside the session directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The session directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.path("session")
    }

    /// Writes a file of the session directory in one go.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("a name inside a directory")).expect("mkdir");
        fs::write(path, content).expect("write");
    }

    /// Reads a file of the session directory.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.dir().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What a container host does to a disk.
    #[track_caller]
    pub(crate) fn wipe(&self) {
        // Whoever was killed just now may be removing something itself.
        wait_until(
            "the session directory is wiped",
            || match fs::remove_dir_all(self.dir()) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => !self.dir().exists(),
                Err(error) => panic!("wipe the session directory: {error}"),
            },
        );
    }

    /// What is under `.sessionkeep/replaced`, from all times, by name.
    pub(crate) fn replaced(&self) -> Vec<PathBuf> {
        let Ok(times) = fs::read_dir(self.dir().join(".sessionkeep/replaced")) else {
            return Vec::new();
        };
        let mut found: Vec<PathBuf> = times.flatten().map(|entry| entry.path()).collect();
        found.sort();
        found
    }

    /// Prepares a life in the session directory, with a gateway that is a shell script. It finds
    /// the session directory in `$S` and starts there; `$P` is the directory beside it.
    pub(crate) fn script(&self, script: &str) -> Setup<'_> {
        let script = format!("cd \"$S\" && {script}");
        self.gateway(&["sh", "-c", &script])
    }

    /// Prepares a life with this command as its gateway.
    pub(crate) fn gateway(&self, command: &[&str]) -> Setup<'_> {
        Setup {
            world: self,
            dir: self.dir(),
            settings: vec![
                // Short, so that nobody waits for long after a crash.
                "lease.ttl=3s".into(),
                "lease.renew=1s".into(),
                "http.port=off".into(),
                // Nobody looks at these while tests run; the tests' own limits are shorter.
                "stop.total=25s".into(),
                "stop.flush=10s".into(),
            ],
            environment: vec![("MONGO_URL".into(), self.url.clone())],
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            before: Vec::new(),
            profile: "generic",
        }
    }

    /// Runs a command of the program to its end, with `MONGO_URL` naming the store.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        self.command_at(&self.url, args)
    }

    /// The same with another store.
    pub(crate) fn command_at(&self, url: &str, args: &[&str]) -> Output {
        Command::new(program())
            .args(args)
            .args(["--profile", "generic"])
            .arg("--dir")
            .arg(self.dir())
            .current_dir(self.root.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("MONGO_URL", url)
            .stdin(Stdio::null())
            .output()
            .expect("run the program")
    }

    /// Runs a command that must succeed, and reads its JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.command(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"))
    }

    /// All commits, newest first; none while the store cannot be reached.
    pub(crate) fn log(&self) -> Vec<Value> {
        let output = self.command(&["log", "--json", "--limit", "10000"]);
        match serde_json::from_slice(&output.stdout) {
            Ok(Value::Array(commits)) if output.status.success() => commits,
            _ => Vec::new(),
        }
    }

    /// The numbers of the commits that changed something, newest first.
    pub(crate) fn changes(&self) -> Vec<u64> {
        let of_content = |commit: &&Value| commit["kind"] != "barrier";
        let number = |commit: &Value| commit["seq"].as_u64().expect("a number");
        self.log().iter().filter(of_content).map(number).collect()
    }

    /// The newest number; 0 for none.
    pub(crate) fn head(&self) -> u64 {
        self.log()
            .first()
            .and_then(|head| head["seq"].as_u64())
            .unwrap_or(0)
    }

    /// What a restore of the newest commit would bring; `None` while there is none.
    pub(crate) fn stored(&self) -> Option<Tree> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let to = self.path(&format!("copy-{number}"));
        let output = self.command(&["restore", "--to", to.to_str().expect("text")]);
        let tree = output.status.success().then(|| Tree::of(&to));
        let _ = fs::remove_dir_all(to);
        tree
    }

    /// Waits until the archive holds this content of a file.
    #[track_caller]
    pub(crate) fn wait_until_stored(&self, name: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        wait_until(&format!("{name} is stored"), || {
            self.stored()
                .is_some_and(|tree| tree.content(name) == Some(content))
        });
    }

    /// Waits until the archive holds exactly what the session directory holds.
    #[track_caller]
    pub(crate) fn wait_until_saved(&self) {
        wait_until("everything is stored", || {
            self.stored()
                .is_some_and(|tree| tree == Tree::of(&self.dir()))
        });
    }
}

/// A life to be started.
pub(crate) struct Setup<'a> {
    world: &'a World,
    dir: PathBuf,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    command: Vec<String>,
    before: Vec<String>,
    profile: &'static str,
}

impl Setup<'_> {
    /// Another profile than `generic`.
    pub(crate) fn profile(mut self, profile: &'static str) -> Self {
        self.profile = profile;
        self
    }

    /// A setting, which wins over an earlier one of its key.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        self.settings.retain(|other| key(other) != key(setting));
        self.settings.push(setting.to_owned());
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Not this variable.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self
    }

    /// Another session directory.
    pub(crate) fn dir(mut self, dir: PathBuf) -> Self {
        self.dir = dir;
        self
    }

    /// What stands before the program, such as `setpriv`.
    pub(crate) fn before(mut self, words: &[impl AsRef<str>]) -> Self {
        self.before = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(self) -> Life {
        let number = self.world.lives.fetch_add(1, Ordering::Relaxed);
        let log_path = self.world.path(&format!("life-{number}.log"));
        let log = File::create(&log_path).expect("log");
        let mut words = self.before.clone();
        words.push(program().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run");
        command
            .args(["--profile", self.profile, "--dir"])
            .arg(&self.dir);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command.arg("--").args(&self.command);
        command
            .current_dir(self.world.root.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("S", &self.dir)
            .env("P", self.world.root.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        // SAFETY: between fork and exec only one async-signal-safe system call is made.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        Life {
            child: command.spawn().expect("start sessionkeep"),
            log_path,
            ended: None,
            told: false,
        }
    }

    /// Starts it and waits until the gateway runs and every change is seen.
    #[track_caller]
    pub(crate) fn ready(self) -> Life {
        let idles = self.command.iter().any(|word| word.ends_with(IDLE));
        let mut life = self.start();
        life.wait_for("watcher is ready");
        if idles {
            // Or an order to stop may come before the trap.
            life.wait_for("the gateway idles\n");
        }
        life
    }

    /// Starts what is expected to end by itself.
    #[track_caller]
    pub(crate) fn run_to_end(self) -> Ended {
        self.start().end()
    }
}

/// A life that was started.
pub(crate) struct Life {
    child: Child,
    log_path: PathBuf,
    ended: Option<i32>,
    /// Its log was handed on.
    told: bool,
}

/// How a life ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; 128 and the signal where it died of one.
    pub(crate) code: i32,
    /// All that it and its gateway said.
    pub(crate) log: String,
    /// How long the end was waited for.
    pub(crate) took: Duration,
    _said: SaidWhereATestFails,
}

impl Life {
    /// All that was said so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log_path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The process id of init.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("it is our child");
            self.ended = status.map(|status| {
                let signal = status.signal().map(|signal| 128 + signal);
                status.code().or(signal).expect("it has ended in some way")
            });
        }
        self.ended.is_some()
    }

    /// Waits for a text in the log.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait_for_count(text, 1);
    }

    /// Waits until a text is in the log so many times.
    #[track_caller]
    pub(crate) fn wait_for_count(&mut self, text: &str, count: usize) {
        let begun = Instant::now();
        loop {
            let ended = self.has_ended();
            let log = self.log();
            if log.matches(text).count() >= count {
                return;
            }
            assert!(!ended, "it ended without {text:?}:\n{log}");
            assert!(begun.elapsed() < LIMIT, "no {text:?} in:\n{log}");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// The process that the log calls this role, the newest one.
    #[track_caller]
    pub(crate) fn process(&self, role: &str) -> u32 {
        let log = self.log();
        let marked = format!("started role={role} pid=");
        let (_, after) = log.rsplit_once(&marked).expect("it was started");
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    /// Stops the watcher, and init, which would let it go on at once. Both go on when the value is
    /// dropped.
    pub(crate) fn hold_watcher(&self) -> Held {
        let held = Held([self.process("watcher"), self.child.id()]);
        held.0
            .iter()
            .rev()
            .for_each(|pid| send(*pid, libc::SIGSTOP));
        held
    }

    /// Sends a signal to init.
    pub(crate) fn signal(&self, signal: i32) {
        send(self.child.id(), signal);
    }

    /// Asks it to stop, and waits for its end.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.signal(libc::SIGTERM);
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let begun = Instant::now();
        let ended = Ended {
            code: self.code(),
            log: self.log(),
            took: begun.elapsed(),
            _said: SaidWhereATestFails(self.log()),
        };
        self.told = true;
        ended
    }

    /// Waits for its end, and gives its exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let begun = Instant::now();
        while !self.has_ended() {
            assert!(begun.elapsed() < LIMIT, "it does not end:\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
        self.ended.expect("it has ended")
    }

    /// Pulls the plug: init and all that descends from it are killed at once.
    pub(crate) fn kill_tree(mut self) {
        self.kill_all();
    }

    fn kill_all(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // Stopped first, so that nobody notices the others' end and acts on it.
        let found = with_descendants(self.child.id());
        for pid in &found {
            send(*pid, libc::SIGSTOP);
        }
        let all = with_descendants(self.child.id());
        for pid in &all {
            send(*pid, libc::SIGKILL);
        }
        let _ = self.child.wait();
        self.ended = Some(137);
        // What is dying still holds its locks.
        let begun = Instant::now();
        while all.iter().any(|pid| is_alive(*pid)) && begun.elapsed() < LIMIT {
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Processes that stand still.
pub(crate) struct Held([u32; 2]);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| send(*pid, libc::SIGCONT));
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill_all();
        }
        // One whose end was handed on says it there.
        if !self.told {
            drop(SaidWhereATestFails(self.log()));
        }
    }
}

/// A log that goes to the test's output where the test fails: whoever reads of that on another machine
/// has nothing else.
#[derive(Debug)]
struct SaidWhereATestFails(String);

impl Drop for SaidWhereATestFails {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what it said:\n{}", self.0);
        }
    }
}
