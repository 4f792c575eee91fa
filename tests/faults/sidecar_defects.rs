//! What file-by-file sync gets wrong, one test for each defect: ours passes, and where that is
//! cheap to show, the sidecar fails beside it. Where the sidecar passes one day, its half goes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use super::built;
use super::churned::{Journal, churning, torn};
use super::forge::{Swap, compressed, file, forge};
use super::keeper::{IDLE, Tree, World, send, wait_until};
use super::mongod::Mongod;
use super::node;
use super::sidecar::Sidecar;

/// Writes its last words when it is told to stop, as gateways do.
const LAST_WORDS: &str = r#"trap 'echo "{\"last\":1}" >"$S/last.json"; exit 0' TERM; echo up; while :; do sleep 0.05; done"#;

#[test]
fn the_last_writes_at_term_are_kept() {
    for world in World::both() {
        let mut life = world.script(LAST_WORDS).ready();
        life.wait_for("up\n");
        assert_eq!(life.stop().code, 0);
        assert!(world.stored().is_some_and(|tree| tree.has("last.json")));
    }
    if !node::has_namespaces() {
        crate::policy::cannot_run("no namespace can be made for the sidecar");
        return;
    }
    let sidecar = Sidecar::new();
    let mut command = sidecar.container(LAST_WORDS);
    let mut outer = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a container");
    let mut said = BufReader::new(outer.stdout.take().expect("a pipe")).lines();
    // The sidecar watches and the gateway runs, in whatever order.
    let mut up = 0;
    while up < 2 {
        let line = said.next().expect("both say so").expect("text");
        up += u32::from(line == "up" || line == "watching");
    }
    let init = super::process::with_descendants(outer.id())[1];
    send(init, libc::SIGTERM);
    outer.wait().expect("it ends");
    assert!(sidecar.world.dir().join("last.json").exists());
    assert_eq!(sidecar.has("last.json"), None, "the sidecar kept it");
}

#[test]
fn a_live_database_is_never_kept_as_a_mixture() {
    let gateway = built::example("churn");
    let world = World::sqlite();
    let life = churning(&world, &gateway).ready();
    wait_until("there is a lot in it", || {
        Journal::read(&world).newest > 300
    });
    let identity = Journal::read(&world).identities[0].clone();
    for _ in 0..8 {
        let to = world.path("copy");
        let output = world.command(&["restore", "--to", to.to_str().expect("text")]);
        assert!(output.status.success(), "{output:?}");
        let wrong = torn(&to, &Tree::of(&to), &identity);
        assert!(wrong.is_empty(), "{wrong:?}");
        fs::remove_dir_all(to).expect("remove the copy");
    }
    assert_eq!(life.stop().code, 0);

    // The same gateway in file mode, with a sidecar beside it.
    let sidecar = Sidecar::new();
    let life = churning(&sidecar.world, &gateway)
        .without_env("MONGO_URL")
        .env("MONGO_ENABLED", "false")
        .start();
    wait_until("there is a lot in it", || {
        Journal::read(&sidecar.world).newest > 300
    });
    let identity = Journal::read(&sidecar.world).identities[0].clone();
    let watching = sidecar.watch(&sidecar.world.dir());
    wait_until("one of its copies is none", || {
        let (_, tree) = sidecar.restore();
        !torn(&sidecar.restored(), &tree, &identity).is_empty()
    });
    drop(watching);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_log_that_was_left_beside_a_database_is_not_replayed_into_the_restored_one() {
    /// A database whose newest row is `value`, with its log, as a crash leaves it.
    fn crashed(dir: &std::path::Path, value: u32) {
        fs::create_dir_all(dir).expect("mkdir");
        let made = tempfile::tempdir().expect("a directory");
        let db = Connection::open(made.path().join("store.db")).expect("open");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (0);")
            .expect("fill");
        db.pragma_update(None, "wal_checkpoint", "TRUNCATE")
            .expect("checkpoint");
        db.execute("UPDATE t SET n = ?1", [value]).expect("update");
        for name in ["store.db", "store.db-wal"] {
            fs::copy(made.path().join(name), dir.join(name)).expect("copy");
        }
    }
    fn value(path: &std::path::Path) -> rusqlite::Result<u32> {
        Connection::open(path)?.query_row("SELECT n FROM t", [], |row| row.get(0))
    }
    let in_one_file = |world: &World, value: u32| {
        let db = Connection::open(world.dir().join("store.db")).expect("open");
        db.execute_batch(&format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (n); INSERT INTO t VALUES ({value});"
        ))
        .expect("fill");
    };
    for world in World::both() {
        let life = world.script(IDLE).ready();
        in_one_file(&world, 2);
        assert_eq!(life.stop().code, 0);
        world.wipe();
        // Of another container, and older.
        crashed(&world.dir(), 1);
        let life = world.script(IDLE).ready();
        assert_eq!(value(&world.dir().join("store.db")), Ok(2));
        assert_eq!(life.stop().code, 0);
    }
    let sidecar = Sidecar::new();
    in_one_file(&sidecar.world, 2);
    sidecar.upload();
    let to = sidecar.world.path("other");
    crashed(&to, 1);
    assert!(sidecar.restore_into(&to).0);
    assert_ne!(value(&to.join("store.db")), Ok(2), "the sidecar's is right");
}

#[test]
fn a_stale_container_does_not_overwrite_a_newer_state() {
    const WRITER: &str = "n=0; while [ ! -e \"$P/stop-$I\" ]; do n=$((n+1)); \
         echo \"{\\\"by\\\":\\\"$I\\\",\\\"n\\\":$n}\" >creds.new; mv creds.new creds.json; sleep 0.03; done";
    for world in World::both() {
        let of = |name: &str| {
            let dir = world.path(&format!("session-{name}"));
            world.script(WRITER).dir(dir).env("I", name)
        };
        let stale = of("old").ready();
        wait_until("the old one's is stored", || {
            world.stored().is_some_and(|tree| tree.has("creds.json"))
        });
        // As a host does that runs out of memory, or a laptop that is shut.
        let all = super::process::with_descendants(stale.pid());
        all.iter().for_each(|pid| send(*pid, libc::SIGSTOP));
        let newer = of("new").ready();
        wait_until("the new one's is stored", || {
            let tree = world.stored();
            tree.is_some_and(|tree| tree.text("creds.json").contains("new"))
        });
        all.iter().for_each(|pid| send(*pid, libc::SIGCONT));
        let ended = stale.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        assert!(
            world
                .stored()
                .is_some_and(|tree| tree.text("creds.json").contains("new"))
        );
        fs::write(world.path("stop-new"), "").expect("write");
        assert_eq!(newer.end().code, 0);
    }
    let sidecar = Sidecar::new();
    let [old, new] = ["old", "new"].map(|name| {
        let dir = sidecar.world.path(name);
        fs::create_dir_all(&dir).expect("mkdir");
        let watching = sidecar.watch(&dir);
        (dir, watching)
    });
    fs::write(new.0.join("creds.json"), r#"{"by":"new"}"#).expect("write");
    wait_until("the new one's is kept", || {
        sidecar.has("creds.json").as_deref() == Some(br#"{"by":"new"}"#)
    });
    fs::write(old.0.join("creds.json"), r#"{"by":"old"}"#).expect("write");
    wait_until("the old one's takes its place", || {
        sidecar.has("creds.json").as_deref() == Some(br#"{"by":"old"}"#)
    });
}

/// So many that a kill comes in the middle of them.
const FILES: usize = 400;

fn write_generation(world: &World, generation: u32) {
    for number in 0..FILES {
        world.write(
            &format!("key-{number}.json"),
            format!("{{\"g\":{generation}}}"),
        );
    }
}

/// How many files there are, and of how many generations.
fn generations(tree: &Tree) -> (usize, usize) {
    let mut found: Vec<&[u8]> = tree.files().map(|(_, content)| content).collect();
    let files = found.len();
    found.sort_unstable();
    found.dedup();
    (files, found.len())
}

#[test]
fn a_kill_in_the_first_upload_leaves_no_half_account() {
    for world in World::both() {
        for delay in [0, 5, 15, 30, 60] {
            fs::create_dir_all(world.dir()).expect("mkdir");
            write_generation(&world, 1);
            let mut life = world.script(IDLE).start();
            life.wait_for("started role=watcher");
            thread::sleep(Duration::from_millis(delay));
            life.kill_tree();
            let files = world.stored().map_or(0, |tree| generations(&tree).0);
            assert!(files == 0 || files == FILES, "{files} of {FILES}");
        }
    }
    let sidecar = Sidecar::new();
    write_generation(&sidecar.world, 1);
    sidecar.cut_upload_off(FILES as u64);
    let (content, tree) = sidecar.restore();
    let files = generations(&tree).0;
    assert!(content && files > 0 && files < FILES, "{files}");
}

#[test]
fn a_kill_while_all_of_it_changes_leaves_no_mixture() {
    for world in World::both() {
        fs::create_dir_all(world.dir()).expect("mkdir");
        write_generation(&world, 0);
        assert_eq!(world.script("exit 0").run_to_end().code, 0);
        for (generation, delay) in [(1, 0), (2, 5), (3, 15), (4, 30), (5, 60)] {
            write_generation(&world, generation);
            let mut life = world.script(IDLE).start();
            life.wait_for("started role=watcher");
            thread::sleep(Duration::from_millis(delay));
            life.kill_tree();
            let tree = world.stored().expect("a tree");
            assert_eq!(generations(&tree), (FILES, 1));
        }
    }
    let sidecar = Sidecar::new();
    write_generation(&sidecar.world, 1);
    sidecar.upload();
    write_generation(&sidecar.world, 2);
    sidecar.cut_upload_off(FILES as u64);
    let (content, tree) = sidecar.restore();
    assert_eq!((content, generations(&tree).1), (true, 2));
}

#[test]
fn a_file_that_is_touched_again_and_again_is_kept_up_with() {
    // The sidecar of the benchmarks does not starve; one with a usual debounce does.
    for world in World::both() {
        let busy = "n=0; while :; do n=$((n+1)); echo $n >busy; sleep 0.02; done";
        let life = world.script(busy).ready();
        let mut seen = 0;
        for _ in 0..3 {
            wait_until("a newer one is stored", || {
                let text = world
                    .stored()
                    .map(|tree| tree.text("busy").trim().to_owned());
                let number: u32 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                let newer = number > seen;
                seen = seen.max(number);
                newer
            });
        }
        life.kill_tree();
    }
}

#[test]
fn what_is_written_before_the_watcher_is_ready_is_kept() {
    for world in World::both() {
        fs::create_dir_all(world.dir()).expect("mkdir");
        write_generation(&world, 1);
        let life = world
            .script("echo '{}' >early.json; trap 'exit 0' TERM; sleep 1000 & wait")
            .ready();
        world.wait_until_stored("early.json", "{}\n");
        life.kill_tree();
    }
    let sidecar = Sidecar::new();
    write_generation(&sidecar.world, 1);
    sidecar.upload();
    let mut watching = sidecar.begin_watch(&sidecar.world.dir());
    sidecar.world.write("early.json", "{}");
    watching.until_watching();
    sidecar.world.write("later.json", "{}");
    wait_until("what came later is kept", || {
        sidecar.has("later.json").is_some()
    });
    assert_eq!(sidecar.has("early.json"), None, "the sidecar kept it");
}

#[test]
fn what_was_deleted_does_not_come_back() {
    for world in World::both() {
        world.write("pre-key-1.json", "{}");
        world.write("pre-key-2.json", "{}");
        let life = world.script(IDLE).ready();
        world.wait_until_stored("pre-key-2.json", "{}");
        assert_eq!(life.stop().code, 0);
        // While nobody watches, and then while somebody does.
        fs::remove_file(world.dir().join("pre-key-1.json")).expect("remove");
        let life = world
            .script("trap 'exit 0' TERM; rm pre-key-2.json; sleep 1000 & wait")
            .ready();
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let tree = world.stored().expect("a tree");
        assert!(!tree.has("pre-key-1.json") && !tree.has("pre-key-2.json"));
    }
    let sidecar = Sidecar::new();
    sidecar.world.write("pre-key-1.json", "{}");
    sidecar.upload();
    fs::remove_file(sidecar.world.dir().join("pre-key-1.json")).expect("remove");
    let watching = sidecar.watch(&sidecar.world.dir());
    sidecar.world.write("pre-key-3.json", "{}");
    wait_until("what came later is kept", || {
        sidecar.has("pre-key-3.json").is_some()
    });
    drop(watching);
    assert!(
        sidecar.has("pre-key-1.json").is_some(),
        "the sidecar noticed"
    );
}

#[test]
fn modes_times_links_and_empty_directories_come_back() {
    let fill = |world: &World| {
        world.write("creds.json", "{}");
        fs::create_dir_all(world.dir().join("empty")).expect("mkdir");
        symlink("creds.json", world.dir().join("link")).expect("symlink");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(world.dir().join("creds.json"), mode).expect("chmod");
    };
    for world in World::both() {
        fill(&world);
        assert_eq!(world.script("exit 0").run_to_end().code, 0);
        assert_eq!(world.stored(), Some(Tree::of(&world.dir())));
    }
    let sidecar = Sidecar::new();
    fill(&sidecar.world);
    sidecar.upload();
    let (_, mut tree) = sidecar.restore();
    let mut was = Tree::of(&sidecar.world.dir());
    assert!(!tree.has("empty") && !tree.has("link"), "{tree:?}");
    let name = b"creds.json";
    assert_ne!(tree.take(name), was.take(name), "mode and time were kept");
}

#[test]
fn a_stored_name_that_leads_out_is_not_written() {
    let content = br#"{"by":"an intruder"}"#;
    for world in World::both() {
        let frame = compressed(content);
        let listed = file("aa/x.json", content, content.len() as u64, &frame);
        // The type of a path has no way to name what lies above.
        let swap: Swap<'_> = Some((b"aa/x.json", b"../x.json"));
        forge(&world, vec![listed], frame, swap);
        let ended = world.script("touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 70, "{}", ended.log);
        assert!(!world.path("x.json").exists() && !world.path("ran").exists());
    }
    let sidecar = Sidecar::new();
    sidecar.store("../x.json", content);
    assert!(sidecar.restore().0);
    let outside = fs::read(sidecar.world.path("x.json")).ok();
    assert_eq!(
        outside.as_deref(),
        Some(&content[..]),
        "the sidecar refused"
    );
}

#[test]
fn two_writers_at_once_make_no_name_vanish() {
    for world in World::both() {
        fs::create_dir_all(world.dir()).expect("mkdir");
        write_generation(&world, 1);
        let mut first = world.script(IDLE).ready();
        world.wait_until_saved();
        // Another container with the same files, that writes all of them as well.
        let other = world.path("other");
        for number in 0..FILES {
            fs::create_dir_all(&other).expect("mkdir");
            fs::write(other.join(format!("key-{number}.json")), "{}").expect("write");
        }
        let second = world.script(IDLE).dir(other).ready();
        first.wait_for("to=Standby");
        let tree = world.stored().expect("a tree");
        assert_eq!(generations(&tree), (FILES, 1));
        assert_eq!(second.stop().code, 0);
        drop(first);
    }
    let sidecar = Sidecar::new();
    write_generation(&sidecar.world, 1);
    // Each deletes what it takes for an older revision, which may be the other one's newer.
    wait_until("a name is gone", || {
        sidecar.upload_twice_at_once();
        generations(&sidecar.restore().1).0 < FILES
    });
}

#[test]
fn a_store_that_is_away_at_boot_lets_no_gateway_start_on_an_empty_directory() {
    let mongod = Mongod::start();
    let url = mongod.new_database_url();
    drop(mongod);
    let world = World::at(url);
    let ended = world
        .script("touch \"$P/ran\"")
        .set("store.wait=2s")
        .set("store.timeout=1s")
        .run_to_end();
    assert_eq!(ended.code, 69, "{}", ended.log);
    assert!(!world.path("ran").exists(), "{}", ended.log);
}
