//! Which replica set the servers really belong to, where it is not the one that the URL names.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use mongodb::options::{ClientOptions, ServerAddress};

use super::MongoStore;
use super::errors::Fault;

/// How long each server is asked. It has just answered the driver, which let go of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many of them are asked.
const SERVERS: usize = 3;

impl MongoStore {
    /// What the servers say where `fault` is that none belongs to the set of the URL; `None` for every
    /// other fault, and where no server answers.
    pub(super) async fn whose_set(&self, fault: &Fault) -> Option<String> {
        let Fault::Driver(error) = fault else {
            return None;
        };
        if !self.translator.is_of_another_set(error) {
            return None;
        }
        let options = ClientOptions::parse(self.target.clone()).await.ok()?;
        let mut told = Vec::new();
        for host in options.hosts.iter().take(SERVERS) {
            let asked = set_of(options.clone(), host);
            if let Ok(Ok(set)) = tokio::time::timeout(PATIENCE, asked).await {
                told.push(match set {
                    Some(set) => format!("{host} belongs to `{set}`"),
                    None => format!("{host} belongs to none"),
                });
            }
        }
        (!told.is_empty()).then(|| told.join(", "))
    }
}

async fn set_of(
    mut options: ClientOptions,
    host: &ServerAddress,
) -> mongodb::error::Result<Option<String>> {
    options.hosts = vec![host.clone()];
    options.repl_set_name = None;
    options.direct_connection = Some(true);
    options.server_selection_timeout = Some(PATIENCE);
    let client = Client::with_options(options)?;
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await;
    client.shutdown().immediate(true).await;
    Ok(hello?.get_str("setName").ok().map(ToOwned::to_owned))
}
