//! File mode: init and supervision as ever, on the plain directory; and the ways into it and out
//! of it keep the newest state.

use std::fs;

use super::keeper::{IDLE, World, free_port, http_json, wait_until};

#[test]
fn without_a_store_the_gateway_runs_and_nothing_is_marked() {
    for value in ["false", "False", "0", "no", "NO"] {
        let world = World::mongo();
        let port = free_port();
        let life = world
            .script("echo {} > creds.json; trap 'exit 4' TERM; sleep 1000 & wait")
            .env("MONGO_ENABLED", value)
            .set(&format!("http.port={port}"))
            .ready();
        wait_until("the gateway runs", || {
            world.dir().join("creds.json").exists()
        });
        let health = http_json("GET", port, "/health").expect("an answer");
        assert_eq!(health["status"], "ok", "{health}");
        let ended = life.stop();
        assert_eq!(ended.code, 4, "{}", ended.log);
        assert!(!world.dir().join(".sessionkeep/state.json").exists());
        assert_eq!(world.read("creds.json"), "{}\n");
        assert!(world.log().is_empty());
    }
}

#[test]
fn every_spelling_of_yes_means_the_store() {
    for value in ["True", "true", "TRUE", "1", "yes", "Yes"] {
        let world = World::mongo();
        world.write("creds.json", "{}");
        let life = world.script(IDLE).env("MONGO_ENABLED", value).ready();
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn from_file_mode_to_the_store_and_back_and_again_the_newest_state_stays() {
    for world in World::both() {
        let step = |store: bool, content: &str| {
            let life = world.script(IDLE);
            let life = if store {
                life
            } else {
                life.env("MONGO_ENABLED", "false")
                    .env("SESSIONKEEP_STORE", "none")
                    .without_env("MONGO_URL")
            };
            let life = life.ready();
            let before = fs::read_to_string(world.dir().join("creds.json")).ok();
            world.write("creds.json", content);
            let ended = life.stop();
            assert_eq!(ended.code, 0, "{}", ended.log);
            before
        };
        let (one, two, three, four) = (r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#"{"n":4}"#);
        assert_eq!(step(false, one), None);
        assert_eq!(step(true, two).as_deref(), Some(one), "adopted");
        assert_eq!(world.stored().expect("a tree").text("creds.json"), two);
        assert_eq!(step(false, three).as_deref(), Some(two));
        assert_eq!(step(true, four).as_deref(), Some(three), "kept");
        assert_eq!(world.stored().expect("a tree").text("creds.json"), four);
        assert!(world.replaced().is_empty());
        world.wipe();
        assert_eq!(step(true, one).as_deref(), Some(four), "restored");
    }
}
