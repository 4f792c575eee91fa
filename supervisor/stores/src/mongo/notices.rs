//! Notices that a lease is worth looking at: a small capped collection, whose end a server follows for us
//! without being asked again and again (a tailable cursor that awaits data). It works on a standalone
//! server, where there are no change streams.
//!
//! It only saves time. Where it cannot be had (no right to create it, a service without capped
//! collections), waiting is polling.

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

/// The collection's name: part of the format.
pub(super) const NOTICES: &str = "bells";

/// What it holds at most, in bytes: a hundred notices. More is only more to read.
const SIZE: u64 = 16 << 10;

/// Whether this server can have notices, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Notices {
    is_missing: AtomicBool,
}

impl MongoStore {
    pub(super) async fn insert_notice(&self, archive: &ArchiveName) -> Result<()> {
        if self.notices.is_missing.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.within("notify", async {
            // An insert into nothing would make a collection that nobody can follow.
            if let Err(error) = self.create_notices().await {
                return self.without_notices(error);
            }
            let notices = self.collection(NOTICES).await?;
            notices
                .insert_one(doc! { "a": archive.as_str(), "at": DateTime::now() })
                .await?;
            Ok(())
        })
        .await
    }

    pub(super) async fn await_notice(
        &self,
        archive: &ArchiveName,
        at_most: Duration,
    ) -> Result<()> {
        if self.notices.is_missing.load(Ordering::Relaxed) {
            tokio::time::sleep(at_most.min(LOOK_AGAIN)).await;
            return Ok(());
        }
        let limit = at_most + self.timeout;
        match tokio::time::timeout(limit, self.follow_notices(archive, at_most)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(self.translator.tell("wait for a notice", fault)),
            Err(_) => Err(super::errors::silent("wait for a notice", limit)),
        }
    }

    /// Waits for the next notice, or for as long as `at_most`.
    async fn follow_notices(&self, archive: &ArchiveName, at_most: Duration) -> Result<(), Fault> {
        let notices = self.collection(NOTICES).await?;
        let mut seen = self.seen(archive).await?;
        if seen.is_empty() {
            // There is no following a collection that has nothing in it.
            let made = match self.create_notices().await {
                Ok(()) => notices
                    .insert_one(doc! { "a": archive.as_str() })
                    .await
                    .map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                return self.without_notices(error);
            }
            seen = self.seen(archive).await?;
        }
        let cursor = notices
            .find(doc! { "a": archive.as_str(), "_id": { "$nin": seen } })
            .cursor_type(CursorType::TailableAwait)
            .max_await_time(at_most)
            .await;
        let mut cursor = match cursor {
            Ok(cursor) => cursor,
            // It says so of a collection that is not capped.
            Err(error) => return self.without_notices(error),
        };
        match tokio::time::timeout(at_most, cursor.advance()).await {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// The notices that were.
    async fn seen(&self, archive: &ArchiveName) -> Result<Vec<Bson>, Fault> {
        let notices = self.collection(NOTICES).await?;
        let mut found = notices
            .find(doc! { "a": archive.as_str() })
            .projection(doc! { "_id": 1 })
            .await?;
        let mut seen = Vec::new();
        while found.advance().await? {
            let notice: Document = found.deserialize_current()?;
            seen.extend(notice.get("_id").cloned());
        }
        Ok(seen)
    }

    /// Makes the collection, where it is not there.
    async fn create_notices(&self) -> std::result::Result<(), Error> {
        let database = match self.database().await {
            Ok(database) => database,
            Err(Fault::Driver(error)) => return Err(error),
            Err(Fault::Store(error)) => return Err(Error::custom(error.to_string())),
        };
        let made = database
            .create_collection(NOTICES)
            .capped(true)
            .size(SIZE)
            .await;
        match made {
            Err(error) if !already_exists(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Does without from now on, unless the trouble is one that passes.
    fn without_notices(&self, error: Error) -> Result<(), Fault> {
        if super::errors::is_transient(&error) {
            return Err(error.into());
        }
        let words = self.translator.words(&error);
        debug!(error = %words, "this store takes no notices; polling instead");
        self.notices.is_missing.store(true, Ordering::Relaxed);
        Ok(())
    }
}
