//! The watcher's process: `sessionkeep watch` as init's helper, or by itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use sessionkeep_archive::store::Store;
use sessionkeep_core::control::{Handover, Lifecycle};
use sessionkeep_core::record::InstanceId;
use sessionkeep_core::state_dir::StateDir;

use super::{alone, runtime};
use crate::channel::Link;
use crate::config::Settings;
use crate::ownership::Identity;
use crate::progress::Progress;
use crate::service_thread::ServiceThread;
use crate::status::{Lease, Shared};
use crate::watcher::End;
use crate::{boot, watcher};

/// Who has started it.
enum Start {
    /// Init, of which this process is a fork.
    Init {
        state: StateDir,
        control: OwnedFd,
        http: Vec<OwnedFd>,
    },
    /// Somebody by hand.
    Alone(alone::Lock),
}

/// By itself, on a directory whose gateway something else started.
pub(crate) fn alone(settings: &Settings) -> anyhow::Result<End> {
    let lock = alone::lock(settings)?;
    watch(settings, alone::instance(), Start::Alone(lock))
}

/// As init's helper.
pub(crate) fn under_init(settings: &Settings, handover: Handover) -> anyhow::Result<u8> {
    let Handover {
        instance,
        state,
        control,
        http,
        ..
    } = handover;
    let start = Start::Init {
        state,
        control,
        http,
    };
    let end = watch(settings, instance, start)?;
    Ok(end.exit_code())
}

fn watch(settings: &Settings, instance: InstanceId, start: Start) -> anyhow::Result<End> {
    keep_memory_small();
    runtime::block_on(async {
        let own = match &start {
            Start::Init { state, .. } => state.clone(),
            Start::Alone(lock) => lock.state().clone(),
        };
        let store = match settings.is_file_mode() {
            true => None,
            false => {
                let store = &settings.store;
                Some(sessionkeep_stores::open(&store.choice, store.timeout)?)
            }
        };
        let shared = Shared::new(
            settings,
            Some(own.clone()),
            store
                .as_ref()
                .map_or_else(|| "none".to_owned(), |store| store.describe()),
            instance.to_string(),
            Lifecycle::Running,
        );
        if store.is_some() {
            // The restorer has left it to this process, or it is about to be taken.
            shared.update(|status| status.lease = Lease::Held);
        }
        let (link, http, lock) = match start {
            Start::Init { control, http, .. } => {
                let noting = store.is_some().then(|| own.clone());
                let link =
                    Link::new(control, noting).context("failed to take up the channel to init")?;
                (link, http, None)
            }
            Start::Alone(lock) => (alone::link(settings.stop.flush)?, Vec::new(), Some(lock)),
        };
        let services = ServiceThread::start(settings, &shared, http)
            .context("failed to start answering HTTP")?;
        let Some(store) = store else {
            let end = watcher::watch_nothing(settings, link, shared).await;
            services.finish();
            return Ok(end);
        };
        if let Some(lock) = &lock {
            come_to_one_state(settings, &store, &instance, lock).await?;
        }
        let end = watcher::watch(settings, own, store, instance, link, shared)
            .await
            .with_context(|| format!("failed to watch {}", settings.dir.display()));
        services.finish();
        end
    })?
}

/// What the restorer does under init: without it the watcher would take the directory for new.
async fn come_to_one_state(
    settings: &Settings,
    store: &Arc<dyn Store>,
    instance: &InstanceId,
    lock: &alone::Lock,
) -> anyhow::Result<()> {
    let who = Identity {
        instance: instance.clone(),
        predecessor: lock.predecessor(),
    };
    let progress = Progress::default();
    boot::boot(
        settings,
        lock.state(),
        store,
        &who,
        boot::Target::Newest,
        &progress,
        &mut |_| {},
    )
    .await?;
    Ok(())
}

/// The allocator would keep an arena for each thread, each as large as its largest moment.
fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread runs yet, and mallopt takes no pointer.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Enough that a commit's buffers are not mapped, zeroed and unmapped each time; packs are.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
    }
    // SQLite would count its own allocations, under a lock; nobody reads that.
    // SAFETY: SQLite has not been used yet; the option takes one int.
    let _ = unsafe { rusqlite::ffi::sqlite3_config(rusqlite::ffi::SQLITE_CONFIG_MEMSTATUS, 0_i32) };
}
