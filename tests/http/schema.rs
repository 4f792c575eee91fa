//! The JSON answers against their own description, by schemathesis.

use std::path::Path;
use std::process::Command;

use super::ask::get;
use super::keeper::World;
use super::waha::Waha;

#[test]
fn every_answer_is_as_it_is_described() {
    let tool =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/schemathesis/bin/schemathesis");
    assert!(
        tool.exists(),
        "{}: run tests/tools/fetch.sh",
        tool.display()
    );
    let world = World::sqlite();
    let waha = Waha::start(&world, |setup| setup);
    waha.tell("default", "scan");
    waha.wait_until_session("noweb/default", "WORKING");
    waha.tell("default", "logout");
    waha.wait_until_session("noweb/default", "SCAN_QR_CODE");
    world.wait_until_saved();
    let description = world.path("openapi.json");
    std::fs::write(&description, get(waha.port, "/openapi.json", &[]).body).expect("write");
    let output = Command::new(tool)
        .arg("run")
        .arg(&description)
        .arg(format!("--url=http://127.0.0.1:{}", waha.port))
        .args([
            "--checks=all",
            "--exclude-checks=ignored_auth",
            "--max-examples=20",
            "--no-color",
            "--seed=1",
        ])
        .current_dir(world.path(""))
        .output()
        .expect("run schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(waha.life.stop().code, 0);
}
