//! Examples as test subjects: built once, as the test itself was.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The example `name`, built with the profile of the running test.
pub(crate) fn example(name: &'static str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    built.entry(name).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let target = own.ancestors().nth(2).expect("target directory");
    let profile = match target.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    // Cargo does not build examples when a single test is asked for.
    let mut cargo = Command::new(env!("CARGO"));
    // What Cargo tells a test about its package would look like a change to build scripts that
    // watch it, and everything above them would be built anew.
    for (variable, _) in std::env::vars_os() {
        let told = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        let variable = variable.to_string_lossy().into_owned();
        if told.iter().any(|prefix| variable.starts_with(prefix)) {
            cargo.env_remove(variable);
        }
    }
    let built = cargo
        .args(["build", "--quiet", "--example", name, "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(built.success(), "example {name} does not build");
    target.join("examples").join(name)
}
