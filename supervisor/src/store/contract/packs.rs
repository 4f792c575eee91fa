//! What holds of packs.

use bytes::Bytes;

use super::{Subject, archive};
use crate::store::{PackId, StoreError};

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
