//! Restores into directories of which something cannot be renamed: real overlayfs, real mounts.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};

use super::super::install::{Recovered, recover, recover_with};
use super::super::marker::tests::sample;
use super::super::{Marker, Stage, StageError};
use super::install::{NEW, OLD, assert_new, content, cut_after, expected, old, staged};
use super::stage::meta;
use super::{namespace, rel, state};
use crate::rights::RestoreOwner;
use sessionkeep_core::state_dir::STATE_DIR;

const NONE: Option<&str> = None;

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).expect("bind");
}

fn memory(at: &Path) {
    fs::create_dir_all(at).expect("mkdir");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount");
}

/// A root file system as a container has it: `auth` with the old content is of the image.
fn image(workshop: &Path) -> PathBuf {
    let (lower, merged) = (workshop.join("image"), workshop.join("root"));
    fs::create_dir_all(lower.join("auth")).expect("mkdir");
    old(&lower.join("auth"));
    for dir in ["upper", "work", "root"] {
        fs::create_dir(workshop.join(dir)).expect("mkdir");
    }
    let at = |dir: &str| workshop.join(dir).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=off",
        lower.display(),
        at("upper"),
        at("work")
    );
    let flags = MsFlags::empty();
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        flags,
        Some(&options[..]),
    )
    .expect("overlayfs");
    merged.join("auth")
}

/// A volume of its own for `sub`.
fn volume(workshop: &Path) -> PathBuf {
    let root = workshop.join("session");
    fs::create_dir(&root).expect("mkdir");
    memory(&root.join("sub"));
    fs::create_dir(root.join("sub/lost+found")).expect("mkdir");
    fs::write(root.join("creds.json"), "old").expect("write");
    fs::write(root.join("only-old"), "old").expect("write");
    fs::write(root.join("sub/a"), "old a").expect("write");
    fs::write(root.join("sub/b"), "old b").expect("write");
    root
}

/// A directory of the same file system, bound over `sub`.
fn bound(workshop: &Path) -> PathBuf {
    let root = workshop.join("session");
    fs::create_dir(&root).expect("mkdir");
    old(&root);
    let elsewhere = workshop.join("elsewhere");
    fs::rename(root.join("sub"), &elsewhere).expect("move");
    fs::create_dir(root.join("sub")).expect("mkdir");
    bind(&elsewhere, &root.join("sub"));
    root
}

/// A mount that is deeper, and empty.
fn deep(workshop: &Path) -> PathBuf {
    let root = workshop.join("session");
    fs::create_dir(&root).expect("mkdir");
    old(&root);
    memory(&root.join("sub/deep/volume"));
    root
}

/// Makes a session directory with the old content in an empty directory.
type Make = fn(&Path) -> PathBuf;

const PLACES: [(&str, Make); 4] = [
    ("image", image),
    ("volume", volume),
    ("bound", bound),
    ("deep", deep),
];

/// Does it in a new place of each kind.
fn in_each(mut act: impl FnMut(&str, &Path) + Send) {
    namespace(|| {
        for (name, make) in PLACES {
            let workshop = tempfile::tempdir().expect("tempdir");
            memory(workshop.path());
            act(name, &make(workshop.path()));
            let detach = nix::mount::MntFlags::MNT_DETACH;
            nix::mount::umount2(workshop.path(), detach).expect("unmount");
        }
    });
}

#[test]
fn what_cannot_be_renamed_is_merged_and_everything_is_as_in_a_plain_directory() {
    in_each(|name, root| {
        let installed = staged(root).install(&sample(5), "then");
        let installed = installed.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(installed.replaced_entries, 3, "{name}");
        assert_new(root, name);
        let time = |path: &str| fs::metadata(root.join(path)).expect("stat").mtime_nsec();
        assert_eq!((time("sub"), time("sub/a")), (99, 7), "{name}");
        let again = staged(root)
            .install(&sample(6), "again")
            .expect("once more");
        assert_eq!(content(root), expected(&NEW), "{name}");
        let replaced = again.replaced.expect("set aside");
        assert_eq!(content(&replaced), expected(&NEW), "{name}");
    });
}

#[test]
fn a_crash_at_any_step_of_a_merge_ends_in_the_old_directory_or_the_new_one_whole() {
    let mut finished = std::collections::BTreeMap::new();
    for steps in 0.. {
        let mut through = 0;
        in_each(|name, root| {
            let cut = staged(root).install_with(&sample(5), "then", &mut cut_after(steps));
            let case = format!("{name}, cut off after {steps} steps: {cut:?}");
            if cut.is_ok() {
                assert_new(root, &case);
                through += 1;
                return;
            }
            // The recovery is cut off as well, at each of its own steps.
            let mut later = 0;
            let recovered = loop {
                match recover_with(&state(root), &mut cut_after(later)) {
                    Ok(recovered) => break recovered,
                    Err(_) => later += 3,
                }
            };
            match recovered {
                Recovered::Finished { marker, .. } => {
                    assert_eq!(marker, sample(5), "{case}");
                    assert_new(root, &case);
                    *finished.entry(name.to_owned()).or_insert(0) += 1;
                }
                Recovered::Nothing | Recovered::Discarded => {
                    assert_eq!(content(root), expected(&OLD), "{case}");
                    assert_eq!(Marker::read(&state(root)).expect("marker"), None);
                }
            }
        });
        if through == PLACES.len() || !nix::unistd::geteuid().is_root() {
            break;
        }
    }
    for (name, count) in finished {
        assert!(
            count > 12,
            "{name}: only {count} cuts came after the journal"
        );
    }
}

#[test]
fn links_modes_times_holes_and_pipes_come_into_a_volume_as_they_are() {
    namespace(|| {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        memory(&root.join("sub"));
        nix::unistd::mkfifo(&root.join("sub/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        symlink("pipe", root.join("sub/old-link")).expect("link");
        let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
        stage.dir(&rel("sub/deep/er")).expect("dir");
        for (dir, mode) in [("sub", 0o2750), ("sub/deep", 0o500), ("sub/deep/er", 0o711)] {
            stage.set_dir_meta(&rel(dir), &meta(mode, 5)).expect("note");
        }
        let m = meta(0o4640, 1_000_000_007);
        stage
            .symlink(&rel("sub/link"), b"deep/f", &m)
            .expect("link");
        let file = stage.begin_file(&rel("sub/deep/f"), 8 << 20).expect("file");
        file.write_at(4 << 20, b"middle").expect("write");
        stage.finish(file, &m).expect("finish");
        stage.install(&sample(1), "then").expect("install");
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).expect("stat");
        let bits = |path: &str| stat(path).mode() & 0o7777;
        assert_eq!((bits("sub/deep"), bits("sub/deep/er")), (0o500, 0o711));
        assert_eq!(bits("sub"), 0o2750);
        let file = stat("sub/deep/f");
        assert_eq!((file.mode() & 0o7777, file.mtime()), (0o4640, 1));
        let read = fs::read(root.join("sub/deep/f")).expect("read");
        assert_eq!(
            (read.len(), &read[4 << 20..][..6]),
            (8 << 20, &b"middle"[..])
        );
        assert_eq!(stat("sub/link").mtime(), 1);
        let replaced = root.join(STATE_DIR).join("replaced/then/sub");
        let kind = |name: &str| {
            fs::symlink_metadata(replaced.join(name))
                .expect("kept")
                .file_type()
        };
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind("pipe")));
        assert!(kind("old-link").is_symlink());
        umount(&root.join("sub")).expect("unmount");
    });
}

#[test]
fn a_mounted_file_keeps_what_it_has_and_one_of_a_login_stops_a_restore_beforehand() {
    namespace(|| {
        let workshop = tempfile::tempdir().expect("tempdir");
        for (name, own, refused) in [
            ("zeta", "the operator's", false),
            ("creds.json", "new", false),
            ("creds.json", "another", true),
            ("sub/c", "SQLite format 3\0 of another time", true),
        ] {
            let root = workshop.path().join("session");
            fs::create_dir(&root).expect("mkdir");
            old(&root);
            let host = workshop.path().join("host");
            fs::write(&host, own).expect("write");
            fs::write(root.join(name), "").expect("a place for it");
            bind(&host, &root.join(name));
            let before = content(&root);
            let got = staged(&root).install(&sample(5), "then");
            match (refused, got) {
                (true, Err(StageError::MountedLogin { path })) => {
                    assert_eq!(path, rel(name));
                    assert_eq!(content(&root), before, "{name}: something was touched");
                    assert_eq!(recover(&state(&root)).expect("recover"), Recovered::Nothing);
                }
                (false, Ok(_)) => {
                    let mut new = expected(&NEW);
                    new.insert(name.to_owned(), own.to_owned());
                    assert_eq!(content(&root), new, "{name}");
                    assert_eq!(fs::read_to_string(&host).expect("read"), own);
                }
                (_, got) => panic!("{name}: {got:?}"),
            }
            umount(&root.join(name)).expect("unmount");
            fs::remove_dir_all(&root).expect("remove");
        }
    });
}

#[test]
fn what_is_no_directory_in_the_archive_and_a_mount_here_is_refused_beforehand() {
    namespace(|| {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        // It is a file in the archive.
        memory(&root.join("zeta/volume"));
        fs::write(root.join("creds.json"), "{}").expect("write");
        let got = staged(root).install(&sample(1), "now");
        assert!(matches!(got, Err(StageError::MountPoint { .. })), "{got:?}");
        assert!(got.is_err_and(|error| error.is_of_the_setup()));
        assert!(root.join("creds.json").exists());
        assert!(!root.join(STATE_DIR).join("staging").exists());
        umount(&root.join("zeta/volume")).expect("unmount");
    });
}

#[test]
fn an_interrupted_restore_is_not_gone_on_with_where_a_mount_is_missing() {
    namespace(|| {
        let workshop = tempfile::tempdir().expect("tempdir");
        let root = bound(workshop.path());
        let cut = staged(&root).install_with(&sample(5), "then", &mut cut_after(6));
        assert!(cut.is_err());
        umount(&root.join("sub")).expect("unmount");
        let got = recover(&state(&root)).expect_err("refused");
        assert!(got.is_of_the_setup(), "{got:?}");
        bind(&workshop.path().join("elsewhere"), &root.join("sub"));
        fs::create_dir(root.join("more")).expect("mkdir");
        memory(&root.join("more"));
        let got = recover(&state(&root)).expect_err("refused");
        assert!(got.is_of_the_setup(), "{got:?}");
        umount(&root.join("more")).expect("unmount");
        let got = recover(&state(&root)).expect("goes on");
        assert!(matches!(got, Recovered::Finished { .. }), "{got:?}");
        assert_new(&root, "after it was mounted again");
        umount(&root.join("sub")).expect("unmount");
    });
}
