//! Settings as an operator gives them, and what the gateway may see of them.

use std::fs;

use super::keeper::{IDLE, World, free_port, program};
use super::mongod::{Mongod, Rights, User};

const CANARY: &str = "c4n4ry-p4ssw0rd";

#[test]
fn what_is_mistyped_ends_with_78_and_a_suggestion() {
    let world = World::mongo();
    for (setup, wanted) in [
        (world.script("true").set("store.wiat=3s"), "store.wait"),
        (
            world.script("true").set("sync.quiet=3 parsecs"),
            "sync.quiet",
        ),
        (
            world.script("true").env("SESSIONKEEP_STOP_TOTL", "3s"),
            "SESSIONKEEP_STOP_TOTAL",
        ),
        (world.script("true").env("MONGO_ENABLED", "ture"), "true"),
        (world.script("true").set("lease.conflict=wiat"), "wait"),
        (
            world
                .script("true")
                .env("MONGO_ENABLED", "true")
                .without_env("MONGO_URL"),
            "MONGO_URL",
        ),
    ] {
        let ended = setup.run_to_end();
        assert_eq!(ended.code, 78, "{wanted}: {}", ended.log);
        assert!(ended.log.contains(wanted), "{wanted}: {}", ended.log);
    }
    assert!(!world.dir().exists(), "the directory was touched");
}

#[test]
fn what_looks_like_a_setting_and_would_be_another_is_named_before_anything_is_touched() {
    let world = World::sqlite();
    let dir = world.dir().display().to_string();
    for (dir, words) in [
        (format!("\"{dir}\""), "without quotes"),
        (format!("'{dir}'"), "without quotes"),
        ("~/session".to_owned(), "only a shell"),
        ("$HOME/session".to_owned(), "`$`"),
    ] {
        let ended = world.script("true").dir(dir.clone().into()).run_to_end();
        assert_eq!(ended.code, 78, "{dir}: {}", ended.log);
        assert!(ended.log.contains(words), "{dir}: {}", ended.log);
    }
    let url = |text: &str| format!("mongodb://u:{CANARY}@127.0.0.1:1/{text}");
    for (url, words) in [
        (format!("\"{}\"", url("wa")), "without quotes"),
        (url("my.db"), "`.`"),
        (url("my db"), "blank"),
        (url("wa?retryWrite=true"), "`retryWrites`"),
        (url("wa?tls=1"), "`tls`"),
    ] {
        let ended = world.script("true").env("MONGO_URL", &url).run_to_end();
        assert_eq!(ended.code, 78, "{words}: {}", ended.log);
        assert!(ended.log.contains(words), "{words}: {}", ended.log);
        let config = world.command_at(&url, &["config"]);
        let doctor = world.command_at(&url, &["doctor"]);
        for output in [config, doctor] {
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told).into_owned();
            assert!(told.contains(words), "{words}: {told}");
            assert!(!told.contains(CANARY), "{told}");
        }
        assert!(!ended.log.contains(CANARY), "{}", ended.log);
    }
    let here = fs::read_dir(world.path(".")).expect("list").flatten();
    let made: Vec<_> = here
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("life-"))
        .collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_directory_of_the_system_or_behind_a_link_to_nowhere_is_refused_by_every_command() {
    // Not in memory: that is below `/dev`, and so the store would be, too.
    let world = World::on_disk();
    let (link, to_system) = (world.path("link"), world.path("system"));
    std::os::unix::fs::symlink("gone", &link).expect("link");
    std::os::unix::fs::symlink("/dev", &to_system).expect("link");
    for (dir, words) in [
        ("/dev".into(), "belongs to the system"),
        ("/".into(), "root of the file system"),
        ("/usr/local".into(), "belongs to the system"),
        (to_system, "(`/dev`, where links lead to)"),
        (link.clone(), "`gone`, which does not exist"),
        (link.join("below"), "`gone`, which does not exist"),
    ] {
        let dir: std::path::PathBuf = dir;
        let shown = dir.display();
        let ended = world
            .script("touch \"$P/ran\"")
            .dir(dir.clone())
            .run_to_end();
        assert_eq!(ended.code, 78, "{shown}: {}", ended.log);
        assert!(ended.log.contains(words), "{shown}: {}", ended.log);
        for (command, code) in [("watch", 78), ("doctor", 1), ("restore", 78)] {
            let output = std::process::Command::new(program())
                .args([command, "--profile", "generic", "--dir"])
                .arg(&dir)
                .current_dir(world.path("."))
                .env("MONGO_URL", &world.url)
                .env_remove("MONGO_ENABLED")
                .output()
                .expect("run");
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told).into_owned();
            assert_eq!(
                output.status.code(),
                Some(code),
                "{command} {shown}: {told}"
            );
            assert!(told.contains(words), "{command} {shown}: {told}");
        }
    }
    assert!(!world.path("ran").exists() && !world.path("gone").exists());
    assert!(!std::path::Path::new("/dev/.sessionkeep").exists());
}

#[test]
fn a_replica_set_that_no_server_belongs_to_is_named_with_the_way_out() {
    let url = Mongod::shared().new_database_url();
    let world = World::at(format!("{url}?replicaSet=wrong"));
    let told = world.command(&["doctor"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("the replica set `wrong`"), "{told}");
    assert!(told.contains("directConnection=true"), "{told}");
}

#[test]
fn a_relative_directory_is_taken_from_the_working_directory_with_a_word() {
    let world = World::sqlite();
    world.write("creds.json", "{}");
    let life = world.script(IDLE).dir("./session".into());
    let life = life.env("S", world.dir().display().to_string()).ready();
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let told = format!("stands for {}", world.dir().display());
    assert_eq!(ended.log.matches(&told).count(), 1, "{}", ended.log);
}

#[test]
fn options_of_an_address_that_other_drivers_know_are_passed_over() {
    let mut world = World::mongo();
    world
        .url
        .push_str("?compressors=zlib,snappy&timeoutMS=5000&useUnifiedTopology=true&w=majority");
    world.write("creds.json", "{}");
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    for option in ["compressors", "timeoutMS", "useUnifiedTopology"] {
        assert!(ended.log.contains(&format!("`{option}`")), "{}", ended.log);
    }
}

#[test]
fn settings_that_contradict_each_other_end_with_78() {
    let world = World::mongo();
    let ended = world
        .script("true")
        .env("SESSIONKEEP_STORE", "sqlite:/nowhere/else.db")
        .run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    let ended = world
        .script("true")
        .set("lease.renew=10s")
        .set("lease.ttl=12s")
        .run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    let ended = world
        .script("true")
        .set("stop.total=1s")
        .set("stop.flush=2s")
        .run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
}

#[test]
fn a_command_that_cannot_be_run_has_its_own_codes() {
    let world = World::mongo();
    assert_eq!(world.gateway(&["no-such-program"]).run_to_end().code, 127);
    fs::write(world.path("plain"), "text").expect("write");
    let plain = world.path("plain");
    let ended = world.gateway(&[plain.to_str().expect("text")]).run_to_end();
    assert_eq!(ended.code, 126, "{}", ended.log);
}

#[test]
fn the_gateway_sees_its_own_environment_and_nothing_of_ours() {
    let world = World::mongo();
    let life = world
        .script(&format!(
            "env > \"$P/seen\"; cat /proc/self/environ > \"$P/raw\"; {IDLE}"
        ))
        .env("ADMIN_TOKEN", CANARY)
        .env("SESSIONKEEP_SYNC_QUIET", "60ms")
        .env("MONGO_ENABLED", "true")
        .env("WHATSAPP_SESSIONS_MONGO_URL", &world.url)
        .env("WAHA_API_KEY", "theirs")
        .env("LOG_LEVEL", "debug")
        .ready();
    let ended = life.stop();
    let seen = fs::read_to_string(world.path("seen")).expect("seen");
    let raw = fs::read(world.path("raw")).expect("raw");
    let raw = String::from_utf8_lossy(&raw).into_owned();
    for text in [&seen, &raw] {
        for ours in [
            "MONGO",
            "SESSIONKEEP",
            "ADMIN_TOKEN",
            CANARY,
            "mongodb:",
            "LISTEN_FDS",
        ] {
            assert!(!text.contains(ours), "{ours} in {text}");
        }
        assert!(text.contains("WAHA_API_KEY=theirs"), "{text}");
        assert!(text.contains("LOG_LEVEL=debug"), "{text}");
    }
    assert!(!ended.log.contains(CANARY), "{}", ended.log);
}

fn user(password: &str) -> User {
    User {
        name: "keeper".into(),
        password: password.into(),
        database: "wa".into(),
        rights: Rights::ReadWrite,
    }
}

#[test]
fn a_user_with_rights_on_one_database_is_enough_and_its_password_is_never_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mongod = runtime.block_on(Mongod::start_with_login(&user(CANARY)));
    let url =
        |password: &str| format!("mongodb://keeper:{password}@127.0.0.1:{}/wa", mongod.port());
    let world = World::at(url(CANARY));
    world.write("creds.json", "{}");
    let life = world
        .script(&format!("env > \"$P/seen\"; {IDLE}"))
        .env("LOG_LEVEL", "trace")
        .ready();
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let mut told = vec![
        ended.log,
        fs::read_to_string(world.path("seen")).expect("seen"),
    ];

    let doctor = world.command(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{doctor:?}");
    let wrong = format!("{CANARY}-wrong");
    for args in [
        &["doctor"][..],
        &["status"],
        &["log"],
        &["verify"],
        &["config"],
        &["doctor", "--json"],
    ] {
        let output = world.command_at(&url(&wrong), args);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if args[0] == "doctor" {
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains("password"), "no remedy in {text}");
        }
        told.push(text);
        let output = world.command(args);
        told.push(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    }
    world.wipe();
    let ended = world
        .script("touch \"$P/ran\"")
        .env("MONGO_URL", url(&wrong))
        .run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(!world.path("ran").exists());
    told.push(ended.log);
    for text in told {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn the_url_names_the_database() {
    let mongod = Mongod::start();
    let host = format!("mongodb://127.0.0.1:{}", mongod.port());
    for (url, database) in [
        (format!("{host}/mine"), "mine"),
        (host.clone(), "sessionkeep"),
    ] {
        let world = World::at(url);
        world.write("creds.json", "{}");
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let named = World::at(format!("{host}/{database}"));
        assert!(named.head() > 0, "nothing in {database}");
    }
}

#[test]
fn the_settings_in_force_are_shown_with_their_sources_and_without_secrets() {
    let world = World::at(format!("mongodb://u:{CANARY}@127.0.0.1:{}/wa", free_port()));
    let shown = world.json(&["config", "--json", "--set", &format!("http.token={CANARY}")]);
    let text = shown.to_string();
    assert!(!text.contains(CANARY), "{text}");
    let settings = shown["settings"].as_array().expect("a list");
    let of = |key: &str| settings.iter().find(|s| s["key"] == key).expect("listed");
    assert_eq!(of("store.url")["source"], "MONGO_URL");
    assert_eq!(of("dir")["source"], "--dir");
    assert_eq!(of("stop.total")["source"], "default");
    assert_eq!(of("http.token")["value"], "[redacted]");
    let help = std::process::Command::new(program())
        .arg("--help")
        .output()
        .expect("run");
    assert!(help.status.success());
}
