//! `--init-only`: a plain init in place of `tini --`.

use std::fs;
use std::time::{Duration, Instant};

use crate::life::{LOOP, Setup, both, children};

#[test]
fn an_init_only_needs_nothing_touches_nothing_and_has_no_helper() {
    for run_as in both() {
        let mut life = Setup::init_only(*run_as)
            .env("MONGO_URL", "mongodb://nobody:secret@nowhere.invalid/db")
            .env("SESSIONKEEP_STORE_WAIT", "nonsense")
            .script(LOOP);
        life.until_up();
        assert_eq!(children(life.pid()).len(), 1, "the gateway alone");
        let pid = life.pid();
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("tasks")
            .count();
        assert_eq!(threads, 1);
        let sockets = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("descriptors")
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter(|to| to.to_string_lossy().starts_with("socket:"));
        assert_eq!(sockets.count(), 0, "no port, no channel");
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
        let dir = fs::read_dir(&life.setup.settings.dir).expect("directory");
        let names: Vec<_> = dir.map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(names, ["ready"], "no lock and no marker");
        assert!(!life.log().contains("secret"), "{}", life.log());
    }
}

#[test]
fn an_init_only_waits_for_what_the_gateway_left_behind() {
    let script = "setsid -f sh -c \"trap '' TERM; echo up > ready; sleep 1; echo late > last\"; \
                  while [ ! -s ready ]; do sleep 0.05; done; exit 5";
    for run_as in both() {
        let mut life = Setup::init_only(*run_as).script(script);
        assert_eq!(life.code(), 5, "{}", life.log());
        assert_eq!(life.file("last"), "late\n");
    }
}

#[test]
fn an_init_only_kills_when_all_of_the_time_to_stop_is_over() {
    for run_as in both() {
        let mut life = Setup::init_only(*run_as)
            .env("SESSIONKEEP_STOP_TOTAL", "700ms")
            .script(&format!("trap '' TERM; {LOOP}"));
        life.until_up();
        let began = Instant::now();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 137, "{}", life.log());
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(690), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn an_init_only_says_what_it_cannot_run() {
    for run_as in both() {
        let mut life = Setup::init_only(*run_as).start(&["no-such-gateway"]);
        assert_eq!(life.code(), 127, "{}", life.log());
        let mut life = Setup::init_only(*run_as).start(&["/etc/passwd"]);
        assert_eq!(life.code(), 126, "{}", life.log());
        let mut life = Setup::init_only(*run_as).start(&[]);
        assert_eq!(life.code(), 78, "{}", life.log());
    }
}
