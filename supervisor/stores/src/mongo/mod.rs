//! Archives in MongoDB: standalone, replica set or sharded, also Atlas.
//!
//! | collection | `_id` | holds |
//! |---|---|---|
//! | `commits` | `{a: archive, s: seq}` | one document a record |
//! | `leases` | archive | one document an archive |
//! | `bells` | – | a few bytes whenever somebody waiting is to look at a lease at once |
//! | `packs.files`, `packs.chunks` | pack id; derived from it | packs, by the GridFS specification |
//!
//! Every uniqueness that the product's safety rests on is that of an `_id`, which MongoDB keeps
//! without being asked. So the fence holds for a user who may not create indexes, on a database
//! that somebody restored without them, and without transactions, on a standalone server.
//!
//! Everything is written with the write concern `majority`, journaled, and read from the primary
//! with the read concern `majority`: what was seen once is never undone by a failover.

pub mod commits;
mod errors;
mod examine;
mod leaks;
pub mod lease;
mod lease_update;
mod notices;
mod old_packs;
pub mod options;
pub mod packs;
mod set_name;
mod url;

use std::fmt;
use std::future::{Future, IntoFuture as _};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadConcern, ReadPreference,
    SelectionCriteria, ServerMonitoringMode, WriteConcern,
};
use mongodb::{Client, Collection, Database};
use tokio::sync::{OnceCell, Semaphore};

use self::errors::{Fault, Translator};
use sessionkeep_archive::store::{
    Appended, Broken, CommitLog, Diagnostics, Finding, Leak, LeaksWhen, Lease, LeaseClaim,
    LeaseOutcome, Leases, PackInfo, Packs, Renewal, Result, Store, StoreError, Usage,
};
use sessionkeep_core::record::{ArchiveName, Header, InstanceId, PackId, Record, Seq};
use sessionkeep_core::secret::Secret;

/// The database used where the URL names none.
pub const DEFAULT_DATABASE: &str = "sessionkeep";

/// How long the driver looks for a server before it says that there is none. Below the deadline
/// of an operation, so that the caller gets the driver's reason and not just silence.
const SELECTION: Duration = Duration::from_secs(3);
/// How often an idle client asks its servers how they are. An operation that finds its server
/// gone asks at once, so this bounds no recovery; it costs a packet each way.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Two connections serve the watcher: one for what it asks, and one that follows notices. More are
/// opened only for what overlaps: packs that are being read or written, and a lease renewed meanwhile.
const POOL: u32 = 7;
/// Of those, how many are for megabytes; the others stay free for what must not wait for them.
const BULK: u32 = 4;

/// A store in MongoDB.
pub struct MongoStore {
    target: ConnectionString,
    app_name: String,
    database: String,
    described: String,
    timeout: Duration,
    translator: Translator,
    /// Made at the first use, since looking up a `mongodb+srv` name takes the network, and a
    /// network that is not there yet is a reason to try again, not a wrong setting.
    client: OnceCell<Client>,
    /// A permit for each request that carries megabytes.
    bulk: Semaphore,
    notices: notices::Notices,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoStore({})", self.described)
    }
}

impl MongoStore {
    /// Prepares to use the database that `url` names. Nothing is sent before the first operation.
    /// `app_name` is what the server's log calls this client.
    ///
    /// # Errors
    /// [`StoreError::Address`] where the URL cannot be used.
    pub fn connect(url: &Secret, timeout: Duration, app_name: &str) -> Result<Self> {
        let target = url::parse(url.expose())?;
        let database = target
            .default_database
            .clone()
            .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        let described = format!("MongoDB at {}, database {database}", url::hosts(&target));
        let translator = Translator::new(url.expose(), &target);
        Ok(Self {
            target,
            app_name: app_name.to_owned(),
            database,
            described,
            timeout,
            translator,
            client: OnceCell::new(),
            bulk: Semaphore::new(BULK as usize),
            notices: notices::Notices::default(),
        })
    }

    async fn client(&self) -> Result<&Client, Fault> {
        self.client
            .get_or_try_init(|| async {
                let mut options = ClientOptions::parse(self.target.clone()).await?;
                options.app_name.get_or_insert(self.app_name.clone());
                options.server_selection_timeout = Some(SELECTION.min(self.timeout * 9 / 10));
                options.connect_timeout = Some(SELECTION.min(self.timeout));
                options.heartbeat_freq = Some(HEARTBEAT);
                // Streaming holds one more connection to each server, to learn of a change
                // sooner than anybody here would act upon it.
                options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
                options.max_pool_size = Some(POOL);
                // What is asked for together shall not wait for connections one after the other.
                options.max_connecting = Some(POOL);
                options.min_pool_size = None;
                options.max_idle_time = Some(Duration::from_secs(60));
                options.selection_criteria =
                    Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
                options.read_concern = Some(ReadConcern::majority());
                options.write_concern = Some(self.write_concern());
                Ok(Client::with_options(options)?)
            })
            .await
    }

    /// Acknowledged by a majority, each with the write in its journal. The server gives up
    /// waiting when we do; the write itself then stands, and the caller asks again.
    fn write_concern(&self) -> WriteConcern {
        let mut concern = WriteConcern::default();
        concern.w = Some(Acknowledgment::Majority);
        concern.journal = Some(true);
        concern.w_timeout = Some(self.timeout);
        concern
    }

    async fn database(&self) -> Result<Database, Fault> {
        Ok(self.client().await?.database(&self.database))
    }

    async fn collection(&self, name: &str) -> Result<Collection<Document>, Fault> {
        Ok(self.database().await?.collection(name))
    }

    /// A collection whose documents are read without being decoded into maps first.
    async fn raw(&self, name: &str) -> Result<Collection<RawDocumentBuf>, Fault> {
        Ok(self.database().await?.collection(name))
    }

    /// Runs `work` under the operation's deadline and translates what goes wrong.
    async fn within<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => {
                let more = self.whose_set(&fault).await;
                Err(self.translator.tell_with(action, fault, more))
            }
            Err(_) => Err(errors::silent(action, self.timeout)),
        }
    }
}

impl MongoStore {
    /// Runs work that moves megabytes, at most [`BULK`] at a time, under the operation's deadline.
    async fn bulk<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T> {
        let _one = self.bulk.acquire().await.expect("it is never closed");
        self.within(action, work).await
    }
}

#[async_trait]
impl CommitLog for MongoStore {
    async fn append(&self, record: &Record) -> Result<Appended> {
        self.append_record(record).await
    }

    async fn head(&self, archive: &ArchiveName) -> Result<Option<Header>> {
        Ok(self
            .read_headers(archive, 0, Seq::MAX, 1)
            .await?
            .into_iter()
            .next())
    }

    async fn last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>> {
        self.read_last_seq(archive).await
    }

    async fn numbers(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Seq>> {
        self.read_numbers(archive, from, to).await
    }

    async fn headers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Header>> {
        self.read_headers(archive, from, to, limit).await
    }

    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>> {
        self.read_records(archive, from, to).await
    }

    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64> {
        self.remove_records(archive, seqs).await
    }

    async fn archives(&self) -> Result<Vec<ArchiveName>> {
        self.list_archives().await
    }
}

#[async_trait]
impl Packs for MongoStore {
    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()> {
        self.write_pack(archive, id, &content).await
    }

    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        self.read_pack(archive, id).await
    }

    async fn pack_pieces(&self, archive: &ArchiveName, id: PackId) -> Result<Vec<Bytes>> {
        self.read_pieces(archive, id).await
    }

    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        self.list_packs(archive).await
    }

    async fn lacking(&self, archive: &ArchiveName, packs: &[PackId]) -> Result<Vec<PackId>> {
        self.lacking_packs(archive, packs).await
    }

    async fn mark_unused(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()> {
        self.mark_unused_packs(archive, packs, since_ms).await
    }

    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()> {
        self.remove_pack(archive, id).await
    }

    async fn sweep(&self, before_ms: u64) -> Result<u64> {
        self.sweep_pieces(before_ms).await
    }
}

#[async_trait]
impl Leases for MongoStore {
    async fn take_lease(&self, archive: &ArchiveName, claim: &LeaseClaim) -> Result<LeaseOutcome> {
        self.claim_lease(archive, claim).await
    }

    async fn renew_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
    ) -> Result<Renewal> {
        self.prolong_lease(archive, instance, epoch, ttl).await
    }

    async fn release_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
    ) -> Result<()> {
        self.free_lease(archive, instance, epoch).await
    }

    async fn break_lease(&self, archive: &ArchiveName) -> Result<Broken> {
        self.end_lease(archive).await
    }

    async fn notify(&self, archive: &ArchiveName) -> Result<()> {
        self.insert_notice(archive).await
    }

    async fn wait_for_notice(&self, archive: &ArchiveName, at_most: Duration) -> Result<()> {
        self.await_notice(archive, at_most).await
    }

    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        self.read_lease(archive).await
    }

    async fn now_ms(&self) -> Result<u64> {
        self.within("tell the time", async {
            let hello = self.hello().await?;
            let now = hello
                .get_datetime("localTime")
                .map_err(|_| StoreError::Damaged {
                    what: "the server's greeting".to_owned(),
                    why: "it has no `localTime`".to_owned(),
                })?;
            Ok(now.timestamp_millis().unsigned_abs())
        })
        .await
    }
}

#[async_trait]
impl Diagnostics for MongoStore {
    fn describe(&self) -> String {
        self.described.clone()
    }

    async fn ping(&self) -> Result<()> {
        self.within("answer a ping", async {
            self.database()
                .await?
                .run_command(doc! { "ping": 1 })
                .await?;
            Ok(())
        })
        .await
    }

    async fn usage(&self, archive: &ArchiveName) -> Result<Usage> {
        self.measure(archive).await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.examine_all().await
    }

    async fn leaks(&self) -> Result<Vec<Leak>> {
        self.find_leaks().await
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn warm_up(&self, requests: usize) {
        let Ok(database) = self.database().await else {
            return;
        };
        // Asked for at once, each takes a connection of its own. They go on by themselves: whoever
        // stopped polling them half-way would keep the connections from everybody.
        for _ in 0..requests.min(POOL as usize) {
            let (database, timeout) = (database.clone(), self.timeout);
            tokio::spawn(async move {
                let ping = database.run_command(doc! { "ping": 1 });
                // Who needs the connection meets the error, and tells it.
                let _ = tokio::time::timeout(timeout, ping.into_future()).await;
            });
        }
    }

    async fn prepare(&self) -> Result<()> {
        let (indexes, leaks) = join(self.create_indexes(), self.find_leaks()).await;
        indexes?;
        for leak in leaks? {
            match leak.when {
                LeaksWhen::Written => {
                    let Leak { detail, remedy, .. } = leak;
                    return Err(StoreError::Leaks {
                        what: detail,
                        remedy,
                    });
                }
                LeaksWhen::Old => {
                    tracing::error!(target: "store", what = leak.detail, remedy = leak.remedy, "the store is set up to lose what is saved in it");
                }
            }
        }
        Ok(())
    }

    async fn close(&self) {
        if let Some(client) = self.client.get() {
            // Without `immediate` it would wait for every open cursor to be closed.
            let ending = client.clone().shutdown().immediate(true);
            let _ = tokio::time::timeout(Duration::from_secs(1), ending).await;
        }
    }
}
