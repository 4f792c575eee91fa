//! The login and its conversations, and how they are kept in files.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::ratchet;

/// Who this gateway talks to.
const PEERS: [&str; 3] = ["anna", "ben", "cleo"];

/// Where one conversation stands.
struct Conversation {
    counter: u64,
    key: [u8; 32],
}

/// A logged-in account.
pub(crate) struct Account {
    dir: PathBuf,
    db: Connection,
    /// Made once, at the first login: what a restart must not change.
    pub(crate) identity: String,
    /// Whether that was just now.
    pub(crate) fresh_login: bool,
    /// How many messages there have been.
    pub(crate) messages: u64,
    logged_in_at: u64,
    conversations: BTreeMap<&'static str, Conversation>,
}

impl Account {
    /// Goes on with the login in `dir`, or makes a new one where there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(dir)?;
        let db = Connection::open(dir.join("store.sqlite3"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS messages (
                id INTEGER PRIMARY KEY, peer TEXT NOT NULL, counter INTEGER NOT NULL,
                chain_key TEXT NOT NULL, at_ms INTEGER NOT NULL, UNIQUE (peer, counter))",
        )?;
        // As Baileys does it: credentials that cannot be read count as none at all, and a new
        // identity quietly takes the place of the old one.
        let creds = read_json(&dir.join("creds.json"));
        let fresh_login = creds.is_none();
        let creds = match creds {
            Some(creds) => creds,
            None => new_creds()?,
        };
        let identity = text(&creds, "identity")?;
        let mut account = Self {
            dir: dir.to_owned(),
            db,
            fresh_login,
            messages: number(&creds, "messages")?,
            logged_in_at: number(&creds, "logged_in_at")?,
            conversations: BTreeMap::new(),
            identity,
        };
        for peer in PEERS {
            let conversation = match read_json(&account.session_file(peer)) {
                Some(session) => Conversation {
                    counter: number(&session, "counter")?,
                    key: hex::decode(text(&session, "chain_key")?)?
                        .try_into()
                        .map_err(|_| "a chain key has the wrong length")?,
                },
                None => Conversation {
                    counter: 0,
                    key: ratchet::first_key(&account.identity, peer),
                },
            };
            account.conversations.insert(peer, conversation);
        }
        account.write_creds()?;
        Ok(account)
    }

    /// Exchanges `count` messages, with each peer in turn.
    pub(crate) fn send(&mut self, count: u64) -> Result<(), Box<dyn Error>> {
        for _ in 0..count {
            let turn = usize::try_from(self.messages % 3)?;
            self.step(PEERS[turn])?;
        }
        Ok(())
    }

    /// One more message in each conversation, written after the order to stop.
    pub(crate) fn last_words(&mut self) -> Result<(), Box<dyn Error>> {
        PEERS.into_iter().try_for_each(|peer| self.step(peer))
    }

    /// What a client may know about the login.
    pub(crate) fn describe(&self) -> Value {
        let mut chain = blake3::Hasher::new();
        let mut peers = serde_json::Map::new();
        for (peer, conversation) in &self.conversations {
            chain.update(&conversation.key);
            let told = json!({
                "counter": conversation.counter,
                "chain_key": hex::encode(conversation.key),
            });
            peers.insert((*peer).to_owned(), told);
        }
        json!({
            "identity": self.identity,
            "logged_in_at": self.logged_in_at,
            "fresh_login": self.fresh_login,
            "messages": self.messages,
            "chain": chain.finalize().to_hex().as_str(),
            "peers": peers,
        })
    }

    /// One message: the ratchet moves on, and three files tell of it.
    fn step(&mut self, peer: &'static str) -> Result<(), Box<dyn Error>> {
        let file = self.session_file(peer);
        let conversation = self
            .conversations
            .get_mut(peer)
            .ok_or("there is no such conversation")?;
        conversation.key = ratchet::next_key(&conversation.key);
        conversation.counter += 1;
        let chain_key = hex::encode(conversation.key);
        let session =
            json!({"peer": peer, "counter": conversation.counter, "chain_key": chain_key});
        fs::write(file, session.to_string())?;
        // Replacing covers a session file that a crash left behind the database: the same step
        // of the same chain is taken twice, and gives the same key.
        self.db.execute(
            "INSERT OR REPLACE INTO messages (peer, counter, chain_key, at_ms) VALUES (?1, ?2, ?3, ?4)",
            (peer, i64::try_from(conversation.counter)?, &chain_key, i64::try_from(now_ms())?),
        )?;
        self.messages += 1;
        self.write_creds()
    }

    /// Truncates and rewrites the file in place, as the libraries do.
    fn write_creds(&self) -> Result<(), Box<dyn Error>> {
        let creds = json!({
            "identity": self.identity,
            "logged_in_at": self.logged_in_at,
            "messages": self.messages,
        });
        fs::write(self.dir.join("creds.json"), creds.to_string())?;
        Ok(())
    }

    fn session_file(&self, peer: &str) -> PathBuf {
        self.dir.join(format!("session-{peer}.json"))
    }
}

fn new_creds() -> Result<Value, Box<dyn Error>> {
    let mut identity = [0u8; 16];
    getrandom::fill(&mut identity)
        .map_err(|error| format!("failed to draw an identity: {error}"))?;
    Ok(json!({"identity": hex::encode(identity), "logged_in_at": now_ms(), "messages": 0}))
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn text(value: &Value, key: &str) -> Result<String, Box<dyn Error>> {
    Ok(value[key]
        .as_str()
        .ok_or_else(|| format!("`{key}` is missing"))?
        .to_owned())
}

fn number(value: &Value, key: &str) -> Result<u64, Box<dyn Error>> {
    Ok(value[key]
        .as_u64()
        .ok_or_else(|| format!("`{key}` is missing"))?)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
