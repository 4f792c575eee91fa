//! FsEvents come for what changed, and only for that.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Directory, Events, FsEvent};
use super::{opened, rel};

struct Watched {
    dir: Directory,
    events: Events,
}

impl Watched {
    fn new(root: &Path) -> Self {
        let dir = opened(root);
        let mut events = Events::new();
        dir.scan(
            None,
            &mut |open, path| events.watch_open(&dir, open, path).expect("watch"),
            &mut |_| {},
        );
        Self { dir, events }
    }

    /// The kernel queues an event before the call that caused it returns: no waiting.
    fn fs_events(&mut self) -> Vec<FsEvent> {
        let mut fs_events = Vec::new();
        let mut each = |fs_event| fs_events.push(fs_event);
        self.events.read(&self.dir, &mut each).expect("read");
        fs_events.dedup();
        fs_events
    }
}

#[test]
fn a_written_file_is_touched_and_then_closed_and_reading_wakes_nobody() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir(root.join("a")).expect("mkdir");
    let mut watched = Watched::new(root);
    let mut file = fs::File::create(root.join("a/creds.json")).expect("create");
    assert_eq!(watched.fs_events(), [FsEvent::Touched(rel("a/creds.json"))]);
    file.write_all(b"{}").expect("write");
    assert_eq!(watched.fs_events(), [FsEvent::Touched(rel("a/creds.json"))]);
    drop(file);
    assert_eq!(watched.fs_events(), [FsEvent::Closed(rel("a/creds.json"))]);
    fs::read(root.join("a/creds.json")).expect("read");
    watched.dir.scan(None, &mut |_, _| {}, &mut |_| {});
    let _ = watched.dir.look(&rel("a/creds.json"));
    assert_eq!(watched.fs_events(), []);
    fs::rename(root.join("a/creds.json"), root.join("b")).expect("rename");
    let moved = [
        FsEvent::Touched(rel("a/creds.json")),
        FsEvent::Closed(rel("b")),
    ];
    assert_eq!(watched.fs_events(), moved);
    fs::remove_file(root.join("b")).expect("remove");
    assert_eq!(watched.fs_events(), [FsEvent::Touched(rel("b"))]);
}

#[test]
fn what_is_left_out_gives_no_hint_and_a_sidecar_speaks_for_its_database() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    let mut watched = Watched::new(root);
    watched.events.note_database(&rel("gows.db"), true);
    fs::create_dir(root.join(".sessionkeep")).expect("mkdir");
    fs::write(root.join("x.tmp"), "x").expect("write");
    fs::write(root.join("SingletonLock"), "x").expect("write");
    fs::write(root.join("gows.db-shm"), "x").expect("write");
    fs::write(root.join("SingletonDb-wal"), "x").expect("write");
    assert_eq!(watched.fs_events(), []);
    fs::write(root.join("gows.db-wal"), "x").expect("write");
    assert_eq!(watched.fs_events(), [FsEvent::Touched(rel("gows.db"))]);
    fs::remove_file(root.join("gows.db-wal")).expect("remove");
    assert_eq!(watched.fs_events(), [FsEvent::Touched(rel("gows.db"))]);
    fs::rename(root.join("x.tmp"), root.join("x")).expect("rename");
    assert_eq!(watched.fs_events(), [FsEvent::Closed(rel("x"))]);
    // Beside what is not known to be a database it may be a file like any other.
    watched.events.note_database(&rel("gows.db"), false);
    for name in ["gows.db-shm", "other-journal"] {
        fs::write(root.join(name), "x").expect("write");
        let fs_events = watched.fs_events();
        let beside = rel(name.rsplit_once('-').expect("a sidecar's name").0);
        for fs_event in [FsEvent::Touched(beside), FsEvent::Closed(rel(name))] {
            assert!(fs_events.contains(&fs_event), "{fs_event:?}: {fs_events:?}");
        }
    }
}

#[test]
fn a_directory_that_moves_is_known_by_its_new_name_only() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir_all(root.join("a/b")).expect("mkdir");
    let mut watched = Watched::new(root);
    assert_eq!(watched.events.len(), 3);
    fs::rename(root.join("a"), root.join("c")).expect("rename");
    let fs_events = watched.fs_events();
    assert_eq!(
        fs_events,
        ["a", "c"].map(|path| FsEvent::Subtree(Some(rel(path))))
    );
    assert_eq!(watched.events.len(), 1, "what was below it is forgotten");
    fs::write(root.join("c/b/x"), "x").expect("write");
    assert_eq!(watched.fs_events(), [], "not watched until it is scanned");
    let Watched { dir, events } = &mut watched;
    let mut found = Vec::new();
    dir.scan(
        Some(&rel("c")),
        &mut |open, path| events.watch_open(dir, open, path).expect("watch"),
        &mut |entry| found.push(entry.path),
    );
    assert_eq!(found, [rel("c/b"), rel("c/b/x")]);
    fs::write(root.join("c/b/y"), "x").expect("write");
    let fs_events = watched.fs_events();
    let y = rel("c/b/y");
    assert_eq!(fs_events, [FsEvent::Touched(y.clone()), FsEvent::Closed(y)]);
    fs::remove_dir_all(root.join("c")).expect("remove");
    assert!(watched.fs_events().contains(&FsEvent::Touched(rel("c"))));
    assert_eq!(
        watched.events.len(),
        1,
        "the kernel drops the watches of the dead"
    );
}

#[test]
fn a_directory_that_leaves_is_not_listened_to_any_more() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("a")).expect("mkdir");
    let mut watched = Watched::new(&root);
    fs::rename(root.join("a"), dir.path().join("away")).expect("rename");
    assert_eq!(watched.fs_events(), [FsEvent::Subtree(Some(rel("a")))]);
    fs::write(dir.path().join("away/x"), "x").expect("write");
    assert_eq!(watched.fs_events(), []);
    fs::rename(&root, dir.path().join("other")).expect("rename");
    assert_eq!(watched.fs_events(), [FsEvent::RootGone]);
}

#[test]
fn a_flood_ends_in_an_overflow() {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("read")
        .trim()
        .parse()
        .expect("number");
    let dir = tempfile::tempdir().expect("tempdir");
    let mut watched = Watched::new(dir.path());
    let deadline = Instant::now() + Duration::from_secs(60);
    // Two names in turn, since the kernel merges an event with the one before it.
    for turn in 0..limit {
        assert!(Instant::now() < deadline, "too slow to flood");
        let name = ["a", "b"][turn % 2];
        fs::write(dir.path().join(name), "x").expect("write");
    }
    assert!(watched.fs_events().contains(&FsEvent::Overflow));
    fs::write(dir.path().join("c"), "x").expect("write");
    assert!(
        watched.fs_events().contains(&FsEvent::Closed(rel("c"))),
        "it goes on"
    );
}

#[test]
fn a_writer_that_is_faster_than_the_reader_does_not_keep_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    let mut watched = Watched::new(root);
    let write = |number: u32| fs::write(root.join(format!("f{}", number % 2)), "x").expect("write");
    write(0);
    let mut count = 0;
    let mut each = |_| {
        count += 1;
        assert!(count < 1000, "it reads on and on");
        write(count);
    };
    let read = watched.events.read(&watched.dir, &mut each);
    read.expect("read");
    assert!(count > 0);
    // And what came meanwhile is there for the next time, to the last event.
    assert!(!watched.fs_events().is_empty());
    assert!(watched.fs_events().is_empty());
}
