//! Which code a life ends with.

use std::time::{Duration, Instant};

use crate::life::{LOOP, Setup, both};

#[test]
fn every_code_of_the_gateway_goes_through_unchanged() {
    for run_as in both() {
        for code in [0, 1, 2, 69, 74, 78, 126, 127, 128, 143, 200, 255] {
            let mut life = Setup::file_mode(*run_as).script(&format!("exit {code}"));
            assert_eq!(life.code(), code, "as {run_as:?}:\n{}", life.log());
        }
    }
}

#[test]
fn a_death_by_a_signal_is_a_hundred_and_twenty_eight_and_its_number() {
    for run_as in both() {
        for signal in [1, 2, 3, 6, 9, 10, 13, 14, 15, 34, 64] {
            let mut life = Setup::file_mode(*run_as).script(&format!("kill -{signal} $$; sleep 5"));
            assert_eq!(life.code(), 128 + signal, "as {run_as:?}:\n{}", life.log());
        }
    }
}

#[test]
fn a_mapped_code_is_exchanged_and_the_others_are_not() {
    for run_as in both() {
        let flags = ["--map-exit", "143=0", "--map-exit=3=4", "--map-exit=4=9"];
        for (script, code) in [("exit 3", 4), ("exit 4", 9), ("exit 5", 5)] {
            let mut life = Setup::file_mode(*run_as).options(flags).script(script);
            assert_eq!(life.code(), code, "{script} as {run_as:?}:\n{}", life.log());
        }
        let mut life = Setup::file_mode(*run_as).options(flags).script(LOOP);
        life.until_up();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 0, "as {run_as:?}:\n{}", life.log());
    }
}

#[test]
fn a_map_that_is_none_is_refused_with_its_reason() {
    for run_as in both() {
        let began = Instant::now();
        let mut life = Setup::file_mode(*run_as)
            .options(["--map-exit", "143=256"])
            .script("echo up > ready");
        assert_eq!(life.code(), 2);
        let log = life.log();
        assert!(
            log.contains("'143=256'") && log.contains("from 0 to 255"),
            "{log}"
        );
        assert_eq!(life.file("ready"), "");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn our_own_codes_are_not_mapped() {
    for run_as in both() {
        let mut life = Setup::file_mode(*run_as)
            .options(["--map-exit", "127=0"])
            .start(&["no-such-gateway"]);
        assert_eq!(life.code(), 127, "{}", life.log());
        // A shell that does not find its command has a code of its own.
        let mut life = Setup::file_mode(*run_as)
            .options(["--map-exit", "127=0"])
            .script("no-such-gateway");
        assert_eq!(life.code(), 0, "{}", life.log());
    }
}
