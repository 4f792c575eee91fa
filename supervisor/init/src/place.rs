//! Whether a directory can be a session directory at all. A restore moves aside what is in it, and a start
//! commits it: neither may happen to what belongs to the system, or to ourselves.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sessionkeep_core::state_dir::STATE_DIR;

use crate::setup::Storage;

/// Nothing below these is on a disk.
const KERNELS_OWN: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The one below them where files can be kept, if not for long.
const SHARED_MEMORY: &str = "/dev/shm";
/// Directories that many programs share. Those below them are nobody's concern: `/usr/src/app/session` is
/// as good as any.
const SHARED: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/dev/shm",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/run",
    "/run/lock",
    "/run/user",
    "/sbin",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/games",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/include",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/sbin",
    "/usr/share",
    "/usr/src",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/spool",
    "/var/tmp",
];
/// Of the system, unless a volume of their own is mounted there, as some do in a container.
const SHARED_UNLESS_MOUNTED: [&str; 2] = ["/opt", "/root"];

/// Why a directory cannot be the session directory.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It belongs to the system.
    #[error(
        "the session directory {0} belongs to the system, and a restore would move away what is in it; name a directory of the gateway's own, such as `/data/session`"
    )]
    SystemDirectory(Named),
    /// It lies in our own directory.
    #[error(
        "the session directory {dir} lies in a `{STATE_DIR}`, which is sessionkeep's own and never saved; name the directory around it, or one elsewhere"
    )]
    InOurOwn {
        /// The directory.
        dir: Named,
    },
    /// It holds this program.
    #[error(
        "the session directory {dir} holds sessionkeep itself (`{program}`), which a restore would move away; name a directory that holds the login alone, such as `/data/session`"
    )]
    HoldsProgram {
        /// The directory.
        dir: Named,
        /// Where the program lies.
        program: PathBuf,
    },
    /// It holds the store's file.
    #[error(
        "the session directory {dir} holds the store's file `{store}`, which would be wiped with it; keep one of the two elsewhere"
    )]
    HoldsStore {
        /// The directory.
        dir: Named,
        /// The store's file.
        store: PathBuf,
    },
    /// A link on the way to it leads nowhere.
    #[error(
        "the session directory `{dir}` cannot be reached: `{link}` is a link to `{target}`, which does not exist; create that, mount the volume that it is on, or name another directory"
    )]
    DanglingLink {
        /// The directory.
        dir: PathBuf,
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

/// A directory as it was given, and what it comes to where links lead elsewhere.
#[derive(Debug)]
pub struct Named {
    given: PathBuf,
    real: PathBuf,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.given.display())?;
        if self.given != self.real {
            write!(f, " (`{}`, where links lead to)", self.real.display())?;
        }
        Ok(())
    }
}

/// Looks at a directory that is to be the session directory and need not exist yet.
///
/// # Errors
/// Why it cannot be.
pub fn check(dir: &Path, storage: &Storage) -> Result<(), PlaceError> {
    let program = std::env::current_exe().ok();
    check_with(dir, storage, program.as_deref())
}

fn check_with(given: &Path, storage: &Storage, program: Option<&Path>) -> Result<(), PlaceError> {
    let real = resolve(given)?;
    let dir = || Named {
        given: given.to_owned(),
        real: real.clone(),
    };
    if is_systems(&real) {
        return Err(PlaceError::SystemDirectory(dir()));
    }
    let is_ours = |path: &Path| path.iter().any(|part| part == STATE_DIR);
    if is_ours(given) || is_ours(&real) {
        return Err(PlaceError::InOurOwn { dir: dir() });
    }
    if let Some(program) = program.filter(|program| program.starts_with(&real)) {
        let program = program.to_owned();
        return Err(PlaceError::HoldsProgram {
            dir: dir(),
            program,
        });
    }
    if let Storage::Store { file: Some(file) } = storage {
        let store = resolve_to_be_made(file);
        if store.starts_with(&real) {
            return Err(PlaceError::HoldsStore { dir: dir(), store });
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn resolve(dir: &Path) -> Result<PathBuf, PlaceError> {
    for above in dir.ancestors() {
        match fs::canonicalize(above) {
            Ok(real) => {
                let rest = dir.strip_prefix(above).unwrap_or(Path::new(""));
                // Joined with nothing, a path gets a slash at its end.
                let whole = if rest.as_os_str().is_empty() {
                    real
                } else {
                    real.join(rest)
                };
                return Ok(whole);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Who cannot look here cannot write here either, and is told so when it is tried.
            Err(_) => return Ok(dir.to_owned()),
        }
        if let Ok(target) = fs::read_link(above) {
            return Err(PlaceError::DanglingLink {
                dir: dir.to_owned(),
                link: above.to_owned(),
                target,
            });
        }
    }
    Ok(dir.to_owned())
}

/// The same for a file that may still have to be made: where a link leads nowhere, it will be made there.
fn resolve_to_be_made(file: &Path) -> PathBuf {
    const LINKS_MAX: usize = 40;
    let mut path = file.to_owned();
    for _ in 0..LINKS_MAX {
        match resolve(&path) {
            Ok(real) => return real,
            Err(PlaceError::DanglingLink { link, target, .. }) => {
                let rest = path.strip_prefix(&link).unwrap_or(Path::new("")).to_owned();
                let above = link.parent().unwrap_or(Path::new("/"));
                path = above.join(target);
                if !rest.as_os_str().is_empty() {
                    path.push(rest);
                }
            }
            Err(_) => break,
        }
    }
    path
}

fn is_systems(real: &Path) -> bool {
    let is = |list: &[&str]| list.iter().any(|shared| real == Path::new(shared));
    let kernels = KERNELS_OWN.iter().any(|above| real.starts_with(above));
    is(SHARED)
        || (kernels && !real.starts_with(SHARED_MEMORY))
        || (is(&SHARED_UNLESS_MOUNTED) && !is_mounted(real))
}

fn is_mounted(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    dir.parent()
        .is_some_and(|above| device(dir) != device(above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ELSEWHERE: Storage = Storage::Store { file: None };

    #[test]
    fn what_belongs_to_the_system_is_refused_through_links_too_and_what_is_below_is_not() {
        let root = tempfile::tempdir().expect("tempdir");
        let systems = [
            "/",
            "/dev",
            "/dev/pts/session",
            "/proc/self",
            "/sys/kernel",
            "/dev/shm",
            "/etc",
            "/usr",
            "/usr/local",
            "/usr/local/bin",
            "/var",
            "/var/lib",
            "/tmp",
            "/home",
            "/run",
            "/bin",
            "/boot",
        ];
        for (nth, system) in systems.iter().enumerate() {
            let error = check(Path::new(system), &ELSEWHERE).expect_err(system);
            let told = error.to_string();
            assert!(
                told.contains(system) && told.contains("/data/session"),
                "{told}"
            );
            let link = root.path().join(nth.to_string());
            symlink(system, &link).expect("link");
            // Where it does not exist here, as one that leads nowhere.
            check(&link, &ELSEWHERE).expect_err(system);
        }
        for good in [
            "/data",
            "/data/session",
            "/app",
            "/app/.sessions",
            "/usr/src/app",
            "/usr/src/app/session",
            "/var/lib/waha",
            "/dev/shm/session",
            "/home/bot",
            "/mnt",
            "/srv",
            "/opt/bot",
            "/tmp/session",
            "/run/session",
            "/root/session",
            "/etc/bot/session",
        ] {
            check(Path::new(good), &ELSEWHERE).expect(good);
        }
    }

    #[test]
    fn our_own_directory_and_all_in_it_is_refused_also_by_way_of_a_link() {
        let root = tempfile::tempdir().expect("tempdir");
        let ours = root.path().join("session").join(STATE_DIR);
        fs::create_dir_all(&ours).expect("mkdir");
        let link = root.path().join("link");
        symlink(&ours, &link).expect("link");
        for dir in [
            ours.clone(),
            ours.join("replaced/a"),
            link.clone(),
            link.join("a"),
        ] {
            let told = check(&dir, &ELSEWHERE).expect_err("it is ours").to_string();
            assert!(told.contains("sessionkeep's own"), "{told}");
        }
        check(&root.path().join("session"), &ELSEWHERE).expect("what is around it");
        check(&root.path().join(".sessionkeep-data"), &ELSEWHERE).expect("another name");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_with_its_target_wherever_in_the_path_it_is() {
        let root = tempfile::tempdir().expect("tempdir");
        let (link, gone) = (root.path().join("link"), root.path().join("gone"));
        symlink(&gone, &link).expect("link");
        for dir in [link.clone(), link.join("a/b")] {
            let error = check(&dir, &ELSEWHERE).expect_err("dangling");
            let PlaceError::DanglingLink {
                link: found,
                target,
                ..
            } = &error
            else {
                panic!("{error}")
            };
            assert_eq!((found, target), (&link, &gone));
        }
        fs::create_dir(&gone).expect("mkdir");
        check(&link.join("a/b"), &ELSEWHERE).expect("it leads somewhere now");
    }

    #[test]
    fn what_holds_the_program_or_the_store_is_refused() {
        let root = tempfile::tempdir().expect("tempdir");
        let root = fs::canonicalize(root.path()).expect("real");
        let (app, link) = (root.join("app"), root.join("link"));
        fs::create_dir(&app).expect("mkdir");
        symlink(&app, &link).expect("link");
        let program = app.join("bin/sessionkeep");
        let error = check_with(&link, &ELSEWHERE, Some(&program)).expect_err("it holds us");
        assert!(error.to_string().contains("bin/sessionkeep"), "{error}");
        check_with(&app.join("session"), &ELSEWHERE, Some(&program)).expect("beside it");
        let in_file = |file: PathBuf| Storage::Store { file: Some(file) };
        let kept = in_file(link.join("keep.db"));
        let error = check(&app, &kept).expect_err("it holds the store");
        assert!(error.to_string().contains("keep.db"), "{error}");
        let session = app.join("session");
        check(&session, &kept).expect("beside it");
        // Links to where it is still to be made.
        fs::create_dir(&session).expect("mkdir");
        for (name, target) in [("later.db", "session/later.db"), ("more.db", "later.db")] {
            symlink(target, app.join(name)).expect("link");
            let error = check(&session, &in_file(app.join(name))).expect_err("it will hold it");
            assert!(error.to_string().contains("session/later.db"), "{error}");
        }
    }
}
