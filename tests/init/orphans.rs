//! What the gateway leaves behind, and whom we leave behind.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::life::{LIMIT, LOOP, Setup, both, send, state};

#[test]
fn each_reaped_orphan_is_told_about_once_where_that_is_wanted() {
    let script = format!(
        "i=0; while [ $i -lt 7 ]; do (sh -c 'sleep 0.1; exit 3' &); i=$((i+1)); done; {LOOP}"
    );
    for run_as in both() {
        for wanted in [true, false] {
            let flags: &[&str] = if wanted { &["--warn-on-reap"] } else { &[] };
            let mut life = Setup::init_only(*run_as)
                .options(flags.iter().copied())
                .script(&script);
            life.until_up();
            if wanted {
                life.until("all are reaped", |life| {
                    life.log().matches("orphan reaped").count() >= 7
                });
            }
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), 143, "{}", life.log());
            let log = life.log();
            let lines: Vec<_> = log
                .lines()
                .filter(|l| l.contains("orphan reaped"))
                .collect();
            let shells = lines
                .iter()
                .filter(|l| l.contains("name=sh") && l.contains("exited with 3"));
            assert_eq!(shells.count(), if wanted { 7 } else { 0 }, "{log}");
            assert!(
                lines
                    .iter()
                    .all(|l| l.contains("WARN") && l.contains("pid=")),
                "{log}"
            );
        }
    }
}

#[test]
fn the_parents_death_is_a_signal_like_any_other() {
    for (signal, code) in [("TERM", "bye"), ("USR1", "usr1")] {
        let root = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| root.path().join(name).display().to_string();
        let gateway = format!(
            "cd {}; trap 'echo bye > last; exit' TERM; trap 'echo usr1 > last; exit' USR1; \
             echo up > ready; while :; do sleep 0.05; done",
            root.path().display()
        );
        // The shell between is the parent that dies.
        let mut parent = Command::new("sh")
            .args(["-c", "\"$@\" & echo $! > \"$PID\"; wait", "sh"])
            .args([env!("CARGO_BIN_EXE_sessionkeep"), "run", "--init-only"])
            .args(["--pdeathsig", signal, "--", "sh", "-c", &gateway])
            .env("PID", path("pid"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log")).expect("log"))
            .spawn()
            .expect("sh");
        let read = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
        let until = |what: &str, holds: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !holds() {
                assert!(began.elapsed() < LIMIT, "never {what}:\n{}", read("log"));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until("up", &|| read("ready").contains("up"));
        let pid: i32 = read("pid").trim().parse().expect("a process id");
        parent.kill().expect("it is alive");
        parent.wait().expect("it was killed");
        until("over", &|| state(pid).is_none_or(|state| state == 'Z'));
        assert_eq!(read("last").trim(), code, "{}", read("log"));
        send(pid, libc::SIGKILL);
    }
}

#[test]
fn the_parents_death_can_be_no_signal_that_cannot_be_caught() {
    for run_as in both() {
        for signal in ["KILL", "nonsense"] {
            let mut life = Setup::init_only(*run_as)
                .options(["--pdeathsig", signal])
                .script("exit 0");
            assert_eq!(life.code(), 2);
            assert!(life.log().contains(signal), "{}", life.log());
        }
    }
}
