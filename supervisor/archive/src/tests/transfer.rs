//! Packs travel several at a time, in order, and within a bound of bytes.

use std::time::{Duration, Instant};

use super::*;
use crate::error::ArchiveError;
use crate::fetch::{self, Check};
use crate::format::{FRAME_TARGET, PACK_TARGET};
use crate::store::{Faults, StoreError};
use crate::upload;
use crate::version::Source;
use sessionkeep_core::record::PackId;

/// Long beside what happens at once, short beside a test.
const DISTANT: Duration = Duration::from_millis(100);
const PACKS: u64 = 12;

/// An archive of one commit whose content is in [`PACKS`] packs, one file in each.
async fn keeper_of_packs() -> Keeper {
    let mut keeper = Keeper::new().await;
    let names: Vec<String> = (0..PACKS).map(|n| format!("{n:02}.bin")).collect();
    let files: Vec<_> = names
        .iter()
        .zip(0..)
        .map(|(name, n)| (name.as_str(), Some(noise(n, PACK_TARGET))))
        .collect();
    keeper.commit(&files).await;
    keeper
}

fn is_pack(source: &Source) -> bool {
    matches!(source, Source::Pack(_))
}

async fn plan(keeper: &Keeper) -> Fetch {
    let head = keeper.store.head(&archive()).await.expect("answers");
    let version = Version::load(&*keeper.store, head.expect("there is one")).await;
    let fetch = Fetch::plan(&mut version.expect("whole"), |_| true);
    let packs = fetch.sources().iter().filter(|s| is_pack(s)).count();
    assert!(packs as u64 >= PACKS - 1, "{packs} packs");
    fetch
}

/// The packs in the order in which they are read.
async fn packs_in_order(keeper: &Keeper) -> Vec<PackId> {
    let packs = keeper.store.packs(&archive()).await.expect("answers");
    let mut ids: Vec<PackId> = packs.into_iter().map(|pack| pack.id).collect();
    ids.sort();
    ids
}

#[test]
fn a_distant_store_is_asked_for_several_packs_at_a_time() {
    block_on(async {
        let keeper = keeper_of_packs().await;
        let fetch = plan(&keeper).await;
        keeper.memory.set_faults(Faults::Slow(DISTANT));
        let before = keeper.memory.calls();
        fetch
            .run(&*keeper.store, Check::default())
            .await
            .expect("whole");
        let after = keeper.memory.calls();
        assert!(after.reads - before.reads <= PACKS, "each is read once");
        assert!(after.at_once >= 3, "{} requests at a time", after.at_once);
    });
}

/// Counts how far reading is ahead of it, and is slow.
struct Behind {
    memory: MemoryStore,
    reads_before: u64,
    taken: u64,
    most_ahead: u64,
    files: Vec<usize>,
}

impl Sink for Behind {
    fn piece(&mut self, at: At, _: &Wanted, content: &[u8]) -> Result<()> {
        self.taken += content.len() as u64;
        let begun = Instant::now();
        loop {
            // Long enough for everything to be read meanwhile that may be; and, on a machine that is busy,
            // until something is.
            std::thread::sleep(Duration::from_millis(3));
            let read = (self.memory.calls().reads - self.reads_before) * PACK_TARGET as u64;
            self.most_ahead = self.most_ahead.max(read.saturating_sub(self.taken));
            if self.most_ahead > PACK_TARGET as u64 || begun.elapsed() > Duration::from_secs(20) {
                break;
            }
        }
        if self.files.last() != Some(&at.file) {
            self.files.push(at.file);
        }
        Ok(())
    }
}

#[test]
fn what_is_read_ahead_is_bounded_by_its_bytes_and_comes_in_order() {
    block_on(async {
        let keeper = keeper_of_packs().await;
        let fetch = plan(&keeper).await;
        let memory = keeper.memory.clone();
        let reads_before = memory.calls().reads;
        let sink = Behind {
            memory,
            reads_before,
            taken: 0,
            most_ahead: 0,
            files: Vec::new(),
        };
        let sink = fetch.run(&*keeper.store, sink).await.expect("whole");
        // What of a pack has been taken counts as taken here, while its room is given back at its end.
        let bound = (fetch::AHEAD_MAX + FRAME_TARGET) as u64;
        assert!(
            sink.most_ahead <= bound,
            "{} bytes ahead, {bound} are allowed",
            sink.most_ahead
        );
        assert!(
            sink.most_ahead > PACK_TARGET as u64,
            "nothing was read ahead: {}",
            sink.most_ahead
        );
        assert!(sink.files.is_sorted(), "{:?}", sink.files);
    });
}

#[test]
fn the_first_thing_that_is_wrong_is_what_is_reported() {
    block_on(async {
        let keeper = keeper_of_packs().await;
        let packs = packs_in_order(&keeper).await;
        let gone = packs[4];
        let deleted = keeper.store.delete_pack(&archive(), gone).await;
        deleted.expect("answers");
        let fetch = plan(&keeper).await;
        let ended = fetch.run(&*keeper.store, Strict::default()).await;
        let (error, source) = ended.err().expect("a pack is missing");
        assert!(
            matches!(error, ArchiveError::Store(StoreError::Missing { .. })),
            "{error:?}"
        );
        assert_eq!(source, Some(Source::Pack(gone)));

        // One before it is damaged; that the later one is missing is known long before.
        let fetch = plan(&keeper).await;
        let harmed = keeper.memory.change_pack(&archive(), packs[2], |content| {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        });
        assert!(harmed);
        let ended = fetch.run(&*keeper.store, Strict::default()).await;
        let (error, source) = ended.err().expect("a pack is damaged");
        assert!(
            matches!(error, ArchiveError::DamagedContent { .. }),
            "{error:?}"
        );
        assert_eq!(source, Some(Source::Pack(packs[2])));
    });
}

/// Ends at the first file that is not what it was, and takes its time.
#[derive(Default)]
struct Strict(Verifier);

impl Sink for Strict {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.piece(at, wanted, content).map(drop)
    }
}

#[test]
fn packs_are_sent_several_at_a_time_and_the_builder_waits_beyond_the_bound() {
    block_on(async {
        let keeper = Keeper::new().await;
        keeper.memory.set_faults(Faults::Slow(DISTANT));
        let (mut sink, upload) = Upload::start(keeper.store.clone(), archive());
        let content = bytes::Bytes::from(noise(1, upload::AHEAD_MAX / 2));
        let memory = keeper.memory.clone();
        let writes_before = memory.calls().writes;
        let built = tokio::task::spawn_blocking(move || {
            let mut most_ahead = 0;
            for sent in 1..=8u64 {
                sink(PackId::generate(), content.clone())?;
                let stored = memory.calls().writes - writes_before;
                most_ahead = most_ahead.max(sent - stored);
            }
            std::io::Result::Ok(most_ahead)
        });
        let most_ahead = built.await.expect("no panic").expect("all are taken");
        upload.finish(Ok(())).await.expect("stored");
        assert_eq!(most_ahead, 2, "packs of half the bound");
        assert_eq!(keeper.memory.calls().at_once, 2);
        assert_eq!(keeper.memory.calls().writes - writes_before, 8);
    });
}

#[test]
fn a_builder_that_waits_for_room_hears_of_a_store_that_failed() {
    block_on(async {
        let keeper = Keeper::new().await;
        keeper.memory.set_faults(Faults::Denied);
        let (mut sink, upload) = Upload::start(keeper.store.clone(), archive());
        let content = bytes::Bytes::from(noise(1, upload::AHEAD_MAX));
        let built = tokio::task::spawn_blocking(move || {
            // The first has all the room; the second can only wait for it.
            for _ in 0..3 {
                sink(PackId::generate(), content.clone())?;
            }
            std::io::Result::Ok(())
        });
        let built = built.await.expect("no panic");
        assert!(built.is_err(), "the builder was not told");
        let built = built.map_err(|source| ArchiveError::Io {
            action: "hand on a pack",
            source,
        });
        let error = upload.finish(built).await.expect_err("nothing was stored");
        assert!(
            matches!(error, ArchiveError::Store(StoreError::Denied { .. })),
            "{error:?}"
        );
    });
}
