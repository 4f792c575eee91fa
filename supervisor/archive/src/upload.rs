//! Carries packs from the thread that builds them to the store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::builder::PackSink;
use super::error::{ArchiveError, Result};
use crate::store::Packs;
use sessionkeep_core::record::{ArchiveName, PackId};

/// How many bytes of packs may be on their way to the store. One that is larger goes by itself.
pub const AHEAD_MAX: usize = 4 << 20;
/// At most this many packs are on their way at a time.
const AT_ONCE: usize = 4;

/// A pack that has its share of [`AHEAD_MAX`] until it is stored.
type Parcel = (PackId, Bytes, OwnedSemaphorePermit);

/// The receiving end of a [`PackSink`].
#[derive(Debug)]
pub struct Upload {
    task: JoinHandle<crate::store::Result<()>>,
}

impl Upload {
    /// A sink for a builder's thread, and the task that stores what comes through it. Several packs
    /// are on their way while the next is built, so that compressing and sending overlap and a
    /// distant store costs its latency once. In which order they are stored does not matter: the
    /// commit that refers to them comes after all of them.
    #[must_use]
    pub fn start(store: Arc<dyn Packs>, archive: ArchiveName) -> (PackSink, Self) {
        let (send, receive) = mpsc::unbounded_channel::<Parcel>();
        let room = Arc::new(Semaphore::new(AHEAD_MAX));
        let closing = Closing(room.clone());
        let task = tokio::spawn(async move {
            // However this ends, a builder that waits for room must hear of it.
            let _closing = closing;
            let parcels = stream::unfold(receive, |mut receive| async {
                receive.recv().await.map(|parcel| (parcel, receive))
            });
            parcels
                .map(|(id, content, permit)| {
                    let (store, archive) = (&store, &archive);
                    async move {
                        let stored = store.put_pack(archive, id, content).await;
                        drop(permit);
                        stored
                    }
                })
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await
        });
        let runtime = Handle::current();
        let sink: PackSink = Box::new(move |id, content| {
            let gone = || std::io::Error::other("the store did not take a pack before it");
            let bytes = u32::try_from(content.len().min(AHEAD_MAX)).expect("was bounded");
            let permit = runtime.block_on(room.clone().acquire_many_owned(bytes));
            let permit = permit.map_err(|_| gone())?;
            send.send((id, content, permit)).map_err(|_| gone())
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

/// Closes the room when nothing is carried any more.
struct Closing(Arc<Semaphore>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}
