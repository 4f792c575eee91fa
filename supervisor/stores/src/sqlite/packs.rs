//! Packs: one row each, so wholly there or not at all.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::Fault;
use super::{bound, shrink, writing};
use sessionkeep_archive::store::{PackInfo, StoreError};
use sessionkeep_core::record::{ArchiveName, PackId};

/// Adds a pack, unless it is there.
pub(super) fn put(
    db: &Connection,
    archive: &ArchiveName,
    id: PackId,
    content: &[u8],
) -> Result<(), Fault> {
    db.prepare_cached(
        "INSERT INTO packs (archive, id, size, content) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (archive, id) DO NOTHING",
    )?
    .execute(params![
        archive.as_str(),
        id.to_string(),
        bound(content.len() as u64),
        content,
    ])?;
    Ok(())
}

/// The content of a pack.
pub(super) fn get(db: &Connection, archive: &ArchiveName, id: PackId) -> Result<Bytes, Fault> {
    let what = format!("pack {id} of archive {archive}");
    let found = db
        .prepare_cached("SELECT size, content FROM packs WHERE archive = ?1 AND id = ?2")?
        .query_row(params![archive.as_str(), id.to_string()], |row| {
            // Whatever is in them: a value of another type is damage, and no failure.
            Ok((row.get::<_, i64>(0).ok(), row.get::<_, Vec<u8>>(1).ok()))
        })
        .optional()?;
    let (size, content) = match found {
        None => return Err(Fault::Store(StoreError::Missing { what })),
        Some((Some(size), Some(content))) => (size, content),
        Some(_) => {
            let why = "it cannot be read".to_owned();
            return Err(Fault::Store(StoreError::Damaged { what, why }));
        }
    };
    if bound(content.len() as u64) != size {
        let why = format!("it has {} bytes instead of {size}", content.len());
        return Err(Fault::Store(StoreError::Damaged { what, why }));
    }
    Ok(content.into())
}

/// All whole packs of an archive.
pub(super) fn list(db: &Connection, archive: &ArchiveName) -> Result<Vec<PackInfo>, Fault> {
    let unused = unused(db, archive).unwrap_or_default();
    let mut query = db.prepare_cached("SELECT id, size FROM packs WHERE archive = ?1")?;
    let mut rows = query.query([archive.as_str()])?;
    let mut packs = Vec::new();
    while let Some(row) = rows.next()? {
        // What cannot be read is no whole pack, and stays where it is.
        let id = row.get::<_, String>(0).ok().and_then(|id| id.parse().ok());
        let size = row.get::<_, i64>(1).ok();
        packs.extend(id.zip(size).map(|(id, size): (PackId, i64)| PackInfo {
            id,
            size: size.unsigned_abs(),
            unused_since_ms: unused.get(&id).copied(),
        }));
    }
    Ok(packs)
}

/// What is noted of packs that no commit refers to. An error where the file can only be read and was
/// last written by a version that did not note it.
fn unused(db: &Connection, archive: &ArchiveName) -> rusqlite::Result<HashMap<PackId, u64>> {
    let mut query =
        db.prepare_cached("SELECT id, since_ms FROM unused_packs WHERE archive = ?1")?;
    let mut rows = query.query([archive.as_str()])?;
    let mut unused = HashMap::new();
    while let Some(row) = rows.next()? {
        let id = row.get::<_, String>(0).ok().and_then(|id| id.parse().ok());
        let since = row.get::<_, i64>(1).ok();
        // What cannot be read is not noted.
        let since = since.and_then(|since| u64::try_from(since).ok());
        unused.extend(id.zip(since));
    }
    Ok(unused)
}

/// Notes since when nothing refers to packs, or that something does again.
pub(super) fn mark_unused(
    db: &mut Connection,
    archive: &ArchiveName,
    packs: &[PackId],
    since_ms: Option<u64>,
) -> Result<(), Fault> {
    let transaction = writing(db)?;
    {
        let mut forget = transaction
            .prepare_cached("DELETE FROM unused_packs WHERE archive = ?1 AND id = ?2")?;
        let mut note = transaction.prepare_cached(
            "INSERT OR REPLACE INTO unused_packs (archive, id, since_ms)
             SELECT archive, id, ?3 FROM packs WHERE archive = ?1 AND id = ?2",
        )?;
        for id in packs {
            let (archive, id) = (archive.as_str(), id.to_string());
            match since_ms {
                Some(since_ms) => note.execute(params![archive, id, bound(since_ms)])?,
                None => forget.execute(params![archive, id])?,
            };
        }
    }
    Ok(transaction.commit()?)
}

/// Those of `packs` that are not there in their whole length.
pub(super) fn lacking(
    db: &Connection,
    archive: &ArchiveName,
    mut packs: Vec<PackId>,
) -> Result<Vec<PackId>, Fault> {
    // SQLite tells the length of a value without reading it.
    let mut query = db.prepare_cached(
        "SELECT 1 FROM packs WHERE archive = ?1 AND id = ?2 AND size = length(content)",
    )?;
    let mut failed = None;
    packs.retain(
        |id| match query.exists(params![archive.as_str(), id.to_string()]) {
            Ok(whole) => !whole,
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        },
    );
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(packs),
    }
}

/// Deletes a pack, if it is there.
pub(super) fn delete(db: &mut Connection, archive: &ArchiveName, id: PackId) -> Result<(), Fault> {
    let transaction = writing(db)?;
    for table in ["packs", "unused_packs"] {
        transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE archive = ?1 AND id = ?2"
            ))?
            .execute(params![archive.as_str(), id.to_string()])?;
    }
    transaction.commit()?;
    shrink(db)
}
