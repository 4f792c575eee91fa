//! The hot paths. Each makes its input, does what it is about inside of
//! [`counted`](super::callgrind::counted), and checks what came out, so that what is counted is
//! the work and not a quick failure.

mod archive;
mod session;
mod supervisor;
mod watcher;

/// One of them.
pub(crate) struct HotPath {
    pub(crate) name: &'static str,
    /// One line for the table.
    pub(crate) what: &'static str,
    pub(crate) run: fn(),
}

/// All of them.
pub(crate) const ALL: &[HotPath] = &[
    HotPath {
        name: "scan",
        what: "looking at a directory of 3,000 files in three directories",
        run: session::scan,
    },
    HotPath {
        name: "hints",
        what: "reading what inotify says of 1,000 files that were written, and noting them as dirty",
        run: session::hints,
    },
    HotPath {
        name: "snapshot",
        what: "reading an SQLite database of 4 MB, a part of it in the write-ahead log",
        run: session::snapshot,
    },
    HotPath {
        name: "changed-pages",
        what: "reading what 60 transactions changed in it, as the write-ahead log tells",
        run: session::changed_pages,
    },
    HotPath {
        name: "commit",
        what: "one changed JSON file among 1,000: checked, put into a commit, appended",
        run: archive::commit,
    },
    HotPath {
        name: "first-upload",
        what: "putting 1,000 small files into the first commit",
        run: archive::first_upload,
    },
    HotPath {
        name: "load",
        what: "folding a version from a checkpoint of 1,000 files and 200 commits",
        run: archive::load,
    },
    HotPath {
        name: "fetch",
        what: "reading and verifying the contents of 1,000 files, from a pack and 50 commits",
        run: archive::fetch,
    },
    HotPath {
        name: "restore",
        what: "restoring 1,000 files, from a pack and 50 commits, into an empty directory",
        run: archive::restore,
    },
    HotPath {
        name: "flush",
        what: "the watcher's last look at 3,000 files of which none has changed, and its end",
        run: watcher::flush,
    },
    HotPath {
        name: "tree",
        what: "the root of a tree of 30,000 entries of which one changed",
        run: archive::tree,
    },
    HotPath {
        name: "block-map",
        what: "the hash of a file of 50 MB of which eight blocks changed",
        run: archive::block_map,
    },
    HotPath {
        name: "machine",
        what: "PID 1's decisions over 1,000 lives of a gateway that keeps failing",
        run: supervisor::machine,
    },
];

/// The path of that name.
pub(crate) fn find(name: &str) -> Option<&'static HotPath> {
    ALL.iter().find(|path| path.name == name)
}
