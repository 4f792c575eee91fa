//! A gateway that writes without a pause: every version is of one moment all the same.

use std::fs;

use super::campaign::{Tally, rounds};
use super::keeper::{Setup, Tree, World, wait_until};

/// So many files are written one after the other, each time with the next number.
const FILES: usize = 8;

/// Writes them without a pause. In its shell each write is a file that is cut and filled, a few system
/// calls apart; what it counts in between keeps it from filling the kernel's queue of notices.
fn unpaused(world: &World) -> Setup<'_> {
    let count = ": $((j+=1));".repeat(5);
    let write = format!("for f in 0 1 2 3 4 5 6 7; do echo \"[$i]\" >$f.json; {count} done");
    world
        .script(&format!("i=0; j=0; while :; do i=$((i+1)); {write}; done"))
        .set("log.level=debug")
}

/// What is wrong with a version: at each moment the files written first are of this round, and the
/// rest of the one before.
fn apart(tree: &Tree) -> Option<String> {
    let numbers: Vec<Option<u64>> = (0..FILES)
        .map(|file| {
            let content = tree.content(&format!("{file}.json"))?;
            let text = std::str::from_utf8(content).expect("text").trim_end();
            Some(text.trim_matches(['[', ']']).parse().expect("a number"))
        })
        .collect();
    let (first, last) = (numbers[0].unwrap_or(0), numbers[FILES - 1].unwrap_or(0));
    let in_order = numbers.is_sorted_by(|a, b| a >= b);
    (!in_order || first > last + 1).then(|| format!("{numbers:?}"))
}

/// The version with this number.
fn version(world: &World, seq: u64) -> Tree {
    let to = world.path("version");
    let (seq, path) = (seq.to_string(), to.to_str().expect("text"));
    let output = world.command(&["restore", "--seq", &seq, "--to", path]);
    assert!(output.status.success(), "{output:?}");
    let tree = Tree::of(&to);
    fs::remove_dir_all(to).expect("remove the copy");
    tree
}

#[test]
fn every_version_of_a_gateway_that_never_pauses_is_of_one_moment() {
    let world = World::sqlite();
    let mut tally = Tally::new("a gateway that never pauses");
    let life = unpaused(&world).ready();
    let wanted = usize::try_from(rounds(12, 200)).expect("few");
    wait_until("there are enough versions", || {
        world.changes().len() >= wanted
    });
    let log = life.log();
    life.kill_tree();
    for seq in world.changes() {
        tally.round();
        if let Some(wrong) = apart(&version(&world, seq)) {
            tally.torn(format!("version {seq}: {wrong}"));
        }
    }
    // How often depends on how fast the machine is. The rest tells why, should one not be of one moment.
    println!(
        "{} of them stood still",
        log.matches("gateway stood still").count()
    );
    for line in log.lines().filter(|line| line.contains("still")) {
        println!("{line}");
    }
    tally.end();
}
