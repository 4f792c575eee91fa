//! The one table of all settings. Parsing, the names of environment variables, `sessionkeep
//! config`, the reference page and suggestions all come from it.

use std::time::Duration;

use super::model::{
    AlarmSettings, Conflict, FreezePolicy, GatewaySettings, HeartbeatSettings, HistorySettings,
    HttpSettings, LeaseSettings, LogFormat, LogLevel, LogSettings, OutagePolicy, RestartSettings,
    RestoreSettings, Settings, StopSettings, StoreSettings, SyncSettings, Unreachable,
    WebhookSettings,
};
use super::paths::path;
use super::values::{
    CONFLICT, FORMATS, FREEZE, LEVELS, OUTAGE, PROFILES, RESTART, UNREACHABLE, address, choice,
    hidden, name_of, number, owner, owners, owners_shown, probe, probe_shown, secret, span,
};
use super::{TrustedProxies, duration, store_url};
use crate::gateway::ProfileName;
use sessionkeep_core::invalid::Invalid;
use sessionkeep_init::RestartPolicy;
use sessionkeep_session::rights::RestoreOwner;
use sessionkeep_stores::StoreChoice;

/// What holds where nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// This value.
    Is(&'static str),
    /// It depends on other settings, as these words say; `sources` works it out.
    Depends(&'static str),
}

/// Whether an older name of a variable is read by the gateway, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// It is ours: a different value under our own name is a contradiction.
    Ours,
    /// The gateway reads it as well, so our own name may say something else.
    WithGateway,
}

/// How many values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One.
    One,
    /// Several, with commas between them; in the settings file also as a list of YAML's.
    List,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its key in the file and for `--set`.
    pub(super) key: &'static str,
    /// Its environment variable.
    pub(super) env: &'static str,
    /// Further variables that mean the same, most of them older than sessionkeep.
    pub(super) aliases: &'static [&'static str],
    /// Whether the gateway reads the aliases, too.
    pub(super) sharing: Sharing,
    /// The flag of its own, if it has one.
    pub(super) flag: Option<&'static str>,
    /// What can be written, in words.
    pub(super) takes: &'static str,
    /// What holds where nothing is set.
    pub(super) default: Default,
    /// What it is for, in one line.
    pub(super) meaning: &'static str,
    /// Whether the settings file may give it as a list.
    pub(super) form: Form,
    /// Whether its text must never be shown as it was given.
    pub(super) secret: bool,
    /// Reads a text and puts it into the settings.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), Invalid>,
    /// The value in force, as it may be shown.
    pub(super) show: fn(&Settings) -> String,
}

/// What a secret takes that is no address: any text on one line.
pub(super) const SECRET_TEXT: &str = "a secret text";

/// What most rows have in common.
const ROW: Setting = Setting {
    key: "",
    env: "",
    aliases: &[],
    sharing: Sharing::Ours,
    flag: None,
    takes: "a time span",
    default: Default::Is(""),
    meaning: "",
    form: Form::One,
    secret: false,
    set: |_, _| Ok(()),
    show: |_| String::new(),
};

/// All settings, in the order in which they are listed.
pub(super) const ALL: &[Setting] = &[
    Setting {
        key: "dir",
        env: "SESSIONKEEP_DIR",
        aliases: &["SESSIONS_PATH"],
        flag: Some("--dir"),
        takes: "a directory",
        default: Default::Depends("`/app/.sessions` for profile `waha`, `./session` for others"),
        meaning: "the session directory: what the gateway keeps its login in, and nothing else",
        set: |s, v| path(v).map(|v| s.dir = v),
        show: |s| s.dir.display().to_string(),
        ..ROW
    },
    Setting {
        key: "dir.owner",
        env: "SESSIONKEEP_DIR_OWNER",
        takes: "`UID:GID`",
        default: Default::Depends(
            "the archived one; for a new directory the owner of the one that it is made in",
        ),
        meaning: "the owner that the session directory itself is given at each start, for a gateway that drops root",
        set: |s, v| owner(v).map(|v| s.dir_owner = Some(v)),
        show: |s| s.dir_owner.map_or("none".to_owned(), |v| v.to_string()),
        ..ROW
    },
    Setting {
        key: "archive",
        env: "SESSIONKEEP_ARCHIVE",
        flag: Some("--archive"),
        takes: "a name",
        default: Default::Is("default"),
        meaning: "the name of this directory's history in the store",
        set: |s, v| {
            s.archive = v.parse().map_err(|_| {
                Invalid::new(
                    "is not usable as a name",
                    "write 1 to 64 letters, digits, `-`, `_` or `.`",
                )
            })?;
            Ok(())
        },
        show: |s| s.archive.to_string(),
        ..ROW
    },
    Setting {
        key: "profile",
        env: "SESSIONKEEP_PROFILE",
        flag: Some("--profile"),
        takes: "`waha`, `baileys`, `whatsmeow` or `generic`",
        default: Default::Is("waha"),
        meaning: "which gateway's files they are; decides what is left out",
        set: |s, v| choice(PROFILES, v).map(|v| s.profile = v),
        show: |s| name_of(PROFILES, s.profile),
        ..ROW
    },
    Setting {
        key: "store.url",
        env: "SESSIONKEEP_STORE",
        aliases: &[
            "SESSIONKEEP_STORE_URL",
            "MONGO_URL",
            "WHATSAPP_SESSIONS_MONGO_URL",
        ],
        flag: Some("--store"),
        takes: "`mongodb://…`, `mongodb+srv://…`, `sqlite:PATH` or `none`",
        default: Default::Depends("none: it must be set, or `MONGO_ENABLED=false`"),
        meaning: "where the archive is kept; `none` leaves it in the directory alone",
        secret: true,
        set: |s, v| store_url::parse(v).map(|v| s.store.choice = v),
        show: |s| store_url::show(&s.store.choice),
        ..ROW
    },
    Setting {
        key: "store.wait",
        env: "SESSIONKEEP_STORE_WAIT",
        default: Default::Is("60s"),
        meaning: "how long a start waits for the store",
        set: |s, v| span(v, Duration::ZERO).map(|v| s.store.wait = v),
        show: |s| duration::show(s.store.wait),
        ..ROW
    },
    Setting {
        key: "store.unreachable",
        env: "SESSIONKEEP_STORE_UNREACHABLE",
        takes: "`fail` or `local`",
        default: Default::Is("fail"),
        meaning: "what a start does then, or where the store takes no writes: exit with 69, or go on with a directory known to be good, or with what can be restored where nobody else can have the session",
        set: |s, v| choice(UNREACHABLE, v).map(|v| s.store.unreachable = v),
        show: |s| name_of(UNREACHABLE, s.store.unreachable),
        ..ROW
    },
    Setting {
        key: "store.outage",
        env: "SESSIONKEEP_STORE_OUTAGE",
        takes: "`keep-running` or `stop`",
        default: Default::Is("keep-running"),
        meaning: "when the store is lost for long while the gateway runs: let it run, or stop it before another instance can take over",
        set: |s, v| choice(OUTAGE, v).map(|v| s.store.outage = v),
        show: |s| name_of(OUTAGE, s.store.outage),
        ..ROW
    },
    Setting {
        key: "store.timeout",
        env: "SESSIONKEEP_STORE_TIMEOUT",
        default: Default::Is("5s"),
        meaning: "how long one operation of the store may take",
        set: |s, v| span(v, Duration::from_millis(100)).map(|v| s.store.timeout = v),
        show: |s| duration::show(s.store.timeout),
        ..ROW
    },
    Setting {
        key: "restore.owner",
        env: "SESSIONKEEP_RESTORE_OWNER",
        takes: "`keep`, `self` or `UID:GID`",
        default: Default::Is("keep"),
        meaning: "what owner restored files get: the archived one where it can be given, that of sessionkeep, or this one",
        set: |s, v| owners(v).map(|v| s.restore.owner = v),
        show: |s| owners_shown(s.restore.owner),
        ..ROW
    },
    Setting {
        key: "lease.ttl",
        env: "SESSIONKEEP_LEASE_TTL",
        default: Default::Is("15s"),
        meaning: "how long a session stays reserved for an instance that has gone silent",
        set: |s, v| span(v, Duration::from_millis(300)).map(|v| s.lease.ttl = v),
        show: |s| duration::show(s.lease.ttl),
        ..ROW
    },
    Setting {
        key: "lease.renew",
        env: "SESSIONKEEP_LEASE_RENEW",
        default: Default::Is("5s"),
        meaning: "how often the reservation is renewed; at most a third of `lease.ttl`",
        set: |s, v| span(v, Duration::from_millis(100)).map(|v| s.lease.renew = v),
        show: |s| duration::show(s.lease.renew),
        ..ROW
    },
    Setting {
        key: "lease.conflict",
        env: "SESSIONKEEP_LEASE_CONFLICT",
        takes: "`takeover`, `wait` or `refuse`",
        default: Default::Is("takeover"),
        meaning: "when another instance owns the session: have it hand over, wait until it ends, or exit with 75",
        set: |s, v| choice(CONFLICT, v).map(|v| s.lease.conflict = v),
        show: |s| name_of(CONFLICT, s.lease.conflict),
        ..ROW
    },
    Setting {
        key: "sync.quiet",
        env: "SESSIONKEEP_SYNC_QUIET",
        default: Default::Is("50ms"),
        meaning: "how long nothing must change before changes are committed",
        set: |s, v| span(v, Duration::ZERO).map(|v| s.sync.quiet = v),
        show: |s| duration::show(s.sync.quiet),
        ..ROW
    },
    Setting {
        key: "sync.max_delay",
        env: "SESSIONKEEP_SYNC_MAX_DELAY",
        default: Default::Is("200ms"),
        meaning: "how long changes wait at most where it never is quiet",
        set: |s, v| span(v, Duration::ZERO).map(|v| s.sync.max_delay = v),
        show: |s| duration::show(s.sync.max_delay),
        ..ROW
    },
    Setting {
        key: "sync.rescan",
        env: "SESSIONKEEP_SYNC_RESCAN",
        default: Default::Is("60s"),
        meaning: "how often everything is looked at, whatever the kernel has reported; less often where that would cost more than 0.03 % of a core",
        set: |s, v| span(v, Duration::from_millis(100)).map(|v| s.sync.rescan = v),
        show: |s| duration::show(s.sync.rescan),
        ..ROW
    },
    Setting {
        key: "sync.check",
        env: "SESSIONKEEP_SYNC_CHECK",
        default: Default::Is("5m"),
        meaning: "how often it is seen whether all that was saved is still in the store; before the end always",
        set: |s, v| span(v, Duration::from_millis(100)).map(|v| s.sync.check = v),
        show: |s| duration::show(s.sync.check),
        ..ROW
    },
    Setting {
        key: "sync.freeze",
        env: "SESSIONKEEP_SYNC_FREEZE",
        takes: "`auto` or `never`",
        default: Default::Is("auto"),
        meaning: "whether a gateway that writes without a pause is stopped for up to 10 ms a version and a hundredth of the time, so that all files of a version are of one moment; `never` also leaves a database unsaved while its writer shares no lock",
        set: |s, v| choice(FREEZE, v).map(|v| s.sync.freeze = v),
        show: |s| name_of(FREEZE, s.sync.freeze),
        ..ROW
    },
    Setting {
        key: "stop.total",
        env: "SESSIONKEEP_STOP_TOTAL",
        default: Default::Is("9s"),
        meaning: "from the first TERM to the exit; keep it below the host's own limit",
        set: |s, v| span(v, Duration::from_millis(100)).map(|v| s.stop.total = v),
        show: |s| duration::show(s.stop.total),
        ..ROW
    },
    Setting {
        key: "stop.flush",
        env: "SESSIONKEEP_STOP_FLUSH",
        default: Default::Is("3s"),
        meaning: "the part of `stop.total` that is kept for saving the last changes at least; saving has all that the gateway leaves of `stop.total`",
        set: |s, v| span(v, Duration::from_millis(50)).map(|v| s.stop.flush = v),
        show: |s| duration::show(s.stop.flush),
        ..ROW
    },
    Setting {
        key: "restart.policy",
        env: "SESSIONKEEP_RESTART_POLICY",
        takes: "`no`, `on-failure` or `always`",
        default: Default::Is("no"),
        meaning: "whether a gateway that ended by itself is started again",
        set: |s, v| choice(RESTART, v).map(|v| s.restart.policy = v),
        show: |s| name_of(RESTART, s.restart.policy),
        ..ROW
    },
    Setting {
        key: "restart.attempts",
        env: "SESSIONKEEP_RESTART_ATTEMPTS",
        takes: "a number",
        default: Default::Is("5"),
        meaning: "how often in a row",
        set: |s, v| number(v, 1_000_000).map(|v| s.restart.attempts = v),
        show: |s| s.restart.attempts.to_string(),
        ..ROW
    },
    Setting {
        key: "restart.jitter",
        env: "SESSIONKEEP_RESTART_JITTER",
        default: Default::Is("0s"),
        meaning: "each start of the gateway, the first too, is put off by a random time up to this",
        set: |s, v| span(v, Duration::ZERO).map(|v| s.restart.jitter = v),
        show: |s| duration::show(s.restart.jitter),
        ..ROW
    },
    Setting {
        key: "gateway.probe",
        env: "SESSIONKEEP_GATEWAY_PROBE",
        takes: "an `http://` address or `off`",
        default: Default::Depends(
            "`http://127.0.0.1:$PORT/ping` for profile `waha` (`PORT`: 3000), `off` for others",
        ),
        meaning: "an answer from it, other than a server error (5xx), shows that the gateway is up",
        set: |s, v| probe(v).map(|v| s.gateway.probe = v),
        show: |s| {
            s.gateway
                .probe
                .as_deref()
                .map_or("off".to_owned(), probe_shown)
        },
        ..ROW
    },
    Setting {
        key: "gateway.api_key",
        env: "SESSIONKEEP_GATEWAY_API_KEY",
        aliases: &["WAHA_API_KEY", "WHATSAPP_API_KEY"],
        sharing: Sharing::WithGateway,
        takes: SECRET_TEXT,
        default: Default::Depends("none"),
        meaning: "WAHA's key, to ask for the state of its sessions and the QR code to scan",
        secret: true,
        set: |s, v| secret(v).map(|v| s.gateway.api_key = Some(v)),
        show: |s| hidden(s.gateway.api_key.as_ref()),
        ..ROW
    },
    Setting {
        key: "http.port",
        env: "SESSIONKEEP_HTTP_PORT",
        takes: "a port or `off`",
        default: Default::Is("3001"),
        meaning: "where sessionkeep shows the dashboard, and answers about health, status and metrics",
        set: |s, v| {
            s.http.port = if v.eq_ignore_ascii_case("off") {
                0
            } else {
                u16::try_from(number(v, u16::MAX.into())?).expect("number() held it below 65536")
            };
            Ok(())
        },
        show: |s| match s.http.port {
            0 => "off".to_owned(),
            port => port.to_string(),
        },
        ..ROW
    },
    Setting {
        key: "http.bind",
        env: "SESSIONKEEP_HTTP_BIND",
        takes: "an IP address or `auto`",
        default: Default::Is("auto"),
        meaning: "the address it listens on; `auto`: all with a token or a password, 127.0.0.1 and ::1 without",
        set: |s, v| {
            s.http.bind = if v.eq_ignore_ascii_case("auto") {
                None
            } else {
                Some(v.parse().map_err(|_| {
                    Invalid::new(
                        "is no IP address",
                        "write one, such as `0.0.0.0` or `127.0.0.1`, or `auto`",
                    )
                })?)
            };
            Ok(())
        },
        show: |s| s.http.bind.map_or("auto".to_owned(), |ip| ip.to_string()),
        ..ROW
    },
    Setting {
        key: "http.token",
        env: "SESSIONKEEP_HTTP_TOKEN",
        aliases: &["ADMIN_TOKEN"],
        takes: SECRET_TEXT,
        default: Default::Depends("none"),
        meaning: "what a client must present for all but the health pages",
        secret: true,
        set: |s, v| secret(v).map(|v| s.http.token = Some(v)),
        show: |s| hidden(s.http.token.as_ref()),
        ..ROW
    },
    Setting {
        key: "http.username",
        env: "SESSIONKEEP_HTTP_USERNAME",
        aliases: &["WAHA_DASHBOARD_USERNAME"],
        sharing: Sharing::WithGateway,
        takes: "a name",
        default: Default::Is("admin"),
        meaning: "the user that goes with `http.password`",
        set: |s, v| {
            // A browser sends the user, a colon, and the password.
            if v.is_empty() || v.contains([':', '/']) || v.chars().any(char::is_control) {
                return Err(Invalid::new(
                    "is not usable as a user's name",
                    "leave out `:` and `/`",
                ));
            }
            v.clone_into(&mut s.http.username);
            Ok(())
        },
        show: |s| s.http.username.clone(),
        ..ROW
    },
    Setting {
        key: "http.password",
        env: "SESSIONKEEP_HTTP_PASSWORD",
        aliases: &["WAHA_DASHBOARD_PASSWORD"],
        sharing: Sharing::WithGateway,
        takes: SECRET_TEXT,
        default: Default::Depends("none"),
        meaning: "what a person types to see the dashboard; `http.token` serves as well",
        secret: true,
        set: |s, v| secret(v).map(|v| s.http.password = Some(v)),
        show: |s| hidden(s.http.password.as_ref()),
        ..ROW
    },
    Setting {
        key: "http.trusted_proxies",
        env: "SESSIONKEEP_HTTP_TRUSTED_PROXIES",
        form: Form::List,
        takes: "addresses and networks, such as `10.0.0.0/8`, with commas between them, or `private`",
        default: Default::Depends("none"),
        meaning: "the proxies that are believed when they name the client in `X-Forwarded-For`: wrong tries count by client, not by proxy",
        set: |s, v| TrustedProxies::parse(v).map(|v| s.http.trusted_proxies = v),
        show: |s| s.http.trusted_proxies.to_string(),
        ..ROW
    },
    Setting {
        key: "webhook.url",
        env: "SESSIONKEEP_WEBHOOK_URL",
        takes: "an `http://` or `https://` address or `off`",
        default: Default::Depends("`off`"),
        meaning: "where incidents are posted to, as JSON",
        secret: true,
        set: |s, v| address(v).map(|v| s.webhook.url = v),
        show: |s| hidden(s.webhook.url.as_ref()),
        ..ROW
    },
    Setting {
        key: "webhook.secret",
        env: "SESSIONKEEP_WEBHOOK_SECRET",
        takes: SECRET_TEXT,
        default: Default::Depends("none"),
        meaning: "signs what is posted there: HMAC-SHA256, in `X-Sessionkeep-Signature`",
        secret: true,
        set: |s, v| secret(v).map(|v| s.webhook.secret = Some(v)),
        show: |s| hidden(s.webhook.secret.as_ref()),
        ..ROW
    },
    Setting {
        key: "heartbeat.url",
        env: "SESSIONKEEP_HEARTBEAT_URL",
        aliases: &["HEARTBEAT_URL"],
        takes: "an `http://` or `https://` address or `off`",
        default: Default::Depends("`off`"),
        meaning: "asked for as long as all is well, for a service that alarms when that ends",
        secret: true,
        set: |s, v| address(v).map(|v| s.heartbeat.url = v),
        show: |s| hidden(s.heartbeat.url.as_ref()),
        ..ROW
    },
    Setting {
        key: "heartbeat.every",
        env: "SESSIONKEEP_HEARTBEAT_EVERY",
        default: Default::Is("1m"),
        meaning: "how often `heartbeat.url` is asked for",
        set: |s, v| span(v, Duration::from_secs(1)).map(|v| s.heartbeat.every = v),
        show: |s| duration::show(s.heartbeat.every),
        ..ROW
    },
    Setting {
        key: "alarm.lag",
        env: "SESSIONKEEP_ALARM_LAG",
        default: Default::Is("1m"),
        meaning: "changes that wait for longer than this to be saved are an incident",
        set: |s, v| span(v, Duration::from_secs(1)).map(|v| s.alarm.lag = v),
        show: |s| duration::show(s.alarm.lag),
        ..ROW
    },
    Setting {
        key: "log.level",
        env: "SESSIONKEEP_LOG_LEVEL",
        aliases: &["LOG_LEVEL"],
        sharing: Sharing::WithGateway,
        flag: Some("--log-level"),
        takes: "`error`, `warn`, `info`, `debug` or `trace`",
        default: Default::Is("info"),
        meaning: "how much is logged; the names of WAHA, pino and winston are understood",
        set: |s, v| choice(LEVELS, v).map(|v| s.log.level = v),
        show: |s| name_of(LEVELS, s.log.level),
        ..ROW
    },
    Setting {
        key: "log.format",
        env: "SESSIONKEEP_LOG_FORMAT",
        aliases: &["LOG_FORMAT"],
        sharing: Sharing::WithGateway,
        flag: Some("--log-format"),
        takes: "`text` or `json`",
        default: Default::Is("text"),
        meaning: "lines for people, or one JSON object a line",
        set: |s, v| choice(FORMATS, v).map(|v| s.log.format = v),
        show: |s| name_of(FORMATS, s.log.format),
        ..ROW
    },
    Setting {
        key: "history.grace",
        env: "SESSIONKEEP_HISTORY_GRACE",
        default: Default::Is("1h"),
        meaning: "how long superseded commits are kept, and what only they need as long again; longer than any restore or dump takes",
        set: |s, v| span(v, Duration::from_secs(1)).map(|v| s.history.grace = v),
        show: |s| duration::show(s.history.grace),
        ..ROW
    },
];

/// The setting of this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    ALL.iter().find(|setting| setting.key == key)
}

/// Sets one by its key, for a test.
#[cfg(test)]
pub(crate) fn set(settings: &mut Settings, key: &str, text: &str) {
    let setting = find(key).expect("it is a setting");
    (setting.set)(settings, text).expect("a good value");
}

/// The names of environment variables of a setting, our own first.
pub(super) fn env_names(setting: &Setting) -> impl Iterator<Item = &'static str> + use<> {
    std::iter::once(setting.env).chain(setting.aliases.iter().copied())
}

/// The settings with every default in force that depends on nothing.
pub(crate) fn defaults() -> Settings {
    let mut settings = Settings {
        dir: "session".into(),
        dir_owner: None,
        archive: "default".parse().expect("the name is well formed"),
        profile: ProfileName::Waha,
        store: StoreSettings {
            choice: StoreChoice::None,
            wait: Duration::ZERO,
            unreachable: Unreachable::Fail,
            outage: OutagePolicy::KeepRunning,
            timeout: Duration::ZERO,
        },
        restore: RestoreSettings {
            owner: RestoreOwner::Keep,
        },
        lease: LeaseSettings {
            ttl: Duration::ZERO,
            renew: Duration::ZERO,
            conflict: Conflict::Takeover,
        },
        sync: SyncSettings {
            quiet: Duration::ZERO,
            max_delay: Duration::ZERO,
            rescan: Duration::ZERO,
            check: Duration::ZERO,
            freeze: FreezePolicy::Auto,
        },
        stop: StopSettings {
            total: Duration::ZERO,
            flush: Duration::ZERO,
        },
        restart: RestartSettings {
            policy: RestartPolicy::No,
            attempts: 0,
            jitter: Duration::ZERO,
        },
        gateway: GatewaySettings {
            probe: None,
            api_key: None,
        },
        http: HttpSettings {
            port: 0,
            bind: None,
            token: None,
            username: String::new(),
            password: None,
            trusted_proxies: TrustedProxies::default(),
        },
        webhook: WebhookSettings {
            url: None,
            secret: None,
        },
        heartbeat: HeartbeatSettings {
            url: None,
            every: Duration::ZERO,
        },
        alarm: AlarmSettings {
            lag: Duration::ZERO,
        },
        log: LogSettings {
            level: LogLevel::Info,
            format: LogFormat::Text,
        },
        history: HistorySettings {
            grace: Duration::ZERO,
        },
    };
    for setting in ALL {
        if let Default::Is(text) = setting.default {
            (setting.set)(&mut settings, text).expect("a test reads every default");
        }
    }
    settings
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
