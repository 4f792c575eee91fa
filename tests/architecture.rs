//! Which crate may know which, as Cargo resolves it: what the documents say of PID 1, and of what the parts
//! know of each other, is held here.

use std::collections::BTreeSet;
use std::process::Command;

/// Names of all packages that one of ours is built from, itself included, on any platform.
fn built_from(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--target", "all"])
        .args(["--edges", "normal", "--prefix", "none"])
        .args(["--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{told}");
    let names = String::from_utf8(tree.stdout).expect("text");
    let names: BTreeSet<String> = names
        .lines()
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect();
    assert!(names.contains(package), "{names:?}");
    names
}

/// Those of them that are crates of this repository, without their common prefix.
fn ours(package: &str) -> Vec<String> {
    let names = built_from(package);
    let of_ours = names
        .iter()
        .filter_map(|name| name.strip_prefix("sessionkeep-"));
    of_ours.map(str::to_owned).collect()
}

#[test]
fn each_crate_knows_those_below_it_and_no_other() {
    assert_eq!(ours("sessionkeep-core"), ["core"]);
    assert_eq!(ours("sessionkeep-init"), ["core", "init"]);
    assert_eq!(ours("sessionkeep-archive"), ["archive", "core"]);
    assert_eq!(ours("sessionkeep-session"), ["core", "session"]);
    assert_eq!(ours("sessionkeep-stores"), ["archive", "core", "stores"]);
    let all = ["archive", "core", "init", "session", "stores"];
    assert_eq!(ours("sessionkeep"), all);
}

#[test]
fn init_is_built_without_an_async_runtime_a_driver_or_tls() {
    let heavy = [
        "async-trait",
        "futures-util",
        "hyper",
        "mongodb",
        "ring",
        "rusqlite",
        "rustls",
        "tokio",
        "zstd",
    ];
    let without = |package: &str, what: &[&str]| {
        let names = built_from(package);
        let found: Vec<_> = what.iter().filter(|one| names.contains(**one)).collect();
        assert!(found.is_empty(), "{package} is built from {found:?}");
    };
    without("sessionkeep-init", &heavy);
    without("sessionkeep-core", &heavy);
    without("sessionkeep-archive", &["mongodb", "rusqlite", "rustls"]);
    without("sessionkeep-session", &["mongodb", "tokio", "rustls"]);
    // It can tell: the binary has them all.
    let all = built_from("sessionkeep");
    assert!(heavy.iter().all(|one| all.contains(*one)), "{all:?}");
}
