//! Mends a directory that stays: JSON files that a crash left empty or cut short get their last
//! committed content. A gateway takes such a file for absent, and an absent `creds.json` for a new
//! login.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::{BootError, Site};
use crate::archive::fetch::{At, Fetch, Sink, Verifier, Wanted};
use crate::archive::version::Version;
use crate::archive::{ArchiveError, Result as ArchiveResult};
use crate::entry::RelPath;
use crate::session::{FoundKind, STATE_DIR, json, rights, stable};

/// JSON files are small; one that is larger than this is no key file of a gateway.
const LIMIT: u64 = 16 << 20;

pub(super) async fn heal(site: &Site<'_>, mut version: Version) -> Result<(), BootError> {
    let torn = torn_files(site, &version);
    if torn.is_empty() {
        return Ok(());
    }
    let fetch = Fetch::plan(&mut version, |path| torn.contains(path));
    drop(version);
    let contents = match fetch.run(&**site.store, Collect::default()).await {
        Ok(collected) => collected.whole,
        Err((error, _)) if error.is_damage() => {
            error!(target: "boot", %error, "files were torn by a crash and their archived content is damaged too; they stay as they are");
            return Ok(());
        }
        Err((error, _)) => return Err(error.into()),
    };
    let aside = site
        .settings
        .dir
        .join(STATE_DIR)
        .join("replaced")
        .join(super::label_now());
    for (path, content) in contents {
        put_back(site, &path, &content, &aside).map_err(|source| BootError::Directory {
            dir: site.settings.dir.clone(),
            source,
        })?;
        warn!(target: "boot", %path, set_aside = %aside.display(), "a crash had torn this file; its last committed content was put back");
    }
    Ok(())
}

/// Archived JSON files whose content on disk is not whole.
fn torn_files(site: &Site<'_>, version: &Version) -> Vec<RelPath> {
    let mut torn = Vec::new();
    site.directory.scan(None, &mut |_| {}, &mut |found| {
        let archived = || {
            version
                .tree
                .get(&found.path)
                .is_some_and(|leaf| leaf.kind != crate::entry::Kind::Dir)
        };
        if found.kind != FoundKind::File || !json::is_json_name(&found.path) || !archived() {
            return;
        }
        // What cannot be read now is the watcher's to report.
        let path = found.path.under(site.directory.root());
        if stable::read_whole(&path, LIMIT).is_ok_and(|file| !json::is_whole(&file.bytes)) {
            torn.push(found.path);
        }
    });
    torn
}

fn put_back(site: &Site<'_>, path: &RelPath, content: &[u8], aside: &Path) -> std::io::Result<()> {
    let target = path.under(site.directory.root());
    let saved: PathBuf = path.under(aside);
    DirBuilder::new().recursive(true).mode(0o700).create(
        saved
            .parent()
            .expect("it lies below the directory of what is set aside"),
    )?;
    fs::copy(&target, &saved)?;
    let before = fs::symlink_metadata(&target)?;
    let fresh = site.settings.dir.join(STATE_DIR).join("mended");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(content)?;
    let mode = fs::Permissions::from_mode(before.mode() & 0o7777);
    match fs::set_permissions(&fresh, mode) {
        Err(error) if rights::is_refused(&error) => {}
        other => other?,
    }
    let made = fs::metadata(&fresh)?;
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        // A gateway that runs as another user must be able to read it.
        match chown(&fresh, Some(before.uid()), Some(before.gid())) {
            // The content alone changes no owner. A crash in the middle of it is mended like this one.
            Err(error) if rights::is_refused(&error) => {
                drop(file);
                fs::remove_file(&fresh)?;
                return write_in_place(&target, content);
            }
            other => other?,
        }
    }
    file.sync_all()?;
    fs::rename(&fresh, &target)
}

fn write_in_place(target: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(target)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Collects whole, verified files in memory.
#[derive(Default)]
struct Collect {
    verifier: Verifier,
    partial: HashMap<usize, Vec<u8>>,
    whole: Vec<(RelPath, Vec<u8>)>,
}

impl Sink for Collect {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        if wanted.size > LIMIT {
            return Err(ArchiveError::Refused(format!(
                "{} is too large to be a key file",
                wanted.path
            )));
        }
        let size = usize::try_from(wanted.size).expect("was just compared with the limit");
        let file = self.partial.entry(at.file).or_insert_with(|| vec![0; size]);
        let from = usize::try_from(at.offset).expect("lies within the file");
        file.get_mut(from..from + content.len())
            .ok_or_else(|| {
                ArchiveError::Refused(format!("a piece of {} lies beyond its end", wanted.path))
            })?
            .copy_from_slice(content);
        if self.verifier.piece(at, wanted, content)? {
            let whole = self.partial.remove(&at.file).expect("was just written");
            self.whole.push((wanted.path.clone(), whole));
        }
        Ok(())
    }
}
