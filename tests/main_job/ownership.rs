//! One owner at a time: waiting, refusing, being fenced, and the lock of the directory.

use std::time::Duration;

use super::keeper::{IDLE, World, free_port, http_json, is_alive, wait_until};
use super::raw::{append_foreign, give_lease_to, last_seq};

const LOGIN: &str = r#"{"me":"first"}"#;

#[test]
fn a_second_instance_waits_takes_over_in_order_and_restores_the_last_state() {
    for world in World::both() {
        let script = "trap 'echo \"{\\\"last\\\":1}\" > last.json; exit 0' TERM; sleep 1000 & wait";
        let first = world.script(script).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let (port, elsewhere) = (free_port(), world.path("elsewhere"));
        let mut second = world
            .script("touch \"$P/ran\"; trap 'exit 0' TERM; sleep 1000 & wait")
            .dir(elsewhere.clone())
            .set(&format!("http.port={port}"))
            .set("lease.conflict=wait")
            .start();
        second.wait_for("waiting for the session");
        wait_until("health says so", || {
            http_json("GET", port, "/health").is_some_and(|health| health["status"] == "standby")
        });
        let status = http_json("GET", port, "/status").expect("an answer");
        assert_eq!(status["state"], "standby", "{status}");
        // Longer than a lease lasts: it is renewed, so it is not taken.
        std::thread::sleep(Duration::from_secs(4));
        assert!(!world.path("ran").exists(), "two gateways ran");
        let ended = first.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        second.wait_for("watcher is ready");
        let read = |name: &str| std::fs::read_to_string(elsewhere.join(name)).expect("restored");
        assert_eq!(read("creds.json"), LOGIN);
        assert_eq!(read("last.json"), "{\"last\":1}\n");
        wait_until("the gateway runs", || world.path("ran").exists());
        wait_until("health is well", || {
            http_json("GET", port, "/health").is_some_and(|health| health["status"] == "ok")
        });
        assert_eq!(second.stop().code, 0);
    }
}

#[test]
fn an_instance_that_waits_can_be_stopped() {
    let world = World::mongo();
    let first = world.script(IDLE).ready();
    let mut second = world
        .script("touch \"$P/ran\"")
        .dir(world.path("elsewhere"))
        .set("lease.conflict=wait")
        .start();
    second.wait_for("waiting for the session");
    let ended = second.stop();
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
    assert!(!world.path("ran").exists());
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(first.stop().code, 0);
}

#[test]
fn with_refuse_a_second_instance_ends_with_75_and_names_the_owner() {
    for world in World::both() {
        let first = world.script(IDLE).ready();
        let lease = &world.json(&["status", "--json"])["stored"]["lease"];
        let owner = lease["instance"].as_str().expect("an owner");
        let ended = world
            .script("touch \"$P/ran\"")
            .dir(world.path("elsewhere"))
            .set("lease.conflict=refuse")
            .run_to_end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        assert!(ended.log.contains(owner), "{}", ended.log);
        assert!(!world.path("ran").exists());
        assert_eq!(first.stop().code, 0);
    }
}

#[test]
fn with_refuse_a_dead_owners_session_is_taken_once_its_lease_has_run_out() {
    for world in World::both() {
        world.script(IDLE).ready().kill_tree();
        wait_until("the lease has run out", || {
            world.json(&["lease", "--json"])["lease"]["remaining_seconds"] == 0.0
        });
        let mut next = world
            .script(IDLE)
            .dir(world.path("elsewhere"))
            .set("lease.conflict=refuse")
            .start();
        // It does not know yet that nobody renews it, and is not refused for that.
        next.wait_for("making sure that its owner does not renew it");
        next.wait_for("the gateway idles\n");
        assert_eq!(next.stop().code, 0);
    }
}

#[test]
fn an_instance_whose_lease_was_taken_stops_its_gateway_and_commits_nothing_more() {
    for world in World::both() {
        let script = "trap 'echo late > late; exit 0' TERM; sleep 1000 & wait";
        let life = world.script(script).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let gateway = life.process("gateway");
        let head = world.head();
        give_lease_to(&world, "somebody-else");
        let ended = life.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        assert!(
            ended
                .log
                .contains("this instance does not own the session any more"),
            "{}",
            ended.log
        );
        assert!(!is_alive(gateway));
        assert_eq!(world.head(), head, "a fenced instance has committed");
    }
}

#[test]
fn an_instance_whose_lease_was_ended_by_hand_does_not_say_that_another_has_it() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let broken = world.command(&["lease", "--break"]);
        assert!(broken.status.success(), "{broken:?}");
        let ended = life.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        let by_hand = "somebody ended the lease (`sessionkeep lease --break`)";
        assert!(ended.log.contains(by_hand), "{}", ended.log);
        for wrong in ["another instance owns", "container has taken this session"] {
            assert!(!ended.log.contains(wrong), "{}", ended.log);
        }
    }
}

#[test]
fn an_instance_whose_next_number_was_taken_is_fenced_by_it_though_it_holds_the_lease() {
    for world in World::both() {
        let script = "trap 'echo late > late; exit 0' TERM; sleep 1000 & wait";
        let life = world.script(script).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let gateway = life.process("gateway");
        append_foreign(&world);
        let head = last_seq(&world);
        world.write("creds.json", r#"{"me":"forked"}"#);
        let ended = life.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        assert!(ended.log.contains("somebody-else"), "{}", ended.log);
        assert!(!is_alive(gateway));
        assert_eq!(last_seq(&world), head, "a fenced instance has committed");
    }
}

#[test]
fn one_directory_takes_one_supervisor() {
    let world = World::mongo();
    let first = world.script(IDLE).ready();
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 75, "{}", ended.log);
    assert!(ended.log.contains("lock"), "{}", ended.log);
    assert!(!world.path("ran").exists());
    // Another archive makes it no better.
    let ended = world
        .script("touch \"$P/ran\"")
        .set("archive=other")
        .run_to_end();
    assert_eq!(ended.code, 75, "{}", ended.log);
    assert_eq!(first.stop().code, 0);
}
