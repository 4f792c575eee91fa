//! `.sessionkeep` is taken away and replaced: by a link, by a directory with a forged journal.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use super::keeper::{Ended, IDLE, Setup, World};
use super::place::{ATTACKER, Place, as_attacker, mode};

/// What the last line of a stop says where all is well.
const ALL_IS_WELL: &str = "stopped; all is saved code";
const LOST_TRACK: &str = "stopped; all is saved, but .sessionkeep was removed or replaced";
const INCIDENT: &str = "The folder .sessionkeep was removed or replaced";

#[test]
fn a_sessionkeep_directory_that_is_replaced_while_it_is_in_use_leads_nowhere_and_is_told_of() {
    let Some(place) = Place::new() else { return };
    place.world.write("creds.json", r#"{"me":"first"}"#);
    let mut life = place.attacked_by("replace", &[&place.secrets()]).start();
    let achieved = place.achieved(&mut life);
    // A watcher that begins anew has to find our directory, and not what has its name.
    super::keeper::send(life.process("watcher"), libc::SIGKILL);
    life.wait_for_count("started role=watcher", 2);
    let ended = life.stop();
    assert!(achieved > 1000, "the attacker hardly tried:\n{}", ended.log);
    // Where the attacker took it away for longer, it was made anew, and init may have come to what was put
    // in its place by then. That is refused, and told; the watcher has the one that it made.
    let refused = |line: &str| {
        line.contains("refused to use") && !line.contains("its lock could not be taken")
    };
    assert!(!ended.log.lines().any(refused), "{}", ended.log);
    assert!(ended.log.contains(INCIDENT), "{}", ended.log);
    assert!(!ended.log.contains(ALL_IS_WELL), "{}", ended.log);
    match ended.code {
        0 => assert!(ended.log.contains(LOST_TRACK), "{}", ended.log),
        // It deleted files last, which is not told from somebody who wipes the directory.
        74 => assert!(
            ended
                .log
                .contains("files are gone, and .sessionkeep is not"),
            "{}",
            ended.log
        ),
        _ => panic!("{}", ended.log),
    }
    place.withstood(&ended);

    // What is in its place now is the attacker's.
    let ended = idle(&place).run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(ended.log.contains("refused to use"), "{}", ended.log);
    place.secrets_are_untouched();
}

#[test]
fn a_forged_journal_and_links_in_place_of_the_sessionkeep_directory_are_refused_at_the_start() {
    let Some(place) = Place::new() else { return };
    let own = place.world.dir().join(".sessionkeep");
    let refused = |why: &str| -> Ended {
        let ended = idle(&place).run_to_end();
        assert_eq!(ended.code, 78, "{}", ended.log);
        assert!(ended.log.contains(why), "{}", ended.log);
        place.secrets_are_untouched();
        ended
    };
    // The journal, with a mode that would make a program of root's run as root, and a staging that is
    // a link.
    let attacker = super::built::example("attacker");
    let mut words = as_attacker();
    words.extend([
        attacker.display().to_string(),
        "forge".to_owned(),
        "0".to_owned(),
        place.world.dir().display().to_string(),
        place.secrets().display().to_string(),
    ]);
    forge(&words, &own);
    refused(&format!("it belongs to user {ATTACKER}"));
    assert!(own.join("install.json").exists(), "it was obeyed");

    fs::remove_dir_all(&own).expect("remove");
    symlink(place.secrets(), &own).expect("link");
    refused("it is a link, where sessionkeep keeps a directory of its own");
    for command in ["watch", "restore"] {
        let output = place.world.command(&[command]);
        assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
        place.secrets_are_untouched();
    }
    let doctor = place.world.command(&["doctor"]);
    assert!(!doctor.status.success(), "{doctor:?}");
    let told = String::from_utf8_lossy(&doctor.stdout).contains("refused to use");
    assert!(told, "{doctor:?}");

    // And once it is gone, all is well again.
    fs::remove_file(&own).expect("remove");
    let life = idle(&place).ready();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(mode(&own), 0o700);
}

#[test]
fn a_journal_of_our_own_sets_no_set_id_bit_and_follows_no_link() {
    let Some(place) = Place::new() else { return };
    let own = place.world.dir().join(".sessionkeep");
    let attacker = super::built::example("attacker");
    let words = [
        attacker.display().to_string(),
        "forge".to_owned(),
        "0".to_owned(),
        place.world.dir().display().to_string(),
        place.secrets().display().to_string(),
    ];
    forge(&words, &own);
    // As root's own it is believed, as far as a journal is.
    for path in [&own, &own.join("install.json")] {
        chown(path, Some(0), Some(0)).expect("chown");
    }
    super::place::set_mode(&own, 0o700);
    let ended = idle(&place).run_to_end();
    assert_eq!(ended.code, 70, "{}", ended.log);
    place.secrets_are_untouched();
    // With its staging a real one, there is still the link that is to be given a mode.
    fs::remove_file(own.join("staging")).expect("remove");
    let ended = idle(&place).run_to_end();
    assert_eq!(ended.code, 70, "{}", ended.log);
    place.secrets_are_untouched();
    // And with a directory in its place.
    fs::remove_file(place.world.dir().join("evil")).expect("remove");
    fs::create_dir(place.world.dir().join("evil")).expect("mkdir");
    let life = idle(&place).ready();
    assert_eq!(mode(&place.world.dir().join("evil")), 0o755);
    assert_eq!(life.stop().code, 0);
}

/// Without root there is nothing to gain; what another user left is refused all the same, with the
/// remedy, and one's own works.
#[test]
fn a_sessionkeep_directory_of_another_user_is_refused_without_root_too() {
    let Some(place) = Place::new() else { return };
    let dir = place.world.dir();
    fs::remove_file(place.world.database_file()).ok();
    chown(place.world.path(""), Some(ATTACKER), Some(ATTACKER)).expect("chown");
    let life = idle(&place).before(&as_attacker()).ready();
    assert_eq!(life.stop().code, 0);
    let own = dir.join(".sessionkeep");
    chown(&own, Some(0), Some(0)).expect("chown");
    let ended = idle(&place).before(&as_attacker()).run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(ended.log.contains("it belongs to user 0"), "{}", ended.log);
    let remedy = format!("chown -R {ATTACKER} {}", own.display());
    assert!(ended.log.contains(&remedy), "{}", ended.log);
    let done = Command::new("sh").args(["-c", &remedy]).status();
    assert!(done.expect("sh").success());
    let life = idle(&place).before(&as_attacker()).ready();
    assert_eq!(life.stop().code, 0);
}

fn idle(place: &Place) -> Setup<'_> {
    let world: &World = &place.world;
    world.script(IDLE)
}

/// Has the attacker make what it makes, once.
#[track_caller]
fn forge(words: &[String], own: &Path) {
    let _ = fs::remove_dir_all(own);
    let mut attacker = Command::new(&words[0])
        .args(&words[1..])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("start the attacker");
    super::keeper::wait_until("it has forged", || own.join("staging").is_symlink());
    super::keeper::send(attacker.id(), libc::SIGTERM);
    attacker.wait().expect("it ends");
    assert!(own.join("install.json").exists());
}
