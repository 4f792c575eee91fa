//! A replica set that loses its primary, in every way: what was committed survives all of them.

use std::fs;

use mongodb::bson::doc;

use super::keeper::{Life, World, is_alive, wait_until};
use super::replica_set::ReplicaSet;

/// Counts, in a file of the session.
const COUNTER: &str = r#"
n=$(cat n 2>/dev/null || echo 0)
trap 'echo $n >n; exit 0' TERM
while :; do n=$((n+1)); echo $n >n.new; mv n.new n; echo $n >"$P/n"; sleep 0.02; done
"#;

fn counted(world: &World) -> u64 {
    let said = fs::read_to_string(world.path("n")).unwrap_or_default();
    said.trim().parse().unwrap_or(0)
}

/// The newest commit that the program says is stored.
fn acknowledged(life: &Life) -> u64 {
    let log = life.log();
    let seqs = log.lines().filter(|line| line.contains("] committed seq="));
    let seq = |line: &str| line.split("seq=").nth(1)?.split(' ').next()?.parse().ok();
    seqs.filter_map(seq).max().unwrap_or(0)
}

/// The content of the counter's file in the store.
fn stored(world: &World) -> u64 {
    let tree = world.stored().expect("there is a commit that is whole");
    let content = tree.content("n").map(<[u8]>::to_vec).unwrap_or_default();
    String::from_utf8_lossy(&content)
        .trim()
        .parse()
        .unwrap_or(0)
}

#[test]
fn commits_survive_the_loss_of_the_primary() {
    let set = ReplicaSet::start();
    let world = World::at(set.url("job"));
    let mut life = world.script(COUNTER).set("store.timeout=2s").ready();
    let gateway = life.process("gateway");
    wait_until("it counts", || stored(&world) > 10);

    // Killed.
    let primary = set.primary().expect("there is one");
    let before = (acknowledged(&life), stored(&world));
    set.member(primary).kill();
    let count = counted(&world);
    wait_until(
        "another primary takes what the gateway went on with",
        || world.stored().is_some() && stored(&world) > count,
    );
    assert!(world.head() >= before.0, "a commit was lost: {before:?}");
    set.member(primary).start_again();
    wait_until("all three are there again", || {
        set.primary()
            .is_some_and(|primary| set.members_up(primary) == 3)
    });

    // Told to step down.
    let primary = set.primary().expect("there is one");
    let before = (acknowledged(&life), stored(&world));
    set.ask(primary, doc! { "replSetStepDown": 20, "force": true });
    let count = counted(&world);
    wait_until("another primary takes over", || {
        world.stored().is_some() && stored(&world) > count
    });
    assert!(world.head() >= before.0, "a commit was lost: {before:?}");

    assert!(is_alive(gateway), "the gateway did not notice");
    life.signal(libc::SIGTERM);
    assert_eq!(life.code(), 0, "{}", life.log());
    assert_eq!(stored(&world), counted_by_the_gateway(&world));
}

#[test]
fn a_wrong_name_of_the_set_is_told_with_the_right_one() {
    let set = ReplicaSet::start();
    let url = set.url("job");
    let (hosts, name) = url.split_once("replicaSet=").expect("it names the set");
    let world = World::at(format!("{hosts}replicaSet=wrong"));
    let ended = world.script("true").set("store.wait=1s").run_to_end();
    assert_eq!(ended.code, 69, "{}", ended.log);
    for told in [
        "none of the servers belongs to the replica set `wrong`".to_owned(),
        format!("belongs to `{name}`"),
    ] {
        assert!(ended.log.contains(&told), "{told}: {}", ended.log);
    }
}

fn counted_by_the_gateway(world: &World) -> u64 {
    world.read("n").trim().parse().expect("a number")
}

#[test]
fn what_a_lone_primary_took_and_no_majority_has_was_never_called_saved() {
    let set = ReplicaSet::start();
    let world = World::at(set.url("job"));
    let mut life = world
        .script(COUNTER)
        .set("store.timeout=2s")
        .set("lease.ttl=60s")
        .set("lease.renew=5s")
        .ready();
    wait_until("it counts", || stored(&world) > 10);
    let primary = set.primary().expect("there is one");
    let others = set.others(primary);

    // The primary takes the next writes, and nobody confirms them.
    set.signal(&others, libc::SIGSTOP);
    life.wait_for("changes cannot be saved now; the gateway goes on");
    let before = acknowledged(&life);
    // It is lost with them, and the others go on without.
    set.member(primary).kill();
    set.signal(&others, libc::SIGCONT);
    let count = counted(&world);
    wait_until("the others take what the gateway went on with", || {
        world.stored().is_some() && stored(&world) > count
    });
    assert!(world.head() >= before);
    // It comes back with writes that the others never had, and takes them back.
    set.member(primary).start_again();
    wait_until("all three are there again", || {
        set.primary()
            .is_some_and(|primary| set.members_up(primary) == 3)
    });
    let report = world.json(&["verify", "--all", "--json"]);
    assert_eq!(report["damage"], serde_json::json!([]), "{report}");
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(stored(&world), counted_by_the_gateway(&world));
}
