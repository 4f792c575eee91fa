//! The async runtime of a helper or a command.

use std::time::Duration;

use anyhow::Context as _;

use super::threads;

/// Runs `work` on a runtime of one thread: a watcher must be small, and a command is short.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    threads::ensure()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(512 << 10)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .context("failed to start the runtime")?;
    let result = runtime.block_on(work);
    // A thread that still looks at a large directory is not waited for.
    runtime.shutdown_background();
    Ok(result)
}
