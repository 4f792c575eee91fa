//! The archive: the history of one session directory as a chain of commits.
//!
//! A commit is an atomic change of the tree: what was added, changed, patched and removed, and the
//! BLAKE3 root of the tree that results. Small content travels inside the commit, so that an
//! ordinary one is a single insert into the store; larger content goes into packs first. Every so
//! often a checkpoint lists the whole tree, so that a restore reads live data and not history.
//!
//! ```text
//!  Builder ──packs──▶ Upload ──▶ store          Version::load ◀── store    (entries, verified)
//!     └──body──▶ Writer ──append──▶ store          Fetch::run ◀── store    (contents, verified)
//!                  └─ checkpoint ─ collect
//! ```
//!
//! What is refused when reading: anything whose hash, root, length or shape is not what its writer
//! said it was. Every length is bounded before it is believed.

mod aside;
pub mod blocks;
pub mod builder;
pub mod checkpoint;
pub mod clock;
pub mod collect;
mod compress;
mod error;
pub mod fetch;
mod folder;
pub mod format;
mod links;
pub mod newest;
mod own;
pub mod pieces;
pub mod presence;
mod recent;
pub mod store;
mod subtrees;
pub mod tree;
pub mod upload;
pub mod version;
pub mod writer;

#[cfg(test)]
mod tests;

pub use aside::Aside;
pub use error::{ArchiveError, Result};
pub use links::Links;
