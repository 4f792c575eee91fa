//! What is wrong only in combination, and paths that must not depend on the working directory.

use std::path::{Component, Path, PathBuf};

use super::problem::Problem;
use super::{OutagePolicy, Settings, duration};
use sessionkeep_stores::StoreChoice;

/// The session directory and the store's file, wherever a child may be started.
pub(super) fn make_absolute(settings: &mut Settings, cwd: &Path) {
    settings.dir = plain(&cwd.join(&settings.dir));
    if let StoreChoice::Sqlite(path) = &mut settings.store.choice {
        *path = plain(&cwd.join(&*path));
    }
}

/// Whether a path is left that depends on the working directory.
pub(super) fn has_relative_path(settings: &Settings) -> bool {
    let store = match &settings.store.choice {
        StoreChoice::Sqlite(path) => path.is_relative(),
        _ => false,
    };
    settings.dir.is_relative() || store
}

/// Without `.` and trailing slashes. `..` stays, since it may lead out of a symlink.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

/// Everything that contradicts. Settings that are `wrong` by themselves are left out: they stand
/// at their defaults, about which nobody needs to read.
pub(super) fn contradictions(
    settings: &Settings,
    port: Option<u16>,
    wrong: &[&'static str],
) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut check = |contradicts: bool, keys: &[&'static str], reason: String, remedy: String| {
        if contradicts && !keys.iter().any(|key| wrong.contains(key)) {
            found.push(Problem {
                name: keys.join(" and "),
                value: None,
                reason,
                remedy,
            });
        }
    };
    let span = |span| format!("`{}`", duration::show(span));
    let (stop, lease, sync) = (&settings.stop, &settings.lease, &settings.sync);

    check(
        settings.dir.parent().is_none(),
        &["dir"],
        "is the root of the file system".to_owned(),
        "name the directory that the gateway keeps its login in".to_owned(),
    );
    check(
        stop.flush >= stop.total,
        &["stop.flush", "stop.total"],
        format!(
            "saving may take {} of {}, which leaves the gateway no time to stop",
            span(stop.flush),
            span(stop.total)
        ),
        "lower `stop.flush` or raise `stop.total` (and the host's own limit above it)".to_owned(),
    );
    check(
        lease.renew > lease.ttl / 3,
        &["lease.renew", "lease.ttl"],
        format!(
            "renewing every {} leaves fewer than three tries in {}",
            span(lease.renew),
            span(lease.ttl)
        ),
        format!("set `lease.renew` to {} or less", span(lease.ttl / 3)),
    );
    // A third of the lease is kept for the gateway's end. Half of that may pass in a commit that gets no
    // answer before the watcher acts, and the other half is the gateway's.
    check(
        settings.store.outage == OutagePolicy::Stop && settings.store.timeout > lease.ttl / 6,
        &["store.timeout", "lease.ttl"],
        format!(
            "with `store.outage: stop`, a request that waits {} for its answer can take what is left of {} to stop the gateway in",
            span(settings.store.timeout),
            span(lease.ttl)
        ),
        format!(
            "set `store.timeout` to {} or less, or `lease.ttl` to {} or more",
            span(lease.ttl / 6),
            span(settings.store.timeout * 6)
        ),
    );
    check(
        sync.quiet > sync.max_delay,
        &["sync.quiet", "sync.max_delay"],
        format!(
            "waiting {} for quiet is longer than the longest wait, {}",
            span(sync.quiet),
            span(sync.max_delay)
        ),
        "lower `sync.quiet` or raise `sync.max_delay`".to_owned(),
    );
    check(
        port.is_some_and(|port| port == settings.http.port),
        &["http.port"],
        format!(
            "is {}, and PORT gives the same port to the gateway",
            settings.http.port
        ),
        "set SESSIONKEEP_HTTP_PORT to another port, or to `off`".to_owned(),
    );
    let store_is_inside = match &settings.store.choice {
        // Everything is inside the root, about which enough has been said.
        StoreChoice::Sqlite(path) => {
            settings.dir.parent().is_some() && path.starts_with(&settings.dir)
        }
        _ => false,
    };
    check(
        store_is_inside,
        &["store.url", "dir"],
        "the store's file lies inside the session directory, and would be wiped with it".to_owned(),
        "keep it elsewhere, on a disk that stays".to_owned(),
    );
    found
}
