//! A real mongod for tests: one for the whole test process, or private ones that are stopped,
//! killed and started again.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mongodb::bson::doc;

/// How long a mongod may take to start or to stop, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user that a private mongod knows.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// Its name.
    pub(crate) name: String,
    /// Its password.
    pub(crate) password: String,
    /// The one database that it may use.
    pub(crate) database: String,
    /// What it may do there.
    pub(crate) rights: Rights,
}

/// What a [`User`] may do in its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The built-in role that is recommended.
    ReadWrite,
    /// Documents only: no creating of collections or indexes.
    DocumentsOnly,
    /// Looking only.
    Read,
}

/// A running (or stopped) mongod. Dropping it ends it and removes its files.
#[derive(Debug)]
pub(crate) struct Mongod {
    port: u16,
    directory: PathBuf,
    auth: bool,
    /// Key and certificate of one that takes nothing but TLS.
    tls: Option<PathBuf>,
    /// The replica set that it is a member of.
    replica_set: Option<&'static str>,
    /// What it is started with in its environment.
    environment: Vec<(&'static str, String)>,
    process: Mutex<Option<Child>>,
}

fn binary() -> PathBuf {
    let found = std::env::var_os("SESSIONKEEP_TEST_MONGOD").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/mongod/mongod"),
        PathBuf::from,
    );
    assert!(
        found.is_file(),
        "no mongod at {}: run `make test-tools`, or name one in SESSIONKEEP_TEST_MONGOD",
        found.display()
    );
    found
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("bind to any port");
    probe.local_addr().expect("a bound socket").port()
}

/// The parent of all data directories: memory where there is some, since what is tested here is
/// us and not the disk. `SESSIONKEEP_TEST_MONGOD_DATA` names another place, to measure on.
fn workshop() -> PathBuf {
    if let Some(named) = std::env::var_os("SESSIONKEEP_TEST_MONGOD_DATA") {
        return PathBuf::from(named);
    }
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Removes what test processes left that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(workshop()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name
            .to_str()
            .and_then(|name| name.strip_prefix("sessionkeep-mongod-"))
        else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn new_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("sessionkeep-mongod-{}-{number}", std::process::id());
    let directory = workshop().join(name);
    fs::create_dir_all(&directory).expect("create the data directory");
    directory
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from a thread that lives as long as the process: the kernel sends the parent-death
/// signal when the spawning *thread* ends, and test threads end early.
fn spawn(mut command: Command) -> Child {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    // SAFETY: between fork and exec only one async-signal-safe system call is made.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
    let (answer, child) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .expect("the spawner lives as long as the process");
    child
        .recv()
        .expect("the spawner answers every order")
        .expect("start mongod")
}

impl Mongod {
    /// The one that all tests of this process share. Each uses a database of its own; see
    /// [`Mongod::new_database_url`].
    pub(crate) fn shared() -> &'static Mongod {
        static SHARED: OnceLock<Mongod> = OnceLock::new();
        extern "C" fn remove() {
            // Statics are not dropped; the process ends, and mongod with it.
            if let Some(shared) = SHARED.get() {
                shared.kill();
                let _ = fs::remove_dir_all(&shared.directory);
            }
        }
        SHARED.get_or_init(|| {
            remove_leftovers();
            // SAFETY: `remove` is a plain function that neither unwinds nor uses thread-locals.
            unsafe { libc::atexit(remove) };
            Mongod::start()
        })
    }

    /// A private one.
    pub(crate) fn start() -> Mongod {
        Self::start_as(None, None, Vec::new())
    }

    /// A private one with these variables.
    pub(crate) fn start_in(environment: Vec<(&'static str, String)>) -> Mongod {
        Self::start_as(None, None, environment)
    }

    /// A private one that takes nothing but TLS, with the key and certificate in this file.
    pub(crate) fn start_with_tls(pem: PathBuf) -> Mongod {
        Self::start_as(None, Some(pem), Vec::new())
    }

    /// A private one that waits to become a member of a replica set.
    pub(crate) fn start_member(of: &'static str) -> Mongod {
        Self::start_as(Some(of), None, Vec::new())
    }

    fn start_as(
        replica_set: Option<&'static str>,
        tls: Option<PathBuf>,
        environment: Vec<(&'static str, String)>,
    ) -> Mongod {
        let mongod = Mongod {
            port: free_port(),
            directory: new_directory(),
            auth: false,
            tls,
            replica_set,
            environment,
            process: Mutex::new(None),
        };
        mongod.start_again();
        mongod
    }

    /// A private one that demands a login and knows `user` only.
    pub(crate) async fn start_with_login(user: &User) -> Mongod {
        let mut mongod = Mongod::start();
        mongod.demand_login(user).await;
        mongod
    }

    /// Makes `user` the only one that it knows, and demands a login from now on.
    pub(crate) async fn demand_login(&mut self, user: &User) {
        let client = mongodb::Client::with_uri_str(self.url(""))
            .await
            .expect("a valid URL");
        let database = client.database(&user.database);
        let role = match user.rights {
            Rights::ReadWrite => "readWrite",
            Rights::Read => "read",
            Rights::DocumentsOnly => "documentsOnly",
        };
        if user.rights == Rights::DocumentsOnly {
            let actions = ["find", "insert", "update", "remove"];
            let everywhere = doc! { "db": &user.database, "collection": "" };
            let privilege = doc! { "resource": everywhere, "actions": &actions[..] };
            let create = doc! { "createRole": role, "privileges": [privilege], "roles": [] };
            database.run_command(create).await.expect("create the role");
        }
        database
            .run_command(doc! {
                "createUser": &user.name,
                "pwd": &user.password,
                "roles": [{ "role": role, "db": &user.database }],
            })
            .await
            .expect("create the user");
        client.shutdown().immediate(true).await;
        self.stop();
        self.auth = true;
        self.start_again();
    }

    /// The port on 127.0.0.1 that it listens on, now and after every restart.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its URL for a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}", self.port)
    }

    /// Its URL for a database that no other test uses.
    pub(crate) fn new_database_url(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.url(&format!("test_{}_{number}", std::process::id()))
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it on the same port and data, and waits until it accepts connections.
    pub(crate) fn start_again(&self) {
        let mut command = Command::new(binary());
        command
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet"])
            .args(["--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--port", &self.port.to_string()])
            .arg("--dbpath")
            .arg(&self.directory)
            .arg("--logpath")
            .arg(self.directory.join("mongod.log"))
            .arg(if self.auth { "--auth" } else { "--noauth" })
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(pem) = &self.tls {
            command.args(["--tlsMode", "requireTLS", "--tlsCertificateKeyFile"]);
            command.arg(pem);
        }
        if let Some(set) = self.replica_set {
            command.args(["--replSet", set, "--oplogSize", "64"]);
        }
        let mut child = spawn(command);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "mongod did not start ({ended:?}); its log says:\n{}",
                fs::read_to_string(self.directory.join("mongod.log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(20));
        }
        *self.process() = Some(child);
    }

    /// Ends it as an operator would, and waits for it.
    pub(crate) fn stop(&self) {
        let Some(mut child) = self.process().take() else {
            return;
        };
        let pid = i32::try_from(child.id()).expect("a process id");
        // SAFETY: plain system call; the child is not reaped yet, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let begun = Instant::now();
        while child.try_wait().expect("it is our child").is_none() {
            assert!(begun.elapsed() < PATIENCE, "mongod did not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Ends it as a power failure would, except for the disk's own cache.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
