//! What is known to have changed and is not committed yet, and when that is due. No clock and no
//! I/O inside: the caller says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sessionkeep_core::entry::RelPath;
use sessionkeep_session::FsEvent;

/// More changed paths than this are not remembered one by one: everything is looked at instead.
/// Bounds the memory of a long outage.
const PATHS_MAX: usize = 10_000;

/// What to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The whole directory.
    pub everything: bool,
    /// Directories with all that is below them.
    pub subtrees: BTreeSet<RelPath>,
    /// Single paths.
    pub paths: BTreeSet<RelPath>,
    /// The session directory's own owner and mode.
    pub own: bool,
}

impl Work {
    /// Everything there is.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && !self.own && self.subtrees.is_empty() && self.paths.is_empty()
    }

    /// What a hint says to look at.
    #[must_use]
    pub fn of(fs_event: FsEvent) -> Self {
        match fs_event {
            FsEvent::Closed(path) | FsEvent::Touched(path) => Self {
                paths: [path].into(),
                ..Self::default()
            },
            FsEvent::Subtree(Some(path)) => Self {
                subtrees: [path].into(),
                ..Self::default()
            },
            FsEvent::Own => Self {
                own: true,
                ..Self::default()
            },
            FsEvent::Subtree(None) | FsEvent::Overflow | FsEvent::RootGone => Self::everything(),
        }
    }

    /// Takes in what `other` says to look at.
    pub fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.own |= other.own;
        self.subtrees.extend(other.subtrees);
        self.paths.extend(other.paths);
        self.fold();
    }

    fn fold(&mut self) {
        if self.paths.len() + self.subtrees.len() > PATHS_MAX {
            self.everything = true;
        }
        if self.everything {
            self.paths.clear();
            self.subtrees.clear();
        }
    }
}

/// What has changed and is not committed yet.
#[derive(Debug, Default)]
pub struct Dirty {
    work: Work,
    /// Since when anything is waiting.
    first: Option<Instant>,
    /// When something last changed.
    last: Option<Instant>,
    /// Paths that could not be read whole, by when to look again.
    later: BTreeMap<Instant, BTreeSet<RelPath>>,
    later_since: Option<Instant>,
}

impl Dirty {
    /// Takes a file event.
    pub fn fs_event(&mut self, fs_event: FsEvent, now: Instant) {
        self.add(Work::of(fs_event), now);
    }

    /// Takes work whose change was seen at `now`.
    pub fn add(&mut self, work: Work, now: Instant) {
        if work.is_empty() {
            return;
        }
        self.work.add(work);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Takes back work that could not be committed and has been waiting since `since`.
    pub fn put_back(&mut self, work: Work, since: Option<Instant>) {
        if work.is_empty() {
            return;
        }
        self.work.add(work);
        self.first = earlier(self.first, since);
        self.last = self.last.or(self.first);
    }

    /// Looks at `path` again at `when`.
    pub fn look_later(&mut self, path: RelPath, when: Instant, since: Option<Instant>) {
        self.later.entry(when).or_default().insert(path);
        self.later_since = earlier(self.later_since, since);
    }

    /// Puts off single paths for which `until` names a time.
    pub fn put_off(&mut self, until: impl Fn(&RelPath) -> Option<Instant>) {
        let (since, later) = (self.first, &mut self.later);
        let mut any = false;
        self.work.paths.retain(|path| {
            let Some(when) = until(path) else {
                return true;
            };
            later.entry(when).or_default().insert(path.clone());
            any = true;
            false
        });
        if any {
            self.later_since = earlier(self.later_since, since);
        }
        if self.work.is_empty() {
            (self.first, self.last) = (None, None);
        }
    }

    /// When the next commit is due: once it has been quiet for `quiet`, at latest `max_delay` after
    /// the first change; or when a path is to be looked at again.
    #[must_use]
    pub fn due(&self, quiet: Duration, max_delay: Duration) -> Option<Instant> {
        let settled = match (self.first, self.last) {
            (Some(first), Some(last)) => Some((last + quiet).min(first + max_delay)),
            _ => None,
        };
        let later = self.later.first_key_value().map(|(when, _)| *when);
        earlier(settled, later)
    }

    /// Takes out all that is due at `now`, with the moment since when it has been waiting.
    pub fn take(&mut self, now: Instant) -> (Work, Option<Instant>) {
        let mut work = std::mem::take(&mut self.work);
        let mut since = self.first.take();
        self.last = None;
        let waiting = self.later.split_off(&(now + Duration::from_nanos(1)));
        for paths in std::mem::replace(&mut self.later, waiting).into_values() {
            work.paths.extend(paths);
            since = earlier(since, self.later_since);
        }
        if self.later.is_empty() {
            self.later_since = None;
        }
        work.fold();
        (work, since)
    }

    /// Whether single paths are all there is, each of them such a one.
    #[must_use]
    pub fn is_only(&self, such: impl Fn(&RelPath) -> bool) -> bool {
        let mut paths = self.work.paths.iter().chain(self.later.values().flatten());
        !self.work.everything && self.work.subtrees.is_empty() && paths.all(such)
    }

    /// Since when anything is waiting.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        earlier(self.first, self.later_since)
    }

    /// The single paths that are waiting.
    pub fn paths(&self) -> impl Iterator<Item = RelPath> {
        self.work
            .paths
            .iter()
            .chain(self.later.values().flatten())
            .cloned()
    }

    /// How many paths are waiting; `None` where it is everything.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        let later: usize = self.later.values().map(BTreeSet::len).sum();
        (!self.work.everything).then_some(self.work.paths.len() + self.work.subtrees.len() + later)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    #[test]
    fn a_change_is_due_when_it_has_been_quiet() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        assert_eq!(dirty.due(QUIET, MAX), None);
        dirty.fs_event(FsEvent::Closed(path("a")), t0);
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + QUIET));
        dirty.fs_event(FsEvent::Closed(path("b")), t0 + QUIET / 2);
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + QUIET / 2 + QUIET));
    }

    #[test]
    fn constant_change_does_not_starve_the_commit() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        for n in 0..500 {
            dirty.fs_event(
                FsEvent::Closed(path("a")),
                t0 + Duration::from_millis(10) * n,
            );
        }
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + MAX));
    }

    #[test]
    fn what_is_put_back_keeps_its_age() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        dirty.fs_event(FsEvent::Closed(path("a")), t0);
        let (work, since) = dirty.take(t0 + MAX);
        assert_eq!(dirty.since(), None);
        dirty.fs_event(FsEvent::Closed(path("b")), t0 + MAX);
        dirty.put_back(work, since);
        assert_eq!(dirty.since(), Some(t0));
        let (work, _) = dirty.take(t0 + MAX);
        assert_eq!(work.paths, [path("a"), path("b")].into());
    }

    #[test]
    fn a_long_outage_does_not_fill_the_memory() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        for n in 0..PATHS_MAX * 3 {
            dirty.fs_event(FsEvent::Closed(path(&n.to_string())), t0);
        }
        assert_eq!(dirty.count(), None);
        assert_eq!(dirty.take(t0).0, Work::everything());
    }

    #[test]
    fn a_path_for_later_waits_and_does_not_hold_up_the_rest() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        dirty.look_later(path("slow"), t0 + MAX, Some(t0));
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + MAX));
        dirty.fs_event(FsEvent::Touched(path("fast")), t0);
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + QUIET));
        assert_eq!(dirty.take(t0 + QUIET).0.paths, [path("fast")].into());
        assert_eq!(dirty.take(t0 + QUIET).0, Work::default());
        assert_eq!(dirty.take(t0 + MAX).0.paths, [path("slow")].into());
        assert_eq!(dirty.since(), None);
    }

    #[test]
    fn what_is_put_off_keeps_its_age_and_the_rest_its_time() {
        let t0 = Instant::now();
        let mut dirty = Dirty::default();
        let is_slow = |p: &RelPath| *p == path("slow");
        let put_off = |dirty: &mut Dirty| dirty.put_off(|p| is_slow(p).then_some(t0 + MAX));
        dirty.fs_event(FsEvent::Touched(path("slow")), t0);
        put_off(&mut dirty);
        assert_eq!(dirty.since(), Some(t0));
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + MAX));
        assert!(dirty.is_only(is_slow));
        dirty.fs_event(FsEvent::Touched(path("slow")), t0 + QUIET);
        dirty.fs_event(FsEvent::Touched(path("fast")), t0 + QUIET);
        assert!(!dirty.is_only(is_slow));
        put_off(&mut dirty);
        assert_eq!(dirty.count(), Some(2));
        assert_eq!(dirty.due(QUIET, MAX), Some(t0 + QUIET * 2));
        assert_eq!(dirty.take(t0 + QUIET * 2).0.paths, [path("fast")].into());
        let (work, since) = dirty.take(t0 + MAX);
        assert_eq!((work.paths, since), ([path("slow")].into(), Some(t0)));
        dirty.add(Work::everything(), t0);
        put_off(&mut dirty);
        assert_eq!(dirty.since(), Some(t0), "everything is not put off");
    }
}
