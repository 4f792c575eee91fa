//! Crashes: of everything at once, and of the watcher alone.

use super::keeper::{IDLE, Life, World, is_alive, send, wait_until};

const LOGIN: &str = r#"{"me":"first"}"#;

#[test]
fn after_a_kill_of_everything_and_a_wipe_the_last_commit_comes_back() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.write("session-1.json", "{\"n\":1}");
        world.wait_until_saved();
        let gateway = life.process("gateway");
        life.kill_tree();
        wait_until("the gateway is gone", || !is_alive(gateway));
        world.wipe();
        let mut life = world.script(IDLE).start();
        life.wait_for("waiting for the session");
        life.wait_for("watcher is ready");
        assert_eq!(world.read("creds.json"), LOGIN);
        assert_eq!(world.read("session-1.json"), "{\"n\":1}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn after_a_kill_of_everything_the_same_directory_goes_on_at_once() {
    for world in World::both() {
        let life = world
            .script(IDLE)
            .set("lease.ttl=40s")
            .set("lease.renew=5s")
            .ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        life.kill_tree();
        world.write("session-1.json", "{\"n\":1}");
        let life = world
            .script(IDLE)
            .set("lease.ttl=40s")
            .set("lease.renew=5s")
            .ready();
        assert!(
            !life.log().contains("waiting for the session"),
            "{}",
            life.log()
        );
        world.wait_until_saved();
        assert!(world.replaced().is_empty());
        assert_eq!(life.stop().code, 0);
    }
}

fn kill_watcher(life: &mut Life, times: usize) {
    send(life.process("watcher"), libc::SIGKILL);
    life.wait_for_count("watcher died and will be started again", times);
}

#[test]
fn a_killed_watcher_is_replaced_and_the_gateway_does_not_notice() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let (gateway, first) = (life.process("gateway"), life.process("watcher"));
        kill_watcher(&mut life, 1);
        // Written while nobody watches.
        world.write("session-1.json", "{\"n\":1}");
        std::fs::remove_file(world.dir().join("creds.json")).expect("remove");
        world.write("creds.json", r#"{"me":"second"}"#);
        life.wait_for_count("watcher is ready", 2);
        world.wait_until_saved();
        assert_eq!(life.process("gateway"), gateway);
        assert_ne!(life.process("watcher"), first);
        assert!(is_alive(gateway));
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert_eq!(ended.log.matches("started role=gateway").count(), 1);
    }
}

#[test]
fn a_file_torn_by_a_crash_is_never_committed_and_is_mended_at_the_next_start() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        // As a gateway writes it, but for the end.
        world.write("creds.json", r#"{"me":"fir"#);
        world.write("after.json", "{}");
        world.wait_until_stored("after.json", "{}");
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LOGIN);
        life.kill_tree();
        assert_eq!(world.read("creds.json"), r#"{"me":"fir"#);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LOGIN);
        let log = life.log();
        assert!(log.contains("a crash had torn this file"), "{log}");
        assert_eq!(life.stop().code, 0);
        let [aside] = &world.replaced()[..] else {
            panic!("{:?}", world.replaced())
        };
        let torn = std::fs::read_to_string(aside.join("creds.json")).expect("it was set aside");
        assert_eq!(torn, r#"{"me":"fir"#);
    }
}
