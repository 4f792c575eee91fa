//! Where rights are few: owners, modes and times that cannot be given cost a warning and never the
//! start, and the archive keeps them for a host where they can.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

use super::inject::Inject;
use super::keeper::{IDLE, Tree, World};

/// The user of a gateway that drops root.
const GATEWAY: u32 = 1000;

fn is_root() -> bool {
    // SAFETY: it only asks for our own id.
    unsafe { libc::geteuid() == 0 }
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid())
}

const NAMES: [&str; 5] = ["creds.json", "keys", "keys/1.json", "keys/link", "tool"];

/// A world whose store holds what belongs to [`GATEWAY`], and whose disk is wiped.
fn of_a_gateway() -> (World, Tree) {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", r#"{"me":1}"#);
    world.write("keys/1.json", "[1]");
    world.write("tool", "#!/bin/sh\n");
    symlink("1.json", world.dir().join("keys/link")).expect("symlink");
    for name in NAMES {
        lchown(world.dir().join(name), Some(GATEWAY), Some(GATEWAY)).expect("chown");
    }
    let set_id = fs::Permissions::from_mode(0o4750);
    fs::set_permissions(world.dir().join("tool"), set_id).expect("chmod");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let stored = Tree::of(&world.dir());
    world.wipe();
    (world, stored)
}

/// Runs as root who may not give files away: without the capability, and where the owner is not
/// mapped at all.
const POOR: [(&str, &str); 2] = [
    (
        "setpriv --bounding-set=-chown --inh-caps=-all",
        "the capability CAP_CHOWN is missing",
    ),
    (
        "unshare --user --map-root-user",
        "uid 1000 is not mapped in this user namespace",
    ),
];

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn works(before: &str) -> bool {
    let mut command = before.split(' ').chain(["true"]);
    let program = command.next().expect("a word");
    let tried = Command::new(program).args(command).status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        crate::policy::cannot_run(&format!("`{before}` does not work"));
    }
    works
}

#[test]
fn owners_that_cannot_be_given_cost_one_warning_and_stay_archived() {
    if !is_root() {
        return;
    }
    for (before, why) in POOR {
        if !works(before) {
            continue;
        }
        let (world, stored) = of_a_gateway();
        let life = world.script(IDLE).before(&words(before)).ready();
        let log = life.log();
        let told = "restored entries could not be given their owner";
        assert_eq!(log.matches(told).count(), 1, "{before}: {log}");
        let line = log.lines().find(|line| line.contains(told)).expect("one");
        for part in ["entries=5", "owner=1000:1000", why, "restore.owner"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        for name in NAMES {
            assert_eq!(owner(&world.dir().join(name)), (0, 0), "{before}: {name}");
        }
        let mode = fs::metadata(world.dir().join("tool")).expect("stat").mode() & 0o7777;
        assert_eq!(mode, 0o750, "a program of root's runs as root for nobody");
        assert_eq!(world.read("creds.json"), r#"{"me":1}"#);
        // The next commit, and what comes after it.
        world.write("creds.json", r#"{"me":2}"#);
        world.wait_until_stored("creds.json", r#"{"me":2}"#);
        assert_eq!(life.stop().code, 0);
        // What stays is looked at by another watcher.
        let life = world.script(IDLE).before(&words(before)).ready();
        world.write("keys/1.json", "[2]");
        world.wait_until_stored("keys/1.json", "[2]");
        assert_eq!(life.stop().code, 0);

        world.wipe();
        let life = world.script(IDLE).ready();
        for name in NAMES {
            let found = owner(&world.dir().join(name));
            assert_eq!(found, (GATEWAY, GATEWAY), "{before}: {name}");
        }
        assert_eq!(life.stop().code, 0);
        assert_eq!(world.read("creds.json"), r#"{"me":2}"#);
        let _ = stored;
    }
}

#[test]
fn a_kept_directory_in_a_user_namespace_loses_no_archived_owner() {
    let (before, _) = POOR[1];
    if !is_root() || !works(before) {
        return;
    }
    let (world, _) = of_a_gateway();
    assert_eq!(world.script(IDLE).ready().stop().code, 0);
    // The same directory: its files are of nobody there.
    let life = world.script(IDLE).before(&words(before)).ready();
    world.write("new", "1");
    world.wait_until_stored("new", "1");
    assert_eq!(life.stop().code, 0);
    world.wipe();
    assert_eq!(world.script(IDLE).ready().stop().code, 0);
    assert_eq!(owner(&world.dir().join("creds.json")), (GATEWAY, GATEWAY));
}

#[test]
fn restored_files_get_the_owner_that_is_set() {
    if !is_root() {
        return;
    }
    for (setting, wanted) in [("self", (0, 0)), ("1234:4321", (1234, 4321))] {
        let (world, stored) = of_a_gateway();
        let set = format!("restore.owner={setting}");
        let life = world.script(IDLE).set(&set).ready();
        for name in NAMES {
            assert_eq!(owner(&world.dir().join(name)), wanted, "{setting}: {name}");
        }
        assert!(!life.log().contains("could not be given"), "{}", life.log());
        assert_eq!(life.stop().code, 0);
        // It is what is archived from then on.
        world.wipe();
        assert_eq!(world.script(IDLE).ready().stop().code, 0);
        assert_eq!(owner(&world.dir().join("creds.json")), wanted, "{setting}");
        // And a copy gets it as well.
        let copy = world.path("copy");
        let output = world.command(&["restore", "--to", "copy", "--set", "restore.owner=77:78"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(owner(&copy.join("creds.json")), (77, 78));
        assert_eq!(Tree::of(&copy).content("tool"), stored.content("tool"));
    }
}

#[test]
fn a_file_system_that_takes_no_modes_times_or_owners_costs_a_warning_and_keeps_the_archive() {
    for errno in ["EPERM", "EINVAL", "EOPNOTSUPP", "ENOSYS", "EACCES"] {
        let world = World::sqlite();
        let life = world.script(IDLE).ready();
        world.write("creds.json", "{}");
        world.write("keys/1.json", "[1]");
        let mode = |name: &str, mode| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(world.dir().join(name), mode).expect("chmod");
        };
        mode("creds.json", 0o640);
        mode("keys", 0o750);
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let stored = Tree::of(&world.dir());
        world.wipe();

        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let calls = "?chmod,fchmod,?fchmodat,?fchmodat2,fchown,fchownat,utimensat";
        let fault = fault.fault(calls, &format!("error={errno}"));
        // So that what is created does not have the wanted modes by itself.
        let umask = ["sh", "-c", "umask 077; exec \"$@\"", "sh"].map(str::to_owned);
        let before = [fault.before(), umask.to_vec()].concat();
        let life = world.script(IDLE).before(&before).ready();
        assert!(fault.count() > 0, "{errno}: {}", life.log());
        let log = life.log();
        let told = "the file system did not take modes or times";
        assert_eq!(log.matches(told).count(), 1, "{errno}: {log}");
        assert_eq!(world.read("keys/1.json"), "[1]");
        // No commit of its own for what nobody changed.
        world.write("new", "1");
        world.wait_until_stored("new", "1");
        let head = world.head();
        world.write("new", "2");
        world.wait_until_stored("new", "2");
        assert_eq!(world.head(), head + 1, "{errno}: {}", life.log());
        assert_eq!(life.stop().code, 0);

        let copy = world.stored().expect("is whole");
        for name in ["creds.json", "keys/1.json"] {
            assert_eq!(copy.content(name), stored.content(name), "{errno}");
        }
        world.wipe();
        assert_eq!(world.script(IDLE).ready().stop().code, 0);
        let mode = |name: &str| {
            let meta = fs::metadata(world.dir().join(name)).expect("stat");
            meta.mode() & 0o7777
        };
        assert_eq!(
            (mode("creds.json"), mode("keys")),
            (0o640, 0o750),
            "{errno}"
        );
    }
}

#[test]
fn a_link_that_cannot_be_made_and_a_disk_that_is_read_only_are_errors_still() {
    for (calls, errno, told) in [
        (
            "symlinkat",
            "EPERM",
            "the session directory's file system has none",
        ),
        ("utimensat", "EROFS", "Read-only file system"),
        ("fchmod", "EIO", "Input/output error"),
    ] {
        let world = World::sqlite();
        let life = world.script(IDLE).ready();
        world.write("creds.json", "{}");
        let mode = fs::Permissions::from_mode(0o666);
        fs::set_permissions(world.dir().join("creds.json"), mode).expect("chmod");
        symlink("creds.json", world.dir().join("link")).expect("symlink");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        world.wipe();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let fault = fault.fault(calls, &format!("error={errno}"));
        let ended = world.script(IDLE).before(&fault.before()).run_to_end();
        assert_eq!(ended.code, 70, "{calls}: {}", ended.log);
        assert!(ended.log.contains(told), "{calls}: {}", ended.log);
    }
}

#[test]
fn a_torn_file_is_mended_where_no_owner_can_be_given() {
    let (before, _) = POOR[0];
    if !is_root() || !works(before) {
        return;
    }
    let (world, _) = of_a_gateway();
    assert_eq!(world.script(IDLE).ready().stop().code, 0);
    fs::write(world.dir().join("creds.json"), "{\"me\"").expect("tear");
    let life = world.script(IDLE).before(&words(before)).ready();
    assert_eq!(world.read("creds.json"), r#"{"me":1}"#, "{}", life.log());
    assert_eq!(owner(&world.dir().join("creds.json")), (GATEWAY, GATEWAY));
    assert_eq!(life.stop().code, 0);
}
