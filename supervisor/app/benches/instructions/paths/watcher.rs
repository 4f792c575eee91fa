//! Paths of the watcher as a whole, over the store in memory.

use sessionkeep_archive::store::CommitLog;
use std::sync::Arc;
use std::time::Duration;

use sessionkeep::config::{self, Flags};
use sessionkeep::status::Shared;
pub(super) use sessionkeep::watcher::{End, Link, watch};
use sessionkeep_archive::store::{MemoryStore, Store};
use sessionkeep_core::control::{Lifecycle, MonotonicMs, ToWatcher};
use sessionkeep_core::secret::Secret;
use sessionkeep_core::state_dir::StateDir;

use super::session::write_accounts;
use crate::callgrind::counted;
use crate::inputs::{ACCOUNT, runtime};

/// Until the clock by which file systems mark changes has moved on: the watcher reads files again
/// that were written in the tick in which it read them.
const TICKS: Duration = Duration::from_millis(50);

pub(super) fn flush() {
    let dir = tempfile::tempdir().expect("a directory");
    write_accounts(dir.path());
    std::thread::sleep(TICKS);
    let flags = Flags {
        dir: Some(dir.path().display().to_string()),
        // The settings want one; the watcher is given another.
        store: Some(Secret::new("sqlite:/nowhere/unused.db".to_owned())),
        profile: Some("baileys".to_owned()),
        ..Flags::default()
    };
    let settings = config::load(&flags).expect("they are settings").settings;
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let (init, link) = Link::local();
    let (store_name, life) = ("memory".to_owned(), "bench-1".to_owned());
    let shared = Shared::new(&settings, None, store_name, life, Lifecycle::Running);
    let state = StateDir::open(dir.path()).expect("it opens");
    let instance = "bench-1".parse().expect("a name");

    let runtime = runtime();
    let mut watching = Box::pin(watch(
        &settings,
        state,
        store,
        instance,
        link,
        shared.clone(),
    ));
    runtime.block_on(async {
        tokio::select! {
            ended = &mut watching => panic!("nobody told it to end: {ended:?}"),
            () = all_is_saved(&shared) => {}
        }
    });
    let head = |when| {
        let head = runtime.block_on(memory.head(&settings.archive));
        head.expect("memory answers").expect(when)
    };
    let before = head("the first look was committed");
    assert_eq!(before.live_files, 3 * ACCOUNT as u64);
    let deadline = MonotonicMs::now().after(Duration::from_secs(60));
    let end = counted(|| {
        init.try_send(ToWatcher::Flush { deadline })
            .expect("it listens");
        runtime.block_on(&mut watching)
    });
    assert_eq!(end.expect("the directory is there"), End::Done);
    assert_eq!(head("it still is").seq, before.seq);
}

/// Until the watcher has committed and nothing waits any more.
async fn all_is_saved(shared: &Shared) {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let status = shared.read();
        if status.commits > 0 && status.lag_paths == Some(0) {
            return;
        }
    }
}
