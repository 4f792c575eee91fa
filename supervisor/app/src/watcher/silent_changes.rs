//! Files that change without an event: through a hard link of theirs that lies elsewhere, or through
//! memory into which a process has mapped them. They are looked at from time to time.
//!
//! The kernel reports a change under the name by which the file was opened. And a store into mapped
//! memory is reported by nothing; where its page was changed before and is not written out yet, and in
//! memory file systems always, it does not even move the file's time. So a linked file is looked at, and
//! a mapped one is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::debug;

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::gather::is_as_committed;
use sessionkeep_archive::Links;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Directory, Found, FoundKind, Look, ProcessFreezer};

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Reading a mapped file costs at most about one part in a thousand of a core.
const PER_MIB: Duration = Duration::from_secs(1);
/// How often it is looked which files are mapped, and how soon after the gateway's start.
const MAPS_EVERY: Duration = Duration::from_secs(60);
const MAPS_FIRST: Duration = Duration::from_secs(3);
/// More than so many are left to the rescans.
const FILES_MAX: usize = 1000;

/// The files that may change without an event.
#[derive(Debug, Default)]
pub(super) struct SilentChanges {
    /// Files with more than one link, with the number of the file.
    linked: BTreeMap<RelPath, u64>,
    /// Files that a process of the gateway can write to through memory.
    mapped: BTreeSet<RelPath>,
    looked_everywhere: bool,
    /// A file was found to have more than one link since the last look at everything. Its other names were
    /// seen before that, and are only known to belong to it when they are seen again.
    has_unseen_names: bool,
    gateway: Option<i32>,
    next_look: Option<Instant>,
    next_read: Option<Instant>,
    next_maps: Option<Instant>,
}

impl SilentChanges {
    /// Takes note of how many links a file has that was looked at.
    pub(super) fn note(&mut self, found: &Found) {
        if found.kind == FoundKind::File && found.links > 1 {
            if self.linked.len() < FILES_MAX {
                let before = self.linked.insert(found.path.clone(), found.print.ino);
                self.has_unseen_names |= before != Some(found.print.ino);
            }
        } else if !self.linked.is_empty() {
            self.linked.remove(&found.path);
        }
    }

    /// A whole look has come by every file there is.
    pub(super) fn knows_all(&mut self) {
        self.looked_everywhere = true;
        self.has_unseen_names = false;
    }

    /// Whether a look at everything would tell which names belong to one file.
    pub(super) fn has_unseen_names(&self) -> bool {
        self.has_unseen_names
    }

    /// Whether a file with more than one link is known.
    pub(super) fn has_links(&self) -> bool {
        !self.linked.is_empty()
    }

    /// Which of these names are names of one file; `None` as long as not all have been looked at.
    pub(super) fn links(&self, is_committed: impl Fn(&RelPath) -> bool) -> Option<Links> {
        let names = self.linked.iter().filter(|(path, _)| is_committed(path));
        let links = || Links::of(names.map(|(path, file)| (*file, path.clone())));
        self.looked_everywhere.then(links)
    }

    /// The other names of the files among `work`: they are to be read together.
    pub(super) fn other_links(&self, work: &Work) -> Vec<RelPath> {
        if self.linked.is_empty() {
            return Vec::new();
        }
        let files: BTreeSet<u64> = (work.paths.iter())
            .filter_map(|path| self.linked.get(path).copied())
            .collect();
        let linked = self.linked.iter();
        linked
            .filter(|(_, file)| files.contains(file))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Takes in the gateway's main process.
    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        if self.gateway != pid {
            self.gateway = pid;
            self.next_maps = pid.map(|_| Instant::now() + MAPS_FIRST);
        }
    }

    /// When there is something to look at; `None` where there is nothing.
    pub(super) fn next(&self) -> Option<Instant> {
        let look = (!self.linked.is_empty()).then_some(self.next_look);
        let read = (!self.mapped.is_empty()).then_some(self.next_read);
        let due = [look, read].into_iter().flatten();
        due.map(|at| at.unwrap_or_else(Instant::now))
            .chain(self.next_maps)
            .min()
    }
}

impl CommittedIndex {
    /// Looks at the files that may have changed without an event, and says which are to be read.
    pub(super) fn look_for_silent_changes(&mut self) -> Work {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        let mut work = Work::default();
        if let Some(gateway) = self.silent_changes.gateway
            && self.silent_changes.next_maps.is_some_and(|at| now >= at)
        {
            self.silent_changes.next_maps = Some(now + MAPS_EVERY);
            self.find_mapped(gateway);
        }
        if is_due(self.silent_changes.next_look) {
            self.silent_changes.next_look = Some(now + EVERY);
            let linked: Vec<RelPath> = self.silent_changes.linked.keys().cloned().collect();
            for path in linked {
                let is_same = match self.directory.look(&path) {
                    Look::Found(found) => {
                        self.silent_changes.note(&found);
                        let known = self.tree.get(&path);
                        known.is_some_and(|leaf| {
                            is_as_committed(leaf, &found, &self.keyed, &self.limits)
                        })
                    }
                    _ => {
                        self.silent_changes.linked.remove(&path);
                        false
                    }
                };
                if !is_same && !self.files.stands_apart(&path) {
                    work.paths.insert(path);
                }
            }
        }
        if is_due(self.silent_changes.next_read) && !self.silent_changes.mapped.is_empty() {
            let mut bytes = 0;
            for path in &self.silent_changes.mapped {
                if let Look::Found(found) = self.directory.look(path) {
                    bytes += found.print.size;
                }
                work.paths.insert(path.clone());
            }
            let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
            self.silent_changes.next_read = Some(now + EVERY.max(PER_MIB * mib));
        }
        work
    }

    /// Takes away what is known of these files but their content: they are read by the next scan.
    pub(super) fn doubt(&mut self, paths: impl Iterator<Item = RelPath>) {
        let silent_changes = &self.silent_changes;
        let known = silent_changes
            .mapped
            .iter()
            .chain(silent_changes.linked.keys())
            .cloned();
        let all: Vec<RelPath> = known.chain(paths).collect();
        for path in all {
            // Of a database, a snapshot of our own is reported as well.
            if !self.files.is_database(&path)
                && let Some(seen) = self.tree.extra_mut(&path)
            {
                *seen = seen.doubted();
            }
        }
    }

    /// Finds out which files below the directory a process of the gateway can write to through memory.
    /// When it lets go of one, that is reported as the end of a file that was open for writing.
    fn find_mapped(&mut self, gateway: i32) {
        let processes = match ProcessFreezer::of_gateway(gateway).processes() {
            Ok(processes) => processes,
            Err(error) => {
                debug!(target: "sync", %error, "it cannot be seen which files are mapped into memory");
                return;
            }
        };
        let before = std::mem::take(&mut self.silent_changes.mapped);
        for pid in processes {
            // Not readable where the process is another user's.
            if let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) {
                let found = maps.split(|byte| *byte == b'\n');
                let found = found.filter_map(|line| writable_below(line, &self.directory));
                self.silent_changes.mapped.extend(found.take(FILES_MAX));
            }
        }
        let files = &self.files;
        let mapped = &mut self.silent_changes.mapped;
        mapped.retain(|path| !files.is_database(path));
        let new = mapped.difference(&before).count();
        if new > 0 {
            debug!(target: "sync", new, "files are mapped into memory for writing; they are read every few seconds");
        }
    }
}

/// The file of a line of `/proc/PID/maps`, where it can be written to through it and lies below the
/// directory: `7f1c2000-7f1c3000 rw-s 00000000 fe:00 1234    /app/auth/data`.
fn writable_below(line: &[u8], directory: &Directory) -> Option<RelPath> {
    let start = line.iter().position(|byte| *byte == b'/')?;
    let (facts, path) = line.split_at(start);
    let mut facts = facts.split(|byte| *byte == b' ').skip(1);
    let rights = facts.next()?;
    if rights.get(1) != Some(&b'w') || rights.get(3) != Some(&b's') {
        return None;
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let path = path.strip_prefix(directory.root()).ok()?;
    let path = RelPath::from_path(path).ok()?;
    matches!(directory.look(&path), Look::Found(_)).then_some(path)
}
