//! What a store keeps for a commit: a typed header that every store can index, and a body that
//! only `sessionkeep-archive` understands.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::entry::Digest;

/// The format that this version writes; it reads this one and every older one.
pub const FORMAT: u32 = 1;

/// Whether this version reads what is of `format`.
#[must_use]
pub fn is_known(format: u32) -> bool {
    (1..=FORMAT).contains(&format)
}

/// A commit's number within its archive: 1, 2, 3 … without gaps as written.
pub type Seq = u64;

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not usable: use 1 to 64 letters, digits, `-`, `_` or `.`")]
pub struct NameError {
    what: &'static str,
    name: String,
}

fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let usable = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if usable {
        Ok(())
    } else {
        Err(NameError {
            what,
            name: name.chars().take(80).collect(),
        })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name($what, name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check_name($what, &name)?;
                Ok(Self(name))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of one session directory's history.
    ArchiveName,
    "the archive name"
);
name_type!(
    /// The name of one life of the supervisor: host name and a random part.
    InstanceId,
    "the instance name"
);

impl InstanceId {
    /// A new name for this life, which begins with what can be used of `host`.
    #[must_use]
    pub fn generate(host: &str) -> Self {
        let host: String = host
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
            .take(40)
            .collect();
        let host = if host.is_empty() {
            "host".to_owned()
        } else {
            host
        };
        Self(format!("{host}-{}", hex::encode(random::<5>())))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = hex::FromHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(from).map(Self)
                }
            }
        }
    };
}

id_type!(
    /// Tells a writer's own retry from another writer's commit. Random.
    CommitId
);
id_type!(
    /// A pack's id: six bytes of milliseconds since 1970, then random ones (as in UUID version 7).
    PackId
);

impl CommitId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }
}

impl PackId {
    /// A new id, made now.
    #[must_use]
    pub fn generate() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::generate_at(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    /// A new id that says it was made at `ms` milliseconds since 1970.
    #[must_use]
    pub fn generate_at(ms: u64) -> Self {
        let mut bytes: [u8; 16] = random();
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        Self(bytes)
    }

    /// When it was made, in milliseconds since 1970, by the maker's clock.
    #[must_use]
    pub fn made_ms(&self) -> u64 {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(ms)
    }
}

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Changes nothing; takes a number so that every stale writer collides.
    Barrier,
    /// Changes since the record before.
    Change,
    /// The whole tree; a restore begins here.
    Checkpoint,
}

/// What is known of a commit without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format; see [`FORMAT`]. Stores check it before they look at any other field.
    pub format: u32,
    /// Which archive.
    pub archive: ArchiveName,
    /// Tells this history from any other that bears the archive's name: the id of its first record.
    pub history: CommitId,
    /// Which number in it.
    pub seq: Seq,
    /// Tells the writer's own retry from another's commit.
    pub id: CommitId,
    /// What it is for.
    pub kind: RecordKind,
    /// Who wrote it.
    pub instance: InstanceId,
    /// The lease's epoch at which it was written.
    pub epoch: u64,
    /// When, in milliseconds since 1970, by the store's clock as the writer knows it. Who may write
    /// is never decided by it; how long a superseded commit is kept is.
    pub time_ms: u64,
    /// The checkpoint that a restore of this commit begins at: its own `seq` for a checkpoint, 0
    /// where nothing has been committed yet (a barrier in a new archive). For a barrier after commits
    /// of which none could be read, the last of those.
    pub base: Seq,
    /// The newest commit, up to and including this one, that changed the tree; 0 for none.
    pub changed_at: Seq,
    /// The epoch at which that commit was written; 0 for none.
    pub changed_epoch: u64,
    /// [`Header::digest`] of the record before; zeros for the first.
    pub parent: Digest,
    /// Root of the tree that results.
    pub root: Digest,
    /// How many entries this commit adds, changes or removes.
    pub changes: u32,
    /// Content bytes that this commit brings, uncompressed.
    pub bytes: u64,
    /// How many files the resulting tree has.
    pub live_files: u64,
    /// How many content bytes the resulting tree has.
    pub live_bytes: u64,
    /// Bytes stored since the checkpoint, bodies and packs, this one's included; 0 for a checkpoint.
    pub chain_bytes: u64,
    /// Bytes that a restore of the checkpoint reads, about; 0 where there is none yet.
    pub base_bytes: u64,
    /// Packs that this commit is the first to refer to; for a checkpoint, all it refers to.
    pub packs: Vec<PackId>,
    /// Hash over the body.
    pub body_hash: Digest,
    /// Hash over all fields above; see [`Header::seal`].
    pub digest: Digest,
}

impl Header {
    /// The hash that [`Header::digest`] must have: BLAKE3, keyed by nothing, over the postcard
    /// encoding of the header with `digest` zeroed.
    #[must_use]
    pub fn seal(&self) -> Digest {
        let bare = Self {
            digest: Digest::default(),
            ..self.clone()
        };
        Digest::of(&postcard::to_stdvec(&bare).expect("a header always encodes"))
    }
}

/// A commit as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is known without the body.
    pub header: Header,
    /// Opaque to the store.
    pub body: Vec<u8>,
}
