//! A database that only a freeze can copy, and a place for the copy that leads elsewhere.

use super::place::Place;

#[test]
fn copies_of_locked_databases_are_made_and_removed_nowhere_but_in_our_own_directory() {
    let Some(place) = Place::new() else { return };
    // What is removed is called `scratch`, in whatever is taken for ours.
    let precious = place.world.path("scratch");
    std::fs::create_dir(&precious).expect("mkdir");
    std::fs::write(precious.join("precious"), "root's").expect("write");
    let mut life = place
        .attacked_by("scratch", &[&place.secrets()])
        .set("sync.rescan=1s")
        .start();
    let achieved = place.achieved(&mut life);
    let ended = life.stop();
    assert!(achieved > 1000, "the attacker hardly tried:\n{}", ended.log);
    let copied = "was copied while the gateway was stopped for a moment";
    assert!(
        ended.log.contains(copied),
        "no copy was made:\n{}",
        ended.log
    );
    let kept = std::fs::read_to_string(precious.join("precious"));
    assert_eq!(kept.expect("it was removed"), "root's");
    assert_eq!(std::fs::read_dir(&precious).expect("list").count(), 1);
    place.withstood(&ended);
}
