//! A crash inside a restore, at every system call that changes anything: the restore is repeated,
//! and crashes again, until it succeeds. What was there is never lost on the way, and what is there
//! in the end is the commit, whole.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rusqlite::Connection;

use super::campaign::{Tally, chance, rounds, seed};
use super::inject::Inject;
use super::keeper::{IDLE, Tree, World, program};
use super::noise::noise;

/// What changes a file system. Opening is among them, since it creates.
const CHANGES: &str = "openat,mkdir,mkdirat,write,pwrite64,writev,copy_file_range,ftruncate,fallocate,\
    fchmod,fchmodat,fchown,fchownat,utimensat,symlinkat,linkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
    fsync,fdatasync,syncfs,flock,fcntl";

/// What is in the archive.
fn fill(world: &World) {
    world.write("creds.json", r#"{"me":"new"}"#);
    world.write("keys/pre-key-1.json", r#"{"n":1}"#);
    world.write("keys/deep/er/pre-key-2.json", r#"{"n":2}"#);
    world.write("large.bin", noise(200_000));
    symlink("creds.json", world.dir().join("link")).expect("symlink");
    fs::create_dir_all(world.dir().join("empty")).expect("mkdir");
    let db = Connection::open(world.dir().join("store.db")).expect("open");
    db.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3);")
        .expect("fill");
}

/// What a container finds that was another one's: partly other, partly the same names.
fn leave_old_files(world: &World) {
    world.write("creds.json", r#"{"me":"old"}"#);
    world.write("keys/pre-key-0.json", r#"{"n":0}"#);
    world.write("large.bin", "small");
    world.write("store.db", "no database at all");
    // Beside the database that takes its place it would be replayed.
    world.write("store.db-wal", "stale");
    symlink("elsewhere", world.dir().join("empty")).expect("symlink");
}

/// A call that a crash comes at: its name, and the how-manieth of a thread.
type Point = (String, usize);

/// A restore with its calls traced, or killed at one of them.
fn restore(world: &World, at: Option<&Point>) -> Option<(ExitStatus, Inject)> {
    let inject = Inject::new(world)?;
    let inject = match at {
        Some((call, count)) => inject.fault(call, &format!("signal=SIGKILL:when={count}")),
        // A delay of nothing does no harm, and is traced.
        None => inject.fault(CHANGES, "delay_enter=0"),
    };
    let words = inject.before();
    let status = Command::new(&words[0])
        .args(&words[1..])
        .arg(program())
        .args(["restore", "--profile", "generic", "--dir"])
        .arg(world.dir())
        .args(["--set", "lease.ttl=3s", "--set", "lease.renew=1s"])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("MONGO_URL", &world.url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("run the program");
    // The dead one's lease would hold up the next one until it runs out.
    let _ = world.command(&["lease", "--break"]);
    Some((status, inject))
}

/// Every content that can be found below the session directory, wherever it is by now.
fn contents(dir: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let Ok(meta) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if meta.is_dir() {
            found.extend(contents(&entry.path()));
        } else if meta.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            found.insert(target.as_os_str().as_bytes().to_vec());
        } else {
            found.insert(fs::read(entry.path()).unwrap_or_default());
        }
    }
    found
}

fn crash_everywhere(name: &'static str, over_old_files: bool) {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    fill(&world);
    world.wait_until_stored("creds.json", r#"{"me":"new"}"#);
    assert_eq!(life.stop().code, 0);
    let new = world.stored().expect("a tree");
    let prepare = || {
        world.wipe();
        fs::create_dir_all(world.dir()).expect("mkdir");
        if over_old_files {
            leave_old_files(&world);
        }
    };
    prepare();
    let old = contents(&world.dir());
    let Some((status, inject)) = restore(&world, None) else {
        return;
    };
    assert!(status.success(), "{status:?}");
    assert_eq!(Tree::of(&world.dir()), new, "without any crash");
    let calls = inject.calls();
    let points = calls
        .iter()
        .flat_map(|(call, count)| (1..=*count).map(|at| (call.clone(), at)));
    let every: Vec<Point> = points.collect();
    assert!(every.len() > 60, "not what a restore does: {calls:?}");

    let mut chance = chance(name);
    let mut tally = Tally::new(name);
    let all = rounds(60, u64::MAX);
    let mut points = every.clone();
    if (points.len() as u64) > all {
        chance.shuffle(&mut points);
        points.truncate(usize::try_from(all).expect("few"));
    }
    let mut killed = 0;
    for point in points {
        prepare();
        let mut at = Some(&point);
        loop {
            let (status, _) = restore(&world, at).expect("it was possible before");
            let what = format!("{name}, FAULTS_SEED={}, killed at {at:?}", seed());
            let left = contents(&world.dir());
            for lost in old.difference(&left) {
                tally.lost(format!("{what}: {:?}", String::from_utf8_lossy(lost)));
            }
            if status.success() {
                break;
            }
            assert!(at.is_some(), "{what}: failed by itself, {status:?}");
            killed += 1;
            // Again, at another point; in the end without a crash.
            at = (chance.u8(..3) > 0).then(|| &every[chance.usize(..every.len())]);
        }
        let found = Tree::of(&world.dir());
        if found != new {
            tally.torn(format!("killed at {point:?}: {found:?}"));
        }
        let aside = world.replaced().len();
        if aside != usize::from(over_old_files) {
            tally.lost(format!("killed at {point:?}: {aside} set aside"));
        }
        let state = world.dir().join(".sessionkeep");
        for remains in ["staging", "install.json"] {
            if state.join(remains).exists() {
                tally.torn(format!("killed at {point:?}: {remains} is left"));
            }
        }
        tally.round();
    }
    println!(
        "figure: {} calls that change something, {killed} kills",
        every.len()
    );
    assert!(killed > tally.rounds() / 2, "hardly anything was killed");
    tally.end();
}

#[test]
fn a_restore_into_an_empty_directory_survives_a_crash_at_every_call() {
    crash_everywhere("crash in a restore, empty directory", false);
}

#[test]
fn a_restore_over_old_files_survives_a_crash_at_every_call() {
    crash_everywhere("crash in a restore, over old files", true);
}
