//! Surroundings that lack what a program takes for granted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::faketime;
use crate::life::{As, LOOP, Life, Setup, both};

/// As a session in file mode, and as an init only.
fn kinds(run_as: As) -> [Setup; 2] {
    [Setup::file_mode(run_as), Setup::init_only(run_as)]
}

/// As PID 1 with mounts of its own, where the machine allows it.
fn as_pid_one() -> Vec<Setup> {
    if both().contains(&As::PidOne) {
        kinds(As::PidOne).into()
    } else {
        Vec::new()
    }
}

/// Takes a life's descriptors away, but for so many.
fn limit_descriptors(life: &Life, most: u64) {
    let new = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    let old = std::ptr::null_mut();
    // SAFETY: the new limit lives through the call, and the old one is not asked for.
    let set = unsafe { libc::prlimit(life.pid(), libc::RLIMIT_NOFILE, &raw const new, old) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn closed_standard_streams_are_no_obstacle() {
    for run_as in both() {
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            for setup in kinds(*run_as) {
                let mut life = setup
                    .before(&format!("exec {closed}"))
                    .script("echo x > last; exit 6");
                assert_eq!(life.code(), 6, "{closed}: {}", life.log());
                assert_eq!(life.file("last"), "x\n");
            }
        }
    }
}

#[test]
fn without_descriptors_a_start_fails_with_a_code_and_does_not_hang() {
    for run_as in both() {
        let mut own = 0;
        // With three the loader itself gives up.
        for most in 4..=12 {
            for setup in kinds(*run_as) {
                let mut life = setup.before(&format!("ulimit -n {most}")).script("exit 6");
                let code = life.code();
                assert!(
                    [6, 70, 78, 126, 74].contains(&code),
                    "{most}: {code}: {}",
                    life.log()
                );
                own += u32::from(code == 6);
            }
        }
        assert!(own > 0, "a dozen descriptors are enough");
    }
}

#[test]
fn when_descriptors_run_out_later_a_stop_is_still_in_order() {
    for run_as in both() {
        let script = format!("(trap 'sleep 0.5; echo late > last; exit' TERM; {LOOP}) & wait");
        let mut life = Setup::init_only(*run_as).script(&script);
        life.until_up();
        limit_descriptors(&life, 3);
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
        assert_eq!(life.file("last"), "late\n");
    }
}

#[test]
fn a_fork_that_fails_is_tried_again_where_the_policy_says_so_and_is_a_code_where_not() {
    // A user that nothing else on this machine runs as, since processes are counted by user.
    let user = 1_000_000 + std::process::id();
    let nobody = format!(
        "setpriv --reuid={user} --regid={user} --clear-groups \
         --inh-caps=-all --bounding-set=-all --no-new-privs"
    );
    let own = format!("chmod 711 \"$SESSION/..\"; chown {user} \"$SESSION\"; unset HOME");
    for run_as in both() {
        let mut life = Setup::init_only(*run_as)
            .before(&format!("{own}; set -- {nobody} prlimit --nproc=1 \"$@\""))
            .script("exit 0");
        assert_eq!(life.code(), 126, "{}", life.log());
        assert!(life.log().contains("failed to start"), "{}", life.log());
        // Another process of the same user takes the one place that there is, and then ends.
        let mut life = Setup::init_only(*run_as)
            .before(&format!(
                "{own}; {nobody} sleep 3 & set -- {nobody} prlimit --nproc=2 \"$@\""
            ))
            .env("SESSIONKEEP_RESTART_POLICY", "on-failure")
            .script("[ -z \"$HOME\" ] && echo x > last; exit 0");
        assert_eq!(life.code(), 0, "{}", life.log());
        assert!(life.log().contains("failed to start"), "{}", life.log());
        assert_eq!(
            life.file("last"),
            "x\n",
            "neither rights nor a home are needed"
        );
    }
}

#[test]
fn without_a_proc_of_its_own_it_says_so_and_knows_the_group() {
    let script = format!("(trap 'sleep 0.5; echo late > last; exit' TERM; {LOOP}) & wait");
    // Of outside its namespace, or none at all.
    for unmounted in ["umount -l /proc", "umount -l /proc; umount -l /proc"] {
        for setup in as_pid_one() {
            let mut life = setup.before(unmounted).script(&script);
            life.until_up();
            assert!(
                life.log().contains("cannot see processes"),
                "{}",
                life.log()
            );
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), 143, "{}", life.log());
            assert_eq!(life.file("last"), "late\n");
        }
    }
}

#[test]
fn an_empty_dev_will_do() {
    for devices in ["", "; mknod -m 666 /dev/null c 1 3"] {
        for setup in as_pid_one() {
            let mut life = setup
                .before(&format!("mount -t tmpfs none /dev{devices}"))
                .script("ls /dev; echo x > last; exit 6");
            assert_eq!(life.code(), 6, "{}", life.log());
            assert_eq!(life.file("last"), "x\n");
        }
    }
}

#[test]
fn a_read_only_root_will_do() {
    let read_only = "mount -t tmpfs none \"$SESSION\" && mount -o remount,bind,ro / || exit 99";
    for setup in as_pid_one() {
        // What it writes is in a file system that only it sees.
        let mut life = setup
            .before(read_only)
            .script("echo x > last && ! touch /not-here 2>/dev/null && exit 6");
        assert_eq!(life.code(), 6, "{}", life.log());
    }
}

#[test]
fn a_large_environment_goes_through_whole() {
    for run_as in both() {
        for setup in kinds(*run_as) {
            let mut life = setup
                .env("BIG", "x".repeat(64 << 10))
                .script("[ ${#BIG} -eq 65536 ] && exit 6");
            assert_eq!(life.code(), 6, "{}", life.log());
        }
    }
}

#[test]
fn a_log_that_nobody_reads_blocks_nothing() {
    // The pipe is full to the last byte before anything begins.
    let full = "mkfifo \"$SESSION/../pipe\"; exec 2<> \"$SESSION/../pipe\"; \
                dd if=/dev/zero bs=1024 count=64 >&2 2>/dev/null";
    for run_as in both() {
        for setup in kinds(*run_as) {
            let mut life = setup
                .env("SESSIONKEEP_LOG_LEVEL", "debug")
                .options(["--warn-on-reap"])
                .before(full)
                .script(&format!("trap 'exit 6' TERM; (sh -c : &); {LOOP}"));
            life.until_up();
            for _ in 0..50 {
                life.signal(libc::SIGWINCH);
            }
            let began = Instant::now();
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), 6);
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{:?}",
                began.elapsed()
            );
            let pipe = life.setup.root.path().join("pipe");
            assert_eq!(
                fs::metadata(pipe).expect("pipe").permissions().mode() & 0o777,
                0o644
            );
        }
    }
}

/// When a log line was written, by the clock that the program saw.
fn stamp(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[test]
fn a_clock_that_is_set_back_an_hour_moves_no_deadline() {
    let Some(library) = faketime::library() else {
        return;
    };
    for run_as in both() {
        for mut setup in kinds(*run_as) {
            let clock = setup.root.path().join("clock");
            faketime::set(&clock, "+0");
            for (name, value) in faketime::environment(&library, &clock) {
                setup = setup.env(name, value);
            }
            let mut life = setup
                .env("SESSIONKEEP_STOP_TOTAL", "3s")
                .env("SESSIONKEEP_STOP_FLUSH", "1s")
                .script("trap '' TERM; echo up > ready; while :; do sleep 0.05; done");
            life.until_up();
            let asked = Instant::now();
            life.signal(libc::SIGTERM);
            life.until("stopping", |life| life.log().contains("to=Stopping"));
            faketime::set(&clock, "-1h");
            assert_eq!(life.code(), 137, "{}", life.log());
            let took = asked.elapsed();
            assert!(
                took >= Duration::from_millis(1900) && took < Duration::from_secs(6),
                "killed after {took:?}: {}",
                life.log()
            );
            let log = life.log();
            let last = log.lines().last().unwrap_or_default();
            let first = log.lines().next().unwrap_or_default();
            assert!(stamp(last) < stamp(first), "the clock went on: {log}");
        }
    }
}
