//! An archive at rest: a history that a real life wrote, what each of its commits holds, and
//! copies of it that can be damaged one by one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mongodb::bson::{Document, doc};
use serde_json::Value;

use super::campaign::chance;
use super::keeper::{Ended, IDLE, Tree, World};
use super::raw::{on_mongo, on_sqlite};

/// How many commits with content the history has, at least.
const STEPS: u64 = 30;
/// What an archive is made of in a MongoDB; notices in `bells` are none of it.
pub(crate) const COLLECTIONS: [&str; 4] = ["commits", "leases", "packs.files", "packs.chunks"];

/// A history of some thirty commits with several checkpoints and packs.
pub(crate) struct Archive {
    rest: Rest,
    /// What each commit with content holds.
    pub(crate) trees: BTreeMap<u64, Tree>,
    /// The numbers of the checkpoints.
    pub(crate) checkpoints: Vec<u64>,
}

/// The archive's bytes.
enum Rest {
    Sqlite(Vec<u8>),
    Mongo(BTreeMap<&'static str, Vec<Document>>),
}

/// The same history in each kind of store, written once for all tests.
pub(crate) fn both() -> [&'static Archive; 2] {
    [in_mongo(), in_sqlite()]
}

/// The history in a MongoDB.
pub(crate) fn in_mongo() -> &'static Archive {
    static ARCHIVE: OnceLock<Archive> = OnceLock::new();
    ARCHIVE.get_or_init(|| Archive::write(&World::mongo()))
}

/// The history in an SQLite file.
pub(crate) fn in_sqlite() -> &'static Archive {
    static ARCHIVE: OnceLock<Archive> = OnceLock::new();
    ARCHIVE.get_or_init(|| Archive::write(&World::sqlite()))
}

fn noise(chance: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| chance.u8(..)).collect()
}

/// What happens in the session directory before a commit.
fn change(world: &World, chance: &mut fastrand::Rng, step: u64) {
    let pad = chance.u128(..);
    let key = format!("keys/session-{}.json", step % 5);
    world.write(&key, format!(r#"{{"n":{step},"pad":"{pad:x}"}}"#));
    match step {
        0 => world.write("creds.json", r#"{"me":"1"}"#),
        // Below what goes into a pack: the first checkpoints carry all there is by themselves.
        1..6 => world.write("blob.bin", noise(chance, 48 << 10)),
        6 => world.write("large.log", "a line that repeats\n".repeat(70_000)),
        _ if step % 6 == 1 => {
            let name = format!("media/{}.bin", step % 4);
            world.write(&name, noise(chance, 600 << 10));
        }
        10 => symlink("../creds.json", world.dir().join("keys/link")).expect("symlink"),
        14 => fs::create_dir_all(world.dir().join("empty/nested")).expect("mkdir"),
        16 => fs::remove_file(world.dir().join("keys/link")).expect("remove"),
        _ if step % 6 == 2 => {
            // In its middle, so that it is a patch.
            let mut log = "a line that repeats\n".repeat(70_000).into_bytes();
            let at = chance.usize(..log.len());
            log[at..].iter_mut().take(9).for_each(|byte| *byte = b'#');
            world.write("large.log", log);
        }
        _ => {}
    }
}

impl Archive {
    fn write(world: &World) -> Self {
        let mut chance = chance("archive at rest");
        let mut life = world.script(IDLE).ready();
        for step in 0..STEPS {
            let told = life.log().matches("committed seq=").count();
            change(world, &mut chance, step);
            life.wait_for_count("committed seq=", told + 1);
        }
        assert_eq!(life.stop().code, 0);
        let log = world.log();
        let number = |commit: &Value| commit["seq"].as_u64().expect("a number");
        let of_kind = |kind: &str| -> Vec<u64> {
            let of_kind = log.iter().filter(|commit| commit["kind"] == kind);
            of_kind.map(number).collect()
        };
        let with_content = [of_kind("checkpoint"), of_kind("change")].concat();
        let trees = with_content.into_iter().map(|seq| {
            let restored = Restored::of(world, Some(seq));
            (seq, restored.tree.expect("an undamaged commit is restored"))
        });
        let archive = Self {
            trees: trees.collect(),
            checkpoints: of_kind("checkpoint"),
            rest: Rest::of(world),
        };
        assert!(archive.trees.len() as u64 >= STEPS, "{log:?}");
        assert!(archive.checkpoints.len() >= 4, "{log:?}");
        assert!(super::raw::packs(world) >= 4, "{log:?}");
        archive
    }

    /// The newest commit.
    pub(crate) fn head(&self) -> u64 {
        *self.trees.keys().next_back().expect("it has commits")
    }

    /// The newest commit before this one that has content.
    pub(crate) fn before(&self, seq: u64) -> u64 {
        let before = self.trees.range(..seq).next_back();
        *before.expect("it is not the first").0
    }

    /// A world of its own with a copy of the archive, and without a session directory.
    pub(crate) fn copy(&self) -> World {
        match &self.rest {
            Rest::Sqlite(bytes) => {
                let world = World::sqlite();
                fs::write(world.database_file(), bytes).expect("write the store's file");
                world
            }
            Rest::Mongo(collections) => {
                let world = World::mongo();
                on_mongo(&world.url, async |database| {
                    for (name, documents) in collections {
                        let collection = database.collection::<Document>(name);
                        let done = collection.insert_many(documents).await;
                        done.expect("insert");
                    }
                });
                world
            }
        }
    }
}

impl Rest {
    fn of(world: &World) -> Self {
        if world.url.starts_with("sqlite:") {
            on_sqlite(world, |store| {
                store
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                    .expect("bring the log into the file");
            });
            return Self::Sqlite(fs::read(world.database_file()).expect("read"));
        }
        Self::Mongo(on_mongo(&world.url, async |database| {
            let mut rest = BTreeMap::new();
            for name in COLLECTIONS {
                let collection = database.collection::<Document>(name);
                let mut cursor = collection.find(doc! {}).await.expect("find");
                let documents: &mut Vec<Document> = rest.entry(name).or_default();
                while cursor.advance().await.expect("read") {
                    documents.push(cursor.deserialize_current().expect("a document"));
                }
            }
            rest
        }))
    }
}

/// Ends the life of a copy: a database in the shared mongod takes room for as long as it runs.
pub(crate) fn discard(world: World) {
    if !world.url.starts_with("sqlite:") {
        on_mongo(&world.url, async |database| {
            database.drop().await.expect("drop the database");
        });
    }
}

/// What `sessionkeep restore --to` brought.
#[derive(Debug)]
pub(crate) struct Restored {
    /// Its exit code; 128 and more for a signal.
    pub(crate) code: i32,
    /// All that it said.
    pub(crate) told: String,
    /// The commit that it says it restored, and what is there.
    pub(crate) seq: u64,
    pub(crate) tree: Option<Tree>,
}

impl Restored {
    /// Restores commit `seq`, or the newest that is whole, into a new directory.
    #[track_caller]
    pub(crate) fn of(world: &World, seq: Option<u64>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let to = world.path(&format!("restored-{number}"));
        let mut words = vec!["restore", "--json", "--to", to.to_str().expect("text")];
        let seq = seq.map(|seq| seq.to_string());
        words.extend(seq.iter().flat_map(|seq| ["--seq", seq]));
        let output = world.command(&words);
        let told = told(&output);
        let code = code(&output);
        assert_orderly(code, &told);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let restored = Self {
            code,
            told,
            seq: report["seq"].as_u64().unwrap_or(0),
            tree: (code == 0).then(|| Tree::of(&to)),
        };
        if code != 0 {
            let left = Tree::of(&to);
            assert!(left.is_empty(), "{left:?} is left of it: {restored:?}");
        }
        let _ = fs::remove_dir_all(to);
        restored
    }
}

/// What `sessionkeep verify` found.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Its exit code.
    pub(crate) code: i32,
    /// All that it said.
    pub(crate) told: String,
}

impl Verdict {
    /// Verifies what the newest commit needs.
    #[track_caller]
    pub(crate) fn of_head(world: &World) -> Self {
        Self::from(&world.command(&["verify"]))
    }

    /// Verifies every commit that is kept.
    #[track_caller]
    pub(crate) fn of_all(world: &World) -> Self {
        Self::from(&world.command(&["verify", "--all"]))
    }

    #[track_caller]
    fn from(output: &std::process::Output) -> Self {
        let (code, told) = (code(output), told(output));
        assert_orderly(code, &told);
        Self { code, told }
    }
}

/// Boots in a wiped directory with a gateway that leaves a trace beside it and ends with 0.
#[track_caller]
pub(crate) fn boot(world: &World) -> Ended {
    let _ = fs::remove_dir_all(world.dir());
    let _ = fs::remove_file(world.path("ran"));
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_orderly(ended.code, &ended.log);
    ended
}

/// Whether the gateway of the last [`boot`] was started.
pub(crate) fn gateway_ran(world: &World) -> bool {
    world.path("ran").exists()
}

/// Nothing crashes: no signal, no panic, no exit code that no document names.
#[track_caller]
pub(crate) fn assert_orderly(code: i32, told: &str) {
    assert!([0, 1, 69, 70, 74, 75, 78].contains(&code), "{code}: {told}");
    for word in ["panicked", "overflowed its stack", "memory allocation of"] {
        assert!(!told.contains(word), "{told}");
    }
}

fn code(output: &std::process::Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let signal = output.status.signal().map(|signal| 128 + signal);
    output.status.code().or(signal).expect("it has ended")
}

fn told(output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}
