//! What is called JSON: torn writes are kept out, whatever their size, and no format is.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::keeper::{IDLE, Tree, World, send, wait_until};

const LOGIN: &str = r#"{"me":"first"}"#;
const NOT_WHOLE: &str = "file is not whole; its last committed version stays";
const PUT_BACK: &str = "a crash had torn this file";
const HELD_BACK: &str = "what is not whole is not saved, and its last committed version stays";

/// Files that are called JSON, and are none to a strict reader.
const FORMATS: [(&str, &[u8]); 10] = [
    (
        "session.data.json",
        b"eyJXQUJyb3dzZXJJZCI6IngiLCJXQVNlY3JldEJ1bmRsZSI6InkifQ==",
    ),
    ("log.json", b"{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"),
    ("bom.json", b"\xef\xbb\xbf{\"a\":1}"),
    ("nan.json", b"{\"a\":NaN,\"b\":Infinity}"),
    ("comments.json", b"// settings\n{\"a\":1, /* b */}\n"),
    ("single.json", b"{'a':'b'}"),
    ("latin-1.json", b"{\"name\":\"Jos\xe9\"}\xe9"),
    ("utf-16.json", b"\xff\xfe{\0}\0"),
    ("empty.json", b""),
    ("blank.json", b"\n"),
];

/// A login as some libraries keep it, in one file; 2.5 MB.
fn large_login(number: u32) -> String {
    let mut text = format!("{{\"creds\":{{\"me\":\"{number}\"}},\"keys\":{{");
    for key in 0..12_500 {
        let comma = if key == 0 { "" } else { "," };
        let value = format!("{:0>180}", key * number);
        text.push_str(&format!("{comma}\"key-{key:05}\":\"{value}\""));
    }
    text.push_str("}}");
    text
}

/// Cuts a file short, as a writer leaves it that was killed in the middle.
fn tear(world: &World, name: &str, content: &str, len: usize) {
    let path = world.dir().join(name);
    let opened = OpenOptions::new().write(true).truncate(true).open(path);
    let mut file = opened.expect("open");
    file.write_all(&content.as_bytes()[..len]).expect("write");
}

fn append(world: &World, name: &str, text: &str) {
    let path = world.dir().join(name);
    let opened = OpenOptions::new().append(true).open(path);
    let mut file = opened.expect("open");
    file.write_all(text.as_bytes()).expect("append");
}

#[test]
fn what_never_was_json_is_stored_as_it_is_and_never_mended() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        for (name, content) in FORMATS {
            world.write(name, content);
        }
        world.wait_until_saved();
        // Written again while it runs, and looked at by another watcher.
        world.write("session.data.json", "bmV3ZXI=");
        append(&world, "log.json", "{\"n\":4}\n");
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(!ended.log.contains(NOT_WHOLE), "{}", ended.log);
        let all = Tree::of(&world.dir());
        world.wipe();
        let life = world.script(IDLE).ready();
        assert_eq!(Tree::of(&world.dir()), all);
        life.kill_tree();
        // What the gateway wrote last, and nobody has committed, on a disk that is kept.
        world.write("session.data.json", "bGFzdA==");
        append(&world, "log.json", "{\"n\":5}\n{\"n\":");
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("session.data.json"), "bGFzdA==");
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(!ended.log.contains(PUT_BACK), "{}", ended.log);
    }
}

#[test]
fn what_never_was_json_is_saved_at_the_end_at_once() {
    let world = World::sqlite();
    let script =
        "trap 'echo bGFzdA== > a.json; : > b.json; exit 0' TERM; echo up; sleep 1000 & wait";
    let mut life = world.script(script).ready();
    life.wait_for("up\n");
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(
        world.stored(),
        Some(Tree::of(&world.dir())),
        "{}",
        ended.log
    );
}

#[test]
fn a_log_that_began_with_one_line_is_stored_with_two() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("log.json", "{\"n\":1}\n");
    world.wait_until_saved();
    world.write("log.json", "{\"n\":1}\n{\"n\":2}\n");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn what_was_json_and_is_none_is_held_back_and_named_at_the_end() {
    for torn in ["{\"a\":", "", "no JSON at all"] {
        let world = World::sqlite();
        let mut life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.write("store.json", "{\"a\":1}");
        world.wait_until_saved();
        world.write("store.json", torn);
        world.write("other", "goes on");
        life.wait_for(NOT_WHOLE);
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        for told in [
            HELD_BACK,
            "store.json is not whole",
            "stopped; not all is saved",
        ] {
            assert!(ended.log.contains(told), "{told}: {}", ended.log);
        }
        let stored = world.stored().expect("a tree");
        assert_eq!(stored.text("store.json"), "{\"a\":1}");
        assert_eq!(stored.text("other"), "goes on");
        // Another one may have the session at once: all that may be saved is.
        let lease = String::from_utf8(world.command(&["lease"]).stdout).expect("text");
        assert!(lease.starts_with("owner      none"), "{lease}");
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("store.json"), "{\"a\":1}", "{}", life.log());
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
    }
}

#[test]
fn a_watcher_that_has_not_seen_the_last_version_asks_what_it_was() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        let large = large_login(1);
        world.write("creds.json", LOGIN);
        world.write("free.json", "bm9uZQ==");
        world.write("auth_info_multi.json", &large);
        world.wait_until_saved();
        let held = life.hold_watcher();
        tear(&world, "creds.json", LOGIN, 5);
        tear(&world, "auth_info_multi.json", &large, 1_300_000);
        world.write("free.json", "bmV3ZXI=");
        send(life.process("watcher"), libc::SIGKILL);
        drop(held);
        life.wait_for_count("watcher is ready", 2);
        life.wait_for_count(NOT_WHOLE, 2);
        world.wait_until_stored("free.json", "bmV3ZXI=");
        let stored = world.stored().expect("a tree");
        assert_eq!(stored.text("creds.json"), LOGIN, "{}", life.log());
        assert_eq!(stored.text("auth_info_multi.json"), large);
        // Written to its end, it is a file like any other.
        world.write("creds.json", r#"{"me":"second"}"#);
        world.write("auth_info_multi.json", large_login(2));
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
    }
}

#[test]
fn a_large_file_torn_by_a_kill_is_not_committed_and_what_is_put_back_is_whole() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        let (first, second) = (large_login(1), large_login(2));
        world.write("auth_info_multi.json", &first);
        world.wait_until_saved();
        for len in [1_300_000, 1_048_576, 2_000_000] {
            tear(&world, "auth_info_multi.json", &second, len);
            world.write("after.json", len.to_string());
            world.wait_until_stored("after.json", len.to_string());
            let stored = world.stored().expect("a tree");
            assert!(
                stored.text("auth_info_multi.json") == first,
                "{}",
                life.log()
            );
        }
        life.wait_for(NOT_WHOLE);
        life.kill_tree();
        let life = world.script(IDLE).ready();
        assert!(
            world.read("auth_info_multi.json") == first,
            "{}",
            life.log()
        );
        assert!(life.log().contains(PUT_BACK), "{}", life.log());
        let [aside] = &world.replaced()[..] else {
            panic!("{:?}", world.replaced())
        };
        let torn =
            fs::read_to_string(aside.join("auth_info_multi.json")).expect("it was set aside");
        assert!(torn == second[..2_000_000]);
        assert!(!world.dir().join(".sessionkeep/contents").exists());
        world.write("auth_info_multi.json", &second);
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
    }
}

#[test]
fn a_login_that_is_no_json_and_is_emptied_is_held_back() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    world.write("session.data.json", "bG9naW4=");
    world.write("queue.json", "cXVldWU=");
    world.wait_until_saved();
    world.write("session.data.json", "");
    world.write("queue.json", "");
    life.wait_for(NOT_WHOLE);
    wait_until("the other is stored as it is", || {
        let stored = world.stored().expect("a tree");
        assert_eq!(stored.text("session.data.json"), "bG9naW4=");
        stored.content("queue.json") == Some(b"")
    });
    life.kill_tree();
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("session.data.json"), "bG9naW4=");
    assert_eq!(world.read("queue.json"), "");
    assert_eq!(life.stop().code, 0);
}
