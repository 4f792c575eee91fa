//! Gateways that end by themselves, and watchers that die.

use std::time::{Duration, Instant};

use crate::life::{LOOP, Setup, both};

#[test]
fn a_stop_during_the_delay_before_a_restart_is_immediate() {
    for run_as in both() {
        let mut life = Setup::init_only(*run_as)
            .env("SESSIONKEEP_RESTART_POLICY", "always")
            .env("SESSIONKEEP_RESTART_JITTER", "60s")
            .script("echo x >> starts; exit 4");
        // The first start is put off, too, by a time that nobody knows.
        life.until("put off", |life| {
            life.log().contains("put off by restart.jitter")
        });
        let began = Instant::now();
        life.signal(libc::SIGTERM);
        let code = life.code();
        assert!([143, 4].contains(&code), "{code}: {}", life.log());
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );

        let mut life = Setup::init_only(*run_as)
            .env("SESSIONKEEP_RESTART_POLICY", "always")
            .script("echo x >> starts; exit 4");
        life.until("delayed thrice", |life| {
            life.log().matches("will be started again").count() == 3
        });
        let began = Instant::now();
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 4, "{}", life.log());
        // The third delay is three seconds at least.
        assert!(
            began.elapsed() < Duration::from_millis(2500),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(life.file("starts").lines().count(), 3);
    }
}

#[test]
fn a_watcher_that_cannot_live_is_reported_once_and_the_gateway_lives_on() {
    for run_as in both() {
        let mut life = Setup::new(*run_as)
            .env("HARNESS_WATCH", "crash")
            .with(|settings| settings.restart = "always")
            .script(&format!("echo $$ >> pids; trap 'exit 3' TERM; {LOOP}"));
        life.until("seven deaths", |life| {
            life.log().matches("watcher died and will").count() >= 6
        });
        let reported = life.log().matches("dies again and again").count();
        assert_eq!(reported, 1, "{}", life.log());
        assert_eq!(life.file("pids").lines().count(), 1);
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 3, "{}", life.log());
        assert!(life.log().contains("NOT saved"), "{}", life.log());
    }
}
