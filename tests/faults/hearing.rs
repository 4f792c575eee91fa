//! What the watcher hears while it is busy: a first upload over a narrow line takes minutes, and what
//! becomes of the lease meanwhile, or of the container, does not wait for it.

use std::fs;

use mongodb::bson::Document;

use super::keeper::{Life, Setup, Tree, World, wait_until};
use super::line::Line;
use super::noise::noise;
use super::proxy::Mode;
use super::raw::{give_lease_to, on_mongo};

/// A gateway that says that it was told to end, and ends.
const TELLS: &str = "trap 'echo told to end; exit 0' TERM; echo it is up; sleep 1000 & wait";
/// Bytes a second.
const NARROW: u32 = 500_000;

/// Fills the session directory with what cannot be compressed.
fn fill(world: &World, mib: usize) {
    fs::create_dir_all(world.dir()).expect("mkdir");
    for (n, bytes) in noise(mib << 20).chunks(1 << 20).enumerate() {
        world.write(&format!("{n}.bin"), bytes);
    }
}

/// A life whose first upload has begun, over a line on which it takes a minute or more.
fn uploading<'w>(world: &'w World, line: &Line, set: impl FnOnce(Setup<'w>) -> Setup<'w>) -> Life {
    fill(world, 30);
    let setup = world
        .script(TELLS)
        .env("MONGO_URL", line.url.clone())
        .set("lease.renew=300ms");
    // From the start: on a machine that is busy, the upload would be over before.
    line.set(Mode::Bandwidth(NARROW));
    let mut life = set(setup).start();
    life.wait_for("it is up");
    wait_until("the upload has begun", || {
        on_mongo(&world.url, async |database| {
            let packs = database.collection::<Document>("packs.chunks");
            let begun = packs.estimated_document_count().await;
            begun.expect("count") > 0
        })
    });
    life
}

#[test]
fn a_fenced_gateway_ends_while_its_first_upload_goes_on() {
    let world = World::mongo();
    let line = Line::to(&world);
    let mut life = uploading(&world, &line, |setup| setup);
    give_lease_to(&world, "somebody-else");
    life.wait_for("told to end");
    assert!(!life.log().contains("] committed"), "{}", life.log());
    let ended = life.end();
    assert_eq!(ended.code, 75, "{}", ended.log);
}

#[test]
fn a_gateway_that_is_asked_for_ends_while_its_first_upload_goes_on() {
    let world = World::mongo();
    let line = Line::to(&world);
    let mut first = uploading(&world, &line, |setup| {
        setup.set("stop.flush=200s").set("stop.total=240s")
    });
    let mut second = world.script(TELLS).dir(world.path("elsewhere")).start();
    first.wait_for("told to end");
    assert!(!first.log().contains("] committed"), "{}", first.log());
    // All of it is handed over, once there is a way.
    line.set(Mode::Pass);
    second.wait_for("watcher is ready");
    assert_eq!(Tree::of(&world.path("elsewhere")), Tree::of(&world.dir()));
    // It stands by, and would take the session back.
    first.kill_tree();
    assert_eq!(second.stop().code, 0);
}

#[test]
fn the_last_changes_have_all_that_the_gateway_leaves_of_the_stop() {
    let world = World::mongo();
    let line = Line::to(&world);
    let mut life = world
        .script(TELLS)
        .env("MONGO_URL", line.url.clone())
        .set("stop.total=60s")
        .set("stop.flush=1s")
        .ready();
    line.set(Mode::Bandwidth(NARROW));
    fill(&world, 4);
    life.signal(libc::SIGTERM);
    life.wait_for("told to end");
    let ended = life.end();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(
        ended.took.as_secs_f64() > 1.5,
        "that shows nothing: {:?}",
        ended.took
    );
    assert!(
        world.stored() == Some(Tree::of(&world.dir())),
        "{}",
        ended.log
    );
}
