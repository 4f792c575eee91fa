//! Mends a directory that stays: JSON files that a crash left empty or cut short get their last
//! committed content. A gateway takes such a file for absent, and an absent `creds.json` for a new
//! login. What never was JSON is left as it is, and nothing is put back that is not whole itself.

mod database;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::Mode;

use tracing::{error, warn};

use super::contents::{Content, Contents};
use super::{BootError, Site};
use sessionkeep_archive::fetch::Fetch;
use sessionkeep_archive::version::Version;
use sessionkeep_core::beneath::{self, Place};
use sessionkeep_core::entry::{Digest, EntryKind, RelPath};
use sessionkeep_core::file_owner::is_refused;
use sessionkeep_core::state_dir::own_dir;
use sessionkeep_session::form::is_torn;
use sessionkeep_session::install::REPLACED;
use sessionkeep_session::{Form, Found, FoundKind, JsonReader, ReadError, json, stable};

pub(super) use database::heal as heal_databases;

/// Files up to this size are read in one go.
const WHOLE_MAX: u64 = 1 << 20;
const BLOCK: usize = 64 << 10;
/// What an earlier release made before it took the torn one's place, and a crash may have left.
const FRESH: &str = "mended";

pub(super) async fn heal(site: &Site<'_>, mut version: Version) -> Result<(), BootError> {
    let failed = |source| BootError::Directory {
        dir: site.settings.dir.clone(),
        source,
    };
    site.state.remove(FRESH).map_err(failed)?;
    let suspects = suspects(site, &version);
    if suspects.is_empty() {
        return Ok(());
    }
    let fetch = Fetch::plan(&mut version, |path| suspects.contains_key(path));
    drop(version);
    let contents = Contents::begin(site.state).map_err(failed)?;
    let contents = match fetch.run(&**site.store, contents).await {
        Ok(contents) => contents,
        Err((error, _)) if error.is_damage() => {
            error!(target: "boot", %error, "files were torn by a crash and their archived content is damaged too; they stay as they are");
            return Contents::clear(site.state).map_err(failed);
        }
        Err((error, _)) => return Err(error.into()),
    };
    put_all_back(site, &suspects, &contents).map_err(failed)?;
    Contents::clear(site.state).map_err(failed)
}

/// Puts back what was whole, or was not empty, in place of what is not or is.
fn put_all_back(
    site: &Site<'_>,
    suspects: &HashMap<RelPath, Form>,
    contents: &Contents,
) -> io::Result<()> {
    let mut torn = Vec::new();
    for content in contents.whole() {
        let (before, now) = (contents.form(content)?, suspects.get(&content.path));
        if now.is_some_and(|now| is_torn(&content.path, before, *now, false)) {
            torn.push(content);
        }
    }
    if torn.is_empty() {
        return Ok(());
    }
    let label = super::label_now();
    let replaced = site.state.dir(REPLACED)?;
    let aside = own_dir(replaced.as_fd(), label.as_bytes())?;
    let set_aside = site.state.path().join(REPLACED).join(&label);
    for content in torn {
        put_back(site, contents, content, aside.as_fd())?;
        warn!(target: "boot", path = %content.path, set_aside = %set_aside.display(), "a crash had torn this file; its last committed content was put back");
    }
    Ok(())
}

/// Archived JSON files that are not whole on disk, nor as they are archived. Whether they ever were is
/// told by what is archived.
fn suspects(site: &Site<'_>, version: &Version) -> HashMap<RelPath, Form> {
    let mut suspects = HashMap::new();
    site.directory.scan(None, &mut |_, _| {}, &mut |found| {
        if found.kind != FoundKind::File || !json::is_json_name(&found.path) {
            return;
        }
        let Some(EntryKind::File { size, hash }) =
            version.tree.get(&found.path).map(|leaf| &leaf.kind)
        else {
            return;
        };
        // What cannot be read now is the watcher's to report.
        if let Ok(Some(form)) = suspect(site, &found, (*size, *hash)) {
            suspects.insert(found.path, form);
        }
    });
    suspects
}

/// The form of a file that is not whole, nor `archived` like that.
fn suspect(
    site: &Site<'_>,
    found: &Found,
    archived: (u64, Digest),
) -> Result<Option<Form>, ReadError> {
    let (dir, path) = (site.directory.fd(), found.path.as_bytes());
    let (form, now) = if found.print.size <= WHOLE_MAX {
        let bytes = stable::read_whole(dir, path, WHOLE_MAX)?.bytes;
        let form = json::form_of(&bytes);
        if form == Form::Whole {
            return Ok(None);
        }
        (form, (bytes.len() as u64, Digest::of(&bytes)))
    } else {
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        let mut reader = JsonReader::default();
        let mut each = |_: u64, bytes: &[u8]| {
            reader.feed(bytes);
            hasher.update(bytes);
            size += bytes.len() as u64;
            Ok(())
        };
        stable::read_blocks(dir, path, BLOCK, &mut each)?;
        (reader.finish(), (size, hasher.finalize().into()))
    };
    Ok((form != Form::Whole && now != archived).then_some(form))
}

/// Keeps what is there in `aside`, and puts the content in its place. Nothing of that is reached by a
/// path: the directories on it are the gateway's.
fn put_back(
    site: &Site<'_>,
    contents: &Contents,
    content: &Content,
    aside: BorrowedFd<'_>,
) -> io::Result<()> {
    let path = &content.path;
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
    let name = content.name.as_bytes();
    let mut file = File::from(beneath::open(
        contents.dir(),
        name,
        OFlag::O_RDWR,
        Mode::empty(),
    )?);
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
                return write_in_place(&place, &torn, &mut file);
            }
            other => other?,
        }
    }
    file.sync_all()?;
    match renameat(contents.dir(), name, place.dir(), place.name()) {
        // It is a mount, or lies on one.
        Err(Errno::EXDEV | Errno::EBUSY) => write_in_place(&place, &torn, &mut file),
        other => Ok(other?),
    }
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
fn write_in_place(place: &Place, torn: &File, content: &mut File) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
    let opened = beneath::open(place.dir(), place.name(), flags, Mode::empty())?;
    let mut file = File::from(opened);
    let (now, before) = (file.metadata()?, torn.metadata()?);
    if (now.dev(), now.ino()) != (before.dev(), before.ino()) {
        return Err(io::ErrorKind::StaleNetworkFileHandle.into());
    }
    file.set_len(0)?;
    content.rewind()?;
    io::copy(content, &mut file)?;
    file.sync_all()
}
