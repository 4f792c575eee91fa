//! A disk that answers with errors while the gateway runs: what cannot be read or written stays as
//! it was last stored, everything else goes on, and all is saved once the disk is well again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use rusqlite::Connection;

use super::inject::Inject;
use super::keeper::{IDLE, Life, Tree, World, is_alive};
use super::noise::noise;

const LOGIN: &str = r#"{"me":"first"}"#;
const LATER: &str = r#"{"me":"later"}"#;

/// A life that looks at everything each second.
fn begin(world: &World) -> Life {
    world.write("creds.json", LOGIN);
    world.write("keys/one.json", "{}");
    let life = world.script(IDLE).set("sync.rescan=1s").ready();
    world.wait_until_saved();
    life
}

/// Whether it warned of this path, with the kernel's word.
fn warned(life: &Life, path: &str) -> bool {
    life.log().lines().any(|line| {
        line.contains("WARN")
            && line.contains("entry cannot be read; its last committed state stays")
            && line.contains(&format!("path={path} "))
            && line.contains("Input/output error")
    })
}

#[test]
fn a_file_that_cannot_be_read_stays_as_it_was_stored_and_is_saved_once_it_can() {
    // Opened, read, and looked at by its name alone.
    for calls in ["openat", "read,pread64", "newfstatat"] {
        let world = World::sqlite();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let mut life = begin(&world);
        let fault = fault
            .fault(calls, "error=EIO")
            .path(world.dir().join("creds.json"))
            .path("creds.json");
        let broken = fault.attach(life.process("watcher"));
        world.write("creds.json", LATER);
        world.write("keys/one.json", "[1]");
        life.wait_for("entry cannot be read; its last committed state stays");
        assert!(warned(&life, "creds.json"), "{calls}: {}", life.log());
        world.wait_until_stored("keys/one.json", "[1]");
        let stored = world.stored().expect("a tree");
        assert_eq!(stored.text("creds.json"), LOGIN, "{calls}");
        assert!(is_alive(life.process("gateway")));
        assert!(fault.count() > 0, "{calls}");
        drop(broken);
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_change_that_cannot_be_read_at_the_end_is_not_called_saved() {
    // Opened, looked at by name, and the directory around it listed.
    for (calls, broken) in [
        ("openat", "creds.json"),
        ("newfstatat", "creds.json"),
        ("getdents64", "keys"),
    ] {
        let world = World::sqlite();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let life = begin(&world);
        let fault = fault
            .fault(calls, "error=EIO")
            .path(world.dir().join(broken))
            .path(broken);
        let attached = fault.attach(life.process("watcher"));
        world.write("keys/one.json", "[1]");
        world.write("creds.json", LATER);
        let ended = life.stop();
        drop(attached);
        assert_eq!(ended.code, 74, "{calls}: {}", ended.log);
        let told = format!("{broken} cannot be read: ");
        assert!(
            ended.log.contains(&told) && ended.log.contains("the rest is saved"),
            "{calls}: {}",
            ended.log
        );
        assert!(!ended.log.contains("all is saved"), "{}", ended.log);
        // The rest is, indeed, and what was not is saved by the next start on this directory.
        let stored = world.stored().expect("a tree");
        match broken {
            "keys" => assert_eq!(stored.text("creds.json"), LATER),
            _ => assert_eq!(
                (stored.text("creds.json"), stored.text("keys/one.json")),
                (LOGIN, "[1]")
            ),
        }
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let stored = world.stored().expect("a tree");
        assert_eq!(
            (stored.text("creds.json"), stored.text("keys/one.json")),
            (LATER, "[1]")
        );
    }
}

#[test]
fn what_cannot_be_read_and_is_as_it_was_saved_does_not_fail_the_end() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let life = begin(&world);
    let fault = fault
        .fault("openat", "error=EACCES")
        .path(world.dir().join("keys/one.json"))
        .path("keys/one.json");
    let attached = fault.attach(life.process("watcher"));
    world.write("new.json", "{}");
    let ended = life.stop();
    drop(attached);
    assert_eq!(ended.code, 0, "{}", ended.log);
}

/// A user who is not root.
const SOMEBODY: u32 = 4321;

/// A world whose directories are of [`SOMEBODY`]; none where there is only one user.
fn of_somebody() -> Option<World> {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        crate::policy::cannot_run("there is no other user: it is not root");
        return None;
    }
    let world = World::sqlite();
    fs::create_dir(world.dir()).expect("mkdir");
    for path in [world.path("."), world.dir()] {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("chown");
    }
    Some(world)
}

/// Words that run a command as [`SOMEBODY`].
fn as_somebody() -> Vec<String> {
    let (user, group) = (format!("--reuid={SOMEBODY}"), format!("--regid={SOMEBODY}"));
    ["setpriv", &user, &group, "--clear-groups"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn what_the_gateway_made_and_nobody_of_ours_can_read_is_not_called_saved() {
    // Root that may not read what belongs to others, as under `cap_drop: ALL`.
    let kept = "--bounding-set=-all,+setuid,+setgid,+chown,+kill";
    let cases = [
        (as_somebody(), "umask 777; echo '{}' > creds.json"),
        (
            as_somebody(),
            "mkdir -m 300 auth; echo '{}' > auth/creds.json",
        ),
        (
            vec!["setpriv".to_owned(), kept.to_owned()],
            "umask 077; echo '{}' > creds.json",
        ),
        (
            vec!["setpriv".to_owned(), kept.to_owned()],
            "umask 077; mkdir auth; echo '{}' > auth/creds.json",
        ),
    ];
    for (before, made) in cases {
        let Some(world) = of_somebody() else { return };
        if before.len() == 2 {
            // Ours is root then, and the gateway somebody else in a directory for all.
            for path in [world.path("."), world.dir()] {
                chown(&path, Some(0), Some(0)).expect("chown");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
            }
        }
        let gateway = format!("{} sh -c \"{made}\"", as_somebody().join(" "));
        let gateway = match before.len() {
            2 => gateway,
            _ => made.to_owned(),
        };
        let ended = world.script(&gateway).before(&before).run_to_end();
        assert_eq!(ended.code, 74, "{made}: {}", ended.log);
        if before.len() == 2 {
            assert!(
                ended.log.contains("cap_add: [DAC_OVERRIDE]"),
                "{}",
                ended.log
            );
        }
        for told in [
            "entry cannot be read, and was never saved",
            "cannot be read: ",
            "NOT saved",
        ] {
            assert!(ended.log.contains(told), "{made}: {told}: {}", ended.log);
        }
    }
}

#[test]
fn what_is_somebody_elses_and_cannot_be_read_does_not_fail_the_end() {
    let Some(world) = of_somebody() else { return };
    fs::create_dir(world.dir().join("lost+found-of-root")).expect("mkdir");
    fs::write(world.dir().join("root.txt"), "of root").expect("write");
    for name in ["lost+found-of-root", "root.txt"] {
        let mode = fs::Permissions::from_mode(0o000);
        fs::set_permissions(world.dir().join(name), mode).expect("chmod");
    }
    let ended = world
        .script("echo '{}' > creds.json")
        .before(&as_somebody())
        .run_to_end();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(ended.log.contains("path=root.txt "), "{}", ended.log);
    assert_eq!(world.stored().expect("a tree").text("creds.json"), "{}\n");
}

#[test]
fn a_large_file_whose_middle_cannot_be_read_is_not_stored_in_part() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let old = noise(3 << 20);
    world.write("large.bin", &old);
    let mut life = begin(&world);
    let fault = fault
        .fault("pread64", "error=EIO:when=20+")
        .path(world.dir().join("large.bin"));
    let broken = fault.attach(life.process("watcher"));
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 0x55).collect();
    world.write("large.bin", &new);
    life.wait_for("entry cannot be read; its last committed state stays");
    assert!(warned(&life, "large.bin"), "{}", life.log());
    world.write("creds.json", LATER);
    world.wait_until_stored("creds.json", LATER);
    let stored = world.stored().expect("a tree");
    assert_eq!(stored.content("large.bin"), Some(&old[..]));
    drop(broken);
    world.wait_until_stored("large.bin", &new);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_database_whose_pages_cannot_be_read_stays_as_it_was_stored() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    fs::create_dir_all(world.dir()).expect("mkdir");
    let path = world.dir().join("store.db");
    let gateway = Connection::open(&path).expect("open");
    gateway
        .execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("fill");
    let life = begin(&world);
    let before = world.stored().expect("a tree");
    let fault = fault.fault("pread64", "error=EIO").path(&path);
    let broken = fault.attach(life.process("watcher"));
    gateway
        .execute_batch("INSERT INTO t VALUES (2)")
        .expect("insert");
    super::keeper::wait_until("it has tried", || fault.count() > 0);
    world.write("creds.json", LATER);
    world.wait_until_stored("creds.json", LATER);
    let during = world.stored().expect("a tree");
    assert_eq!(during.content("store.db"), before.content("store.db"));
    drop(broken);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_directory_that_cannot_be_listed_is_not_taken_for_empty() {
    for name in ["keys", ""] {
        let world = World::sqlite();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let mut life = begin(&world);
        let before = world.stored();
        let fault = fault
            .fault("getdents64", "error=EIO")
            .path(world.dir().join(name));
        let broken = fault.attach(life.process("watcher"));
        let told = match name {
            "" => "the session directory cannot be read",
            _ => "entry cannot be read; its last committed state stays",
        };
        life.wait_for(told);
        assert!(life.log().contains("Input/output error"), "{}", life.log());
        assert_eq!(world.stored(), before, "{name:?}");
        world.write("keys/one.json", "[2]");
        drop(broken);
        world.wait_until_saved();
        assert!(fault.count() > 0);
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_store_whose_disk_does_not_sync_acknowledges_nothing_and_one_commit_catches_up() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let mut life = begin(&world);
    let log = world.path("archive.db-wal");
    let fault = fault.fault("fsync,fdatasync", "error=EIO").path(log);
    let broken = fault.attach(life.process("watcher"));
    world.write("creds.json", LATER);
    life.wait_for("changes cannot be saved now; the gateway goes on");
    assert!(is_alive(life.process("gateway")));
    drop(broken);
    life.wait_for("changes can be saved again");
    world.wait_until_saved();
    assert!(fault.count() > 0);
    assert_eq!(life.stop().code, 0);
    let verified = world.command(&["verify", "--all"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_marker_that_cannot_be_written_costs_nothing() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let life = begin(&world);
    let marker = world.dir().join(".sessionkeep/state.json.tmp");
    let fault = fault.fault("fsync", "error=EIO").path(marker);
    let _broken = fault.attach(life.process("watcher"));
    world.write("creds.json", LATER);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(fault.count() > 0, "{}", ended.log);
    let told = "the marker could not be written";
    assert!(ended.log.contains(told), "{}", ended.log);
    let before = Tree::of(&world.dir());
    assert_eq!(world.stored().as_ref(), Some(&before));
    let life = world.script(IDLE).ready();
    assert!(world.replaced().is_empty());
    assert_eq!(Tree::of(&world.dir()), before);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn where_the_kernel_or_a_seccomp_profile_has_no_openat2_everything_is_saved_and_restored() {
    for error in ["error=ENOSYS", "error=EPERM"] {
        let world = World::sqlite();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let fault = fault.fault("openat2", error);
        world.write("creds.json", LOGIN);
        world.write("a/b/c/one.json", "[1]");
        let life = world.script(IDLE).before(&fault.before()).ready();
        world.write("a/b/c/two.json", "[2]");
        world.write("a/b/d/three.json", "[3]");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        assert!(fault.count() > 0, "{error} came not up");
        let before = Tree::of(&world.dir());
        world.wipe();
        let life = world.script(IDLE).before(&fault.before()).ready();
        assert_eq!(Tree::of(&world.dir()), before, "{error}");
        assert_eq!(life.stop().code, 0);
    }
}
