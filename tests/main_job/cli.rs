//! The commands beside `run`, against an archive that a real life wrote.

use std::fs;

use serde_json::Value;

use super::keeper::{IDLE, World, free_port};
use super::noise::noise;
use super::raw::{damage_a_pack, damage_commit};

const LOGIN: &str = r#"{"me":"first"}"#;

fn told(output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn log_show_status_and_verify_tell_of_what_was_written() {
    for world in World::both() {
        // A store that something else is kept in.
        let other = world
            .script(IDLE)
            .env("SESSIONKEEP_ARCHIVE", "other")
            .ready();
        assert_eq!(other.stop().code, 0);
        world.wipe();
        assert_eq!(told(&world.command(&["log"])), "no commits yet\n");
        // No good copy of anything.
        let nothing = world.command(&["verify"]);
        assert_eq!(nothing.status.code(), Some(1));
        assert!(told(&nothing).contains("nothing is stored as archive default"));
        let port = free_port();
        let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let log = world.log();
        assert_eq!(log[0]["files"], 1);
        assert_eq!(log[0]["total_bytes"], LOGIN.len());
        let seq = log[0]["seq"].to_string();
        let shown = world.json(&["show", &seq, "--json"]);
        assert_eq!(shown["changed"][0]["path"], "creds.json");
        assert_eq!(shown["changed"][0]["change"], "put");
        assert!(told(&world.command(&["show", &seq])).contains("creds.json"));
        assert_ne!(world.command(&["show", "999"]).status.code(), Some(0));

        let http = format!("http.port={port}");
        let status = world.json(&["status", "--json", "--set", &http]);
        assert_eq!(status["running"]["state"], "running", "{status}");
        assert_eq!(status["stored"]["head"]["seq"], log[0]["seq"]);
        assert_eq!(status["stored"]["lease"]["instance"], log[0]["instance"]);
        let words = told(&world.command(&["status", "--set", &http]));
        assert!(
            words.contains("running") && words.contains("owner"),
            "{words}"
        );
        let health = world.command(&["health", "--set", &http]);
        assert_eq!(health.status.code(), Some(0), "{health:?}");
        assert_eq!(
            world.json(&["health", "--json", "--set", &http])["status"],
            "ok"
        );

        for args in [&["verify", "--json"][..], &["verify", "--all", "--json"]] {
            let report = world.json(args);
            assert_eq!(report["damage"], Value::Array(vec![]), "{report}");
        }
        assert_eq!(life.stop().code, 0);
        let health = world.command(&["health", "--set", &http]);
        assert_eq!(health.status.code(), Some(1), "{health:?}");
    }
}

#[test]
fn lease_says_who_owns_and_who_waits_and_can_be_ended() {
    for world in World::both() {
        let none = told(&world.command(&["lease"]));
        assert!(
            none == "owner      none\n" || none.contains("does not exist"),
            "{none}"
        );
        let first = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let mut second = world
            .script(IDLE)
            .dir(world.path("elsewhere"))
            .set("lease.conflict=wait")
            .start();
        second.wait_for("waiting for the session");
        let lease = &world.json(&["lease", "--json"])["lease"];
        let owner = lease["instance"].as_str().expect("an owner").to_owned();
        assert_eq!(lease["waiting"][0]["asks_for_takeover"], false, "{lease}");
        let words = told(&world.command(&["lease"]));
        assert!(
            words.contains(&owner) && words.contains("waiting"),
            "{words}"
        );
        let ended = told(&world.command(&["lease", "--break"]));
        assert!(ended.contains(&owner) && ended.contains("ended"), "{ended}");
        // The owner is alive after all, and stops; who waits gets the session.
        let ended = first.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        second.wait_for("watcher is ready");
        assert_eq!(second.stop().code, 0);
        let ended = told(&world.command(&["lease", "--break"]));
        assert!(ended.contains("nobody held it"), "{ended}");
    }
}

#[test]
fn verify_names_what_is_damaged_and_exits_with_1() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        world.write("large.bin", noise(600 << 10));
        world.wait_until_saved();
        world.write("last.json", "{}");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let newest = world.changes()[0];
        damage_commit(&world, newest);
        for args in [&["verify"][..], &["verify", "--all"]] {
            let output = world.command(args);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(
                told(&output).contains(&format!("commit {newest}")),
                "{output:?}"
            );
        }
        // The same change again undoes it.
        damage_commit(&world, newest);
        assert_eq!(world.command(&["verify", "--all"]).status.code(), Some(0));
        damage_a_pack(&world);
        for args in [&["verify"][..], &["verify", "--all"]] {
            let output = world.command(args);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(
                told(&output).contains("the content of large.bin"),
                "{output:?}"
            );
        }
        let report = world.command(&["verify", "--json"]);
        let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
        assert!(!report["damage"].as_array().expect("a list").is_empty());
    }
}

#[test]
fn a_copy_can_be_made_and_a_restore_rehearsed_while_an_instance_runs() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let (before, lease) = (
            world.head(),
            world.json(&["status", "--json"])["stored"]["lease"].clone(),
        );
        let to = world.path("copy");
        let made = world.json(&["restore", "--json", "--to", to.to_str().expect("text")]);
        assert_eq!(made["files"], 1, "{made}");
        assert_eq!(
            fs::read_to_string(to.join("creds.json")).expect("copied"),
            LOGIN
        );
        assert!(!to.join(".sessionkeep").exists());
        let again = world.command(&["restore", "--to", to.to_str().expect("text")]);
        assert_ne!(again.status.code(), Some(0), "it is not empty any more");
        let plan = world.json(&["restore", "--dry-run", "--json"]);
        assert_eq!(plan["seq"], before, "{plan}");
        // Without either it would need the directory, and that is in use.
        let refused = world.command(&["restore"]);
        assert_eq!(refused.status.code(), Some(75), "{refused:?}");
        assert_eq!(world.head(), before);
        let after = &world.json(&["status", "--json"])["stored"]["lease"];
        assert_eq!(after["instance"], lease["instance"]);
        assert_eq!(after["epoch"], lease["epoch"]);
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn restore_by_number_brings_an_older_commit_back_and_the_next_start_keeps_it() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let old = world.head();
        world.write("creds.json", "{\"me\":\"newer\"}");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let restored = world.json(&["restore", "--json", "--seq", &old.to_string()]);
        assert_eq!(restored["because"], "it was asked for", "{restored}");
        assert_eq!(world.read("creds.json"), LOGIN);
        let life = world.script(IDLE).ready();
        assert_eq!(
            world.read("creds.json"),
            LOGIN,
            "what the operator asked for"
        );
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LOGIN);
    }
}

#[test]
fn the_doctor_finds_a_healthy_stack_healthy_and_a_missing_store_missing() {
    for world in World::both() {
        world.write("creds.json", LOGIN);
        let good = world.command(&["doctor", "--json"]);
        assert_eq!(good.status.code(), Some(0), "{}", told(&good));
        let findings: Vec<Value> = serde_json::from_slice(&good.stdout).expect("JSON");
        assert!(findings.len() >= 5, "{findings:?}");
        assert!(
            findings.iter().all(|f| f["severity"] != "FAIL"),
            "{findings:?}"
        );
    }
    let world = World::at(format!("mongodb://127.0.0.1:{}/wa", free_port()));
    let bad = world.command(&["doctor"]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let words = told(&bad);
    let failed = words
        .lines()
        .find(|line| line.starts_with("FAIL"))
        .expect("a failure");
    assert!(failed.contains('→'), "no remedy in {failed}");
    for command in ["log", "verify", "restore"] {
        let output = world.command(&[command, "--set", "store.wait=1s"]);
        assert_eq!(output.status.code(), Some(69), "{command}: {output:?}");
    }
}

#[test]
fn what_only_reads_makes_no_store_and_names_the_file_that_is_missing() {
    let world = World::sqlite();
    world.write("creds.json", LOGIN);
    let to = world.path("copy");
    for args in [
        &["log"][..],
        &["show", "1"],
        &["verify"],
        &["lease"],
        &["usage"],
        &["status"],
        &["restore", "--dry-run"],
        &["restore", "--to", to.to_str().expect("text")],
    ] {
        let output = world.command(args);
        assert_eq!(output.status.code(), Some(78), "{args:?}: {output:?}");
        let words = told(&output);
        assert!(words.contains("archive.db"), "{args:?}: {words}");
        assert!(words.contains("does not exist"), "{args:?}: {words}");
        assert!(!world.database_file().exists(), "{args:?} made the store");
    }
    assert!(!to.exists());
    let doctor = world.command(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", told(&doctor));
    assert!(told(&doctor).contains("will be made"), "{}", told(&doctor));
    assert!(!world.database_file().exists(), "doctor made the store");
}

#[test]
fn what_cannot_be_had_as_it_was_asked_for_ends_with_78_at_once() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let directory = format!("sqlite:{}", world.path(".").display());
    for (url, args) in [
        (&world.url[..], &["show", "999"][..]),
        (&world.url, &["restore", "--seq", "999"]),
        (&world.url, &["restore", "--seq", "999", "--to", "copy"]),
        (&world.url, &["restore", "--to", "~/x"]),
        ("none", &["log"]),
        (&directory, &["restore", "--set", "store.wait=5m"]),
        (&directory, &["log"]),
    ] {
        let output = world.command_at(url, args);
        let context = format!("{url} {args:?}: {output:?}");
        assert_eq!(output.status.code(), Some(78), "{context}");
    }
    assert!(!world.path("~").exists());
    let file = world.path("a-file");
    std::fs::write(&file, "").expect("write");
    for command in ["restore", "watch"] {
        let args = [command, "--set", "http.port=off"];
        let output = std::process::Command::new(super::keeper::program())
            .args(args)
            .arg("--dir")
            .arg(&file)
            .env("MONGO_URL", &world.url)
            .output()
            .expect("run the program");
        assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
    }
}

#[test]
fn the_doctor_is_no_milder_than_the_start_about_what_lies_in_our_own_directory() {
    for (name, content) in [
        ("state.json", "{\"version\":9}"),
        ("install.json", "{\"version\":9}"),
    ] {
        let world = World::sqlite();
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        std::fs::write(world.dir().join(".sessionkeep").join(name), content).expect("write");
        let doctor = world.command(&["doctor"]);
        assert_eq!(doctor.status.code(), Some(1), "{name}: {}", told(&doctor));
        let ended = world.script("true").run_to_end();
        assert_ne!(ended.code, 0, "{name}: {}", ended.log);
        assert!(ended.log.contains("newer"), "{name}: {}", ended.log);
    }
}
