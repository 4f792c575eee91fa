//! How the texts of settings are read and shown: names of choices, spans, numbers, addresses, secrets.

use std::fmt::Write as _;
use std::time::Duration;

use super::duration;
use super::model::{Conflict, FreezePolicy, LogFormat, LogLevel, OutagePolicy, Unreachable};
use crate::gateway::ProfileName;
use sessionkeep_core::entry::Owner;
use sessionkeep_core::invalid::Invalid;
use sessionkeep_core::secret::Secret;
use sessionkeep_core::suggest;
use sessionkeep_init::RestartPolicy;
use sessionkeep_session::rights::RestoreOwner;

/// Names of values, the one that is shown first.
pub(super) type Names<T> = &'static [(&'static str, T)];

pub(super) const PROFILES: Names<ProfileName> = ProfileName::ALL;
pub(super) const UNREACHABLE: Names<Unreachable> =
    &[("fail", Unreachable::Fail), ("local", Unreachable::Local)];
pub(super) const FREEZE: Names<FreezePolicy> =
    &[("auto", FreezePolicy::Auto), ("never", FreezePolicy::Never)];
pub(super) const OUTAGE: Names<OutagePolicy> = &[
    ("keep-running", OutagePolicy::KeepRunning),
    ("stop", OutagePolicy::Stop),
];
pub(super) const CONFLICT: Names<Conflict> = &[
    ("takeover", Conflict::Takeover),
    ("wait", Conflict::Wait),
    ("refuse", Conflict::Refuse),
];
pub(super) const RESTART: Names<RestartPolicy> = &[
    ("no", RestartPolicy::No),
    ("on-failure", RestartPolicy::OnFailure),
    ("always", RestartPolicy::Always),
];
/// Ours first; then what gateways take for `LOG_LEVEL`, which is theirs as well.
pub(super) const LEVELS: Names<LogLevel> = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
    ("silent", LogLevel::Error),
    ("fatal", LogLevel::Error),
    ("critical", LogLevel::Error),
    ("warning", LogLevel::Warn),
    ("notice", LogLevel::Info),
    ("log", LogLevel::Info),
    ("http", LogLevel::Info),
    ("verbose", LogLevel::Debug),
    ("silly", LogLevel::Trace),
];
pub(super) const FORMATS: Names<LogFormat> = &[
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("pretty", LogFormat::Text),
];

pub(super) fn choice<T: Copy>(names: Names<T>, text: &str) -> Result<T, Invalid> {
    let found = names
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, value)) = found {
        return Ok(*value);
    }
    let mut remedy = String::from("write ");
    if let Some(meant) = suggest::nearest(text, names.iter().map(|(name, _)| *name)) {
        let _ = write!(remedy, "`{meant}`");
    } else {
        let all: Vec<String> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
        let _ = write!(remedy, "one of {}", all.join(", "));
    }
    Err(Invalid::new("is none of the known values", remedy))
}

pub(super) fn name_of<T: Copy + PartialEq>(names: Names<T>, value: T) -> String {
    names
        .iter()
        .find(|(_, known)| *known == value)
        .map_or_else(String::new, |(name, _)| (*name).to_owned())
}

pub(super) fn span(text: &str, least: Duration) -> Result<Duration, Invalid> {
    let span = duration::parse(text)?;
    if span < least {
        let least = duration::show(least);
        return Err(Invalid::new(
            "is too short to work",
            format!("write `{least}` or more"),
        ));
    }
    Ok(span)
}

pub(super) fn number(text: &str, most: u32) -> Result<u32, Invalid> {
    match text.parse::<u32>() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(Invalid::new(
            "is no such number",
            format!("write a whole number from 0 to {most}"),
        )),
    }
}

/// An owner in numbers, as `1000:1000`.
pub(super) fn owner(text: &str) -> Result<Owner, Invalid> {
    // The highest number stands for "as it is" in the kernel's calls.
    let number = |id: &str| id.parse::<u32>().ok().filter(|id| *id < u32::MAX);
    let parsed = text.split_once(':').and_then(|(uid, gid)| {
        Some(Owner {
            uid: number(uid)?,
            gid: number(gid)?,
        })
    });
    parsed.ok_or_else(|| {
        Invalid::new(
            "is no owner in numbers",
            "write a user and a group as numbers, such as `1000:1000`; `id NAME` shows both",
        )
    })
}

/// What owners a restore gives.
pub(super) fn owners(text: &str) -> Result<RestoreOwner, Invalid> {
    match text {
        _ if text.eq_ignore_ascii_case("keep") => Ok(RestoreOwner::Keep),
        _ if text.eq_ignore_ascii_case("self") => Ok(RestoreOwner::Ourselves),
        _ if text.contains(':') => owner(text).map(RestoreOwner::To),
        _ => Err(Invalid::new(
            "is none of the known values",
            "write `keep`, `self`, or a user and a group as numbers, such as `1000:1000`",
        )),
    }
}

pub(super) fn owners_shown(owners: RestoreOwner) -> String {
    match owners {
        RestoreOwner::Keep => "keep".to_owned(),
        RestoreOwner::Ourselves => "self".to_owned(),
        RestoreOwner::To(owner) => owner.to_string(),
    }
}

pub(super) fn probe(text: &str) -> Result<Option<String>, Invalid> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(Invalid::new(
            "is no plain HTTP address",
            "write one such as `http://127.0.0.1:3000/ping`, or `off`",
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err(Invalid::new(
            "names no host",
            "write one such as `http://127.0.0.1:3000/ping`",
        ));
    }
    // A probe counts any answer, a 401 too, so that a password has no use in it.
    if rest.contains('@') || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Invalid::new(
            "holds a user name, a password or a blank",
            "leave them out: a 401 counts as an answer, too",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// An address that something is sent to, such as `https://host/path?key`.
pub(super) fn address(text: &str) -> Result<Option<Secret>, Invalid> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let parsed = text.parse::<hyper::Uri>();
    let names_host = parsed.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let user = rest.is_some_and(|rest| {
        rest.split(['/', '?'])
            .next()
            .is_some_and(|a| a.contains('@'))
    });
    if rest.is_none_or(str::is_empty) || !names_host || user {
        return Err(Invalid::new(
            "is no address that can be used",
            "write one that begins with `http://` or `https://` and names a host, without a user name, or `off`",
        ));
    }
    Ok(Some(Secret::new(text)))
}

/// A secret that is presented by hand or in a header. A line break at its end is what `echo` or an editor
/// put into the file that a host makes the variable of.
pub(super) fn secret(text: &str) -> Result<Secret, Invalid> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim() != text {
        return Err(Invalid::new(
            "begins or ends with a blank, which gets lost on the way in a header",
            "take the blank out, here and wherever the secret is presented",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(
            "holds a line break or another control character, which nobody can present",
            "write it on one line",
        ));
    }
    Ok(Secret::new(text))
}

/// Whether quotes stand around a text, of which no shell has taken them off.
pub(super) fn is_quoted(text: &str) -> bool {
    const PAIRS: [(char, char); 5] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{2018}', '\u{2019}'),
    ];
    let mut signs = text.chars();
    let ends = (signs.next(), signs.next_back());
    PAIRS
        .iter()
        .any(|(first, last)| ends == (Some(*first), Some(*last)))
}

/// Whether a secret is set, and no more.
pub(super) fn hidden(secret: Option<&Secret>) -> String {
    match secret {
        Some(_) => "[redacted]".to_owned(),
        None => "none".to_owned(),
    }
}

/// Some put a key into the query.
pub(super) fn probe_shown(url: &str) -> String {
    match url.split_once('?') {
        Some((address, _)) => format!("{address}?[redacted]"),
        None => url.to_owned(),
    }
}
