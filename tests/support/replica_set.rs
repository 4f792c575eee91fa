//! A replica set of three real mongods: elections, and writes that were never replicated.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use super::keeper::{send, wait_until};
use super::mongod::Mongod;

const NAME: &str = "sktest";

/// Three members. Dropping it ends them.
pub(crate) struct ReplicaSet {
    members: Vec<Mongod>,
    runtime: tokio::runtime::Runtime,
}

impl ReplicaSet {
    /// Starts it, and waits until it has a primary.
    pub(crate) fn start() -> Self {
        let members: Vec<Mongod> = (0..3).map(|_| Mongod::start_member(NAME)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let set = Self { members, runtime };
        let hosts: Vec<Document> = (0i32..)
            .zip(&set.members)
            .map(|(n, member)| doc! { "_id": n, "host": host(member) })
            .collect();
        // Elections that take as little time as they can: nobody is far away.
        let settings = doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 };
        let config = doc! { "_id": NAME, "members": hosts, "settings": settings };
        set.ask(0, doc! { "replSetInitiate": config })
            .expect("initiate the set");
        wait_until("the set has a primary", || set.primary().is_some());
        set
    }

    /// Its URL for a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let hosts: Vec<String> = self.members.iter().map(host).collect();
        format!("mongodb://{}/{database}?replicaSet={NAME}", hosts.join(","))
    }

    /// The member that says that it is the primary, and that a majority follows.
    pub(crate) fn primary(&self) -> Option<usize> {
        (0..self.members.len()).find(|n| {
            let said = self.ask(*n, doc! { "hello": 1 });
            said.is_some_and(|said| said.get_bool("isWritablePrimary").unwrap_or(false))
        })
    }

    /// How many members are in order, as the primary sees it.
    pub(crate) fn members_up(&self, primary: usize) -> usize {
        let Some(status) = self.ask(primary, doc! { "replSetGetStatus": 1 }) else {
            return 0;
        };
        let members = status.get_array("members").cloned().unwrap_or_default();
        members
            .iter()
            .filter_map(|member| member.as_document()?.get_str("stateStr").ok())
            .filter(|state| matches!(*state, "PRIMARY" | "SECONDARY"))
            .count()
    }

    /// A member.
    pub(crate) fn member(&self, n: usize) -> &Mongod {
        &self.members[n]
    }

    /// Has members stand still, or go on.
    pub(crate) fn signal(&self, members: &[usize], signal: i32) {
        for n in members {
            if let Some(pid) = self.members[*n].pid() {
                send(pid, signal);
            }
        }
    }

    /// All members but this one.
    pub(crate) fn others(&self, than: usize) -> Vec<usize> {
        (0..self.members.len()).filter(|n| *n != than).collect()
    }

    /// Runs an administrator's command on one member; `None` where that does not answer, or refuses.
    pub(crate) fn ask(&self, n: usize, command: Document) -> Option<Document> {
        self.runtime.block_on(async {
            let url = format!(
                "mongodb://{}/?directConnection=true",
                host(&self.members[n])
            );
            let mut options = ClientOptions::parse(url).await.expect("a valid URL");
            options.server_selection_timeout = Some(Duration::from_secs(2));
            options.connect_timeout = Some(Duration::from_secs(2));
            let client = Client::with_options(options).expect("valid options");
            let database = client.database("admin");
            let work = database.run_command(command);
            let work = async { work.await };
            let answer = tokio::time::timeout(Duration::from_secs(5), work).await;
            client.shutdown().immediate(true).await;
            answer.ok()?.ok()
        })
    }
}

fn host(member: &Mongod) -> String {
    format!("127.0.0.1:{}", member.port())
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        // What stands still cannot be killed in order.
        self.signal(&[0, 1, 2], libc::SIGCONT);
    }
}
