//! A WhatsApp login that survives any restart: the init of a gateway's container that restores
//! its session directory, replicates each change, and saves the last byte after it has stopped.
//!
//! # What it is for
//!
//! A gateway (WAHA, a Baileys bot, a whatsmeow service) keeps its login as files, and hosts wipe
//! files. This program stands before the gateway as PID 1, and keeps the directory's history in
//! a store outside of the container: an [`archive`] of atomic commits, each a whole tree that is
//! known by its Merkle root.
//!
//! # What it refuses to do
//!
//! - To start a gateway on an empty or partly restored directory while a login is stored.
//! - To commit what is torn: JSON that does not parse, a database that is not consistent, a
//!   directory that was unmounted or wiped under the gateway.
//! - To write after another instance has taken the session over: the store itself says no.
//! - To delete what it finds in the way: that is set aside in `.sessionkeep/replaced`.
//! - To stop the gateway because the database is away.
//!
//! # Theory of operation
//!
//! ```text
//!            PID 1: init                       one thread, one poll, a pure state machine
//!   ┌───────────┼──────────────┐
//!   │ 1         │ 2            │ 3
//!   ▼           ▼              ▼
//! restore     watch ◀─hints── gateway ──▶ session directory
//!   │ boot      │ watcher      ▲                 │    ▲
//!   │           └──────────────┼──── reads ──────┘    │
//!   │                          │                      │
//!   └── staged, verified, put in place ───────────────┘
//!   │           │
//!   ▼           ▼
//!  store: records 1, 2, 3 … (append is the fence), packs, one lease an archive
//! ```
//!
//! 1. `boot` compares directory and store, and decides which of the two is the newer. A restore
//!    is built beside the directory, verified, and moved into place under a journal.
//! 2. `watcher` starts, then the gateway. Change notices are hints; a scan is the truth. What
//!    differs becomes one commit: one insert, after the packs that it refers to.
//! 3. At a stop signal [`init`] ends the gateway and all that descends from it. When nothing of
//!    it is alive, the watcher scans everything, commits, and lets the lease go.
//!
//! A commit's number is taken by exactly one writer. Whoever takes the lease appends a barrier
//! before it reads what to restore, so every stale writer collides with it: see [`store`].
//!
//! # Ownership
//!
//! | who | owns |
//! |---|---|
//! | [`init`] | child processes and their reaping, signals, deadlines, the directory's lock |
//! | `boot` | the directory, until the gateway starts |
//! | the gateway | the directory's content from then on; nothing else writes there |
//! | `watcher` | the lease, the end of the chain, the marker in `.sessionkeep` |
//! | [`store`] | durability, and which of two writers was first |
//!
//! How it stands is in `status`. `http` shows it; `integrations` asks the gateway and tells webhooks; both
//! run in the thread of `service_thread`.
//!
//! [`session`] knows directories and no store, [`store`] knows records and no directory;
//! [`archive`] knows the format between them, and [`control`] the words that processes exchange.
//!
//! # Failure paths
//!
//! | what fails | then |
//! |---|---|
//! | the store, at the start | waited for, then exit; or the known directory, if so configured |
//! | the store, later | changes wait, the lag shows, one commit catches up |
//! | an answer | the same record is sent again until its fate is known |
//! | the watcher | started again; the gateway runs on |
//! | the lease, to another instance | the gateway is ended at once; nothing more is saved |
//! | a stored commit | the newest whole one before it is restored, and becomes the head |
//! | power, in a restore | the next start finishes it or clears it up |
//! | the final flush | an exit code of its own; the directory still holds everything |
//!
//! Exit codes are in [`exit`], with the operator's next step for each. The long version is
//! `docs/architecture.md` and the pages that it names.
//!
//! # Crates
//!
//! This one is the binary: settings, commands, and what brings the others together. Each arrow is a
//! dependency; `app` and `stores` use `core` directly, too, and there is no other.
//!
//! ```text
//!  app ──▶ init ───────────────▶ core
//!   ├────▶ session ────────────▶ core
//!   ├────▶ archive ────────────▶ core
//!   └────▶ stores ──▶ archive
//! ```
//!
//! [`archive`]: sessionkeep_archive
//! [`control`]: sessionkeep_core::control
//! [`exit`]: sessionkeep_core::exit
//! [`init`]: sessionkeep_init
//! [`session`]: sessionkeep_session
//! [`store`]: sessionkeep_archive::store

pub mod boot;
mod boot_timer;
mod channel;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
mod http;
mod integrations;
pub mod log;
mod ownership;
mod process;
pub mod progress;
mod refused;
mod service_thread;
pub mod status;
pub mod watcher;
