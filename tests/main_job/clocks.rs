//! The store's clock is set while sessions are owned, waited for and left behind.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::faketime;
use super::handover::Stage;
use super::keeper::{LIMIT, Setup, World, wait_until};
use super::mongod::Mongod;

/// A stage whose database has a clock that can be set.
struct Clocked {
    stage: Stage,
    clock: PathBuf,
    /// Ends with the stage.
    _mongod: Mongod,
}

impl Clocked {
    /// `None` where no clock can be faked.
    fn new() -> Option<Self> {
        let library = faketime::library_for_threads()?;
        let mut world = World::at("");
        let clock = world.path("clock");
        faketime::set(&clock, "+0");
        let mongod = Mongod::start_in(faketime::environment(&library, &clock).into());
        world.url = mongod.new_database_url();
        Some(Self {
            stage: Stage { world },
            clock,
            _mongod: mongod,
        })
    }

    fn set(&self, offset: &str) {
        faketime::set(&self.clock, offset);
    }

    /// Until the owner has renewed its lease, so that it knows what the clock said.
    #[track_caller]
    fn until_renewed(&self) {
        let remaining = || -> f64 {
            let lease = &self.stage.world.json(&["lease", "--json"])["lease"];
            lease["remaining_seconds"].as_f64().expect("a number")
        };
        let mut last = remaining();
        wait_until("the lease is renewed", || {
            let before = std::mem::replace(&mut last, remaining());
            last > before
        });
    }

    fn doctor(&self) -> String {
        let output = self.stage.world.command(&["doctor"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// An instance that waits, and asks nobody to make way.
fn patient<'a>(stage: &'a Stage, name: &str) -> Setup<'a> {
    stage.instance(name).set("lease.conflict=wait")
}

/// The same, of those whose gateway never outlives its lease.
fn strict<'a>(stage: &'a Stage, name: &str) -> Setup<'a> {
    let setup = patient(stage, name).set("store.outage=stop");
    let setup = setup.set("store.timeout=1s").set("lease.ttl=6s");
    setup.set("lease.renew=2s")
}

/// How long somebody may take who waits for a lease of some seconds, on a machine that is busy: far less than
/// the clock was set by.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_database_whose_clock_is_set_back_keeps_no_session_for_the_dead() {
    let Some(clocked) = Clocked::new() else {
        return;
    };
    let stage = &clocked.stage;
    let owner = stage.instance("a").ready();
    stage.until_counted();
    let mut waiter = patient(stage, "w").start();
    waiter.wait_for("waiting for the session");
    owner.kill_tree();
    waiter.kill_tree();
    clocked.set("-1h");
    let lease = &stage.world.json(&["lease", "--json"])["lease"];
    let remaining = lease["remaining_seconds"].as_f64().expect("a number");
    assert!(remaining <= 3.0, "{lease}");
    let begun = Instant::now();
    let mut next = stage.instance("b").start();
    next.wait_for("watcher is ready");
    let took = begun.elapsed();
    eprintln!("figure: a dead owner's session, clock set back an hour, lease of 3 s: {took:.1?}");
    assert!(took < SOON, "{took:?}:\n{}", next.log());
    let log = next.log();
    assert!(log.contains("the store's clock was set back"), "{log}");
    let told = clocked.doctor();
    assert!(
        told.contains("set back by 1h00m") || told.contains("set back by 59m"),
        "{told}"
    );
    // One that lets go leaves nothing behind, though somebody who waited is dead.
    let mut waiter = patient(stage, "w").start();
    waiter.wait_for("waiting for the session");
    waiter.kill_tree();
    assert_eq!(next.stop().code, 0);
    clocked.set("-2h");
    let begun = Instant::now();
    let last = stage.instance("c").ready();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(last.stop().code, 0);
    stage.never_two();
}

#[test]
fn what_ends_a_lease_ends_its_queue_and_says_so() {
    let Some(clocked) = Clocked::new() else {
        return;
    };
    let stage = &clocked.stage;
    // A place is kept for three seconds after it was last asked for. A round that took so long proves
    // nothing; any other one must tell.
    let is_told = (0..10).any(|_| {
        let owner = stage.instance("a").ready();
        let mut waiter = patient(stage, "w").start();
        waiter.wait_for("waiting for the session");
        let killed = Instant::now();
        waiter.kill_tree();
        assert_eq!(owner.stop().code, 0);
        let broken = stage.world.command(&["lease", "--break"]);
        assert!(broken.status.success(), "{broken:?}");
        let told = String::from_utf8_lossy(&broken.stdout).into_owned();
        let is_told = told.contains("ended the queue, with 1 in it");
        assert!(
            is_told || killed.elapsed() > Duration::from_secs(1),
            "{told}"
        );
        is_told
    });
    assert!(is_told, "it never says that it ended the queue");
    let lease = &stage.world.json(&["lease", "--json"])["lease"];
    assert_eq!(
        lease["waiting"].as_array().map(Vec::len),
        Some(0),
        "{lease}"
    );
    let broken = stage.world.command(&["lease", "--break"]);
    let told = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(told.contains("nothing was ended"), "{told}");
}

#[test]
fn a_database_whose_clock_is_set_forward_takes_no_session_from_who_renews_it() {
    let Some(clocked) = Clocked::new() else {
        return;
    };
    let stage = &clocked.stage;
    let mut owner = strict(stage, "a").ready();
    stage.until_counted();
    let mut waiter = strict(stage, "b").start();
    waiter.wait_for("waiting for the session");
    for round in 1..=3 {
        clocked.until_renewed();
        clocked.set(&format!("+{round}h"));
        // One that comes just then has seen no renewal yet.
        let mut late = strict(stage, &format!("late-{round}")).start();
        late.wait_for("waiting for the session");
        owner.wait_for_count("the store's clock was set", round);
        stage.until_counted();
        assert_eq!(stage.owners(), ["a"]);
        stage.never_two();
        late.kill_tree();
    }
    let begun = Instant::now();
    owner.kill_tree();
    stage.until_owner("b");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    stage.never_two();
    assert_eq!(waiter.stop().code, 0);
}

#[test]
fn a_clock_that_is_set_before_the_first_renewal_is_told() {
    let Some(clocked) = Clocked::new() else {
        return;
    };
    let stage = &clocked.stage;
    let owner = stage.instance("a").set("lease.ttl=30s");
    let mut owner = owner.set("lease.renew=10s").ready();
    // The store's clock is first read when the lease is taken up, beside all else: that takes a connection of
    // its own. A commit is on its way for as long.
    stage.until_counted();
    clocked.set("+1h");
    owner.wait_for("the store's clock was set");
    assert_eq!(owner.stop().code, 0);
}

#[test]
fn an_owner_with_a_clock_an_hour_ahead_leaves_its_session_to_the_next_when_it_dies() {
    let Some(library) = faketime::library() else {
        return;
    };
    // The store is a file: its clock is that of whoever uses it.
    let stage = Stage {
        world: World::sqlite(),
    };
    let clock = stage.world.path("clock");
    faketime::set(&clock, "+1h");
    let mut owner = stage.instance("a");
    for (name, value) in faketime::environment(&library, &clock) {
        owner = owner.env(name, value);
    }
    let owner = owner.ready();
    stage.until_counted();
    owner.kill_tree();
    let begun = Instant::now();
    let mut next = stage.instance("b").start();
    wait_until("the next one has the session", || {
        stage.owners() == ["a", "b"]
    });
    let took = begun.elapsed();
    assert!(took < SOON && SOON < LIMIT, "{took:?}:\n{}", next.log());
    next.wait_for("watcher is ready");
    assert!(next.log().contains("the store's clock was set back"));
    assert_eq!(next.stop().code, 0);
    stage.never_two();
}
