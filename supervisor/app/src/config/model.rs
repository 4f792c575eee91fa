//! The effective settings, as types. Where they come from is `sources`; which names and defaults
//! they have is `registry`.

use std::path::PathBuf;
use std::time::Duration;

use super::TrustedProxies;
pub use crate::gateway::ProfileName;
use sessionkeep_core::entry::Owner;
use sessionkeep_core::record::ArchiveName;
use sessionkeep_core::secret::Secret;
use sessionkeep_init::RestartPolicy;
use sessionkeep_session::rights::RestoreOwner;
use sessionkeep_stores::StoreChoice;

/// What to do when another instance holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// Ask its holder to hand the session over, and wait for that.
    Takeover,
    /// Wait until it is free.
    Wait,
    /// Exit with 75.
    Refuse,
}

/// What to do at boot when the store does not answer within `store.wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// Exit with 69.
    Fail,
    /// Start on the local directory if it has a valid marker, and commit when the store is back.
    Local,
}

/// What to do while the gateway runs and the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutagePolicy {
    /// The gateway goes on. Where another instance takes the session over meanwhile, the two run
    /// beside each other until the store is back.
    KeepRunning,
    /// The gateway is stopped before another instance can take the session over.
    Stop,
}

/// Whether the gateway's processes may be stopped for the milliseconds that reading its files takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreezePolicy {
    /// Where there is no other way to a consistent version.
    Auto,
    /// Never.
    Never,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Only what a person must act upon.
    Error,
    /// And what is worse than it should be.
    Warn,
    /// And the lifecycle.
    Info,
    /// And each file.
    Debug,
    /// And each step.
    Trace,
}

/// `store.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where the archive is kept.
    pub choice: StoreChoice,
    /// How long a boot waits for the store.
    pub wait: Duration,
    /// What a boot does when that has passed.
    pub unreachable: Unreachable,
    /// What is done when the store is lost while the gateway runs.
    pub outage: OutagePolicy,
    /// Deadline of one store operation.
    pub timeout: Duration,
}

/// `restore.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreSettings {
    /// What owners restored entries get.
    pub owner: RestoreOwner,
}

/// `lease.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How long a lease runs unless renewed.
    pub ttl: Duration,
    /// How often it is renewed; at most a third of the TTL.
    pub renew: Duration,
    /// What to do when another holds it.
    pub conflict: Conflict,
}

/// `sync.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSettings {
    /// How long a directory must be quiet before its changes are committed.
    pub quiet: Duration,
    /// How long changes wait at most when it never is.
    pub max_delay: Duration,
    /// How often everything is looked at, whatever the kernel reported.
    pub rescan: Duration,
    /// How often it is seen whether all that was committed is still in the store.
    pub check: Duration,
    /// Whether the gateway may be stopped for a consistent version.
    pub freeze: FreezePolicy,
}

/// `stop.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSettings {
    /// From the first TERM until exit; below the container host's own limit.
    pub total: Duration,
    /// The part of it that is kept for the final flush.
    pub flush: Duration,
}

/// `restart.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartSettings {
    /// Whether at all.
    pub policy: RestartPolicy,
    /// How often in a row.
    pub attempts: u32,
    /// Up to how long each start is put off.
    pub jitter: Duration,
}

/// `gateway.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// URL whose answer shows that the gateway is up; `None`: it is up when it runs.
    pub probe: Option<String>,
    /// The key of the gateway's own API, for the state of its sessions and the code to scan.
    pub api_key: Option<Secret>,
}

/// `http.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Port for health and status; 0 switches it off.
    pub port: u16,
    /// Address to listen on; `None`: all addresses with a token or a password, 127.0.0.1 and ::1 without.
    pub bind: Option<std::net::IpAddr>,
    /// What a client must present for all but the health endpoints; or [`HttpSettings::password`].
    pub token: Option<Secret>,
    /// The user that goes with the password.
    pub username: String,
    /// What a person must present for all but the health endpoints; or [`HttpSettings::token`].
    pub password: Option<Secret>,
    /// The proxies that are believed when they name the client, in `X-Forwarded-For`.
    pub trusted_proxies: TrustedProxies,
}

impl HttpSettings {
    /// So many characters are out of reach, in all but the worst of passwords, for as many tries as a
    /// network lets through.
    pub const UNGUESSABLE: usize = 12;

    /// Whether anything has to be presented at all.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.token.is_some() || self.password.is_some()
    }

    /// The settings whose secret is so short that it can be guessed: nothing else protects it, since a
    /// right one is let in however many wrong ones came before.
    pub fn guessable(&self) -> impl Iterator<Item = &'static str> + use<> {
        let secrets = [
            ("http.token", &self.token),
            ("http.password", &self.password),
        ];
        let short = secrets.map(|(key, secret)| {
            let secret = secret.as_ref()?;
            (secret.expose().chars().count() < Self::UNGUESSABLE).then_some(key)
        });
        short.into_iter().flatten()
    }
}

/// `webhook.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where incidents are told; a secret, since whoever knows it may post there.
    pub url: Option<Secret>,
    /// The key that the messages are signed with.
    pub secret: Option<Secret>,
}

/// `heartbeat.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// What is asked for while all is well, so that silence is an alarm; a secret like a webhook.
    pub url: Option<Secret>,
    /// How often.
    pub every: Duration,
}

/// `alarm.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmSettings {
    /// Changes that wait for longer than this are an incident, and not healthy.
    pub lag: Duration,
}

/// `log.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// `history.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// How long superseded commits and packs are kept; longer than any restore takes.
    pub grace: Duration,
}

/// Everything that can be set, with what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The session directory, absolute.
    pub dir: PathBuf,
    /// `dir.owner`: the owner that the session directory itself is given at each start.
    pub dir_owner: Option<Owner>,
    /// The archive's name in the store.
    pub archive: ArchiveName,
    /// Which gateway's files they are.
    pub profile: ProfileName,
    /// `store.*`
    pub store: StoreSettings,
    /// `restore.*`
    pub restore: RestoreSettings,
    /// `lease.*`
    pub lease: LeaseSettings,
    /// `sync.*`
    pub sync: SyncSettings,
    /// `stop.*`
    pub stop: StopSettings,
    /// `restart.*`
    pub restart: RestartSettings,
    /// `gateway.*`
    pub gateway: GatewaySettings,
    /// `http.*`
    pub http: HttpSettings,
    /// `webhook.*`
    pub webhook: WebhookSettings,
    /// `heartbeat.*`
    pub heartbeat: HeartbeatSettings,
    /// `alarm.*`
    pub alarm: AlarmSettings,
    /// `log.*`
    pub log: LogSettings,
    /// `history.*`
    pub history: HistorySettings,
}

impl Settings {
    /// Whether the directory itself is the storage, so that there is nothing to restore, commit
    /// or lease.
    #[must_use]
    pub fn is_file_mode(&self) -> bool {
        self.store.choice == StoreChoice::None
    }
}
