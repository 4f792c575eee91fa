//! Collections of ours that were set up to lose documents: capped ones drop their oldest, and an index
//! with a time to live deletes what is older than that.

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use mongodb::bson::{Bson, Document, doc};

use super::MongoStore;
use super::commits::COMMITS;
use super::errors::{Fault, is_denied};
use super::lease::LEASES;
use super::packs::{CHUNKS, FILES};
use sessionkeep_archive::store::{Leak, LeaksWhen, Result};

fn leak(when: LeaksWhen, detail: String, remedy: String) -> Leak {
    Leak {
        when,
        detail,
        remedy,
    }
}

/// The options of a collection, as far as they make it lose documents.
fn leak_of_options(name: &str, options: &Document) -> Option<Leak> {
    let is_set = |field: &str| match options.get(field) {
        Some(Bson::Boolean(is)) => *is,
        Some(Bson::Null) | None => false,
        Some(_) => true,
    };
    if is_set("capped") {
        return Some(leak(
            LeaksWhen::Written,
            format!("`{name}` is capped: it drops its oldest documents, and with them saved state"),
            format!(
                "stop all instances, then in mongosh: `db[\"{name}\"].aggregate([{{$out: \"{name}.copy\"}}])`, drop \
                 `{name}`, and rename the copy to it"
            ),
        ));
    }
    if is_set("expireAfterSeconds") {
        return Some(leak(
            LeaksWhen::Old,
            format!("`{name}` is a collection whose documents expire"),
            format!("copy what is in it into an ordinary collection of the name `{name}`"),
        ));
    }
    None
}

/// An index, as far as it makes its collection lose documents.
fn leak_of_index(name: &str, index: &Document) -> Option<Leak> {
    index.get("expireAfterSeconds")?;
    let index = index.get_str("name").unwrap_or("(without a name)");
    Some(leak(
        LeaksWhen::Old,
        format!("`{name}` has the index `{index}`, which deletes documents by their age"),
        format!("drop it in mongosh: `db[\"{name}\"].dropIndex(\"{index}\")`"),
    ))
}

impl MongoStore {
    /// See [`sessionkeep_archive::store::Diagnostics::leaks`]. A user who may not list them gets no answer, and has none.
    pub(super) async fn find_leaks(&self) -> Result<Vec<Leak>> {
        self.within("tell how its collections are set up", async {
            match self.leaks_of_all().await {
                Err(Fault::Driver(error)) if is_denied(&error) => Ok(Vec::new()),
                other => other,
            }
        })
        .await
    }

    async fn leaks_of_all(&self) -> Result<Vec<Leak>, Fault> {
        let ours = [COMMITS, LEASES, FILES, CHUNKS];
        let database = self.database().await?;
        let command = doc! {
            "listCollections": 1,
            "filter": { "name": { "$in": ours.map(ToOwned::to_owned).to_vec() } },
        };
        let listed: Vec<Document> = database
            .run_cursor_command(command)
            .await?
            .try_collect()
            .await?;
        let mut leaks = Vec::new();
        let mut names = Vec::new();
        for collection in &listed {
            let Ok(name) = collection.get_str("name") else {
                continue;
            };
            let options = collection.get_document("options");
            leaks.extend(options.ok().and_then(|o| leak_of_options(name, o)));
            names.push(name);
        }
        let indexes = names.into_iter().map(|name| self.leaks_of_indexes(name));
        for found in try_join_all(indexes).await? {
            leaks.extend(found);
        }
        Ok(leaks)
    }

    async fn leaks_of_indexes(&self, name: &str) -> Result<Vec<Leak>, Fault> {
        let command = doc! { "listIndexes": name };
        let cursor = self.database().await?.run_cursor_command(command).await?;
        let indexes: Vec<Document> = cursor.try_collect().await?;
        let leaks = indexes.iter().filter_map(|i| leak_of_index(name, i));
        Ok(leaks.collect())
    }
}
