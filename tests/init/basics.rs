//! What every life goes through, with a store whose part `init_harness` plays.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::life::{As, LOOP, Life, Setup, both, children, send};

#[test]
fn exit_codes_and_deaths_of_the_gateway_are_passed_on() {
    for run_as in both() {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -KILL $$", 137),
            ("kill -TERM $$", 143),
            ("kill -ABRT $$", 134),
        ] {
            let mut life = Setup::new(*run_as).script(script);
            assert_eq!(life.code(), code, "{script} as {run_as:?}:\n{}", life.log());
            assert!(life.record().contains("flush"), "{}", life.record());
        }
    }
}

#[test]
fn the_gateways_own_handler_runs_and_its_last_write_is_before_the_flush() {
    for run_as in both() {
        for (signal, name) in [(libc::SIGTERM, "TERM"), (libc::SIGINT, "INT")] {
            let trap = format!("trap 'sleep 0.3; echo bye > last; exit 7' {name}; {LOOP}");
            let mut life = Setup::new(*run_as).script(&trap);
            life.until_up();
            life.signal(signal);
            assert_eq!(life.code(), 7, "{}", life.log());
            assert!(life.record().ends_with("flush bye\n"), "{}", life.record());
        }
    }
}

#[test]
fn a_child_that_outlives_its_wrapper_is_told_to_end_and_waited_for() {
    let script = format!("(trap 'sleep 2; echo late > last; exit' TERM; {LOOP}) & wait");
    for run_as in both() {
        let mut life = Setup::new(*run_as).script(&script);
        life.until_up();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
        assert!(life.record().ends_with("flush late\n"), "{}", life.record());
    }
}

#[test]
fn a_detached_grandchild_in_its_own_session_is_waited_for() {
    let inner = "trap '' TERM; echo up > ready; sleep 1.5; echo late > last";
    let until_up = "while [ ! -s ready ]; do sleep 0.05; done";
    let script = format!("setsid -f sh -c \"{inner}\"; {until_up}; exit 5");
    for run_as in both() {
        let mut life = Setup::new(*run_as).script(&script);
        assert_eq!(life.code(), 5, "{}", life.log());
        assert!(life.record().ends_with("flush late\n"), "{}", life.record());
    }
}

#[test]
fn a_deaf_gateway_is_killed_at_the_deadline_and_not_before() {
    for run_as in both() {
        let mut life = Setup::new(*run_as)
            .with(|settings| {
                settings.stop_total = Duration::from_millis(3700);
                settings.stop_flush = Duration::from_millis(3000);
            })
            .script(&format!("trap '' TERM; (trap '' TERM; {LOOP}) & {LOOP}"));
        life.until_up();
        let began = Instant::now();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 137, "{}", life.log());
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(690), "{took:?}");
        assert!(took < Duration::from_millis(3700), "{took:?}");
        assert!(life.record().contains("flush"), "{}", life.record());
    }
}

#[test]
fn a_second_signal_kills_at_once_and_still_flushes() {
    for run_as in both() {
        let mut life = Setup::new(*run_as).script(&format!("trap '' TERM; {LOOP}"));
        life.until_up();
        life.signal(libc::SIGTERM);
        life.until("stopping", |life| life.record().contains("Stopping"));
        let began = Instant::now();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 137, "{}", life.log());
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(life.record().contains("flush"), "{}", life.record());
    }
}

#[test]
fn other_signals_reach_the_gateway() {
    for run_as in both() {
        let traps = "trap 'echo usr >> got' USR1; trap 'echo hup >> got' HUP; \
                     trap 'exit 9' WINCH";
        let mut life = Setup::new(*run_as).script(&format!("{traps}; {LOOP}"));
        life.until_up();
        life.signal(libc::SIGUSR1);
        life.until("usr", |life| life.file("got").contains("usr"));
        life.signal(libc::SIGHUP);
        life.until("hup", |life| life.file("got").contains("hup"));
        life.signal(libc::SIGWINCH);
        assert_eq!(life.code(), 9, "{}", life.log());
    }
}

#[test]
fn a_killed_watcher_comes_back_and_the_gateway_does_not_notice() {
    for run_as in both() {
        let setup = Setup::new(*run_as);
        let own = setup.settings.dir.join(".sessionkeep");
        fs::create_dir_all(&own).expect("mkdir");
        fs::write(own.join("state.json"), r#"{"instance":"before-01"}"#).expect("marker");
        let mut life = setup.script(&format!("echo $$ >> pids; {LOOP}"));
        life.until_up();
        let helper = |life: &Life| {
            let is_watcher = |pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.starts_with(b"sessionkeep\0watch\0")
            };
            children(life.pid()).into_iter().find(is_watcher)
        };
        send(helper(&life).expect("a watcher"), libc::SIGKILL);
        life.until("watched again", |life| {
            life.record().matches("watch ").count() == 2
                && life.record().matches("lifecycle Running").count() == 2
        });
        let record = life.record();
        let lines: Vec<_> = record.lines().filter(|l| l.starts_with("watch ")).collect();
        assert!(lines[0].contains("predecessor=before-01"), "{record}");
        assert!(lines[1].contains("predecessor= "), "{record}");
        assert_eq!(life.file("pids").lines().count(), 1);
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
        assert!(life.record().contains("flush"), "{}", life.record());
    }
}

#[test]
fn the_gateway_gets_a_clean_environment_and_clean_signals() {
    for run_as in both() {
        let canary = "mongodb://u:canary@h/db";
        let mut life = Setup::new(*run_as)
            .env("SESSIONKEEP_STORE", canary)
            .env("MONGO_URL", canary)
            .env("WHATSAPP_SESSIONS_MONGO_URL", canary)
            .env("ADMIN_TOKEN", canary)
            .env("WAHA_API_KEY", "theirs")
            .script("unset HARNESS_SETTINGS; env > seen; grep ^Sig /proc/self/status > signals");
        assert_eq!(life.code(), 0, "{}", life.log());
        let seen = life.file("seen");
        assert!(
            !seen.contains("canary") && !seen.contains("SESSIONKEEP"),
            "{seen}"
        );
        assert!(seen.contains("WAHA_API_KEY=theirs"), "{seen}");
        let signals = life.file("signals");
        let field = |of: &str, name: &str| {
            let line = of.lines().find_map(|line| line.strip_prefix(name));
            let value = line.expect("the field is there").trim_start_matches(':');
            u64::from_str_radix(value.trim(), 16).expect("hexadecimal")
        };
        assert_eq!(field(&signals, "SigBlk"), 0);
        // Nothing was ignored when init was started, and the SIGPIPE that its own runtime ignores is
        // not passed on. The two that the C library keeps for itself (32, 33) it ignores whenever it spawns.
        assert_eq!(field(&signals, "SigIgn") & 0x7fff_ffff, 0);
    }
}

#[test]
fn hundreds_of_orphans_leave_no_zombie() {
    let script = format!(
        "i=0; while [ $i -lt 200 ]; do (sh -c 'sleep 0.05; echo x >> done' &); i=$((i+1)); done; {LOOP}"
    );
    for run_as in both() {
        let mut life = Setup::new(*run_as).script(&script);
        life.until_up();
        life.until("all done", |life| life.file("done").lines().count() == 200);
        let init = life.pid();
        // The gateway and the watcher are left, nothing else, dead or alive.
        life.until("reaped", |_| children(init).len() == 2);
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
    }
}

#[test]
fn a_command_that_cannot_run_is_named_before_anything_starts() {
    for run_as in both() {
        let mut life = Setup::new(*run_as).start(&["no-such-gateway"]);
        assert_eq!(life.code(), 127);
        assert!(life.log().contains("no-such-gateway"), "{}", life.log());
        assert_eq!(life.record(), "", "nothing was started");
        let mut life = Setup::new(*run_as).start(&["/etc/passwd"]);
        assert_eq!(life.code(), 126);
        // A missing interpreter shows only when it is executed: that goes through the flush.
        let setup = Setup::new(*run_as);
        let script = setup.root.path().join("bot");
        fs::write(&script, "#!/no/such/interpreter\n").expect("write");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).expect("chmod");
        let mut life = setup.start(&[script.to_str().expect("path")]);
        assert_eq!(life.code(), 127, "{}", life.log());
        assert!(life.record().contains("flush"), "{}", life.record());
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let first = Setup::new(As::Subreaper).script(LOOP);
    first.until_up();
    let dir = first.setup.settings.dir.clone();
    for run_as in both() {
        let mut second = Setup::new(*run_as)
            .with(|settings| settings.dir.clone_from(&dir))
            .script("exit 0");
        assert_eq!(second.code(), 75);
        assert!(
            second.log().contains("another sessionkeep"),
            "{}",
            second.log()
        );
        assert_eq!(second.record(), "");
    }
}

#[test]
fn a_restore_that_fails_starts_no_gateway() {
    for run_as in both() {
        for (told, code) in [("69", 69), ("75", 75), ("78", 78), ("1", 70)] {
            let mut life = Setup::new(*run_as)
                .env("HARNESS_RESTORE", told)
                .script("echo up > ready");
            assert_eq!(life.code(), code, "{}", life.log());
            assert_eq!(life.file("ready"), "");
        }
    }
}

#[test]
fn a_stop_during_the_restore_starts_no_gateway() {
    for run_as in both() {
        let mut life = Setup::new(*run_as)
            .env("HARNESS_RESTORE", "hang")
            .script("echo up > ready");
        life.until("restoring", |life| life.record().contains("restore"));
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
        assert_eq!(life.file("ready"), "");
        assert!(life.began.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn a_failing_gateway_is_started_again_on_the_same_directory() {
    for run_as in both() {
        let mut life = Setup::new(*run_as)
            .with(|settings| settings.restart = "on-failure")
            .script("echo x >> starts; [ $(wc -l < starts) -ge 2 ] || exit 4; exit 0");
        assert_eq!(life.code(), 0, "{}", life.log());
        assert_eq!(life.file("starts").lines().count(), 2);
        let record = life.record();
        assert_eq!(record.matches("restore").count(), 1, "{record}");
        assert_eq!(record.matches("watch ").count(), 1, "{record}");
        assert!(record.contains("lifecycle Backoff 0 0"), "{record}");
    }
}

#[test]
fn a_flush_that_fails_or_hangs_is_seen_in_the_exit_code() {
    for run_as in both() {
        for (how, own, code) in [("fail", 0, 74), ("fail", 3, 3), ("hang", 0, 74)] {
            let mut life = Setup::new(*run_as)
                .env("HARNESS_WATCH", how)
                .with(|settings| settings.stop_flush = Duration::from_millis(700))
                .script(&format!("exit {own}"));
            assert_eq!(life.code(), code, "{how}:\n{}", life.log());
            assert!(life.log().contains("NOT saved"), "{}", life.log());
        }
    }
}

#[test]
fn a_fenced_life_ends_its_gateway_and_does_not_flush() {
    for run_as in both() {
        let mut life = Setup::new(*run_as)
            .env("HARNESS_WATCH", "fenced")
            .script(&format!("trap '' TERM; {LOOP}"));
        assert_eq!(life.code(), 75, "{}", life.log());
        assert!(!life.record().contains("flush"), "{}", life.record());
    }
}

#[test]
fn the_http_port_is_open_during_the_restore_and_handed_to_the_helpers() {
    for run_as in both() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = free.local_addr().expect("address").port();
        // Taken: a warning and not the end of it.
        let mut life = Setup::new(*run_as)
            .with(|settings| settings.port = port)
            .script("exit 0");
        assert_eq!(life.code(), 0, "{}", life.log());
        assert!(life.log().contains("cannot listen"), "{}", life.log());
        assert!(life.record().contains("http=\n"), "{}", life.record());
        drop(free);
        let mut life = Setup::new(*run_as)
            .env("HARNESS_RESTORE", "hang")
            .with(|settings| settings.port = port)
            .script("exit 0");
        life.until("restoring", |life| life.record().contains("restore"));
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is open");
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
    }
}
