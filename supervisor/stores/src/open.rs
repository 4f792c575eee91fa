//! From a choice to a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{MongoStore, SqliteStore};
use sessionkeep_archive::store::{Result, Store, StoreError};
use sessionkeep_core::secret::Secret;

/// Where the archive is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// A `mongodb://` or `mongodb+srv://` URL.
    Mongo(Secret),
    /// A database file, embedded.
    Sqlite(PathBuf),
    /// File mode: the directory itself is the storage.
    None,
}

/// What the database's log calls us.
const APP_NAME: &str = concat!("sessionkeep/", env!("CARGO_PKG_VERSION"));

/// Prepares to use the store that was chosen. Nothing is contacted or created yet: that a store
/// is out of reach is told by the first operation, so that callers have one place to try again.
///
/// # Errors
/// [`StoreError::Address`] where the choice cannot be used, and for [`StoreChoice::None`].
pub fn open(choice: &StoreChoice, timeout: Duration) -> Result<Arc<dyn Store>> {
    match choice {
        StoreChoice::Mongo(url) => Ok(Arc::new(MongoStore::connect(url, timeout, APP_NAME)?)),
        // It will not become a file by being waited for.
        StoreChoice::Sqlite(path) if path.is_dir() => Err(StoreError::Address(format!(
            "the store's file `{}` is a directory; name a file in it, such as `sqlite:{}`",
            path.display(),
            path.join("archive.db").display()
        ))),
        StoreChoice::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path, timeout))),
        StoreChoice::None => Err(StoreError::Address(
            "in file mode there is no store: the session directory itself is the storage"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_mode_has_no_store() {
        assert!(matches!(
            open(&StoreChoice::None, Duration::from_secs(1)),
            Err(StoreError::Address(_))
        ));
    }
}
