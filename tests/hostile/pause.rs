//! A gateway of our own user that stops the watcher, while another instance waits for the lease.

use std::path::Path;
use std::time::Duration;

use super::keeper::{Setup, World, wait_until};
use super::place::{neighbours, score, tried_by};
use super::tree::Tree;

/// A gateway that says so where another one is alive.
const ALONE: &str = "exec 9> \"$P/alone\"; flock -n 9 || echo TWO GATEWAYS AT ONCE; \
     trap 'exit 0' TERM; echo the second one is up; sleep 1000 9>&- & wait";

/// The lease as it is by default: nobody is to be faster than it allows.
fn with_the_usual_lease(setup: Setup<'_>) -> Setup<'_> {
    setup
        .set("lease.ttl=15s")
        .set("lease.renew=5s")
        .set("lease.conflict=wait")
}

#[test]
fn a_watcher_that_is_stopped_again_and_again_goes_on_and_keeps_the_lease() {
    let before = neighbours().pop().expect("one").before;
    let world = World::mongo();
    neighbours().pop().expect("one").own(&world);
    let (dir, lock) = (world.dir(), world.path("alone"));
    let attacked = tried_by(&world, "pause", &[&dir, &lock, Path::new("200")]);
    let mut life = with_the_usual_lease(attacked).before(before).start();
    life.wait_for("started role=gateway");
    let other = with_the_usual_lease(world.script(ALONE).dir(world.path("other")))
        .before(before)
        .start();
    let achieved = score(&mut life);
    let ended = life.stop();
    assert!(achieved > 50, "the attacker hardly tried: {}", ended.log);
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!other.log().contains("TWO GATEWAYS"), "{}", other.log());
    assert!(
        ended.log.matches("state changed from=Running").count() == 1,
        "the gateway ran through: {}",
        ended.log
    );
    // Nothing is lost: it is what the other one has restored.
    wait_until("the other one is up", || {
        other.log().contains("the second one is up")
    });
    assert_eq!(Tree::of(&world.path("other")), Tree::of(&world.dir()));
    assert_eq!(other.stop().code, 0);
}

#[test]
fn a_gateway_whose_watcher_gets_no_moment_is_ended_before_its_lease_is() {
    let before = neighbours().pop().expect("one").before;
    let world = World::mongo();
    neighbours().pop().expect("one").own(&world);
    let (dir, lock) = (world.dir(), world.path("alone"));
    let attacked = tried_by(&world, "pause", &[&dir, &lock, Path::new("0")]);
    let mut life = with_the_usual_lease(attacked)
        .set("store.outage=stop")
        .set("store.timeout=2500ms")
        .before(before)
        .start();
    life.wait_for("started role=gateway");
    let other = with_the_usual_lease(world.script(ALONE).dir(world.path("other")))
        .before(before)
        .start();
    std::thread::sleep(Duration::from_secs(30));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    wait_until("the other one is up", || {
        other.log().contains("the second one is up")
    });
    assert_eq!(Tree::of(&world.path("other")), Tree::of(&world.dir()));
    let other = other.stop();
    assert!(!other.log.contains("TWO GATEWAYS"), "{}", other.log);
    assert!(!ended.log.contains("TWO GATEWAYS"), "{}", ended.log);
    assert_eq!(other.code, 0, "{}", other.log);
}
