//! Hints come for what changed, and only for that.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Directory, Events, Hint};
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
    fn hints(&mut self) -> Vec<Hint> {
        let mut hints = Vec::new();
        let mut each = |hint| hints.push(hint);
        self.events.read(&self.dir, &mut each).expect("read");
        hints.dedup();
        hints
    }
}

#[test]
fn a_written_file_is_touched_and_then_closed_and_reading_wakes_nobody() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir(root.join("a")).expect("mkdir");
    let mut watched = Watched::new(root);
    let mut file = fs::File::create(root.join("a/creds.json")).expect("create");
    assert_eq!(watched.hints(), [Hint::Touched(rel("a/creds.json"))]);
    file.write_all(b"{}").expect("write");
    assert_eq!(watched.hints(), [Hint::Touched(rel("a/creds.json"))]);
    drop(file);
    assert_eq!(watched.hints(), [Hint::Closed(rel("a/creds.json"))]);
    fs::read(root.join("a/creds.json")).expect("read");
    watched.dir.scan(None, &mut |_, _| {}, &mut |_| {});
    let _ = watched.dir.look(&rel("a/creds.json"));
    assert_eq!(watched.hints(), []);
    fs::rename(root.join("a/creds.json"), root.join("b")).expect("rename");
    let moved = [Hint::Touched(rel("a/creds.json")), Hint::Closed(rel("b"))];
    assert_eq!(watched.hints(), moved);
    fs::remove_file(root.join("b")).expect("remove");
    assert_eq!(watched.hints(), [Hint::Touched(rel("b"))]);
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
    assert_eq!(watched.hints(), []);
    fs::write(root.join("gows.db-wal"), "x").expect("write");
    assert_eq!(watched.hints(), [Hint::Touched(rel("gows.db"))]);
    fs::remove_file(root.join("gows.db-wal")).expect("remove");
    assert_eq!(watched.hints(), [Hint::Touched(rel("gows.db"))]);
    fs::rename(root.join("x.tmp"), root.join("x")).expect("rename");
    assert_eq!(watched.hints(), [Hint::Closed(rel("x"))]);
    // Beside what is not known to be a database it may be a file like any other.
    watched.events.note_database(&rel("gows.db"), false);
    for name in ["gows.db-shm", "other-journal"] {
        fs::write(root.join(name), "x").expect("write");
        let hints = watched.hints();
        let beside = rel(name.rsplit_once('-').expect("a sidecar's name").0);
        for hint in [Hint::Touched(beside), Hint::Closed(rel(name))] {
            assert!(hints.contains(&hint), "{hint:?}: {hints:?}");
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
    let hints = watched.hints();
    assert_eq!(hints, ["a", "c"].map(|path| Hint::Subtree(Some(rel(path)))));
    assert_eq!(watched.events.len(), 1, "what was below it is forgotten");
    fs::write(root.join("c/b/x"), "x").expect("write");
    assert_eq!(watched.hints(), [], "not watched until it is scanned");
    let Watched { dir, events } = &mut watched;
    let mut found = Vec::new();
    dir.scan(
        Some(&rel("c")),
        &mut |open, path| events.watch_open(dir, open, path).expect("watch"),
        &mut |entry| found.push(entry.path),
    );
    assert_eq!(found, [rel("c/b"), rel("c/b/x")]);
    fs::write(root.join("c/b/y"), "x").expect("write");
    let hints = watched.hints();
    let y = rel("c/b/y");
    assert_eq!(hints, [Hint::Touched(y.clone()), Hint::Closed(y)]);
    fs::remove_dir_all(root.join("c")).expect("remove");
    assert!(watched.hints().contains(&Hint::Touched(rel("c"))));
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
    assert_eq!(watched.hints(), [Hint::Subtree(Some(rel("a")))]);
    fs::write(dir.path().join("away/x"), "x").expect("write");
    assert_eq!(watched.hints(), []);
    fs::rename(&root, dir.path().join("other")).expect("rename");
    assert_eq!(watched.hints(), [Hint::RootGone]);
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
    assert!(watched.hints().contains(&Hint::Overflow));
    fs::write(dir.path().join("c"), "x").expect("write");
    assert!(
        watched.hints().contains(&Hint::Closed(rel("c"))),
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
    assert!(!watched.hints().is_empty());
    assert!(watched.hints().is_empty());
}
