//! What the program writes is for the owner alone: it opens a WhatsApp account.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::keeper::{IDLE, World, program};

/// Everything below `dir` with its mode, but for what a gateway wrote.
fn modes_below(dir: &Path, modes: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(dir).expect("list").flatten() {
        let meta = entry.metadata().expect("stat");
        modes.push((entry.path().display().to_string(), meta.mode() & 0o7777));
        if meta.is_dir() && entry.file_name() != "replaced" {
            modes_below(&entry.path(), modes);
        }
    }
}

#[track_caller]
fn assert_ours_alone(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(meta.mode() & 0o7777, wanted, "{}", path.display());
}

#[test]
fn what_we_write_is_for_the_owner_alone_even_without_a_umask() {
    let open = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    let mut world = World::at("");
    let store = world.path("made/for/it/archive.db");
    world.url = format!("sqlite:{}", store.display());
    let life = world
        .script(&format!(
            "echo '{{}}' > creds.json; mkdir sub; echo 1 > sub/open; {IDLE}"
        ))
        .before(&open)
        .ready();
    world.wait_until_saved();
    for made in ["made", "made/for", "made/for/it"] {
        assert_ours_alone(&world.path(made));
    }
    for suffix in ["", "-wal", "-shm"] {
        assert_ours_alone(Path::new(&format!("{}{suffix}", store.display())));
    }
    assert_ours_alone(&world.dir());
    assert_ours_alone(&world.dir().join(".sessionkeep"));
    assert_eq!(life.stop().code, 0);

    // A restore over something else: that is set aside.
    let mode = |name: &str| fs::metadata(world.dir().join(name)).expect("stat").mode() & 0o7777;
    assert_eq!(
        (mode("creds.json"), mode("sub")),
        (0o666, 0o777),
        "no umask"
    );
    fs::remove_file(world.dir().join(".sessionkeep/state.json")).expect("remove");
    let life = world.script(IDLE).before(&open).ready();
    assert_eq!(
        (mode("creds.json"), mode("sub")),
        (0o666, 0o777),
        "as it was"
    );
    assert_eq!(life.stop().code, 0);
    // And a torn key is mended: that, too, sets something aside.
    world.write("creds.json", "{");
    world.write("sub/key.json", "{}");
    let life = world.script(IDLE).before(&open).ready();
    assert_eq!(life.stop().code, 0);
    let mut found = Vec::new();
    modes_below(&world.dir().join(".sessionkeep"), &mut found);
    for (path, mode) in &found {
        let wanted = if Path::new(path).is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(*mode, wanted, "{path}");
    }
    assert!(found.len() >= 3, "{found:?}");
    for aside in world.replaced() {
        assert_ours_alone(&aside);
    }
    assert_eq!(world.replaced().len(), 2, "{:?}", world.replaced());

    // A copy is a login like the original.
    let copy = world.path("copies/one");
    let words = format!("umask 0; exec {} restore --to copies/one", program());
    let output = Command::new("sh")
        .args(["-c", &words])
        .current_dir(world.path("."))
        .env("MONGO_URL", &world.url)
        .output()
        .expect("restore");
    assert!(output.status.success(), "{output:?}");
    assert_ours_alone(&copy);
    assert_ours_alone(&world.path("copies"));
}
