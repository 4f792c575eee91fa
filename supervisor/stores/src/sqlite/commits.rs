//! Commits: one row each. The fence is the primary key, archive and number.

use rusqlite::{Connection, Row, params};

use super::connection::Fault;
use super::{bound, int, shrink, writing};
use sessionkeep_archive::store::{Appended, StoreError};
use sessionkeep_core::record::{ArchiveName, Header, Record, RecordKind, Seq, is_known};

/// How many bytes of bodies one answer of [`records`] holds, roughly.
const ANSWER_BYTES: usize = 8 << 20;

/// Reads a header's columns: `seq, format, header`.
fn header(archive: &ArchiveName, row: &Row<'_>) -> Result<Header, Fault> {
    let seq: i64 = row.get(0)?;
    let what = || format!("commit {seq} of archive {archive}");
    let damaged = |why: &str| {
        Fault::Store(StoreError::Damaged {
            what: what(),
            why: why.to_owned(),
        })
    };
    // Before anything else: what a later version writes need not look like this at all.
    let format: u32 = row.get(1).map_err(|_| damaged("it has no format"))?;
    if !is_known(format) {
        return Err(StoreError::unknown_format(what(), format).into());
    }
    let text: String = row.get(2).map_err(|_| damaged("its header is no text"))?;
    read_header(archive, seq, format, &text).map_err(damaged)
}

/// Reads the header of commit `seq`, or says what is wrong with it.
pub fn read_header(
    archive: &ArchiveName,
    seq: i64,
    format: u32,
    text: &str,
) -> Result<Header, &'static str> {
    let header: Header = serde_json::from_str(text).map_err(|_| "its header cannot be read")?;
    if header.seq != seq.unsigned_abs() || header.archive != *archive || header.format != format {
        return Err("its header is another commit's");
    }
    Ok(header)
}

/// Reads a record's columns: those of [`header`], then `size, body`.
fn record(archive: &ArchiveName, row: &Row<'_>) -> Result<Record, Fault> {
    let header = header(archive, row)?;
    let damaged = |why: &str| {
        Fault::Store(StoreError::Damaged {
            what: format!("commit {} of archive {archive}", header.seq),
            why: why.to_owned(),
        })
    };
    let size: i64 = row.get(3).map_err(|_| damaged("its body has no length"))?;
    let body: Vec<u8> = row.get(4).map_err(|_| damaged("its body cannot be read"))?;
    if bound(body.len() as u64) != size {
        return Err(damaged("its body has not the length it had"));
    }
    Ok(Record { header, body })
}

/// Adds a commit where its number is free.
pub(super) fn append(db: &mut Connection, record: &Record) -> Result<Appended, Fault> {
    let new = &record.header;
    let seq = int(new.seq)?;
    let text = serde_json::to_string(new).expect("a header always encodes");
    let db = writing(db)?;
    let inserted = db
        .prepare_cached(
            "INSERT INTO commits (archive, seq, format, header, size, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (archive, seq) DO NOTHING",
        )?
        .execute(params![
            new.archive.as_str(),
            seq,
            new.format,
            text,
            bound(record.body.len() as u64),
            record.body,
        ])?;
    if inserted > 0 {
        // Rolled back where it is dropped: what nothing leads to would never be restored.
        if new.kind != RecordKind::Checkpoint && seq > 1 && !is_there(&db, &new.archive, seq - 1)? {
            return Ok(Appended::Orphan);
        }
        db.commit()?;
        return Ok(Appended::Done);
    }
    let mut query = db.prepare_cached(
        "SELECT seq, format, header FROM commits WHERE archive = ?1 AND seq = ?2",
    )?;
    let mut rows = query.query(params![new.archive.as_str(), seq])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let taken = header(&new.archive, row)?;
    Ok(if taken.id == new.id {
        Appended::Done
    } else {
        Appended::Taken(Box::new(taken))
    })
}

fn is_there(db: &Connection, archive: &ArchiveName, seq: i64) -> Result<bool, Fault> {
    let mut query = db.prepare_cached("SELECT 1 FROM commits WHERE archive = ?1 AND seq = ?2")?;
    Ok(query.exists(params![archive.as_str(), seq])?)
}

/// The numbers that are taken, in ascending order.
pub(super) fn numbers(
    db: &Connection,
    archive: &ArchiveName,
    from: Seq,
    to: Seq,
) -> Result<Vec<Seq>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT seq FROM commits WHERE archive = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let rows = query.query_map(params![archive.as_str(), bound(from), bound(to)], |row| {
        row.get::<_, i64>(0)
    })?;
    let mut numbers = Vec::new();
    for number in rows {
        numbers.extend(u64::try_from(number?).ok());
    }
    Ok(numbers)
}

/// The number of the newest commit, whatever is in it.
pub(super) fn last(db: &Connection, archive: &ArchiveName) -> Result<Option<Seq>, Fault> {
    let newest: Option<i64> = db.query_row(
        "SELECT max(seq) FROM commits WHERE archive = ?1",
        params![archive.as_str()],
        |row| row.get(0),
    )?;
    Ok(newest.and_then(|seq| u64::try_from(seq).ok()))
}

/// Headers, the newest first.
pub(super) fn headers(
    db: &Connection,
    archive: &ArchiveName,
    from: Seq,
    to: Seq,
    limit: usize,
) -> Result<Vec<Header>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT seq, format, header FROM commits
         WHERE archive = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT ?4",
    )?;
    let limit = bound(limit as u64);
    let mut rows = query.query(params![archive.as_str(), bound(from), bound(to), limit])?;
    let mut headers = Vec::new();
    while let Some(row) = rows.next()? {
        headers.push(header(archive, row)?);
    }
    Ok(headers)
}

/// Whole commits, the oldest first, as many as one answer holds; up to the first damaged one.
pub(super) fn records(
    db: &Connection,
    archive: &ArchiveName,
    from: Seq,
    to: Seq,
) -> Result<Vec<Record>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT seq, format, header, size, body FROM commits
         WHERE archive = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = query.query(params![archive.as_str(), bound(from), bound(to)])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while bytes < ANSWER_BYTES {
        let next = match rows.next() {
            Ok(None) => break,
            Ok(Some(row)) => record(archive, row),
            Err(error) => Err(error.into()),
        };
        match next {
            Ok(record) => {
                bytes += record.body.len();
                records.push(record);
            }
            Err(fault) if records.is_empty() => return Err(fault),
            Err(_) => break,
        }
    }
    Ok(records)
}

/// Deletes commits, and counts those that were there.
pub(super) fn delete(
    db: &mut Connection,
    archive: &ArchiveName,
    seqs: &[Seq],
) -> Result<u64, Fault> {
    let transaction = writing(db)?;
    let mut removed = 0;
    for &seq in seqs {
        removed += transaction
            .prepare_cached("DELETE FROM commits WHERE archive = ?1 AND seq = ?2")?
            .execute(params![archive.as_str(), bound(seq)])?;
    }
    transaction.commit()?;
    shrink(db)?;
    Ok(removed as u64)
}

/// All archives that have a commit.
pub(super) fn archives(db: &Connection) -> Result<Vec<ArchiveName>, Fault> {
    // Jumps from name to name over the primary key, instead of looking at every commit.
    let mut next = db.prepare_cached("SELECT min(archive) FROM commits WHERE archive > ?1")?;
    let (mut names, mut last) = (Vec::new(), String::new());
    while let Some(name) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
        names.extend(name.parse::<ArchiveName>().ok());
        last = name;
    }
    Ok(names)
}
