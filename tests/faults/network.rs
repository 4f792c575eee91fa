//! The line to the database: slow, narrow, cut in the middle of a message, silent, half open. The
//! gateway does not notice, what is acknowledged stays, and once the line is good again all is
//! saved; a start on a bad line waits for it or says so.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::built;
use super::campaign::{Tally, chance, rounds};
use super::churned::{Journal, churning, newest_row, torn};
use super::keeper::{Life, Tree, World, wait_until};
use super::line::Line;
use super::proxy::Mode;

fn any_trouble(chance: &mut fastrand::Rng) -> Mode {
    match chance.u8(..7) {
        0 => Mode::Delay(Duration::from_millis(chance.u64(1..200))),
        1 => Mode::Bandwidth(chance.u32(2_000..200_000)),
        2 => Mode::BlackHole,
        3 => Mode::CutAnswers,
        4 => Mode::Refuse,
        5 => Mode::HalfOpen,
        // Between nothing at all and all of a usual message: in its head, in its body, at its end.
        _ => Mode::ResetAfter(chance.usize(..400)),
    }
}

/// How long one trouble lasts: at most longer than a lease, and than any timeout.
const AT_MOST: Duration = Duration::from_secs(4);

#[test]
fn a_bad_line_costs_nothing_that_was_acknowledged_and_is_caught_up_with() {
    let world = World::mongo();
    let line = Line::to(&world);
    let gateway: PathBuf = built::example("churn");
    let mut chance = chance("network");
    let mut tally = Tally::new("bad line: slow, narrow, cut, silent, half open");
    let start = || -> Life {
        churning(&world, &gateway)
            .env("MONGO_URL", line.url.clone())
            .set("store.timeout=1s")
            .start()
    };
    let mut life = start();
    life.wait_for("watcher is ready");
    let identity = {
        wait_until("the gateway runs", || Journal::read(&world).starts > 0);
        Journal::read(&world).identities[0].clone()
    };
    for round in 0..rounds(6, 300) {
        let trouble = any_trouble(&mut chance);
        let what = format!("round {round}: {trouble:?}");
        println!("{what}");
        line.set(trouble);
        let restart = chance.u8(..4) == 0;
        if restart {
            // In the middle of it: the end may not be saved, so the directory stays.
            life.signal(libc::SIGTERM);
            thread::sleep(Duration::from_millis(chance.u64(..1500)));
            line.set(Mode::Pass);
            let ended = life.end();
            assert!([0, 74].contains(&ended.code), "{what}: {}", ended.log);
            line.set(any_trouble(&mut chance));
            life = start();
            thread::sleep(Duration::from_millis(chance.u64(..2000)));
            line.set(Mode::Pass);
            life.wait_for("watcher is ready");
        } else {
            thread::sleep(AT_MOST.mul_f64(chance.f64()));
            line.set(Mode::Pass);
        }
        let from = Journal::read(&world).newest;
        wait_until(&format!("{what}: the step {from} is saved"), || {
            let tree = world.stored();
            tree.is_some_and(|tree| newest_step(&tree) >= from)
        });
        let journal = Journal::read(&world);
        if journal.two > 0 {
            tally.double_owned(&what);
        }
        if journal.identities.len() > 1 {
            tally.lost(format!("{what}: another login was made"));
        }
        let copy = world.path("copy");
        let output = world.command(&["restore", "--to", copy.to_str().expect("text")]);
        assert!(output.status.success(), "{what}: {output:?}");
        for wrong in torn(&copy, &Tree::of(&copy), &identity) {
            tally.torn(format!("{what}: {wrong}"));
        }
        std::fs::remove_dir_all(copy).expect("remove the copy");
        tally.round();
    }
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let stored = world.path("copy");
    let output = world.command(&["restore", "--to", stored.to_str().expect("text")]);
    assert!(output.status.success(), "{output:?}");
    if newest_row(&stored) != newest_row(&world.dir()) {
        tally.lost("the last transaction");
    }
    let last = Journal::read(&world).newest;
    if newest_step(&Tree::of(&stored)) != last {
        tally.lost(format!("step {last}, the last one"));
    }
    tally.end();
}

fn newest_step(tree: &Tree) -> u64 {
    let sessions = tree
        .files()
        .filter(|(name, _)| name.starts_with(b"session-"));
    let steps = sessions.filter_map(|(_, content)| super::shape::step_of(content));
    steps.max().unwrap_or(0)
}
