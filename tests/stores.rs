//! The stores: one contract for all three, then what goes wrong with each.

use sessionkeep_archive::store::Packs;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mongodb::bson::{Document, doc};
use sessionkeep_archive::store::contract::{self, Subject};
use sessionkeep_archive::store::{MemoryStore, Store};
use sessionkeep_core::record::{ArchiveName, PackId, Seq};
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::{MongoStore, SqliteStore};

use mongod::Mongod;

#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/proxy.rs"]
mod proxy;

#[path = "stores/memory.rs"]
mod memory;
#[path = "stores/mongo.rs"]
mod mongo;
#[path = "stores/mongo_faults.rs"]
mod mongo_faults;
#[path = "stores/sqlite.rs"]
mod sqlite;
#[path = "stores/types.rs"]
mod types;

/// Generous: it bounds what a busy machine may take, and nothing waits for it.
const TIMEOUT: Duration = Duration::from_secs(20);

struct InMemory(MemoryStore);

#[async_trait]
impl Subject for InMemory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    async fn let_pass(&self, span: Duration) {
        self.0.advance(span);
    }

    async fn set_clock(&self, _: &ArchiveName, by_ms: i64) {
        self.0.set_clock(by_ms);
    }

    async fn forget_term(&self, _: &ArchiveName) -> bool {
        false
    }

    async fn damage(&self, archive: &ArchiveName, seq: Seq) {
        assert!(self.0.damage_record(archive, seq));
    }

    async fn damage_lease(&self, _: &ArchiveName) -> bool {
        false
    }

    async fn leave_pieces(&self, _: &ArchiveName, id: PackId) -> bool {
        self.0.put_pieces(id, Bytes::from_static(b"half"));
        true
    }
}

struct InSqlite {
    directory: tempfile::TempDir,
    store: SqliteStore,
}

#[async_trait]
impl Subject for InSqlite {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn let_pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn set_clock(&self, archive: &ArchiveName, by_ms: i64) {
        // To a lease it is the same whether the clock goes or its times come.
        let db = rusqlite::Connection::open(self.directory.path().join("store.db")).expect("open");
        let back = (archive.as_str(), -by_ms);
        for sql in [
            "UPDATE leases SET since_ms = since_ms + ?2, \
             expires_ms = iif(expires_ms = 0, 0, expires_ms + ?2) WHERE archive = ?1",
            "UPDATE lease_terms SET written_ms = written_ms + ?2 WHERE archive = ?1",
            "UPDATE lease_queues SET places = (SELECT json_group_array(json_set(value, \
             '$.since_ms', value ->> 'since_ms' + ?2, '$.seen_ms', value ->> 'seen_ms' + ?2)) \
             FROM json_each(places)) WHERE archive = ?1",
        ] {
            db.execute(sql, back).expect("shift its times");
        }
    }

    async fn forget_term(&self, archive: &ArchiveName) -> bool {
        let db = rusqlite::Connection::open(self.directory.path().join("store.db")).expect("open");
        let sql = "DELETE FROM lease_terms WHERE archive = ?1";
        assert_eq!(db.execute(sql, [archive.as_str()]).expect("forget"), 1);
        true
    }

    async fn damage(&self, archive: &ArchiveName, seq: Seq) {
        let db = rusqlite::Connection::open(self.directory.path().join("store.db")).expect("open");
        let changed = db
            .execute(
                "UPDATE commits SET header = substr(header, 9) WHERE archive = ?1 AND seq = ?2",
                rusqlite::params![archive.as_str(), i64::try_from(seq).expect("small")],
            )
            .expect("damage");
        assert_eq!(changed, 1);
    }

    async fn damage_lease(&self, archive: &ArchiveName) -> bool {
        let db = rusqlite::Connection::open(self.directory.path().join("store.db")).expect("open");
        let sql = "UPDATE leases SET instance = 'no name / at all' WHERE archive = ?1";
        assert_eq!(db.execute(sql, [archive.as_str()]).expect("damage"), 1);
        true
    }

    async fn leave_pieces(&self, _: &ArchiveName, _: PackId) -> bool {
        false
    }
}

struct InMongo {
    url: String,
    store: MongoStore,
}

impl InMongo {
    async fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        let client = mongodb::Client::with_uri_str(&self.url).await;
        let database = client.expect("a valid URL").default_database();
        database.expect("the URL names one").collection(name)
    }
}

#[async_trait]
impl Subject for InMongo {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn let_pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn set_clock(&self, archive: &ArchiveName, by_ms: i64) {
        // To a lease it is the same whether the clock goes or its times come.
        let moved = |path: &str| doc! { "$subtract": [path, by_ms] };
        let released = doc! { "$eq": ["$expires", mongodb::bson::DateTime::from_millis(0)] };
        let place = doc! { "$mergeObjects": [
            "$$this",
            { "since": moved("$$this.since"), "seen": moved("$$this.seen") },
        ] };
        let update = doc! { "$set": {
            "since": moved("$since"),
            "expires": { "$cond": [released, "$expires", moved("$expires")] },
            "now": moved("$now"),
            "waiting": { "$map": { "input": "$waiting", "in": place } },
        } };
        let leases = self.collection("leases").await;
        let own = doc! { "_id": archive.as_str() };
        let changed = leases.update_one(own, vec![update]).await;
        assert_eq!(changed.expect("shift its times").modified_count, 1);
    }

    async fn forget_term(&self, archive: &ArchiveName) -> bool {
        let leases = self.collection("leases").await;
        let own = doc! { "_id": archive.as_str() };
        let changed = leases.update_one(own, doc! { "$unset": { "term": "" } });
        assert_eq!(changed.await.expect("forget").modified_count, 1);
        true
    }

    async fn damage(&self, archive: &ArchiveName, seq: Seq) {
        let seq = i64::try_from(seq).expect("small");
        let changed = self
            .collection("commits")
            .await
            .update_one(
                doc! { "_id": { "a": archive.as_str(), "s": seq } },
                doc! { "$set": { "root": "not a digest" } },
            )
            .await
            .expect("damage");
        assert_eq!(changed.modified_count, 1);
    }

    async fn damage_lease(&self, archive: &ArchiveName) -> bool {
        let changed = self
            .collection("leases")
            .await
            .update_one(
                doc! { "_id": archive.as_str() },
                doc! { "$set": { "since": "then" } },
            )
            .await
            .expect("damage");
        assert_eq!(changed.modified_count, 1);
        true
    }

    async fn leave_pieces(&self, archive: &ArchiveName, id: PackId) -> bool {
        // Exactly what is left where the entry, which is written last, was not.
        let content = Bytes::from(vec![1; 5 << 20]);
        self.store
            .put_pack(archive, id, content)
            .await
            .expect("put");
        let files = self.collection("packs.files").await;
        let removed = files.delete_one(doc! { "_id": id.to_string() }).await;
        assert_eq!(removed.expect("remove the entry").deleted_count, 1);
        true
    }
}

fn in_memory() -> InMemory {
    InMemory(MemoryStore::new())
}

async fn in_sqlite() -> InSqlite {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("store.db"), TIMEOUT);
    InSqlite { directory, store }
}

async fn in_mongo() -> InMongo {
    let url = Mongod::shared().new_database_url();
    let store = MongoStore::connect(&Secret::new(&url), TIMEOUT, "tests").expect("a valid URL");
    store.prepare().await.expect("prepare");
    InMongo { url, store }
}

macro_rules! holds_for_every_store {
    ($($sentence:ident)*) => {
        mod every_memory_store { $(
            #[tokio::test]
            async fn $sentence() {
                super::contract::$sentence(&super::in_memory()).await;
            }
        )* }
        mod every_sqlite_store { $(
            #[tokio::test]
            async fn $sentence() {
                super::contract::$sentence(&super::in_sqlite().await).await;
            }
        )* }
        mod every_mongo_store { $(
            #[tokio::test]
            async fn $sentence() {
                super::contract::$sentence(&super::in_mongo().await).await;
            }
        )* }

        /// A sentence that is written and never run would be worse than none.
        #[test]
        fn the_whole_contract_is_run() {
            let run = [$(stringify!($sentence)),*];
            let written = concat!(
                include_str!("../supervisor/archive/src/store/contract/mod.rs"),
                include_str!("../supervisor/archive/src/store/contract/clocks.rs"),
                include_str!("../supervisor/archive/src/store/contract/commits.rs"),
                include_str!("../supervisor/archive/src/store/contract/leases.rs"),
                include_str!("../supervisor/archive/src/store/contract/packs.rs"),
            );
            for line in written.lines() {
                let name = line
                    .strip_prefix("pub async fn ")
                    .and_then(|rest| rest.split('(').next());
                assert!(name.is_none_or(|name| run.contains(&name)), "{name:?} is not run");
            }
        }
    };
}

holds_for_every_store! {
    what_is_appended_comes_back_in_order
    an_unknown_archive_is_empty
    repeating_an_append_is_done_again
    an_append_to_a_taken_number_names_who_took_it
    of_concurrent_appends_exactly_one_is_done
    checkpoints_may_leave_gaps
    an_orphan_is_refused_or_stored_and_never_taken_for_fenced
    records_come_in_portions_of_some_megabytes
    many_small_records_come_back_without_a_hole
    an_unknown_format_is_refused
    a_damaged_record_is_reported_only_where_it_is_first
    deleting_records_passes_over_absent_ones
    a_lease_is_held_until_it_is_released
    a_released_lease_is_not_renewed
    a_lease_that_never_was_is_lost
    the_holder_takes_its_lease_again_at_the_same_epoch
    an_expired_lease_goes_to_the_next_at_a_higher_epoch
    an_epoch_is_above_the_floor_that_the_claim_names
    a_predecessors_lease_is_continued_at_once
    those_who_wait_get_it_in_the_order_in_which_they_came
    who_asks_is_heard_and_goes_first
    a_place_in_the_queue_is_kept_only_for_who_asks_again
    the_queue_is_bounded
    a_broken_lease_is_lost_to_its_holder
    a_lease_that_cannot_be_read_can_be_ended
    a_clock_that_is_set_back_makes_no_lease_longer
    a_holder_renews_across_a_clock_that_is_set_back
    a_place_in_the_future_keeps_nobody_out
    an_expired_lease_is_not_taken_from_who_renews_it
    a_claimants_own_time_shortens_no_lease
    a_notice_wakes_who_waits
    of_concurrent_first_claims_exactly_one_is_granted
    packs_come_back_as_they_were_put
    half_a_pack_is_invisible_and_swept_by_age
    a_pack_that_is_unused_is_marked_until_it_goes
    usage_counts_what_is_stored
    archives_do_not_touch_each_other
    examining_a_healthy_store_finds_nothing_wrong
}
