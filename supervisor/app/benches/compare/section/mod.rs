//! The sections of the run, each of which can be run alone.

mod growth;
mod link;
mod small_host;
mod stop;
mod w1;
mod w2;
mod w3;
mod w4;
mod w5;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mongod::Mongod;
use crate::results::Results;
use crate::workload;

/// Measures something and notes the figures.
type Section = fn(&mut Context<'_>);

/// The sections in their order.
pub(crate) const SECTIONS: &[(&str, Section)] = &[
    ("w1", w1::run),
    ("w2", w2::run),
    ("w3", w3::run),
    ("w4", w4::run),
    ("w5", w5::run),
    ("stop", stop::run),
    ("small", small_host::run),
    ("link", link::run),
    ("growth", growth::run),
];

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Accounts of W1.
    pub(crate) accounts: usize,
    /// How often what is short is repeated.
    pub(crate) rounds: usize,
    /// How long idle ones are watched, in seconds.
    pub(crate) idle: u64,
    /// Bytes of W2's database.
    pub(crate) database: u64,
    /// How long W2 is written to, in seconds.
    pub(crate) transactions: u64,
    /// How often the product renews its lease where that is watched.
    pub(crate) lease: &'static str,
    /// W3 is made smaller by this.
    pub(crate) profile_part: u64,
    /// Rewrites of W4, and over how many seconds.
    pub(crate) rewrites: (u64, u64),
    /// How long W5 takes, in seconds.
    pub(crate) messages: u64,
    /// Commits of a short history; the long one has a hundred times as many.
    pub(crate) history: u64,
    /// From a first upload until all is at rest.
    pub(crate) settle: Duration,
    /// From the last change until what is late may still come.
    pub(crate) tail: Duration,
    /// By which the link's round trips are divided.
    pub(crate) nearer: u64,
    /// The small host's part of a core.
    pub(crate) small_cpu: f64,
    /// For what a peer may not be able to do.
    pub(crate) patience: Duration,
}

impl Scale {
    /// What is reported.
    pub(crate) const FULL: Self = Self {
        accounts: 30,
        rounds: 5,
        idle: 60,
        lease: "lease.renew=5s",
        database: 50_000_000,
        transactions: 60,
        profile_part: 1,
        rewrites: (1000, 60),
        messages: 600,
        history: 50,
        settle: Duration::from_secs(5),
        tail: Duration::from_secs(5),
        nearer: 1,
        small_cpu: 0.1,
        patience: Duration::from_secs(300),
    };
    /// Whether everything works.
    pub(crate) const SMOKE: Self = Self {
        accounts: 1,
        rounds: 1,
        idle: 2,
        lease: "lease.renew=1s",
        database: 1_000_000,
        transactions: 4,
        profile_part: 50,
        rewrites: (30, 3),
        messages: 6,
        history: 2,
        settle: Duration::from_secs(1),
        tail: Duration::from_secs(2),
        nearer: 10,
        small_cpu: 0.5,
        patience: Duration::from_secs(60),
    };
}

/// Whether the product is measured without the others, to compare two builds of it (`BENCH_ALONE`).
pub(crate) fn is_alone() -> bool {
    std::env::var_os("BENCH_ALONE").is_some()
}

/// What a section works with. Its files are in memory, so that no disk is measured.
pub(crate) struct Context<'r> {
    pub(crate) scale: Scale,
    pub(crate) results: &'r mut Results,
    pub(crate) mongod: Mongod,
    scratch: tempfile::TempDir,
}

impl<'r> Context<'r> {
    /// With a server of its own, that nothing else has used.
    pub(crate) fn new(scale: Scale, results: &'r mut Results) -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("sessionkeep-bench-")
            .tempdir_in("/dev/shm");
        Self {
            scale,
            results,
            mongod: Mongod::start(),
            scratch: scratch.expect("a directory in memory"),
        }
    }

    /// A path in the section's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A directory with W1.
    pub(crate) fn w1(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        workload::baileys::accounts(&dir, self.scale.accounts);
        dir
    }

    /// A directory with the one account of W5.
    pub(crate) fn w5(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        workload::baileys::account(&dir, 0);
        dir
    }

    /// An empty directory.
    pub(crate) fn empty(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).expect("create");
        dir
    }

    /// The address of a database that nothing else uses.
    pub(crate) fn database(&self) -> String {
        self.mongod.new_database_url()
    }

    /// Notes a figure.
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.results.put(name, value);
    }

    /// Notes how long something took, in seconds.
    pub(crate) fn took(&mut self, name: &str, span: Duration) {
        self.results.put(name, span.as_secs_f64());
    }
}

/// Removes a tree of the section.
pub(crate) fn remove(dir: &Path) {
    fs::remove_dir_all(dir).expect("remove");
}
