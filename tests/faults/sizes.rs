//! Very many files, and very large ones: the memory that the watcher and the restorer need does not
//! follow the size.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::campaign::rounds;
use super::keeper::{IDLE, Life, World, is_alive, wait_until};
use super::noise::noise;
use super::process::peak_memory;

const MIB: u64 = 1 << 20;
/// What neither may need, whatever the directory holds. A small host has 512 MB for all.
const MEMORY: u64 = 128 * MIB;
/// This build is many times slower than the one that ships.
const LIMIT: Duration = Duration::from_secs(900);

/// Waits for something that takes its time, and gives the most memory that a process had until then.
fn peak_until(life: &mut Life, role: &str, text: &str, count: usize) -> u64 {
    let (begun, mut peak) = (Instant::now(), 0);
    let marked = format!("started role={role} pid=");
    while life.log().matches(text).count() < count {
        if life.log().contains(&marked) {
            peak = peak.max(peak_memory(life.process(role)));
        }
        assert!(begun.elapsed() < LIMIT, "no {text:?} in:\n{}", life.log());
        assert!(is_alive(life.pid()), "it ended: {}", life.log());
        thread::sleep(Duration::from_millis(5));
    }
    peak
}

/// Commits all of the world's directory, wipes it, and restores it; what watcher and restorer needed.
fn there_and_back(world: &World) -> (u64, u64) {
    let mut life = world.script(IDLE).set("stop.total=100s").start();
    let mut watcher = peak_until(&mut life, "watcher", "watcher is ready", 1);
    // A change and a look at everything, with all of it known.
    world.write("creds.json", r#"{"me":2}"#);
    life.wait_for_count("[SYNC] committed", 2);
    watcher = watcher.max(peak_memory(life.process("watcher")));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    world.wipe();
    let mut life = world.script(IDLE).set("stop.total=100s").start();
    let restorer = peak_until(&mut life, "restorer", "[BOOT] restored", 1);
    watcher = watcher.max(peak_until(&mut life, "watcher", "watcher is ready", 1));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    (watcher, restorer)
}

#[track_caller]
fn assert_bounded(what: &str, (watcher, restorer): (u64, u64)) {
    let told = format!(
        "{what}: the watcher needed {} MiB at most, the restorer {}",
        watcher / MIB,
        restorer / MIB
    );
    println!("{told}");
    assert!(watcher > 0 && restorer > 0, "not looked at; {told}");
    assert!(watcher < MEMORY && restorer < MEMORY, "{told}");
}

/// What is below a directory: how many files, and a hash of all names and contents.
fn digest(dir: &Path) -> (u64, blake3::Hash) {
    fn add(dir: &Path, count: &mut u64, hasher: &mut blake3::Hasher) {
        let entries = fs::read_dir(dir).expect("list").flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.ends_with(".sessionkeep") {
                continue;
            }
            hasher.update(path.file_name().expect("a name").as_encoded_bytes());
            if path.is_dir() {
                add(&path, count, hasher);
                continue;
            }
            *count += 1;
            let mut file = File::open(&path).expect("open");
            let mut buffer = vec![0; 1 << 20];
            loop {
                let read = file.read(&mut buffer).expect("read");
                hasher.update(&buffer[..read]);
                if read == 0 {
                    break;
                }
            }
        }
    }
    let (mut count, mut hasher) = (0, blake3::Hasher::new());
    add(dir, &mut count, &mut hasher);
    (count, hasher.finalize())
}

#[test]
fn very_many_files_come_back_and_memory_stays_small() {
    let files = rounds(20_000, 100_000);
    let world = World::sqlite();
    for number in 0..files {
        let name = format!("{}/session-{number}.json", number % 97);
        world.write(&name, format!("{{\"number\":{number}}}"));
    }
    world.write("creds.json", r#"{"me":1}"#);
    let needed = there_and_back(&world);
    world.write("creds.json", r#"{"me":1}"#);
    let (count, _) = digest(&world.dir());
    assert_eq!(count, files + 1);
    for number in 0..files {
        let name = format!("{}/session-{number}.json", number % 97);
        assert_eq!(world.read(&name), format!("{{\"number\":{number}}}"));
    }
    assert_bounded(&format!("{files} files"), needed);
}

#[test]
fn very_large_files_come_back_and_are_never_in_memory() {
    // Each of the two is so large: one with a hole, one with something to compress.
    let size = rounds(150, 2048) * MIB;
    let world = World::on_disk();
    world.write("creds.json", r#"{"me":1}"#);
    let mut sparse = File::create(world.dir().join("sparse.bin")).expect("create");
    sparse.seek(SeekFrom::Start(size - 5 * MIB)).expect("seek");
    sparse.write_all(&noise(5 << 20)).expect("write");
    let mut filled = File::create(world.dir().join("filled.bin")).expect("create");
    let some = noise(64 << 10);
    let mut block = some.repeat(4);
    for number in 0..size / block.len() as u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        filled.write_all(&block).expect("write");
    }
    drop((sparse, filled));
    let before = |world: &World| {
        fs::write(world.dir().join("creds.json"), "{}").expect("write");
        digest(&world.dir())
    };
    let expected = before(&world);
    world.write("creds.json", r#"{"me":1}"#);
    let needed = there_and_back(&world);
    wait_until("it is the same", || before(&world) == expected);
    assert_bounded(&format!("two files of {} MiB", size / MIB), needed);
}
