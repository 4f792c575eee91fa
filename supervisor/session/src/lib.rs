//! The session directory: looking at it, watching it, reading what somebody else is writing, and
//! putting a restored one in its place.
//!
//! Everything here is synchronous and knows no store: callers run it on a blocking thread and
//! meet the archive elsewhere. The truth about a directory is [`Directory::scan`]; what
//! [`Events`] reports are hints where to look. Content is read stable ([`stable`]), databases
//! through SQLite itself ([`sqlite`]), and a restore goes through [`Stage`], which no crash can
//! leave half done.
//!
//! | module | concern |
//! |---|---|
//! | [`profile`], `reserved` | what is left out |
//! | [`scan`] | what is there |
//! | [`events`] | where to look again |
//! | [`stable`], [`json`] | reading a file that may be being written |
//! | [`form`] | whether a file may take the place of what is committed under its name |
//! | [`sqlite`], [`frozen`], [`freeze`] | a consistent image of a live database |
//! | [`unlocked`] | reading one with a rollback journal in no writer's way |
//! | [`together`] | copies of files that belong together |
//! | `soundness` | what is damage, and what is only odd |
//! | `wal` | which of its pages changed since the last one |
//! | [`follow`] | one that was deleted and made anew |
//! | [`identity`] | whose login a file holds |
//! | [`marker`] | what the directory remembers of the archive |
//! | [`mounts`], [`mount_id`] | what is mounted below it |
//! | [`rights`] | owners, modes and times that cannot be had here |
//! | [`stage`], [`install`] | building a directory beside the old one, and putting it in its place |
//! | `obstacles`, `merge` | what would stop that half-way, and moving what cannot be renamed |

pub mod events;
pub mod follow;
pub mod form;
pub mod freeze;
pub mod frozen;
pub mod identity;
pub mod install;
pub mod json;
mod json_form;
pub mod marker;
mod merge;
pub mod mount_id;
pub mod mounts;
mod obstacles;
mod own_meta;
pub mod profile;
mod reserved;
pub mod rights;
pub mod scan;
mod soundness;
mod sparse;
pub mod sqlite;
mod sqlite_vfs;
pub mod stable;
pub mod stage;
mod staged;
pub mod together;
pub mod unlocked;
pub mod wal;
mod walk;

#[cfg(test)]
mod tests;

pub use events::{Events, FsEvent};
pub use follow::NotFollowed;
pub use form::{Form, FormReader};
pub use freeze::{Freezer, ProcessFreezer, Thaw};
pub use frozen::{clear_scratch, snapshot_frozen};
pub use identity::Login;
pub use install::{Installed, Recovered, is_interrupted, recover};
pub use json_form::Reader as JsonReader;
pub use marker::{Marker, MarkerError, Mode};
pub use profile::{BrowserDirs, Exclusion, InBrowser, Profile};
pub use rights::Limits;
pub use scan::{Directory, Fingerprint, Found, FoundKind, Look, ScanReport, SkipReason};
pub use sparse::data_len;
pub use sqlite::{Check, Image, Snapshot, SnapshotError, snapshot};
pub use stable::{ReadError, Stable};
pub use stage::{Stage, StageError, StagedFile, free_space};
pub use unlocked::{Quiet, Stillness};
pub use wal::WalPosition;
