//! What is looked at before anything is started, so that what cannot work fails at once and says
//! what to do.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::lock::{DirLock, LockError};
use super::place::PlaceError;
use sessionkeep_core::entry::Owner;
use sessionkeep_core::exit;
use sessionkeep_core::state_dir::StateDir;

/// Less free space than this is refused: a gateway that cannot write loses its keys.
const FREE_MIN: u64 = 16 * 1024 * 1024;
/// Where `execvp` looks when there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The file written to see that files can be written.
const PROBE: &str = "preflight";

/// Why nothing is started.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreflightError {
    #[error(
        "no gateway command given; write it after `--`, as in `sessionkeep run -- node bot.js`"
    )]
    NoCommand,
    #[error("failed to find the command `{0}`; check its name and PATH")]
    CommandNotFound(String),
    #[error("failed to execute `{0}`: it is not an executable file; check its permissions")]
    CommandNotExecutable(String),
    #[error("failed to create the session directory `{path}`; create it, or choose another")]
    CreateDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the session directory `{0}` is not a directory; remove the file, or choose another")]
    NotADirectory(PathBuf),
    #[error("failed to write in the session directory `{path}`; make it writable for this user")]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "only {free} bytes are free for the session directory `{path}`, at least {FREE_MIN} are needed; make space"
    )]
    Full { path: PathBuf, free: u64 },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl PreflightError {
    /// What to exit with.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::CommandNotFound(_) => exit::NOT_FOUND,
            Self::CommandNotExecutable(_) => exit::CANNOT_EXECUTE,
            Self::Lock(LockError::Held(_)) => exit::FENCED,
            _ => exit::CONFIG,
        }
    }
}

/// Looks at everything, in the order in which it is needed, and holds the directory from then on.
pub(super) fn check(
    dir: &Path,
    owner: Option<Owner>,
    command: &[OsString],
) -> Result<DirLock, PreflightError> {
    self::command(command)?;
    directory(dir, owner)?;
    let lock = DirLock::take(dir)?;
    // Space first: on a full disk the probe would fail too, with the less helpful message.
    let free = free_bytes(dir).map_err(|source| PreflightError::Unwritable {
        path: dir.to_owned(),
        source,
    })?;
    if free < FREE_MIN {
        let path = dir.to_owned();
        return Err(PreflightError::Full { path, free });
    }
    probe(lock.state()).map_err(|source| PreflightError::Unwritable {
        path: dir.to_owned(),
        source,
    })?;
    Ok(lock)
}

/// Looks for the command alone.
pub(super) fn command(command: &[OsString]) -> Result<(), PreflightError> {
    let program = command.first().ok_or(PreflightError::NoCommand)?;
    find(program, std::env::var_os("PATH").as_deref())
}

fn directory(dir: &Path, owner: Option<Owner>) -> Result<(), PreflightError> {
    if fs::metadata(dir).is_ok_and(|found| !found.is_dir()) {
        return Err(PreflightError::NotADirectory(dir.to_owned()));
    }
    super::directory::ensure(dir, owner).map_err(|source| PreflightError::CreateDir {
        path: dir.to_owned(),
        source,
    })
}

fn probe(state: &StateDir) -> io::Result<()> {
    let mut file = state.create(PROBE)?;
    let written = file.write_all(b"written to see whether this works\n");
    let written = written.and_then(|()| file.sync_all());
    let removed = state.remove(PROBE);
    written.and(removed)
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Looks a command up as `execvp` would.
fn find(program: &OsStr, path: Option<&OsStr>) -> Result<(), PreflightError> {
    let name = || program.to_string_lossy().into_owned();
    let mut not_executable = false;
    let mut works = |candidate: &Path| match fs::metadata(candidate) {
        Ok(found) if found.is_file() && may_execute(candidate) => true,
        Ok(_) => {
            not_executable = true;
            false
        }
        Err(_) => false,
    };
    let found = if program.is_empty() {
        false
    } else if program.as_bytes().contains(&b'/') {
        works(Path::new(program))
    } else {
        let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
        std::env::split_paths(path).any(|dir| works(&dir.join(program)))
    };
    match (found, not_executable) {
        (true, _) => Ok(()),
        (false, true) => Err(PreflightError::CommandNotExecutable(name())),
        (false, false) => Err(PreflightError::CommandNotFound(name())),
    }
}

fn may_execute(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the path is a C string that lives through the call.
    unsafe { libc::access(path.as_ptr(), libc::X_OK) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sessionkeep_core::state_dir::STATE_DIR;
    use std::os::unix::fs::PermissionsExt;

    fn code(result: Result<(), PreflightError>) -> u8 {
        result.err().map_or(0, |error| error.code())
    }

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let script = dir.path().join("bot");
        fs::write(&script, "#!/bin/sh\n").expect("write");
        let path = dir.path().as_os_str();
        let by_name = || find(OsStr::new("bot"), Some(path));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert_eq!(code(by_name()), exit::CANNOT_EXECUTE);
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(code(by_name()), 0);
        assert_eq!(code(find(script.as_os_str(), None)), 0);
        assert_eq!(code(find(OsStr::new("sh"), None)), 0, "the default path");
        assert_eq!(
            code(find(OsStr::new("not-there"), Some(path))),
            exit::NOT_FOUND
        );
        assert_eq!(code(find(OsStr::new(""), Some(path))), exit::NOT_FOUND);
        assert_eq!(code(find(path, None)), exit::CANNOT_EXECUTE, "a directory");
    }

    #[test]
    fn a_good_directory_is_created_held_and_left_clean() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = root.path().join("a/b");
        let command = [OsString::from("sh")];
        let lock = check(&dir, None, &command).expect("good");
        let again = check(&dir, None, &command).expect_err("it is held");
        assert_eq!(again.code(), exit::FENCED);
        assert!(again.to_string().contains("another sessionkeep"));
        drop(lock);
        let left: Vec<_> = fs::read_dir(dir.join(STATE_DIR))
            .expect("own directory")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let root = tempfile::tempdir().expect("tempdir");
        let file = root.path().join("file");
        fs::write(&file, "").expect("write");
        let command = [OsString::from("sh")];
        let error = check(&file, None, &command).expect_err("a file");
        assert_eq!(error.code(), exit::CONFIG);
        assert!(matches!(error, PreflightError::NotADirectory(_)));
        let error = check(&file.join("below"), None, &command).expect_err("below a file");
        assert!(matches!(error, PreflightError::CreateDir { .. }));
        let error = check(root.path(), None, &[]).expect_err("no command");
        assert_eq!(error.code(), exit::CONFIG);
    }
}
