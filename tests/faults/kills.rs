//! `kill -9` of each process, and of all of them, at random moments: in the restore, in the middle
//! of commits, in the stop. After each kill the archive is restored elsewhere and looked at; after
//! each wipe what the gateway found is compared with the commit that was restored.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mongodb::bson::DateTime;
use serde_json::Value;

use super::built;
use super::campaign::{Tally, chance, rounds};
use super::churned::{Journal, churning, newest_row, torn};
use super::keeper::{Life, Tree, World, is_alive, send, wait_until, with_descendants};
use super::shape::step_of;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// PID 1 of a container, and with it the container.
    Init,
    /// Every process at once: the host has lost its power.
    Everything,
    Watcher,
    Gateway,
    Restorer,
}

const VICTIMS: [Victim; 5] = [
    Victim::Init,
    Victim::Everything,
    Victim::Watcher,
    Victim::Gateway,
    Victim::Restorer,
];

/// When, counted from the start of a life, from its readiness, or from the order to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Boot,
    Work,
    Stop,
}

/// The kill comes within so much of its [`Moment`].
const SPAN: Duration = Duration::from_millis(400);
/// A stop does not take as long.
const STOP_SPAN: Duration = Duration::from_millis(40);

/// The campaign against one store.
struct Campaign {
    world: World,
    gateway: PathBuf,
    chance: fastrand::Rng,
    tally: Tally,
    identity: String,
    /// The newest commit that any log has called committed.
    acknowledged: u64,
}

#[test]
fn kill_9_against_mongodb_loses_tears_and_forks_nothing() {
    Campaign::new(World::mongo(), "kill -9, MongoDB").run(rounds(12, 250));
}

#[test]
fn kill_9_against_the_sqlite_store_loses_tears_and_forks_nothing() {
    Campaign::new(World::sqlite(), "kill -9, SQLite store").run(rounds(12, 250));
}

impl Campaign {
    fn new(world: World, name: &'static str) -> Self {
        Self {
            world,
            gateway: built::example("churn"),
            chance: chance(name),
            tally: Tally::new(name),
            identity: String::new(),
            acknowledged: 0,
        }
    }

    fn run(mut self, rounds: u64) {
        let mut life = churning(&self.world, &self.gateway).ready();
        life.wait_for("committed seq=");
        assert_eq!(life.stop().code, 0);
        self.identity
            .clone_from(&Journal::read(&self.world).identities[0]);
        for round in 0..rounds {
            // Each of them equally often.
            let victim = VICTIMS[usize::try_from(round % 5).expect("small")];
            let moment = match victim {
                Victim::Restorer => Moment::Boot,
                _ => *[Moment::Boot, Moment::Work, Moment::Stop]
                    .get(self.chance.usize(..3))
                    .expect("one of three"),
            };
            let wiped = victim == Victim::Restorer || self.chance.bool();
            if wiped {
                self.world.wipe();
            }
            let what = format!("round {round}: {victim:?}, {moment:?}, wiped: {wiped}");
            println!("{what}");
            let in_order = self.life(victim, moment, wiped, &what);
            self.look(in_order, &what);
            self.tally.round();
        }
        self.tally.end();
    }

    /// One life and one kill. Whether it ended in order, so that nothing at all may be missing.
    fn life(&mut self, victim: Victim, moment: Moment, wiped: bool, what: &str) -> bool {
        let mut setup = churning(&self.world, &self.gateway);
        if victim == Victim::Init {
            setup = setup.before(&["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]);
        }
        let starts = Journal::read(&self.world).starts;
        let mut life = setup.start();
        let role = match victim {
            Victim::Init | Victim::Everything => None,
            Victim::Watcher => Some("watcher"),
            Victim::Gateway => Some("gateway"),
            Victim::Restorer => Some("restorer"),
        };
        if let Some(role) = role {
            life.wait_for(&format!("started role={role}"));
        }
        match moment {
            Moment::Boot => self.some_time(SPAN),
            Moment::Work | Moment::Stop => {
                life.wait_for("watcher is ready");
                // Its copy of what it found is made by then.
                wait_until("the gateway has begun", || {
                    Journal::read(&self.world).starts > starts
                });
                if wiped {
                    self.compare_with_what_was_found(&life, what);
                }
                self.some_time(2 * SPAN);
            }
        }
        // Named before it may be gone.
        let target = role.map(|role| life.process(role));
        if moment == Moment::Stop {
            stop(victim, &life);
            self.some_time(STOP_SPAN);
        }
        self.end_by((victim, moment), target, life, what)
    }

    /// Kills, and waits for what becomes of it.
    fn end_by(
        &mut self,
        (victim, moment): (Victim, Moment),
        target: Option<u32>,
        mut life: Life,
        what: &str,
    ) -> bool {
        if let Some(pid) = target {
            send(pid, libc::SIGKILL);
        }
        match victim {
            Victim::Init => {
                let all = with_descendants(life.pid());
                if let Some(init) = all.get(1) {
                    send(*init, libc::SIGKILL);
                }
                wait_until("the container is gone", || {
                    all.iter().skip(1).all(|pid| !is_alive(*pid))
                });
                life.code();
                self.acknowledge(&life.log());
                false
            }
            Victim::Everything => {
                self.acknowledge(&life.log());
                life.kill_tree();
                false
            }
            Victim::Watcher | Victim::Restorer => {
                self.some_time(SPAN);
                // A second order to stop would leave the gateway no time.
                if moment != Moment::Stop {
                    life.signal(libc::SIGTERM);
                }
                let ended = life.end();
                self.acknowledge(&ended.log);
                let in_order = ended.log.contains("stopped; all is saved");
                // Killed in time, so that the life ended by itself, or told to stop before that.
                let early = ended.log.contains("stopped; no gateway ran");
                assert!(in_order || early, "{what}: {}", ended.log);
                let codes: &[i32] = if in_order { &[0] } else { &[70, 143] };
                assert!(codes.contains(&ended.code), "{what}: {}", ended.log);
                in_order
            }
            Victim::Gateway => {
                let ended = life.end();
                self.acknowledge(&ended.log);
                assert!(
                    ended.code == 137 || ended.code == 0,
                    "{what}: {}",
                    ended.log
                );
                assert!(
                    ended.log.contains("stopped; all is saved"),
                    "{what}: {}",
                    ended.log
                );
                true
            }
        }
    }

    fn some_time(&mut self, at_most: Duration) {
        thread::sleep(at_most.mul_f64(self.chance.f64()));
    }

    /// Takes note of the newest commit that the store has taken, as the log tells it.
    fn acknowledge(&mut self, log: &str) {
        for said in ["committed seq=", "checkpoint seq="] {
            for (at, _) in log.match_indices(said) {
                let digits = log[at + said.len()..].split(|c: char| !c.is_ascii_digit());
                let seq = digits.map(str::parse).next().and_then(Result::ok);
                self.acknowledged = self.acknowledged.max(seq.unwrap_or(0));
            }
        }
    }

    /// After a restore into an empty directory: what the gateway found is the very commit that was
    /// restored, to the last byte, and not a part of another one.
    fn compare_with_what_was_found(&mut self, life: &Life, what: &str) {
        let log = life.log();
        let (_, after) = log.split_once("restored seq=").expect("it restored");
        let seq = after.split(' ').next().expect("a number");
        let (commit, ..) = self.restore(Some(seq));
        let mut found = Tree::of(&self.world.path("journal").with_extension("found"));
        // Whoever opens a database makes these, and the watcher may have been the first.
        for made in ["store.db-wal", "store.db-shm"] {
            found.take(made.as_bytes());
        }
        if found != commit {
            self.tally.torn(format!(
                "{what}: found {found:?}, and commit {seq} is {commit:?}"
            ));
        }
    }

    /// A restore elsewhere: the tree, the newest step of its database, and all that is wrong with it.
    fn restore(&self, seq: Option<&str>) -> (Tree, u64, Vec<String>) {
        let to = self.world.path("copy");
        let to_text = to.to_str().expect("text");
        let mut args = vec!["restore", "--to", to_text];
        args.extend(seq.iter().flat_map(|seq| ["--seq", seq]));
        let output = self.world.command(&args);
        assert!(output.status.success(), "{output:?}");
        let tree = Tree::of(&to);
        let rows = newest_row(&to);
        let wrong = torn(&to, &tree, &self.identity);
        fs::remove_dir_all(to).expect("remove the copy");
        (tree, rows, wrong)
    }

    /// Everything that must hold whatever was killed.
    fn look(&mut self, in_order: bool, what: &str) {
        let journal = Journal::read(&self.world);
        if journal.two > 0 {
            self.tally.double_owned(what);
        }
        if journal.identities.len() > 1 {
            self.tally.lost(format!(
                "{what}: another login was made: {:?}",
                journal.identities
            ));
        }
        let log = self.world.log();
        let head = log.first().map_or(0, |commit| number(commit, "seq"));
        if head < self.acknowledged {
            let acknowledged = self.acknowledged;
            self.tally.lost(format!(
                "{what}: commit {acknowledged} was there, now {head} is the newest"
            ));
        }
        let (tree, row, wrong) = self.restore(None);
        for wrong in wrong {
            self.tally.torn(format!("{what}: {wrong}"));
        }
        if in_order {
            let now = Tree::of(&self.world.dir());
            if differs(&now, &tree) {
                self.tally.lost(format!(
                    "{what}: after an end in order {now:?} was {tree:?}"
                ));
            }
            let last = newest_row(&self.world.dir());
            if last != row {
                self.tally.lost(format!(
                    "{what}: after an end in order row {last} was {row}"
                ));
            }
        }
        if let Some(micros) = looked_for_since(&log) {
            for wrong in journal.older_than(micros, &tree) {
                self.tally.lost(format!("{what}: {wrong}"));
            }
        }
    }
}

/// A moment before which everything that was done must be in the newest commit. That is when the
/// one before it was made: what is in a commit is looked for once its predecessor is in the store.
/// A checkpoint looks for nothing, and only lists what its predecessor has.
fn looked_for_since(log: &[Value]) -> Option<u64> {
    let mut looked = log.iter().skip_while(|commit| commit["kind"] != "change");
    looked.next()?;
    let before = looked.find(|commit| commit["kind"] != "barrier")?;
    let time = before["time"].as_str().expect("a time");
    let time = DateTime::parse_rfc3339_str(time).expect("a time");
    Some(u64::try_from(time.timestamp_millis()).expect("after 1970") * 1000)
}

/// The order to stop, to whoever is init.
fn stop(victim: Victim, life: &Life) {
    if victim == Victim::Init {
        if let Some(init) = with_descendants(life.pid()).get(1) {
            send(*init, libc::SIGTERM);
        }
    } else {
        life.signal(libc::SIGTERM);
    }
}

/// Whether a directory holds other files than were stored. What a killed gateway left half written
/// is not to be stored, and a database is compared by its rows elsewhere: what lay in its log lies
/// in the file now.
fn differs(dir: &Tree, stored: &Tree) -> bool {
    let whole: Vec<_> = dir
        .files()
        .filter(|(_, content)| step_of(content).is_some())
        .collect();
    let stored = stored.files().filter(|(name, _)| {
        name.ends_with(b".json") && whole.iter().any(|(whole, _)| whole == name)
    });
    !whole.iter().copied().eq(stored)
}

fn number(commit: &Value, field: &str) -> u64 {
    commit[field].as_u64().expect("a number")
}
