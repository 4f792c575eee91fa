//! The data that everything is measured on, generated from seeds: the same at each run.

pub(crate) mod baileys;
pub(crate) mod chrome;
pub(crate) mod database;
pub(crate) mod random;

use std::fs;
use std::path::{Path, PathBuf};

/// All regular files below `root`, relative to it, in the order of their names.
pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        for entry in fs::read_dir(root.join(&below)).expect("list").flatten() {
            let path = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && entry.file_name() != ".sessionkeep" => {
                    pending.push(path);
                }
                Ok(kind) if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Copies all files of a tree.
pub(crate) fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().expect("a file has a parent")).expect("create");
        fs::copy(from.join(&file), target).expect("copy");
    }
}

/// Panics unless both trees hold the same files with the same contents.
pub(crate) fn assert_same(expected: &Path, found: &Path) {
    let (wanted, got) = (files_below(expected), files_below(found));
    assert_eq!(wanted.len(), got.len(), "the number of files in {found:?}");
    for (wanted, got) in wanted.iter().zip(&got) {
        assert_eq!(wanted, got, "the names in {found:?}");
        let same = fs::read(expected.join(wanted)).expect("read")
            == fs::read(found.join(got)).expect("read");
        assert!(same, "{got:?} came back with another content");
    }
}
