//! Directories that are exchanged with links to a directory of root's while they are read.

use super::place::Place;

#[test]
fn directories_that_are_swapped_for_links_while_they_are_read_lead_nowhere() {
    let Some(place) = Place::new() else { return };
    let mut life = place.attacked_by("swap", &[&place.secrets()]).start();
    let achieved = place.achieved(&mut life);
    let ended = life.stop();
    assert!(achieved > 1000, "the attacker hardly tried:\n{}", ended.log);
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!place.world.changes().is_empty(), "nothing was committed");
    place.withstood(&ended);
}
