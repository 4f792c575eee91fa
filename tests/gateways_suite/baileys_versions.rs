//! Every single version that is committed while messages go through the Baileys library is of one
//! moment: keys that belong together lie in many files, of two accounts.

use std::fs;

use crate::baileys::{bot, bot_on};
use crate::place::Place;

/// How many commits are made; checkpoints come on top.
const VERSIONS: usize = 40;

#[test]
fn every_version_under_load_is_one_from_which_all_conversations_go_on() {
    let place = Place::new("baileys");
    // Short, so that commits come often, and never in a pause of the bot's.
    let mut life = place.start(&bot(&place, &[]), &["sync.max_delay=200ms"]);
    life.post("/exchange?n=12");
    let before = place.head();
    life.post("/every?ms=1");
    life.until("there are enough versions", |_| {
        (place.logged_commits() >= VERSIONS).then_some(())
    });
    life.kill();

    let mut versions = place.commits();
    versions.retain(|commit| commit.seq > before);
    // A checkpoint lists the tree that the commit before it left.
    versions.dedup_by(|later, earlier| later.root == earlier.root);
    assert!(versions.len() >= VERSIONS / 2, "{}", versions.len());
    let mut torn = Vec::new();
    for commit in &versions {
        let copy = place.copy(Some(commit.seq), "copy");
        let bot = place.start_bare(&bot_on(&copy, &place.path("copy-journal"), &[]));
        if let Err(answer) = bot.ask("POST", "/exchange?n=12") {
            torn.push((commit.seq, answer["error"].to_string()));
        }
        bot.kill();
        fs::remove_dir_all(&copy).expect("remove the copy");
    }
    println!("{} versions, {} torn", versions.len(), torn.len());
    assert!(torn.is_empty(), "{torn:#?}");
}
