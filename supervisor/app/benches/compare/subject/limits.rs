//! What the machine and the server can do at most: plain writes of the same files, and the same
//! bytes through the same driver in the largest batches that make sense.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, InsertManyOptions, WriteConcern};

use crate::server::{block_on, client};
use crate::workload::files_below;

/// Documents of one `insert_many`, and of one answer of `find`.
const BATCH: usize = 1000;

/// Reads all files of a tree, and says how long that took.
pub(crate) fn read(from: &Path) -> (Vec<(PathBuf, Vec<u8>)>, Duration) {
    let begun = Instant::now();
    let names = files_below(from);
    let read = names
        .into_iter()
        .map(|name| {
            let content = fs::read(from.join(&name)).expect("read");
            (name, content)
        })
        .collect();
    (read, begun.elapsed())
}

/// Creates and writes the files of a tree, by one thread.
pub(crate) fn write(files: &[(PathBuf, Vec<u8>)], to: &Path) -> Duration {
    let begun = Instant::now();
    let mut last = PathBuf::new();
    fs::create_dir_all(to).expect("create");
    for (name, content) in files {
        let parent = name.parent().expect("a file has a parent");
        if parent != last {
            fs::create_dir_all(to.join(parent)).expect("create");
            parent.clone_into(&mut last);
        }
        fs::write(to.join(name), content).expect("write");
    }
    begun.elapsed()
}

/// Reads all files and inserts them, one document each, in batches; majority, journaled.
pub(crate) fn insert_many(url: &str, from: &Path) -> Duration {
    block_on(async {
        let client = client(url).await;
        let collection = client
            .default_database()
            .expect("the URL names a database")
            .collection::<Document>("files");
        let begun = Instant::now();
        let options = InsertManyOptions::builder()
            .write_concern(
                WriteConcern::builder()
                    .w(Acknowledgment::Majority)
                    .journal(true)
                    .build(),
            )
            .ordered(false)
            .build();
        for names in files_below(from).chunks(BATCH) {
            let documents: Vec<Document> = names
                .iter()
                .map(|name| {
                    let bytes = fs::read(from.join(name)).expect("read");
                    let subtype = BinarySubtype::Generic;
                    doc! { "_id": name.to_str().expect("text"), "data": Binary { subtype, bytes } }
                })
                .collect();
            collection
                .insert_many(documents)
                .with_options(options.clone())
                .await
                .expect("insert");
        }
        begun.elapsed()
    })
}

/// Reads all documents of [`insert_many`] and writes them as files.
pub(crate) fn find(url: &str, to: &Path) -> Duration {
    block_on(async {
        let client = client(url).await;
        let collection = client
            .default_database()
            .expect("the URL names a database")
            .collection::<RawDocumentBuf>("files");
        let begun = Instant::now();
        let mut last = PathBuf::new();
        let mut found = collection
            .find(doc! {})
            .batch_size(BATCH as u32)
            .await
            .expect("find");
        while found.advance().await.expect("read") {
            let document = found.current();
            let name = Path::new(document.get_str("_id").expect("a name"));
            let data = document.get_binary("data").expect("data");
            let parent = name.parent().expect("a file has a parent");
            if parent != last {
                fs::create_dir_all(to.join(parent)).expect("create");
                parent.clone_into(&mut last);
            }
            fs::write(to.join(name), data.bytes).expect("write");
        }
        begun.elapsed()
    })
}
