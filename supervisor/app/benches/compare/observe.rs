//! When what was written had become durable, seen from outside: the store is asked again and
//! again, the same way for every subject. What is counted is from the close of a file to the first
//! look that finds that version in the store, or a newer one.

use sessionkeep_archive::store::{CommitLog, Packs};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use sessionkeep_archive::format::{Change, Extent, frame_place, open_frame};
use sessionkeep_archive::version::read_listing;
use sessionkeep_core::entry::EntryKind;
use sessionkeep_core::record::{ArchiveName, RecordKind};
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::MongoStore;

use crate::measure::monotonic_ns;
use crate::server::{OBSERVER, block_on, client};
use crate::workload::database::{DIGITS, MARK};
use crate::writer::Written;

/// Between two looks. The store is on the same machine and shares its cores.
const LOOK: Duration = Duration::from_millis(3);
/// For one operation of the observer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which version of a file was found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Version {
    /// By the hash of its content.
    Hash([u8; 32]),
    /// By its modification time, in milliseconds since 1970, as Node.js tells it.
    Mtime(f64),
}

/// A version that was found in the store.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    /// On the monotonic clock.
    pub(crate) at: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// Files, in the order in which they were found.
    pub(crate) seen: Vec<Seen>,
    /// Commits that changed something.
    pub(crate) changes: u64,
    /// Of a database: the last transaction that was in the store, and when that was seen.
    pub(crate) marks: Vec<(u64, u64)>,
    /// Of a database: pages that were changed, added up over the commits after the first.
    pub(crate) pages: u64,
    /// When the last look was over.
    pub(crate) ended: u64,
}

/// Looks into a store until it is stopped.
pub(crate) struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Observation>,
}

impl Observer {
    /// Looks for the product's commits from now on. Of the database of that name, if there is
    /// one, it keeps a copy of its own, which tells what the store holds of it.
    pub(crate) fn product(url: &str, database: Option<&str>) -> Self {
        let mut watch = ProductWatch {
            url: url.to_owned(),
            image: Image::new(database),
            observation: Observation::default(),
        };
        Self::start(move |stop| {
            block_on(watch.run(stop));
            watch.observation
        })
    }

    /// Looks for the sidecar's uploads from now on.
    pub(crate) fn sidecar(url: &str) -> Self {
        let url = url.to_owned();
        Self::start(move |stop| block_on(watch_uploads(&url, stop)))
    }

    fn start(work: impl FnOnce(&AtomicBool) -> Observation + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self {
            stop,
            thread: thread::spawn(move || work(&flag)),
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Observation {
        self.stop.store(true, Ordering::Relaxed);
        let observed = self.thread.join().expect("the observer does not panic");
        Observation {
            ended: monotonic_ns(),
            ..observed
        }
    }
}

struct ProductWatch {
    url: String,
    image: Image,
    observation: Observation,
}

impl ProductWatch {
    async fn run(&mut self, stop: &AtomicBool) {
        let url = Secret::new(self.url.clone());
        let store = MongoStore::connect(&url, TIMEOUT, OBSERVER).expect("a valid URL");
        let archive: ArchiveName = "default".parse().expect("a name");
        let mut last = store
            .last_seq(&archive)
            .await
            .expect("read the chain's end")
            .unwrap_or(0);
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            let records = store.records(&archive, last + 1, u64::MAX).await;
            let at = monotonic_ns();
            for record in records.expect("read commits") {
                last = record.header.seq;
                if record.header.kind != RecordKind::Change {
                    continue;
                }
                self.observation.changes += 1;
                let (listing, content) = read_listing(&store, &record).await.expect("a listing");
                let mut sources = Sources {
                    store: &store,
                    archive: &archive,
                    packs: &listing.packs,
                    content,
                    frames: HashMap::new(),
                };
                for change in &listing.changes {
                    self.take(change, at, &mut sources).await;
                }
            }
        }
    }

    async fn take(&mut self, change: &Change, at: u64, sources: &mut Sources<'_>) {
        let path = change.path().as_path().to_owned();
        let is_database = self.image.is_of(&path);
        let hash = match change {
            Change::Put {
                kind: EntryKind::File { hash, .. },
                extents,
                ..
            } => {
                if is_database {
                    self.image.bytes.clear();
                    for extent in extents {
                        let piece = sources.read(extent).await;
                        let offset = self.image.bytes.len() as u64;
                        self.image.replace(offset, &piece);
                    }
                }
                hash.0
            }
            Change::Patch {
                hash, pieces, size, ..
            } => {
                if is_database {
                    let mut pages = HashSet::new();
                    self.image.bytes.resize(*size as usize, 0);
                    for piece in pieces {
                        let content = sources.read(&piece.extent).await;
                        let end = piece.offset + content.len() as u64;
                        pages.extend(piece.offset / PAGE..end.div_ceil(PAGE));
                        self.image.replace(piece.offset, &content);
                    }
                    self.observation.pages += pages.len() as u64;
                }
                hash.0
            }
            _ => return,
        };
        if is_database && let Some(mark) = self.image.mark() {
            self.observation.marks.push((mark, at));
        }
        self.observation.seen.push(Seen {
            path,
            version: Version::Hash(hash),
            at,
        });
    }
}

/// SQLite's default size of a page.
pub(crate) const PAGE: u64 = 4096;

/// Where the pieces of one commit lie.
struct Sources<'a> {
    store: &'a MongoStore,
    archive: &'a ArchiveName,
    packs: &'a [sessionkeep_core::record::PackId],
    content: Vec<u8>,
    frames: HashMap<(u32, u32), Vec<u8>>,
}

fn unpacked(source: &[u8], extent: &Extent) -> Vec<u8> {
    let mut zstd = zstd::bulk::Decompressor::new().expect("memory for zstd");
    let mut frame = Vec::new();
    open_frame(&mut zstd, &source[frame_place(extent)], extent, &mut frame).expect("a frame");
    frame
}

impl Sources<'_> {
    async fn read(&mut self, extent: &Extent) -> Vec<u8> {
        let key = (extent.source, extent.frame);
        if !self.frames.contains_key(&key) {
            let frame = if extent.source == 0 {
                unpacked(&self.content, extent)
            } else {
                let pack = self.packs[extent.source as usize - 1];
                let pack = self.store.pack(self.archive, pack).await.expect("a pack");
                unpacked(&pack, extent)
            };
            self.frames.insert(key, frame);
        }
        let from = extent.at as usize;
        self.frames[&key][from..from + extent.len as usize].to_vec()
    }
}

/// The database as the store has it.
struct Image {
    name: Option<PathBuf>,
    bytes: Vec<u8>,
    /// Where the mark was found; more than one where its row has moved.
    places: HashSet<usize>,
}

impl Image {
    fn new(name: Option<&str>) -> Self {
        Self {
            name: name.map(PathBuf::from),
            bytes: Vec::new(),
            places: HashSet::new(),
        }
    }

    fn is_of(&self, path: &Path) -> bool {
        self.name.as_deref() == Some(path)
    }

    fn replace(&mut self, offset: u64, content: &[u8]) {
        let from = offset as usize;
        let end = from + content.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[from..end].copy_from_slice(content);
        // A mark may lie across the edges of what was replaced.
        let around = from.saturating_sub(64)..(end + 64).min(self.bytes.len());
        let window = &self.bytes[around.clone()];
        for place in memmem(window, MARK.as_bytes()) {
            self.places.insert(around.start + place);
        }
    }

    fn mark(&self) -> Option<u64> {
        let read = |place: &usize| {
            let digits = place + MARK.len()..place + MARK.len() + DIGITS;
            std::str::from_utf8(self.bytes.get(digits)?)
                .ok()?
                .parse()
                .ok()
        };
        self.places.iter().filter_map(read).max()
    }
}

/// All places of `needle` in `hay`.
fn memmem(hay: &[u8], needle: &[u8]) -> Vec<usize> {
    let first = needle[0];
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if hay[at..].starts_with(needle) {
            found.push(at);
        }
        from = at + 1;
    }
    found
}

async fn watch_uploads(url: &str, stop: &AtomicBool) -> Observation {
    /// How many of the newest uploads a look asks for at first.
    const NEWEST: i64 = 16;
    let client = client(url).await;
    let files = client
        .default_database()
        .expect("the URL names a database")
        .collection::<Document>("fs.files");
    let mut observation = Observation::default();
    let mut known: HashSet<ObjectId> = HashSet::new();
    let mut first = true;
    while first || !stop.load(Ordering::Relaxed) {
        let mut limit = if first { 0 } else { NEWEST };
        loop {
            // In the order in which they were inserted, which is that of their completion.
            let found = files.find(doc! {}).sort(doc! { "$natural": -1 });
            let mut found = found.limit(limit).await.expect("find");
            let at = monotonic_ns();
            let (mut count, mut met) = (0, false);
            let mut fresh = Vec::new();
            while found.advance().await.expect("read") {
                let file = found.deserialize_current().expect("a document");
                let id = file.get_object_id("_id").expect("an id");
                count += 1;
                if known.insert(id) {
                    fresh.push(file);
                } else {
                    met = true;
                }
            }
            if !first {
                // Newest first is how they came.
                for file in fresh.iter().rev() {
                    let metadata = file.get_document("metadata").expect("the sidecar's own");
                    let mtime = metadata.get("mtimeMs").expect("the sidecar's own");
                    let mtime = mtime
                        .as_f64()
                        .or_else(|| mtime.as_i64().map(|ms| ms as f64));
                    observation.seen.push(Seen {
                        path: PathBuf::from(file.get_str("filename").expect("a name")),
                        version: Version::Mtime(mtime.expect("a number")),
                        at,
                    });
                }
            }
            if met || limit == 0 || count < limit {
                break;
            }
            limit *= 4;
        }
        first = false;
        tokio::time::sleep(LOOK).await;
    }
    observation
}

/// From the close of each file until it was durable, in milliseconds; and how many never were.
/// Those count with the time until the end of the observation.
pub(crate) fn latencies(written: &[Written], observation: &Observation) -> (Vec<f64>, usize) {
    /// A time that went through Node.js has lost the digits beyond a microsecond.
    const ROUNDING_MS: f64 = 0.01;
    let mut versions: HashMap<&Path, Vec<&Written>> = HashMap::new();
    for file in written {
        versions.entry(&file.path).or_default().push(file);
    }
    // For each version, when it or a newer one was first seen.
    let mut durable: HashMap<(&Path, usize), u64> = HashMap::new();
    for seen in &observation.seen {
        let Some(of_path) = versions.get(seen.path.as_path()) else {
            continue;
        };
        let newest = of_path.iter().rposition(|file| match seen.version {
            Version::Hash(hash) => file.hash == hash,
            Version::Mtime(ms) => file.mtime_ns as f64 / 1e6 <= ms + ROUNDING_MS,
        });
        let covered = newest.map_or(0, |newest| newest + 1);
        for (version, file) in of_path.iter().enumerate().take(covered) {
            // A file may be seen with content that it had again only later.
            if file.closed <= seen.at {
                durable
                    .entry((file.path.as_path(), version))
                    .or_insert(seen.at);
            }
        }
    }
    let mut samples = Vec::new();
    let mut missing = 0;
    for (path, of_path) in &versions {
        for (number, file) in of_path.iter().enumerate() {
            match durable.get(&(*path, number)) {
                Some(at) => samples.push((at - file.closed) as f64 / 1e6),
                None => {
                    missing += 1;
                    samples.push(observation.ended.saturating_sub(file.closed) as f64 / 1e6);
                }
            }
        }
    }
    (samples, missing)
}
