//! `kill -9` of everything at random moments, while messages go through the Baileys library.

use std::thread;
use std::time::Duration;

use crate::baileys::{bot, identities};
use crate::evidence::acknowledged_by;
use crate::place::Place;

const ROUNDS: usize = 20;
/// A dead owner's reservation has to run out before the next life may begin; and there are to be
/// commits to lose something against, however short a life is.
const SHORT_LIFE: [&str; 3] = ["lease.ttl=1s", "lease.renew=300ms", "sync.max_delay=200ms"];
/// Milliseconds between messages: without a pause to speak of, busy, and with pauses.
const PACES: [u64; 3] = [2, 15, 90];
/// The promise is "the last moment"; this is what no machine may be slow enough to exceed.
const LOST_MS_MAX: i64 = 10_000;

#[test]
fn after_a_kill_at_any_moment_both_sides_of_every_conversation_go_on() {
    let place = Place::new("baileys");
    let command = bot(&place, &[]);

    let life = place.start(&command, &SHORT_LIFE);
    life.post("/exchange?n=12");
    let first = identities(&life.get("/state"));
    assert_eq!(life.stop(), 0);

    let mut lost = Vec::new();
    let mut life = place.start(&command, &SHORT_LIFE);
    for round in 1..=ROUNDS {
        life.post(&format!("/every?ms={}", PACES[round % PACES.len()]));
        thread::sleep(random_pause());
        let killed_ms = life.kill();
        place.wipe();

        let known = place.acknowledged();
        let (_, began_ms) = place.commits_with_beginnings().pop().expect("commits");
        let committed = acknowledged_by(&known, began_ms);
        life = place.start(&command, &SHORT_LIFE);
        let state = life.get("/state");
        assert_eq!(identities(&state), first, "round {round}");
        let restored = state["last_message"].as_u64().expect("a number");
        assert!(
            restored >= committed,
            "round {round}: {committed} was acknowledged before the last commit, {restored} is there"
        );
        // All pairs, both directions, twice: two sides that are not of one moment fail here.
        let told = life.ask("POST", "/exchange?n=12");
        assert!(told.is_ok(), "round {round}, restored {restored}: {told:?}");
        let missing: Vec<_> = known.iter().filter(|line| line.n > restored).collect();
        let ms = missing.first().map_or(0, |line| killed_ms - line.at_ms);
        println!("round {round}: lost {} messages, {ms} ms", missing.len());
        lost.push((missing.len(), ms));
    }
    assert_eq!(life.stop(), 0);

    let median_and_most = |mut values: Vec<i64>| {
        values.sort_unstable();
        (values[values.len() / 2], values[values.len() - 1])
    };
    let (ms, ms_most) = median_and_most(lost.iter().map(|(_, ms)| *ms).collect());
    let count = |n: usize| i64::try_from(n).expect("few");
    let (messages, messages_most) = median_and_most(lost.iter().map(|(n, _)| count(*n)).collect());
    println!(
        "lost in {ROUNDS} kills: p50 {messages} messages and {ms} ms, at most {messages_most} and {ms_most} ms"
    );
    assert!(ms_most < LOST_MS_MAX);
}

/// A moment that nobody chose.
pub(crate) fn random_pause() -> Duration {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("random bytes");
    Duration::from_millis(50 + u64::from(u16::from_le_bytes(bytes)) % 1150)
}
