//! What a restored login must satisfy, computed anew rather than believed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde_json::Value;

use crate::ratchet;

/// Where one conversation stands: its counter and its newest chain key.
pub(crate) type Position = (u64, String);

/// A login, as the gateway tells it or as its files hold it.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) identity: String,
    pub(crate) fresh_login: bool,
    pub(crate) messages: u64,
    pub(crate) peers: BTreeMap<String, Position>,
}

impl Login {
    pub(crate) fn from_json(told: &Value) -> Result<Self> {
        let peers = told["peers"].as_object().context("`peers` is missing")?;
        Ok(Self {
            identity: text(told, "identity")?,
            fresh_login: told["fresh_login"]
                .as_bool()
                .context("`fresh_login` is missing")?,
            messages: number(told, "messages")?,
            peers: peers
                .iter()
                .map(|(peer, at)| {
                    Ok((
                        peer.clone(),
                        (number(at, "counter")?, text(at, "chain_key")?),
                    ))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Walks each chain from its beginning, which the identity fixes, to its counter.
    pub(crate) fn verify_chains(&self) -> Result<()> {
        ensure!(!self.peers.is_empty(), "there is no conversation");
        for (peer, (counter, key)) in &self.peers {
            ensure!(
                *key == key_at(&self.identity, peer, *counter),
                "{peer}'s chain key is not the one of message {counter}"
            );
        }
        Ok(())
    }
}

/// The login in a directory whose gateway has stopped.
pub(crate) fn files(dir: &Path) -> Result<Login> {
    let creds = read(&dir.join("creds.json"))?;
    let mut peers = BTreeMap::new();
    for peer in ["anna", "ben", "cleo"] {
        let session = read(&dir.join(format!("session-{peer}.json")))?;
        peers.insert(
            peer.to_owned(),
            (number(&session, "counter")?, text(&session, "chain_key")?),
        );
    }
    Ok(Login {
        identity: text(&creds, "identity")?,
        fresh_login: false,
        messages: number(&creds, "messages")?,
        peers,
    })
}

/// The database in a directory whose gateway has stopped: whole, and each message's key right.
pub(crate) fn database(dir: &Path) -> Result<()> {
    let login = files(dir)?;
    let db = Connection::open(dir.join("store.sqlite3"))?;
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(
        verdict == "ok",
        "the database's integrity check says: {verdict}"
    );
    let mut rows = db.prepare("SELECT peer, counter, chain_key FROM messages")?;
    let mut rows = rows.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (peer, counter, key): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        ensure!(
            key == key_at(&login.identity, &peer, counter.try_into()?),
            "the database has a wrong key for {peer}'s message {counter}"
        );
        count += 1;
    }
    ensure!(count > 0, "the database has no messages");
    Ok(())
}

fn key_at(identity: &str, peer: &str, counter: u64) -> String {
    let first = ratchet::first_key(identity, peer);
    hex::encode((0..counter).fold(first, |key, _| ratchet::next_key(&key)))
}

fn read(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("failed to parse {}", path.display()))
}

fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key]
        .as_str()
        .with_context(|| format!("`{key}` is missing"))?
        .to_owned())
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("`{key}` is missing"))
}
