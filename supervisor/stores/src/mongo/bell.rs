//! The bell: a small capped collection, whose end a server follows for us without being asked again
//! and again (a tailable cursor that awaits data). It works on a standalone server, where there are
//! no change streams.
//!
//! It only saves time. Where it cannot be had (no right to create it, a service without capped
//! collections), waiting is looking again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::Error;
use mongodb::options::CursorType;
use tracing::debug;

use super::MongoStore;
use super::errors::{Fault, already_exists};
use sessionkeep_archive::store::{LOOK_AGAIN, Result};
use sessionkeep_core::record::ArchiveName;

/// The collection's name.
pub(super) const BELLS: &str = "bells";

/// What it holds at most, in bytes: a hundred rings. More is only more to read.
const SIZE: u64 = 16 << 10;

/// Whether this server has a bell, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Bell {
    is_missing: AtomicBool,
}

impl MongoStore {
    pub(super) async fn ring_bell(&self, archive: &ArchiveName) -> Result<()> {
        if self.bell.is_missing.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.within("ring", async {
            // An insert into nothing would make a collection that nobody can follow.
            if let Err(error) = self.hang_bell().await {
                return self.without_bell(error);
            }
            let bells = self.collection(BELLS).await?;
            bells
                .insert_one(doc! { "a": archive.as_str(), "at": DateTime::now() })
                .await?;
            Ok(())
        })
        .await
    }

    pub(super) async fn await_bell(&self, archive: &ArchiveName, at_most: Duration) -> Result<()> {
        if self.bell.is_missing.load(Ordering::Relaxed) {
            tokio::time::sleep(at_most.min(LOOK_AGAIN)).await;
            return Ok(());
        }
        let limit = at_most + self.timeout;
        match tokio::time::timeout(limit, self.follow_bell(archive, at_most)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(self.translator.tell("listen", fault)),
            Err(_) => Err(super::errors::silent("listen", limit)),
        }
    }

    /// Waits for the next ring, or for as long as `at_most`.
    async fn follow_bell(&self, archive: &ArchiveName, at_most: Duration) -> Result<(), Fault> {
        let bells = self.collection(BELLS).await?;
        let mut heard = self.heard(archive).await?;
        if heard.is_empty() {
            // There is no following a collection that has nothing in it.
            let hung = match self.hang_bell().await {
                Ok(()) => bells
                    .insert_one(doc! { "a": archive.as_str() })
                    .await
                    .map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = hung {
                return self.without_bell(error);
            }
            heard = self.heard(archive).await?;
        }
        let cursor = bells
            .find(doc! { "a": archive.as_str(), "_id": { "$nin": heard } })
            .cursor_type(CursorType::TailableAwait)
            .max_await_time(at_most)
            .await;
        let mut cursor = match cursor {
            Ok(cursor) => cursor,
            // It says so of a collection that is not capped.
            Err(error) => return self.without_bell(error),
        };
        match tokio::time::timeout(at_most, cursor.advance()).await {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// The rings that were.
    async fn heard(&self, archive: &ArchiveName) -> Result<Vec<Bson>, Fault> {
        let bells = self.collection(BELLS).await?;
        let mut found = bells
            .find(doc! { "a": archive.as_str() })
            .projection(doc! { "_id": 1 })
            .await?;
        let mut heard = Vec::new();
        while found.advance().await? {
            let ring: Document = found.deserialize_current()?;
            heard.extend(ring.get("_id").cloned());
        }
        Ok(heard)
    }

    /// Makes the collection, where it is not there.
    async fn hang_bell(&self) -> std::result::Result<(), Error> {
        let database = match self.database().await {
            Ok(database) => database,
            Err(Fault::Driver(error)) => return Err(error),
            Err(Fault::Store(error)) => return Err(Error::custom(error.to_string())),
        };
        let made = database
            .create_collection(BELLS)
            .capped(true)
            .size(SIZE)
            .await;
        match made {
            Err(error) if !already_exists(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Does without from now on, unless the trouble is one that passes.
    fn without_bell(&self, error: Error) -> Result<(), Fault> {
        if super::errors::is_transient(&error) {
            return Err(error.into());
        }
        let words = self.translator.words(&error);
        debug!(error = %words, "this store has no bell; looking again instead");
        self.bell.is_missing.store(true, Ordering::Relaxed);
        Ok(())
    }
}
