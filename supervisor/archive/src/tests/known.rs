//! What a writer knows of its own chain, against what the store holds of it.

use proptest::prelude::*;

use super::*;
use crate::store::Faults;
use crate::{Aside, Links};
use sessionkeep_core::record::RecordKind;

/// Both ways to the head's version, in a form that can be compared.
async fn both_ways(keeper: &Keeper) -> [Vec<String>; 2] {
    let head = keeper.writer.head().expect("there is one").clone();
    let store = &*keeper.store;
    let recent = keeper.writer.recent();
    let known = Version::load_knowing(store, head.clone(), recent).await;
    let read = Version::load(store, head).await;
    [known, read].map(|version| {
        let version = version.expect("the chain is whole");
        let show = |(path, leaf): (RelPath, &Leaf<Vec<super::super::format::Extent>>)| {
            let places = leaf.extra.iter();
            let places: Vec<_> = places
                .map(|e| (version.sources[e.source as usize], e.frame, e.at, e.len))
                .collect();
            format!("{path}: {:?} {:?} {places:?}", leaf.meta, leaf.kind)
        };
        let aside = format!("{:?}", version.aside);
        version.tree.iter().map(show).chain([aside]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_known_of_a_chain_is_what_is_read_of_it(
        steps in prop::collection::vec((0u8..10, 0usize..5, 0usize..3000), 1..25),
    ) {
        block_on(async {
            let mut keeper = Keeper::new().await;
            keeper.commit(&[("f0", Some(b"first".to_vec()))]).await;
            let mut known_aside = Aside::default();
            for (n, (what, file, size)) in steps.into_iter().enumerate() {
                let name = format!("f{file}");
                match what {
                    6 => {
                        keeper.aside.own = Some(meta(n as i64));
                        known_aside.update(&keeper.aside);
                        drop(keeper.commit(&[]).await);
                    }
                    7 => {
                        keeper.aside.own = Some(meta(-(n as i64)));
                        known_aside.update(&keeper.aside);
                        drop(keeper.commit(&[(&name, Some(noise(n as u64, 300 * size)))]).await);
                    }
                    8 | 9 => {
                        let names = [(1, path("kept")), (1, path(&name)), (2, path("f0"))];
                        keeper.aside.links = Some(Links::of(names.into_iter().take(size % 3)));
                        known_aside.update(&keeper.aside);
                        let content = (what == 8).then(|| noise(n as u64, size));
                        drop(keeper.commit(&[(&name, content)]).await);
                    }
                    0 => drop(keeper.checkpoint().await),
                    1 => drop(done(keeper.writer.barrier(&*keeper.store).await)),
                    2 => drop(keeper.commit(&[(&name, None), ("kept", Some(noise(n as u64, 9)))]).await),
                    _ => drop(keeper.commit(&[(&name, Some(noise(n as u64, size)))]).await),
                }
                let [known, read] = both_ways(&keeper).await;
                assert_eq!(known, read);
                assert_eq!(known.last(), Some(&format!("{known_aside:?}")));
            }
            assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
        });
    }
}

#[test]
fn of_a_long_chain_the_older_part_is_read_again() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        keeper.commit(&[("first", Some(b"x".to_vec()))]).await;
        let first = keeper.writer.head().expect("one").seq;
        // Names that do not compress, so that listings are long.
        let mut n = 0;
        while keeper
            .writer
            .recent()
            .first()
            .is_none_or(|kept| kept.seq == first + 1)
        {
            n += 1;
            let name = hex::encode(noise(n, 30));
            let names: Vec<String> = (0..50)
                .map(|i| format!("{name}-{}", hex::encode(noise(n * 100 + i, 60))))
                .collect();
            let changes: Vec<_> = names
                .iter()
                .map(|name| (&name[..], Some(vec![1])))
                .collect();
            keeper.commit(&changes).await;
            assert!(n < 1000, "nothing is ever let go of");
        }
        let [known, read] = both_ways(&keeper).await;
        assert_eq!(known, read);
        assert_eq!(keeper.checkpoint().await.kind, RecordKind::Checkpoint);
        assert!(keeper.writer.recent().first().is_none());
        assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_known_once() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        keeper.commit(&[("a", Some(b"1".to_vec()))]).await;
        keeper.memory.set_faults(Faults::AnswerLost);
        assert!(keeper.writer.barrier(&*keeper.store).await.is_err());
        keeper.memory.set_faults(Faults::None);
        let settled = keeper.writer.settle(&*keeper.store).await.expect("answers");
        assert!(matches!(settled, Some(Outcome::Done(_))));
        let [known, read] = both_ways(&keeper).await;
        assert_eq!(known, read);
        assert_eq!(keeper.writer.recent().iter().count(), 1);
    });
}
