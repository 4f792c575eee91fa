//! The content of an archive that is too large for a record.

use async_trait::async_trait;
use bytes::Bytes;
use sessionkeep_core::record::{ArchiveName, PackId};

use super::Result;

/// What is known of a pack without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInfo {
    /// Its id, whose first bytes tell when it was made.
    pub id: PackId,
    /// Length in bytes, as stored.
    pub size: u64,
    /// Since when no commit has referred to it, by the store's clock in milliseconds since 1970, as
    /// [`Packs::mark_unused`] noted it; `None` where nothing is noted, or what is cannot be read.
    pub unused_since_ms: Option<u64>,
}

/// Immutable pieces of content, stored before the record that refers to them. What holds for every
/// operation is said at [`Store`](super::Store).
#[async_trait]
pub trait Packs: Send + Sync {
    /// Stores an immutable pack, durably. Putting a pack that is there again is a success and
    /// changes nothing. A pack that was only partly put is not listed and not readable.
    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()>;

    /// Reads a whole pack.
    ///
    /// # Errors
    /// [`StoreError::Missing`](super::StoreError::Missing) where there is no such pack, [`StoreError::Damaged`](super::StoreError::Damaged) where pieces of
    /// it are missing or of the wrong length.
    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes>;

    /// Reads a whole pack in the pieces in which it is kept, for those who need not have it in one:
    /// end to end they are what [`Packs::pack`] gives, and so are the errors.
    async fn pack_pieces(&self, archive: &ArchiveName, id: PackId) -> Result<Vec<Bytes>> {
        Ok(vec![self.pack(archive, id).await?])
    }

    /// All whole packs of an archive, in no order.
    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>>;

    /// Those of `packs` that are not whole in the store, as far as can be told without reading their
    /// content: not listed, of another archive, with pieces missing.
    async fn lacking(&self, archive: &ArchiveName, packs: &[PackId]) -> Result<Vec<PackId>>;

    /// Notes since when no commit refers to these packs, in place of what was noted before; `None`
    /// takes the note away. Those absent are passed over. It changes nothing else about a pack, and goes
    /// with it.
    async fn mark_unused(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()>;

    /// Deletes a pack; one that is absent is a success.
    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()>;

    /// Collects pieces of packs that were never wholly put and whose id says that they were begun
    /// before `before_ms` (milliseconds since 1970). Returns how many packs' pieces went.
    async fn sweep(&self, before_ms: u64) -> Result<u64>;
}
