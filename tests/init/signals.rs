//! Signals: which reach the gateway, and which stop it.

use crate::life::{Setup, both};

/// What a gateway that writes its own signals into the log has of them: a field of its
/// `/proc/self/status`, as a set. No shell, since those change some.
#[track_caller]
fn own_signals(setup: Setup, field: &str) -> u64 {
    let mut life = setup.start(&["grep", "^Sig", "/proc/self/status"]);
    assert_eq!(life.code(), 0, "{}", life.log());
    let log = life.log();
    let line = log.lines().find_map(|line| line.strip_prefix(field));
    let value = line.expect("the field is there").trim_start_matches(':');
    u64::from_str_radix(value.trim(), 16).expect("hexadecimal")
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[test]
fn what_was_ignored_at_the_start_is_ignored_in_the_gateway_and_nothing_else() {
    let asked = [libc::SIGUSR1, libc::SIGCHLD, libc::SIGTERM];
    let more = asked.iter().fold(0, |all, signal| all | bit(*signal));
    for run_as in both() {
        let plain = own_signals(Setup::file_mode(*run_as), "SigIgn");
        let setup =
            Setup::file_mode(*run_as).before(r#"set -- env --ignore-signal=USR1,CHLD,TERM "$@""#);
        assert_eq!(own_signals(setup, "SigIgn"), plain | more);
    }
}
