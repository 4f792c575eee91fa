//! An installation that is cut off at any step is finished by `recover`, however often.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::install::{Recovered, recover, recover_with};
use super::super::marker::tests::sample;
use super::super::{Marker, Stage, StageError};
use super::stage::meta;
use super::{opened, rel, state};
use crate::rights::RestoreOwner;
use sessionkeep_core::state_dir::STATE_DIR;

pub(super) const OLD: [(&str, &str); 4] = [
    ("creds.json", "old"),
    ("only-old", "old"),
    ("sub/a", "old a"),
    ("sub/b", "old b"),
];
pub(super) const NEW: [(&str, &str); 4] = [
    ("creds.json", "new"),
    ("sub/a", "new a"),
    ("sub/c", "new c"),
    ("zeta", "new"),
];

pub(super) fn content(root: &Path) -> BTreeMap<String, String> {
    let mut content = BTreeMap::new();
    opened(root).scan(None, &mut |_, _| {}, &mut |found| {
        if let Ok(text) = fs::read_to_string(found.path.under(root)) {
            content.insert(found.path.to_string(), text);
        }
    });
    content
}

pub(super) fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    files.iter().map(owned).collect()
}

pub(super) fn old(root: &Path) {
    fs::create_dir(root.join("sub")).expect("mkdir");
    for (path, text) in OLD {
        fs::write(root.join(path), text).expect("write");
    }
}

pub(super) fn staged(root: &Path) -> Stage {
    let mut stage = Stage::begin(&state(root), RestoreOwner::Keep).expect("begin");
    stage.dir(&rel("sub")).expect("dir");
    stage
        .set_dir_meta(&rel("sub"), &meta(0o550, 99))
        .expect("note");
    for (path, text) in NEW {
        let meta = meta(0o600, 1_000_000_007);
        stage
            .file(&rel(path), &meta, text.as_bytes())
            .expect("file");
    }
    stage
}

/// Lets `steps` steps pass and cuts the next one off, as a crash would.
pub(super) fn cut_after(steps: usize) -> impl FnMut(&'static str) -> Result<(), StageError> {
    let mut left = steps;
    move |step| {
        left = left.checked_sub(1).ok_or_else(|| StageError::Io {
            action: "go on with",
            what: step.to_owned(),
            source: std::io::ErrorKind::Interrupted.into(),
        })?;
        Ok(())
    }
}

pub(super) fn assert_new(root: &Path, case: &str) {
    assert_eq!(content(root), expected(&NEW), "{case}");
    let replaced = root.join(STATE_DIR).join("replaced/then");
    assert_eq!(
        content(&replaced),
        expected(&OLD),
        "{case}: something is lost"
    );
    assert_eq!(
        Marker::read(&state(root)).expect("marker"),
        Some(sample(5)),
        "{case}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.join("sub")).expect("stat"));
    assert_eq!(mode & 0o7777, 0o550, "{case}");
    for left in ["staging", "install.json", "install.json.tmp"] {
        assert!(
            !root.join(STATE_DIR).join(left).exists(),
            "{case}: {left} is left"
        );
    }
    assert_eq!(
        recover(&state(root)).expect("recover"),
        Recovered::Nothing,
        "{case}"
    );
}

#[test]
fn a_crash_at_any_step_ends_in_the_old_directory_or_the_new_one_whole() {
    let mut finished = 0;
    for steps in 0.. {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        old(root);
        let cut = staged(root).install_with(&sample(5), "then", &mut cut_after(steps));
        let case = format!("cut off after {steps} steps: {cut:?}");
        if let Ok(installed) = cut {
            assert_eq!(installed.replaced_entries, 3);
            assert_new(root, &case);
            assert!(steps > 12, "there are hardly any steps");
            break;
        }
        match recover(&state(root)).expect("recover") {
            Recovered::Finished { marker, installed } => {
                assert_eq!((marker, installed.replaced_entries), (sample(5), 3));
                assert_new(root, &case);
                finished += 1;
            }
            Recovered::Nothing | Recovered::Discarded => {
                assert_eq!(finished, 0, "{case}: a later step undid an earlier one");
                assert_eq!(content(root), expected(&OLD), "{case}");
                assert_eq!(Marker::read(&state(root)).expect("marker"), None);
            }
        }
    }
    assert!(finished > 8, "only {finished} cuts came after the journal");
}

#[test]
fn a_recovery_that_is_itself_cut_off_again_and_again_comes_to_an_end() {
    for first in 2..12 {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        old(root);
        let cut = staged(root).install_with(&sample(5), "then", &mut cut_after(first));
        assert!(cut.is_err());
        let mut steps = 0;
        while recover_with(&state(root), &mut cut_after(steps)).is_err() {
            steps += 1;
        }
        assert_new(root, &format!("first cut after {first} steps"));
    }
}

#[test]
fn a_staging_that_no_journal_names_is_discarded() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    old(root);
    std::mem::forget(staged(root));
    assert_eq!(
        recover(&state(root)).expect("recover"),
        Recovered::Discarded
    );
    assert_eq!(content(root), expected(&OLD));
    assert_eq!(recover(&state(root)).expect("recover"), Recovered::Nothing);
}

#[test]
fn labels_that_are_taken_get_a_number_and_an_empty_directory_gets_none() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    let first = staged(root).install(&sample(1), "t/1").expect("install");
    assert_eq!((first.replaced, first.replaced_entries), (None, 0));
    assert!(!root.join(STATE_DIR).join("replaced").exists());
    for name in ["t-1", "t-1-2", "t-1-3"] {
        let again = staged(root).install(&sample(2), "t/1").expect("install");
        let place = root.join(STATE_DIR).join("replaced").join(name);
        assert_eq!(again.replaced.as_deref(), Some(place.as_path()));
        assert_eq!(content(&place), expected(&NEW));
    }
    assert_eq!(content(root), expected(&NEW));
}

#[test]
fn a_journal_that_is_damaged_stops_the_recovery_with_everything_in_place() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    old(root);
    let cut = staged(root).install_with(&sample(5), "then", &mut cut_after(5));
    assert!(cut.is_err());
    let journal = root.join(STATE_DIR).join("install.json");
    let whole = fs::read(&journal).expect("read");
    fs::write(&journal, &whole[..whole.len() / 2]).expect("tear");
    assert!(matches!(
        recover(&state(root)),
        Err(StageError::Journal { .. })
    ));
    fs::write(&journal, whole).expect("mend");
    assert!(matches!(
        recover(&state(root)),
        Ok(Recovered::Finished { .. })
    ));
    assert_new(root, "after mending");
}

#[test]
fn read_only_directories_are_moved_and_removed_without_root_too() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path();
    super::scan::unprivileged(root, || {
        old(root);
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        fs::set_permissions(root.join("sub"), closed).expect("chmod");
        std::mem::forget(staged(root));
        recover(&state(root)).expect("discard");
        staged(root).install(&sample(5), "then").expect("install");
        assert_new(root, "without root");
    });
}

/// Cuts an installation off, has its journal changed, and tries to go on.
fn recover_after(change: impl Fn(&mut serde_json::Value)) -> (tempfile::TempDir, StageError) {
    let temp = tempfile::tempdir().expect("tempdir");
    let root = temp.path().join("session");
    fs::create_dir(&root).expect("mkdir");
    old(&root);
    staged(&root)
        .install_with(&sample(1), "then", &mut |step| match step {
            "move an old item" => Err(StageError::Io {
                action: "go on",
                what: "a crash".into(),
                source: std::io::ErrorKind::Other.into(),
            }),
            _ => Ok(()),
        })
        .expect_err("cut off");
    let path = root.join(STATE_DIR).join("install.json");
    let mut journal = serde_json::from_slice(&fs::read(&path).expect("a journal")).expect("JSON");
    change(&mut journal);
    fs::write(&path, journal.to_string()).expect("write");
    let error = recover(&state(&root)).expect_err("refused");
    assert_eq!(content(&root), expected(&OLD), "something has moved");
    (temp, error)
}

#[test]
fn a_journal_that_names_a_place_elsewhere_moves_nothing_there() {
    for label in ["../../../elsewhere", "/elsewhere", "..", "a/b", ""] {
        let (temp, error) = recover_after(|journal| journal["label"] = label.into());
        assert!(
            matches!(error, StageError::Journal { .. }),
            "{label}: {error}"
        );
        assert!(!temp.path().join("elsewhere").exists());
    }
}

#[test]
fn a_journal_of_a_newer_version_is_left_to_it() {
    let (_temp, error) = recover_after(|journal| journal["version"] = 3.into());
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("version 3"), "{cause}");
}
