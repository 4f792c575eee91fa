//! Whatever a commit admits can be restored, and is then what it was.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::super::install::recover;
use super::super::marker::tests::sample;
use super::super::{Directory, Found, FoundKind, Profile, Stage};
use super::state;
use crate::rights::RestoreOwner;
use sessionkeep_core::state_dir::STATE_DIR;

/// Something that a gateway may make.
#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
    Pipe,
}

/// Names of which one or the other part of us thinks something of its own, and others.
fn name() -> impl Strategy<Value = Vec<u8>> {
    const KNOWN: &[&[u8]] = &[
        b"lost+found",
        b".sessionkeep",
        b".sessionkeep.old",
        b"state.json",
        b"staging",
        b"install.json",
        b"creds.json",
        b"x-wal",
        b"-journal",
        b"x.tmp",
        b"SingletonLock",
        b"Default",
        b"GPUCache",
        b"...",
        b"~",
        b"a\nb",
        b"\xff\xfe",
    ];
    let known = prop::sample::select(KNOWN).prop_map(<[u8]>::to_vec);
    let long = Just(vec![b'n'; 255]);
    prop_oneof![6 => known, 1 => long, 2 => "[a-c]{1,2}".prop_map(String::into_bytes)]
}

fn made() -> impl Strategy<Value = Made> {
    let target = prop_oneof![
        prop::collection::vec(name(), 1..3).prop_map(|parts| parts.join(&b'/')),
        Just(b"..".to_vec()),
        Just(b"../../out".to_vec()),
        Just(b"/etc/passwd".to_vec()),
        Just(b"../lost+found".to_vec()),
    ];
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0..40_000_usize).prop_map(|len| vec![0; len]),
    ];
    prop_oneof![
        4 => content.prop_map(Made::File),
        3 => Just(Made::Dir),
        2 => target.prop_map(Made::Link),
        1 => Just(Made::Pipe),
    ]
}

/// Makes what can be made: a name may be taken, or below what is no directory.
fn make(root: &Path, parts: &[Vec<u8>], made: &Made, mode: u32) {
    let mut path = root.to_owned();
    for part in &parts[..parts.len() - 1] {
        path.push(OsStr::from_bytes(part));
        let _ = fs::create_dir(&path);
    }
    path.push(OsStr::from_bytes(&parts[parts.len() - 1]));
    if path.symlink_metadata().is_ok() {
        return;
    }
    let (done, needed) = match made {
        Made::File(content) => (fs::write(&path, content), 0o400),
        Made::Dir => (fs::create_dir(&path), 0o700),
        Made::Link(target) => {
            let _ = symlink(OsStr::from_bytes(target), &path);
            return;
        }
        Made::Pipe => {
            let _ = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU);
            return;
        }
    };
    if done.is_ok() {
        let mode = fs::Permissions::from_mode(mode & 0o7777 | needed);
        fs::set_permissions(&path, mode).expect("chmod");
    }
}

fn everything(root: &Path) -> Vec<(Found, Vec<u8>)> {
    let directory = Directory::open(root, Profile::without_browser()).expect("it opens");
    let mut all = Vec::new();
    let report = directory.scan(None, &mut |_, _| {}, &mut |found| {
        let content = match found.kind {
            FoundKind::File => fs::read(found.path.under(root)).expect("read"),
            _ => Vec::new(),
        };
        all.push((found, content));
    });
    assert!(report.unreadable.is_empty(), "{report:?}");
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_tree_that_a_commit_admits_can_be_restored(
        entries in prop::collection::vec(
            (prop::collection::vec(name(), 1..4), made(), any::<u32>()), 0..14,
        ),
        has_lost_and_found in any::<bool>(),
    ) {
        let from = tempfile::tempdir().expect("tempdir");
        for (parts, made, mode) in &entries {
            make(from.path(), parts, made, *mode);
        }
        let committed = everything(from.path());
        let to = tempfile::tempdir().expect("tempdir");
        if has_lost_and_found {
            fs::create_dir(to.path().join("lost+found")).expect("mkdir");
        }
        recover(&state(to.path())).expect("recover");
        let mut stage = Stage::begin(&state(to.path()), RestoreOwner::Keep).expect("begin");
        for (found, content) in &committed {
            let staged = match &found.kind {
                FoundKind::Dir => stage
                    .dir(&found.path)
                    .and_then(|()| stage.set_dir_meta(&found.path, &found.meta)),
                FoundKind::File => stage.file(&found.path, &found.meta, content),
                FoundKind::Symlink { target } => stage.symlink(&found.path, target, &found.meta),
            };
            prop_assert!(staged.is_ok(), "{:?}: {staged:?}", found.path);
        }
        stage.install(&sample(1), "old").expect("install");
        let restored = everything(to.path());
        let facts = |all: &[(Found, Vec<u8>)]| -> Vec<_> {
            let fact = |(found, content): &(Found, Vec<u8>)| {
                (found.path.clone(), found.kind.clone(), found.meta, content.clone())
            };
            all.iter().map(fact).collect()
        };
        prop_assert_eq!(facts(&restored), facts(&committed));
        // And nothing of what is not archived has come along.
        let left = fs::read_dir(to.path()).expect("list").count();
        let top = committed.iter().filter(|(found, _)| found.path.parent().is_none()).count();
        prop_assert!(left <= top + 2, "{left} names, {top} of them committed");
        prop_assert!(to.path().join(STATE_DIR).is_dir());
    }
}
