//! A newer instance takes the session over from one that runs: in order, without a lost write, and
//! without a moment in which two gateways have it.
//!
//! The gateway of these tests watches that itself: it holds a lock that the kernel takes from it
//! when the last of its processes is gone, counts in a file of the session, and says what it found.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::faketime;
use super::keeper::{
    Setup, World, free_port, http_json, is_alive, send, wait_until, with_descendants,
};
use super::line::Line;
use super::proxy::Mode;

/// Counts, faster than the watcher commits. What it had counted to is also written beside the
/// session, where the next one of whatever instance compares it.
const COUNTER: &str = r#"
exec 9>>"$P/only"; flock -n 9 || echo "$I" >>"$P/two"
n=$(cat n 2>/dev/null || echo 0); was=$(cat "$P/n" 2>/dev/null || echo 0)
[ "$n" = "$was" ] || echo "$I began with $n after $was" >>"$P/differs"
trap 'echo $n >n; echo $n >"$P/n"; echo "$I ended $(date +%s%3N)" >>"$P/owners"; exit 0' TERM
echo "$I began $(date +%s%3N)" >>"$P/owners"
while :; do n=$((n+1)); echo $n >n.new; mv n.new n; echo $n >"$P/n"; sleep 0.02; done
"#;

/// The stage of these tests.
pub(super) struct Stage {
    pub(super) world: World,
}

impl Stage {
    fn both() -> impl Iterator<Item = Self> {
        World::both().into_iter().map(|world| Self { world })
    }

    /// One whose store is behind a line that can be cut, for those who want it to be.
    fn with_a_line() -> (Self, Line) {
        let world = World::mongo();
        let line = Line::to(&world);
        (Self { world }, line)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.world.path(&format!("session-{name}"))
    }

    /// An instance with a disk of its own.
    pub(super) fn instance(&self, name: &str) -> Setup<'_> {
        self.world
            .script(COUNTER)
            .dir(self.dir(name))
            .env("I", name)
    }

    /// The same, with the store behind a line that can be cut.
    fn behind(&self, line: &Line, name: &str) -> Setup<'_> {
        self.instance(name)
            .env("MONGO_URL", line.url.clone())
            .set("store.timeout=1s")
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.world.path(name)).unwrap_or_default()
    }

    /// Who began, in order.
    pub(super) fn owners(&self) -> Vec<String> {
        let said = self.said("owners");
        let began = said.lines().filter(|line| line.contains(" began "));
        began
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// When the gateway of `name` last began or ended, in milliseconds.
    #[track_caller]
    fn moment(&self, name: &str, word: &str) -> u64 {
        let said = self.said("owners");
        let line = said
            .lines()
            .rfind(|line| line.starts_with(&format!("{name} {word} ")));
        let (_, moment) = line.expect("it did").rsplit_once(' ').expect("three words");
        moment.parse().expect("a number")
    }

    #[track_caller]
    pub(super) fn until_owner(&self, name: &str) {
        wait_until(&format!("{name} has the session"), || {
            self.owners().last().is_some_and(|last| last == name)
        });
    }

    /// Until the gateway has counted on, and all of that is surely committed.
    #[track_caller]
    pub(super) fn until_counted(&self) {
        let counted = || -> u64 { self.said("n").trim().parse().unwrap_or(0) };
        let from = counted();
        wait_until("the gateway counts on", || counted() >= from + 20);
    }

    #[track_caller]
    pub(super) fn never_two(&self) {
        assert_eq!(self.said("two"), "", "two gateways had the session at once");
    }

    #[track_caller]
    pub(super) fn nothing_lost(&self) {
        assert_eq!(self.said("differs"), "", "a write was lost");
        self.never_two();
    }
}

#[test]
fn a_newer_instance_takes_over_and_the_older_one_stays_and_leaves_with_0() {
    for stage in Stage::both() {
        let port = free_port();
        let mut first = stage
            .instance("a")
            .set(&format!("http.port={port}"))
            .ready();
        stage.until_counted();
        let mut second = stage.instance("b").start();
        second.wait_for("asking it to hand over");
        stage.until_owner("b");
        let gap = stage.moment("b", "began") - stage.moment("a", "ended");
        eprintln!(
            "figure: handover, from the old gateway's end to the new one's start: {gap} ms ({})",
            &stage.world.url[..6]
        );
        second.wait_for("watcher is ready");
        first.wait_for("to=Standby");
        wait_until("the older one answers, as one that waits", || {
            http_json("GET", port, "/health").is_some_and(|health| health["status"] == "standby")
        });
        stage.until_counted();
        stage.nothing_lost();
        let ended = first.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(ended.log.contains("all is saved"), "{}", ended.log);
        // It has left no gap: the newer one goes on.
        stage.until_counted();
        assert_eq!(second.stop().code, 0);
        assert_eq!(stage.owners(), ["a", "b"]);
        stage.nothing_lost();
    }
}

#[test]
fn when_the_newer_one_ends_the_older_one_takes_the_session_back() {
    for stage in Stage::both() {
        let mut first = stage.instance("a").ready();
        stage.until_counted();
        let second = stage.instance("b").ready();
        stage.until_owner("b");
        stage.until_counted();
        assert_eq!(second.stop().code, 0);
        stage.until_owner("a");
        first.wait_for_count("watcher is ready", 2);
        stage.until_counted();
        stage.nothing_lost();
        // And once more, by the same two disks.
        let mut third = stage.instance("b").ready();
        stage.until_owner("b");
        third.wait_for("watcher is ready");
        stage.until_counted();
        assert_eq!(first.stop().code, 0);
        assert_eq!(third.stop().code, 0);
        assert_eq!(stage.owners(), ["a", "b", "a", "b"]);
        stage.nothing_lost();
    }
}

#[test]
fn when_the_newer_one_dies_before_it_has_the_session_the_older_one_goes_on() {
    for stage in Stage::both() {
        let slow = "trap 'sleep 1; echo $n >n; echo $n >\"$P/n\"; exit 0' TERM";
        let script = COUNTER.replace("\nwhile", &format!("\n{slow}\nwhile"));
        let mut first = stage
            .world
            .script(&script)
            .dir(stage.dir("a"))
            .env("I", "a")
            .ready();
        stage.until_counted();
        let second = stage.instance("b").start();
        first.wait_for("asks for the session");
        // While the older one's gateway is still ending.
        second.kill_tree();
        wait_until("the older one starts its gateway again", || {
            stage.owners() == ["a", "a"]
        });
        stage.until_counted();
        stage.nothing_lost();
        assert_eq!(first.stop().code, 0);
    }
}

#[test]
fn when_the_newer_one_is_killed_the_older_one_takes_over_what_it_committed() {
    for stage in Stage::both() {
        let first = stage.instance("a").ready();
        stage.until_counted();
        let second = stage.instance("b").ready();
        stage.until_owner("b");
        stage.until_counted();
        let head = stage.world.head();
        let begun = Instant::now();
        second.kill_tree();
        stage.until_owner("a");
        eprintln!(
            "figure: from an owner's kill to the next gateway's start, lease of 3 s: {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        assert!(stage.world.head() > head);
        stage.until_counted();
        stage.never_two();
        assert_eq!(first.stop().code, 0);
    }
}

#[test]
fn of_three_newer_ones_each_gets_its_turn_in_order_and_asks_nobody_twice() {
    for stage in Stage::both() {
        // Slow to end, so that all of them come to the same owner.
        let script = COUNTER.replace(
            "trap '",
            "trap 'while ! [ -e \"$P/go\" ]; do sleep 0.02; done; ",
        );
        let first = stage
            .world
            .script(&script)
            .dir(stage.dir("a"))
            .env("I", "a")
            .ready();
        stage.until_counted();
        // The order in which they come is the order in which they stand in the queue.
        let mut lives = Vec::new();
        for name in ["b", "c", "d"] {
            let mut life = stage.instance(name).start();
            life.wait_for("another instance owns this session");
            lives.push((name, life));
        }
        fs::write(stage.world.path("go"), "").expect("write");
        stage.until_owner("b");
        stage.until_counted();
        // The others wait behind it: who came with it is no reason for it to make way again.
        let waiting = &stage.world.json(&["status", "--json"])["stored"]["lease"]["waiting"];
        let waiting = waiting.as_array().map_or(0, Vec::len);
        assert_eq!(waiting, 3, "two newer ones, and the one that made way");
        assert_eq!(first.stop().code, 0);
        for (n, (name, life)) in lives.into_iter().enumerate() {
            stage.until_owner(name);
            stage.until_counted();
            assert_eq!(stage.owners().len(), n + 2);
            assert_eq!(life.stop().code, 0, "{name}");
        }
        assert_eq!(stage.owners(), ["a", "b", "c", "d"]);
        stage.nothing_lost();
    }
}

#[test]
fn an_owner_that_stood_still_for_longer_than_its_lease_is_fenced_when_it_goes_on() {
    for stage in Stage::both() {
        let first = stage.instance("a").ready();
        stage.until_counted();
        let tree = with_descendants(first.pid());
        for pid in &tree {
            send(*pid, libc::SIGSTOP);
        }
        let mut second = stage.instance("b").start();
        second.wait_for("watcher is ready");
        let gateway = first.process("gateway");
        assert!(is_alive(gateway), "it stands still");
        let head = stage.world.head();
        for pid in &tree {
            send(*pid, libc::SIGCONT);
        }
        let ended = first.end();
        assert_eq!(ended.code, 75, "{}", ended.log);
        assert!(!is_alive(gateway));
        let log = stage.world.log();
        let by_second = |commit: &&serde_json::Value| commit["seq"].as_u64() > Some(head);
        let writers: Vec<_> = log
            .iter()
            .filter(by_second)
            .map(|c| c["instance"].clone())
            .collect();
        assert!(
            writers.windows(2).all(|pair| pair[0] == pair[1]),
            "{writers:?}"
        );
        assert_eq!(second.stop().code, 0);
    }
}

#[test]
fn a_clock_that_is_wrong_by_an_hour_is_nothing_to_a_lease() {
    let Some(library) = faketime::library() else {
        return;
    };
    for (ours, theirs) in [("+1h", "-1h"), ("-1h", "+1h")] {
        let stage = Stage {
            world: World::mongo(),
        };
        let skewed = |name: &str, skew: &str| {
            stage
                .instance(name)
                .env("LD_PRELOAD", library.display().to_string())
                .env("FAKETIME", skew)
                .env("DONT_FAKE_MONOTONIC", "1")
                // The times of files are the kernel's.
                .env("NO_FAKE_STAT", "1")
        };
        let mut first = skewed("a", ours).set("lease.conflict=wait").ready();
        stage.until_counted();
        let mut waiting = skewed("b", theirs).set("lease.conflict=wait").start();
        waiting.wait_for("waiting for the session");
        // Longer than a lease lasts.
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(stage.owners(), ["a"]);
        let mut third = skewed("c", theirs).start();
        stage.until_owner("c");
        third.wait_for("watcher is ready");
        first.wait_for("to=Standby");
        stage.until_counted();
        third.kill_tree();
        // It has stood in the queue for longest.
        stage.until_owner("b");
        stage.until_counted();
        stage.never_two();
        assert_eq!(first.stop().code, 0);
        assert_eq!(waiting.stop().code, 0);
    }
}

#[test]
fn an_owner_that_is_cut_off_goes_on_and_is_fenced_on_return_if_somebody_took_over() {
    let (stage, line) = Stage::with_a_line();
    let mut first = stage.behind(&line, "a").ready();
    stage.until_counted();
    line.set(Mode::BlackHole);
    first.wait_for("changes cannot be saved now; the gateway goes on");
    stage.until_counted();
    // Nobody else wants it: back, and nothing has happened.
    std::thread::sleep(Duration::from_secs(4));
    line.set(Mode::Pass);
    first.wait_for("changes can be saved again");
    let gateway = first.process("gateway");
    assert!(is_alive(gateway));
    // Now somebody does.
    line.set(Mode::BlackHole);
    let mut second = stage.instance("b").start();
    second.wait_for("watcher is ready");
    assert!(is_alive(gateway), "an outage takes no gateway down");
    line.set(Mode::Pass);
    let ended = first.end();
    assert_eq!(ended.code, 75, "{}", ended.log);
    assert!(!is_alive(gateway));
    assert_eq!(second.stop().code, 0);
}

#[test]
fn with_outage_stop_a_gateway_that_is_cut_off_ends_before_another_can_begin() {
    let (stage, line) = Stage::with_a_line();
    let mut first = stage
        .behind(&line, "a")
        .set("store.outage=stop")
        .set("lease.ttl=6s")
        .ready();
    stage.until_counted();
    let mut second = stage
        .instance("b")
        .set("lease.conflict=wait")
        .set("lease.ttl=6s")
        .start();
    second.wait_for("waiting for the session");
    line.set(Mode::BlackHole);
    first.wait_for("stopping the gateway, as store.outage asks");
    second.wait_for("watcher is ready");
    stage.until_owner("b");
    stage.never_two();
    assert!(stage.moment("a", "ended") < stage.moment("b", "began"));
    // It is back, and waits its turn: nothing of what the other one commits is in danger.
    line.set(Mode::Pass);
    stage.until_counted();
    assert_eq!(second.stop().code, 0);
    stage.until_owner("a");
    first.wait_for_count("watcher is ready", 2);
    stage.until_counted();
    stage.never_two();
    assert_eq!(first.stop().code, 0);
}

#[test]
fn with_outage_stop_and_nobody_else_the_gateway_goes_on_from_where_it_was() {
    let (stage, line) = Stage::with_a_line();
    let mut first = stage
        .behind(&line, "a")
        .set("store.outage=stop")
        .set("lease.ttl=6s")
        .ready();
    stage.until_counted();
    line.set(Mode::BlackHole);
    first.wait_for("stopping the gateway, as store.outage asks");
    first.wait_for("to=Standby");
    line.set(Mode::Pass);
    first.wait_for_count("watcher is ready", 2);
    stage.until_counted();
    assert_eq!(stage.owners(), ["a", "a"]);
    stage.nothing_lost();
    assert_eq!(first.stop().code, 0);
}

#[test]
fn where_the_last_changes_cannot_be_saved_the_session_is_not_handed_over() {
    let (stage, line) = Stage::with_a_line();
    // It cuts itself off from the store as soon as it is told to stop.
    let script = COUNTER.replace(
        "trap '",
        "trap 'touch \"$P/cut\"; while ! [ -e \"$P/is-cut\" ]; do sleep 0.02; done; ",
    );
    let first = stage
        .world
        .script(&script)
        .dir(stage.dir("a"))
        .env("I", "a")
        .env("MONGO_URL", line.url.clone())
        .set("store.timeout=1s")
        .set("lease.ttl=30s")
        .set("stop.flush=2s")
        .ready();
    stage.until_counted();
    let mut second = stage.instance("b").set("lease.ttl=30s").start();
    second.wait_for("asking it to hand over");
    wait_until("the gateway is told to stop", || {
        stage.world.path("cut").exists()
    });
    line.set(Mode::BlackHole);
    fs::write(stage.world.path("is-cut"), "").expect("write");
    wait_until("the gateway is started again", || {
        stage.owners() == ["a", "a"]
    });
    assert!(first.log().contains("the session is not handed over"));
    line.set(Mode::Pass);
    stage.until_counted();
    stage.nothing_lost();
    assert_eq!(second.stop().code, 143);
    assert_eq!(first.stop().code, 0);
}
