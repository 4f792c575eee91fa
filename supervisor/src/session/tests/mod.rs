//! Tests that need more than one module, or too much room to stand beside the code.

mod events;
mod install;
mod scan;
mod sqlite;
mod stage;
mod wal;

use std::path::Path;

use crate::config::ProfileName;
use crate::entry::RelPath;

use super::{Directory, Profile, StateDir};

fn rel(path: &str) -> RelPath {
    RelPath::new(path).expect("a usable path")
}

fn opened(root: &Path) -> Directory {
    Directory::open(root, Profile::new(ProfileName::Waha)).expect("the directory opens")
}

/// Its own part of a directory.
fn state(root: &Path) -> StateDir {
    StateDir::open(root).expect("it opens")
}
