//! The session directory itself: its owner, mode and time come back after a wipe of the directory, a
//! new one is for the user that the gateway will run as, and a change of it alone is saved.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::keeper::{IDLE, World, wait_until};

/// The user of a gateway that drops root.
const GATEWAY: u32 = 1000;
/// As gosu, su-exec and most images of node.js do.
const DROPPED: &str = "setpriv --reuid=1000 --regid=1000 --clear-groups";

fn is_root() -> bool {
    // SAFETY: it only asks for our own id.
    unsafe { libc::geteuid() == 0 }
}

/// Owner, and mode.
fn rights(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// A gateway without root has to come by.
fn passable(world: World) -> World {
    set_mode(&world.path("."), 0o711);
    world
}

/// A gateway that drops root, writes a file of this name, and idles.
fn writes(name: &str) -> String {
    format!("{DROPPED} sh -c 'echo {{}} > {name}' && {IDLE}")
}

#[test]
fn after_a_wipe_of_the_directory_itself_a_gateway_that_drops_root_can_write() {
    if !is_root() {
        return;
    }
    for world in World::both().into_iter().map(passable) {
        fs::create_dir(world.dir()).expect("mkdir");
        chown(world.dir(), Some(GATEWAY), Some(GATEWAY)).expect("chown");
        set_mode(&world.dir(), 0o2750);
        let life = world.script(&writes("creds.json")).ready();
        world.wait_until_stored("creds.json", "{}\n");
        assert_eq!(life.stop().code, 0);
        world.wipe();
        let life = world.script(&writes("later.json")).ready();
        assert_eq!(
            rights(&world.dir()),
            (GATEWAY, GATEWAY, 0o2750),
            "{}",
            life.log()
        );
        world.wait_until_stored("later.json", "{}\n");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn mode_and_time_of_the_directory_itself_come_back() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", "{}");
    world.wait_until_stored("creds.json", "{}");
    let before = world.head();
    set_mode(&world.dir(), 0o750);
    wait_until("the mode alone is committed", || world.head() > before);
    let time = UNIX_EPOCH + Duration::new(1_500_000_000, 7);
    let dir = File::open(world.dir()).expect("open");
    world.write("creds.json", r#"{"n":1}"#);
    // The content's commit takes it along, whenever that is: the name is not new.
    dir.set_modified(time).expect("set the time");
    world.wait_until_stored("creds.json", r#"{"n":1}"#);
    assert_eq!(life.stop().code, 0);
    world.write("creds.json", r#"{"n":2}"#);
    dir.set_modified(time).expect("set the time");
    assert_eq!(world.script(IDLE).ready().stop().code, 0);
    world.wipe();
    let life = world.script(IDLE).ready();
    let meta = fs::metadata(world.dir()).expect("stat");
    assert_eq!(meta.mode() & 0o7777, 0o750);
    assert_eq!(meta.modified().expect("a time"), time);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_change_of_the_directory_itself_is_one_commit_and_then_it_rests() {
    let world = World::sqlite();
    let life = world.script(IDLE).set("sync.rescan=200ms").ready();
    world.write("creds.json", "{}");
    world.wait_until_stored("creds.json", "{}");
    let head = world.head();
    // Its time alone changes with each name in it: no commit of its own.
    world.write("name", "");
    wait_until("the new name is stored", || world.head() > head);
    let head = world.head();
    set_mode(&world.dir(), 0o711);
    wait_until("the change is committed", || world.head() > head);
    let kind = |commit: &Value| commit["kind"].as_str().map(str::to_owned);
    assert_eq!(kind(&world.log()[0]).as_deref(), Some("change"));
    // Several looks at everything.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.head(), head + 1, "{}", life.log());
    assert_eq!(life.stop().code, 0);
    let at_rest = world.changes();
    assert_eq!(world.script(IDLE).ready().stop().code, 0);
    assert_eq!(world.changes(), at_rest, "a start alone changes nothing");
    // An archive never begins with the directory itself.
    let empty = World::sqlite();
    let life = empty.script(IDLE).set("sync.rescan=200ms").ready();
    set_mode(&empty.dir(), 0o711);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(empty.changes(), [0; 0], "{}", life.log());
    assert_eq!(life.stop().code, 0);
    assert_eq!(empty.changes(), [0; 0]);
}

#[test]
fn a_new_directory_belongs_to_the_owner_of_the_one_around_it() {
    if !is_root() {
        return;
    }
    let world = passable(World::sqlite());
    let home = world.path("home");
    fs::create_dir(&home).expect("mkdir");
    chown(&home, Some(GATEWAY), Some(GATEWAY)).expect("chown");
    let dir = home.join("made/for/it");
    let life = world.script(&writes("creds.json")).dir(dir.clone()).ready();
    for made in ["made", "made/for", "made/for/it"] {
        assert_eq!(
            rights(&home.join(made)),
            (GATEWAY, GATEWAY, 0o700),
            "{made}"
        );
    }
    assert!(dir.join("creds.json").exists(), "{}", life.log());
    let log = life.log();
    let told = "the session directory was made";
    let line = log.lines().find(|line| line.contains(told)).expect("told");
    assert!(line.contains("owner=1000:1000"), "{line}");
    assert_eq!(life.stop().code, 0);

    // What root's directory is around is root's.
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    assert_eq!(rights(&world.dir()), (0, 0, 0o700));
    assert!(life.log().contains("needs dir.owner"), "{}", life.log());
    assert_eq!(life.stop().code, 0);
}

#[test]
fn the_owner_that_is_set_wins_at_each_start() {
    if !is_root() {
        return;
    }
    let world = passable(World::sqlite());
    let set = "dir.owner=1000:1000";
    // A volume that is mounted as root's.
    fs::create_dir(world.dir()).expect("mkdir");
    set_mode(&world.dir(), 0o755);
    let life = world.script(&writes("creds.json")).set(set).ready();
    assert_eq!(rights(&world.dir()), (GATEWAY, GATEWAY, 0o755));
    world.wait_until_stored("creds.json", "{}\n");
    assert_eq!(life.stop().code, 0);
    // Whatever is archived, and in file mode, too.
    world.wipe();
    let life = world.script(IDLE).set("dir.owner=1001:1002").ready();
    assert_eq!(rights(&world.dir()), (1001, 1002, 0o755));
    assert_eq!(life.stop().code, 0);
    let dir = world.path("file-mode");
    let mut life = world
        .script(IDLE)
        .dir(dir.clone())
        .set(set)
        .set("store.url=none")
        .without_env("MONGO_URL")
        .start();
    life.wait_for("the gateway idles\n");
    assert_eq!(rights(&dir), (GATEWAY, GATEWAY, 0o700));
    assert_eq!(life.stop().code, 0);
}

#[test]
fn an_owner_that_would_shut_us_out_is_not_given() {
    if !is_root() {
        return;
    }
    // Root without the right to write where the mode forbids it.
    let poor = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-all",
    ];
    let world = passable(World::sqlite());
    let life = world
        .script(IDLE)
        .set("dir.owner=1000:1000")
        .before(&poor)
        .ready();
    assert_eq!(rights(&world.dir()), (0, 0, 0o700));
    assert!(life.log().contains("CAP_DAC_OVERRIDE"), "{}", life.log());
    assert_eq!(life.stop().code, 0);

    world.wipe();
    let life = world.script(IDLE).ready();
    world.write("creds.json", "{}");
    chown(world.dir(), Some(GATEWAY), Some(GATEWAY)).expect("chown");
    world.wait_until_stored("creds.json", "{}");
    assert_eq!(life.stop().code, 0);
    world.wipe();
    let life = world.script(IDLE).before(&poor).ready();
    assert_eq!(world.read("creds.json"), "{}");
    assert_eq!(rights(&world.dir()), (0, 0, 0o700));
    assert!(
        life.log().contains("would shut sessionkeep out"),
        "{}",
        life.log()
    );
    assert_eq!(life.stop().code, 0);
}
