//! Carries packs from the thread that builds them to the store.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::builder::PackSink;
use super::error::{ArchiveError, Result};
use crate::store::{ArchiveName, PackId, Store};

/// The receiving end of a [`PackSink`].
#[derive(Debug)]
pub struct Upload {
    task: JoinHandle<crate::store::Result<()>>,
}

impl Upload {
    /// A sink for a builder's thread, and the task that stores what comes through it. One pack
    /// waits while another is on its way, so that compressing and sending overlap.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, archive: ArchiveName) -> (PackSink, Self) {
        let (send, mut receive) = mpsc::channel::<(PackId, Bytes)>(1);
        let task = tokio::spawn(async move {
            while let Some((id, content)) = receive.recv().await {
                store.put_pack(&archive, id, content).await?;
            }
            Ok(())
        });
        let sink: PackSink = Box::new(move |id, content| {
            send.blocking_send((id, content))
                .map_err(|_| std::io::Error::other("the store did not take the pack before it"))
        });
        (sink, Self { task })
    }

    /// Waits until everything is stored, once the builder, and with it the sink, is gone. The
    /// store's own error, if it had one, stands before what the builder saw of it.
    ///
    /// # Errors
    /// The store's, else the builder's.
    pub async fn finish<T>(self, built: Result<T>) -> Result<T> {
        match self.task.await {
            Ok(Ok(())) => built,
            Ok(Err(store)) => Err(store.into()),
            Err(panic) => {
                let source = std::io::Error::other(panic);
                Err(ArchiveError::Io {
                    action: "send packs",
                    source,
                })
            }
        }
    }
}
