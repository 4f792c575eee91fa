//! What holds of packs.

use bytes::Bytes;

use super::{Subject, archive};
use crate::store::StoreError;
use sessionkeep_core::record::{ArchiveName, PackId};

/// Packs: put, put again, empty, large, listed, deleted.
pub async fn packs_come_back_as_they_were_put(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("packs"));
    // More than one piece wherever packs are cut, and no round number of them.
    let large: Bytes = (0..(20 << 20) + 17_u32)
        .map(|n| (n ^ (n >> 11)) as u8)
        .collect();
    let contents = [large, Bytes::new(), Bytes::from_static(b"small")];
    let ids = [(); 3].map(|()| PackId::generate());
    for (id, content) in ids.iter().zip(&contents) {
        for _ in 0..2 {
            let put = store.put_pack(&archive, *id, content.clone()).await;
            put.expect("put, and put again");
        }
        let got = store.pack(&archive, *id).await.expect("read");
        assert!(got == content, "pack of {} bytes", content.len());
        let pieces = store.pack_pieces(&archive, *id).await.expect("read");
        assert!(pieces.concat() == content[..], "in {} pieces", pieces.len());
    }
    let mut listed = store.packs(&archive).await.expect("list");
    listed.sort_by_key(|pack| pack.size);
    let sizes: Vec<(PackId, u64)> = listed.iter().map(|pack| (pack.id, pack.size)).collect();
    assert_eq!(
        sizes,
        [(ids[1], 0), (ids[2], 5), (ids[0], contents[0].len() as u64)]
    );
    for _ in 0..2 {
        let deleted = store.delete_pack(&archive, ids[0]).await;
        deleted.expect("deleted, or gone already");
    }
    assert!(matches!(
        store.pack(&archive, ids[0]).await,
        Err(StoreError::Missing { .. })
    ));
    assert!(matches!(
        store.pack_pieces(&archive, ids[0]).await,
        Err(StoreError::Missing { .. })
    ));
    store.warm_up(3).await;
    assert_eq!(store.packs(&archive).await.expect("list").len(), 2);
}

/// A pack that was cut off halfway is invisible, can be put again, and is swept by its age.
pub async fn half_a_pack_is_invisible_and_swept_by_age(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("halves"));
    let content = Bytes::from(vec![7; 5 << 20]);
    let (old, young) = (PackId::generate_at(1_000), PackId::generate_at(9_000));
    let again = PackId::generate_at(1_500);
    let mut pieces = 0;
    for id in [old, young, again] {
        pieces += u64::from(subject.leave_pieces(&archive, id).await);
        assert!(matches!(
            store.pack(&archive, id).await,
            Err(StoreError::Missing { .. })
        ));
    }
    assert_eq!(store.packs(&archive).await.expect("list"), []);
    let put = store.put_pack(&archive, again, content.clone()).await;
    put.expect("put over its own remains");
    assert!(store.pack(&archive, again).await.expect("read") == content);
    // Other tests may leave as old ones, so that only a lower bound is certain.
    let swept = store.sweep(5_000).await.expect("sweep");
    assert!(swept >= u64::from(pieces > 0));
    assert!(store.pack(&archive, again).await.expect("read") == content);
    let put = store.put_pack(&archive, young, content.clone()).await;
    put.expect("put what was too young to be swept");
    assert!(store.pack(&archive, young).await.expect("read") == content);
}

/// What is noted of a pack that nothing refers to stays with it, can be taken back, and goes with it.
pub async fn a_pack_that_is_unused_is_marked_until_it_goes(subject: &dyn Subject) {
    let (store, archive, other) = (subject.store(), archive("unused"), archive("unused"));
    let ids = [(); 3].map(|()| PackId::generate());
    for (name, id) in [(&archive, ids[0]), (&archive, ids[1]), (&other, ids[2])] {
        let put = store.put_pack(name, id, Bytes::from_static(b"pack"));
        put.await.expect("put");
    }
    let marks = async |name: &ArchiveName| -> Vec<(PackId, Option<u64>)> {
        let packs = store.packs(name).await.expect("list");
        let mut marks: Vec<_> = packs.iter().map(|p| (p.id, p.unused_since_ms)).collect();
        marks.sort();
        marks
    };
    let expect = |first, second| {
        let mut marks = vec![(ids[0], first), (ids[1], second)];
        marks.sort();
        marks
    };
    assert_eq!(marks(&archive).await, expect(None, None));
    // Those of another archive, and those that are not there, are passed over.
    let absent = PackId::generate();
    let some = [ids[0], ids[2], absent];
    let marked = store.mark_unused(&archive, &some, Some(1_800_000_000_123));
    marked.await.expect("marked");
    assert_eq!(marks(&archive).await, expect(Some(1_800_000_000_123), None));
    assert_eq!(marks(&other).await, [(ids[2], None)]);
    let again = store.mark_unused(&archive, &ids[..2], Some(1_800_000_000_456));
    again.await.expect("marked again");
    let both = Some(1_800_000_000_456);
    assert_eq!(marks(&archive).await, expect(both, both));
    let back = store.mark_unused(&archive, &ids[..1], None).await;
    back.expect("taken back");
    assert_eq!(marks(&archive).await, expect(None, both));
    // Putting it again changes nothing; one that went and came back is not marked.
    let content = Bytes::from_static(b"pack");
    let put = store.put_pack(&archive, ids[1], content.clone()).await;
    put.expect("put again");
    assert_eq!(marks(&archive).await, expect(None, both));
    let deleted = store.delete_pack(&archive, ids[1]).await;
    deleted.expect("deleted");
    let put = store.put_pack(&archive, ids[1], content).await;
    put.expect("put anew");
    assert_eq!(marks(&archive).await, expect(None, None));
    let none = store.mark_unused(&archive, &[], Some(1)).await;
    none.expect("nothing to mark");
}
