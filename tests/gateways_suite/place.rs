//! Where one test takes place: its directories, its database, and the commands on both.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::mongod::Mongod;

/// One test's directories and database. Removed when dropped.
pub(crate) struct Place {
    root: TempDir,
    store: String,
    profile: &'static str,
}

/// A commit as `sessionkeep log --json` tells it.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) seq: u64,
    pub(crate) files: u64,
    /// Stands for the whole tree.
    pub(crate) root: String,
    /// By the clock of the machine, when its record was composed: after its files were read.
    pub(crate) time_ms: i64,
}

impl Place {
    pub(crate) fn new(profile: &'static str) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        Self {
            root: TempDir::with_prefix_in("sessionkeep-gateways-", parent).expect("a directory"),
            store: Mongod::shared().new_database_url(),
            profile,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The session directory. It does not exist until sessionkeep makes it.
    pub(crate) fn session(&self) -> PathBuf {
        self.path("session")
    }

    /// Where the bot notes what it has acknowledged; no restore touches it.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// What a container host does to the disk.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.session()).expect("remove the session directory");
    }

    /// `sessionkeep VERB …` for this place. The test's own environment stays out of it.
    pub(crate) fn sessionkeep(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessionkeep"));
        command
            .arg(verb)
            .arg("--dir")
            .arg(self.session())
            .args(["--store", &self.store, "--profile", self.profile])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, verb: &str, arguments: &[&dyn AsRef<OsStr>]) -> Output {
        let mut command = self.sessionkeep(verb);
        for argument in arguments {
            command.arg(argument);
        }
        let output = command.output().expect("start sessionkeep");
        assert!(
            output.status.success(),
            "sessionkeep {verb}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// All commits, oldest first.
    #[track_caller]
    pub(crate) fn commits(&self) -> Vec<Commit> {
        let told = self.run("log", &[&"--json", &"--limit", &"100000"]).stdout;
        let told: Vec<Value> = serde_json::from_slice(&told).expect("a list of commits");
        let number = |commit: &Value, name: &str| commit[name].as_u64().expect("a number");
        let mut commits: Vec<_> = told
            .iter()
            .map(|commit| Commit {
                seq: number(commit, "seq"),
                files: number(commit, "files"),
                root: commit["root"].as_str().expect("a hash").to_owned(),
                time_ms: moment_ms(commit["time"].as_str().expect("a moment")),
            })
            .collect();
        commits.sort_by_key(|commit| commit.seq);
        commits
    }

    /// The newest commit's number.
    #[track_caller]
    pub(crate) fn head(&self) -> u64 {
        self.commits().last().expect("there are commits").seq
    }

    /// A copy of a commit, or of the newest, in a directory that did not exist.
    #[track_caller]
    pub(crate) fn copy(&self, seq: Option<u64>, name: &str) -> PathBuf {
        let to = self.path(name);
        match seq {
            Some(seq) => self.run("restore", &[&"--seq", &seq.to_string(), &"--to", &to]),
            None => self.run("restore", &[&"--to", &to]),
        };
        to
    }
}

/// `2026-11-21T07:00:00.123Z` in milliseconds since 1970.
pub(crate) fn moment_ms(text: &str) -> i64 {
    let part = |from: usize, to: usize| -> i64 {
        text.get(from..to)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("{text} is no moment"))
    };
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    // Days since 1970, with years that begin in March so that the leap day is their last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    let seconds = part(11, 13) * 3600 + part(14, 16) * 60 + part(17, 19);
    (days * 86_400 + seconds) * 1000 + part(20, 23)
}

/// A file of this repository, or of what was fetched for it.
#[track_caller]
pub(crate) fn tool(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    assert!(
        found.exists(),
        "{} is missing: run `make test-tools`",
        found.display()
    );
    found
}

#[test]
fn moments_are_read_as_they_are_written() {
    assert_eq!(moment_ms("1970-01-01T00:00:00.000Z"), 0);
    assert_eq!(moment_ms("2024-02-29T12:00:00.500Z"), 1_709_208_000_500);
    assert_eq!(moment_ms("2026-11-21T07:00:00.123Z"), 1_795_244_400_123);
}
