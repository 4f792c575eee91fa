//! Whether a version fits on the disk: found out before anything of it is written, so that no restore
//! fills a disk that others need.

use std::io;
use std::path::Path;

use tracing::info;

use super::restore::Failure;
use sessionkeep_archive::fetch::{At, Fetch, Sink, Wanted};
use sessionkeep_archive::version::Version;
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{StageError, data_len, free_space};

/// Looks whether the files that `wanted` says yes to fit on the disk of `root`. One that holds more
/// bytes than are free may still do so, since zeros take no room: then all contents are read, as far as
/// they do.
///
/// # Errors
/// [`StageError::Full`]; and what reading the contents came to.
pub(super) async fn check(
    store: &dyn sessionkeep_archive::store::Store,
    version: &mut Version,
    wanted: impl FnMut(&RelPath) -> bool,
    root: &Path,
) -> Result<(), Failure> {
    // Where it cannot be asked, writing tells.
    let free = free_space(root).unwrap_or(u64::MAX);
    let bytes = version.tree.bytes();
    if bytes <= free {
        return Ok(());
    }
    info!(target: "boot", bytes, free, "the session holds more bytes than the disk has free; looking how many of them are zeros, which take no room");
    let sink = Count {
        what: root.display().to_string(),
        data: 0,
        bytes,
        free,
    };
    let counted = Fetch::plan(version, wanted).run(store, sink).await;
    counted.map(drop).map_err(Failure::of_the_sink)
}

/// Counts what is no zeros, until it is too much.
struct Count {
    what: String,
    data: u64,
    bytes: u64,
    free: u64,
}

impl Sink for Count {
    fn piece(&mut self, at: At, _wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        self.data += data_len(at.offset, content);
        if self.data <= self.free {
            return Ok(());
        }
        let full = StageError::Full {
            what: self.what.clone(),
            needs: self.bytes,
            free: self.free,
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        Err(ArchiveError::Io {
            action: "make room for the session",
            source: io::Error::other(full),
        })
    }
}
