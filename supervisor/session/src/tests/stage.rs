//! What is staged is exactly what was asked for, and nothing can be written elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::super::install::recover;
use super::super::marker::tests::sample;
use super::super::{FoundKind, Stage, StageError, free_space};
use super::{opened, rel, state};
use crate::rights::RestoreOwner;
use sessionkeep_core::entry::{Meta, Owner};
use sessionkeep_core::state_dir::STATE_DIR;

pub(super) fn meta(mode: u32, mtime_ns: i64) -> Meta {
    Meta {
        mode,
        mtime_ns,
        owner: Owner {
            // As this thread's files are made: asking with no user at all changes nothing.
            uid: nix::unistd::setfsuid(nix::unistd::Uid::from_raw(u32::MAX)).as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        },
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn modes_times_owners_links_and_empty_directories_come_back_exactly() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    recover(&state(root)).expect("recover");
    let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
    let other = Owner {
        uid: 4711,
        gid: 815,
    };
    let before_1970 = -1_500_000_001;
    let mut wanted = vec![
        ("a", meta(0o555, 1_600_000_000_123_456_789)),
        ("a/f", meta(0o400, 1_600_000_000_987_654_321)),
        ("a/g", meta(0o666, before_1970)),
        ("a/h", meta(0o4755, 5)),
        ("a/link", meta(0o777, 1_600_000_001_000_000_007)),
        ("d", meta(0o1777, 42)),
        ("d/empty", meta(0o2700, 1_700_000_000_000_000_001)),
        ("piece", meta(0o640, 1_700_000_000_000_000_002)),
    ];
    if is_root() {
        for at in [2, 3, 4, 6, 7] {
            wanted[at].1.owner = other;
        }
    }
    // The order in which directories get their metadata does not matter.
    for (path, meta) in &wanted {
        let path = rel(path);
        match path.name() {
            b"a" | b"d" | b"empty" => {
                stage.set_dir_meta(&path, meta).expect("note");
                stage.dir(&path).expect("dir");
            }
            b"link" => stage.symlink(&path, b"../piece", meta).expect("link"),
            b"piece" => {
                let file = stage.begin_file(&path, 6).expect("begin");
                file.write_at(3, b"def").expect("write");
                file.write_at(0, b"abc").expect("write");
                assert!(file.write_at(4, b"def").is_err(), "over the announced size");
                let mut back = [0; 8];
                assert_eq!(file.read_at(0, &mut back).expect("read"), 6);
                assert_eq!(&back[..6], b"abcdef");
                stage.finish(file, meta).expect("finish");
            }
            name => stage.file(&path, meta, name).expect("file"),
        }
    }
    let installed = stage.install(&sample(7), "now").expect("install");
    assert_eq!(installed.replaced, None);
    let mut found = Vec::new();
    opened(root).scan(None, &mut |_, _| {}, &mut |entry| found.push(entry));
    let got: Vec<_> = found.iter().map(|f| (f.path.to_string(), f.meta)).collect();
    let wanted: Vec<_> = wanted.iter().map(|(p, m)| ((*p).to_owned(), *m)).collect();
    assert_eq!(got, wanted);
    assert_eq!(fs::read(root.join("piece")).expect("read"), b"abcdef");
    assert_eq!(fs::read(root.join("a/f")).expect("read"), b"f");
    assert!(matches!(&found[4].kind, FoundKind::Symlink { target } if target == b"../piece"));
    let left: Vec<_> = fs::read_dir(root.join(STATE_DIR))
        .expect("list")
        .map(|e| e.expect("entry").file_name())
        .collect();
    assert_eq!(left, ["state.json"], "nothing else stays behind");
}

#[test]
fn a_file_with_several_names_is_one_file_with_its_metadata() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut stage = Stage::begin(&state(dir.path()), RestoreOwner::Keep).expect("begin");
    assert!(stage.can_link());
    let refused = stage.link(&rel("a"), rel(".sessionkeep/state.json"));
    assert!(matches!(refused, Err(StageError::Refused { .. })));
    stage.link(&rel("a"), rel("b")).expect("link");
    stage.link(&rel("a"), rel("deep/er/c")).expect("link");
    stage.link(&rel("piece"), rel("deep/piece")).expect("link");
    let m = meta(0o640, 1);
    stage.file(&rel("a"), &m, b"one").expect("file");
    let piece = stage.begin_file(&rel("piece"), 3).expect("begin");
    piece.write_at(0, b"two").expect("write");
    stage.finish(piece, &m).expect("finish");
    stage.dir(&rel("deep")).expect("it is there already");
    let stat = |name: &str| fs::metadata(stage.path().join(name)).expect("stat");
    for (names, content) in [
        (&["a", "b", "deep/er/c"][..], "one"),
        (&["piece", "deep/piece"], "two"),
    ] {
        let (first, links) = (stat(names[0]), names.len() as u64);
        assert_eq!((first.nlink(), first.mode() & 0o7777), (links, 0o640));
        for name in names {
            let read = fs::read_to_string(stage.path().join(name));
            assert_eq!(read.expect("read"), content, "{name}");
            assert_eq!(stat(name).ino(), first.ino(), "{name}");
        }
    }
    let left = fs::read_dir(stage.path()).expect("list").count();
    assert_eq!(left, 4, "nothing of the probing stays");
}

#[test]
fn nothing_is_written_through_a_link_or_under_a_reserved_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let elsewhere = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
    let m = meta(0o600, 1);
    stage.symlink(&rel("l"), b"d", &m).expect("link");
    stage.dir(&rel("d")).expect("dir");
    for refused in [
        stage.file(&rel("l/x"), &m, b"x"),
        stage.dir(&rel("l/x")),
        stage.dir(&rel("l")),
        stage.file(&rel(".sessionkeep/state.json"), &m, b"x"),
        stage.set_dir_meta(&rel("lost+found"), &m),
        stage.file(&rel("lost+found/x"), &m, b"x"),
        stage.symlink(&rel("up"), b"../../..", &m),
        stage.symlink(&rel("abs"), b"/etc", &m),
        stage.begin_file(&rel("huge"), u64::MAX).map(drop),
    ] {
        assert!(
            matches!(refused, Err(StageError::Refused { .. })),
            "{refused:?}"
        );
    }
    // A link that somebody else puts there meanwhile.
    symlink(elsewhere.path(), stage.path().join("evil")).expect("link");
    assert!(stage.file(&rel("evil/x"), &m, b"x").is_err());
    assert!(
        stage.file(&rel("evil"), &m, b"x").is_err(),
        "names come once"
    );
    stage.file(&rel("f"), &m, b"x").expect("file");
    assert!(stage.file(&rel("f"), &m, b"y").is_err(), "names come once");
    assert!(stage.file(&rel("f/g"), &m, b"y").is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).expect("list").count(), 0);
    let path = stage.path().to_path_buf();
    stage.discard().expect("discard");
    assert!(!path.exists());
}

#[test]
fn the_group_of_a_set_group_id_directory_is_not_passed_on() {
    if !is_root() {
        eprintln!("skipped: only root can give a directory to another group");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    std::os::unix::fs::chown(dir.path(), None, Some(815)).expect("chown");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2777)).expect("chmod");
    let mut stage = Stage::begin(&state(dir.path()), RestoreOwner::Keep).expect("begin");
    let m = meta(0o600, 1);
    stage.file(&rel("f"), &m, b"x").expect("file");
    let got = fs::metadata(stage.path().join("f")).expect("stat");
    assert_eq!((got.gid(), got.mode() & 0o7777), (m.owner.gid, 0o600));
}

/// A file system of its own, small enough to fill.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            flags,
            Some("size=1m"),
        ) {
            Ok(()) => Some(Self(dir)),
            Err(errno) => {
                eprintln!("SKIPPED: mounting a small file system is not permitted: {errno}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let flags = nix::mount::MntFlags::MNT_DETACH;
        nix::mount::umount2(self.0.path(), flags).expect("unmount");
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_old_directory_stays() {
    let Some(small) = Small::mount() else { return };
    let root = small.path();
    fs::write(root.join("creds.json"), "{\"old\":true}").expect("write");
    let free = free_space(root).expect("statvfs");
    assert!(free < 1024 * 1024);
    let m = meta(0o600, 1);

    let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
    stage
        .file(&rel("creds.json"), &m, b"{}")
        .expect("room for this");
    let error = stage
        .file(&rel("large"), &m, &[7; 2 << 20])
        .expect_err("full");
    assert!(matches!(error, StageError::Full { needs, .. } if needs == 2 << 20));
    assert!(error.to_string().contains("the disk is full"), "{error}");
    drop(stage);
    assert_eq!(
        free_space(root).expect("statvfs"),
        free,
        "the staging is gone"
    );

    let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
    let file = stage.begin_file(&rel("large"), 2 << 20).expect("begin");
    // Zeros take no room.
    file.write_at(1 << 20, &[0; 1 << 20]).expect("write");
    let error = file.write_at(0, &[7; 1 << 20]).expect_err("full");
    assert!(
        matches!(error, StageError::Full { needs, .. } if needs == 2 << 20),
        "{error}"
    );
    drop(file);
    drop(stage);
    let old = fs::read(root.join("creds.json")).expect("read");
    assert_eq!(old, b"{\"old\":true}");
}
