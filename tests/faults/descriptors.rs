//! A process that has no descriptor left: it does not take what it cannot open for absent, and goes
//! on when it has some again.

use std::fs;

use super::keeper::{IDLE, Tree, World, is_alive, wait_until};

const LOGIN: &str = r#"{"me":"first"}"#;

/// Sets how many descriptors a running process may have.
fn limit(pid: u32, most: u64) {
    let most = libc::rlimit {
        rlim_cur: most,
        rlim_max: 4096,
    };
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: plain system call; the limit outlives it.
    let done = unsafe {
        libc::prlimit(
            pid,
            libc::RLIMIT_NOFILE,
            &raw const most,
            std::ptr::null_mut(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// The limit under which it can open only so many more: the limit is one of numbers, and the lowest
/// free ones come first.
fn only(pid: u32, more: usize) -> u64 {
    let list = fs::read_dir(format!("/proc/{pid}/fd")).expect("list");
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let open: Vec<u64> = list.flatten().filter_map(number).collect();
    let mut free = (0..).filter(|number| !open.contains(number));
    free.nth(more).expect("they do not end")
}

#[test]
fn a_watcher_without_descriptors_removes_nothing_and_catches_up() {
    let world = World::sqlite();
    world.write("creds.json", LOGIN);
    world.write("keys/deep/one.json", "{}");
    let life = world.script(IDLE).set("sync.rescan=1s").ready();
    world.wait_until_saved();
    let watcher = life.process("watcher");
    // With none at all, and with a few that let it get some of the way down.
    for spare in [0, 1, 2, 3] {
        limit(watcher, only(watcher, spare));
        let content = format!("{{\"spare\":{spare}}}");
        world.write("creds.json", &content);
        let refused = life.log().matches("nothing is committed").count();
        wait_until("it has looked in vain, or saved it", || {
            let stored = world.stored();
            let stored = stored.as_ref().and_then(|tree| tree.content("creds.json"));
            life.log().matches("nothing is committed").count() > refused
                || stored == Some(content.as_bytes())
        });
        let stored = world.stored().expect("a tree");
        assert!(stored.has("keys/deep/one.json"), "{}", life.log());
        assert!(stored.has("creds.json"), "{}", life.log());
        assert!(is_alive(life.process("gateway")));
    }
    let log = life.log();
    let mut told = log
        .lines()
        .filter(|line| line.contains("nothing is committed"));
    assert!(
        told.all(|line| line.contains("Too many open files")),
        "{log}"
    );
    assert!(log.contains("Too many open files"), "{log}");
    limit(watcher, 1024);
    world.wait_until_saved();
    assert_eq!(life.process("watcher"), watcher, "{}", life.log());
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_start_with_too_few_descriptors_fails_with_a_word_or_is_whole() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.write("a/b/c/d/key.json", "{}");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let whole = Tree::of(&world.dir());
    let (mut failed, mut started) = (0, 0);
    for most in 3..40 {
        let _ = fs::remove_dir_all(world.dir());
        let limit = format!("--nofile={most}");
        let ended = world
            .script("ls -R > \"$P/ran\"")
            .set("store.wait=300ms")
            .before(&["prlimit", &limit])
            .run_to_end();
        let ran = world.path("ran").exists();
        match ended.code {
            0 => started += 1,
            // The loader of a program has its own.
            127 if ended.log.contains("error while loading shared libraries") => {}
            69 | 70 | 74 | 78 => {
                failed += 1;
                let told = ended.log.contains("Too many open files")
                    || ended.log.contains("unable to open")
                    || ended.log.contains("os error 24");
                assert!(told, "{most}: {}", ended.log);
            }
            code => panic!("{most}: {code}: {}", ended.log),
        }
        if ran {
            assert_eq!(Tree::of(&world.dir()), whole, "{most}: {}", ended.log);
        } else {
            assert_ne!(ended.code, 0, "{most}: {}", ended.log);
            let left = Tree::of(&world.dir());
            assert!(left == whole || !left.has("creds.json"), "{most}: {left:?}");
        }
        let _ = fs::remove_file(world.path("ran"));
    }
    assert!(
        failed > 0 && started > 0,
        "{failed} failed, {started} started"
    );
    wait_until("the lease is over or free", || {
        world.command(&["lease"]).status.success()
    });
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}
