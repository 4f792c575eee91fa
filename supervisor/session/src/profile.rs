//! What is left out of the archive, decided by path alone, so that the scan, the events and a
//! look at one path always agree.

use std::fmt;

use sessionkeep_core::entry::RelPath;

use super::reserved;
use sessionkeep_core::state_dir::STATE_DIR;

/// Suffixes of the files that SQLite keeps beside a database. They mean nothing without the
/// database's own moment, and a snapshot already holds what they say. Beside anything else they are
/// files like any others.
const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// Directories that Chrome refills by itself, under names that nothing else uses.
const BROWSER_CACHES: [&[u8]; 11] = [
    b"Cache_Data",
    b"Code Cache",
    b"Crashpad",
    b"DawnCache",
    b"DawnGraphiteCache",
    b"DawnWebGPUCache",
    b"GPUCache",
    b"GrShaderCache",
    b"GraphiteDawnCache",
    b"ShaderCache",
    b"component_crx_cache",
];

/// Directories that are Chrome's caches only inside this parent; by themselves the names are too
/// common to be taken for a browser's.
const BROWSER_CACHES_IN: [(&[u8], &[u8]); 3] = [
    (b"Default", b"Cache"),
    (b"Service Worker", b"CacheStorage"),
    (b"Service Worker", b"ScriptCache"),
];

/// What of a Chrome user data directory holds a WhatsApp login.
const CHROME_KEPT: [&[u8]; 2] = [b"IndexedDB", b"Local Storage"];

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// `.sessionkeep`.
    Ours,
    /// `lost+found`.
    FileSystems,
    /// Chrome's lock.
    BrowserLock,
    /// A cache that Chrome refills.
    BrowserCache,
    /// What of a Chrome user data directory is no part of a login.
    BrowserProfile,
    /// Not yet what it will be called.
    Temporary,
    /// What SQLite keeps beside a database.
    DatabaseLog,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "sessionkeep's own directory",
            Self::FileSystems => "the file system's own directory",
            Self::BrowserLock => "a lock of Chrome's, by its name (Singleton*)",
            Self::BrowserCache => "a cache of Chrome's, which it refills",
            Self::BrowserProfile => "no part of the login in a Chrome profile",
            Self::Temporary => "a temporary file, by its name (*.tmp)",
            Self::DatabaseLog => "SQLite's log beside a database, whose snapshot holds it",
        })
    }
}

/// Decides what is left out.
///
/// In every profile:
/// - `.sessionkeep` and a directory `lost+found` at the top: ours, and the file system's;
/// - files named `Singleton*`: Chrome's lock, which names a host that is gone, so that Chrome exits;
/// - files named `*.tmp`: not yet what they will be called;
/// - Chrome's caches.
///
/// Chrome user data directories are reduced to `Default/IndexedDB` and `Default/Local Storage`
/// (and what begins with `.waha` at their top, which is WAHA's own note about the session). Where there
/// are such directories is the gateway's: [`BrowserDirs`].
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    browser: BrowserDirs,
}

/// Where in a path, relative to the session directory, a browser's user data directory begins that the
/// gateway keeps there; `None` where there is none above.
pub type BrowserDirs = for<'p> fn(path: &'p [u8]) -> Option<InBrowser<'p>>;

/// A path inside a Chrome user data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InBrowser<'p> {
    /// Relative to the user data directory.
    UserData(&'p [u8]),
    /// Relative to a `Default` whose neighbours are not the browser's.
    Default(&'p [u8]),
}

impl Profile {
    /// The rules for one gateway's files.
    #[must_use]
    pub fn new(browser: BrowserDirs) -> Self {
        Self { browser }
    }

    /// The rules for the files of a gateway that has no browser.
    #[must_use]
    pub fn without_browser() -> Self {
        Self::new(|_| None)
    }

    /// Whether `path` is left out, by itself or because a directory above it is.
    #[must_use]
    pub fn skips(&self, path: &RelPath, is_dir: bool) -> bool {
        let bytes = path.as_bytes();
        let mut ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/');
        ends.any(|(end, _)| self.skips_entry(&bytes[..end], true))
            || self.skips_entry(bytes, is_dir)
    }

    /// [`Profile::skips`] where the directories above are known not to be left out.
    pub(super) fn skips_entry(&self, path: &[u8], is_dir: bool) -> bool {
        self.exclusion(path, is_dir).is_some()
    }

    /// Why an entry is left out, where it is and the directories above it are not.
    pub(super) fn exclusion(&self, path: &[u8], is_dir: bool) -> Option<Exclusion> {
        let (dir, name) = split(path);
        if dir.is_empty() && reserved::is_reserved_at_top(name, is_dir) {
            return Some(match name == STATE_DIR.as_bytes() {
                true => Exclusion::Ours,
                false => Exclusion::FileSystems,
            });
        }
        if is_dir {
            let parent = split(dir).1;
            if BROWSER_CACHES.contains(&name) || BROWSER_CACHES_IN.contains(&(parent, name)) {
                return Some(Exclusion::BrowserCache);
            }
        } else if name.starts_with(b"Singleton") {
            return Some(Exclusion::BrowserLock);
        } else if name.ends_with(b".tmp") {
            return Some(Exclusion::Temporary);
        }
        self.is_chrome_ballast(path, is_dir)
            .then_some(Exclusion::BrowserProfile)
    }

    /// The SQLite database beside which `path` would be a `-wal`, `-shm` or `-journal`.
    #[must_use]
    pub fn database_of(path: &RelPath) -> Option<RelPath> {
        let stem = sidecar_stem(path.name())?;
        RelPath::join(path.split().0, stem).ok()
    }

    /// The files that SQLite would keep beside the database `path`.
    pub fn sidecars_of(path: &RelPath) -> impl Iterator<Item = RelPath> {
        let (dir, name) = path.split();
        SIDECARS.iter().filter_map(move |suffix| {
            let name = [name, suffix].concat();
            RelPath::join(dir, &name).ok()
        })
    }

    /// Whether `path` is inside a Chrome user data directory and no part of what is kept of it.
    fn is_chrome_ballast(&self, path: &[u8], is_dir: bool) -> bool {
        let Some(inside) = (self.browser)(path) else {
            return false;
        };
        match inside {
            InBrowser::UserData(rest) => {
                let (first, rest) = first_part(rest);
                if first == b"Default" && (is_dir || !rest.is_empty()) {
                    return !kept_of_default(rest, is_dir);
                }
                !(first.starts_with(b".waha") && rest.is_empty() && !is_dir)
            }
            InBrowser::Default(rest) => !kept_of_default(rest, is_dir),
        }
    }
}

/// Whether `rest`, relative to a `Default`, is `Default` itself or belongs to what is kept.
fn kept_of_default(rest: &[u8], is_dir: bool) -> bool {
    let (first, below) = first_part(rest);
    (first.is_empty() && is_dir) || (CHROME_KEPT.contains(&first) && (is_dir || !below.is_empty()))
}

/// The name without a sidecar's suffix, where it has one and something before it.
pub(super) fn sidecar_stem(name: &[u8]) -> Option<&[u8]> {
    SIDECARS
        .iter()
        .find_map(|suffix| name.strip_suffix(*suffix))
        .filter(|stem| !stem.is_empty())
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A path's first name, and what is below it.
#[must_use]
pub fn first_part(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trailing slash marks a directory.
    fn skips(path: &str) -> bool {
        let bare = path.trim_end_matches('/');
        let rel = RelPath::new(bare).expect("path");
        Profile::without_browser().skips(&rel, path.ends_with('/'))
    }

    #[test]
    fn what_is_never_archived_is_left_out_of_every_profile() {
        for out in [
            ".sessionkeep/",
            ".sessionkeep/state.json",
            "lost+found/",
            "a/SingletonLock",
            "creds.json.tmp",
            "a/GPUCache/",
            "a/GPUCache/data_0",
            "x/Default/Cache/",
            "x/Service Worker/CacheStorage/1/2",
        ] {
            assert!(skips(out), "{out} is kept");
        }
        for kept in [
            "creds.json",
            "creds.json.bak",
            "a/.sessionkeep",
            "a/lost+found/",
            "a/x.tmp/",
            "Cache/",
            "CacheStorage/x",
            "-wal",
            "gows.db",
            "gows.db-wal",
            "waha.sqlite3",
        ] {
            assert!(!skips(kept), "{kept} is left out");
        }
    }

    #[test]
    fn a_sidecar_names_its_database() {
        let of = |path: &str| Profile::database_of(&RelPath::new(path).expect("path"));
        assert_eq!(of("a/gows.db-wal"), RelPath::new("a/gows.db").ok());
        assert_eq!(of("x-journal"), RelPath::new("x").ok());
        assert_eq!(of("gows.db"), None);
        assert_eq!(of("a/-wal"), None);
    }
}
