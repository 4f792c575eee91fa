//! The scan and the look agree, leave nothing out and follow nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::super::{FoundKind, Look, SkipReason};
use super::{opened, rel};

fn names(root: &Path, below: Option<&str>) -> Vec<String> {
    let below = below.map(rel);
    let mut names = Vec::new();
    let report = opened(root).scan(below.as_ref(), &mut |_, _| {}, &mut |found| {
        names.push(found.path.to_string());
    });
    assert!(report.root_unreadable.is_none() && report.unreadable.is_empty());
    names
}

#[test]
fn a_directory_comes_before_its_content_and_siblings_by_their_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir_all(root.join("b/empty")).expect("mkdir");
    fs::create_dir_all(root.join("B")).expect("mkdir");
    for file in ["a", "b/z", "b/a", "b-", "é", "B/x"] {
        fs::write(root.join(file), file).expect("write");
    }
    let all = ["B", "B/x", "a", "b", "b/a", "b/empty", "b/z", "b-", "é"];
    assert_eq!(names(root, None), all);
    assert_eq!(names(root, Some("b")), ["b/a", "b/empty", "b/z"]);
    assert!(
        names(root, Some("a")).is_empty(),
        "a file has nothing below"
    );
    assert!(names(root, Some("gone")).is_empty());
}

#[test]
fn each_directory_is_entered_before_it_is_listed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir_all(root.join("a/b")).expect("mkdir");
    fs::create_dir_all(root.join(".sessionkeep/x")).expect("mkdir");
    let mut entered = Vec::new();
    let mut found = Vec::new();
    opened(root).scan(
        None,
        &mut |_, path| {
            // What appears between the watch and the listing is found.
            let below = path.map_or(root.to_path_buf(), |path| path.under(root));
            fs::write(below.join("late"), "x").expect("write");
            entered.push(path.map(ToString::to_string));
        },
        &mut |entry| found.push(entry.path.to_string()),
    );
    assert_eq!(entered, [None, Some("a".into()), Some("a/b".into())]);
    assert_eq!(found, ["a", "a/b", "a/b/late", "a/late", "late"]);
}

#[test]
fn special_files_and_escaping_links_are_skipped_and_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&root.join("pipe"), mode).expect("mkfifo");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bind");
    symlink("/etc", root.join("absolute")).expect("link");
    symlink("../x", root.join("up")).expect("link");
    symlink("creds.json", root.join("fine")).expect("link");
    fs::write(root.join("creds.json"), "{}").expect("write");
    let dir = opened(root);
    let mut found = Vec::new();
    let report = dir.scan(None, &mut |_, _| {}, &mut |entry| found.push(entry));
    let link = FoundKind::Symlink {
        target: b"creds.json".to_vec(),
    };
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].kind, link);
    let expected = [
        ("absolute", SkipReason::EscapingLink),
        ("pipe", SkipReason::Special),
        ("socket", SkipReason::Special),
        ("up", SkipReason::EscapingLink),
    ];
    assert_eq!(report.skipped, expected.map(|(path, why)| (rel(path), why)));
    assert_eq!(report.skipped_count, 4);
    for (path, why) in expected {
        assert!(matches!(dir.look(&rel(path)), Look::Skipped(is) if is == why));
    }
    for entry in found {
        assert!(matches!(dir.look(&entry.path), Look::Found(same) if same == entry));
    }
    assert!(matches!(dir.look(&rel("absolute/passwd")), Look::Absent));
    assert!(matches!(dir.look(&rel("none")), Look::Absent));
    assert!(matches!(dir.look(&rel("creds.json/x")), Look::Absent));
    fs::write(root.join("x.tmp"), "").expect("write");
    assert!(matches!(
        dir.look(&rel("x.tmp")),
        Look::Skipped(SkipReason::Profile)
    ));
}

#[test]
fn a_sidecar_changes_its_database_and_no_other_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    for file in ["gows.db", "gows.db2", "other"] {
        rusqlite::Connection::open(root.join(file))
            .and_then(|db| db.execute_batch("CREATE TABLE t (n)"))
            .expect("a database");
    }
    let dir = opened(root);
    let prints = || {
        let mut prints = Vec::new();
        dir.scan(None, &mut |_, _| {}, &mut |found| {
            assert!(matches!(dir.look(&found.path), Look::Found(same) if same == found));
            prints.push(found.print);
        });
        prints
    };
    let plain = prints();
    assert!(plain.iter().all(|print| print.sidecars == 0));
    let mut seen = vec![0];
    for change in ["-wal", "-journal", "-wal"] {
        let path = root.join(format!("gows.db{change}"));
        let before = fs::read(&path).unwrap_or_default();
        fs::write(&path, [before, b"frame".to_vec()].concat()).expect("write");
        let now = prints();
        assert!(!seen.contains(&now[0].sidecars), "{change} was not seen");
        seen.push(now[0].sidecars);
        assert_eq!(now[1..], plain[1..]);
    }
    fs::write(root.join("gows.db-shm"), "x").expect("write");
    assert_eq!(Some(&prints()[0].sidecars), seen.last());
}

#[test]
fn a_directory_that_was_replaced_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("session");
    fs::create_dir(&root).expect("mkdir");
    fs::write(root.join("creds.json"), "{}").expect("write");
    let opened = opened(&root);
    assert!(opened.is_intact());
    fs::rename(&root, dir.path().join("away")).expect("rename");
    assert!(!opened.is_intact());
    fs::create_dir(&root).expect("mkdir");
    assert!(!opened.is_intact());
    let report = opened.scan(None, &mut |_, _| {}, &mut |_| panic!("found something"));
    assert!(report.root_unreadable.is_some());
    // What is looked at is the directory that was opened, wherever it is.
    assert!(matches!(opened.look(&rel("creds.json")), Look::Found(_)));
}

#[test]
fn what_is_too_deep_is_skipped_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::write(root.join("z"), "x").expect("write");
    let part = "d".repeat(250);
    // Made step by step, since no single path that long can be given to the kernel.
    let mut fd = std::fs::File::open(root).expect("open");
    for _ in 0..13 {
        use nix::fcntl::{OFlag, openat};
        use nix::sys::stat::{Mode, mkdirat};
        mkdirat(&fd, part.as_str(), Mode::S_IRWXU).expect("mkdir");
        let flags = OFlag::O_DIRECTORY;
        fd = openat(&fd, part.as_str(), flags, Mode::empty())
            .expect("open")
            .into();
    }
    let mut found = Vec::new();
    let report = opened(root).scan(None, &mut |_, _| {}, &mut |entry| found.push(entry.path));
    assert_eq!(found.len(), 13, "twelve directories and the file");
    assert_eq!(found.last(), Some(&rel("z")));
    assert_eq!(report.skipped.len(), 1);
    assert_eq!(report.skipped[0].1, SkipReason::Unusable);
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    fs::create_dir(root.join("a")).expect("mkdir");
    fs::write(root.join("a/hidden"), "x").expect("write");
    fs::write(root.join("b"), "x").expect("write");
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o0)).expect("chmod");
    let opened = opened(root);
    let (found, report) = unprivileged(root, || {
        let mut found = Vec::new();
        let report = opened.scan(None, &mut |_, _| {}, &mut |entry| found.push(entry.path));
        (found, report)
    });
    assert_eq!(found, [rel("a"), rel("b")]);
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(report.unreadable[0].0, rel("a"));
}

/// Runs `act` on a thread of its own without root's right to read everything. File system user
/// and group are per thread in the kernel, unlike what the C library makes of `setuid`.
pub(super) fn unprivileged<T: Send>(root: &Path, act: impl FnOnce() -> T + Send) -> T {
    let own = nix::unistd::Uid::from_raw(12345);
    if nix::unistd::geteuid().is_root() {
        chown_tree(root, own);
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::unistd::setfsuid(own);
            act()
        });
        thread.join().expect("the thread ends well")
    })
}

fn chown_tree(path: &Path, to: nix::unistd::Uid) {
    std::os::unix::fs::lchown(path, Some(to.as_raw()), None).expect("chown");
    if path.symlink_metadata().expect("stat").is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            chown_tree(&entry.expect("entry").path(), to);
        }
    }
}

#[test]
fn a_scan_ends_when_enough_was_seen() {
    let dir = tempfile::tempdir().expect("tempdir");
    for name in ["a/b/1", "a/b/2", "a/c", "d"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        std::fs::write(path, name).expect("write");
    }
    let (mut seen, mut entered) = (Vec::new(), Vec::new());
    let report = opened(dir.path()).scan_until(
        None,
        &mut |_, dir| entered.push(dir.map(ToString::to_string)),
        &mut |found| {
            seen.push(found.path.to_string());
            match found.path == rel("a/b/1") {
                true => std::ops::ControlFlow::Break(()),
                false => std::ops::ControlFlow::Continue(()),
            }
        },
    );
    assert_eq!(seen, ["a", "a/b", "a/b/1"]);
    assert_eq!(entered, [None, Some("a".into()), Some("a/b".into())]);
    assert!(report.unreadable.is_empty() && report.root_unreadable.is_none());
}
