//! A fixture of format version 1 that every later version must restore.
//!
//! `tests/fixtures/archive-v1.json` holds the records and packs of an archive as the first version
//! wrote them. `SESSIONKEEP_WRITE_GOLDEN=1` writes it anew, which is only right when the format's
//! number goes up; the old fixture then stays beside the new one.

use crate::store::{CommitLog, Packs};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::*;
use sessionkeep_core::record::{PackId, Record};

#[derive(Serialize, Deserialize)]
struct Fixture {
    /// What a restore of the newest commit gives: path and BLAKE3 of the content.
    files: BTreeMap<String, Digest>,
    records: Vec<(Header, String)>,
    packs: Vec<(PackId, String)>,
}

fn fixture_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/archive-v1.json")
}

async fn write() -> Fixture {
    let mut keeper = Keeper::new().await;
    keeper
        .commit(&[
            ("creds.json", Some(b"{\"noiseKey\":1}".to_vec())),
            ("big.bin", Some(noise(3, 300_000))),
            ("empty", Some(vec![])),
        ])
        .await;
    keeper
        .commit(&[
            ("session-1.json", Some(b"{\"n\":1}".to_vec())),
            ("empty", None),
        ])
        .await;
    keeper.checkpoint().await;
    keeper
        .commit(&[("session-1.json", Some(b"{\"n\":2}".to_vec()))])
        .await;
    let records = keeper
        .store
        .records(&archive(), 1, 100)
        .await
        .expect("answers");
    let mut packs = Vec::new();
    for pack in keeper.store.packs(&archive()).await.expect("answers") {
        let content = keeper
            .store
            .pack(&archive(), pack.id)
            .await
            .expect("is there");
        packs.push((pack.id, hex::encode(content)));
    }
    Fixture {
        files: keeper
            .files
            .iter()
            .map(|(path, content)| (path.to_string(), Digest::of(content)))
            .collect(),
        records: records
            .into_iter()
            .map(|r| (r.header, hex::encode(r.body)))
            .collect(),
        packs,
    }
}

#[test]
fn what_the_first_version_wrote_is_restored() {
    block_on(async {
        if std::env::var_os("SESSIONKEEP_WRITE_GOLDEN").is_some() {
            let text = serde_json::to_string_pretty(&write().await).expect("encodes");
            std::fs::write(fixture_path(), text + "\n").expect("writes");
        }
        let text =
            std::fs::read_to_string(fixture_path()).expect("the fixture is part of the repository");
        let fixture: Fixture = serde_json::from_str(&text).expect("decodes");
        let store = MemoryStore::new();
        for (header, body) in fixture.records {
            let record = Record {
                header,
                body: hex::decode(body).expect("hex"),
            };
            let _ = store.append(&record).await.expect("appends");
        }
        for (id, content) in fixture.packs {
            let content = hex::decode(content).expect("hex").into();
            store.put_pack(&archive(), id, content).await.expect("puts");
        }
        let head = store
            .head(&archive())
            .await
            .expect("answers")
            .expect("is there");
        let version = Version::load(&store, head.clone()).await.expect("is whole");
        assert_eq!(
            version.aside,
            Default::default(),
            "the first version did not know of it"
        );
        let files = restored(&store, head)
            .await
            .expect("an old format is restored for ever");
        let hashes: BTreeMap<_, _> = files
            .iter()
            .map(|(path, content)| (path.to_string(), Digest::of(content)))
            .collect();
        assert_eq!(hashes, fixture.files);
    });
}
