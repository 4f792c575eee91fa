//! Which processes descend from us, besides our helpers.
//!
//! Orphans are reparented to us (we are PID 1 or a subreaper), so every descendant hangs on one
//! of our direct children. A direct child cannot vanish from `/proc` during a scan, since only we
//! reap, and we are not reaping: so if a scan that counts zombies too finds no direct child but
//! the helpers, there was no descendant when it began, and none can have come from nowhere.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use super::reaper::send;

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
}

/// What can be seen of descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// All of them.
    All,
    /// `/proc` is not mounted, or shows another pid namespace: only the gateway's process group.
    GroupOnly,
}

/// Finds and signals descendants.
#[derive(Debug)]
pub(super) struct Descendants {
    own_pid: i32,
    sight: Sight,
    /// The process groups of gateways started in this life, for [`Sight::GroupOnly`].
    groups: Vec<i32>,
}

impl Descendants {
    pub(super) fn new() -> Self {
        let own_pid = std::process::id().cast_signed();
        let seen_as = fs::read_link("/proc/self").ok();
        let sight = match seen_as.and_then(|link| link.to_str()?.parse::<i32>().ok()) {
            Some(pid) if pid == own_pid => Sight::All,
            _ => Sight::GroupOnly,
        };
        Self {
            own_pid,
            sight,
            groups: Vec::new(),
        }
    }

    pub(super) fn sight(&self) -> Sight {
        self.sight
    }

    /// A gateway was started; it leads a process group of its own.
    pub(super) fn add_group(&mut self, group: i32) {
        self.groups.retain(|group| group_is_alive(*group));
        self.groups.push(group);
    }

    /// How many are left: the living and the zombies that wait to be reaped.
    pub(super) fn count(&self, helpers: &[i32]) -> usize {
        match self.scan(helpers) {
            Some(found) => found.len(),
            None => self.groups.iter().filter(|g| group_is_alive(**g)).count(),
        }
    }

    /// Sends a signal to all of them, children before grandchildren.
    pub(super) fn signal(&self, helpers: &[i32], signal: i32) {
        match self.scan(helpers) {
            Some(found) => {
                for pid in found {
                    send(pid, signal);
                }
            }
            None => {
                for group in &self.groups {
                    // SAFETY: `kill` touches no memory of ours.
                    unsafe { libc::kill(-group, signal) };
                }
            }
        }
    }

    fn scan(&self, helpers: &[i32]) -> Option<Vec<i32>> {
        match self.sight {
            // A scan that fails half-way (no descriptor left) falls back to the groups.
            Sight::All => Some(below(self.own_pid, helpers, &process_table().ok()?)),
            Sight::GroupOnly => None,
        }
    }
}

fn group_is_alive(group: i32) -> bool {
    // SAFETY: `kill` touches no memory of ours; signal 0 only asks.
    let answer = unsafe { libc::kill(-group, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

fn process_table() -> io::Result<Vec<Process>> {
    let mut table = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => table.extend(parent(&stat).map(|parent| Process { pid, parent })),
            // It has ended and was reaped by its own parent.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(table)
}

/// The parent's id from a `stat` line. The name in parentheses may hold anything, so what counts
/// is after the last one.
pub fn parent(stat: &[u8]) -> Option<i32> {
    let close = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Everything below `root` but `helpers` and what is below them, parents first.
fn below(root: i32, helpers: &[i32], table: &[Process]) -> Vec<i32> {
    let mut children = HashMap::<i32, Vec<i32>>::new();
    for process in table {
        children
            .entry(process.parent)
            .or_default()
            .push(process.pid);
    }
    // Not read at one moment, the table could hold a circle.
    let mut seen = HashSet::from([root]);
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for pid in children.get(&parent).into_iter().flatten() {
            if !helpers.contains(pid) && seen.insert(*pid) {
                found.push(*pid);
                next.push(*pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_its_parent() {
        assert_eq!(parent(b"12 (a) S 99 (b) R 7 1 1"), Some(7));
        assert_eq!(parent(b"12 (sh) Z 1 1 1"), Some(1));
        assert_eq!(parent(b"12 (sh"), None);
        assert_eq!(parent(b"12 (\xff) S 3 1"), Some(3));
    }

    #[test]
    fn helpers_and_their_children_are_not_counted() {
        let table: Vec<_> = [
            (2, 1),
            (3, 2),
            (4, 1),
            (5, 4),
            (6, 5),
            (7, 0),
            (8, 9),
            (9, 8),
        ]
        .map(|(pid, parent)| Process { pid, parent })
        .into();
        assert_eq!(below(1, &[2], &table), [4, 5, 6]);
        assert_eq!(below(1, &[2, 4], &table), [0; 0]);
    }

    #[test]
    fn we_are_in_our_own_process_table() {
        let own = std::process::id().cast_signed();
        let table = process_table().expect("/proc");
        assert!(table.iter().any(|p| p.pid == own));
    }
}
