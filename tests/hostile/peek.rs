//! A gateway of our own user that looks for our secrets in `/proc`.

use std::path::Path;

use super::keeper::World;
use super::place::{Neighbour, neighbours, score, tried_by};

const CANARY: &str = "c4n4ry5eef";

#[test]
fn a_gateway_of_our_user_that_kills_the_watcher_sees_no_secret_of_the_next_one() {
    std::thread::scope(|scope| {
        for neighbour in neighbours() {
            scope.spawn(move || look_for_a_secret(&neighbour));
        }
    });
}

fn look_for_a_secret(neighbour: &Neighbour) {
    let world = World::sqlite();
    neighbour.own(&world);
    let backwards: String = CANARY.chars().rev().collect();
    let mut life = tried_by(&world, "peek", &[Path::new(&backwards)])
        .env("ADMIN_TOKEN", format!("{CANARY}-token"))
        .env(
            "SESSIONKEEP_WEBHOOK_URL",
            format!("http://127.0.0.1:9/{CANARY}"),
        )
        .set(&format!("webhook.secret={CANARY}"))
        .before(neighbour.before)
        .start();
    let achieved = score(&mut life);
    let ended = life.stop();
    assert_eq!(achieved, 0, "{neighbour:?}: {}", ended.log);
    let killed = ended.log.matches("watcher died").count();
    assert!(
        killed > 2,
        "{neighbour:?}: the attacker hardly tried: {}",
        ended.log
    );
    assert_eq!(ended.code, 0, "{neighbour:?}: {}", ended.log);
}
