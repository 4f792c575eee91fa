//! MongoDB as it is set up in the field: logins, few rights, other tools, damage.

use sessionkeep_archive::store::{CommitLog, Diagnostics, Packs};
use std::time::Duration;

use bytes::Bytes;
use futures_util::AsyncReadExt;
use mongodb::bson::{Bson, doc};
use mongodb::options::GridFsBucketOptions;
use sessionkeep_archive::store::contract::{self, Subject, archive, record};
use sessionkeep_archive::store::{Severity, Store, StoreError};
use sessionkeep_core::record::PackId;
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::MongoStore;

use crate::mongod::{Mongod, Rights, User};
use crate::{InMongo, TIMEOUT, in_mongo};

fn connect(url: &str) -> MongoStore {
    MongoStore::connect(&Secret::new(url), TIMEOUT, "tests").expect("a valid URL")
}

fn login(mongod: &Mongod, user: &User, password: &str) -> String {
    let (name, port, database) = (&user.name, mongod.port(), &user.database);
    format!("mongodb://{name}:{password}@127.0.0.1:{port}/{database}?authSource={database}")
}

fn user(rights: Rights) -> User {
    User {
        name: "keeper".to_owned(),
        password: "canary-right".to_owned(),
        database: "wa".to_owned(),
        rights,
    }
}

/// An error or a store as everything that could print it would.
fn shown(thing: &(impl std::fmt::Debug + ?Sized), error: Option<&StoreError>) -> String {
    let mut words = format!("{thing:?}");
    let mut cause = error.map(|error| error as &dyn std::error::Error);
    while let Some(error) = cause {
        words.push_str(&format!(" {error} {error:?} {error:#?}"));
        cause = error.source();
    }
    words
}

#[tokio::test]
async fn a_user_with_read_write_on_one_database_is_enough() {
    let user = user(Rights::ReadWrite);
    let mongod = Mongod::start_with_login(&user).await;
    let url = login(&mongod, &user, &user.password);
    let store = connect(&url);
    store.prepare().await.expect("it creates its indexes");
    for finding in store.examine().await {
        assert_ne!(finding.severity, Severity::Bad, "{finding:?}");
    }
    let subject = InMongo { url, store };
    contract::packs_come_back_as_they_were_put(&subject).await;
    contract::a_lease_is_held_until_it_is_released(&subject).await;
    contract::a_notice_wakes_who_waits(&subject).await;
    contract::archives_do_not_touch_each_other(&subject).await;

    let wrong = connect(&login(&mongod, &user, "canary-wrong"));
    let error = wrong.head(&archive("a")).await.expect_err("wrong password");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    let words = shown(&wrong, Some(&error)) + &wrong.describe();
    assert!(!words.contains("canary"), "{words}");
    let findings = wrong.examine().await;
    let bad = findings.iter().find(|f| f.severity == Severity::Bad);
    let bad = bad.expect("a finding");
    assert!(bad.remedy.contains("password"), "{bad:?}");
    assert!(!format!("{findings:?}").contains("canary"));
}

#[tokio::test]
async fn the_right_to_create_indexes_is_not_needed_and_neither_are_indexes() {
    let user = user(Rights::DocumentsOnly);
    let mongod = Mongod::start_with_login(&user).await;
    let url = login(&mongod, &user, &user.password);
    let subject = InMongo {
        store: connect(&url),
        url,
    };
    subject.store.prepare().await.expect("goes on without");
    contract::of_concurrent_appends_exactly_one_is_done(&subject).await;
    contract::of_concurrent_first_claims_exactly_one_is_granted(&subject).await;
    // Without the right to make notices, waiting is polling.
    contract::a_notice_wakes_who_waits(&subject).await;
    contract::packs_come_back_as_they_were_put(&subject).await;
    contract::half_a_pack_is_invisible_and_swept_by_age(&subject).await;
    contract::a_pack_that_is_unused_is_marked_until_it_goes(&subject).await;
}

#[tokio::test]
async fn a_missing_right_is_denied_and_named_by_the_examination() {
    let user = user(Rights::Read);
    let mongod = Mongod::start_with_login(&user).await;
    let store = connect(&login(&mongod, &user, &user.password));
    assert_eq!(store.head(&archive("a")).await.expect("may look"), None);
    let error = store.append(&record(&archive("a"), 1, *b"x")).await;
    let error = error.expect_err("may not write");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    let findings = store.examine().await;
    let rights = findings.iter().find(|f| f.subject == "rights");
    let rights = rights.expect("a finding");
    assert_eq!(rights.severity, Severity::Bad);
    assert!(rights.remedy.contains("`wa`"), "{rights:?}");
}

#[tokio::test]
async fn no_word_of_the_credentials_is_ever_shown() {
    let unparsable = "mongodb://me:canary@x/y@127.0.0.1:1/db";
    let error = MongoStore::connect(&Secret::new(unparsable), TIMEOUT, "tests");
    let error = error.expect_err("an unescaped sign");
    assert!(matches!(error, StoreError::Address(_)));
    assert!(!shown("", Some(&error)).contains("canary"));

    let timeout = Duration::from_millis(500);
    let url = "mongodb://canary-user:canary-word@127.0.0.1:1/db";
    let store = MongoStore::connect(&Secret::new(url), timeout, "tests").expect("valid");
    let error = store.head(&archive("a")).await.expect_err("nobody there");
    let words = shown(&store, Some(&error)) + &store.describe();
    assert!(!words.contains("canary"), "{words}");
    assert!(!format!("{:?}", store.examine().await).contains("canary"));
}

#[tokio::test]
async fn a_public_host_without_encryption_or_login_is_a_warning() {
    let timeout = Duration::from_millis(100);
    // Reserved for documentation: nothing answers there.
    let store = MongoStore::connect(&Secret::new("mongodb://192.0.2.1/db"), timeout, "tests");
    let findings = store.expect("valid").examine().await;
    for subject in ["connection encrypted", "login"] {
        let finding = findings.iter().find(|f| f.subject == subject);
        assert_eq!(finding.expect(subject).severity, Severity::Warning);
    }
}

#[tokio::test]
async fn packs_are_readable_through_the_drivers_own_gridfs() {
    let subject = in_mongo().await;
    let (archive, id) = (archive("gridfs"), PackId::generate());
    let content: Bytes = (0..(5 << 20) + 3_u32)
        .map(|n| (n ^ (n >> 9)) as u8)
        .collect();
    let put = subject.store.put_pack(&archive, id, content.clone());
    put.await.expect("put");
    let client = mongodb::Client::with_uri_str(&subject.url).await;
    let database = client.expect("valid").default_database().expect("named");
    let mut options = GridFsBucketOptions::default();
    options.bucket_name = Some("packs".to_owned());
    let bucket = database.gridfs_bucket(options);
    let stream = bucket
        .open_download_stream(Bson::String(id.to_string()))
        .await;
    let mut got = Vec::new();
    let read = stream.expect("open").read_to_end(&mut got).await;
    read.expect("read");
    assert!(got == content);
}

#[tokio::test]
async fn a_pack_with_a_missing_or_short_chunk_is_damaged() {
    let subject = in_mongo().await;
    let archive = archive("chunks");
    let chunks = subject.collection("packs.chunks").await;
    for (n, harm) in [(1, "short"), (2, "missing"), (0, "strange")] {
        let id = PackId::generate();
        let content = Bytes::from(vec![9; 5 << 20]);
        let put = subject.store.put_pack(&archive, id, content).await;
        put.expect("put");
        let chunk = doc! { "files_id": id.to_string(), "n": n };
        if harm == "missing" {
            chunks.delete_one(chunk).await.expect("remove");
        } else {
            let data = if harm == "short" {
                Bson::Binary(mongodb::bson::Binary {
                    subtype: mongodb::bson::spec::BinarySubtype::Generic,
                    bytes: vec![9; 100],
                })
            } else {
                Bson::from("text")
            };
            let set = doc! { "$set": { "data": data } };
            chunks.update_one(chunk, set).await.expect("change");
        }
        let error = subject.store.pack(&archive, id).await.expect_err(harm);
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_pack_copied_by_another_tool_is_found_by_its_place() {
    let subject = in_mongo().await;
    let (archive, id) = (archive("copied"), PackId::generate());
    let content = Bytes::from(vec![5; 3 << 20]);
    let put = subject.store.put_pack(&archive, id, content.clone()).await;
    put.expect("put");
    // Another tool gives chunks keys of its own.
    let chunks = subject.collection("packs.chunks").await;
    let own = doc! { "files_id": id.to_string(), "n": 1 };
    let mut chunk = chunks
        .find_one(own.clone())
        .await
        .expect("find")
        .expect("it");
    chunks.delete_one(own).await.expect("remove");
    chunk.insert("_id", mongodb::bson::oid::ObjectId::new());
    chunks.insert_one(chunk).await.expect("insert");
    let got = subject.store.pack(&archive, id).await.expect("read");
    assert!(got == content);
}

#[tokio::test]
async fn a_lease_of_a_later_version_is_not_taken() {
    let subject = in_mongo().await;
    let archive = archive("lease");
    let leases = subject.collection("leases").await;
    let later = doc! { "_id": archive.as_str(), "format": 2, "holder": "somebody" };
    leases.insert_one(later.clone()).await.expect("insert");
    let claim = sessionkeep_archive::store::LeaseClaim {
        instance: contract::instance("a"),
        predecessor: None,
        floor: 0,
        ttl: Duration::from_secs(15),
        lapsed: None,
        otherwise: sessionkeep_archive::store::Otherwise::Wait,
    };
    let error = subject.store().take_lease(&archive, &claim).await;
    let error = error.expect_err("not ours to judge");
    assert!(
        matches!(error, StoreError::Format { found: 2, .. }),
        "{error:?}"
    );
    let left = leases.find_one(doc! {}).await.expect("find").expect("it");
    assert_eq!(left.get_str("holder").ok(), Some("somebody"));
    assert!(!left.contains_key("instance") || left.get("instance") == Some(&Bson::Null));
    assert!(!left.contains_key("granted"));
}

#[tokio::test]
async fn the_examination_leaves_no_probe_behind() {
    let subject = in_mongo().await;
    let findings = subject.store.examine().await;
    let subjects: Vec<_> = findings.iter().map(|f| f.subject).collect();
    for expected in ["store reachable", "rights", "durable writes", "clocks"] {
        assert!(subjects.contains(&expected), "{expected}: {subjects:?}");
    }
    for name in ["commits", "leases", "packs.files", "packs.chunks"] {
        let left = subject
            .collection(name)
            .await
            .count_documents(doc! {})
            .await;
        assert_eq!(left.expect("count"), 0, "{name}");
    }
}

/// What the server did since it was started, by kind of request.
async fn requests(subject: &InMongo) -> (i64, i64) {
    let client = mongodb::Client::with_uri_str(&subject.url).await;
    let database = client.expect("a valid URL").database("admin");
    let status = database.run_command(doc! { "serverStatus": 1 }).await;
    let status = status.expect("answers");
    let counted = status.get_document("opcounters").expect("counters");
    let count = |kind| Bson::as_i64(counted.get(kind).expect(kind)).expect("a number");
    (count("query"), count("insert"))
}

#[tokio::test]
async fn a_pack_is_read_by_two_requests_and_written_without_any_question() {
    // Its own server, since what it counts is everybody's.
    let mongod = Mongod::start();
    let url = mongod.new_database_url();
    let store = connect(&url);
    store.prepare().await.expect("prepare");
    let subject = InMongo { url, store };
    let (archive, id) = (archive("counted"), PackId::generate());
    let content = Bytes::from(vec![6; 2 << 20]);

    let before = requests(&subject).await;
    let put = subject.store.put_pack(&archive, id, content.clone()).await;
    put.expect("put");
    let put = requests(&subject).await;
    assert_eq!(put.0 - before.0, 0, "questions before a pack is stored");
    assert_eq!(put.1 - before.1, 4 + 1, "chunks and an entry");

    let got = subject.store.pack(&archive, id).await.expect("read");
    assert!(got == content);
    let read = requests(&subject).await;
    assert_eq!(read.0 - put.0, 2, "the entry, and all chunks in one");

    // Put again, as after a lost answer: nothing is written that is there.
    let again = subject.store.put_pack(&archive, id, content).await;
    again.expect("put again");
    let whole = subject.store.packs(&archive).await.expect("list");
    assert_eq!(whole.len(), 1);
}

#[tokio::test]
async fn a_pack_of_another_archive_is_not_taken_for_ones_own() {
    let subject = in_mongo().await;
    let (ours, theirs) = (archive("ours"), archive("theirs"));
    let id = PackId::generate();
    let content = Bytes::from(vec![8; 1 << 20]);
    let put = subject.store.put_pack(&theirs, id, content.clone()).await;
    put.expect("put");
    let error = subject.store.put_pack(&ours, id, content.clone()).await;
    let error = error.expect_err("the id is taken");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    let error = subject.store.pack(&ours, id).await.expect_err("not ours");
    assert!(matches!(error, StoreError::Missing { .. }), "{error:?}");
    assert!(subject.store.pack(&theirs, id).await.expect("read") == content);
}
