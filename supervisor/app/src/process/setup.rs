//! From the settings to what init has to know of them.

use sessionkeep_init::{AtLeaseEnd, Listen, Setup, Storage};
use sessionkeep_stores::StoreChoice;

use crate::config::{HttpSettings, OutagePolicy, Settings, is_secret_argument};

/// What init has to know of the settings.
pub(crate) fn of(settings: &Settings) -> Setup {
    let http = &settings.http;
    Setup {
        archive: settings.archive.clone(),
        dir: settings.dir.clone(),
        dir_owner: settings.dir_owner,
        storage: storage(settings),
        has_probe: settings.gateway.probe.is_some(),
        stop_total: settings.stop.total,
        stop_flush: settings.stop.flush,
        restart: settings.restart.policy,
        attempts: settings.restart.attempts,
        stagger: settings.restart.jitter,
        lease_ttl: settings.lease.ttl,
        at_lease_end: match settings.store.outage {
            OutagePolicy::KeepRunning => AtLeaseEnd::GoOn,
            OutagePolicy::Stop => AtLeaseEnd::Stop,
        },
        http: Listen {
            port: http.port,
            bind: http.bind,
            is_protected: http.is_protected(),
            guessable: http.guessable().collect(),
            unguessable_len: HttpSettings::UNGUESSABLE,
        },
        secret_argument: is_secret_argument,
    }
}

/// Where the session is kept, as far as the session directory has to do with it.
pub(crate) fn storage(settings: &Settings) -> Storage {
    match &settings.store.choice {
        StoreChoice::None => Storage::Directory,
        StoreChoice::Sqlite(file) => Storage::Store {
            file: Some(file.clone()),
        },
        StoreChoice::Mongo(_) => Storage::Store { file: None },
    }
}
