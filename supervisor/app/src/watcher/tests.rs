//! The index against a model: whatever happens to a directory, what is committed is what is
//! there, found by hints as well as by scans.

use sessionkeep_archive::store::{CommitLog, Packs};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use proptest::prelude::*;

use super::committed_index::CommittedIndex;
use super::dirty::{Dirty, Work};
use super::gathered::Pass;
use super::guard::Refusal;
use super::replicator::{Committed, Replicator};
use super::signs_of_life::SignsOfLife;
use crate::boot::restore::{FallBack, Place, stage_newest_whole};
use crate::config::{self, Flags, Settings};
use crate::progress::Progress;
use sessionkeep_archive::store::{Faults, MemoryStore, Store};
use sessionkeep_archive::tree::Tree;
use sessionkeep_core::secret::Secret;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Directory, Events};

struct Site {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    events: Arc<Mutex<Events>>,
    directory: Directory,
    dirty: Dirty,
    memory: MemoryStore,
    settings: Settings,
    replicator: Replicator,
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

impl Site {
    async fn new() -> Self {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = temp.path().join("session");
        fs::create_dir(&dir).expect("create");
        let flags = Flags {
            dir: Some(dir.display().to_string()),
            store: Some(Secret::new(format!(
                "sqlite:{}",
                temp.path().join("unused.db").display()
            ))),
            profile: Some("generic".into()),
            ..Flags::default()
        };
        let settings = config::load(&flags).expect("settings").settings;
        let directory = Directory::open(&dir, settings.profile.files()).expect("open");
        let events = Arc::new(Mutex::new(Events::new()));
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let state = StateDir::open(&dir).expect("open");
        let index = CommittedIndex::new(directory.clone(), state, events.clone());
        let instance = "test-1".parse().expect("a name");
        let mut replicator = Replicator::new(
            settings.clone(),
            store,
            instance,
            index,
            SignsOfLife::default(),
        );
        replicator.attach().await.expect("attaches");
        Self {
            _temp: temp,
            dir,
            events,
            directory,
            dirty: Dirty::default(),
            memory,
            settings,
            replicator,
        }
    }

    async fn commit(&mut self, work: Work, pass: Pass) -> Committed {
        self.replicator
            .commit(work, pass)
            .await
            .expect("the store answers")
    }

    /// Why nothing is committed, once what happened to the directory is over.
    async fn refusal(&mut self) -> Option<Refusal> {
        loop {
            let committed = self.commit(Work::everything(), Pass::Final).await;
            if committed.refused != Some(Refusal::NotYet) {
                return committed.refused;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Commits until there is nothing left to look at again.
    async fn settle(&mut self, mut work: Work, pass: Pass) {
        for _ in 0..200 {
            let committed = self.commit(work, pass).await;
            assert_eq!(committed.refused, None);
            if committed.later.is_empty() {
                return;
            }
            tokio::time::sleep_until(committed.later[0].1.into()).await;
            work = Work {
                paths: committed.later.into_iter().map(|(path, _)| path).collect(),
                ..Work::default()
            };
        }
        panic!("files never became ready");
    }

    /// What the kernel reported since the last call.
    fn hinted(&mut self) -> Work {
        let dirty = &mut self.dirty;
        let mut events = self.events.lock().expect("no panic");
        events
            .read(&self.directory, &mut |fs_event| {
                dirty.fs_event(fs_event, Instant::now());
            })
            .expect("reads");
        dirty.take(Instant::now()).0
    }

    /// The newest commit, restored elsewhere.
    async fn restored(&self) -> BTreeMap<PathBuf, Entry> {
        let head = self
            .memory
            .head(&self.settings.archive)
            .await
            .expect("answers")
            .expect("is there");
        let temp = tempfile::tempdir().expect("tempdir");
        if head.base == 0 {
            return BTreeMap::new();
        }
        let staged = stage_newest_whole(
            &self.memory,
            head,
            Place::keeping_owners(&StateDir::open(temp.path()).expect("it opens")),
            FallBack::No,
            &Progress::default(),
        )
        .await
        .expect("whole");
        staged.stage.install_copy().expect("installs");
        listing(temp.path())
    }
}

/// What a restore has to bring back of an entry. A directory's time changes with its content, and
/// is brought back as of its last commit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Dir {
        mode: u32,
    },
    File {
        mode: u32,
        mtime: (i64, i64),
        content: Vec<u8>,
    },
    Link(PathBuf),
}

fn listing(root: &Path) -> BTreeMap<PathBuf, Entry> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<PathBuf, Entry>) {
        for entry in fs::read_dir(dir).expect("list") {
            let path = entry.expect("entry").path();
            let name = path.strip_prefix(root).expect("below").to_owned();
            if name.starts_with(".sessionkeep") {
                continue;
            }
            let meta = fs::symlink_metadata(&path).expect("look");
            let mode = meta.mode() & 0o7777;
            if meta.is_dir() {
                out.insert(name, Entry::Dir { mode });
                walk(root, &path, out);
            } else if meta.is_symlink() {
                out.insert(name, Entry::Link(fs::read_link(&path).expect("link")));
            } else {
                let content = fs::read(&path).expect("read");
                out.insert(
                    name,
                    Entry::File {
                        mode,
                        mtime: (meta.mtime(), meta.mtime_nsec()),
                        content,
                    },
                );
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u8, usize),
    Append(usize, u8),
    Delete(usize),
    MakeDir(usize),
    Rename(usize, usize),
    Mode(usize, u32),
    Link(usize, usize),
    Touch(usize),
}

const NAMES: [&str; 12] = [
    "a", "b.json", "c", "d", "d/e", "d/f", "d/g", "d/g/h", "i", "i/j.json", "i/k", "l.json",
];

fn op() -> impl Strategy<Value = Op> {
    let name = 0usize..NAMES.len();
    prop_oneof![
        6 => (name.clone(), any::<u8>(), prop_oneof![0usize..3000, Just(1_300_000)]).prop_map(|(n, b, l)| Op::Write(n, b, l)),
        2 => (name.clone(), any::<u8>()).prop_map(|(n, b)| Op::Append(n, b)),
        3 => name.clone().prop_map(Op::Delete),
        3 => name.clone().prop_map(Op::MakeDir),
        3 => (name.clone(), name.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (name.clone(), prop_oneof![Just(0o600u32), Just(0o640), Just(0o755)]).prop_map(|(n, m)| Op::Mode(n, m)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Op::Link(a, b)),
        1 => name.prop_map(Op::Touch),
    ]
}

/// Does what can be done; what cannot (a file where a directory is) is passed over.
fn perform(root: &Path, op: &Op) {
    let at = |n: &usize| root.join(NAMES[*n]);
    // Writing through a link could put what is no JSON into a file that should hold some.
    let is_link = |n: &usize| fs::symlink_metadata(at(n)).is_ok_and(|meta| meta.is_symlink());
    let _ = match op {
        Op::Write(n, ..) | Op::Append(n, _) if is_link(n) => Ok(()),
        Op::Write(n, byte, len) if NAMES[*n].ends_with(".json") => {
            fs::write(at(n), format!("{{\"v\":{byte},\"l\":{len}}}"))
        }
        Op::Write(n, byte, len) => fs::write(at(n), vec![*byte; *len]),
        Op::Append(n, _) if NAMES[*n].ends_with(".json") => Ok(()),
        Op::Append(n, byte) => fs::OpenOptions::new()
            .append(true)
            .open(at(n))
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[*byte; 100])),
        Op::Delete(n) => fs::remove_file(at(n)).or_else(|_| fs::remove_dir_all(at(n))),
        Op::MakeDir(n) => fs::create_dir(at(n)),
        // A JSON name must hold JSON, or it is rightly not committed.
        Op::Rename(a, b) if NAMES[*a].ends_with(".json") == NAMES[*b].ends_with(".json") => {
            fs::rename(at(a), at(b))
        }
        Op::Rename(..) => Ok(()),
        Op::Mode(n, mode) => fs::symlink_metadata(at(n)).and_then(|meta| match meta.is_symlink() {
            true => Ok(()),
            false => fs::set_permissions(
                at(n),
                fs::Permissions::from_mode(*mode | 0o700 & if meta.is_dir() { 0o700 } else { 0 }),
            ),
        }),
        Op::Link(a, b) => symlink(Path::new(NAMES[*b]).file_name().expect("a name"), at(a)),
        Op::Touch(n) => fs::File::open(at(n))
            .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH)),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_committed_is_what_is_there(
        rounds in prop::collection::vec((prop::collection::vec(op(), 1..12), any::<bool>()), 1..6)
    ) {
        block_on(async {
            let mut site = Site::new().await;
            site.settle(Work::everything(), Pass::Live).await;
            for (ops, by_hints) in &rounds {
                for op in ops {
                    perform(&site.dir, op);
                }
                let work = if *by_hints { site.hinted() } else { Work::everything() };
                site.settle(work, Pass::Live).await;
                if *by_hints {
                    // The content is there by the hints alone. Times that changed without content wait.
                    let without_times = |list: BTreeMap<PathBuf, Entry>| -> BTreeMap<PathBuf, Entry> {
                        list.into_iter().map(|(path, entry)| (path, match entry {
                            Entry::File { mode, content, .. } => Entry::File { mode, mtime: (0, 0), content },
                            other => other,
                        })).collect()
                    };
                    assert_eq!(without_times(site.restored().await), without_times(listing(&site.dir)));
                }
            }
            site.settle(Work::everything(), Pass::Final).await;
            assert_eq!(site.restored().await, listing(&site.dir));
            let writes = site.memory.calls().writes;
            site.settle(Work::everything(), Pass::Final).await;
            assert_eq!(site.memory.calls().writes, writes, "nothing changed, and something was written");
        });
    }
}

#[test]
fn a_tree_that_is_already_stored_is_not_sent_again() {
    block_on(async {
        let mut site = Site::new().await;
        fs::write(site.dir.join("large.bin"), vec![7; 3 << 20]).expect("write");
        fs::write(site.dir.join("small"), b"x").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        let (writes, packs) = (
            site.memory.calls().writes,
            site.memory
                .packs(&site.settings.archive)
                .await
                .expect("answers"),
        );
        // As after a restart: what is committed is known, its fingerprints are not.
        let head = site.replicator.head().expect("is there").clone();
        let version = sessionkeep_archive::version::Version::load(&site.memory, head)
            .await
            .expect("whole");
        site.replicator
            .index()
            .expect("no thread has it")
            .committed(version.tree, version.aside);
        site.settle(Work::everything(), Pass::Live).await;
        assert_eq!(site.memory.calls().writes, writes);
        assert_eq!(
            site.memory
                .packs(&site.settings.archive)
                .await
                .expect("answers"),
            packs
        );
    });
}

#[test]
fn torn_json_is_not_committed_and_the_last_good_version_stays() {
    block_on(async {
        let mut site = Site::new().await;
        let creds = site.dir.join("creds.json");
        fs::write(&creds, b"{\"me\":1}").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        for torn in [&b""[..], b"{\"me\":", b"{\"me\":1}{"] {
            fs::write(&creds, torn).expect("write");
            let committed = site.commit(Work::everything(), Pass::Final).await;
            assert_eq!((committed.header.is_none(), committed.not_whole), (true, 1));
        }
        fs::write(site.dir.join("other"), b"goes on").expect("write");
        site.commit(Work::everything(), Pass::Final).await;
        let restored = site.restored().await;
        let Some(Entry::File { content, .. }) = restored.get(Path::new("creds.json")) else {
            panic!("{restored:?}")
        };
        assert_eq!(content, b"{\"me\":1}");
        assert!(restored.contains_key(Path::new("other")));
    });
}

#[test]
fn a_logout_is_a_commit_and_a_wiped_directory_is_none() {
    block_on(async {
        let mut site = Site::new().await;
        let creds = site.dir.join("creds.json");
        fs::write(&creds, b"{}").expect("write");
        fs::write(site.dir.join("key"), b"k").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        fs::remove_file(&creds).expect("remove");
        assert!(
            site.commit(Work::everything(), Pass::Live)
                .await
                .header
                .is_some()
        );

        fs::write(&creds, b"{}").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        let before = site.restored().await;
        for entry in fs::read_dir(&site.dir).expect("list") {
            let path = entry.expect("entry").path();
            fs::remove_file(&path)
                .or_else(|_| fs::remove_dir_all(&path))
                .expect("remove");
        }
        assert_eq!(site.refusal().await, Some(Refusal::Wiped));
        assert_eq!(site.restored().await, before);
    });
}

#[test]
fn credentials_that_became_something_else_are_kept_as_they_were() {
    block_on(async {
        let mut site = Site::new().await;
        let creds = site.dir.join("creds.json");
        fs::write(&creds, b"{}").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        fs::remove_file(&creds).expect("remove");
        fs::create_dir(&creds).expect("create");
        let committed = site.commit(Work::everything(), Pass::Live).await;
        assert!(
            matches!(committed.refused, Some(Refusal::CredentialsReplaced(_))),
            "{committed:?}"
        );
    });
}

#[test]
fn a_directory_that_was_replaced_is_not_committed() {
    block_on(async {
        let mut site = Site::new().await;
        fs::write(site.dir.join("key"), b"k").expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        fs::rename(&site.dir, site.dir.with_extension("away")).expect("rename");
        fs::create_dir(&site.dir).expect("create");
        let before = site.restored().await;
        assert_eq!(site.refusal().await, Some(Refusal::Wiped));
        fs::remove_dir(site.dir.join(".sessionkeep")).expect_err("the marker is in it");
        fs::remove_dir_all(&site.dir).expect("remove");
        let refused = site.refusal().await;
        assert!(matches!(refused, Some(Refusal::DirectoryGone(_))));
        assert_eq!(site.restored().await, before);
        // What comes back as it was goes on as ever.
        fs::rename(site.dir.with_extension("away"), &site.dir).expect("rename");
        assert_eq!(site.refusal().await, None);
        assert_eq!(site.restored().await, before);
    });
}

#[test]
fn an_empty_replica_has_the_root_of_an_empty_tree() {
    block_on(async {
        let mut site = Site::new().await;
        let empty = Tree::<()>::new().root();
        assert_eq!(
            site.replicator
                .index()
                .expect("no thread has it")
                .summary()
                .root,
            empty
        );
    });
}

/// Taking a snapshot opens the database and its log, which the kernel reports as a change of them;
/// run as root, SQLite even sets the log's owner anew each time.
#[test]
fn looking_at_an_idle_database_does_not_cause_the_next_look() {
    block_on(async {
        let mut site = Site::new().await;
        let path = site.dir.join("store.db");
        let writer = rusqlite::Connection::open(&path).expect("open");
        writer
            .pragma_update(None, "journal_mode", "wal")
            .expect("wal");
        writer
            .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .expect("write");
        site.settle(Work::everything(), Pass::Live).await;
        let mut work = site.hinted();
        for round in 0.. {
            assert!(round < 12, "each look at the database causes another one");
            let committed = site.commit(work, Pass::Live).await;
            assert!(
                round == 0 || committed.header.is_none(),
                "nothing changed, and something was committed"
            );
            let waits = committed.later.first().map(|(_, when)| *when);
            if let Some(when) = waits {
                tokio::time::sleep_until(when.into()).await;
            }
            work = site.hinted();
            work.paths
                .extend(committed.later.into_iter().map(|(path, _)| path));
            if work.is_empty() {
                break;
            }
        }
        drop(writer);
    });
}

/// A database of a few megabytes in WAL mode, and its writer.
fn database(path: &Path) -> rusqlite::Connection {
    let writer = rusqlite::Connection::open(path).expect("open");
    let sql = "PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB);
        WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 2000)
        INSERT INTO t SELECT n, randomblob(1500) FROM s; PRAGMA wal_checkpoint(TRUNCATE);
        UPDATE t SET b = randomblob(9) WHERE n = 1";
    writer.execute_batch(sql).expect("fill");
    writer
}

fn update(writer: &rusqlite::Connection, n: u32) {
    let sql = format!("UPDATE t SET b = randomblob(1500) WHERE n = {n}");
    writer.execute_batch(&sql).expect("update");
}

/// The table's rows.
type Rows = Vec<(i64, Vec<u8>)>;

/// What `writer` sees, and what is in the restored database.
fn both(writer: &rusqlite::Connection, restored: &BTreeMap<PathBuf, Entry>) -> (Rows, Rows) {
    let Some(Entry::File { content, .. }) = restored.get(Path::new("store.db")) else {
        panic!("{:?}", restored.keys())
    };
    let temp = tempfile::tempdir().expect("tempdir");
    let path = temp.path().join("x.db");
    fs::write(&path, content).expect("write");
    let copy = rusqlite::Connection::open(path).expect("open");
    let check: String = copy
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("checks");
    assert_eq!(check, "ok");
    let rows = |of: &rusqlite::Connection| {
        let mut rows = of.prepare("SELECT n, b FROM t ORDER BY n").expect("select");
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("select")
            .map(|row| row.expect("row"))
            .collect::<Rows>()
    };
    (rows(writer), rows(&copy))
}

#[test]
fn a_database_costs_what_changed_in_it_and_stays_right_when_a_commit_could_not_be_made() {
    block_on(async {
        let mut site = Site::new().await;
        let writer = database(&site.dir.join("store.db"));
        site.settle(Work::everything(), Pass::Live).await;
        let size = site.replicator.head().expect("is there").bytes;
        assert!(size > 2 << 20, "{size}");
        for round in 0..30 {
            update(&writer, 7 * round + 3);
            let lost = round % 5 == 4;
            if lost {
                // Too much for a commit by itself: its packs cannot be stored, and what was
                // gathered is lost with them.
                let large = "UPDATE t SET b = randomblob(1500) WHERE n > 1500";
                writer.execute_batch(large).expect("update");
                site.memory.set_faults(Faults::Unavailable);
                let failed = site.replicator.commit(Work::everything(), Pass::Final);
                assert!(failed.await.is_err(), "the store was away");
                assert!(!site.replicator.is_pending(), "nothing was appended");
                site.memory.set_faults(Faults::None);
                update(&writer, 7 * round + 4);
            }
            site.settle(Work::everything(), Pass::Final).await;
            let bytes = site.replicator.head().expect("is there").bytes;
            assert!(
                lost || bytes < 100 << 10,
                "round {round} sent {bytes} bytes"
            );
            assert!(bytes < size / 2, "round {round} sent {bytes} bytes");
        }
        let (here, there) = both(&writer, &site.restored().await);
        assert!(here == there, "the restored database has other rows");
    });
}

/// Blocks of 4 KiB hold several small pages or a part of a large one, and the last one may be short.
#[test]
fn a_database_that_grows_and_shrinks_is_right_whatever_its_page_size() {
    block_on(async {
        for page_size in [512, 1024, 4096, 16384] {
            let mut site = Site::new().await;
            let path = site.dir.join("store.db");
            let writer = rusqlite::Connection::open(&path).expect("open");
            let sql = format!(
                "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL;
                 CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB);
                 WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 200)
                 INSERT INTO t SELECT n, randomblob(300) FROM s;"
            );
            writer.execute_batch(&sql).expect("fill");
            site.settle(Work::everything(), Pass::Final).await;
            for round in 0..12 {
                let sql = match round % 4 {
                    0 => "INSERT INTO t SELECT NULL, randomblob(700) FROM t WHERE n % 5 = 0",
                    1 => "UPDATE t SET b = randomblob(40) WHERE n % 17 = 0",
                    2 => "DELETE FROM t WHERE n % 3 = 0",
                    _ => "VACUUM",
                };
                writer.execute_batch(sql).expect(sql);
                site.settle(Work::everything(), Pass::Final).await;
                let (here, there) = both(&writer, &site.restored().await);
                assert!(here == there, "page size {page_size}, round {round}");
            }
        }
    });
}
