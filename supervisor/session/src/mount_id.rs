//! Which mount something lies on. A mount of the same file system (`mount --bind`) has the device of what
//! it covers, and only its number tells the two apart.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's number of the mount that an open file or directory lies on, as in `mountinfo`. A number
/// is given again once its mount is gone.
///
/// It is read from `/proc` (Linux 3.15): `statx` tells it only since 5.8.
///
/// # Errors
/// Where there is no `/proc`.
pub fn mount_id(open: BorrowedFd<'_>) -> io::Result<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", open.as_raw_fd());
    let told = std::fs::read_to_string(path)?;
    let id = told
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell the mount of an open file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn what_lies_on_one_mount_has_one_number_and_another_mount_has_another() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (here, proc) = (File::open(dir.path()), File::open("/proc"));
        let (here, proc) = (here.expect("open"), proc.expect("open"));
        let below = File::create(dir.path().join("f")).expect("create");
        let id = |file: &File| mount_id(file.as_fd()).expect("tells");
        assert_eq!(id(&here), id(&below));
        assert_ne!(id(&here), id(&proc));
    }
}
