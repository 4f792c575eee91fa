//! Room for the session directory, and when there is too little of it.

use serde::Serialize;

/// With less room than this a gateway that writes may soon lose what it writes.
const LOW: u64 = 64 << 20;
/// On a small file system that is a part of it: one of 64 MiB would be full from its first day.
const LOW_SHARE: u64 = 8;

/// Room on the session directory's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

impl Disk {
    /// So many bytes have to be free, or there is too little room.
    #[must_use]
    pub fn needed(&self) -> u64 {
        LOW.min(self.total_bytes / LOW_SHARE)
    }

    /// Whether there is too little room.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free_bytes < self.needed()
    }

    /// Whether there is enough again, after there was too little: a little more than that is still little.
    #[must_use]
    pub fn is_ample(&self) -> bool {
        self.free_bytes >= 2 * self.needed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_empty_disk_is_ample_whatever_its_size() {
        for total in [0, 1, 8 * MIB, 64 * MIB, 100 * MIB, 512 * MIB, 1 << 50] {
            let free_bytes = total;
            let disk = Disk {
                free_bytes,
                total_bytes: total,
            };
            assert!(disk.is_ample() && !disk.is_low(), "{disk:?}");
        }
    }

    #[test]
    fn what_is_little_depends_on_a_small_disks_size() {
        let low = |free, total| {
            Disk {
                free_bytes: free * MIB,
                total_bytes: total * MIB,
            }
            .is_low()
        };
        assert!(low(63, 10_000) && !low(64, 10_000));
        assert!(low(7, 64) && !low(8, 64) && !low(40, 64));
        let still = Disk {
            free_bytes: 12 * MIB,
            total_bytes: 64 * MIB,
        };
        assert!(!still.is_low() && !still.is_ample());
    }
}
