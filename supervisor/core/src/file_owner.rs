//! Why an owner, a mode or a time is not taken: by a file system that has none (SMB, FAT, some FUSE), by
//! a user namespace that does not map an owner, or for want of a capability.

use std::fs;
use std::io;

use nix::errno::Errno;

use crate::entry::Owner;

/// The number of the capability that changes owners (capabilities(7)).
const CAP_CHOWN: u32 = 0;
/// Whether an error says that this metadata is not to be had here, rather than that something broke.
/// `EINVAL` and `EOVERFLOW` are of owners that a user namespace, or a mount, does not map; `EACCES` is
/// what some file servers answer.
pub fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM
            | Errno::EACCES
            | Errno::EINVAL
            | Errno::EOVERFLOW
            | Errno::EOPNOTSUPP
            | Errno::ENOSYS
    )
}

/// As [`is_refusal`].
pub fn is_refused(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(is_refusal)
}

/// Why an owner could not be given, and what would help.
pub fn why_refused(owner: Owner, errno: Errno) -> String {
    let is_mapped = |map: &str, id: u32| {
        // Where nothing can be read, nothing is known against it.
        fs::read_to_string(map).map_or(true, |map| maps(&map, id))
    };
    if !is_mapped("/proc/self/uid_map", owner.uid) {
        let uid = owner.uid;
        return format!("uid {uid} is not mapped in this user namespace");
    }
    if !is_mapped("/proc/self/gid_map", owner.gid) {
        let gid = owner.gid;
        return format!("gid {gid} is not mapped in this user namespace");
    }
    if errno == Errno::EPERM && has_capability(CAP_CHOWN) == Some(false) {
        return "the capability CAP_CHOWN is missing".to_owned();
    }
    format!("the file system refuses it ({})", errno.desc())
}

/// Whether a map of a user namespace (user_namespaces(7)) has `id` on its inner side.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(_), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

/// Whether this process has a capability; `None` where `/proc` does not tell.
pub fn has_capability(number: u32) -> Option<bool> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(effective >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_user_namespaces_are_read() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(maps(map, 0) && maps(map, 1) && maps(map, 65536));
        assert!(!maps(map, 65537) && !maps(map, 1_000_680_000));
        let all = "         0          0 4294967295\n";
        assert!(maps(all, 1_000_680_000));
        assert!(!maps("", 0));
    }
}
