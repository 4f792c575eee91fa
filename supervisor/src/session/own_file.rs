//! Small files of our own in the session directory's `.sessionkeep/`, which is never archived.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::durable;
use super::marker::STATE_DIR;

/// Reads the file `name` of the session directory `root`, of at most `max` bytes; `None` where there
/// is none. A link is not followed.
///
/// # Errors
/// What the file system said; a larger file is [`io::ErrorKind::FileTooLarge`].
pub fn read(root: &Path, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(root.join(STATE_DIR).join(name));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// Writes it durably: a crash leaves the old one or this one.
///
/// # Errors
/// What the file system said.
pub fn write(root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = root.join(STATE_DIR);
    durable::own_dir(&dir)?;
    durable::write(&dir, name, bytes)
}
