//! The newest commit of an archive whose newest records cannot be read.

use sessionkeep_core::record::{ArchiveName, Header, Seq};

use crate::store::CommitLog;
use crate::version::check_header;
use crate::{ArchiveError, Result};

/// The newest commit with content before `seq` whose header can be believed.
///
/// # Errors
/// The store's.
pub async fn older(
    store: &dyn CommitLog,
    archive: &ArchiveName,
    seq: Seq,
) -> Result<Option<Header>> {
    let mut below = seq;
    while below > 1 {
        match store.headers(archive, 1, below - 1, 1).await {
            Ok(headers) => {
                let Some(header) = headers.into_iter().next() else {
                    return Ok(None);
                };
                if header.base > 0 && check_header(&header).is_ok() {
                    return Ok(Some(header));
                }
                below = header.seq;
            }
            Err(error) => {
                let error = ArchiveError::from(error);
                if !error.is_damage() {
                    return Err(error);
                }
                match newest_seq(store, archive, below - 1).await? {
                    Some(seq) => below = seq,
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

/// The number of the newest commit up to `to`, of which no more need be readable than that it is
/// there; `None` where it is not a commit that is damaged but the store itself. Halves the range,
/// since what is damaged need not tell its number.
///
/// # Errors
/// The store's.
pub async fn newest_seq(
    store: &dyn CommitLog,
    archive: &ArchiveName,
    to: Seq,
) -> Result<Option<Seq>> {
    let is_any = async |from: Seq, to: Seq| match store.headers(archive, from, to, 1).await {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) => match ArchiveError::from(error) {
            error if error.is_damage() => Ok(true),
            error => Err(error),
        },
    };
    // No commit has this number.
    if is_any(Seq::MAX, Seq::MAX).await? {
        return Ok(None);
    }
    let (mut low, mut high) = (1, to);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if is_any(middle, high).await? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Some(low))
}
