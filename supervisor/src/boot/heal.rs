//! Mends a directory that stays: JSON files that a crash left empty or cut short get their last
//! committed content. A gateway takes such a file for absent, and an absent `creds.json` for a new
//! login.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::Mode;

use tracing::{error, warn};

use super::{BootError, Site};
use crate::archive::fetch::{At, Fetch, Sink, Verifier, Wanted};
use crate::archive::version::Version;
use crate::archive::{ArchiveError, Result as ArchiveResult};
use crate::entry::RelPath;
use crate::ownership::is_refused;
use crate::session::beneath::{self, Place};
use crate::session::install::REPLACED;
use crate::session::state_dir::own_dir;
use crate::session::{FoundKind, json, stable};

/// JSON files are small; one that is larger than this is no key file of a gateway.
const LIMIT: u64 = 16 << 20;
/// The file that is made before it takes the torn one's place.
const FRESH: &str = "mended";

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
    let failed = |source| BootError::Directory {
        dir: site.settings.dir.clone(),
        source,
    };
    let label = super::label_now();
    let aside = site.state.dir(REPLACED);
    let aside = aside
        .and_then(|replaced| own_dir(replaced.as_fd(), label.as_bytes()))
        .map_err(failed)?;
    let set_aside = site.state.path().join(REPLACED).join(&label);
    for (path, content) in contents {
        put_back(site, &path, &content, aside.as_fd()).map_err(failed)?;
        warn!(target: "boot", %path, set_aside = %set_aside.display(), "a crash had torn this file; its last committed content was put back");
    }
    Ok(())
}

/// Archived JSON files whose content on disk is not whole.
fn torn_files(site: &Site<'_>, version: &Version) -> Vec<RelPath> {
    let mut torn = Vec::new();
    site.directory.scan(None, &mut |_, _| {}, &mut |found| {
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
        let read = stable::read_whole(site.directory.fd(), found.path.as_bytes(), LIMIT);
        if read.is_ok_and(|file| !json::is_whole(&file.bytes)) {
            torn.push(found.path);
        }
    });
    torn
}

/// Keeps what is there in `aside`, and puts the content in its place. Nothing of that is reached by a
/// path: the directories on it are the gateway's.
fn put_back(
    site: &Site<'_>,
    path: &RelPath,
    content: &[u8],
    aside: BorrowedFd<'_>,
) -> io::Result<()> {
    let place = Place::below(site.directory.fd(), path.as_bytes())?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let mut torn = File::from(beneath::open(
        place.dir(),
        place.name(),
        flags,
        Mode::empty(),
    )?);
    let before = torn.metadata()?;
    if !before.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    keep(&mut torn, path, aside)?;
    let mut file = site.state.create(FRESH)?;
    file.write_all(content)?;
    match file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777)) {
        Err(error) if is_refused(&error) => {}
        other => other?,
    }
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        // A gateway that runs as another user must be able to read it.
        match fchown(&file, Some(before.uid()), Some(before.gid())) {
            // The content alone changes no owner. A crash in the middle of it is mended like this one.
            Err(error) if is_refused(&error) => {
                site.state.remove(FRESH)?;
                return write_in_place(&place, &torn, content);
            }
            other => other?,
        }
    }
    file.sync_all()?;
    Ok(renameat(site.state.fd(), FRESH, place.dir(), place.name())?)
}

/// Copies the file to `path` below the directory `aside`.
fn keep(torn: &mut File, path: &RelPath, aside: BorrowedFd<'_>) -> io::Result<()> {
    let (above, name) = path.split();
    let mut open: Option<OwnedFd> = None;
    for part in above
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
    {
        let next = own_dir(open.as_ref().map_or(aside, AsFd::as_fd), part)?;
        open = Some(next);
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let to = open.as_ref().map_or(aside, AsFd::as_fd);
    let mut kept = File::from(beneath::open(to, name, flags, mode)?);
    io::copy(torn, &mut kept).map(drop)
}

/// Writes into the very file that is `torn`: what has its name by now may be another.
fn write_in_place(place: &Place, torn: &File, content: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
    let opened = beneath::open(place.dir(), place.name(), flags, Mode::empty())?;
    let mut file = File::from(opened);
    let (now, before) = (file.metadata()?, torn.metadata()?);
    if (now.dev(), now.ino()) != (before.dev(), before.ino()) {
        return Err(io::ErrorKind::StaleNetworkFileHandle.into());
    }
    file.set_len(0)?;
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
