//! Which crate may know which, as Cargo resolves it: what the documents say of PID 1, and of what the parts
//! know of each other, is held here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
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

/// Modules at the top of the binary's crate, each with those that its code names; tests and fuzzers, which
/// know everything, are left out.
fn modules() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(&src).expect("the sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a name in text").to_owned();
        if !["lib", "main", "fuzzing"].contains(&name.as_str()) {
            read(&path, &name, known.entry(name.clone()).or_default());
        }
    }
    known
}

fn read(path: &Path, of: &str, known: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the sources") {
            read(&entry.expect("an entry").path(), of, known);
        }
        return;
    }
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    let name = path.file_stem().and_then(|name| name.to_str());
    if !is_source || name.is_some_and(|name| name.ends_with("tests")) {
        return;
    }
    let text = fs::read_to_string(path).expect("a source");
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect();
    for named in code.split("crate::").skip(1) {
        // One module, or a list of them in braces.
        let list = match named.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => named
                .split(|c: char| !is_name(c))
                .next()
                .unwrap_or_default(),
        };
        let modules = list.split(',').map(|one| {
            let one = one.trim();
            one.split(|c: char| !is_name(c)).next().unwrap_or_default()
        });
        let others = modules.filter(|module| !module.is_empty() && *module != of);
        known.extend(others.map(str::to_owned));
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[test]
fn modules_of_the_binary_know_each_other_in_no_circle() {
    let mut left = modules();
    assert!(left["cli"].contains("process"), "{left:?}");
    // One that knows none of those that are left is at the bottom.
    loop {
        let rest: BTreeSet<String> = left.keys().cloned().collect();
        let bottom = left
            .iter()
            .find(|(_, known)| known.is_disjoint(&rest))
            .map(|(name, _)| name.clone());
        match bottom {
            Some(name) => drop(left.remove(&name)),
            None => break,
        }
    }
    assert!(
        left.is_empty(),
        "these know each other in a circle: {left:#?}"
    );
}
