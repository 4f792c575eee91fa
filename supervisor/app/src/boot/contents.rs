//! Committed contents of files, read into files of our own and verified: what they are is looked at
//! before anything is done with them, and a large one is never in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use sessionkeep_archive::fetch::{At, Sink, Verifier, Wanted};
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::beneath;
use sessionkeep_core::beneath::Place;
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::form::read_form;
use sessionkeep_session::identity::{self, Login};
use sessionkeep_session::{Check, Form, FormReader, json, snapshot, sqlite};

/// Where they are, in our own directory.
const CONTENTS: &str = "contents";
const BLOCK: usize = 64 << 10;
/// Nobody else has them open.
const BUSY: Duration = Duration::from_millis(200);

/// A [`Sink`] that keeps what it is given.
#[derive(Debug)]
pub(crate) struct Contents {
    dir: OwnedFd,
    verifier: Verifier,
    /// Of which only some pieces have come.
    partial: HashMap<usize, File>,
    whole: Vec<Content>,
}

/// A whole file.
#[derive(Debug)]
pub(crate) struct Content {
    /// Whose it is.
    pub(crate) path: RelPath,
    /// What it is called in [`Contents::dir`].
    pub(crate) name: String,
}

impl Contents {
    /// With nothing in it.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn begin(state: &StateDir) -> io::Result<Self> {
        Self::clear(state)?;
        Ok(Self {
            dir: state.dir(CONTENTS)?,
            verifier: Verifier::default(),
            partial: HashMap::new(),
            whole: Vec::new(),
        })
    }

    /// Removes all of it, also what a process left that was killed: it holds keys.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn clear(state: &StateDir) -> io::Result<()> {
        state.remove_tree(CONTENTS)
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// All files that have come.
    pub(crate) fn whole(&self) -> &[Content] {
        &self.whole
    }

    /// What form one of them has.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn form(&self, content: &Content) -> io::Result<Form> {
        let (dir, name) = (self.dir(), content.name.as_bytes());
        if !json::is_json_name(&content.path) && sqlite::is_database(dir, name)? {
            let place = Place::below(dir, name)?;
            return Ok(
                match snapshot(&place, BUSY, Check::Quick, &mut |_, _| Ok(())) {
                    Ok(_) => Form::Database,
                    Err(_) => Form::Broken,
                },
            );
        }
        let read = read_form(dir, name, BLOCK, FormReader::of(&content.path));
        read.map(|(form, _)| form).map_err(io::Error::other)
    }

    /// The login that one of them keeps, where it is a database that keeps one.
    pub(crate) fn login(&self, path: &RelPath) -> Option<Login> {
        let content = self.whole.iter().find(|content| content.path == *path)?;
        let place = Place::below(self.dir(), content.name.as_bytes()).ok()?;
        identity::read_at(&place, path).ok()
    }

    /// What form each has.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn forms(&self) -> io::Result<Vec<(RelPath, Form)>> {
        let form = |content: &Content| Ok((content.path.clone(), self.form(content)?));
        self.whole.iter().map(form).collect()
    }

    fn put(&mut self, at: At, content: &[u8]) -> io::Result<()> {
        let file = match self.partial.entry(at.file) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
                let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                let name = at.file.to_string();
                let made = beneath::open(self.dir.as_fd(), name.as_bytes(), flags, mode)?;
                free.insert(File::from(made))
            }
        };
        file.write_all_at(content, at.offset)
    }
}

impl Sink for Contents {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        let is_whole = self.verifier.piece(at, wanted, content)?;
        self.put(at, content).map_err(|source| ArchiveError::Io {
            action: "write a committed file",
            source,
        })?;
        if is_whole {
            self.partial.remove(&at.file);
            self.whole.push(Content {
                path: wanted.path.clone(),
                name: at.file.to_string(),
            });
        }
        Ok(())
    }
}
