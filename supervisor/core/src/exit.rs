//! Exit codes: a gateway's own are passed through; these are ours.
//!
//! They follow `sysexits.h` where it has a fitting one. The table in `docs/configuration.md` is
//! generated from [`ALL`].

/// The store could not be reached within `store.wait` (`EX_UNAVAILABLE`).
pub const STORE_UNAVAILABLE: u8 = 69;
/// Something inside sessionkeep failed that should not have (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
/// The gateway ended well, but its last changes could not be saved (`EX_IOERR`).
pub const FLUSH_FAILED: u8 = 74;
/// Another instance owns the session, or took it over (`EX_TEMPFAIL`).
pub const FENCED: u8 = 75;
/// A setting, the session directory or the command is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
/// The gateway's command was found but could not be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The gateway's command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to a signal's number where the gateway died of one.
pub const SIGNAL_BASE: u8 = 128;

/// Every code of our own with its meaning and the operator's next step.
pub const ALL: &[(u8, &str, &str)] = &[
    (
        STORE_UNAVAILABLE,
        "the store could not be reached within `store.wait`, or takes no writes",
        "run `sessionkeep doctor`; check that the database is up and the URL is right",
    ),
    (
        INTERNAL,
        "an internal error, or a restore that failed",
        "read the last error line; the directory is as it was, unless that says that a restore is half in place",
    ),
    (
        FLUSH_FAILED,
        "the gateway ended with 0, but its last changes could not be saved",
        "keep the directory: the next start commits what is whole in it, and puts back what is damaged",
    ),
    (
        FENCED,
        "another instance owns the session, or took it over",
        "let one instance run; `sessionkeep status` names the owner",
    ),
    (
        CONFIG,
        "a setting, the session directory or the command is wrong",
        "the error line names it and what to do",
    ),
    (
        CANNOT_EXECUTE,
        "the gateway's command cannot be executed",
        "check its permissions and its interpreter line",
    ),
    (
        NOT_FOUND,
        "the gateway's command was not found",
        "check the command and PATH",
    ),
];
