//! A life under test: the harness as an ordinary process (a subreaper), or as a real PID 1 in a
//! namespace of its own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::terminal::Pty;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The program under test, built as this test was.
pub(crate) fn harness() -> PathBuf {
    crate::built::example("init_harness")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Subreaper,
    PidOne,
}

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `init_harness`, whose restorer and watcher do as they are told.
    Harness,
    /// The binary itself, in file mode.
    FileMode,
    /// The binary itself with `--init-only`.
    InitOnly,
}

/// Both where the machine allows it.
pub(crate) fn both() -> &'static [As] {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| {
        let tried = Command::new("unshare")
            .args(["--fork", "--pid", "--mount-proc", "true"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    });
    if *allowed {
        &[As::Subreaper, As::PidOne]
    } else {
        crate::policy::cannot_run(
            "no pid namespace can be made, so that it is a subreaper and never PID 1",
        );
        &[As::Subreaper]
    }
}

/// What of a setup differs between tests; the harness has the rest.
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) stop_total: Duration,
    pub(crate) stop_flush: Duration,
    /// As in `restart.policy`.
    pub(crate) restart: &'static str,
    /// 0 for none.
    pub(crate) port: u16,
}

impl Settings {
    fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            stop_total: Duration::from_secs(25),
            stop_flush: Duration::from_secs(5),
            restart: "no",
            port: 0,
        }
    }

    /// As the harness reads it.
    fn encoded(&self) -> String {
        let ms = |span: Duration| u64::try_from(span.as_millis()).expect("short");
        serde_json::json!({
            "dir": self.dir,
            "stop_total_ms": ms(self.stop_total),
            "stop_flush_ms": ms(self.stop_flush),
            "restart": self.restart,
            "port": self.port,
        })
        .to_string()
    }
}

/// A life to be started.
pub(crate) struct Setup {
    pub(crate) root: tempfile::TempDir,
    pub(crate) settings: Settings,
    environment: Vec<(&'static str, String)>,
    run_as: As,
    program: Program,
    options: Vec<String>,
    around: Option<String>,
    terminal: Option<fs::File>,
}

impl Setup {
    pub(crate) fn new(run_as: As) -> Self {
        let root = tempfile::tempdir().expect("tempdir");
        let settings = Settings::new(root.path().join("session"));
        Self {
            root,
            settings,
            environment: Vec::new(),
            run_as,
            program: Program::Harness,
            options: Vec::new(),
            around: None,
            terminal: None,
        }
    }

    /// The binary itself in file mode.
    pub(crate) fn file_mode(run_as: As) -> Self {
        let mut setup = Self::new(run_as);
        setup.program = Program::FileMode;
        let dir = setup.settings.dir.display().to_string();
        fs::create_dir(&dir).expect("mkdir");
        setup
            .env("MONGO_ENABLED", "false")
            .env("SESSIONKEEP_PROFILE", "generic")
            .env("SESSIONKEEP_DIR", dir)
            .env("SESSIONKEEP_HTTP_PORT", "off")
    }

    /// The binary itself as an init only, with nothing set. The directory is the gateway's to
    /// write its notes in.
    pub(crate) fn init_only(run_as: As) -> Self {
        let mut setup = Self::new(run_as);
        setup.program = Program::InitOnly;
        fs::create_dir(&setup.settings.dir).expect("mkdir");
        setup
    }

    /// Flags of `run`.
    pub(crate) fn options<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.options.extend(options.into_iter().map(str::to_owned));
        self
    }

    /// What a shell does before it becomes the program.
    pub(crate) fn before(self, shell: &str) -> Self {
        self.around(&format!("{shell}\nexec \"$@\""))
    }

    /// A shell script that runs the program as `"$@"`.
    pub(crate) fn around(mut self, script: &str) -> Self {
        self.around = Some(script.to_owned());
        self
    }

    /// The terminal that it is started at.
    pub(crate) fn at(mut self, terminal: &Pty) -> Self {
        self.terminal = Some(terminal.slave());
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Starts a gateway that is a shell script, in the session directory.
    pub(crate) fn script(self, script: &str) -> Life {
        let script = format!("cd \"$SESSION\"; {script}");
        self.start(&["sh", "-c", &script])
    }

    pub(crate) fn start(self, gateway: &[&str]) -> Life {
        let mut words: Vec<OsString> = Vec::new();
        if self.run_as == As::PidOne {
            words.extend(
                ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"].map(Into::into),
            );
        }
        // PID 1 of a container that has a terminal leads the session that the terminal belongs to.
        if self.run_as == As::PidOne && self.terminal.is_some() {
            words.extend(["setsid", "--ctty"].map(Into::into));
        }
        if let Some(around) = &self.around {
            words.extend(["sh".into(), "-c".into()]);
            words.push(around.into());
            words.push("sh".into());
        }
        words.push(match self.program {
            Program::Harness => harness().into(),
            Program::FileMode | Program::InitOnly => env!("CARGO_BIN_EXE_sessionkeep").into(),
        });
        words.push("run".into());
        if self.program == Program::InitOnly {
            words.push("--init-only".into());
        }
        words.extend(self.options.iter().map(Into::into));
        if self.program != Program::Harness {
            words.push("--".into());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let log = fs::File::create(self.root.path().join("log")).expect("log");
        let encoded = self.settings.encoded();
        match &self.terminal {
            None => command
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("log")),
            Some(terminal) => {
                let end = || terminal.try_clone().expect("terminal");
                command.stdin(end()).stdout(end())
            }
        };
        let leads = self.terminal.is_some() && self.run_as == As::Subreaper;
        let begin = move || {
            // SAFETY: plain system calls; the terminal is on standard input by now.
            let begun = unsafe {
                // `nohup`, and a shell that starts something in the background, ignore some of
                // them, and this program may be started so.
                for signal in 1..32 {
                    libc::signal(signal, libc::SIG_DFL);
                }
                !leads || libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0
            };
            match begun {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes only calls that are safe between fork and exec.
        unsafe { command.pre_exec(begin) };
        let child = command
            .args(gateway)
            .env("HARNESS_SETTINGS", encoded)
            .env("HARNESS_RECORD", self.root.path().join("record"))
            .env("SESSION", &self.settings.dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .expect("spawn");
        Life {
            setup: self,
            child,
            began: Instant::now(),
        }
    }
}

/// A life that was started.
pub(crate) struct Life {
    pub(crate) setup: Setup,
    pub(crate) child: Child,
    pub(crate) began: Instant,
}

impl Life {
    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.setup.settings.dir.join(name)).unwrap_or_default()
    }

    pub(crate) fn record(&self) -> String {
        fs::read_to_string(self.setup.root.path().join("record")).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.setup.root.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let (log, record) = (self.log(), self.record());
            assert!(began.elapsed() < LIMIT, "never {what}:\n{log}\n{record}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the gateway has said that it is up, and the watcher was told.
    #[track_caller]
    pub(crate) fn until_up(&self) {
        self.until("up", |life| {
            let told = life.setup.program != Program::Harness
                || life.record().contains("lifecycle Running");
            life.file("ready").contains("up") && told
        });
    }

    /// Init's process id, as seen from here.
    pub(crate) fn pid(&self) -> i32 {
        let outer = self.child.id().cast_signed();
        match self.setup.run_as {
            As::Subreaper => outer,
            As::PidOne => *children(outer).first().expect("unshare has a child"),
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status
                    .code()
                    .unwrap_or_else(|| panic!("init died of {status}:\n{}", self.log()));
            }
            assert!(began.elapsed() < LIMIT, "never ends:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            for pid in descendants(self.child.id().cast_signed()) {
                send(pid, libc::SIGKILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn send(pid: i32, signal: i32) {
    // SAFETY: `kill` touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// The state of a process, as in `ps`.
pub(crate) fn state(pid: i32) -> Option<char> {
    let mut table = process_table().into_iter();
    table
        .find(|process| process.0 == pid)
        .map(|process| process.2)
}

/// Process, parent and state of everything there is.
pub(crate) fn process_table() -> Vec<(i32, i32, char)> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
            let state = fields.next()?.chars().next()?;
            Some((pid, fields.next()?.parse().ok()?, state))
        })
        .collect()
}

pub(crate) fn children(of: i32) -> Vec<i32> {
    let table = process_table().into_iter();
    table.filter(|p| p.1 == of).map(|p| p.0).collect()
}

pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let mut all = children(of);
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

pub(crate) const LOOP: &str = "echo up > ready; while :; do sleep 0.05; done";
