//! The Compose stack, end to end: the shipped files, used unchanged, in a real Docker Engine with
//! a real Compose and a real mongod. `tests/compose/run.sh` makes the base images where no
//! registry is reachable, and runs this; plain `cargo test` does not.
//!
//! Each test is one stack; the cases in it follow each other as they do in its life.

#[path = "compose/container.rs"]
mod container;
#[path = "compose/gateway.rs"]
mod gateway;
#[path = "compose/http.rs"]
mod http;
#[path = "compose/journal.rs"]
mod journal;
#[path = "compose/run.rs"]
mod run;
#[path = "compose/stack.rs"]
mod stack;
#[path = "compose/told.rs"]
mod told;
#[path = "compose/tree.rs"]
mod tree;

#[path = "compose/backup.rs"]
mod backup;
#[path = "compose/bots.rs"]
mod bots;
#[path = "compose/commands.rs"]
mod commands;
#[path = "compose/configuration.rs"]
mod configuration;
#[path = "compose/folders.rs"]
mod folders;
#[path = "compose/footprint.rs"]
mod footprint;
#[path = "compose/locks.rs"]
mod locks;
#[path = "compose/observability.rs"]
mod observability;
#[path = "compose/outage.rs"]
mod outage;
#[path = "compose/overlays.rs"]
mod overlays;
#[path = "compose/ownership.rs"]
mod ownership;
#[path = "compose/persistence.rs"]
mod persistence;
#[path = "compose/refusal.rs"]
mod refusal;
#[path = "compose/rights.rs"]
mod rights;
#[path = "compose/settings.rs"]
mod settings;
#[path = "compose/switching.rs"]
mod switching;
#[path = "compose/terminal.rs"]
mod terminal;
#[path = "compose/tls.rs"]
mod tls;
#[path = "compose/up.rs"]
mod up;
