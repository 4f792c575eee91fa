//! What becomes of a test that cannot run here. It says so and passes; with `TESTS=required`, as in CI, it
//! fails. With `TESTS=quick`, as in `make quick`, worlds are on
//! SQLite, so that nothing has to be fetched first.

/// Says that something cannot be tested here, and why. The test has nothing to do then.
///
/// # Panics
/// With `TESTS=required`.
#[track_caller]
pub(crate) fn cannot_run(why: &str) {
    let required = std::env::var_os("TESTS").is_some_and(|how| how == "required");
    assert!(!required, "{why}, and TESTS=required");
    eprintln!("NOT TESTED: {why}");
}
