//! What is counted rather than shown as it stands.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::ShownCommit;

/// Upper bounds of a commit's duration, in seconds.
const DURATIONS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Upper bounds of a commit's content, in bytes.
const SIZES: [f64; 8] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
];

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store did not take a commit, or did not answer.
    Store,
    /// Files were torn or damaged when they were looked at.
    NotWhole,
    /// A commit would have replaced a good copy by a bad one.
    Refused,
    /// Another instance has taken the session over.
    Fenced,
    /// The final flush.
    Flush,
    /// A message was not taken.
    Webhook,
    /// The heartbeat did not arrive.
    Heartbeat,
    /// The gateway's own API was not to be asked.
    GatewayApi,
}

impl ErrorKind {
    const ALL: [Self; 8] = [
        Self::Store,
        Self::NotWhole,
        Self::Refused,
        Self::Fenced,
        Self::Flush,
        Self::Webhook,
        Self::Heartbeat,
        Self::GatewayApi,
    ];

    /// As a label.
    fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::NotWhole => "not_whole",
            Self::Refused => "refused",
            Self::Fenced => "fenced",
            Self::Flush => "flush",
            Self::Webhook => "webhook",
            Self::Heartbeat => "heartbeat",
            Self::GatewayApi => "gateway_api",
        }
    }
}

/// Labels of the errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// What failed.
    pub kind: &'static str,
}

/// Labels of the probe's answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfResult {
    /// `up` or `down`.
    pub result: &'static str,
}

/// Labels of answered requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCode {
    /// The status code.
    pub code: u16,
}

/// All counters.
#[derive(Debug)]
pub struct Meters {
    /// Commits that the store has taken.
    pub commits: Counter,
    /// Content bytes that they brought.
    pub commit_bytes: Counter,
    /// Changes that they hold.
    pub commit_changes: Counter,
    /// From the look at the directory until the store's answer.
    pub commit_duration: Histogram,
    /// How large they are.
    pub commit_size: Histogram,
    /// What failed.
    pub errors: Family<OfKind, Counter>,
    /// What the gateway's probe came to.
    pub probes: Family<OfResult, Counter>,
    /// Answered requests.
    pub requests: Family<OfCode, Counter>,
    /// Requests that presented a wrong password or token.
    pub refused: Counter<u64, AtomicU64>,
}

impl Default for Meters {
    fn default() -> Self {
        let meters = Self {
            commits: Counter::default(),
            commit_bytes: Counter::default(),
            commit_changes: Counter::default(),
            commit_duration: Histogram::new(DURATIONS),
            commit_size: Histogram::new(SIZES),
            errors: Family::default(),
            probes: Family::default(),
            requests: Family::default(),
            refused: Counter::default(),
        };
        // What never happened counts 0, and is not absent: an alert on its growth needs a beginning.
        for kind in ErrorKind::ALL {
            let _ = meters.errors.get_or_create(&OfKind { kind: kind.word() });
        }
        for result in ["up", "down"] {
            let _ = meters.probes.get_or_create(&OfResult { result });
        }
        let _ = meters.requests.get_or_create(&OfCode { code: 200 });
        meters
    }
}

impl Meters {
    /// Counts an error.
    pub fn error(&self, kind: ErrorKind) {
        self.errors
            .get_or_create(&OfKind { kind: kind.word() })
            .inc();
    }

    /// Counts an answer of the gateway's probe.
    pub fn probed(&self, up: bool) {
        let result = if up { "up" } else { "down" };
        self.probes.get_or_create(&OfResult { result }).inc();
    }

    /// Counts an answered request.
    pub fn answered(&self, code: u16) {
        self.requests.get_or_create(&OfCode { code }).inc();
    }

    pub(super) fn committed(&self, commit: &ShownCommit, took: Duration) {
        self.commits.inc();
        self.commit_bytes.inc_by(commit.bytes);
        self.commit_changes.inc_by(commit.changes.into());
        self.commit_duration.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a bucket is all that matters")]
        self.commit_size.observe(commit.bytes as f64);
    }
}
