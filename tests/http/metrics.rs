//! `/metrics`, and what Prometheus itself makes of it, where it is installed.

use std::fs;
use std::process::{Command, Stdio};

use super::ask::{get, try_get};
use super::keeper::{IDLE, World, free_port, wait_until};

/// The value of a metric, by its name with its labels.
fn value(page: &str, name: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[test]
fn counters_count_what_is_committed_and_gauges_say_how_it_stands() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let page = || get(port, "/metrics", &[]).text();
    world.write("a.json", "{\"content\": 1}");
    world.wait_until_saved();
    wait_until("the commit is counted", || {
        value(&page(), "sessionkeep_commits_total") >= Some(1.0)
    });
    let page = page();
    let at_least = |name: &str, least: f64| {
        let found = value(&page, name);
        assert!(found >= Some(least), "{name} = {found:?} in {page}");
    };
    at_least("sessionkeep_commit_content_bytes_total", 14.0);
    at_least("sessionkeep_commit_duration_seconds_count", 1.0);
    at_least("sessionkeep_tree_files", 1.0);
    at_least("sessionkeep_lease_epoch", 1.0);
    at_least("sessionkeep_disk_free_bytes", 1.0);
    at_least("process_resident_memory_bytes", 1e6);
    at_least("sessionkeep_init_resident_memory_bytes", 1e5);
    at_least("process_open_fds", 3.0);
    for (name, expected) in [
        ("sessionkeep_healthy", 1.0),
        ("sessionkeep_lease_held", 1.0),
        ("sessionkeep_store_up", 1.0),
        ("sessionkeep_gateway_up", 1.0),
        ("sessionkeep_lag_seconds", 0.0),
        ("sessionkeep_incidents_open{kind=\"lagging\"}", 0.0),
    ] {
        assert_eq!(value(&page, name), Some(expected), "{name} in {page}");
    }
    assert_eq!(life.stop().code, 0);
}

#[test]
fn what_restore_and_flush_took_is_there_for_the_next_life() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("a.json", "{}");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let page = get(port, "/metrics", &[]).text();
    assert!(
        value(&page, "sessionkeep_flush_duration_seconds") >= Some(0.0),
        "{page}"
    );
    assert_eq!(life.stop().code, 0);
    world.wipe();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let page = get(port, "/metrics", &[]).text();
    assert_eq!(
        value(&page, "sessionkeep_restored_files"),
        Some(1.0),
        "{page}"
    );
    assert!(
        value(&page, "sessionkeep_restore_duration_seconds") >= Some(0.0),
        "{page}"
    );
    assert_eq!(life.stop().code, 0);
}

/// Whether a program can be run here; says so where it cannot.
fn is_installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        crate::policy::cannot_run(&format!("{program} is not installed (Debian: prometheus)"));
    }
    there
}

fn observability() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/observability")
}

#[test]
fn the_alert_rules_are_sound_and_alarm_when_they_should() {
    if !is_installed("promtool") {
        return;
    }
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts-test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(args)
            .current_dir(observability())
            .output()
            .expect("run promtool");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn prometheus_takes_it_with_the_configuration_of_the_stack() {
    if !is_installed("prometheus") {
        return;
    }
    let world = World::sqlite();
    let (port, prometheus) = (free_port(), free_port());
    let token = "canary-of-the-token";
    let life = world
        .script(IDLE)
        .set(&format!("http.port={port}"))
        .env("ADMIN_TOKEN", token)
        .ready();
    let at = world.path("prometheus");
    fs::create_dir(&at).expect("mkdir");
    fs::write(at.join("token"), token).expect("write");
    fs::copy(observability().join("alerts.yml"), at.join("alerts.yml")).expect("copy");
    let stack = fs::read_to_string(observability().join("prometheus.yml")).expect("read");
    let here = stack
        .replace("gateway:3001", &format!("127.0.0.1:{port}"))
        .replace("/tmp/admin_token", at.join("token").to_str().expect("text"))
        .replace("15s", "1s");
    assert_ne!(here, stack);
    fs::write(at.join("prometheus.yml"), here).expect("write");
    let mut server = Command::new("prometheus")
        .arg(format!(
            "--config.file={}",
            at.join("prometheus.yml").display()
        ))
        .arg(format!("--storage.tsdb.path={}", at.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{prometheus}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start prometheus");
    let asked = |query: &str| {
        let answer = try_get(prometheus, &format!("/api/v1/query?query={query}"), &[])?;
        if answer.code != 200 {
            return None;
        }
        let results = answer.json()["data"]["result"].clone();
        results[0]["value"][1].as_str().map(str::to_owned)
    };
    wait_until("prometheus has asked and understood", || {
        asked("sessionkeep_healthy").as_deref() == Some("1")
    });
    assert_eq!(asked("up").as_deref(), Some("1"));
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(life.stop().code, 0);
}
