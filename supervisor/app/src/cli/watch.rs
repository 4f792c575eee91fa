//! `sessionkeep watch`: commits changes until it is told to stop.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::{Flags, Settings};
use crate::outside::Outside;
use crate::status::{Lease, Shared};
use crate::watcher::End;
use crate::watcher::link::Link;
use crate::{boot, watcher};
use sessionkeep_archive::store;
use sessionkeep_core::control::{Handover, Lifecycle};
use sessionkeep_core::record::InstanceId;
use sessionkeep_core::state_dir::StateDir;

use super::standalone;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
sessionkeep run starts this by itself. Alone, it replicates the directory of a
gateway that something else started; stop it with TERM once the gateway is gone.

Example:
  sessionkeep watch --dir ./session --store sqlite:keep.db")]
pub(super) struct Args {}

/// Who has started it.
enum Start {
    /// Init, of which this process is a fork.
    Init {
        state: StateDir,
        control: OwnedFd,
        http: Vec<OwnedFd>,
    },
    /// Somebody by hand.
    Alone(standalone::Lock),
}

pub(super) fn main(_: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = super::context::settings_with_notes(flags)?;
    let lock = standalone::lock(&settings)?;
    let end = watch(settings, standalone::instance(), Start::Alone(lock))?;
    Ok(ExitCode::from(end.exit_code()))
}

/// As init's helper.
pub(super) fn under_init(settings: &Settings, handover: Handover) -> anyhow::Result<u8> {
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
    let end = watch(settings.clone(), instance, start)?;
    Ok(end.exit_code())
}

fn watch(settings: Settings, instance: InstanceId, start: Start) -> anyhow::Result<End> {
    keep_memory_small();
    super::context::block_on(async {
        let describe = match settings.is_file_mode() {
            true => "none".to_owned(),
            false => super::context::open(&settings).await?.describe(),
        };
        let own = match &start {
            Start::Init { state, .. } => state.clone(),
            Start::Alone(lock) => lock.state().clone(),
        };
        let shared = Shared::new(
            &settings,
            Some(own.clone()),
            describe,
            instance.to_string(),
            Lifecycle::Running,
        );
        if !settings.is_file_mode() {
            // The restorer has left it to this process, or it is about to be taken.
            shared.update(|status| status.lease = Lease::Held);
        }
        let (link, http, lock) = match start {
            Start::Init { control, http, .. } => {
                let noting = (!settings.is_file_mode()).then(|| own.clone());
                let link =
                    Link::new(control, noting).context("failed to take up the channel to init")?;
                (link, http, None)
            }
            Start::Alone(lock) => (
                standalone::link(settings.stop.flush)?,
                Vec::new(),
                Some(lock),
            ),
        };
        let outside =
            Outside::start(&settings, &shared, http).context("failed to start answering HTTP")?;
        if settings.is_file_mode() {
            let end = watcher::watch_nothing(&settings, link, shared).await;
            outside.finish();
            return Ok(end);
        }
        let store = sessionkeep_stores::open(&settings.store.choice, settings.store.timeout)?;
        if let Some(lock) = &lock {
            come_to_one_state(&settings, &store, &instance, lock).await?;
        }
        let end = watcher::watch(&settings, own, store, instance, link, shared)
            .await
            .with_context(|| format!("failed to watch {}", settings.dir.display()));
        outside.finish();
        end
    })?
}

/// What the restorer does under init: without it the watcher would take the directory for new.
async fn come_to_one_state(
    settings: &Settings,
    store: &std::sync::Arc<dyn store::Store>,
    instance: &InstanceId,
    lock: &standalone::Lock,
) -> anyhow::Result<()> {
    let who = boot::attach::Identity {
        instance: instance.clone(),
        predecessor: lock.predecessor(),
    };
    let progress = crate::progress::Progress::default();
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
