//! The bot on the Baileys library: the same ratchets go on after a wiped disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::place::{Place, tool};

/// Six routes between three accounts, and four times around: every ratchet takes steps both ways.
const ALL_ROUTES: &str = "/exchange?n=24";

pub(crate) fn bot(place: &Place, more: &[&str]) -> Vec<OsString> {
    bot_on(&place.session(), &place.journal(), more)
}

pub(crate) fn bot_on(session: &Path, journal: &Path, more: &[&str]) -> Vec<OsString> {
    tool("tests/gateways/baileys/node_modules");
    let mut command: Vec<OsString> = vec![
        tool(".cache/bin/node").into(),
        tool("tests/gateways/baileys/bot.mjs").into(),
    ];
    command.extend(["--dir".into(), session.into()]);
    command.extend(["--journal".into(), journal.into()]);
    command.extend(more.iter().map(OsString::from));
    command
}

/// What must never change of an account: its name, its keys, its number.
pub(crate) fn identities(state: &Value) -> BTreeMap<String, [String; 3]> {
    let accounts = state["accounts"].as_array().expect("accounts");
    accounts
        .iter()
        .map(|account| {
            let keys = ["identity", "noise", "registration_id"];
            (
                account["account"].to_string(),
                keys.map(|key| account[key].to_string()),
            )
        })
        .collect()
}

#[test]
fn the_same_ratchets_go_on_after_a_stop_and_a_wiped_disk() {
    let place = Place::new("baileys");
    let command = bot(&place, &["--last-words"]);

    let life = place.start(&command, &[]);
    life.post(ALL_ROUTES);
    let before = life.get("/state");
    assert_eq!(before["fresh"], true);
    assert_eq!(before["failures"], 0);
    assert_eq!(life.stop(), 0);
    let last = place.last_acknowledged();
    assert!(
        last > before["last_message"].as_u64().expect("a number"),
        "no last words"
    );

    place.wipe();
    let life = place.start(&command, &[]);
    let after = life.get("/state");
    assert_eq!(after["fresh"], false, "a QR code would be on screen");
    assert_eq!(identities(&after), identities(&before));
    assert_eq!(
        after["last_message"], last,
        "the last words were saved, too"
    );
    let told = life.post(ALL_ROUTES);
    assert_eq!(told["delivered"], 24);
    assert_eq!(told["first"], last + 1);
    assert_eq!(life.get("/state")["failures"], 0);
    assert_eq!(life.stop(), 0);
}

/// What public bots do when WhatsApp has logged them out: the whole folder is deleted, and they begin
/// anew in a folder that they make.
#[test]
fn a_logout_that_deletes_the_folder_and_the_login_after_it_are_saved() {
    let place = Place::new("baileys");
    let command = bot(&place, &[]);
    let settings = ["restart.policy=always"];
    let mut life = place.start(&command, &settings);
    life.post(ALL_ROUTES);
    let before = life.get("/state");
    let head = life.until("the first login is saved", |_| {
        let log = fs::read_to_string(place.log()).ok()?;
        log.contains("ready for changes").then(|| place.head())
    });
    place.wipe();
    life.kill_gateway("bot.mjs");
    let after = life.until("the gateway has begun anew", |life| {
        let state = life.try_get("/state")?;
        (state["fresh"] == true && identities(&state) != identities(&before)).then_some(state)
    });
    life.until("the new login is saved", |_| {
        let log = fs::read_to_string(place.log()).ok()?;
        log.contains("A new login took the place of the saved one")
            .then_some(())
    });
    life.post(ALL_ROUTES);
    assert_eq!(life.get("/state")["failures"], 0);
    assert_eq!(life.stop(), 0);
    assert!(place.head() > head);

    // On the disk as it was left, and on a new one.
    for wiped in [false, true] {
        if wiped {
            place.wipe();
        }
        let life = place.start(&command, &settings);
        let state = life.get("/state");
        assert_eq!(state["fresh"], false, "wiped: {wiped}");
        assert_eq!(identities(&state), identities(&after), "wiped: {wiped}");
        assert_eq!(life.post(ALL_ROUTES)["delivered"], 24);
        assert_eq!(life.stop(), 0);
    }
}

#[test]
fn files_come_back_byte_for_byte_as_the_stopped_bot_left_them() {
    let place = Place::new("baileys");
    let command = bot(&place, &["--last-words"]);
    let life = place.start(&command, &[]);
    // Enough for pre-keys to be used up and made anew: files come and go.
    life.post("/exchange?n=60");
    assert_eq!(life.stop(), 0);

    let left = files(&place.session());
    let copy = files(&place.copy(None, "copy"));
    assert!(
        left.keys().any(|name| name.contains("session-")),
        "{:?}",
        left.keys()
    );
    assert!(left == copy, "{:?} became {:?}", left.keys(), copy.keys());
}

/// Every file below, by its path, but for what is sessionkeep's own.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if !path.ends_with(".sessionkeep") {
                    folders.push(path);
                }
            } else {
                let name = path
                    .strip_prefix(root)
                    .expect("below")
                    .display()
                    .to_string();
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

/// The control: what this product exists to prevent does show up when an older state is put back
/// by hand, while the other end of the conversation has gone on.
#[test]
fn an_older_commit_breaks_the_ratchets_and_the_newest_does_not() {
    let place = Place::new("baileys");
    let peer = place.path("peer");
    let saved = place.path("peer-saved");
    let peer_dir = peer.display().to_string();
    let command = bot(&place, &["--accounts", "2", "--peer-dir", &peer_dir]);

    let life = place.start(&command, &[]);
    let before = life.get("/state");
    life.post("/exchange?n=12");
    assert_eq!(life.stop(), 0);
    let older = place.head();
    let life = place.start(&command, &[]);
    life.post("/exchange?n=12");
    assert_eq!(life.stop(), 0);
    let newest = place.head();
    assert!(older < newest);
    copy_tree(&peer, &saved);

    place.wipe();
    place.run("restore", &[&"--seq", &older.to_string()]);
    let life = place.start(&command, &[]);
    let state = life.get("/state");
    assert_eq!(
        identities(&state),
        identities(&before),
        "old, but the same login"
    );
    assert_eq!(state["last_message"], 12);
    let from_peer = refusal(life.ask("POST", "/exchange?n=1&from=2&to=1"));
    assert!(from_peer.contains("Bad MAC"), "{from_peer}");
    // Which of its two words the library has for a spent key depends on who wrote last.
    let from_us = refusal(life.ask("POST", "/exchange?n=1&from=1&to=2"));
    let spent = ["Key used already or never filled", "Chain closed"];
    assert!(spent.iter().any(|word| from_us.contains(word)), "{from_us}");
    assert_eq!(life.stop(), 0);

    fs::remove_dir_all(&peer).expect("remove the peer");
    copy_tree(&saved, &peer);
    place.wipe();
    place.run("restore", &[&"--seq", &newest.to_string()]);
    let life = place.start(&command, &[]);
    assert_eq!(life.get("/state")["last_message"], 24);
    assert_eq!(life.post("/exchange?n=12")["delivered"], 12);
    assert_eq!(life.get("/state")["failures"], 0);
    assert_eq!(life.stop(), 0);
}

#[track_caller]
fn refusal(answer: Result<Value, Value>) -> String {
    let answer = answer.expect_err("an old ratchet cannot have gone on");
    answer["error"].to_string()
}

fn copy_tree(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let target = to.join(name);
        fs::create_dir_all(target.parent().expect("a folder")).expect("create a folder");
        fs::write(target, bytes).expect("write a file");
    }
}
