//! How children are started: what they get, and what they do not.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::machine::SpawnError;
use super::signals::Inherited;
use super::terminal::Placement;

/// What our variables begin with.
const OUR_PREFIX: &[u8] = b"SESSIONKEEP_";

/// What a variable's name ends with that names the file of a secret.
const NAMES_A_FILE: &[u8] = b"_FILE";

/// Variables without our prefix that are ours: store and admin credentials under the names that
/// people already use, and the descriptor-passing convention of whoever started us, which was
/// meant for this process. (A gateway that found a MongoDB URL would switch on a storage of its
/// own.)
const OURS: &[&str] = &[
    "ADMIN_TOKEN",
    "HEARTBEAT_URL",
    "IN_SESSIONKEEP_STACK",
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
        .filter(|(name, _)| !is_ours(name.as_bytes()))
        .collect()
}

/// Whether a variable of this name is ours, and no business of the gateway.
pub(super) fn is_ours(name: &[u8]) -> bool {
    let plain = name.strip_suffix(NAMES_A_FILE).unwrap_or(name);
    OURS.iter().any(|ours| ours.as_bytes() == plain) || name.starts_with(OUR_PREFIX)
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
    use std::ffi::OsStr;

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
            "MONGO_URL",
            "MONGO_URL_FILE",
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
            pair(b"WAHA_API_KEY_FILE", b"/k"),
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
