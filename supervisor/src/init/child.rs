//! How children are started: what they get, and what they do not.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::SpawnError;
use super::signals::{Inherited, check};
use super::terminal::Placement;

/// Prefixes of variables that are ours.
const OUR_PREFIXES: &[&str] = &["SESSIONKEEP_", "_SESSIONKEEP_"];

/// Variables without our prefix that are ours: store and admin credentials under the names that
/// people already use, and the descriptor-passing convention of whoever started us, which was
/// meant for this process. (A gateway that found a MongoDB URL would switch on a storage of its
/// own.)
const OURS: &[&str] = &[
    "ADMIN_TOKEN",
    "HEARTBEAT_URL",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MONGO_ENABLED",
    "MONGO_URL",
    "WHATSAPP_SESSIONS_MONGO_URL",
];

/// What of an environment the gateway may see, byte for byte.
pub fn scrub(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    environment
        .into_iter()
        .filter(|(name, _)| !is_ours(name))
        .collect()
}

fn is_ours(name: &OsStr) -> bool {
    let name = name.as_bytes();
    OURS.iter().any(|ours| ours.as_bytes() == name)
        || OUR_PREFIXES.iter().any(|p| name.starts_with(p.as_bytes()))
}

/// How we execute ourselves again: by the kernel's own link, which stays right when the file has
/// been replaced, or by the path found at start where `/proc` is not mounted.
pub(super) fn own_executable() -> PathBuf {
    let link = Path::new("/proc/self/exe");
    if link.exists() {
        return link.to_owned();
    }
    std::env::current_exe()
        .ok()
        .or_else(|| std::env::args_os().next().map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("sessionkeep"))
}

/// The gateway: own process group, our stdio, the scrubbed environment.
pub(super) fn gateway(
    command: &[OsString],
    environment: &[(OsString, OsString)],
    placement: Placement,
    inherited: Inherited,
) -> Command {
    let (program, arguments) = command
        .split_first()
        .expect("preflight refuses an empty command");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)));
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            placement.take()?;
            inherited.restore()
        });
    }
    command
}

/// A helper: ourselves with a subcommand, `inherit` kept open under the same numbers.
///
/// It has its own session, so that neither a terminal's interrupt nor a signal to our group
/// reaches it: when it ends is for init to say. It does not outlive init.
pub(super) fn helper(
    executable: &Path,
    subcommand: &str,
    environment: Vec<(&'static str, OsString)>,
    inherit: Vec<RawFd>,
    inherited: Inherited,
) -> Command {
    let mut command = Command::new(executable);
    command
        .arg0("sessionkeep")
        .arg(subcommand)
        .envs(environment);
    // The gateway's input is not theirs to read. A container without /dev/null is no reason not
    // to start them.
    if Path::new("/dev/null").exists() {
        command.stdin(Stdio::null());
    }
    // SAFETY: it only asks for our own id.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing, except for
    // an error that is about to end the child.
    unsafe {
        command.pre_exec(move || {
            check(libc::setsid())?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
            // Init may have died before the line above; then nobody would tell us.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for fd in &inherit {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
            inherited.restore()
        });
    }
    command
}

/// What a failed start means.
pub(super) fn spawn_error(error: &io::Error) -> SpawnError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::ENFILE | libc::EMFILE) => SpawnError::NoResources,
        Some(libc::ENOENT | libc::ENOTDIR) => SpawnError::NotFound,
        _ => SpawnError::CannotExecute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_sees_nothing_of_ours_and_everything_else_byte_for_byte() {
        let pair = |name: &[u8], value: &[u8]| {
            (
                OsStr::from_bytes(name).to_owned(),
                OsStr::from_bytes(value).to_owned(),
            )
        };
        let ours = [
            "SESSIONKEEP_STORE",
            "SESSIONKEEP_",
            "_SESSIONKEEP_SETTINGS",
            "_SESSIONKEEP_CONTROL_FD",
            "MONGO_URL",
            "MONGO_ENABLED",
            "WHATSAPP_SESSIONS_MONGO_URL",
            "ADMIN_TOKEN",
            "HEARTBEAT_URL",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
        ];
        let theirs = [
            pair(b"PATH", b"/bin"),
            pair(b"WAHA_API_KEY", b"k"),
            pair(b"SESSIONS_PATH", b"/s"),
            pair(b"PORT", b"3000"),
            pair(b"MY_SESSIONKEEP_X", b"1"),
            pair(b"MONGO_URL_X", b"1"),
            pair(b"BYTES", b"\xff\xfe=\n"),
            pair(b"EMPTY", b""),
        ];
        let all = theirs
            .iter()
            .cloned()
            .chain(ours.iter().map(|name| pair(name.as_bytes(), b"secret")));
        assert_eq!(scrub(all), theirs);
    }
}
