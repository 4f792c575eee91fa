//! A restore costs what is alive, whatever the history.

use std::time::Duration;

use super::*;
use crate::clock::StoreClock;
use crate::collect::collect;

/// 10,000 small commits over 1.5 MB of files that do not compress, as keys do not.
#[test]
fn after_ten_thousand_commits_a_restore_reads_live_data() {
    block_on(async {
        const FILES: u64 = 1000;
        const SIZE: usize = 1500;
        const GRACE: Duration = Duration::from_secs(3600);
        let mut keeper = Keeper::new().await;
        let names: Vec<String> = (0..FILES).map(|n| format!("session-{n:04}.bin")).collect();
        let all: Vec<_> = names
            .iter()
            .zip(0..)
            .map(|(name, n)| (name.as_str(), Some(noise(n, SIZE))))
            .collect();
        keeper.commit(&all).await;
        let mut most_stored = 0;
        for n in 0..10_000u64 {
            // A ratchet of a few files, and now and then another one.
            let at = if n % 5 == 0 {
                (n * 7919) % FILES
            } else {
                n % 17
            };
            keeper
                .commit(&[(
                    names[at as usize].as_str(),
                    Some(noise(n + 1_000_000, SIZE)),
                )])
                .await;
            if keeper.writer.wants_checkpoint() {
                keeper.checkpoint().await;
                // What is superseded goes once its grace is over.
                keeper.memory.advance(GRACE * 2);
                // To who has not seen it pass, it is time like any other.
                let now = keeper.store.now_ms().await.expect("answers");
                collect(&*keeper.store, &archive(), GRACE, &mut StoreClock::new(now))
                    .await
                    .expect("collects");
                let usage = keeper.store.usage(&archive()).await.expect("answers");
                most_stored = most_stored.max(usage.commit_bytes + usage.pack_bytes);
            }
        }
        let usage = keeper.store.usage(&archive()).await.expect("answers");
        most_stored = most_stored.max(usage.commit_bytes + usage.pack_bytes);
        let live = FILES * SIZE as u64;
        let head = keeper.writer.head().expect("there is a head").clone();
        let checkpoint = {
            let header = crate::version::header_of(&*keeper.store, &archive(), head.base)
                .await
                .expect("is there");
            let records = keeper
                .store
                .records(&archive(), header.seq, header.seq)
                .await
                .expect("answers");
            records[0].body.len() as u64
        };
        assert!(
            most_stored < 2 * live + checkpoint,
            "stored {most_stored} bytes for {live} live ones and a checkpoint of {checkpoint}"
        );

        let before = keeper.memory.calls().reads;
        let version = Version::load(&*keeper.store, head).await.expect("whole");
        let chain = version.header.seq - version.header.base;
        let needed = version.header.base_bytes + version.header.chain_bytes;
        drop(version);
        assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
        let reads = keeper.memory.calls().reads - before;
        assert!(
            needed < live * 3 / 2 + checkpoint,
            "a restore reads {needed} bytes for {live} live ones"
        );
        assert!(reads < 40, "a restore took {reads} reads");
        assert!(chain <= 1000, "the chain is {chain} commits long");
    });
}
