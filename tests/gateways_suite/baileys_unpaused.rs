//! A bot on the Baileys library that writes without a pause: whatever is killed and whenever, what comes
//! back is of one moment.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;

use serde_json::Value;

use crate::baileys_crash::random_pause;
use crate::place::{Place, tool};

/// As `unpaused.mjs` has them.
const WINDOW: u64 = 20;
const BATCH: u64 = 2;
/// A dead owner's reservation has to run out before the next life may begin.
const SHORT_LIFE: [&str; 3] = ["lease.ttl=1s", "lease.renew=300ms", "log.level=debug"];

fn unpaused(place: &Place) -> Vec<OsString> {
    tool("tests/gateways/baileys/node_modules");
    vec![
        tool(".cache/bin/node").into(),
        tool("tests/gateways/baileys/unpaused.mjs").into(),
        place.session().into(),
    ]
}

/// What is not of one moment in a restored directory.
fn apart(dir: &Path) -> Option<String> {
    let creds = fs::read(dir.join("creds.json")).ok()?;
    let creds: Value = serde_json::from_slice(&creds).expect("never torn");
    let next = creds["nextPreKeyId"].as_u64().expect("a number");
    let number = |name: &str| -> Option<u64> {
        let digits = name.strip_prefix("pre-key-")?.strip_suffix(".json")?;
        digits.parse().ok()
    };
    let names = fs::read_dir(dir).expect("a directory").flatten();
    let ids: BTreeSet<u64> = names
        .filter_map(|entry| number(entry.file_name().to_str()?))
        .collect();
    let missing: Vec<u64> = (next.saturating_sub(WINDOW).max(1)..next)
        .filter(|id| !ids.contains(id))
        .collect();
    let ahead: Vec<u64> = ids
        .iter()
        .copied()
        .filter(|id| *id >= next + BATCH)
        .collect();
    let is_right = missing.is_empty() && ahead.is_empty();
    (!is_right).then(|| {
        format!(
            "creds.json tells of {next}, its pre-keys {missing:?} are missing, {ahead:?} are ahead"
        )
    })
}

#[test]
fn after_kills_without_a_pause_creds_and_pre_keys_are_of_one_moment() {
    let soak = std::env::var("FAULTS").is_ok_and(|scale| scale == "soak");
    let rounds = if soak { 500 } else { 6 };
    let place = Place::new("baileys");
    let command = unpaused(&place);
    let mut torn = Vec::new();
    let mut known = 0;
    for round in 1..=rounds {
        let mut life = place.start_silent(&command, &SHORT_LIFE);
        life.until("there are commits", |_| {
            (place.logged_commits() >= known + 3).then_some(())
        });
        thread::sleep(random_pause());
        life.kill();
        known = place.logged_commits();
        let copy = place.copy(None, "copy");
        if let Some(wrong) = apart(&copy) {
            println!("round {round}: {wrong}");
            torn.push(format!("round {round}: {wrong}"));
        }
        // At length, it is known how far it came where something else ends it.
        if round % 20 == 0 {
            println!("{round} kills, {} apart", torn.len());
        }
        fs::remove_dir_all(&copy).expect("remove the copy");
        place.wipe();
    }
    println!("{rounds} kills, {} apart, {known} versions", torn.len());
    let log = fs::read_to_string(place.log()).unwrap_or_default();
    let still: Vec<&str> = log.lines().filter(|line| line.contains("still")).collect();
    assert!(torn.is_empty(), "{torn:#?}\n{still:#?}");
}
