//! What the commands that touch a store share: settings, runtime, the store itself.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{self, Flags, Note, Settings, Weight};
use crate::refused::Refused;
use sessionkeep_archive::store::Store;
use sessionkeep_core::record::{Header, Seq};
use sessionkeep_stores::StoreChoice;

/// The settings in force, with logging begun.
pub(super) fn settings(flags: &Flags) -> anyhow::Result<Settings> {
    let loaded = config::load(flags)?;
    crate::log::init(&loaded.settings.log);
    Ok(loaded.settings)
}

/// The same for what runs as a service: with a word in the log about settings that may be other than was
/// meant.
pub(super) fn settings_with_notes(flags: &Flags) -> anyhow::Result<Settings> {
    let loaded = config::load(flags)?;
    crate::log::init(&loaded.settings.log);
    for Note { weight, about } in &loaded.notes {
        let (setting, value, reason, next) =
            (&about.name, &about.value, &about.reason, &about.remedy);
        let value = value.as_deref();
        match weight {
            Weight::Info => {
                info!(target: "init", setting, value, reason, next, "note on a setting");
            }
            Weight::Warning => {
                warn!(target: "init", setting, value, reason, next, "a setting may be wrong");
            }
        }
    }
    Ok(loaded.settings)
}

/// The settings of an init that keeps no session, with logging begun.
pub(super) fn settings_init_only(flags: &Flags) -> anyhow::Result<Settings> {
    let settings = config::load_init_only(flags)?;
    crate::log::init(&settings.log);
    Ok(settings)
}

/// The store of the settings.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if settings.is_file_mode() {
        let words = "there is no store in file mode: set MONGO_URL, or SESSIONKEEP_STORE=sqlite:PATH, or give --store";
        return Err(Refused(words.to_owned()).into());
    }
    Ok(sessionkeep_stores::open(
        &settings.store.choice,
        settings.store.timeout,
    )?)
}

/// The same for what only reads: a file that is not there is not made.
pub(super) async fn open_to_read(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(file) = missing_file(settings) {
        return Err(Refused(format!(
            "the store's file `{}` does not exist: nothing was saved there yet, or `run` uses another path; `sessionkeep config` shows where this one comes from",
            file.display()
        ))
        .into());
    }
    open(settings).await
}

/// The file of an SQLite store that nothing has made yet.
pub(super) fn missing_file(settings: &Settings) -> Option<&Path> {
    match &settings.store.choice {
        StoreChoice::Sqlite(file) => match file.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(file),
            // A link to where it is to be made.
            Ok(_)
                if file
                    .metadata()
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) =>
            {
                Some(file)
            }
            _ => None,
        },
        StoreChoice::Mongo(_) | StoreChoice::None => None,
    }
}

/// The header of commit `seq`, or of the newest commit.
pub(super) async fn header(
    store: &dyn Store,
    settings: &Settings,
    seq: Option<Seq>,
) -> anyhow::Result<Header> {
    let found = match seq {
        Some(seq) => store.headers(&settings.archive, seq, seq, 1).await?.pop(),
        None => store.head(&settings.archive).await?,
    };
    match (found, seq) {
        (Some(header), _) => Ok(header),
        (None, Some(seq)) => Err(Refused(format!(
            "archive {} has no commit {seq}; `sessionkeep log` lists those it has",
            settings.archive
        ))
        .into()),
        (None, None) => Err(is_empty(settings)),
    }
}

/// There is no commit to do anything with.
pub(super) fn is_empty(settings: &Settings) -> anyhow::Error {
    anyhow::anyhow!(
        "archive {} is empty: nothing was ever committed to it",
        settings.archive
    )
}
