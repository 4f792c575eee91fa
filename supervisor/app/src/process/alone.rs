//! What `restore` and `watch` do for themselves where no init does it for them: the directory's
//! lock, a name for this life, and signals.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::channel::Link;
use crate::config::Settings;
use crate::refused::Refused;
use sessionkeep_core::control::{MonotonicMs, ToWatcher};
use sessionkeep_core::record::InstanceId;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_init::{DirLock, directory, place};

/// The directory's lock, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    lock: DirLock,
    predecessor: Option<InstanceId>,
}

impl Lock {
    /// Our own directory, in which the lock lies.
    pub(crate) fn state(&self) -> &StateDir {
        self.lock.state()
    }

    /// The instance that used the directory before, and is certainly gone.
    pub(crate) fn predecessor(&self) -> Option<InstanceId> {
        self.predecessor.clone()
    }
}

/// Takes the directory's lock, making the directory if there is none.
pub(crate) fn lock(settings: &Settings) -> anyhow::Result<Lock> {
    place::check(&settings.dir, &super::setup::storage(settings))?;
    let found = settings.dir.metadata();
    if found.is_ok_and(|found| !found.is_dir()) {
        return Err(Refused(format!(
            "the session directory `{}` is not a directory; set SESSIONKEEP_DIR (or SESSIONS_PATH, or --dir) to one",
            settings.dir.display()
        ))
        .into());
    }
    directory::ensure(&settings.dir, settings.dir_owner)
        .with_context(|| format!("failed to create {}", settings.dir.display()))?;
    let lock = DirLock::take(&settings.dir)?;
    let predecessor = lock.predecessor().and_then(|name| name.parse().ok());
    Ok(Lock { lock, predecessor })
}

/// Makes a directory that a copy of a login goes into, if there is none: for the owner alone.
pub(crate) fn own_dir(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("failed to create {}", dir.display()))
}

/// A name for this life.
pub(crate) fn instance() -> InstanceId {
    InstanceId::generate(&sessionkeep_init::host())
}

/// A channel on which TERM or INT arrives as the order to flush.
pub(crate) fn link(flush: Duration) -> anyhow::Result<Link> {
    let mut term = signal(SignalKind::terminate()).context("failed to listen for TERM")?;
    let mut int = signal(SignalKind::interrupt()).context("failed to listen for INT")?;
    let (send, link) = Link::local();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = send
            .send(ToWatcher::Flush {
                deadline: MonotonicMs::now().after(flush),
            })
            .await;
        // Dropping the sender would look like init's end, and cut the flush short.
        std::future::pending::<()>().await;
    });
    Ok(link)
}
