//! Signals: which reach the gateway, and which stop it.

use std::time::{Duration, Instant};

use crate::life::{As, LOOP, Life, Setup, both, children, harness, state};

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
    let asked = [libc::SIGUSR1, libc::SIGCHLD, libc::SIGTERM, libc::SIGPIPE];
    let more = asked.iter().fold(0, |all, signal| all | bit(*signal));
    for run_as in both() {
        let plain = own_signals(Setup::file_mode(*run_as), "SigIgn");
        let setup = Setup::file_mode(*run_as)
            .before(r#"set -- env --ignore-signal=USR1,CHLD,TERM,PIPE "$@""#);
        assert_eq!(own_signals(setup, "SigIgn"), plain | more);
    }
}

/// A gateway that writes down what it gets.
fn catching(setup: Setup) -> Life {
    let program = harness();
    let life = setup.start(&[program.to_str().expect("a path"), "catch"]);
    life.until_up();
    life
}

/// The gateway's main process: the one child that is no helper.
#[track_caller]
fn gateway(life: &Life) -> i32 {
    let line = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A helper is a fork of init, and looks like it until it has given itself a name.
    let of_init = line(life.pid());
    let is_helper = |pid: &i32| {
        let line = line(*pid);
        line.starts_with(b"sessionkeep\0") || line == of_init
    };
    let found = children(life.pid());
    let found = found.into_iter().find(|pid| !is_helper(pid));
    found.expect("the gateway is alive")
}

/// Whether a process is stopped. A shell that waits for a child between `vfork` and `exec`, which
/// is stopped, is shown as waiting itself.
fn stands_still(pid: i32) -> bool {
    state(pid).is_none_or(|state| matches!(state, 'T' | 'D' | 'Z'))
}

#[test]
fn every_signal_that_can_be_caught_reaches_the_gateway() {
    // Those that the kernel raises for a fault as well: sent by somebody, they are like others.
    let plain = [
        1, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 18, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    ];
    let real_time = (34..=64).filter(|signal| *signal != 37);
    let all: Vec<i32> = plain.into_iter().chain(real_time).collect();
    for run_as in both() {
        let mut life = catching(Setup::file_mode(*run_as));
        for (at, signal) in all.iter().enumerate() {
            life.signal(*signal);
            life.until(&format!("signal {signal}"), |life| {
                life.file("got").lines().count() > at
            });
        }
        // Real-time signals are queued and counted: none may be merged on the way.
        for _ in 0..50 {
            life.signal(50);
        }
        let expected = all.len() + 50;
        life.until("all of them", |life| {
            life.file("got").lines().count() == expected
        });
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 7, "{}", life.log());
        let got = life.file("got");
        let got: Vec<i32> = got.lines().map(|n| n.parse().expect("a number")).collect();
        assert_eq!(got[..all.len()], all);
        assert_eq!(got[all.len()..expected], [50; 50]);
    }
}

#[test]
fn a_log_that_nobody_reads_any_more_sends_the_gateway_no_sigpipe() {
    for run_as in both() {
        // `head` leaves after the first line; from then on each line of ours breaks the pipe.
        let setup = Setup::file_mode(*run_as)
            .env("SESSIONKEEP_LOG_LEVEL", "debug")
            .before("mkfifo \"$SESSION/../pipe\"; head -n1 \"$SESSION/../pipe\" > /dev/null & exec 2> \"$SESSION/../pipe\"; echo first >&2; wait");
        let mut life = catching(setup);
        for _ in 0..5 {
            life.signal(50);
        }
        life.until("signals", |life| life.file("got").lines().count() >= 5);
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 7);
        assert_eq!(life.file("got"), "50\n50\n50\n50\n50\n15\n");
    }
}

#[test]
fn stop_signals_of_every_kind_stop_in_order() {
    for run_as in both() {
        for (flags, sent, trapped, gets) in [
            (&[][..], libc::SIGINT, "INT", 2),
            (&[], libc::SIGQUIT, "QUIT", 3),
            (&[], 37, "37", 37),
            (&["--rewrite", "RTMIN+3=TERM"], 37, "TERM", 15),
            (&["--rewrite=SIGTERM=USR1"], libc::SIGTERM, "USR1", 10),
            (&["--rewrite=12=QUIT"], libc::SIGUSR2, "QUIT", 3),
        ] {
            let script = format!("trap 'sleep 0.2; echo bye > last; exit 6' {trapped}; {LOOP}");
            let mut life = Setup::file_mode(*run_as)
                .options(flags.iter().copied())
                .script(&script);
            life.until_up();
            life.signal(sent);
            assert_eq!(life.code(), 6, "{sent} {flags:?}:\n{}", life.log());
            assert_eq!(life.file("last"), "bye\n");
            let cause = format!("to=Stopping cause=\"signal {gets}\"");
            assert!(life.log().contains(&cause), "{}", life.log());
            assert!(life.log().contains("all is saved"), "{}", life.log());
        }
    }
}

#[test]
fn a_signal_that_is_rewritten_to_nothing_is_dropped() {
    for run_as in both() {
        let flags = ["--rewrite", "HUP=0", "--rewrite", "USR1=USR2"];
        let mut life = catching(Setup::file_mode(*run_as).options(flags));
        life.signal(libc::SIGHUP);
        life.signal(libc::SIGUSR1);
        life.until("usr2", |life| !life.file("got").is_empty());
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 7, "{}", life.log());
        assert_eq!(life.file("got"), "12\n15\n");
    }
}

#[test]
fn signals_go_to_the_main_process_or_to_its_whole_group() {
    let script = format!(
        "trap 'echo main >> got' USR1; (trap 'echo child >> got' USR1; trap 'exit' TERM; \
         echo c > child; while :; do sleep 0.05; done) & \
         while [ ! -s child ]; do sleep 0.05; done; {LOOP}"
    );
    for run_as in both() {
        for group in [false, true] {
            let flags: &[&str] = if group { &["--signal-group"] } else { &[] };
            let mut life = Setup::file_mode(*run_as)
                .options(flags.iter().copied())
                .script(&script);
            life.until_up();
            life.signal(libc::SIGUSR1);
            life.until("got", |life| {
                life.file("got").contains("main") && (!group || life.file("got").contains("child"))
            });
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), 143, "{}", life.log());
            assert_eq!(life.file("got").contains("child"), group);
        }
    }
}

#[test]
fn a_terminals_stop_suspends_the_gateway_and_us_until_cont() {
    for run_as in both() {
        for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            let mut life = Setup::file_mode(*run_as).script(&format!("sleep 300 & {LOOP}"));
            life.until_up();
            let (init, gateway) = (life.pid(), gateway(&life));
            life.signal(signal);
            life.until("suspended", |_| {
                stands_still(gateway) && children(gateway).into_iter().all(stands_still)
            });
            if *run_as == As::Subreaper {
                life.until("stopped", |_| state(init) == Some('T'));
            } else {
                assert_ne!(state(init), Some('T'), "PID 1 goes on");
            }
            life.signal(libc::SIGCONT);
            life.until("going on", |_| {
                state(gateway) != Some('T') && state(init) != Some('T')
            });
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), 143, "{}", life.log());
        }
    }
}

#[test]
fn a_suspended_gateway_stops_as_fast_as_any_other() {
    let mut life = Setup::file_mode(As::PidOne).script(&format!("trap 'exit 5' TERM; {LOOP}"));
    life.until_up();
    let gateway = gateway(&life);
    life.signal(libc::SIGTSTP);
    life.until("suspended", |_| stands_still(gateway));
    let began = Instant::now();
    life.signal(libc::SIGTERM);
    assert_eq!(life.code(), 5, "{}", life.log());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}
