//! The product: the release binary as an operator starts it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{GaveUp, Outcome, Running, run_in};
use crate::{cage::Cage, measure};

/// A gateway that does nothing, in one process that dies of TERM at once.
const IDLE_GATEWAY: [&str; 2] = ["sleep", "1000000"];
/// How `run` ends with it: a gateway's death of a signal is passed on as 128 and its number.
pub(crate) const ENDED: i32 = 128 + libc::SIGTERM;
/// For whatever should take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The product, set up for a directory and a store.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    pub(crate) url: String,
    pub(crate) dir: PathBuf,
    pub(crate) profile: &'static str,
    pub(crate) settings: Vec<&'static str>,
}

/// The program that is measured: this package's own, or another build of it.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("BENCH_PRODUCT").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_sessionkeep")),
        PathBuf::from,
    )
}

impl Product {
    /// For a Baileys bot's directory.
    pub(crate) fn new(url: &str, dir: &Path) -> Self {
        Self {
            url: url.to_owned(),
            dir: dir.to_owned(),
            profile: "baileys",
            settings: Vec::new(),
        }
    }

    /// The same for another gateway's files.
    pub(crate) fn with_profile(mut self, profile: &'static str) -> Self {
        self.profile = profile;
        self
    }

    /// The same with one more setting, `KEY=VALUE`.
    pub(crate) fn set(mut self, setting: &'static str) -> Self {
        self.settings.push(setting);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MONGO_URL", &self.url)
            .env("SESSIONKEEP_DIR", &self.dir)
            .env("SESSIONKEEP_PROFILE", self.profile)
            .env("SESSIONKEEP_HTTP_PORT", "off")
            .env("SESSIONKEEP_GATEWAY_PROBE", "off");
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// Starts it around a gateway that does nothing.
    pub(crate) fn start(&self) -> Running {
        self.start_in(Cage::open())
    }

    /// Starts it in a group.
    pub(crate) fn start_in(&self, cage: Option<Cage>) -> Running {
        Running::start_in(cage, self.run(IDLE_GATEWAY))
    }

    /// The command that runs it around a gateway.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        gateway: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.command();
        command.args(["run", "--"]).args(gateway);
        command
    }

    /// Restores into an empty directory elsewhere: the whole process, from its start to its end.
    pub(crate) fn restore(&self, to: &Path) -> Result<Outcome, GaveUp> {
        self.restore_in(Cage::open(), to, PATIENCE)
    }

    /// Restores one commit into an empty directory elsewhere.
    pub(crate) fn restore_commit(&self, seq: u64, to: &Path) -> Result<Outcome, GaveUp> {
        let mut command = self.command();
        command.args(["restore", "--seq", &seq.to_string(), "--to"]);
        command.arg(to);
        run_in(Cage::open(), command, PATIENCE)
    }

    /// Restores in a group, within a limit.
    pub(crate) fn restore_in(
        &self,
        cage: Option<Cage>,
        to: &Path,
        limit: Duration,
    ) -> Result<Outcome, GaveUp> {
        let mut command = self.command();
        command.args(["restore", "--to"]).arg(to);
        run_in(cage, command, limit)
    }
}

/// What of a running product is resident.
pub(crate) struct Memory {
    /// Proportional set size of PID 1, in bytes.
    pub(crate) init_pss: u64,
    /// Proportional set size of the watcher, in bytes.
    pub(crate) watcher_pss: u64,
    /// The most that the watcher ever had resident, in bytes.
    pub(crate) watcher_peak_rss: u64,
}

/// Looks at PID 1 and the watcher.
pub(crate) fn memory(running: &Running) -> Memory {
    let watcher = running.with_argument("watch");
    Memory {
        init_pss: measure::pss(running.id()),
        watcher_pss: measure::pss(watcher),
        watcher_peak_rss: measure::peak_rss(watcher),
    }
}
