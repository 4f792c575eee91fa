//! What the suite says, and how it waits.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

/// Covers a machine that is busy with other stacks; nothing waits for it where all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at something that has no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs one case, and says in a line what it has proved.
pub(crate) fn case(name: &str, proves: &str, body: impl FnOnce()) {
    let begun = Instant::now();
    body();
    let took = begun.elapsed().as_secs_f64();
    say(&format!(
        "case: {name} · proves: {proves} · took: {took:.0} s"
    ));
}

/// Says a measured value.
pub(crate) fn figure(what: &str, value: &str) {
    say(&format!("figure: {what}: {value}"));
}

/// On the real output: what is printed is swallowed where a test passes.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Looks again and again until there is something.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// The same with a limit of its own.
#[track_caller]
pub(crate) fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        thread::sleep(LOOK_AGAIN);
    }
}

/// For a `look` that only says yes or no.
pub(crate) fn yes(holds: bool) -> Option<()> {
    holds.then_some(())
}
